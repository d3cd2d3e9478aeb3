"""Health: what the instance tells whoever probes it, and the port that it tells it on.

    /healthz   200 while it does its work, else 503 and the reason
    /readyz    200 while it may take traffic, else 503, its phase and why
    /metrics   the page for Prometheus

What alive and ready mean is decided in ``vitals``, what is on the page in ``measures``. All of it is read
when somebody asks, on the port's own threads, which step back behind the answering loop. Without a port
(0) there are only the summaries.

The port is opened before anything else, so that one that is taken ends the process at once, and so that
a start that waits for its broker can be told from a process that is not there.

What ready means has one more side here: a member whose session timed out lost all its partitions, and is
in its group again once it was given some (``Place``). The client does not tell of less.
"""

import json
import time
from collections.abc import Callable, Collection, Mapping
from http import HTTPStatus

from adapters.http_port import HttpPort, Reply
from adapters.metrics import Exposition, Reading
from adapters.request_stream import Committed, Listener
from adapters.settings import Consumer
from consumer.measures import Identity, readings
from consumer.slot_health import open_port
from consumer.summary import Summary
from consumer.threads import thread_of
from consumer.vitals import Verdict, Vitals, alive, ready

LOST = (
    "all its partitions were lost and none has come since: its session in the group timed out, or a "
    "rebalance went on without it"
)

STUCK_SECONDS = 30.0
"""How long the main loop may take to come round. A call to the broker is watched, and ends the process,
after 12 s (``adapters.watchdog``); this is for what nobody watches."""

SCORE_MARGIN_SECONDS = 10.0
"""What a turn may take beyond the scoring of its batch, which has a limit of its own."""


class Pulse:
    """When the main loop came round last. One thread beats, any reads."""

    def __init__(self) -> None:
        self._at = time.monotonic()

    def beat(self) -> None:
        """The loop came round, or goes on trying what the broker does not take."""
        self._at = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since then."""
        return time.monotonic() - self._at

    def beating(self, ask: Callable[[], bool]) -> Callable[[], bool]:
        """``ask``, which is called while a call to the broker is repeated, beating each time."""

        def asked() -> bool:
            self.beat()
            return ask()

        return asked


class Place:
    """The listener of a stream, which passes everything on and knows whether the place was lost.

    The stream's thread tells it, any reads.
    """

    def __init__(self, listener: Listener) -> None:
        self.is_lost = False
        """All partitions were lost, and none has come since."""
        self._listener = listener
        self._held: set[int] = set()

    def assigned(self, found: Mapping[int, Committed]) -> Collection[int]:
        """Partitions that are ours now; returns those that must not be read yet."""
        waiting = self._listener.assigned(found)
        self._held.update(found)
        if found:
            self.is_lost = False
        return waiting

    def revoked(self, partitions: Collection[int]) -> None:
        """Partitions that will go to somebody else."""
        self._held.difference_update(partitions)
        self._listener.revoked(partitions)

    def lost(self, partitions: Collection[int]) -> None:
        """Partitions that went to somebody else already."""
        self._held.difference_update(partitions)
        if partitions and not self._held:
            self.is_lost = True
        self._listener.lost(partitions)


class Health:
    """Opens its port at once; ``watch`` once there are vitals to read."""

    def __init__(self, settings: Consumer) -> None:
        """Raises UsageProblem where the port cannot be had."""
        self.pulse = Pulse()
        self.port: int | None = None
        """The port that is served, None without one."""
        self._interval = settings.summary_interval_ms / 1_000
        self._limit = max(STUCK_SECONDS, settings.score_timeout_ms / 1_000 + SCORE_MARGIN_SECONDS)
        self._read: Callable[[], Vitals] | None = None
        self._place: Place | None = None
        self._identity: Identity | None = None
        self._summary: Summary | None = None
        self._http: HttpPort | None = None
        if settings.health_port:
            self._open(settings.health_host, settings.health_port)

    def watch(
        self, identity: Identity, read: Callable[[], Vitals], place: Place | None = None
    ) -> None:
        """From here on ``read`` gives the vitals, from any thread; the summaries begin."""
        self._identity, self._place, self._read = identity, place, read
        self._summary = Summary(read, self._interval)
        self._summary.start()

    def stop(self) -> None:
        """Write the last summary, and free the port."""
        if self._summary is not None:
            self._summary.stop()
        if self._http is not None:
            self._http.close()

    def _open(self, host: str, port: int) -> None:
        exposition = Exposition(self._readings)

        def metrics(accept: str) -> Reply:
            content, content_type = exposition.page(accept)
            return Reply(HTTPStatus.OK, content_type, content)

        pages = {
            "/healthz": lambda _accept: _said(self._verdicts()[0]),
            "/readyz": lambda _accept: _said(self._verdicts()[1]),
            "/metrics": metrics,
        }
        self._http = open_port(host, port, pages)
        self.port = self._http.port
        thread_of("health", self._http.serve).start()

    def _verdicts(self) -> tuple[Verdict, Verdict]:
        return self._judge(None if self._read is None else self._read())

    def _judge(self, vitals: Vitals | None) -> tuple[Verdict, Verdict]:
        life = alive(vitals, self.pulse.seconds, self._limit)
        verdict = ready(vitals, life)
        if verdict.good and self._place is not None and self._place.is_lost:
            return life, Verdict(False, {**verdict.told, "ready": False, "detail": LOST})
        return life, verdict

    def _readings(self) -> list[Reading]:
        if self._read is None or self._identity is None:
            return []
        vitals = self._read()
        return list(readings(self._identity, vitals, self._judge(vitals)[1]))


def _said(verdict: Verdict) -> Reply:
    status = HTTPStatus.OK if verdict.good else HTTPStatus.SERVICE_UNAVAILABLE
    return Reply(status, "application/json", f"{json.dumps(verdict.told)}\n".encode())
