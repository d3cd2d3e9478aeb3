"""The guard: when too few instances are ready, for how long, and whose turn it is."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from consumer.guard import AGAIN_SECONDS, MOST_TURNS, TURN_SECONDS, Guard
from consumer.membership import may_leave_behind
from deployment.commands import Abort
from deployment.readiness import Instance
from deployment.state import Deployment, Rollout

WAIT = 60.0
ROLLOUT = Rollout(5, 2, "canary", "salt", 5_000, since=datetime(2026, 1, 1, tzinfo=UTC), shifted=6)
HALF = Deployment("m", "sha256:a", 6, "sha256:b", {}, 1, None, ROLLOUT)
READY = frozenset({1, 2})


def _fleet(*prepared: frozenset[int]) -> tuple[Instance, ...]:
    return tuple(Instance(f"i-{n}", versions) for n, versions in enumerate(prepared))


SHORT = _fleet(READY, frozenset({1}))
ENOUGH = _fleet(READY, READY)


def _with(**changes: object) -> Deployment:
    return replace(HALF, rollout=replace(ROLLOUT, **changes))  # type: ignore[arg-type]


def test_too_few_for_the_set_time_is_an_abort_of_what_was_judged() -> None:
    """Not a moment before; the abort names the rollout, the revision judged, who lacks what, and the
    rung. What the model said is on the fleet topic, and not in a log that is kept for ever."""
    guard = Guard("i-0", WAIT)
    short = (SHORT[0], replace(SHORT[1], refused={2: "fetch: gone"}))
    assert guard.look(100.0, HALF, short) is None
    assert guard.look(159.9, HALF, short) is None
    verdict = guard.look(160.0, HALF, short)
    assert verdict is not None
    assert verdict.seen == 6
    assert verdict.command == Abort(
        5,
        "guard: 1 of 2 live instances ready for m:1 and m:2 for 60 s, and 2 must be: "
        "i-1: version 2 refused (fetch)",
    )


@pytest.mark.parametrize(
    ("deployment", "fleet", "acts"),
    [
        (HALF, SHORT, True),
        (HALF, ENOUGH, False),
        (HALF, _fleet(frozenset(), frozenset()), True),
        # One with only the champion and one with only the candidate: nobody can serve.
        (HALF, _fleet(frozenset({1}), frozenset({2})), True),
        (_with(weight=1), SHORT, True),
        (_with(weight=0), SHORT, False),
        (_with(weight=0), _fleet(frozenset(), frozenset()), False),
        (replace(HALF, rollout=None), _fleet(frozenset(), frozenset()), False),
        (_with(min_ready=5_000), SHORT, False),
        (_with(min_ready=5_001), SHORT, True),
        (_with(min_ready=5_000), _fleet(frozenset({1}), frozenset({1})), True),
        # A minimum of nobody is no wish that nobody answers.
        (_with(min_ready=0), SHORT, False),
        (_with(min_ready=0), _fleet(frozenset({1}), frozenset({1})), True),
        (_with(paused=True), SHORT, True),
        (HALF, (), False),
        # It does not hear itself: what it sees may be old.
        (HALF, SHORT[1:], False),
    ],
)
def test_the_fleet_decides(deployment: Deployment, fleet: tuple[Instance, ...], acts: bool) -> None:
    """Only a rollout with traffic, and only with fewer ready than its minimum, or none at all."""
    guard = Guard("i-0", WAIT)
    guard.look(0.0, deployment, fleet)
    assert (guard.look(WAIT, deployment, fleet) is not None) is acts


@pytest.mark.parametrize("between", [ENOUGH, ()])
def test_a_break_starts_the_wait_anew(between: tuple[Instance, ...]) -> None:
    """Enough instances for a moment, or a moment without a fresh view: the time counts from there."""
    guard = Guard("i-0", WAIT)
    guard.look(0.0, HALF, SHORT)
    guard.look(50.0, HALF, between)
    guard.look(51.0, HALF, SHORT)
    assert guard.look(110.9, HALF, SHORT) is None
    assert guard.look(111.0, HALF, SHORT) is not None


def test_a_shift_does_not_start_the_wait_anew_and_another_rollout_does() -> None:
    """The time is the rollout's; the verdict is of the revision seen last."""
    guard = Guard("i-0", WAIT)
    guard.look(0.0, HALF, SHORT)
    verdict = guard.look(WAIT, replace(HALF, revision=9), SHORT)
    assert verdict is not None
    assert verdict.seen == 9
    another = replace(_with(revision=12), revision=13)
    assert guard.look(200.0, another, SHORT) is None
    assert guard.look(200.0 + WAIT, another, SHORT) is not None


def test_the_instances_act_in_turn_and_none_waits_for_ever() -> None:
    """A pause apart by their names' order, bounded: the log sees one abort and not a crowd."""
    fleet = tuple(Instance(f"i-{n:03}", frozenset({1})) for n in range(300))
    for place, turns in ((0, 0), (1, 1), (MOST_TURNS, MOST_TURNS), (299, MOST_TURNS)):
        guard = Guard(fleet[place].name, WAIT)
        guard.look(0.0, HALF, fleet)
        turn = WAIT + turns * TURN_SECONDS
        assert guard.look(turn - 0.1, HALF, fleet) is None
        verdict = guard.look(turn, HALF, fleet)
        assert verdict is not None
        assert verdict.command.reason.endswith("297 more")
        assert len(verdict.command.reason) < 2_000


def test_it_tries_again_after_a_while() -> None:
    """An abort that did not land is tried again, and not at every look."""
    guard = Guard("i-0", WAIT)
    guard.look(0.0, HALF, SHORT)
    assert guard.look(WAIT, HALF, SHORT) is not None
    assert guard.look(WAIT + AGAIN_SECONDS - 0.1, HALF, SHORT) is None
    assert guard.look(WAIT + AGAIN_SECONDS, HALF, SHORT) is not None


@pytest.mark.parametrize(
    ("deployment", "may"),
    [
        (HALF, False),
        (_with(min_ready=9_999), True),
        (_with(min_ready=9_999, weight=0), False),
        (replace(HALF, rollout=None), False),
        (replace(HALF, rollout=None, min_ready=9_999), True),
        (replace(HALF, rollout=None, min_ready=1), True),
        (replace(_with(weight=0), min_ready=9_999), True),
        (replace(HALF, min_ready=9_999), False),
        # Nobody was asked to be ready, so whoever is not yet is not late.
        (_with(min_ready=0), False),
        (replace(HALF, rollout=None, min_ready=0), False),
    ],
)
def test_only_traffic_with_a_lower_minimum_leaves_instances_behind(
    deployment: Deployment, may: bool
) -> None:
    """A rollout that waits for everybody, or for nobody, leaves nobody behind, nor does one without
    traffic; what a lower minimum made champion goes on without the rest."""
    assert may_leave_behind(deployment) is may
