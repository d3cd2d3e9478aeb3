"""The follower: one thread that reads the control log and hands what it means to the loader.

It folds every event, and passes on the states that the log went through since the last look, oldest
first: the loader prepares the newest and may apply one in between where that costs nothing. The newest
state read is ``heard``, one reference that any thread may look at.

A log that is broken stops the process (``failure``). So does a stamp that the log does not hold: one
that stays beyond what was read is looked for in a fresh reading of the log, since a reader that waits
at the end cannot tell an event that has not come from one that never will. Such a reading takes as long
as the log is, so there is a pause between two; one that a broker's absence cuts short says nothing.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from adapters.control_log import LogReader, read_log
from adapters.settings import Settings
from consumer.answering import foreign_stamp
from consumer.models import Loader
from consumer.threads import thread_of
from deployment.ledger import StampVerdict
from deployment.state import BrokenLog, Deployment, empty, fold
from schemas.errors import Conflict, ModelwireError
from schemas.events import Recorded

POLL_SECONDS = 0.2
"""How long a poll may block before the thread looks at what else it was asked."""

CONFIRM_PAUSE_SECONDS = 5.0
"""Between two fresh readings of the log."""

KEPT_STATES = 256
"""How many of the states that the log went through are passed on. What lies further back is never
applied: the newest state that can be served is, and at the start none but the newest is loaded."""

log = structlog.get_logger()


@dataclass(frozen=True)
class Heard:
    """The newest state read, whether the log's end was reached, and when (the monotonic clock)."""

    deployment: Deployment
    caught_up: bool
    at: float


class Follower:
    """Starts with ``start``. ``judge``, ``confirm`` and ``stop`` may be called from any thread."""

    def __init__(
        self, settings: Settings, model: str, loader: Loader, on_change: Callable[[], None]
    ) -> None:
        self.heard = Heard(empty(model), False, time.monotonic())
        self.failure: ModelwireError | None = None
        self._settings = settings
        self._model = model
        self._loader = loader
        self._on_change = on_change
        self._stopping = False
        self._to_confirm: frozenset[str] = frozenset()
        self._confirm_from = 0.0
        self._reader = LogReader(settings, model, keeps_events=False)
        self._thread = thread_of("follower", self._run)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread and close its connection."""
        self._stopping = True
        self._thread.join(2 * POLL_SECONDS + 1.0)

    def judge(self, stamp: str) -> StampVerdict:
        """Whether the stamp is of the log as read so far.

        The ledger's list of hashes only grows, so another thread may look at it; it sees at most a
        moment less than was read, and such a stamp is AHEAD for that moment.
        """
        return self._reader.ledger.judge_stamp(stamp)

    def confirm(self, stamp: str) -> None:
        """Look for the stamp in a fresh reading; ``failure`` says if the log does not hold it.

        A stamp that was read meanwhile is not looked for. It may be asked for as often as one likes:
        what is lost between two threads is asked for again.
        """
        if self.judge(stamp) is StampVerdict.AHEAD:
            self._to_confirm |= {stamp}

    def _run(self) -> None:
        try:
            self._take(self._reader.read_to_end())
            while not self._stopping:
                events = self._reader.poll(POLL_SECONDS)
                if events:
                    self._take(events)
                if self._to_confirm and time.monotonic() >= self._confirm_from:
                    stamps, self._to_confirm = self._to_confirm, frozenset()
                    self._look_for(stamps)
                    self._confirm_from = time.monotonic() + CONFIRM_PAUSE_SECONDS
        except ModelwireError as error:
            self.failure = error
            self._on_change()
        finally:
            self._reader.close()

    def _take(self, events: Sequence[Recorded]) -> None:
        deployment = self.heard.deployment
        passed: deque[Deployment] = deque(maxlen=KEPT_STATES)
        for recorded in events:
            deployment = fold(deployment, recorded)
            passed.append(deployment)
        self.heard = Heard(deployment, True, time.monotonic())
        if passed:
            log.info("control.read", revision=deployment.revision, events=len(events))
            self._loader.consider(passed)
        self._on_change()

    def _look_for(self, stamps: frozenset[str]) -> None:
        try:
            ledger = read_log(self._settings, self._model)
        except (BrokenLog, Conflict):
            raise
        except ModelwireError as error:
            log.warning("control.not_confirmed", stamps=sorted(stamps), problem=error.message)
            return
        for stamp in stamps:
            if ledger.judge_stamp(stamp) is not StampVerdict.KNOWN:
                self.failure = foreign_stamp(self._model, stamp)
                self._on_change()
