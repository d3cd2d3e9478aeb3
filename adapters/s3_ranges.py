"""Answer files on an S3 server, as the file system by which DuckDB reads parts of them.

1. The bytes come through pyarrow's S3 client, which takes half of the processor's time that boto3 does
   and lets go of Python's lock meanwhile. Addresses and credentials are those of ``S3Store``: one store
   has one configuration. A question that lasts longer than temporary credentials fails at their end.
2. A Parquet file is read from its end: what it holds, and where, stands in its last bytes, and so do its
   Bloom filters. So the first read takes the last ``TAIL_BYTES``: a file that has nothing to say costs
   one request for its size and one for these. The ends read last are kept, up to ``_TAILS_BYTES``.
3. Reads of one file from several threads do not disturb each other: DuckDB seeks and then reads on one
   handle from all of its threads.
4. DuckDB makes an error of Python's a traceback in a sentence; so the first one is kept in ``problem``.
"""

import threading
from collections import OrderedDict
from datetime import UTC, datetime
from typing import Any, NoReturn
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.fs as files
from fsspec import AbstractFileSystem

from adapters.object_store import S3Settings, StoreUnavailable
from adapters.s3_store import S3Store
from schemas.errors import ModelwireError

TAIL_BYTES = 192 * 1024
"""The footer of an answer file and the Bloom filters of 100,000 request ids."""

_TAILS_BYTES = 128 * 1024 * 1024
_CONNECT_SECONDS = 3
_READ_SECONDS = 15
_ATTEMPTS = 3

_ANY_TIME = datetime(2000, 1, 1, tzinfo=UTC)
"""An answer file is never written again, so all its versions are one."""


class S3Client(S3Store):
    """The store, as pyarrow opens it."""

    def filesystem(self) -> files.S3FileSystem:
        """pyarrow's file system with the endpoint, region and credentials of this store."""
        import boto3

        given = self._settings
        session = boto3.session.Session(
            aws_access_key_id=given.access_key,
            aws_secret_access_key=given.secret_key,
            region_name=self._client.meta.region_name,
        )
        credentials = session.get_credentials()
        if credentials is None:
            raise ModelwireError(
                f"there are no credentials to read {self.url} with",
                hint="set MODELWIRE_S3__… or AWS_*, or give the task a role",
            )
        keys = credentials.get_frozen_credentials()
        endpoint = urlsplit(self._client.meta.endpoint_url)
        is_aws = (endpoint.hostname or "").endswith((".amazonaws.com", ".amazonaws.com.cn"))
        return files.S3FileSystem(
            access_key=keys.access_key,
            secret_key=keys.secret_key,
            session_token=keys.token,
            region=self._client.meta.region_name,
            scheme=endpoint.scheme,
            endpoint_override=None if is_aws else endpoint.netloc,
            connect_timeout=_CONNECT_SECONDS,
            request_timeout=_READ_SECONDS,
            retry_strategy=files.AwsStandardS3RetryStrategy(max_attempts=_ATTEMPTS),
        )

    def path(self, key: str) -> str:
        """Where pyarrow finds the object."""
        return f"{self._bucket}/{self._name(key)}"


def open_ranged(url: str, settings: S3Settings) -> "RangedFiles":
    """The files of the store at this address, which ``open_store`` has found to be one."""
    parts = urlsplit(url)
    return RangedFiles(S3Client(parts.netloc, parts.path.strip("/"), settings))


class RangedFiles(AbstractFileSystem):  # type: ignore[misc]  # fsspec has no types
    """The objects of a store as read-only files under ``ranged://<key>``."""

    protocol = "ranged"
    cachable = False

    def __init__(self, store: S3Client) -> None:
        super().__init__()
        self._store = store
        self._files = store.filesystem()
        self._lock = threading.Lock()
        self._opened: dict[str, pa.NativeFile] = {}
        self._tails: OrderedDict[str, bytes] = OrderedDict()
        self.problem: ModelwireError | None = None
        """The first thing that went wrong."""

    def _open(self, path: str, mode: str = "rb", **_: Any) -> "_RangedFile":
        if mode != "rb":
            raise PermissionError(f"{path} is only read")
        return _RangedFile(self, self._strip_protocol(path))

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Name, type and size of the object."""
        key = self._strip_protocol(path)
        return {"name": path, "type": "file", "size": self._file(key).size()}

    def modified(self, path: str) -> datetime:
        """The same for all: no answer file is ever another one."""
        return _ANY_TIME

    def exists(self, path: str, **_: Any) -> bool:
        """Whether it was listed, as all are that DuckDB is told of."""
        return True

    def glob(self, path: str, **_: Any) -> list[str]:
        """The path: it is no pattern."""
        return [path]

    def read(self, key: str, start: int, length: int) -> bytes:
        """``length`` bytes of the object from ``start`` on, fewer at its end."""
        file = self._file(key)
        before_tail = max(file.size() - TAIL_BYTES, 0)
        if start < before_tail:
            return self._part(key, file, start, length)
        tail = self._tail(key, file, before_tail)
        return tail[start - before_tail : start - before_tail + length]

    def _file(self, key: str) -> pa.NativeFile:
        if (opened := self._opened.get(key)) is not None:
            return opened
        try:
            opened = self._files.open_input_file(self._store.path(key))
        except (OSError, pa.ArrowException) as error:
            self._fail(key, error)
        return self._opened.setdefault(key, opened)

    def _tail(self, key: str, file: pa.NativeFile, start: int) -> bytes:
        with self._lock:
            if (kept := self._tails.get(key)) is not None:
                self._tails.move_to_end(key)
                return kept
        tail = self._part(key, file, start, TAIL_BYTES)
        with self._lock:
            self._tails[key] = tail
            while len(self._tails) * TAIL_BYTES > _TAILS_BYTES:
                self._tails.popitem(last=False)
        return tail

    def _part(self, key: str, file: pa.NativeFile, start: int, length: int) -> bytes:
        try:
            return bytes(file.read_at(length, start))
        except (OSError, pa.ArrowException) as error:
            self._fail(key, error)

    def _fail(self, key: str, error: BaseException) -> NoReturn:
        self.problem = self.problem or StoreUnavailable(
            f"cannot read {key} in {self._store.url}: {' '.join(str(error).split())}",
            hint="check the S3 server and the network; modelwire audit check names missing files",
        )
        raise self.problem


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
        """Nothing is held open for one reader."""
