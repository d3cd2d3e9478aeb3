"""The memory budget: whether there is room for one more model, and giving back what is free.

1. The limit is what the setting says, and counts what this process has resident. Without one it is the
   smallest limit of the containers (control groups, version 2 or 1) that the process is in, and counts
   what that container has in use: several instances in one share it. Without that it is the machine's.
2. What a container has in use is without the files that the kernel has cached, read once or often (the
   cache of bundles is read at each start): it drops them before it ends a process. Files that are mapped
   count: they are the code that runs.
3. A model needs at least ``LEAST_TIMES`` its file: the bytes themselves, and the session made of them.
   What it really needs is measured where it is tried out (``vetting``); tree ensembles came to ten times
   the file, tables to little more than it.
4. glibc keeps what was freed. Without ``give_back`` after a model was dropped, resident memory is that of
   the largest moment; with it, the next model's room is there for everybody.

What is refused for lack of room is for ``admission``.
"""

import ctypes
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil

MIB = 1024 * 1024
LEAST_TIMES = 2

UNLIMITED = 2**60
"""Version 1 of control groups writes a number about as large as it can for none."""


def resident_bytes() -> int:
    """What this process has resident, in bytes."""
    return int(psutil.Process().memory_info().rss)


@dataclass(frozen=True)
class Budget:
    """``limit`` bytes, of which ``used`` are taken now. ``whose`` limit it is ends a sentence.

    ``is_shared``: others take of it too, so that what is short now may be there in a moment.
    """

    limit: int
    used: Callable[[], int]
    whose: str
    is_shared: bool = True

    def room(self) -> int:
        """Bytes that are left; below 0 where more is taken than there should be."""
        return self.limit - self.used()

    def problem(self, needed: int) -> str | None:
        """None where ``needed`` bytes more fit; else a sentence with both figures."""
        used = self.used()
        if used + needed <= self.limit:
            return None
        return (
            f"it needs {_mib(needed)} MiB, and {_mib(used)} of the {_mib(self.limit)} MiB of "
            f"{self.whose} are taken"
        )

    def overrun(self) -> str | None:
        """None where what is taken is within the limit; else a sentence with both figures."""
        used = self.used()
        if used <= self.limit:
            return None
        return (
            f"with it loaded {_mib(used)} MiB are taken, and {self.whose} is {_mib(self.limit)} MiB"
        )


def budget_of(megabytes: int, root: Path = Path("/")) -> Budget:
    """The budget that a setting of ``megabytes`` MiB (0: none) gives; ``root`` holds proc and sys."""
    if megabytes:
        setting = "consumer.memory_megabytes"
        return Budget(megabytes * MIB, resident_bytes, setting, is_shared=False)
    containers = [*_containers(root)]
    if containers:
        limit, folder = min(containers)
        return Budget(limit, lambda: _used_by(folder), "the container's memory limit")
    return Budget(psutil.virtual_memory().total, _used_by_all, "this machine's memory")


def give_back() -> None:
    """Give what was freed back to the system, where the C library can."""
    trim = _trim()
    if trim is not None:
        trim(0)  # ctypes lets go of the interpreter meanwhile


@cache
def _trim() -> Callable[[int], int] | None:
    try:
        found: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # only glibc has it
        return None
    return found


def _used_by_all() -> int:
    memory = psutil.virtual_memory()
    return int(memory.total - memory.available)


def _containers(root: Path) -> Iterator[tuple[int, Path]]:
    """Limit and folder of each control group that limits this process, in both versions."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            mounts, name = [root / "sys/fs/cgroup", root / "sys/fs/cgroup/unified"], "memory.max"
        elif "memory" in controllers.split(","):
            mounts, name = [root / "sys/fs/cgroup/memory"], "memory.limit_in_bytes"
        else:
            continue
        for mount in mounts:
            # Inside a container the path may be the host's: then only the mount itself is there.
            inner = mount / path.strip("/")
            for folder in (inner, *inner.parents):
                limit = _number(folder / name)
                if limit is not None and limit < UNLIMITED:
                    yield limit, folder
                if folder == mount:
                    break


def _used_by(folder: Path) -> int:
    for usage, files, mapped in (
        ("memory.current", ("active_file", "inactive_file"), "file_mapped"),
        (
            "memory.usage_in_bytes",
            ("total_active_file", "total_inactive_file"),
            "total_mapped_file",
        ),
    ):
        used = _number(folder / usage)
        if used is not None:
            stats = _stats(folder)
            cached = sum(stats.get(name, 0) for name in files) - stats.get(mapped, 0)
            return max(used - max(cached, 0), 0)
    return resident_bytes()


def _stats(folder: Path) -> dict[str, int]:
    try:
        lines = (folder / "memory.stat").read_text().splitlines()
    except OSError:
        return {}
    return {name: int(value) for name, _, value in (line.partition(" ") for line in lines)}


def _number(path: Path) -> int | None:
    """The number in a file; None where it is missing or says ``max``."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _mib(size: int) -> int:
    return -(-size // MIB)
