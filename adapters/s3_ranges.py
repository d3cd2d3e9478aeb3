"""Parts of a bucket's objects, and the file system by which DuckDB reads them.

1. A Parquet file is read from its end: what it holds, and where, stands in its last bytes, and so do its
   Bloom filters. The first question for an object asks for its last ``TAIL_BYTES``, which also tells its
   size: an answer file that has nothing to say costs one question. The ends read last are kept, up to
   ``_TAILS_BYTES``. Every other read is a question of its own.
2. A part is of the version of the object that the end was of; where that is gone, it is not found.
3. Reads of one file from several threads do not disturb each other: DuckDB seeks and then reads, on one
   handle, from all of its threads.
4. What the server does is told as ``S3Store`` tells it. DuckDB would make it a traceback in a sentence,
   so the first such problem is kept in ``problem``.
"""

import threading
import time
from collections import OrderedDict
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from fsspec import AbstractFileSystem

from adapters.s3_store import S3Store
from adapters.timed_reads import reading_by
from schemas.errors import ModelwireError

if TYPE_CHECKING:
    from mypy_boto3_s3.type_defs import GetObjectOutputTypeDef

TAIL_BYTES = 192 * 1024
"""The footer of an answer file and the Bloom filters of 100,000 request ids."""

_TAILS_BYTES = 128 * 1024 * 1024
_ANSWER_SECONDS = 6.0
"""Longest time from a question to the first byte of its answer, as in ``s3_store``."""


@dataclass(frozen=True)
class About:
    """What an answer said of the whole object."""

    size: int
    etag: str
    modified: datetime


class S3Ranges(S3Store):
    """The objects of a bucket in parts. Raises as ``S3Store`` does."""

    def tail(self, key: str) -> tuple[bytes, About]:
        """The last ``TAIL_BYTES`` of the object, or all of a smaller one."""

        def ask() -> tuple[bytes, About]:
            answer = self._asked(key, f"bytes=-{TAIL_BYTES}")
            size = int(answer["ContentRange"].rpartition("/")[2])
            content = self._body(key, answer)
            return content, About(size, answer["ETag"], answer["LastModified"])

        return self._tried(f"cannot read {key}", ask, key=key)

    def part(self, key: str, start: int, length: int, etag: str) -> bytes:
        """``length`` bytes from ``start`` on, fewer at the end, of this version of the object."""

        def ask() -> bytes:
            answer = self._asked(key, f"bytes={start}-{start + length - 1}", IfMatch=etag)
            return self._body(key, answer)

        return self._tried(f"cannot read {key}", ask, key=key)

    def _asked(self, key: str, part: str, **conditions: Any) -> "GetObjectOutputTypeDef":
        with reading_by(time.monotonic() + _ANSWER_SECONDS):
            return self._client.get_object(
                Bucket=self._bucket, Key=self._name(key), Range=part, **conditions
            )

    def _body(self, key: str, answer: "GetObjectOutputTypeDef") -> bytes:
        with closing(answer["Body"]) as body:
            return self._received(key, body, answer["ContentLength"])


class RangedFiles(AbstractFileSystem):  # type: ignore[misc]  # fsspec has no types
    """The objects of ``ranges`` as read-only files under ``ranged://<key>``."""

    protocol = "ranged"
    cachable = False

    def __init__(self, ranges: S3Ranges) -> None:
        super().__init__()
        self._ranges = ranges
        self._lock = threading.Lock()
        self._known: dict[str, About] = {}
        self._tails: OrderedDict[str, bytes] = OrderedDict()
        self.problem: ModelwireError | None = None
        """The first thing that went wrong."""

    def _open(self, path: str, mode: str = "rb", **_: Any) -> "_RangedFile":
        if mode != "rb":
            raise PermissionError(f"{path} is only read")
        return _RangedFile(self, self._strip_protocol(path))

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Name, type and size of the object."""
        return {"name": path, "type": "file", "size": self._about(path).size}

    def modified(self, path: str) -> datetime:
        """When the object was stored."""
        return self._about(path).modified

    def exists(self, path: str, **_: Any) -> bool:
        """Whether it was listed, as all are that DuckDB is told of."""
        return True

    def glob(self, path: str, **_: Any) -> list[str]:
        """The path: it is no pattern."""
        return [path]

    def read(self, key: str, start: int, length: int) -> bytes:
        """``length`` bytes of the object from ``start`` on, fewer at its end."""
        try:
            about = self._about(key)
            before_tail = max(about.size - TAIL_BYTES, 0)
            if start >= before_tail:
                tail = self._tail(key)
                return tail[start - before_tail : start - before_tail + length]
            return self._ranges.part(key, start, length, about.etag)
        except ModelwireError as error:
            self.problem = self.problem or error
            raise

    def _about(self, path: str) -> About:
        key = self._strip_protocol(path)
        if key not in self._known:
            self._tail(key)
        return self._known[key]

    def _tail(self, key: str) -> bytes:
        with self._lock:
            kept = self._tails.get(key)
            if kept is not None:
                self._tails.move_to_end(key)
                return kept
        try:
            content, about = self._ranges.tail(key)
        except ModelwireError as error:
            self.problem = self.problem or error
            raise
        with self._lock:
            self._known.setdefault(key, about)
            self._tails[key] = content
            while len(self._tails) * TAIL_BYTES > _TAILS_BYTES:
                self._tails.popitem(last=False)
        return content


class _RangedFile:
    """An open file, with a place for each thread that reads it."""

    def __init__(self, files: RangedFiles, key: str) -> None:
        self._files = files
        self._key = key
        self._places: dict[int, int] = {}

    def seek(self, place: int) -> int:
        """Where this thread reads next."""
        self._places[threading.get_ident()] = place
        return place

    def tell(self) -> int:
        """Where this thread reads next."""
        return self._places.get(threading.get_ident(), 0)

    def read(self, length: int) -> bytes:
        """The next bytes of this thread."""
        content = self._files.read(self._key, self.tell(), length)
        self.seek(self.tell() + len(content))
        return content

    def close(self) -> None:
        """Nothing is held open."""
