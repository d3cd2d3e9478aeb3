"""Stderr as a place for log lines: whatever becomes of it, who writes a line neither waits nor fails.

1. A thread writes the lines, in order, each in one write with its newline, since slots share a stderr.
2. A line that cannot be written (a full disk, a closed pipe), or that comes while ``MOST_WAITING`` wait
   (a pipe that nobody reads), is dropped and counted.
3. Once lines are taken again, the next one is followed by one that says how many are missing in all.

A process that is killed loses the lines that wait, which is those of less than a millisecond. At an
ordinary end they are written first (``drain``). What a line looks like is for ``adapters.logs``.
"""

import atexit
import os
import select
import threading
from collections.abc import Callable
from queue import SimpleQueue

MOST_WAITING = 1_000
"""A few megabytes at most. A collector that restarts is away for seconds, in which few lines come."""

LAST_SECONDS = 1.0
"""How long an end waits for the lines before it to be written."""


class StderrLines:
    """Takes lines in place of structlog's own loggers. Safe from any thread."""

    def __init__(self, fd: int | None, say_lost: Callable[[int], None]) -> None:
        """``fd`` None: there is no stderr. ``say_lost`` writes a line: so many were lost so far."""
        self._fd = fd
        self._say_lost = say_lost
        self._waiting: SimpleQueue[str | threading.Event] = SimpleQueue()
        self._counting = threading.Lock()
        self._lost = self._told = 0
        self._takes = True
        self._torn = False
        if fd is not None:
            threading.Thread(target=self._run, name="log", daemon=True).start()
            atexit.register(self.drain)

    def msg(self, line: str) -> None:
        """Write ``line``, which has no newline yet; soon, or never."""
        if self._fd is None:
            return
        if self._waiting.qsize() >= MOST_WAITING:
            self._lose()
            return
        self._waiting.put(line)
        lost = self._lost
        if lost > self._told and self._takes and self._waiting.qsize() < MOST_WAITING // 2:
            self._told = lost
            self._say_lost(lost)

    debug = info = warning = error = critical = exception = msg

    def drain(self) -> None:
        """Wait until the lines so far are written or lost, for at most ``LAST_SECONDS``."""
        if self._fd is not None:
            reached = threading.Event()
            self._waiting.put(reached)
            reached.wait(LAST_SECONDS)

    def _lose(self) -> None:
        with self._counting:
            self._lost += 1

    def _run(self) -> None:
        assert self._fd is not None
        while True:
            line = self._waiting.get()
            if isinstance(line, threading.Event):
                line.set()
                continue
            self._takes = self._write(self._fd, line)
            if not self._takes:
                self._lose()

    def _write(self, fd: int, line: str) -> bool:
        """Whether all of ``line`` was written. The rest of one that was cut off gets no other's start."""
        text = f"\n{line}\n" if self._torn else f"{line}\n"
        left = text.encode(errors="backslashreplace")
        whole = len(left)
        while left:
            try:
                left = left[os.write(fd, left) :]
            except BlockingIOError:  # whoever gave it made it so
                select.select([], [fd], [])
            except OSError:
                self._torn = self._torn or len(left) < whole
                return False
        self._torn = False
        return True
