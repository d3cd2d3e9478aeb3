"""The object store in a folder of this machine: ``file:///folder``.

A new object is written and synced under ``.staging`` in the same folder and then hard-linked to its
name. A link either creates the whole file or fails because the name is taken, so a reader never
sees a part and two writers never both win. No key starts with a dot, which keeps ``.staging`` out
of every listing; what a killed writer leaves there is never read, and may be deleted while nobody writes.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from adapters.object_store import TooLarge, check_key, folder_of, problem_of_key
from schemas.errors import ModelwireError, NotFound

_STAGING = ".staging"


class FileStore:
    """An ``ObjectStore`` under ``root``, which the first write creates."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @property
    def url(self) -> str:
        return self._root.as_uri()

    def put_if_absent(self, key: str, content: bytes) -> bool:
        target = self._path(key)
        with self._translated(f"cannot write {key}"):
            staging = self._root / _STAGING
            staging.mkdir(parents=True, exist_ok=True)
            _make_folders(target.parent, self._root)
            draft = staging / uuid4().hex
            try:
                _write_synced(draft, content)
                os.link(draft, target)
            except FileExistsError:
                if target.is_file():
                    return False
                raise
            finally:
                draft.unlink(missing_ok=True)
            _sync_folder(target.parent)
        return True

    def get(self, key: str, *, limit: int) -> bytes:
        path = self._path(key)
        with self._translated(f"cannot read {key}"):
            try:
                # Non-blocking, so that a pipe put in an object's place cannot hang a reader.
                descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            except (FileNotFoundError, NotADirectoryError):
                raise self._not_found(key) from None
            try:
                status = os.fstat(descriptor)
                if not stat.S_ISREG(status.st_mode):
                    raise self._not_found(key)
                if status.st_size > limit:
                    raise TooLarge(f"{key} in {self.url}", size=status.st_size, limit=limit)
                with open(descriptor, "rb", closefd=False) as opened:
                    return opened.read(status.st_size)
            finally:
                os.close(descriptor)

    def remove(self, key: str) -> None:
        path = self._path(key)
        with self._translated(f"cannot remove {key}"):
            try:
                path.unlink()
            except (FileNotFoundError, NotADirectoryError):
                return
            _sync_folder(path.parent)

    def list(self, folder: str = "") -> Iterator[str]:
        prefix = folder_of(folder)

        def stop(error: OSError) -> None:
            if not isinstance(error, FileNotFoundError | NotADirectoryError):
                raise error

        with self._translated(f"cannot list {prefix or 'the store'}"):
            for place, _, names in os.walk(self._root / prefix, onerror=stop):
                for name in names:
                    path = Path(place, name)
                    key = path.relative_to(self._root).as_posix()
                    if not problem_of_key(key) and path.is_file():
                        yield key

    def exists(self, key: str) -> bool:
        path = self._path(key)
        with self._translated(f"cannot look for {key}"):
            try:
                return stat.S_ISREG(path.stat().st_mode)
            except (FileNotFoundError, NotADirectoryError):
                return False

    def _path(self, key: str) -> Path:
        check_key(key)
        return self._root / key

    def _not_found(self, key: str) -> NotFound:
        return NotFound(f"there is no {key} in {self.url}")

    @contextmanager
    def _translated(self, action: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ModelwireError(
                f"{action} in {self.url}: {error.strerror or error}", hint=_hint(error)
            ) from error


def _hint(error: OSError) -> str:
    match error.errno:
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return "give this user the right to the folder, or name another store"
        case errno.ENOSPC | errno.EDQUOT:
            return "free some disk space; nothing half-written is visible"
        case errno.ENOTDIR | errno.EEXIST | errno.EISDIR:
            return "a file stands where the store needs a folder, or a folder where it needs a file"
        case _:
            return "check the folder; it must be on a file system with hard links"


def _write_synced(path: Path, content: bytes) -> None:
    with path.open("xb") as opened:
        opened.write(content)
        opened.flush()
        os.fsync(opened.fileno())


def _make_folders(folder: Path, root: Path) -> None:
    """Makes ``folder`` below ``root``, and syncs each parent that got a new entry."""
    missing = [each for each in (folder, *folder.parents) if each.is_relative_to(root)]
    for each in reversed(missing):
        try:
            each.mkdir()
        except FileExistsError:
            continue
        _sync_folder(each.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
