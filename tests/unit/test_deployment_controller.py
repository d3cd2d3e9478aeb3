"""What the controller does next, for every situation that it can find."""

import math
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from deployment.commands import (
    Abort,
    Command,
    Pause,
    Promote,
    Refusal,
    Release,
    Resume,
    Shift,
    Start,
    Strategy,
)
from deployment.controller import (
    Give,
    Move,
    Outcome,
    Over,
    Scene,
    Wait,
    find_breach,
    is_short,
    next_move,
)
from deployment.decisions import decide
from deployment.ledger import Ledger
from deployment.plans import parse_plan
from deployment.readiness import Fleet, Instance
from deployment.state import Deployment, Rollout
from schemas.events import EventData, Guard, encode_event, new_event
from schemas.fleet import Tally

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
PATIENCE = 60.0
PLAN = """
steps = [
    {shadow = 100, hold = "10m"},
    {weight = 1, hold = "5m"},
    {weight = 10},
    {pause = true},
    {weight = 50},
    {weight = 100},
]
"""


class World:
    """A log, a clock and a fleet of three that applies what it reads unless it is told otherwise."""

    def __init__(self, plan: str | None = PLAN, strategy: Strategy = Strategy.CANARY) -> None:
        self.ledger = Ledger("sales")
        self.now = EPOCH
        self.unready_seconds = 0.0
        self.patience = PATIENCE
        self.crashes = 0
        self.fleet: Callable[[], Fleet] = self.healthy
        self.give(Release(f"sha256:{1:064x}", Strategy.BLUE_GREEN, "s"))
        self.give(Release(f"sha256:{2:064x}", None, "s"))
        parsed = None if plan is None else parse_plan(plan, "plan.toml")
        waiting = (Instance("a", frozenset({1})),)
        start = Start(2, strategy, "salt", plan=parsed, min_ready=10_000, fleet=waiting)
        self.give(start)
        rollout = self.deployment.rollout
        assert rollout is not None
        self.started: Rollout = rollout

    @property
    def deployment(self) -> Deployment:
        return self.ledger.deployment

    @property
    def rollout(self) -> Rollout:
        rollout = self.deployment.rollout
        assert rollout is not None
        return rollout

    def healthy(self, *tallies: Tally) -> Fleet:
        revision = self.deployment.revision
        return tuple(
            Instance(name, frozenset({1, 2}), revision=revision, tallies=tallies if not n else ())
            for n, name in enumerate("abc")
        )

    def give(self, command: Command) -> None:
        events = decide(self.deployment, command)
        assert not isinstance(events, Refusal), events
        for data in events:
            self.append(data)

    def append(self, data: EventData) -> None:
        event = new_event(
            data,
            model="sales",
            revision=self.deployment.revision + 1,
            previous=self.deployment.head,
            commandid="c",
            actor="ann",
            time=self.now,
        )
        self.ledger.take(encode_event(event))

    @property
    def scene(self) -> Scene:
        return Scene(
            self.deployment,
            self.fleet(),
            self.now,
            self.unready_seconds,
            self.patience,
            self.crashes,
        )

    def move(self) -> Move:
        return next_move(self.scene, self.started)

    def wait(self) -> Wait:
        move = self.move()
        assert isinstance(move, Wait), move
        return move

    def command(self) -> Command:
        move = self.move()
        assert isinstance(move, Give), move
        return move.command

    def follow(self) -> Command:
        """Carry the next move out, which must be a command."""
        command = self.command()
        self.give(command)
        return command

    def later(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


def shares(command: Command) -> tuple[int | None, int | None, int | None]:
    assert isinstance(command, Shift), command
    return command.weight, command.shadow, command.step


def test_a_plan_is_carried_out_step_by_step_to_its_promotion() -> None:
    """Shadow, holds, a step without a hold, a pause that a person ends, and the whole share."""
    world = World()
    assert shares(world.follow()) == (0, 10_000, 0)
    assert world.wait().seconds == 600
    world.later(600)
    assert shares(world.follow()) == (100, 0, 1)
    world.later(299)
    assert world.wait().seconds == pytest.approx(1)
    world.later(1)
    assert shares(world.follow()) == (1_000, 0, 2)
    assert world.follow() == Pause(world.started.revision, "step 4 of the plan", 3)
    world.later(10_000)
    assert "resume" in world.wait().why
    world.give(Resume(world.started.revision))
    assert shares(world.follow()) == (5_000, 0, 4)
    assert shares(world.follow()) == (10_000, 0, 5)
    assert isinstance(world.follow(), Promote)
    over = world.move()
    assert isinstance(over, Over)
    assert over.outcome is Outcome.PROMOTED
    assert world.deployment.champion == 2


def test_a_step_is_over_only_when_everybody_that_answers_has_applied_it() -> None:
    """An instance that still answers at an older revision keeps the next step back, and is named."""
    world = World()
    world.follow()
    world.later(600)
    behind = replace(world.healthy()[1], revision=world.deployment.revision - 1)
    world.fleet = lambda: (*world.healthy()[:1], behind)
    assert "waiting for b" in world.wait().why
    world.fleet = lambda: (*world.healthy()[:1], replace(behind, answering=False))
    assert shares(world.command()) == (100, 0, 1)


def test_shares_grow_only_where_the_fleet_is_ready() -> None:
    """Neither a fleet without the candidate nor a fleet that nobody hears of gets traffic."""
    world = World()
    world.fleet = lambda: (*world.healthy()[:2], Instance("c", frozenset({1})))
    assert "2 of 3" in world.wait().why
    world.fleet = lambda: ()
    assert "0 of 0" in world.wait().why
    world.give(Abort(world.started.revision))
    world.give(Start(2, Strategy.CANARY, "salt", plan=parse_plan(PLAN, "p"), min_ready=0))
    world.started = world.rollout
    assert "0 of 0" in world.wait().why, "a controller moves nothing while nobody lives"


def test_a_minimum_below_all_lets_traffic_grow_without_the_rest() -> None:
    """With 60 % two of three are enough."""
    world = World()
    rollout = replace(world.rollout, min_ready=6_000)
    deployment = replace(world.deployment, rollout=rollout)
    fleet = (*world.healthy()[:2], Instance("c", frozenset({1}), answering=False))
    scene = Scene(deployment, fleet, world.now, 0, PATIENCE)
    assert isinstance(next_move(scene, rollout), Give)
    assert isinstance(next_move(replace(scene, fleet=fleet[1:]), rollout), Wait)


def test_too_few_ready_instances_for_too_long_abort() -> None:
    """While the candidate has traffic the plan stands still, then the champion gets everything."""
    world = World('steps = [{weight = 50, hold = "1h"}, {weight = 100}]')
    world.follow()
    assert not is_short(world.deployment, world.fleet())
    world.fleet = lambda: (Instance("a", frozenset({1})), Instance("b", frozenset({2})))
    assert is_short(world.deployment, world.fleet())
    assert "0 of 2 live instances are ready" in world.wait().why
    world.unready_seconds = PATIENCE
    command = world.follow()
    assert isinstance(command, Abort)
    assert command.reason.startswith("guard: 0 of 2")
    over = world.move()
    assert isinstance(over, Over)
    assert over.outcome is Outcome.ABORTED
    assert world.deployment.required() == (1,)


@pytest.mark.parametrize("variant", ["candidate", "shadow"])
def test_the_guard_aborts_a_candidate_that_is_rejected_too_often(variant: str) -> None:
    """At least 50 rejections and twice the champion's rate, also in a pause; one less changes nothing."""
    world = World("steps = [{weight = 50}, {pause = true}, {weight = 100}]")
    world.follow()
    world.follow()
    revision = world.started.revision
    champion = Tally(revision, 1, "champion", answered=9_900, rejected=100)

    def candidate(answered: int, rejected: int) -> None:
        tally = Tally(revision, 2, variant, answered, rejected)
        world.fleet = lambda: world.healthy(champion, tally)

    candidate(951, 49)
    assert isinstance(world.move(), Wait)
    candidate(4_950, 50)
    assert isinstance(world.move(), Wait)
    candidate(2_450, 50)
    command = world.command()
    assert isinstance(command, Abort)
    assert (
        f"the {variant} rejected 50 of 2,500 requests (2.00%), the champion 1.00%" in command.reason
    )


def breach(*tallies: Tally, rollout: Rollout | None = None, guard: Guard | None = None) -> str:
    """What the guard says of one instance with these tallies."""
    world = World()
    world.fleet = lambda: [Instance("a", frozenset(), tallies=tallies)]
    return find_breach(rollout or world.started, world.scene, guard or Guard())


def test_the_guard_counts_this_rollout_alone() -> None:
    """What the versions did under an earlier rollout is no evidence."""
    rollout = World().started
    older = rollout.revision - 1
    tallies = (
        Tally(older, 1, "champion", answered=1_000, rejected=0),
        Tally(older, 2, "candidate", answered=0, rejected=1_000),
    )
    assert breach(*tallies) == ""
    assert breach(*tallies, rollout=replace(rollout, revision=older))


def test_a_candidate_that_is_no_worse_than_a_bad_champion_goes_on() -> None:
    """Poison hits both: equal rates never abort, whatever the factor."""
    revision = World().started.revision
    champion = Tally(revision, 1, "champion", 100, 900)
    candidate = Tally(revision, 2, "candidate", 100, 900)
    assert breach(champion, candidate, guard=Guard(factor=1, least=1)) == ""
    worse = replace_tally(candidate, rejected=1_000)
    assert breach(champion, worse, guard=Guard(factor=1, least=1))


def test_a_champion_that_answered_next_to_nothing_is_no_measure() -> None:
    """At a weight of 100 % from the start, or after a restart, its rate would be 0 by chance."""
    revision = World().started.revision
    candidate = Tally(revision, 2, "candidate", answered=9_950, rejected=50)
    assert breach(candidate) == ""
    assert breach(candidate, Tally(revision, 1, "champion", 49, 0)) == ""
    assert breach(candidate, Tally(revision, 1, "champion", 50, 0))


def replace_tally(tally: Tally, rejected: int) -> Tally:
    return msgspec.structs.replace(tally, rejected=rejected)


def test_instances_that_keep_dying_end_the_rollout() -> None:
    """As many unclean ends as the plan's guard names, also in a pause; one less changes nothing."""
    world = World("steps = [{pause = true}, {weight = 100}]\nguard = {crashes = 3}")
    world.follow()
    world.crashes = 2
    assert isinstance(world.move(), Wait)
    world.crashes = 3
    command = world.command()
    assert isinstance(command, Abort)
    assert "without saying goodbye 3 times" in command.reason


def test_a_rollout_without_a_plan_is_a_persons_business() -> None:
    """Neither a canary by hand nor a shadow is judged, moved or ended; nor by another rollout's state."""
    world = World(plan=None)
    over = world.move()
    assert isinstance(over, Over)
    assert over.outcome is Outcome.STAYS
    world.give(Release(f"sha256:{3:064x}", None, "s"))
    world.give(Start(3, Strategy.SHADOW, "dark"))
    world.give(Shift(world.started.revision, 5_000, None, world.fleet()))
    (shadow,) = world.deployment.shadows.values()
    world.fleet = lambda: (Instance("a", frozenset({1})),)
    world.unready_seconds = PATIENCE
    over = next_move(world.scene, shadow)
    assert isinstance(over, Over)
    assert over.outcome is Outcome.STAYS


def test_an_infinite_patience_never_aborts() -> None:
    """The guard that is switched off says what is wrong, and no time."""
    world = World('steps = [{weight = 50, hold = "1h"}, {weight = 100}]')
    world.follow()
    world.fleet = lambda: (Instance("a", frozenset({1})),)
    world.patience, world.unready_seconds = math.inf, 1e9
    assert world.wait().why.endswith("must be")


def test_shares_that_a_person_set_are_not_taken_back() -> None:
    """A shift by hand pauses the plan; resumed, it goes on with the next step."""
    world = World('steps = [{weight = 10, hold = "1h"}, {weight = 50}, {weight = 100}]')
    world.follow()
    world.give(Shift(world.started.revision, 0, None, ()))
    world.later(10_000)
    assert "resume" in world.wait().why
    assert world.rollout.weight == 0
    world.give(Resume(world.started.revision))
    assert shares(world.follow()) == (5_000, 0, 1)


def test_a_manual_plan_pauses_after_each_step() -> None:
    """A person resumes, and the next step comes; nothing is asked twice for one step."""
    world = World('steps = [{weight = 10, hold = "1m"}, {weight = 100}]\nanalysis = "manual"')
    assert shares(world.follow()) == (1_000, 0, 0)
    assert isinstance(world.move(), Wait)
    world.later(60)
    command = world.follow()
    assert isinstance(command, Pause)
    assert command.step is None
    assert "a person looks" in command.reason
    world.give(Resume(world.started.revision))
    assert shares(world.follow()) == (10_000, 0, 1)
    assert isinstance(world.follow(), Pause)
    world.give(Resume(world.started.revision))
    assert isinstance(world.follow(), Promote)


def test_a_plan_that_ends_below_the_whole_share_stays() -> None:
    """Nothing is promoted that the plan did not ask for."""
    world = World("steps = [{weight = 20}]")
    world.follow()
    over = world.move()
    assert isinstance(over, Over)
    assert over.outcome is Outcome.STAYS
    assert world.rollout.weight == 2_000


def test_a_step_that_takes_traffic_away_asks_nobody() -> None:
    """Lowering shares is always possible, whatever the fleet says."""
    world = World("steps = [{weight = 50}, {weight = 0, shadow = 0, hold = '1h'}]")
    world.follow()
    world.fleet = lambda: tuple(
        replace(each, prepared=frozenset({1, 2})) for each in world.healthy()
    )
    assert shares(world.command()) == (0, 0, 1)


def test_blue_green_is_promoted_as_soon_as_enough_are_ready() -> None:
    """It has no steps; it waits without traffic."""
    world = World(plan=None, strategy=Strategy.BLUE_GREEN)
    assert world.rollout.weight == 0
    world.fleet = lambda: (Instance("a", frozenset({1})),)
    assert "0 of 1" in world.wait().why
    world.fleet = world.healthy
    world.give(Pause(world.started.revision))
    over = world.move()
    assert isinstance(over, Over)
    assert "paused" in over.why
    world.give(Resume(world.started.revision))
    assert isinstance(world.follow(), Promote)
    assert world.deployment.champion == 2


def test_an_analysis_of_a_later_version_is_a_persons_business() -> None:
    """A name that this controller does not know never lets a plan run on by itself."""
    world = World("steps = [{weight = 10}, {weight = 100}]")
    world.follow()
    plan = world.rollout.plan
    assert plan is not None
    rollout = replace(world.rollout, plan=msgspec.structs.replace(plan, analysis="bayes"))
    scene = Scene(replace(world.deployment, rollout=rollout), world.healthy(), world.now, 0, 60)
    move = next_move(scene, rollout)
    assert isinstance(move, Give)
    assert isinstance(move.command, Pause)


def test_a_killed_controller_finds_the_same_move_again() -> None:
    """The move is a function of the log: whoever asks, and however often, gets the same."""
    world = World()
    for _ in range(5):
        world.later(1_000)
        if world.rollout.paused:
            world.give(Resume(world.started.revision))
        assert world.move() == world.move()
        before = world.deployment
        command = world.command()
        world.give(command)
        again = decide(world.deployment, command)
        assert isinstance(again, Refusal), "a second controller with the same move is refused"
        assert before != world.deployment
