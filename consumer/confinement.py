"""Confinement: what a process of a ``sandbox`` takes from itself before it looks at a model.

It dies with its parent, leaves no core, writes no file, opens nothing more (neither files nor sockets),
has its time of CPU and its address space limited, and is the first to go where memory is short: as far
as the system can. The limits stop accidents; they are no prison for a model that is written to break out.
"""

import contextlib
import os
import resource
import sys
from pathlib import Path

from adapters.processes import die_with_parent

LARGEST_WRITE = 64 * 1024
"""Most that may be written to a file: what a dying runtime says on stderr."""


ALLOCATION_FAILED = ("Failed to allocate memory", "bad_alloc", "MemoryError")
"""What onnxruntime says where it gets no memory; such errors have no type of their own."""


def settle(parent: int) -> None:
    """What can be taken at once: to live on without ``parent``, and to be in others' way."""
    if not die_with_parent(parent):
        os._exit(0)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def has_job() -> bool:
    """Waits for the job; False where nobody needs it done any more."""
    return bool(sys.stdin.buffer.read(1))


def confine(*, address_bytes: int, cpu_seconds: int) -> None:
    """From here on: these limits, and no file, socket or core."""
    _set(resource.RLIMIT_CORE, 0)
    _set(resource.RLIMIT_FSIZE, LARGEST_WRITE)
    _set(resource.RLIMIT_NOFILE, 0)
    # The second limit is the one that kills; at the first the signal tells it from other deaths.
    _set(resource.RLIMIT_CPU, cpu_seconds, cpu_seconds + 1)
    _set(resource.RLIMIT_AS, address_bytes)


def _set(limit: int, soft: int, hard: int | None = None) -> None:
    """Only ever down; a system that does not know the limit goes without."""
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(limit, (soft, soft if hard is None else hard))
