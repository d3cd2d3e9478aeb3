"""Turns: the trials of instances that share one limit of memory, and the one that needs it to itself.

All the instances of a container hear of a release at once, and what each sees in use holds the trials and
loads of the others. So a model that fits could be refused by every one of them:

1. Who tries a model holds a lock together with the others, from its first look at the room to the last.
2. Who finds no room lets go, waits until nobody tries one, holds the lock alone and climbs again: what
   it sees then is what is really taken.
3. A wait has a limit, after which one goes on without: a model that hangs must not keep the others from
   theirs.
4. A lock ends with its holder. Where no file can be written there is none, and who finds no room is
   refused.

The lock is of a file in a folder of this machine; instances with other folders are not known of here.
"""

import fcntl
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

WAIT_SECONDS = 10.0
POLL_SECONDS = 0.05
NAME = "trials"


class Turns:
    """The lock in ``folder``; None: there is nobody else. For one thread."""

    def __init__(self, folder: Path | None, wait_seconds: float = WAIT_SECONDS) -> None:
        self._folder = folder
        self._wait_seconds = wait_seconds

    @property
    def are_known(self) -> bool:
        """Whether there may be others to wait for."""
        return self._folder is not None

    @contextmanager
    def beside_others(self, go_on: Callable[[], None]) -> Iterator[None]:
        """Hold it with all who try; ``go_on`` is called during a wait, and may raise to end it."""
        with self._held(fcntl.LOCK_SH, go_on):
            yield

    @contextmanager
    def alone(self, go_on: Callable[[], None]) -> Iterator[None]:
        """Hold it while nobody else tries."""
        with self._held(fcntl.LOCK_EX, go_on):
            yield

    @contextmanager
    def _held(self, kind: int, go_on: Callable[[], None]) -> Iterator[None]:
        descriptor = self._open()
        try:
            deadline = time.monotonic() + self._wait_seconds
            while not _is_locked(descriptor, kind) and time.monotonic() < deadline:
                go_on()
                time.sleep(POLL_SECONDS * random.uniform(0.5, 1.5))
            yield
        finally:
            if descriptor is not None:
                os.close(descriptor)  # which lets go of the lock

    def _open(self) -> int | None:
        if self._folder is None:
            return None
        with suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            return os.open(self._folder / NAME, flags, 0o644)
        return None


def _is_locked(descriptor: int | None, kind: int) -> bool:
    """Whether the lock is held now, or cannot be had at all."""
    if descriptor is None:
        return True
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system that knows no locks
        return True
    return True
