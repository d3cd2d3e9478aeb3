"""The summary: every few seconds, one log line that says what was answered since the one before.

It is written while nothing is answered too: a silent instance and a dead one must not look alike. The
last line is written at the stop, so that the lines of an instance's life add up to what it answered.
"""

import threading
import time
from collections.abc import Callable, Mapping

import structlog

from consumer.threads import thread_of
from consumer.vitals import Vitals

JOIN_SECONDS = 1.0

log = structlog.get_logger()


class Summary:
    """Starts with ``start``, on a thread of its own; ``read`` gives the vitals of the moment."""

    def __init__(self, read: Callable[[], Vitals], interval_seconds: float) -> None:
        self._read = read
        self._interval = interval_seconds
        self._stopping = threading.Event()
        self._before: Vitals | None = None
        self._at = time.monotonic()
        self._thread = thread_of("summary", self._run)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Write the last line, and end the thread."""
        self._stopping.set()
        self._thread.join(JOIN_SECONDS)
        if not self._thread.is_alive():
            self._write()

    def _run(self) -> None:
        while not self._stopping.wait(self._interval):
            self._write()

    def _write(self) -> None:
        vitals, now = self._read(), time.monotonic()
        log.info("consumer.summary", **summary_of(self._before, vitals, now - self._at))
        self._before, self._at = vitals, now


def summary_of(before: Vitals | None, after: Vitals, seconds: float) -> Mapping[str, object]:
    """The line's fields: what came between two moments, and how things stand at the second one.

    ``rate`` is answers a second. The milliseconds are of one batch's scoring, None where there was none;
    the 99th percentile is estimated from a histogram, a few per cent either way.
    """
    answered = sum(after.forecasts.values())
    rejections = dict(after.rejections)
    aborted, scored = after.aborted, after.score_seconds
    if before is not None:
        answered -= sum(before.forecasts.values())
        rejections = {
            reason: count - before.rejections.get(reason, 0) for reason, count in rejections.items()
        }
        aborted -= before.aborted
        scored = scored.since(before.score_seconds)
    rejected = {reason: count for reason, count in sorted(rejections.items()) if count}
    return {
        "seconds": round(seconds, 3),
        "phase": after.phase.value,
        "answered": answered,
        "rejected": rejected,
        "rate": round((answered + sum(rejected.values())) / max(seconds, 0.001), 1),
        "lag": after.lag,
        "revision": after.revision,
        "read_revision": after.read_revision,
        "partitions": after.partitions,
        "batches": scored.count,
        "score_ms_mean": _milliseconds(scored.total / scored.count if scored.count else None),
        "score_ms_p99": _milliseconds(scored.quantile(0.99)),
        "aborted": aborted,
        "loaded": after.loaded,
        "resident_mb": round(after.resident_bytes / 2**20, 1),
    }


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1_000, 3)
