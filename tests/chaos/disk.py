"""The disk of the consumers' cache, which can be full.

Where the system lets a process have a file system of its own (Linux with user namespaces, no privileges
needed), that is a small one in memory, and filling it gives the consumers a real ENOSPC, on the cache and
nowhere else. Elsewhere the consumers' processes are told that no file of theirs may grow, which strikes
everything that they write.
"""

import errno
import resource
import subprocess
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

SIZE = "64m"
"""More than all bundles of a run take together."""

BLOCK = bytes(2**20)

_OWN_DISK = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
_MOUNT = f'mount -t tmpfs -o size={SIZE} tmpfs "$0" && exec "$@"'


class CacheDisk:
    """The disk at ``folder``, for the processes that are started through ``around``."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.is_real = _can_mount(folder)

    def around(self, command: list[str]) -> list[str]:
        """The command that runs ``command`` with this disk; the process stays the same."""
        return [*_OWN_DISK, _MOUNT, str(self.folder), *command] if self.is_real else command

    def fill(self, processes: Iterable[int]) -> None:
        """Let there be no room for these processes."""
        for pid in processes:
            if not self.is_real:
                _limit_files(pid, 0)
                continue
            with suppress(FileNotFoundError), self._ballast(pid).open("wb", buffering=0) as ballast:
                _write_all_there_is(ballast.write)
            return

    def empty(self, processes: Iterable[int]) -> None:
        """Give the room back."""
        for pid in processes:
            if not self.is_real:
                _limit_files(pid, resource.RLIM_INFINITY)
                continue
            self._ballast(pid).unlink(missing_ok=True)
            return

    def _ballast(self, pid: int) -> Path:
        """The file that takes the room, as it is seen from here: only the processes have the disk."""
        return Path(f"/proc/{pid}/root") / self.folder.relative_to("/") / "ballast"


def _can_mount(folder: Path) -> bool:
    with suppress(OSError):
        tried = [*_OWN_DISK, _MOUNT, str(folder), "true"]
        return subprocess.run(tried, capture_output=True, check=False).returncode == 0
    return False


def _write_all_there_is(write: Callable[[bytes], int]) -> None:
    for size in (len(BLOCK), 4_096, 1):
        try:
            while write(BLOCK[:size]):
                pass
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise


def _limit_files(pid: int, size: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        _, most = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        soft = most if size == resource.RLIM_INFINITY else size
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (soft, most))
