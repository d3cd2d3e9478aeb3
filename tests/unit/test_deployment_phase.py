"""The phase of a deployment, rule by rule."""

from dataclasses import replace

import pytest

from deployment.commands import Pause, Promote, Resume, Shift, Start, Strategy
from deployment.ledger import Ledger
from deployment.phase import Phase, assess
from deployment.readiness import Instance
from schemas.events import Plan
from tests.unit.example_rollouts import PLAN, READY, champion_ledger, give, release

WARM = frozenset({1, 2, 3})


@pytest.fixture
def ledger() -> Ledger:
    """sales:2 is champion, sales:3 is released (revision 7)."""
    made = champion_ledger()
    give(made, release("3"))
    return made


def fleet(ledger: Ledger, *prepared: frozenset[int]) -> tuple[Instance, ...]:
    """Instances that answer at the newest revision, with these versions prepared."""
    newest = ledger.deployment.revision
    return tuple(
        Instance(f"i{number}", versions, revision=newest)
        for number, versions in enumerate(prepared)
    )


def phase(ledger: Ledger, live: tuple[Instance, ...], days_left: int | None = None) -> Phase:
    """The phase alone."""
    return assess(ledger.deployment, live, days_left).phase


def canary(ledger: Ledger, *, planned: bool = False, min_ready: int = 10_000) -> int:
    """Start a canary of sales:3; returns the rollout's name."""
    plan = PLAN if planned else None
    give(ledger, Start(3, Strategy.CANARY, "s", plan=plan, min_ready=min_ready))
    return ledger.deployment.revision


def shift(ledger: Ledger, weight: int) -> None:
    """Give the candidate a share by hand."""
    assert ledger.deployment.rollout is not None
    give(ledger, Shift(ledger.deployment.rollout.revision, weight, 0, READY))


def take_step(ledger: Ledger, number: int) -> None:
    """Carry out a step of the plan, from 0."""
    rollout = ledger.deployment.rollout
    assert rollout is not None
    assert rollout.plan is not None
    step = rollout.plan.steps[number]
    give(ledger, Shift(rollout.revision, step.weight, step.shadow, READY, step=number))


def test_a_fleet_that_answers_with_the_champion_is_healthy(ledger: Ledger) -> None:
    """No rollout, and every live instance is at the newest revision."""
    found = assess(ledger.deployment, fleet(ledger, WARM, WARM), 12)
    assert (found.phase, found.why) == (
        Phase.HEALTHY,
        "sales:2 answers on 2 live instances",
    )


def test_without_a_champion_nothing_is_broken() -> None:
    """A new model, with or without instances, makes progress."""
    assert phase(Ledger("sales"), ()) is Phase.PROGRESSING


def test_an_instance_that_is_late_or_silent_is_progress(ledger: Ledger) -> None:
    """It has not applied the newest revision, or does not answer yet."""
    (one, two) = fleet(ledger, WARM, WARM)
    late = assess(ledger.deployment, (one, replace(two, revision=6)), None)
    assert (late.phase, late.why) == (
        Phase.PROGRESSING,
        "waiting for 1 of 2 live instances to apply revision 7",
    )
    silent = assess(ledger.deployment, (one, replace(two, answering=False)), None)
    assert (silent.phase, silent.why) == (
        Phase.PROGRESSING,
        "waiting for 1 of 2 live instances to answer",
    )


def test_a_champion_that_nobody_serves_is_degraded(ledger: Ledger) -> None:
    """No instance lives."""
    assert phase(ledger, ()) is Phase.DEGRADED


@pytest.mark.parametrize(
    ("days", "said"),
    [
        (None, ""),
        (0, ""),
        (-1, "its horizon ended yesterday"),
        (-9, "its horizon ended 9 days ago"),
    ],
)
def test_a_horizon_that_is_over_is_said_and_hides_nothing(
    ledger: Ledger, days: int | None, said: str
) -> None:
    """Its last day still counts; what is wrong with the fleet comes first."""
    found = assess(ledger.deployment, fleet(ledger, WARM), days)
    assert found.phase is Phase.HEALTHY
    assert said in found.why
    assert ("horizon" in found.why) == bool(said)
    assert "horizon" not in assess(ledger.deployment, (), days).why


def test_a_champion_that_an_instance_refused_is_degraded(ledger: Ledger) -> None:
    """It will not serve, however long one waits."""
    (one, two) = fleet(ledger, WARM, frozenset({1}))
    refused = replace(two, refused={2: "golden: row 0 is off"}, answering=False)
    found = assess(ledger.deployment, (one, refused), None)
    assert (found.phase, found.why) == (
        Phase.DEGRADED,
        "1 of 2 live instances cannot run sales:2",
    )


def test_a_candidate_is_only_required_once_it_has_traffic(ledger: Ledger) -> None:
    """While it is being loaded that is progress; with traffic, too few ready is degraded."""
    canary(ledger)
    loading = assess(ledger.deployment, fleet(ledger, WARM, frozenset({2})), None)
    assert (loading.phase, loading.why) == (
        Phase.PROGRESSING,
        "1 of 2 live instances ready for sales:2 and sales:3, at least 2 needed",
    )
    assert phase(ledger, fleet(ledger, WARM, frozenset())) is Phase.PROGRESSING
    shift(ledger, 1_000)
    assert phase(ledger, fleet(ledger, WARM, frozenset({2}))) is Phase.DEGRADED


def test_the_minimum_of_the_rollout_is_what_counts(ledger: Ledger) -> None:
    """With half of them enough, one of two is; an unready one has left the group."""
    canary(ledger, min_ready=5_000)
    shift(ledger, 1_000)
    (one, two) = fleet(ledger, WARM, frozenset({2}))
    assert phase(ledger, (one, replace(two, answering=False))) is Phase.PAUSED


def test_a_candidate_that_too_many_refused_is_degraded(ledger: Ledger) -> None:
    """Its minimum cannot be reached, traffic or not; within the minimum a refusal is borne."""
    refusal = {3: "runtime: no opset 99"}
    canary(ledger, min_ready=5_000)
    (one, two) = fleet(ledger, WARM, frozenset({2}))
    borne = (one, replace(two, refused=refusal))
    assert phase(ledger, borne) is Phase.PAUSED
    both = tuple(replace(each, prepared=frozenset({2}), refused=refusal) for each in borne)
    assert phase(ledger, both) is Phase.DEGRADED


def test_a_rollout_that_is_moved_by_hand_waits_for_a_person(ledger: Ledger) -> None:
    """Once every instance has followed; until then it progresses."""
    canary(ledger)
    shift(ledger, 1_000)
    live = fleet(ledger, WARM)
    found = assess(ledger.deployment, live, None)
    assert (found.phase, found.why) == (
        Phase.PAUSED,
        "sales:3 stays at 10 % until its weight is set or it is promoted",
    )
    assert phase(ledger, (replace(live[0], revision=8),)) is Phase.PROGRESSING


def test_a_blue_green_that_is_ready_waits_for_its_promotion(ledger: Ledger) -> None:
    """Before, it waits for the fleet."""
    cold = (Instance("a", frozenset({2})),)
    give(ledger, Start(3, Strategy.BLUE_GREEN, "s", min_ready=10_000, fleet=cold))
    assert phase(ledger, fleet(ledger, frozenset({2}))) is Phase.PROGRESSING
    found = assess(ledger.deployment, fleet(ledger, WARM), None)
    assert (found.phase, found.why) == (Phase.PAUSED, "sales:3 is ready and waits to be promoted")


def test_a_plan_makes_progress_until_it_is_paused_or_over(ledger: Ledger) -> None:
    """Each state of a plan's life has its phase, and its sentence says at which step it is."""
    name = canary(ledger, planned=True)
    seen = []

    def look() -> None:
        found = assess(ledger.deployment, fleet(ledger, WARM), None)
        seen.append((found.phase, found.why))

    look()
    take_step(ledger, 0)
    take_step(ledger, 1)
    look()
    give(ledger, Pause(name, step=2))
    look()
    give(ledger, Resume(name))
    look()
    take_step(ledger, 3)
    look()
    give(ledger, Promote(name, READY))
    look()
    assert seen == [
        (Phase.PROGRESSING, "sales:3 is ready for step 1 of 4"),
        (Phase.PROGRESSING, "sales:3 answers 10 %, step 2 of 4"),
        (Phase.PAUSED, "sales:3 stays at 10 % until it is resumed"),
        (Phase.PROGRESSING, "sales:3 answers 10 %, step 3 of 4"),
        (Phase.PROGRESSING, "sales:3 answers 100 %, step 4 of 4"),
        (Phase.HEALTHY, "sales:3 answers on 1 live instance"),
    ]


def test_a_plan_that_ends_below_the_whole_leaves_the_rest_to_a_person(ledger: Ledger) -> None:
    """Nothing moves it any more."""
    plan = Plan(PLAN.steps[:2])
    give(ledger, Start(3, Strategy.CANARY, "s", plan=plan))
    take_step(ledger, 0)
    take_step(ledger, 1)
    found = assess(ledger.deployment, fleet(ledger, WARM), None)
    assert (found.phase, found.why) == (
        Phase.PAUSED,
        "the plan is over and leaves sales:3 at 10 %",
    )


def test_a_shadow_changes_no_phase(ledger: Ledger) -> None:
    """It moves no traffic, even where nobody can run it."""
    give(ledger, Start(3, Strategy.SHADOW, "s"))
    (only,) = fleet(ledger, frozenset({2}))
    assert phase(ledger, (replace(only, refused={3: "golden: off"}),)) is Phase.HEALTHY
