"""What version 2 added to the wire is read by today's code: plans, pauses, shadows, tallies.

The files in ``tests/fixtures/wire/v2`` are never edited, as those of ``v1`` are not.
"""

from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

from deployment.ledger import Ledger, StampVerdict
from deployment.routing import Routing, routing_of
from schemas.events import (
    EVENT_TYPES,
    Guard,
    ModelRestored,
    ModelRetired,
    ModelRevoked,
    Plan,
    PlanStep,
    RolloutPaused,
    RolloutResumed,
    RolloutShifted,
    RolloutStarted,
)
from schemas.fleet import Phase, Refused, Runtime, Tally, decode_status
from schemas.forecast import Variant, decode_forecast

V2 = Path(__file__).parents[1] / "fixtures" / "wire" / "v2"
START = datetime(2026, 6, 1, 12, tzinfo=UTC)

PINNED = {
    "control-log.jsonl": "912ba19f647e12460df76679c90de50c998b33d3e6c13c7db4e66603db858a76",
    "fleet-statuses.jsonl": "8ec29d2ebdac1e6a66907384c2224b8f1c2d9c3b708306dc3b6e374de393fb44",
    "shadow-answers.jsonl": "846f91cca0a5890eb9a541d7b46e8a9e1c9ae6e6cce8e041eefc3d5e8814ffae",
}

PLAN = Plan(
    steps=(
        PlanStep(shadow=10_000, hold_seconds=600.0),
        PlanStep(weight=100, shadow=2_500, hold_seconds=0.5),
        PlanStep(pause=True),
        PlanStep(weight=10_000),
    ),
    analysis="manual",
    guard=Guard(1.5, 20),
)


def lines(name: str) -> list[bytes]:
    """The lines of a file of v2."""
    return (V2 / name).read_bytes().splitlines()


def read_log() -> Ledger:
    """The ledger after the whole log."""
    ledger = Ledger("sales")
    for raw in lines("control-log.jsonl"):
        ledger.take(raw)
    assert len(ledger.events) == 20
    return ledger


def test_the_files_are_those_that_were_written() -> None:
    """No byte of v2 has changed since."""
    found = {path.name: sha256(path.read_bytes()).hexdigest() for path in V2.iterdir()}
    assert found == PINNED


def test_the_control_log_folds_to_its_state() -> None:
    """A promoted canary, another one half way and paused, and the one shadow that still runs."""
    ledger = read_log()
    deployment = ledger.deployment
    assert (deployment.champion, deployment.previous) == (2, 1)
    assert routing_of(deployment) == Routing(champion=2, candidate=3, weight=777, salt="salt-5")
    rollout = deployment.rollout
    assert rollout is not None
    assert (rollout.revision, rollout.shifted, rollout.shadow) == (18, 19, 1)
    assert (rollout.paused, rollout.step, rollout.plan) == (True, None, PLAN)
    assert rollout.since == START + timedelta(minutes=20)
    (shadow,) = deployment.shadows.values()
    assert (shadow.revision, shadow.candidate, shadow.salt) == (15, 1, "salt-4")
    assert (shadow.weight, shadow.shadow, shadow.min_ready) == (0, 10_000, 0)
    assert (deployment.required(), deployment.wanted()) == ((2, 3), (2, 3, 1))


def test_a_plan_travels_in_its_event() -> None:
    """Its steps, its analysis and its guard; keys of a later version are let pass."""
    ledger = read_log()
    first, second = ledger.events[4].data, ledger.events[17].data
    assert first == RolloutStarted(2, "canary", "salt-2", "carefully", PLAN, 9_000)
    assert second == RolloutStarted(3, "canary", "salt-5", plan=PLAN)
    assert b'"routing":"route/1"' in lines("control-log.jsonl")[17]


def test_the_steps_of_a_plan_are_events() -> None:
    """Each says its place in the plan; what a person does has none."""
    data = [recorded.data for recorded in read_log().events]
    assert data[5:10] == [
        RolloutShifted(5, 0, 10_000, "step 1 of the plan", 0),
        RolloutShifted(5, 100, 2_500, "step 2 of the plan", 1),
        RolloutPaused(5, "step 3 of the plan", 2),
        RolloutResumed(5, "the shops are content — 予測"),
        RolloutShifted(5, 10_000, 0, "step 4 of the plan", 3),
    ]
    assert data[18:] == [RolloutShifted(18, 777, 1), RolloutPaused(18, "lunch")]


def test_both_versions_hold_every_type_of_event() -> None:
    """What v2 does not show again, v1 shows."""
    in_v2 = {type(recorded.data) for recorded in read_log().events}
    assert in_v2 | {ModelRestored, ModelRetired, ModelRevoked} == set(EVENT_TYPES.values())


def test_the_control_log_keeps_its_stamps() -> None:
    """The stamps that consumers stored beside their offsets are still known."""
    ledger = read_log()
    assert ledger.deployment.stamp == "4c12d032fcad0989:20:c9425322bff25fbd"
    assert ledger.judge_stamp(ledger.deployment.stamp) is StampVerdict.KNOWN


def test_fleet_statuses_are_read() -> None:
    """Runtime, lag and tallies as the instance said them, and as one that could not say them yet."""
    said, young = (decode_status(raw) for raw in lines("fleet-statuses.jsonl"))
    assert said.runtime == Runtime(
        "1.31.1", "x86_64-avx2", "0.2.0", {"ai.onnx": 24, "ai.onnx.ml": 5}, 11
    )
    assert (said.lag, said.horizon_days_left, said.partitions) == (42, 12, (0, 3))
    assert said.refused == (
        Refused(3, "runtime", "the graph needs opset 99 of ai.onnx; this one runs 24"),
    )
    assert said.tallies == (
        Tally(18, 2, "champion", 100, 1, 90.5),
        Tally(18, 3, "candidate", 8, 2, 7.25),
        Tally(15, 1, "shadow", 50, 0, 45.0, shed=3, failed=4),
    )
    assert (young.phase, young.lag, young.tallies) == (Phase.STARTING, None, ())
    assert (young.runtime.opsets, young.runtime.ir_version) == ({}, 0)


def test_a_shadow_answer_is_read() -> None:
    """A forecast that says it is a shadow's."""
    (answer,) = (decode_forecast(raw) for raw in lines("shadow-answers.jsonl"))
    assert (answer.variant, answer.version, answer.revision) == (Variant.SHADOW, 1, 16)
    assert answer.outputs == {"units": 1.5}
