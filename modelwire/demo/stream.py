"""The stream under which everything happens: requests at a steady rate, their answers, and the control
log, looked at together and shown."""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

from adapters.control_log import LogReader
from modelwire.demo.commands import Commands
from modelwire.demo.follower import Follower
from modelwire.demo.view import Canary, Moment, Shadow, View
from modelwire.replay import Replay, utc_now
from schemas.errors import TimedOut
from schemas.events import Recorded, RolloutShifted, RolloutStarted

RATE = 1_000.0
"""Requests a second."""

WAIT_SECONDS = 60.0
"""How long any one thing is awaited: a consumer to be ready, a swap to be everywhere."""

POLL_SECONDS = 0.05


class Stream:
    """The requests, sent by a thread for the time of a ``with`` block, their answers, and the log."""

    def __init__(
        self,
        replay: Replay,
        follower: Follower,
        log: LogReader,
        commands: Commands,
        view: View,
    ) -> None:
        self.answers = follower.answers
        self._replay = replay
        self._follower = follower
        self._log = log
        self._commands = commands
        self._view = view
        self._events: list[Recorded] = []
        self._candidates: dict[int, int] = {}
        self._weights: dict[int, tuple[int, int]] = {}
        self._thread = ThreadPoolExecutor(1)
        self._sending: Future[None] | None = None

    def __enter__(self) -> None:
        self._sending = self._thread.submit(self._replay.run, RATE, None, utc_now)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._replay.stop()
        self._thread.shutdown(wait=True)
        assert self._sending is not None
        if kind is None:
            self._sending.result()

    def look(self) -> None:
        """Take in the newest answers and events and show them. Raises where the stream or a command
        died."""
        self._follower.poll(POLL_SECONDS)
        for recorded in self._log.poll(0):
            self._events.append(recorded)
            match recorded.data:
                case RolloutStarted(candidate=candidate):
                    self._candidates[recorded.event.revision] = candidate
                case RolloutShifted(rollout=rollout, weight=weight) if weight > 0:
                    asked = (self._candidates[rollout], weight)
                    self._weights[recorded.event.revision] = asked
        self._commands.check()
        if self._sending is not None and self._sending.done():
            self._sending.result()
        self._view.show(self._moment(time.time()))

    def watch(self, what: str, is_over: Callable[[], bool]) -> None:
        """Look on until ``is_over``. Raises TimedOut."""
        deadline = time.monotonic() + WAIT_SECONDS
        while not is_over():
            if time.monotonic() > deadline:
                raise TimedOut(
                    f"waited {WAIT_SECONDS:.0f} s for {what}; {self.answers.answered:,} of "
                    f"{self._replay.acknowledged:,} requests are answered",
                    hint="see " + ", ".join(str(each.log) for each in self._commands.background),
                )
            self.look()

    def watch_more(self, count: int) -> None:
        """Look on until ``count`` more requests are answered."""
        goal = self.answers.answered + count
        self.watch(f"{count:,} answers", lambda: self.answers.answered >= goal)

    def next_event(self, what: str, *kinds: type) -> Recorded:
        """Look on until the log holds another event of one of these kinds. What was passed over on the
        way is not given again. Raises TimedOut."""
        found: list[Recorded] = []

        def is_there() -> bool:
            while self._events and not found:
                recorded = self._events.pop(0)
                if isinstance(recorded.data, kinds):
                    found.append(recorded)
            return bool(found)

        self.watch(what, is_there)
        return found[0]

    def seconds_until_everywhere(self, event: Recorded, partitions: frozenset[int]) -> float:
        """Look on until each of ``partitions`` has an answer at the event's revision or later.

        The seconds are those from the event's time to the last of these answers.
        """
        revision, answers = event.event.revision, self.answers
        self.watch(
            f"revision {revision} on every partition",
            lambda: answers.served_since(revision, partitions) is not None,
        )
        served = answers.served_since(revision, partitions)
        assert served is not None
        return served - event.event.time.timestamp()

    def _moment(self, now: float) -> Moment:
        answers = self.answers
        return Moment(
            acknowledged=self._replay.acknowledged,
            answered=answers.answered,
            rate=answers.rate(now),
            revision=answers.revision,
            answering=answers.answering,
            versions=dict(answers.versions),
            instances=answers.instances(now),
            shadow=self._shadow(),
            canary=self._canary(),
        )

    def _shadow(self) -> Shadow | None:
        """The one that runs, by the log."""
        compared = self.answers.comparison
        for each in self._log.ledger.deployment.shadows.values():
            return Shadow(
                each.candidate, compared.scored, compared.shadow.wape, compared.champion.wape
            )
        return None

    def _canary(self) -> Canary | None:
        """The split at the newest revision that answers, where a shift made it."""
        revision = self.answers.revision
        version, weight = self._weights.get(revision, (0, 0))
        if weight == 0:
            return None
        split = self.answers.splits[revision]
        return Canary(
            version,
            weight,
            split.requests.total(),
            split.request_share,
            split.key_count,
            split.key_share,
        )
