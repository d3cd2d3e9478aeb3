"""Long control logs, as years of rollouts would leave them: for tests and for the bench of the fold.

Commands are drawn by a seed and decided by the rules, so each log is one that could have been written.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from random import Random

from deployment.commands import (
    Abort,
    Command,
    Pause,
    Promote,
    Refusal,
    Release,
    Resume,
    Retire,
    Revoke,
    Shift,
    Start,
    Strategy,
    Undo,
)
from deployment.decisions import decide
from deployment.ledger import Ledger
from deployment.state import Deployment
from schemas.events import EventData, Plan, PlanStep, encode_event, new_event

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
PLAN = Plan(
    (
        PlanStep(shadow=10_000, hold_seconds=600.0),
        PlanStep(weight=100, hold_seconds=300.0),
        PlanStep(weight=1_000),
        PlanStep(pause=True),
        PlanStep(weight=10_000),
    )
)


class Writer:
    """A log in the making, in memory: what it takes is accepted by the fold."""

    def __init__(self, model: str) -> None:
        self.ledger = Ledger(model)
        self.records: list[bytes] = []
        self._commands = 0

    @property
    def deployment(self) -> Deployment:
        """The state at the end of the log."""
        return self.ledger.deployment

    def give(self, command: Command) -> bool:
        """Append what the command decides; False where it is refused."""
        events = decide(self.deployment, command)
        if isinstance(events, Refusal):
            return False
        self._commands += 1
        for data in events:
            self._append(data)
        return True

    def _append(self, data: EventData) -> None:
        event = new_event(
            data,
            model=self.deployment.model,
            revision=self.deployment.revision + 1,
            previous=self.deployment.head,
            commandid=f"command-{self._commands}",
            actor="anna@example.org",
            time=EPOCH + timedelta(minutes=self._commands),
        )
        self.records.append(encode_event(event))
        self.ledger.take(self.records[-1])


def write_log(model: str, events: int, *, seed: int) -> Writer:
    """A log of ``events`` events or a few more, of all types; no rollout runs at its end."""
    writer, random = Writer(model), Random(seed)
    commands = _commands(writer, random)
    while len(writer.records) < events - 2:
        writer.give(next(commands))
    state = writer.deployment
    if state.rollout is not None:
        writer.give(Abort(state.rollout.revision))
    for shadow in list(state.shadows):
        writer.give(Abort(shadow))
    return writer


def _commands(writer: Writer, random: Random) -> Iterator[Command]:
    number = 0
    while True:
        number += 1
        digest = f"sha256:{sha256(f'bundle {number}'.encode()).hexdigest()}"
        salt = f"{random.getrandbits(64):016x}"
        kind = random.choice((None, *Strategy)) if writer.deployment.champion else "blue-green"
        strategy = None if kind is None else Strategy(kind)
        plan = PLAN if strategy is Strategy.CANARY else None
        yield Release(digest, strategy, salt, "a night's training", plan)
        version = len(writer.deployment.releases)
        if strategy is Strategy.CANARY:
            yield from _carry_out(writer, random)
        elif strategy is Strategy.SHADOW:
            yield Shift(writer.deployment.revision - 1, None, random.randrange(10_000), ())
            yield Abort(max(writer.deployment.shadows))
        elif strategy is None:
            yield Start(version, Strategy.CANARY, salt)
            yield Shift(writer.deployment.revision, random.randrange(1, 10_000), None, ())
            yield Undo(None)
        if random.random() < 0.1:
            yield Undo(None, "the shops complained")
        if random.random() < 0.1:
            yield Revoke(random.randint(max(1, version - 3), version))
        yield Retire(max(1, version - 3))


def _carry_out(writer: Writer, random: Random) -> Iterator[Command]:
    """The plan to its end, or to where somebody loses patience."""
    rollout = writer.deployment.rollout
    if rollout is None:  # refused
        return
    for number, step in enumerate(PLAN.steps):
        if step.pause:
            yield Pause(rollout.revision, step=number)
            yield Resume(rollout.revision)
        else:
            yield Shift(rollout.revision, step.weight, step.shadow, (), step=number)
        if random.random() < 0.1:
            yield Abort(rollout.revision, "the guard")
            return
    yield Promote(rollout.revision, (), "the plan is done")
