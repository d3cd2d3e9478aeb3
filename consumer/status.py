"""The reporter: one thread that announces the instance on the fleet topic, and hears the others.

It reads the topic's past before it announces anything: how the last life of its name ended is told only
there, by what its own words take the place of. Then it announces at every interval, and at once when
something changed. What it hears gives the highest revision that a live peer has applied, which
``membership`` asks for, and is shown to ``watch``, which must neither wait nor raise.
"""

import threading
import time
from collections.abc import Callable, Sequence

import structlog
from confluent_kafka import KafkaException

from adapters.fleet_topic import Announcer, Sighting
from consumer.threads import thread_of
from schemas.errors import ModelwireError
from schemas.fleet import CrashCount, InstanceStatus

SHORTEST_SECONDS = 0.05
"""Between two announcements, however much changes."""

GOODBYE_SECONDS = 1.0

log = structlog.get_logger()


class Reporter:
    """Starts with ``start``. ``changed`` may be called from any thread, also before the start."""

    def __init__(self, announcer: Announcer, instance: str, interval_seconds: float) -> None:
        self.peer_revision = 0
        self.crashes_before: tuple[CrashCount, ...] = ()
        """What this name counts its unclean ends on from; known before the first announcement."""
        self._announcer = announcer
        self._instance = instance
        self._interval = interval_seconds
        self._describe: Callable[[], InstanceStatus] | None = None
        self._watch: Callable[[Sequence[Sighting]], None] | None = None
        self._news = threading.Event()
        self._stopping = False
        self._thread = thread_of("reporter", self._run)

    def start(
        self,
        describe: Callable[[], InstanceStatus],
        watch: Callable[[Sequence[Sighting]], None],
    ) -> None:
        """Start the thread. ``describe`` gives the status of the moment, ``watch`` sees the fleet's."""
        self._describe, self._watch = describe, watch
        self._thread.start()

    def changed(self) -> None:
        """Something is worth an announcement."""
        self._news.set()

    def stop(self, *, clean: bool) -> None:
        """End the thread; after a clean stop leave the fleet with a tombstone."""
        self._stopping = True
        self._news.set()
        if self._thread.is_alive():
            self._thread.join(GOODBYE_SECONDS)
        if clean:
            self._announcer.say_goodbye(GOODBYE_SECONDS)
        self._announcer.close()

    def _run(self) -> None:
        assert self._describe is not None
        assert self._watch is not None
        try:
            self._announcer.catch_up(lambda: not self._stopping)
            self.crashes_before = self._announcer.crashes_before
        except (KafkaException, ModelwireError) as error:
            log.warning("fleet.unavailable", problem=str(error))
        while not self._stopping:
            began = time.monotonic()
            try:
                self._announcer.follow()
                self.peer_revision = self._announcer.fleet.peer_revision(self._instance)
                self._announcer.announce(self._describe())
                self._watch(self._announcer.fleet.sightings())
            except KafkaException as error:  # the fleet topic must never stop the answers
                log.warning("fleet.unavailable", problem=str(error))
            self._news.wait(self._interval)
            self._news.clear()
            time.sleep(max(began + SHORTEST_SECONDS - time.monotonic(), 0.0))
