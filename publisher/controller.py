"""The controller's shell: looks at the log, the fleet and the clock, and makes the next move.

What the next move is, is decided in ``deployment.controller``. Nothing is kept here but how long too few
instances have been ready: a controller that was killed and started again goes on where the log stands.
A command is given at the revision that was looked at, so of two controllers one wins each step, and the
other one looks again.

A broker that is away is waited for: after each problem the log is read anew. One that restarts denies
topics that exist, so a topic that was there once may be missing for a while. A commit is acknowledged a
moment before it can be read: a log that does not hold the rollout's start yet says nothing of its end.
"""

import math
import time
from collections.abc import Callable
from datetime import UTC, datetime

from adapters.control_log import LogReader
from adapters.fleet_topic import Sighting, count_crashes, live_instances, read_fleet
from adapters.settings import Settings
from deployment.controller import Give, Move, Outcome, Over, Scene, Wait, is_short, next_move
from deployment.readiness import Fleet
from deployment.state import BrokenLog, Rollout
from publisher.commands import Appended, give
from schemas.errors import (
    Conflict,
    ModelwireError,
    NotFound,
    RefusedByRule,
    TimedOut,
    UsageProblem,
)

AGAIN_SECONDS = 0.2
"""After a lost race, or an error that may pass."""

LOOK_SECONDS = 1.0
"""Longest time between two looks at the fleet: instances announce themselves this often."""

DENIED_SECONDS = 30.0
"""For how long a broker may deny a topic that was there. A restart takes it 2 to 5 s."""

READABLE_SECONDS = 10.0
"""Longest wait for what was committed to be readable, before that is said and the log is read anew."""

Told = Appended | Wait | Over | ModelwireError
"""What there is to say: a command that was appended, what is waited for, the end, a passing problem."""


def quietly(_told: Told) -> None:
    """Says nothing."""


class Controller:
    """Carries out one rollout's plan. ``run`` once; ``appended`` is what it added."""

    def __init__(
        self, settings: Settings, model: str, rollout: Rollout, say: Callable[[Told], None]
    ) -> None:
        self.appended: list[Appended] = []
        self._settings = settings
        self._model = model
        self._rollout = rollout
        self._say = say
        self._short_since: float | None = None
        self._denied_since: float | None = None
        self._has_looked = False

    def run(
        self,
        limit_seconds: float = math.inf,
        *,
        is_hopeless: Callable[[Fleet], bool] = lambda fleet: False,
    ) -> Over | None:
        """Until the plan is over; None where there is nothing to do but wait, and the limit has passed
        or ``is_hopeless`` says so.

        Raises what cannot pass: BrokenLog, Conflict, UsageProblem, and NotFound for a topic that is
        missing from the start or stays away.
        """
        deadline = time.monotonic() + limit_seconds
        while True:
            try:
                with LogReader(self._settings, self._model) as log:
                    log.read_to_end()
                    self._await_start(log)
                    return self._carry_on(log, deadline, is_hopeless)
            except ModelwireError as problem:
                if not self._passes(problem):
                    raise
                self._say(problem)
            if time.monotonic() >= deadline:
                return None
            time.sleep(AGAIN_SECONDS)

    def _await_start(self, log: LogReader) -> None:
        until = time.monotonic() + READABLE_SECONDS
        while log.ledger.deployment.revision < self._rollout.revision:
            if time.monotonic() >= until:
                raise TimedOut(
                    f"revision {self._rollout.revision} of {self._model} is committed, and cannot be "
                    "read yet",
                    hint=f"go on with: modelwire rollout run {self._model}",
                )
            log.poll(AGAIN_SECONDS)

    def _carry_on(
        self, log: LogReader, deadline: float, is_hopeless: Callable[[Fleet], bool]
    ) -> Over | None:
        """As ``run``, until the first problem."""
        while True:
            sightings = read_fleet(self._settings, self._model)
            self._has_looked, self._denied_since = True, None
            fleet = live_instances(sightings)
            move = self._move(log, fleet, sightings)
            if isinstance(move, Over):
                self._say(move)
                return move
            if isinstance(move, Give):
                log.poll(self._give(move, log))
                continue
            self._say(move)
            left = deadline - time.monotonic()
            if left <= 0 or is_hopeless(fleet):
                return None
            log.poll(min(move.seconds, LOOK_SECONDS, left))

    def _passes(self, problem: ModelwireError) -> bool:
        """Whether the same look may go well in a moment."""
        if isinstance(problem, UsageProblem | BrokenLog | Conflict):
            return False
        if not isinstance(problem, NotFound):
            return True
        if not self._has_looked:
            return False
        now = time.monotonic()
        if self._denied_since is None:
            self._denied_since = now
        return now - self._denied_since < DENIED_SECONDS

    def _move(self, log: LogReader, fleet: Fleet, sightings: list[Sighting]) -> Move:
        deployment, now = log.ledger.deployment, time.monotonic()
        if not is_short(deployment, fleet):
            self._short_since = None
        elif self._short_since is None:
            self._short_since = now
        wait_ms = self._settings.consumer.guard_wait_ms
        scene = Scene(
            deployment,
            fleet,
            datetime.now(UTC),
            0.0 if self._short_since is None else now - self._short_since,
            wait_ms / 1_000 if wait_ms else math.inf,
            count_crashes(sightings, self._rollout.revision),
        )
        return next_move(scene, self._rollout)

    def _give(self, move: Give, log: LogReader) -> float:
        """Appends the command; returns the seconds until the next look."""
        seen = log.ledger.deployment.revision
        try:
            appended = give(self._settings, self._model, move.command, seen=seen)
        except (Conflict, RefusedByRule):
            return AGAIN_SECONDS  # somebody was faster; the next look shows what they did
        self.appended.append(appended)
        self._say(appended)
        until = time.monotonic() + LOOK_SECONDS
        while log.ledger.deployment.revision <= seen and time.monotonic() < until:
            log.poll(AGAIN_SECONDS)
        return 0.0


def outcome_code(outcome: Outcome) -> int:
    """The exit code of a plan's end: an aborted rollout is a refusal."""
    return RefusedByRule.exit_code if outcome is Outcome.ABORTED else 0
