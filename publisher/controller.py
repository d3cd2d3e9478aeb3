"""The controller's shell: looks at the log, the fleet and the clock, and makes the next move.

What the next move is, is decided in ``deployment.controller``. Nothing is kept here but how long too few
instances have been ready: a controller that was killed and started again goes on where the log stands.
A command is given at the revision that was looked at, so of two controllers one wins each step, and the
other one looks again. A broker that is away is waited for.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime

from adapters.control_log import LogReader
from adapters.fleet_topic import live_instances, read_fleet
from adapters.settings import Settings
from deployment.controller import Give, Move, Outcome, Over, Scene, Wait, is_short, next_move
from deployment.readiness import Fleet
from deployment.state import BrokenLog, Rollout
from publisher.commands import Appended, give
from schemas.errors import Conflict, ModelwireError, NotFound, RefusedByRule, UsageProblem

AGAIN_SECONDS = 0.2
"""After a lost race, or an error that may pass."""

LOOK_SECONDS = 1.0
"""Longest time between two looks at the fleet: instances announce themselves this often."""

NEVER_MS = 10**12
"""What a patience of 0, which switches the guard off, comes to: thirty years."""

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

    def run(
        self,
        limit_seconds: float | None = None,
        *,
        is_hopeless: Callable[[Fleet], bool] = lambda fleet: False,
    ) -> Over | None:
        """Until the plan is over; None where the limit passed, or ``is_hopeless`` said so, before.

        Raises what cannot pass: BrokenLog, NotFound, UsageProblem.
        """
        deadline = None if limit_seconds is None else time.monotonic() + limit_seconds
        with LogReader(self._settings, self._model) as log:
            log.read_to_end()
            while True:
                try:
                    fleet = live_instances(read_fleet(self._settings, self._model))
                    move = self._move(log, fleet)
                    if isinstance(move, Over):
                        self._say(move)
                        return move
                    pause = self._make(move, log)
                except (NotFound, UsageProblem, BrokenLog):
                    raise
                except ModelwireError as problem:
                    self._say(problem)
                    pause, fleet = AGAIN_SECONDS, ()
                if deadline is not None:
                    if is_hopeless(fleet) or time.monotonic() >= deadline:
                        return None
                    pause = min(pause, max(deadline - time.monotonic(), 0.0))
                log.poll(pause)

    def _move(self, log: LogReader, fleet: Fleet) -> Move:
        deployment, now = log.ledger.deployment, time.monotonic()
        if not is_short(deployment, fleet):
            self._short_since = None
        elif self._short_since is None:
            self._short_since = now
        scene = Scene(
            deployment,
            fleet,
            datetime.now(UTC),
            0.0 if self._short_since is None else now - self._short_since,
            (self._settings.consumer.guard_wait_ms or NEVER_MS) / 1_000,
        )
        return next_move(scene, self._rollout)

    def _make(self, move: Give | Wait, log: LogReader) -> float:
        """Carry the move out; returns the seconds until the next look."""
        if isinstance(move, Wait):
            self._say(move)
            return min(move.seconds, LOOK_SECONDS)
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
