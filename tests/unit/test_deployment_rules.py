"""The rules of a deployment, example by example."""

import inspect
import re
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import click
import msgspec
import pytest

from deployment import decisions, refusals
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
    Seen,
    Shift,
    Start,
    Strategy,
    Undo,
)
from deployment.decisions import decide
from deployment.ledger import Ledger, StampVerdict, Unaccepted
from deployment.readiness import Fleet, Instance, Lack
from deployment.routing import routing_of
from deployment.state import BrokenLog, Deployment, Standing
from modelwire.cli import modelwire
from schemas.events import (
    EventData,
    ModelReleased,
    ModelRestored,
    ModelRevoked,
    Plan,
    PlanStep,
    RolloutAborted,
    RolloutPaused,
    RolloutPromoted,
    RolloutResumed,
    RolloutShifted,
    RolloutStarted,
    encode_event,
    new_event,
)

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


Step = Command | EventData
"""What the examples are made of: commands that must be allowed, and events as anybody may write them."""


def digest(number: int) -> str:
    return f"sha256:{number:064x}"


def record(deployment: Deployment, data: EventData, commandid: str = "c") -> bytes:
    return encode_event(
        new_event(
            data,
            model=deployment.model,
            revision=deployment.revision + 1,
            previous=deployment.head,
            commandid=commandid,
            actor="ann",
            time=NOON,
        )
    )


def after(*steps: Step) -> Ledger:
    """The ledger after these commands (which must be allowed) and bare events."""
    ledger = Ledger("sales")
    for number, step in enumerate(steps):
        events = (step,) if isinstance(step, EventData) else decide(ledger.deployment, step)
        assert not isinstance(events, Refusal), events
        for data in events:
            ledger.take(record(ledger.deployment, data, commandid=f"c{number}"))
    return ledger


def released(number: int) -> Release:
    return Release(digest(number), start=None, salt="s")


def live(number: int) -> Release:
    return Release(digest(number), start=Strategy.BLUE_GREEN, salt=f"salt-{number}")


def start(version: int) -> Start:
    return Start(version, Strategy.BLUE_GREEN, salt="again")


def canary(version: int, **more: Any) -> Start:
    return Start(version, Strategy.CANARY, salt="canary", **more)


def shadow(version: int, **more: Any) -> Start:
    return Start(version, Strategy.SHADOW, salt="shadow", **more)


def fleet(*prepared: tuple[int, ...]) -> Fleet:
    """Live instances that have prepared these versions, one tuple each."""
    return tuple(
        Instance(f"sales-{number}", frozenset(versions)) for number, versions in enumerate(prepared)
    )


BOTH = (live(1), released(2))
"""Version 1 is champion, 2 is released."""

PLAN = Plan((PlanStep(shadow=500), PlanStep(weight=1_000), PlanStep(pause=True), PlanStep(5_000)))

RUNNING = (*BOTH, canary(2, plan=PLAN))
"""A canary that is named 5 and has made no step."""

CAREFUL = (*BOTH, canary(2, plan=PLAN, min_ready=10_000))
"""The same, for which every live instance must be ready."""

HALF_WAY = (*RUNNING, Shift(5, 5_000, None, fleet=()))
SHADOWED = (*BOTH, shadow(2, share=100))
"""A shadow that is named 5."""


def code(ledger: Ledger, command: Command) -> str:
    refusal = decide(ledger.deployment, command)
    assert isinstance(refusal, Refusal), refusal
    assert refusal.sentence
    assert refusal.remedy
    return refusal.code


def test_release_gives_the_next_ordinal_and_no_traffic() -> None:
    """A release alone names a version; nothing serves it."""
    deployment = after(released(1), released(2)).deployment
    assert [r.digest for r in deployment.releases.values()] == [digest(1), digest(2)]
    assert deployment.champion is None
    assert routing_of(deployment) is None


def test_release_with_start_makes_the_first_champion() -> None:
    """The first champion comes by the same command as every other."""
    deployment = after(live(1)).deployment
    assert (deployment.champion, deployment.previous, deployment.rollout) == (1, None, None)
    assert deployment.revision == 3


def test_switch_then_undo_restores_the_former_champion() -> None:
    """Undo goes back to what served before the switch; undoing that names the version."""
    switched = after(live(1), live(2))
    assert (switched.deployment.champion, switched.deployment.previous) == (2, 1)
    undone = after(live(1), live(2), Undo(None)).deployment
    assert (undone.champion, undone.previous) == (1, 2)
    assert code(after(live(1), live(2), Undo(None)), Undo(None)) == "undone-already"
    assert after(live(1), live(2), Undo(None), Undo(2)).deployment.champion == 2
    assert after(live(1), live(2), Undo(None), start(2), Undo(None)).deployment.champion == 1


def test_undo_to_any_former_champion() -> None:
    """``--to`` reaches past the previous champion, and never to a version that nobody rolled out."""
    assert after(live(1), live(2), live(3), Undo(1)).deployment.champion == 1
    assert code(after(*BOTH), Undo(2)) == "never-champion"


def test_start_puts_a_released_version_in_service() -> None:
    """A version may be released first and started later."""
    assert after(live(1), released(2), start(2)).deployment.champion == 2


def test_revoking_the_champion_restores_the_previous_first() -> None:
    """Each prefix of the events is a state that can be served."""
    ledger = after(live(1), live(2))
    events = decide(ledger.deployment, Revoke(2))
    assert events == (ModelRestored(1, 2), ModelRevoked(2))
    revoked = after(live(1), live(2), Revoke(2)).deployment
    assert (revoked.champion, revoked.previous) == (1, None)
    assert revoked.releases[2].standing is Standing.REVOKED


def test_revoking_a_candidate_aborts_its_rollout_first() -> None:
    """A revoked version is never a candidate."""
    ledger = after(live(1), released(2), RolloutStarted(2, "canary", "salt"))
    assert decide(ledger.deployment, Revoke(2)) == (RolloutAborted(5), ModelRevoked(2))


def test_undo_of_a_running_rollout_aborts_it_and_restores_nothing() -> None:
    """The latest change of who answers is the rollout, not the champion before it."""
    steps = (live(1), live(2), released(3), RolloutStarted(3, "canary", "salt"))
    ledger, moved = after(*steps), after(*steps, RolloutShifted(8, 1))
    assert decide(moved.deployment, Undo(None)) == (RolloutAborted(8),)
    assert code(ledger, Undo(None)) == "rollout-idle"
    undone = after(*HALF_WAY, Undo(None)).deployment
    assert (undone.champion, undone.previous, undone.rollout) == (1, None, None)


def test_undo_to_a_version_aborts_a_running_rollout_first() -> None:
    """The version named is champion, and no candidate is left behind."""
    ledger = after(live(1), live(2), released(3), RolloutStarted(3, "canary", "salt"))
    assert decide(ledger.deployment, Undo(1)) == (RolloutAborted(8), ModelRestored(1, 2))


def test_an_undo_holds_for_what_its_giver_saw() -> None:
    """Two people who undo one change at once take it back once; unrelated events harm neither."""
    seen = Seen(champion=2, rollout=None)
    ledger = after(live(1), live(2), released(3))
    assert decide(ledger.deployment, Undo(None, seen=seen)) == (ModelRestored(1, 2),)
    assert code(after(live(1), live(2), Undo(None)), Undo(None, seen=seen)) == "changed-meanwhile"
    halfway = Seen(champion=1, rollout=5)
    assert decide(after(*HALF_WAY).deployment, Undo(None, seen=halfway)) == (RolloutAborted(5),)
    assert code(after(*HALF_WAY, Abort(5)), Undo(None, seen=halfway)) == "changed-meanwhile"


@pytest.mark.parametrize("withdraw", [Revoke(1), Retire(1)])
def test_withdrawing_a_version_clears_it_as_previous(withdraw: Command) -> None:
    """Undo never brings a revoked or retired version back."""
    ledger = after(live(1), live(2), withdraw)
    assert ledger.deployment.previous is None
    assert code(ledger, Undo(None)) == "no-previous"
    assert code(ledger, Undo(1)) in {"version-revoked", "version-retired"}
    assert code(ledger, start(1)) in {"version-revoked", "version-retired"}


FALLEN = (Instance("sales-0", frozenset({1}), {2: "runtime: opset 99"}), *fleet((1, 2)))
"""One of two live instances has refused version 2."""

REFUSED: list[tuple[str, tuple[Step, ...], Command, tuple[Step, ...], Command | None]] = [
    # code, a deployment, a command that it refuses; what is done about it, and the command (None: the
    # very same) that is allowed then
    ("already-released", (live(1),), released(1), (), released(2)),
    ("bundle-revoked", (*BOTH, Revoke(2)), released(2), (), released(3)),
    ("rollout-running", RUNNING, live(3), (Abort(5),), None),
    ("rollout-running", (*RUNNING, released(3)), start(3), (Abort(5),), None),
    ("rollout-running", (*RUNNING, released(3)), canary(3), (Promote(5, ()),), None),
    ("no-champion", (released(1),), canary(1), (live(2),), None),
    ("no-champion", (released(1),), shadow(1), (live(2),), None),
    ("no-champion", (), Release(digest(1), Strategy.CANARY, "s"), (live(2),), None),
    ("no-champion", (), Undo(None), (live(1), live(2)), None),
    (
        "no-champion",
        (released(1), RolloutStarted(1, "canary", "s", min_ready=0)),
        Shift(2, 100, None, ()),
        (),
        Promote(2, ()),
    ),
    ("unknown-version", (live(1),), start(2), (released(2),), None),
    ("unknown-version", (live(1),), Undo(9), (live(2),), Undo(1)),
    ("never-champion", BOTH, Undo(2), (start(2), Undo(1)), None),
    ("rollout-idle", (live(1), live(2), released(3), canary(3)), Undo(None), (Abort(8),), None),
    ("rollout-idle", RUNNING, Undo(None), (Shift(5, 1, None, ()),), None),
    ("undone-already", (live(1), live(2), Undo(None)), Undo(None), (), Undo(2)),
    (
        "changed-meanwhile",
        (live(1), live(2)),
        Undo(None, seen=Seen(1, None)),
        (),
        Undo(None, seen=Seen(2, None)),
    ),
    ("nobody-lives", CAREFUL, Shift(5, 1, None, ()), (), Shift(5, 1, None, fleet((1, 2)))),
    ("nobody-lives", CAREFUL, Promote(5, ()), (), Promote(5, fleet((2,)))),
    ("unknown-version", (live(1),), Revoke(2), (released(2),), None),
    ("unknown-version", (live(1),), Retire(2), (released(2),), None),
    ("already-champion", (live(1),), start(1), (live(2),), None),
    ("already-champion", (live(1),), Undo(1), (live(2),), None),
    ("version-revoked", (*BOTH, Revoke(2)), canary(2), (released(3),), canary(3)),
    ("version-retired", (*BOTH, Retire(2)), Retire(2), (released(2),), Retire(3)),
    ("version-retired", (*BOTH, Retire(2)), start(2), (released(2),), start(3)),
    ("plan-without-canary", BOTH, Start(2, Strategy.SHADOW, "s", plan=PLAN), (), canary(2)),
    ("plan-without-canary", BOTH, Start(2, Strategy.BLUE_GREEN, "s", plan=PLAN), (), start(2)),
    ("already-shadowed", SHADOWED, shadow(2), (Abort(5),), None),
    ("being-rolled-out", RUNNING, shadow(2), (Abort(5),), None),
    (
        "fleet-refused",
        BOTH,
        canary(2, fleet=FALLEN, min_ready=5_001),
        (),
        canary(2, fleet=FALLEN, min_ready=5_000),
    ),
    (
        "fleet-refused",
        BOTH,
        shadow(2, fleet=FALLEN, min_ready=10_000),
        (),
        shadow(2, fleet=FALLEN[1:], min_ready=10_000),
    ),
    (
        "fleet-refused",
        (live(1), live(2), Undo(None)),
        Undo(2, fleet=FALLEN),
        (),
        Undo(2, fleet=FALLEN, min_ready=5_000),
    ),
    ("rollout-over", (*RUNNING, Abort(5)), Abort(5), (canary(2),), Abort(7)),
    ("rollout-over", RUNNING, Promote(4, ()), (), Promote(5, ())),
    ("rollout-over", RUNNING, Shift(6, 100, None, ()), (), Shift(5, 100, None, ())),
    ("rollout-over", RUNNING, Pause(4), (), Pause(5)),
    ("rollout-over", (*RUNNING, Pause(5)), Resume(6), (), Resume(5)),
    ("already-there", HALF_WAY, Shift(5, 5_000, 0, ()), (), Shift(5, 5_000, 100, ())),
    ("shadow-has-no-traffic", SHADOWED, Shift(5, 1, None, ()), (), Shift(5, None, 1, ())),
    ("shadow-has-no-traffic", SHADOWED, Promote(5, ()), (), start(2)),
    (
        "blue-green-is-whole",
        (*BOTH, replace(start(2), fleet=fleet((1,)), min_ready=10_000)),
        Shift(5, 10_000, None, ()),
        (),
        Promote(5, fleet((2,))),
    ),
    (
        "fleet-not-ready",
        CAREFUL,
        Shift(5, 1, None, fleet((1,), (2,))),
        (),
        Shift(5, 1, None, fleet((1, 2), (2, 1))),
    ),
    ("fleet-not-ready", CAREFUL, Promote(5, fleet((2,), (1,))), (), Promote(5, fleet((2,), (2,)))),
    ("already-paused", (*RUNNING, Pause(5)), Pause(5), (Resume(5),), None),
    ("not-paused", RUNNING, Resume(5), (Pause(5),), None),
    ("paused", (*RUNNING, Pause(5)), Shift(5, 0, 500, (), step=0), (Resume(5),), None),
    (
        "not-the-next-step",
        RUNNING,
        Shift(5, 1_000, 0, (), step=1),
        (Shift(5, 0, 500, (), step=0),),
        None,
    ),
    (
        "not-the-next-step",
        (*RUNNING, Shift(5, 0, 500, (), step=0)),
        Shift(5, 0, 500, (), step=0),
        (),
        Shift(5, 1_000, 0, (), step=1),
    ),
    ("not-the-next-step", (*BOTH, canary(2)), Pause(5, step=0), (), Pause(5)),
    ("not-in-the-plan", RUNNING, Shift(5, 0, 501, (), step=0), (), Shift(5, 0, 500, (), step=0)),
    ("not-in-the-plan", RUNNING, Pause(5, step=0), (), Pause(5)),
    ("no-previous", (live(1),), Undo(None), (live(2),), None),
    ("no-previous", (live(1),), Revoke(1), (live(2),), None),
    ("already-revoked", (*BOTH, Revoke(2)), Revoke(2), (released(3),), Revoke(3)),
    ("released-again", (*BOTH, Retire(2), released(2)), Revoke(2), (Revoke(3),), None),
    ("in-service", (live(1),), Retire(1), (live(2),), None),
    ("in-service", RUNNING, Retire(2), (Abort(5),), None),
    ("in-service", SHADOWED, Retire(2), (Abort(5),), None),
]


@pytest.mark.parametrize(("expected", "steps", "command", "mended", "allowed"), REFUSED)
def test_refusals_have_stable_codes_and_a_way_out(
    expected: str,
    steps: tuple[Step, ...],
    command: Command,
    mended: tuple[Step, ...],
    allowed: Command | None,
) -> None:
    """Each rule that says no has a code that programs may rely on, and something makes it say yes."""
    assert code(after(*steps), command) == expected
    assert not isinstance(decide(after(*steps, *mended).deployment, allowed or command), Refusal)


def test_every_refusal_code_has_an_example() -> None:
    """A new code needs a line above."""
    written = set(
        re.findall(
            r'Refusal\(\s+f?"([a-z-]+)"', inspect.getsource(decisions) + inspect.getsource(refusals)
        )
    )
    assert {"rollout-over", "already-paused"} <= written
    assert written == {code for code, *_ in REFUSED} - {"version-revoked", "version-retired"}


def test_what_a_refusal_tells_people_to_run_can_be_run() -> None:
    """Each command in a remedy is one of the command line, and parses."""
    for expected, steps, command, *_ in REFUSED:
        refusal = decide(after(*steps).deployment, command)
        assert isinstance(refusal, Refusal)
        for told in re.findall(r"modelwire ([^;`]+)", refusal.remedy):
            words = told.replace("SHARE", "10").replace("VERSION", "1").split()
            found: click.Command = modelwire
            while isinstance(found, click.Group):
                inner = found.get_command(click.Context(found), words.pop(0))
                assert inner is not None, (expected, told)
                found = inner
            found.make_context("modelwire", words)


def test_a_refusal_says_which_instances_lack_what() -> None:
    """Not ready, or refused with the reason: a line for each instance and version."""
    refusal = decide(after(*CAREFUL).deployment, Shift(5, 1, None, (*FALLEN, *fleet((2,)))))
    assert isinstance(refusal, Refusal)
    assert refusal.lacks == (
        Lack("sales-0", 2, "refused (runtime: opset 99)"),
        Lack("sales-0", 1, "not prepared yet"),
    )
    assert refusal.sentence == ("1 of 3 live instances have sales:1, sales:2 prepared, and 3 must")
    assert str(refusal.lacks[0]) == "sales-0: version 2 refused (runtime: opset 99)"


def test_blue_green_promotes_in_one_transaction_where_enough_are_ready() -> None:
    """The whole share moves in one revision; the one before it moves nothing."""
    ready = replace(start(2), fleet=fleet((1, 2), (2,)), min_ready=10_000)
    ledger = after(*BOTH)
    assert decide(ledger.deployment, ready) == (
        RolloutStarted(2, "blue-green", "again"),
        RolloutPromoted(5, 2),
    )
    switched = after(*BOTH, ready).deployment
    assert (switched.champion, switched.previous, switched.rollout) == (2, 1, None)
    assert switched.wanted() == (2, 1), "the old version stays warm until it is retired"


def test_blue_green_waits_without_traffic_for_who_is_not_ready() -> None:
    """Started alone: the version is loaded and warm, and the champion answers everything."""
    waits = replace(start(2), fleet=fleet((1, 2), (1,)), min_ready=10_000)
    waiting = after(*BOTH, waits).deployment
    assert waiting.rollout is not None
    assert (waiting.champion, waiting.rollout.weight) == (1, 0)
    assert (waiting.required(), waiting.wanted()) == ((1,), (1, 2))
    assert after(*BOTH, waits, Promote(5, fleet((2,)))).deployment.champion == 2
    half = replace(waits, min_ready=5_000)
    assert after(*BOTH, half).deployment.champion == 2
    assert after(*BOTH, replace(waits, min_ready=0)).deployment.champion == 2
    nobody = after(*BOTH, replace(waits, fleet=())).deployment
    assert nobody.champion == 1, "instances that merely look dead may still answer"


def test_the_first_champion_waits_for_nobody() -> None:
    """Instances that have nothing to answer with cannot be harmed."""
    first = Release(digest(1), Strategy.BLUE_GREEN, "s", fleet=fleet((), ()))
    assert after(first).deployment.champion == 1


def test_a_release_may_start_any_rollout() -> None:
    """One command names the version and begins what its strategy says."""
    ledger = after(live(1))
    shadowing = decide(ledger.deployment, Release(digest(2), Strategy.SHADOW, "s", "why"))
    assert shadowing == (
        ModelReleased(2, digest(2), "why"),
        RolloutStarted(2, "shadow", "s", "why", min_ready=0),
        RolloutShifted(5, 0, 10_000, "why"),
    )
    careful = Release(digest(2), Strategy.CANARY, "s", plan=PLAN, min_ready=9_000)
    assert decide(ledger.deployment, careful) == (
        ModelReleased(2, digest(2)),
        RolloutStarted(2, "canary", "s", plan=PLAN, min_ready=9_000),
    )


def test_a_canary_goes_up_and_back_by_hand() -> None:
    """Up where the fleet is ready; down always, though nobody is."""
    ready, unready = fleet((1, 2)), fleet((1,), (2,))
    up = after(*RUNNING, Shift(5, 100, None, ready), Shift(5, 10_000, 300, ready))
    assert up.deployment.rollout is not None
    assert (up.deployment.rollout.weight, up.deployment.rollout.shadow) == (10_000, 300)
    assert up.deployment.required() == (1, 2)
    down = decide(up.deployment, Shift(5, 9_999, None, unready))
    assert down == (RolloutShifted(5, 9_999, 300),)
    assert decide(up.deployment, Shift(5, None, 10_000, unready)) == (
        RolloutShifted(5, 10_000, 10_000),
    )


def test_the_minimum_of_a_rollout_travels_in_its_event() -> None:
    """At 90 % nine of ten are enough, and eight are not; whoever moves the rollout next."""
    ledger = after(*BOTH, canary(2, min_ready=9_000))
    nine = fleet(*[(1, 2)] * 9, (1,))
    eight = fleet(*[(1, 2)] * 8, (1,), (2,))
    assert not isinstance(decide(ledger.deployment, Shift(5, 100, None, nine)), Refusal)
    assert code(ledger, Shift(5, 100, None, eight)) == "fleet-not-ready"


def test_a_plan_is_carried_out_step_by_step() -> None:
    """Each step once, in order; a pause in the plan is a step, one by hand is none."""
    shares = fleet((1, 2))
    ledger = after(
        *RUNNING,
        Shift(5, 0, 500, shares, step=0),
        Pause(5, "lunch"),
        Resume(5),
        Shift(5, 1_000, 0, shares, step=1),
        Pause(5, step=2),
        Resume(5, "go on"),
        Shift(5, 5_000, 0, shares, step=3),
    )
    assert [each.data for each in ledger.events[5:]] == [
        RolloutShifted(5, 0, 500, step=0),
        RolloutPaused(5, "lunch"),
        RolloutResumed(5),
        RolloutShifted(5, 1_000, 0, step=1),
        RolloutPaused(5, step=2),
        RolloutResumed(5, "go on"),
        RolloutShifted(5, 5_000, 0, step=3),
    ]
    assert ledger.deployment.rollout is not None
    assert (ledger.deployment.rollout.step, ledger.deployment.rollout.paused) == (3, False)
    assert code(ledger, Shift(5, 0, 0, shares, step=4)) == "not-the-next-step"


def test_a_pause_leaves_the_shares_and_a_hand_may_still_move_them() -> None:
    """What is paused is the plan, not the traffic, nor the people."""
    paused = after(*HALF_WAY)
    assert paused.deployment.rollout is not None
    assert (paused.deployment.rollout.weight, paused.deployment.rollout.paused) == (5_000, True)
    assert after(*HALF_WAY).events[-1].data == RolloutPaused(5, "moved by hand")
    moved = after(*HALF_WAY, Shift(5, 100, None, ())).deployment.rollout
    assert moved is not None
    assert (moved.weight, moved.paused) == (100, True)


def test_several_shadows_run_beside_a_rollout() -> None:
    """Each has its name; ending one leaves the others."""
    ledger = after(*BOTH, released(3), released(4), shadow(2), shadow(3, share=100), canary(4))
    assert {name: each.shadow for name, each in ledger.deployment.shadows.items()} == {
        7: 10_000,
        9: 100,
    }
    assert ledger.deployment.wanted() == (1, 4, 2, 3)
    assert ledger.deployment.required() == (1,)
    ended = after(*BOTH, released(3), shadow(2), shadow(3), Abort(6)).deployment
    assert list(ended.shadows) == [8]


def test_a_shadow_ends_when_its_version_gets_another_part() -> None:
    """Nothing shadows itself: not a candidate, not a champion."""
    ledger = after(*SHADOWED)
    assert decide(ledger.deployment, canary(2)) == (
        RolloutAborted(5),
        RolloutStarted(2, "canary", "canary", min_ready=0),
    )
    assert decide(ledger.deployment, start(2)) == (
        RolloutAborted(5),
        RolloutStarted(2, "blue-green", "again", min_ready=0),
        RolloutPromoted(8, 2),
    )
    former = after(live(1), live(2), Undo(1), shadow(2)).deployment
    assert decide(former, Undo(2)) == (RolloutAborted(8), ModelRestored(2, 1))
    assert decide(ledger.deployment, Revoke(2)) == (RolloutAborted(5), ModelRevoked(2))


def test_a_shadow_of_the_candidate_that_somebody_else_began_ends_with_the_promotion() -> None:
    """The fold takes such a log; the champion does not shadow itself, and can be revoked."""
    steps = (*RUNNING, RolloutStarted(2, "shadow", "s"))
    promoted = after(*steps, Promote(5, ()))
    assert promoted.deployment.champion == 2
    assert not promoted.deployment.shadows
    also = (*BOTH, RolloutStarted(2, "canary", "c"), RolloutStarted(2, "shadow", "s"))
    revoked = after(*also, RolloutPromoted(5, 2), Revoke(2)).deployment
    assert (revoked.champion, revoked.shadows) == (1, {})


def test_a_retired_bundle_may_be_released_again() -> None:
    """Retiring is about memory, not about trust: the bundle gets a new ordinal."""
    deployment = after(live(1), released(2), Retire(2), live(2)).deployment
    assert deployment.champion == 3
    assert deployment.releases[3].digest == digest(2)


@pytest.mark.parametrize(
    ("steps", "data"),
    [
        ((), ModelReleased(2, digest(1))),
        ((live(1),), ModelRevoked(1)),
        ((live(1),), ModelRestored(4, 1)),
        ((live(1), released(2), Revoke(2)), ModelRestored(2, 1)),
        ((live(1), released(2), Revoke(2)), RolloutStarted(2, "blue-green", "s")),
        ((live(1),), RolloutStarted(1, "canary", "s")),
        (
            (live(1), released(2), released(3), RolloutStarted(2, "canary", "s")),
            RolloutStarted(3, "canary", "s"),
        ),
        ((live(1), live(2), released(3), RolloutStarted(3, "canary", "s")), ModelRestored(1, 2)),
        ((live(1),), RolloutPromoted(1, 1)),
        ((live(1),), RolloutAborted(1)),
        ((live(1),), RolloutShifted(1, 100)),
        ((live(1), released(2), RolloutStarted(2, "canary", "s")), RolloutPromoted(5, 1)),
        ((live(1), released(2), RolloutStarted(2, "canary", "s")), ModelRevoked(2)),
    ],
)
def test_the_fold_refuses_what_no_writer_may_say(steps: tuple[Step, ...], data: EventData) -> None:
    """A log that would put a withdrawn or unknown version into service stops its reader."""
    ledger = after(*steps)
    before = ledger.deployment
    with pytest.raises(BrokenLog):
        ledger.take(record(before, data))
    assert ledger.deployment is before


def test_a_gap_a_repeat_and_a_broken_chain_stop_the_reader() -> None:
    """Accepted events number densely, and each names the hash of the one before."""
    ledger = after(live(1))
    latest = record(ledger.deployment, ModelReleased(2, digest(2)))
    gap = record(replace(ledger.deployment, revision=7), ModelReleased(2, digest(2)))
    repeat = record(replace(ledger.deployment, revision=2), ModelReleased(2, digest(2)))
    forked = record(replace(ledger.deployment, head=digest(9)), ModelReleased(2, digest(2)))
    foreign = record(replace(ledger.deployment, model="other"), ModelReleased(2, digest(2)))
    for wrong in (gap, repeat, forked, foreign):
        with pytest.raises(BrokenLog):
            ledger.take(wrong)
    assert not isinstance(ledger.take(latest), Unaccepted)


@pytest.mark.parametrize("raw", [None, b"", b"hello", b"{}", b"[1]", b'{"specversion":"0.3"}'])
def test_a_record_of_bad_form_counts_for_nothing(raw: bytes | None) -> None:
    """It is reported, and the next event still follows the last accepted one."""
    ledger = after(live(1))
    before = ledger.deployment
    assert isinstance(ledger.take(raw), Unaccepted)
    assert ledger.deployment is before
    ledger.take(record(before, ModelReleased(2, digest(2))))
    assert ledger.deployment.revision == before.revision + 1


def test_an_event_of_an_unknown_type_is_a_revision_and_says_nothing() -> None:
    """A later version's events pass through, and the chain goes on over them."""
    ledger = after(live(1))
    before = ledger.deployment
    known = msgspec.json.decode(record(before, ModelReleased(2, digest(2))))
    later = msgspec.json.encode(
        known | {"type": "io.modelwire.model.praised.v1", "data": {"x": 1}, "mood": "good"}
    )
    ledger.take(later)
    assert ledger.deployment.revision == before.revision + 1
    assert ledger.deployment.releases == before.releases
    ledger.take(record(ledger.deployment, ModelReleased(2, digest(2))))
    assert 2 in ledger.deployment.releases


def test_a_stamp_is_known_ahead_or_foreign() -> None:
    """A stamp belongs to one log, one revision and one event."""
    ledger = after(live(1), live(2))
    longer = after(live(1), live(2), live(3))
    other = after(live(9), live(2))
    assert ledger.judge_stamp(after(live(1)).deployment.stamp) is StampVerdict.KNOWN
    assert ledger.judge_stamp(ledger.deployment.stamp) is StampVerdict.KNOWN
    assert ledger.judge_stamp(longer.deployment.stamp) is StampVerdict.AHEAD
    assert ledger.judge_stamp(other.deployment.stamp) is StampVerdict.FOREIGN
    log_id, revision, _ = ledger.deployment.stamp.split(":")
    for wrong in ("", "x", f"{log_id}:{revision}:ffffffffffffffff", f"{log_id}:0:ff", "a:b:c"):
        assert ledger.judge_stamp(wrong) is StampVerdict.FOREIGN


def test_required_and_wanted_versions() -> None:
    """A candidate without traffic is wanted, never required; so is the previous champion."""
    started = after(live(1), live(2), released(3), RolloutStarted(3, "canary", "s")).deployment
    assert started.required() == (2,)
    assert started.wanted() == (2, 3, 1)
    assert started.rollout is not None
    shifted = replace(started, rollout=replace(started.rollout, weight=1))
    assert shifted.required() == (2, 3)
