"""A model's log and its instances, for tests of what is shown of them."""

from datetime import UTC, datetime, timedelta

from adapters.fleet_topic import Sighting
from deployment.commands import Command, Refusal, Release, Strategy
from deployment.decisions import decide
from deployment.ledger import Ledger
from deployment.readiness import Instance
from publisher.commands import Appended
from schemas.events import EventData, Plan, PlanStep, Recorded, encode_event, new_event
from schemas.fleet import InstanceStatus, Phase, Refused, Runtime, Tally

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)

PLAN = Plan(
    (
        PlanStep(shadow=10_000, hold_seconds=600),
        PlanStep(weight=1_000, hold_seconds=300),
        PlanStep(pause=True),
        PlanStep(weight=10_000),
    )
)
READY = (Instance("a", frozenset({1, 2, 3})),)


def give(ledger: Ledger, command: Command, at: datetime = NOON) -> Appended:
    """Take the command's events into the ledger, as an append would."""
    outcome = decide(ledger.deployment, command)
    assert not isinstance(outcome, Refusal), outcome
    return append(ledger, *outcome, at=at)


def append(ledger: Ledger, *events: EventData, at: datetime = NOON) -> Appended:
    """Take events into the ledger."""
    recorded = []
    for data in events:
        event = new_event(
            data,
            model="sales",
            revision=ledger.deployment.revision + 1,
            previous=ledger.deployment.head,
            commandid="c",
            actor="ann",
            time=at,
        )
        taken = ledger.take(encode_event(event))
        assert isinstance(taken, Recorded)
        recorded.append(taken)
    return Appended("sales", tuple(recorded), 0.25)


def release(digit: str, start: Strategy | None = None, reason: str = "") -> Release:
    """The release of a bundle that ``digit`` tells apart."""
    return Release(f"sha256:{digit * 64}", start, "salt", reason)


def champion_ledger() -> Ledger:
    """sales:1 was champion, sales:2 is (revision 6)."""
    made = Ledger("sales")
    give(made, release("1", Strategy.BLUE_GREEN))
    give(made, release("2", Strategy.BLUE_GREEN, "[bold]better[/bold]"))
    return made


def minutes(count: float) -> timedelta:
    """A time span."""
    return timedelta(minutes=count)


def instance(
    name: str,
    champion: int | None = 2,
    *,
    revision: int = 6,
    prepared: tuple[int, ...] = (1, 2),
    refused: tuple[Refused, ...] = (),
    tallies: tuple[Tally, ...] = (),
    days: int | None = 30,
    runtime: Runtime | None = None,
    alive: bool = True,
) -> Sighting:
    """An instance that answers with ``champion``; it waits where that is None."""
    status = InstanceStatus(
        instance=name,
        model="sales",
        phase=Phase.WAITING if champion is None else Phase.READY,
        detail="",
        read_revision=revision,
        revision=revision,
        champion=champion,
        prepared=prepared,
        refused=refused,
        runtime=runtime or Runtime("1.31.0", "x86_64-avx2", "0.1.0", {"ai.onnx": 23}, 11),
        partitions=(0, 1, 2, 5),
        answered=10,
        rejected=0,
        rate=123.4,
        horizon_days_left=days,
        interval_seconds=1.0,
        started_at=NOON,
        at=NOON,
        lag=1_234,
        tallies=tallies,
    )
    return Sighting(status=status, age_seconds=0.5, alive=alive)
