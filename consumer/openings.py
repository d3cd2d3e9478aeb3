"""Openings: what was being loaded when the process ended, for the next life of its slot.

A model that passed where it was tried may still bring down the consumer that loads it. The next life
would load it again and fall over it, for ever; so its digest stands in a small file while it is loaded:

1. ``note`` before a load, ``clear`` after it, however it went. Nothing is synced: the file outlives the
   process, and need not outlive the machine.
2. A digest that stands there when a process starts brought down the one before, or was at hand when
   somebody killed it. After ``STRIKES`` such ends in a row it is refused for a while, which doubles with
   each further one: a good model that was hit by chance is soon back, a bad one costs few restarts.
3. What ended under one onnxruntime says nothing of another: the digest stands with its version, and a
   process that has another one starts anew.
4. A process that is told to stop while it loads forgets that it did (``close``).
5. Without a folder that can be written to nothing is remembered.
"""

import fcntl
import os
import threading
import time
from contextlib import suppress
from pathlib import Path

import msgspec

STRIKES = 2
FIRST_SECONDS = 30.0
LONGEST_SECONDS = 6 * 3_600.0
MOST_DOUBLINGS = 30
SIZE = 512


class _Opening(msgspec.Struct, frozen=True):
    """Ends in a row with this digest in hand under this onnxruntime, and when the last of them was
    noticed (since 1970)."""

    digest: str
    onnxruntime: str
    ends: int
    at: float


class Openings:
    """One slot's, in ``file`` (None: nothing is remembered), which is this process's until ``close``.

    ``onnxruntime`` is the version that this process loads with.
    """

    def __init__(self, file: Path | None, onnxruntime: str) -> None:
        self._onnxruntime = onnxruntime
        self._lock = threading.Lock()
        self._descriptor = None if file is None else _own(file)
        self._before = self._read()

    def problem(self, digest: str) -> str | None:
        """None where this digest may be loaded now; else a sentence that stays the same until it may."""
        before = self._before
        if before is None or before.digest != digest or before.ends < STRIKES:
            return None
        doublings = min(before.ends - STRIKES, MOST_DOUBLINGS)
        wait = min(FIRST_SECONDS * 2.0**doublings, LONGEST_SECONDS)
        if not before.at <= time.time() < before.at + wait:
            return None
        return (
            f"a process of this slot ended while it loaded this model, {before.ends} times in a row; "
            f"it is left alone for {wait:g} s"
        )

    def note(self, digest: str) -> None:
        """It is being loaded: should the process end now, that is one end more."""
        before = self._before
        ends = before.ends if before is not None and before.digest == digest else 0
        self._write(_Opening(digest, self._onnxruntime, ends + 1, time.time()))

    def clear(self, digest: str) -> None:
        """It is loaded, or was refused; the process lives."""
        if self._before is not None and self._before.digest == digest:
            self._before = None
        self._write(self._before)

    def close(self) -> None:
        """The process ends of its own will: what it loads is not to blame. From any thread."""
        self._write(self._before)
        with self._lock:
            if self._descriptor is not None:
                os.close(self._descriptor)
            self._descriptor = None

    def _read(self) -> _Opening | None:
        if self._descriptor is not None:
            with suppress(OSError, msgspec.MsgspecError):
                found = msgspec.json.decode(os.pread(self._descriptor, SIZE, 0), type=_Opening)
                if found.onnxruntime == self._onnxruntime:
                    return msgspec.structs.replace(found, at=time.time())
        return None

    def _write(self, opening: _Opening | None) -> None:
        content = b"" if opening is None else msgspec.json.encode(opening)
        with self._lock, suppress(OSError):
            if self._descriptor is not None:
                os.pwrite(self._descriptor, content.ljust(SIZE), 0)  # in one go: never half of it


def _own(file: Path) -> int | None:
    """The file, locked until it is closed; None where another has it, or nobody can."""
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(file, flags, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise
        return descriptor
    return None
