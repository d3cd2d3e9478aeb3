"""The watchdog: a process that can no longer do its work ends, so that its supervisor starts it again.

Two things end it. A call into librdkafka that does not come back: measured, a
``send_offsets_to_transaction`` under way while the broker was killed ignored its limit for ever, and
a static member kept its partitions all that time. And a thread that died: an instance that hears no
more of the control log would answer on with a model that was revoked. Nothing is lost by it: what was
open is aborted when the slot, or the broker after a while, fences this process.
"""

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

LOOK_SECONDS = 0.5

log = structlog.get_logger()


def end_process(event: str, **details: object) -> None:
    """End this process at once with code 1, saying why; works from any thread."""
    log.error(event, **details)
    sys.stderr.flush()
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
        while True:
            time.sleep(LOOK_SECONDS)
            call = self._call
            if call is not None and time.monotonic() > call[1]:
                end_process("stream.stuck", what=call[0], seconds=self._limit)
