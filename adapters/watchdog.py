"""The watchdog: a process that can no longer do its work ends, so that its supervisor starts it again.

Two things end it. A call that does not come back. One into librdkafka: measured, a
``send_offsets_to_transaction`` under way while the broker was killed ignored its limit for ever, and
a static member kept its partitions all that time. Or one into a model's runtime, which a row can hang.
And a thread that died: an instance that hears no more of the control log would answer on with a model
that was revoked. Nothing is lost by it: what was open is aborted when the slot, or the broker after a
while, fences this process.

The end comes whether or not it can be told: stderr may be full, closed, or read by nobody.
"""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from adapters.logs import drain_logs

LOOK_SECONDS = 0.5

log = structlog.get_logger()


def end_process(event: str, **details: object) -> None:
    """End this process with code 1, at once or within a second, saying why; works from any thread."""
    try:
        log.error(event, **details)
        drain_logs()
    finally:
        os._exit(1)


class Watchdog:
    """Ends the process if a watched call takes longer than ``limit_seconds``. One thread calls."""

    def __init__(self, limit_seconds: float) -> None:
        self._limit = limit_seconds
        self._call: tuple[str, float] | None = None
        threading.Thread(target=self._run, name="watchdog", daemon=True).start()

    @contextmanager
    def watching(self, what: str) -> Iterator[None]:
        """For the time of the block, the call that tries to do ``what`` is watched."""
        outer = self._call
        self._call = (what, time.monotonic() + self._limit)
        try:
            yield
        finally:
            self._call = outer

    def _run(self) -> None:
        try:
            what = self._overdue()
        except BaseException:
            end_process("thread.died", thread="watchdog", exc_info=True)
            raise
        end_process("process.stuck", what=what, seconds=self._limit)

    def _overdue(self) -> str:
        """What does not come back, once there is such a call."""
        while True:
            time.sleep(LOOK_SECONDS)
            call = self._call
            if call is not None and time.monotonic() > call[1]:
                return call[0]
