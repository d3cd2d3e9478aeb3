"""Aborts: the guard's verdicts, carried out.

The reporter's thread lends ``guard`` its view of the fleet; an abort is appended on a thread of its
own, one at a time and with bounded patience, so that announcements go on. Whatever goes wrong is a
log line: the guard looks again later, and answering never depends on it. The credentials that
consumers have must allow to append to the control log; where they do not, a person has to abort.

The view is fresh where it holds an announcement that this very process made a moment ago: a start
reads the topic's past first, and a broker that was away brings back an old one.
"""

import threading
import time
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime

import structlog

from adapters.control_append import append
from adapters.fleet_topic import SILENT_INTERVALS, Sighting, live_instances
from adapters.settings import Settings
from consumer.control import Follower
from consumer.guard import Guard, Verdict
from consumer.threads import thread_of
from schemas.errors import ModelwireError

PATIENCE_SECONDS = 5.0
"""How long one append is tried; an append that meets nobody takes a tenth of a second."""

log = structlog.get_logger()


class Aborts:
    """Called with each look at the fleet, always from one thread."""

    def __init__(self, settings: Settings, model: str, instance: str, follower: Follower) -> None:
        self._settings = settings
        self._model = model
        self._instance = instance
        self._follower = follower
        self._born = datetime.now(UTC)
        self._guard = Guard(instance, settings.consumer.guard_wait_ms / 1_000)
        self._thread: threading.Thread | None = None

    def look(self, sightings: Sequence[Sighting]) -> None:
        """Judge the fleet; where the guard says so, begin to append its abort."""
        if self._settings.consumer.guard_wait_ms == 0:
            return
        fleet = live_instances(sightings) if self._is_fresh(sightings) else ()
        verdict = self._guard.look(time.monotonic(), self._follower.heard.deployment, fleet)
        if verdict is None or (self._thread is not None and self._thread.is_alive()):
            return
        self._thread = thread_of("guard", lambda: self._abort(verdict))
        self._thread.start()

    def _is_fresh(self, sightings: Sequence[Sighting]) -> bool:
        now = datetime.now(UTC)
        return any(
            sighting.status.instance == self._instance
            and self._born <= sighting.status.at <= now
            and (now - sighting.status.at).total_seconds()
            < SILENT_INTERVALS * sighting.status.interval_seconds
            for sighting in sightings
        )

    def _abort(self, verdict: Verdict) -> None:
        rollout, reason = verdict.command.rollout, verdict.command.reason
        log.warning("guard.abort", rollout=rollout, revision=verdict.seen, reason=reason)
        try:
            append(
                self._settings,
                self._model,
                verdict.command,
                commandid=uuid.uuid4().hex,
                actor=self._instance,
                now=lambda: datetime.now(UTC),
                seen=verdict.seen,
                patience_s=PATIENCE_SECONDS,
            )
        except ModelwireError as error:
            log.warning("guard.not_aborted", rollout=rollout, problem=error.message)
        except Exception:  # the champion must not end for what only the guard met
            log.exception("guard.not_aborted", rollout=rollout)
        else:
            log.warning("guard.aborted", rollout=rollout)
