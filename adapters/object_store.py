"""The object store: bytes under keys, written once, behind ``file://`` and ``s3://``.

Rules that both stores keep (one contract suite runs on both):

1. A key is written once. ``put_if_absent`` is atomic: a reader sees all of the content or nothing,
   and of any number of writers at once exactly one stores its bytes.
2. A key is also a path: parts of ``[A-Za-z0-9._-]``, joined by ``/``, none starting with a dot, each
   short. Nobody uses both ``a`` and ``a/b``: some servers keep keys as files.
3. A size is checked before a body is read, so that nothing larger than the caller's limit is ever
   held in memory.
4. A listing says what may be there, never what it holds: a killed writer can leave strays. Names
   that are not keys by rule 2 are left out.

What the bytes mean, and whether they are the right ones, is for ``adapters.bundles``.
``file_store`` and ``s3_store`` are opened only through ``open_store`` and ``open_removable_store``.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Protocol
from urllib.parse import unquote, urlsplit

from schemas.errors import ModelwireError, UsageProblem

MAX_PART_LENGTH = 100
"""Longest part of a key, in characters: file systems stop at 255 bytes, and servers that keep keys
as files add a suffix of their own while they write."""

MAX_KEY_LENGTH = 512
"""Longest key, in characters, without the store's own prefix. S3 stops at 1,024 with it."""

_PART = re.compile(rf"[A-Za-z0-9_-][A-Za-z0-9._-]{{0,{MAX_PART_LENGTH - 1}}}")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


class StoreUnavailable(ModelwireError):
    """The store could not be asked, or broke off its answer: the same call may work in a while."""


class TooLarge(ModelwireError):
    """The object is larger than the caller accepts; ``size`` is what the store says, in bytes."""

    def __init__(self, where: str, *, size: int, limit: int) -> None:
        super().__init__(f"{where} has {size:,} bytes, more than the {limit:,} that are accepted")
        self.size = size


class ObjectStore(Protocol):
    """A place for immutable objects. Safe to use from several threads.

    Every method raises ``ValueError`` for a key that rule 2 does not allow, ``StoreUnavailable``
    for what may pass, and ``ModelwireError`` for what will not (permissions, a missing bucket).
    """

    @property
    def url(self) -> str:
        """The address that ``open_store`` takes, without credentials and without a final slash."""
        ...

    def put_if_absent(self, key: str, content: bytes) -> bool:
        """Stores ``content`` and returns True, or returns False where the key is already taken.

        False can also mean that an earlier attempt of this very call had landed when its answer
        was lost, so a caller to whom it matters compares what is stored.
        """
        ...

    def get(self, key: str, *, limit: int) -> bytes:
        """All bytes of the object.

        Raises NotFound, and TooLarge where it has more than ``limit`` bytes (nothing is read then).
        """
        ...

    def list(self, folder: str = "") -> Iterator[str]:
        """Every key below ``folder`` (whole parts, as in ``bundles``; empty for all), in no order.

        A folder that does not exist is empty.
        """
        ...

    def exists(self, key: str) -> bool:
        """Whether an object is stored under the key."""
        ...


class RemovableStore(ObjectStore, Protocol):
    """A store whose objects may be removed, for the few who tidy up: all others add only."""

    def remove(self, key: str) -> None:
        """Removes the object; that there is none is fine."""
        ...


@dataclass(frozen=True)
class S3Settings:
    """How to reach an S3 server.

    What is None is left to boto3's own chain: ``AWS_*``, profiles, the role of a task. An
    ``endpoint_url`` is for servers other than AWS; it also switches to path addressing, since such
    servers rarely have a host name for each bucket.
    """

    endpoint_url: str | None = None
    region: str | None = None
    access_key: str | None = None
    secret_key: str | None = field(default=None, repr=False)

    DEFAULT_REGION: ClassVar[str] = "us-east-1"
    """Signed with when an endpoint is given and no region: the name that S3 servers expect."""


def open_store(url: str, s3: S3Settings | None = None) -> ObjectStore:
    """As ``open_removable_store``, for those who remove nothing."""
    return open_removable_store(url, s3)


def open_removable_store(url: str, s3: S3Settings | None = None) -> RemovableStore:
    """The store at ``file:///folder[/prefix]`` or ``s3://bucket[/prefix]``.

    Nothing is created and nobody is asked yet: a missing folder is an empty store, a missing bucket
    shows at the first call. Raises UsageProblem where the address or the settings make no sense.
    """
    parts = urlsplit(url)
    if parts.query or parts.fragment:
        raise _not_an_address(url, "has a query or a fragment")
    # The two stores are imported where they are needed: boto3 alone takes a quarter of a second.
    if parts.scheme == "file":
        from adapters.file_store import FileStore

        if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
            raise _not_an_address(url, "does not name an absolute path")
        return FileStore(Path(unquote(parts.path)))
    if parts.scheme == "s3":
        from adapters.s3_store import S3Store

        prefix = parts.path.strip("/")
        if not _BUCKET.fullmatch(parts.netloc):
            raise _not_an_address(url, "does not name a bucket")
        if prefix and problem_of_key(prefix):
            raise _not_an_address(url, f"has an unusable prefix: {problem_of_key(prefix)}")
        return S3Store(parts.netloc, prefix, s3 or S3Settings())
    raise _not_an_address(
        url, f"has the scheme {parts.scheme!r}" if parts.scheme else "has no scheme"
    )


def problem_of_key(key: str) -> str:
    """What is wrong with a key, as the end of a sentence; empty for a good one."""
    if not 0 < len(key) <= MAX_KEY_LENGTH:
        return f"it has {len(key)} characters, outside 1 … {MAX_KEY_LENGTH}"
    for part in key.split("/"):
        if not _PART.fullmatch(part):
            return (
                f"{part!r} is not 1 … {MAX_PART_LENGTH} of A-Z a-z 0-9 . _ - without a dot in front"
            )
    return ""


def check_key(key: str) -> None:
    """Raises ValueError where a key breaks rule 2."""
    if problem := problem_of_key(key):
        raise ValueError(f"not a key of an object store: {key[:200]!r}: {problem}")


def folder_of(folder: str) -> str:
    """``folder`` as a prefix of keys: empty, or with one final slash. ValueError by rule 2."""
    bare = folder.removesuffix("/")
    if not bare:
        return ""
    check_key(bare)
    return f"{bare}/"


def _not_an_address(url: str, problem: str) -> UsageProblem:
    return UsageProblem(
        f"the object store address {url!r} {problem}",
        hint="write file:///absolute/folder or s3://bucket/prefix",
    )
