"""The object store in a bucket: ``s3://bucket/prefix``, on AWS or on any server that speaks S3.

A put carries ``If-None-Match: *``, so the server decides who was first, and the SHA-256 of its body,
so a body damaged on the way is refused. Protocol:
https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html

What fails becomes StoreUnavailable when a later try may succeed (network, 5xx, throttling, a body that
breaks off) and another ModelwireError when it will not (bucket, credentials, permissions). Each call
makes up to three tries, with pauses drawn at random so that those who failed together do not return
together. boto3 makes none of its own: its tries do not cover a body, and they would multiply these. A
try to read that took long is the last, so that a server that hangs costs a reader one timeout: it has a
limit of its own and better uses for the rest of it. A writer has nothing better to do than to try again.

However a server drips, a read ends: an answer has ``_ANSWER_SECONDS`` up to its body, each block of a
body ``_BLOCK_SECONDS``, and all of it what the caller allows by ``timed_reads.reading_by``.
"""

import io
import math
import random
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from functools import cached_property
from hashlib import sha256
from ipaddress import ip_address
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

import boto3
import botocore.exceptions as boto_errors
from botocore.config import Config

from adapters.object_store import (
    S3Settings,
    StoreUnavailable,
    TooLarge,
    check_key,
    folder_of,
    problem_of_key,
)
from adapters.timed_reads import reading_by, seconds_left, time_reads
from schemas.errors import ModelwireError, NotFound, UsageProblem

if TYPE_CHECKING:
    from botocore.response import StreamingBody
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import ListObjectsV2OutputTypeDef, ListObjectsV2RequestTypeDef

Result = TypeVar("Result")

_CONNECT_SECONDS = 3
_READ_SECONDS = 4
"""Longest wait for the next byte. A server's first byte takes it milliseconds."""

_WRITE_SECONDS = 15
"""The same after an object was sent, which the server may have to check and to store first."""

_ATTEMPTS = 3
_PATIENCE_SECONDS = 2.5
"""No further try to read is made after this: less than either timeout, more than three quick failures
take."""

_FIRST_PAUSE_SECONDS = 0.1

_ANSWER_SECONDS = 6.0
"""Longest time from a question to the whole answer, or to the first byte of an object, the connection
included."""

_BLOCK_BYTES = 512 * 1024
_BLOCK_SECONDS = 4.0
"""Longest time for a block of an object, from its first to its last, which is 128 KiB a second. A server
that is slower is as good as away: nobody could say how long it takes."""

_CONFLICT_ATTEMPTS = 6
"""Attempts at a put while the server says 409: two puts met, and neither has been decided."""

_CREDENTIAL_CODES = {
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "InvalidToken",
    "ExpiredToken",
    "AuthorizationHeaderMalformed",
}
_TRANSIENT_CODES = {
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "RequestTimeout",
    "InternalError",
    "ServiceUnavailable",
    "BadDigest",
    "XAmzContentSHA256Mismatch",
}
_TAKEN = {"PreconditionFailed", "412"}
_UNDECIDED = {"ConditionalRequestConflict", "409"}
_MISSING = {"NoSuchKey", "NotFound", "404"}


class S3Store:
    """An ``ObjectStore`` in ``bucket``, below ``prefix`` (empty for the whole bucket)."""

    def __init__(self, bucket: str, prefix: str, settings: S3Settings) -> None:
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._settings = settings
        self._client = _client(settings, _READ_SECONDS)

    @cached_property
    def _writer(self) -> "S3Client":
        return _client(self._settings, _WRITE_SECONDS)

    @property
    def url(self) -> str:
        return f"s3://{self._bucket}/{self._prefix}".removesuffix("/")

    def put_if_absent(self, key: str, content: bytes) -> bool:
        name = self._name(key)
        checksum = b64encode(sha256(content).digest()).decode()

        def put() -> bool | None:
            try:
                self._writer.put_object(
                    Bucket=self._bucket,
                    Key=name,
                    Body=content,
                    IfNoneMatch="*",
                    ChecksumSHA256=checksum,
                )
            except boto_errors.ClientError as error:
                if _code(error) in _TAKEN:
                    return False
                if _code(error) in _UNDECIDED:
                    return None
                raise
            return True

        for attempt in range(_CONFLICT_ATTEMPTS):
            was_first = self._tried(f"cannot write {key}", put, patience=math.inf)
            if was_first is not None:
                return was_first
            time.sleep(random.uniform(0.5, 1) * 0.02 * 2**attempt)
        raise StoreUnavailable(
            f"cannot write {key} in {self.url}: other writes of this key met it"
            f" {_CONFLICT_ATTEMPTS} times",
            hint="try again",
        )

    def get(self, key: str, *, limit: int) -> bytes:
        name = self._name(key)

        def get() -> bytes:
            with _in_time():
                answer = self._client.get_object(Bucket=self._bucket, Key=name)
            with closing(answer["Body"]) as body:
                if "ContentLength" not in answer:
                    raise ModelwireError(f"{self.url} does not say how large {key} is")
                if (size := answer["ContentLength"]) > limit:
                    raise TooLarge(f"{key} in {self.url}", size=size, limit=limit)
                return self._received(key, body, size)

        return self._tried(f"cannot read {key}", get, key=key)

    def remove(self, key: str) -> None:
        name = self._name(key)

        def remove() -> None:
            with _in_time():
                self._client.delete_object(Bucket=self._bucket, Key=name)

        self._tried(f"cannot remove {key}", remove)

    def list(self, folder: str = "") -> Iterator[str]:
        prefix = folder_of(folder)
        page: ListObjectsV2RequestTypeDef = {
            "Bucket": self._bucket,
            "Prefix": self._prefix + prefix,
        }
        while True:
            listed = self._tried(f"cannot list {prefix or 'the store'}", lambda: self._page(page))
            for entry in listed.get("Contents", ()):
                key = entry["Key"].removeprefix(self._prefix)
                if not problem_of_key(key):
                    yield key
            if not listed["IsTruncated"]:
                return
            page["ContinuationToken"] = listed["NextContinuationToken"]

    def exists(self, key: str) -> bool:
        name = self._name(key)

        def look() -> bool:
            with _in_time():
                try:
                    self._client.head_object(Bucket=self._bucket, Key=name)
                except boto_errors.ClientError as error:
                    if _code(error) not in _MISSING:
                        raise
                    # The answer to HEAD has no body to say whether the key or the bucket is missing.
                    self._client.head_bucket(Bucket=self._bucket)
                    return False
            return True

        return self._tried(f"cannot look for {key}", look)

    def _name(self, key: str) -> str:
        check_key(key)
        return self._prefix + key

    def _page(self, page: "ListObjectsV2RequestTypeDef") -> "ListObjectsV2OutputTypeDef":
        with _in_time():
            return self._client.list_objects_v2(**page)

    def _received(self, key: str, body: "StreamingBody", size: int) -> bytes:
        """All of a body, unless it comes too slowly."""
        content = io.BytesIO()  # which gives its bytes away without a copy
        try:
            while True:
                with reading_by(time.monotonic() + _BLOCK_SECONDS):
                    block = body.read(_BLOCK_BYTES)
                if not block:
                    return content.getvalue()
                content.write(block)
        except boto_errors.ReadTimeoutError as error:
            raise StoreUnavailable(
                f"cannot read {key} in {self.url}: after {content.tell():,} of its {size:,} bytes the S3"
                f" server {self._client.meta.endpoint_url} sends too slowly, or no more",
                hint="check the server and the network",
            ) from error

    def _tried(
        self,
        action: str,
        call: Callable[[], Result],
        *,
        key: str = "",
        patience: float = _PATIENCE_SECONDS,
    ) -> Result:
        """What the call gives at one of its tries; ``key`` as in ``_translated``."""
        began = time.monotonic()
        attempt = 1
        while True:
            try:
                with self._translated(action, key=key):
                    return call()
            except StoreUnavailable:
                is_late = time.monotonic() - began > patience or seconds_left() <= 0
                if attempt == _ATTEMPTS or is_late:
                    raise
            time.sleep(random.uniform(0.5, 1.5) * _FIRST_PAUSE_SECONDS * 2 ** (attempt - 1))
            attempt += 1

    @contextmanager
    def _translated(self, action: str, *, key: str = "") -> Iterator[None]:
        """``key`` is set where 'not found' means that object, and not the bucket."""
        where = f"{action} in {self.url}"
        try:
            yield
        except boto_errors.ClientError as error:
            if key and _code(error) in _MISSING:
                raise NotFound(f"there is no {key} in {self.url}") from error
            raise self._problem(where, error) from error
        except (boto_errors.NoCredentialsError, boto_errors.PartialCredentialsError) as error:
            raise ModelwireError(f"{where}: {error}", hint=_CREDENTIALS_HINT) from error
        except boto_errors.SSLError as error:
            raise ModelwireError(
                f"{where}: no trusted connection: {error}",
                hint="check the endpoint's scheme and certificate (AWS_CA_BUNDLE names the roots)",
            ) from error
        except (boto_errors.ConnectionError, boto_errors.HTTPClientError) as error:
            raise StoreUnavailable(
                f"{where}: the S3 server {self._client.meta.endpoint_url} does not answer: {error}",
                hint="check the endpoint and the network; for the local one, `modelwire up`",
            ) from error
        except (boto_errors.IncompleteReadError, boto_errors.FlexibleChecksumError) as error:
            raise StoreUnavailable(
                f"{where}: the object arrived damaged: {error}", hint="try again"
            ) from error
        except boto_errors.BotoCoreError as error:
            raise ModelwireError(f"{where}: {error}") from error

    def _problem(self, where: str, error: boto_errors.ClientError) -> ModelwireError:
        code = _code(error)
        answer = error.response.get("Error", {}).get("Message", "")
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        server = self._client.meta.endpoint_url
        if code == "NoSuchBucket" or code in _MISSING:
            return ModelwireError(
                f"{where}: the bucket {self._bucket!r} does not exist on {server}",
                hint=f"create the bucket {self._bucket!r}, or name another store",
            )
        if code in _CREDENTIAL_CODES:
            return ModelwireError(
                f"{where}: {server} does not accept the access key or its secret ({code})",
                hint=_CREDENTIALS_HINT,
            )
        if status == 403:
            return ModelwireError(
                f"{where}: {server} refuses access to the bucket {self._bucket!r} ({code})",
                hint=f"{_CREDENTIALS_HINT}; they need to get, put and list there",
            )
        if status >= 500 or status == 429 or code in _TRANSIENT_CODES:
            return StoreUnavailable(
                f"{where}: {server} answered {status} {code}: {answer}", hint="try again"
            )
        return ModelwireError(f"{where}: {server} answered {status} {code}: {answer}")


def _in_time() -> AbstractContextManager[None]:
    """For the block that asks a question and reads the answer, but for an object's bytes."""
    return reading_by(time.monotonic() + _ANSWER_SECONDS)


_CREDENTIALS_HINT = "check the S3 credentials: MODELWIRE_S3__… settings, AWS_* or the task's role"


def _client(settings: S3Settings, read_seconds: float) -> "S3Client":
    if (settings.access_key is None) != (settings.secret_key is None):
        raise UsageProblem(
            "the S3 settings hold only one of access key and secret key",
            hint="set both, or neither and leave them to AWS_* or the task's role",
        )
    endpoint = settings.endpoint_url
    region = settings.region or (S3Settings.DEFAULT_REGION if endpoint else None)
    config = Config(
        signature_version="s3v4",
        s3={"addressing_style": "path" if endpoint else "auto"},
        connect_timeout=_CONNECT_SECONDS,
        read_timeout=read_seconds,
        retries={"mode": "standard", "total_max_attempts": 1},
        # None leaves the proxy to HTTPS_PROXY; a proxy cannot reach this machine's own loopback.
        proxies={} if endpoint and _is_loopback(endpoint) else None,
    )
    try:
        # A session of its own: boto3's default session is not safe to share between threads.
        session = boto3.session.Session(
            aws_access_key_id=settings.access_key,
            aws_secret_access_key=settings.secret_key,
            region_name=region,
        )
        client = session.client("s3", endpoint_url=endpoint, config=config)
    except (boto_errors.BotoCoreError, ValueError) as error:
        raise UsageProblem(
            f"the S3 settings cannot be used: {error}",
            hint="check the endpoint (http://host:port), the region and the credentials",
        ) from error
    time_reads(client)
    return client


def _is_loopback(endpoint: str) -> bool:
    host = urlsplit(endpoint).hostname or ""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _code(error: boto_errors.ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))
