"""Files from a bucket: any key is listed, and an object of any size is copied to this machine.

For data that others wrote, where ``S3Store`` is for objects of our own: the names may be anything, and
the objects may be larger than memory. A copy is one answer of the server, so it is of one version of
the object; where the server keeps a checksum of all of it, a damaged copy is found by that. What breaks
off begins anew, three tries in all, however long they take: the caller has nothing better to do.
"""

import math
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import botocore.exceptions as boto_errors

from adapters.object_store import StoreUnavailable
from adapters.s3_store import S3Store
from adapters.timed_reads import reading_by

if TYPE_CHECKING:
    from mypy_boto3_s3.type_defs import ListObjectsV2RequestTypeDef

_ANSWER_SECONDS = 6.0
"""Longest time from a question to the first byte of an object, as in ``s3_store``."""

_BLOCK_BYTES = 512 * 1024
_BLOCK_SECONDS = 4.0
"""Longest time for a block, as in ``s3_store``: a server that is slower is as good as away."""


class S3Files(S3Store):
    """The objects of a bucket as files. Raises as ``S3Store`` does."""

    def keys(self, prefix: str) -> Iterator[str]:
        """Every key that begins with ``prefix``, whatever its characters, but for folder marks."""
        page: ListObjectsV2RequestTypeDef = {"Bucket": self._bucket, "Prefix": prefix}
        while True:
            listed = self._tried(f"cannot list {prefix}*", lambda: self._page(page))
            for entry in listed.get("Contents", ()):
                if not entry["Key"].endswith("/"):
                    yield entry["Key"]
            if not listed["IsTruncated"]:
                return
            page["ContinuationToken"] = listed["NextContinuationToken"]

    def download(self, key: str, target: Path) -> None:
        """Copies the object to ``target``, a block at a time. Raises NotFound where there is none."""
        self._tried(
            f"cannot read {key}", lambda: self._copy(key, target), key=key, patience=math.inf
        )

    def _copy(self, key: str, target: Path) -> None:
        with reading_by(time.monotonic() + _ANSWER_SECONDS):
            answer = self._client.get_object(Bucket=self._bucket, Key=key)
        size = answer["ContentLength"]
        with closing(answer["Body"]) as body, target.open("wb") as file:
            try:
                while True:
                    with reading_by(time.monotonic() + _BLOCK_SECONDS):
                        block = body.read(_BLOCK_BYTES)
                    if not block:
                        return
                    file.write(block)
            except boto_errors.ReadTimeoutError as error:
                raise StoreUnavailable(
                    f"cannot read {key} in {self.url}: after {file.tell():,} of its {size:,} bytes the"
                    f" S3 server {self._client.meta.endpoint_url} sends too slowly, or no more",
                    hint="check the server and the network",
                ) from error
