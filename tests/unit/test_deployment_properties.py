"""What holds of a deployment whatever is commanded, in whatever order.

The machine gives every command, with plans, with fleets that are ready, half ready and unwilling, and
with names of rollouts that run, are over or never were. What the rules must not allow is judged here by
counting of its own: nothing of ``deployment.readiness`` is used to judge ``deployment.decisions``.
"""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

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
from deployment.ledger import Ledger, StampVerdict
from deployment.readiness import Fleet, Instance
from deployment.routing import route, routing_of
from deployment.state import Deployment, Rollout, Standing, empty, fold
from schemas.events import (
    EventData,
    Plan,
    PlanStep,
    RolloutPaused,
    RolloutShifted,
    encode_event,
    new_event,
)
from schemas.forecast import Variant

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
KEYS = [f"shop-{number}".encode() for number in range(40)]
LIVELY = 12
"""Versions before the newest that have a say in a fleet."""

PLANS = (
    Plan((PlanStep(shadow=10_000), PlanStep(100), PlanStep(pause=True), PlanStep(10_000))),
    Plan((PlanStep(5_000, hold_seconds=60), PlanStep(1_000, shadow=2_000), PlanStep(5_000))),
    Plan((PlanStep(pause=True), PlanStep(pause=True), PlanStep(1))),
)

CHOICES = st.integers(0, 11)
"""Which version or rollout a command means: mostly one that it can mean."""
WEIGHTS = st.sampled_from((0, 0, 1, 100, 1_000, 5_000, 9_999, 10_000))
MINIMA = st.sampled_from((10_000, 10_000, 5_000, 9_000, 1, 0))
FLEET_SEEDS = st.integers(0, 4_095)


def make_fleet(seed: int, newest: int) -> Fleet:
    """Nobody, all ready for everything, or up to three that prepared and refused this and that."""
    kind, seed = seed % 4, seed // 4
    versions = range(max(1, newest - LIVELY), newest + 1)
    if kind == 0:
        return ()
    if kind in (1, 2):
        return tuple(Instance(f"i-{number}", frozenset(versions)) for number in range(kind + 1))
    made = []
    for number in range(seed % 3 + 1):
        fates = {each: (seed * 7 + each * (number + 3) + number) % 5 for each in versions}
        prepared = frozenset(each for each, fate in fates.items() if fate > 1)
        refused = {each: "golden: no" for each, fate in fates.items() if fate == 0}
        made.append(Instance(f"i-{number}", prepared, refused))
    return tuple(made)


def are_enough(fleet: Fleet, versions: set[int], minimum: int) -> bool:
    """Counted here, by the words of the rule: the share of the live ones that have all of them."""
    ready = len([each for each in fleet if versions <= set(each.prepared)])
    return ready / len(fleet) >= minimum / 10_000 if fleet else minimum == 0


class Deployments(RuleBasedStateMachine):
    """Gives any commands to a deployment and checks every state on the way."""

    @initialize(serving=st.sampled_from((True, True, True, False)))
    def begin(self, serving: bool) -> None:
        self.ledger = Ledger("sales")
        self.records: list[bytes] = []
        self.states: list[Deployment] = [self.ledger.deployment]
        self.judged = 1
        self.commands = 0
        self.over: set[int] = set()
        self.steps: dict[int, list[int]] = {}
        if serving:
            self.release_more(Strategy.BLUE_GREEN)
            for _ in range(3):
                self.release_more(None)

    # --- giving commands

    def give(self, command: Command) -> bool:
        """Append what the command decides; False where it is refused."""
        before = self.ledger.deployment
        outcome = decide(before, command)
        self.commands += 1
        named = getattr(command, "rollout", None)
        if named is not None and named not in self.running(before):
            assert isinstance(outcome, Refusal)
            assert outcome.code == "rollout-over"
        if isinstance(outcome, Refusal):
            assert outcome.code
            assert outcome.sentence
            assert outcome.remedy
            return False
        assert outcome
        for data in outcome:
            self.append(data)
        self.judge_traffic(before, command)
        return True

    def append(self, data: EventData) -> None:
        deployment = self.ledger.deployment
        raw = encode_event(
            new_event(
                data,
                model="sales",
                revision=deployment.revision + 1,
                previous=deployment.head,
                commandid=f"c{self.commands}",
                actor="ann",
                time=EPOCH + timedelta(seconds=self.commands),
            )
        )
        self.note_step(data)
        self.ledger.take(raw)
        self.records.append(raw)
        self.states.append(self.ledger.deployment)
        self.over |= self.running(deployment) - self.running(self.ledger.deployment)

    @staticmethod
    def running(state: Deployment) -> set[int]:
        """The names of what runs."""
        return set(state.shadows) | ({state.rollout.revision} if state.rollout else set())

    def version(self, choice: int) -> int:
        """Mostly one of the newest that may serve, else a withdrawn one, or one that is unknown."""
        releases = self.ledger.deployment.releases
        fit = [version for version, release in releases.items() if release.may_serve]
        if choice == 11 or not releases:
            return len(releases) + 1
        if choice == 10 or not fit:
            return choice % len(releases) + 1
        return fit[-1 - choice % min(len(fit), 5)]

    def rollout(self, choice: int) -> tuple[int, Rollout]:
        """The rollout with traffic, or without one (and sometimes with it) a shadow."""
        state = self.ledger.deployment
        if state.rollout is not None and (choice < 8 or not state.shadows):
            return state.rollout.revision, state.rollout
        shadows = sorted(state.shadows)
        named = shadows[choice % len(shadows)]
        return named, state.shadows[named]

    def fleet(self, seed: int) -> Fleet:
        return make_fleet(seed, len(self.ledger.deployment.releases))

    # --- what is judged of each command

    def judge_traffic(self, before: Deployment, command: Command) -> None:
        """Traffic grows only by a command whose own evidence shows enough ready instances."""
        after = self.ledger.deployment
        fleet = getattr(command, "fleet", ())
        if after.champion != before.champion:
            assert after.champion is not None
            if isinstance(command, Promote):
                assert before.rollout is not None
                assert are_enough(fleet, {after.champion}, before.rollout.min_ready)
            elif isinstance(command, Start | Release):
                enough = are_enough(fleet, {after.champion}, command.min_ready)
                assert before.champion is None or enough
            else:
                assert isinstance(command, Undo | Revoke)
        old, new = before.rollout, after.rollout
        if new is None:
            return
        if old is None or old.revision != new.revision:
            assert new.weight == 0
        elif new.weight > old.weight:
            assert isinstance(command, Shift)
            assert after.champion is not None
            assert are_enough(fleet, {after.champion, new.candidate}, new.min_ready)
        self.judge_routing(before, after)

    def judge_routing(self, before: Deployment, after: Deployment) -> None:
        """While one rollout runs, keys go one way when its weight grows, and the other way back."""
        old, new = routing_of(before), routing_of(after)
        if old is None or new is None or old.salt != new.salt:
            return
        for key in KEYS:
            was, now = route(old, key, "id"), route(new, key, "id")
            if was is not now:
                assert (now is Variant.CANDIDATE) == (new.weight > old.weight)

    def note_step(self, data: EventData) -> None:
        """A plan's steps are carried out once each, in order, and as the plan says."""
        if not isinstance(data, RolloutShifted | RolloutPaused) or data.step is None:
            return
        rollout = self.ledger.deployment.running(data.rollout)
        assert rollout is not None
        assert rollout.plan is not None
        assert not rollout.paused
        done = self.steps.setdefault(data.rollout, [])
        done.append(data.step)
        assert done == list(range(len(done)))
        said = rollout.plan.steps[data.step]
        assert said.pause == isinstance(data, RolloutPaused)
        if isinstance(data, RolloutShifted):
            assert (said.weight, said.shadow) == (data.weight, data.shadow)

    # --- releases

    def release_more(self, start: Strategy | None) -> None:
        self.give(Release(f"sha256:{self.commands + 10**6:064x}", start, f"s-{self.commands}"))

    @precondition(lambda self: self.is_bare())
    @rule()
    def replenish(self) -> None:
        """Revoking and retiring must not end the game."""
        self.release_more(Strategy.BLUE_GREEN)
        self.release_more(None)

    def is_bare(self) -> bool:
        state = self.ledger.deployment
        fit = [version for version, release in state.releases.items() if release.may_serve]
        return len(fit) < 3

    @rule(
        again=st.integers(0, 6),
        start=st.sampled_from((None, None, *Strategy)),
        plan=st.sampled_from((None, *PLANS)),
        minimum=MINIMA,
        seed=FLEET_SEEDS,
    )
    def release(
        self, again: int, start: Strategy | None, plan: Plan | None, minimum: int, seed: int
    ) -> None:
        """Mostly a new bundle, sometimes one that was released, revoked or retired before."""
        number = self.commands if again else self.commands // 2
        self.give(
            Release(
                f"sha256:{number:064x}",
                start,
                f"salt-{self.commands}",
                plan=plan if start is Strategy.CANARY else None,
                min_ready=minimum,
                fleet=self.fleet(seed),
            )
        )

    @rule(choice=CHOICES)
    def revoke(self, choice: int) -> None:
        self.give(Revoke(self.version(choice)))

    @rule(choice=CHOICES)
    def retire(self, choice: int) -> None:
        self.give(Retire(self.version(choice)))

    # --- rollouts

    def start(self, choice: int, strategy: Strategy, seed: int, **more: Any) -> None:
        version = self.version(choice)
        salt = f"salt-{self.commands}"
        self.give(Start(version, strategy, salt, fleet=self.fleet(seed), **more))

    @rule(choice=CHOICES, plan=st.sampled_from((None, *PLANS)), minimum=MINIMA, seed=FLEET_SEEDS)
    def start_canary(self, choice: int, plan: Plan | None, minimum: int, seed: int) -> None:
        self.start(choice, Strategy.CANARY, seed, plan=plan, min_ready=minimum)

    @rule(choice=CHOICES, minimum=MINIMA, seed=FLEET_SEEDS)
    def start_blue_green(self, choice: int, minimum: int, seed: int) -> None:
        self.start(choice, Strategy.BLUE_GREEN, seed, min_ready=minimum)

    @rule(choice=CHOICES, share=WEIGHTS, seed=FLEET_SEEDS)
    def start_shadow(self, choice: int, share: int, seed: int) -> None:
        self.start(choice, Strategy.SHADOW, seed, share=share)

    @precondition(lambda self: self.running(self.ledger.deployment))
    @rule(choice=CHOICES, weight=st.none() | WEIGHTS, shadow=st.none() | WEIGHTS, seed=FLEET_SEEDS)
    def shift(self, choice: int, weight: int | None, shadow: int | None, seed: int) -> None:
        named, rollout = self.rollout(choice)
        moved = self.give(Shift(named, weight, shadow, self.fleet(seed)))
        if not rollout.is_shadow and weight == 0 and rollout.weight > 0:
            assert moved, "taking traffic away is always allowed"

    @precondition(lambda self: self.running(self.ledger.deployment))
    @rule(choice=CHOICES, skip=st.sampled_from((0, 0, 0, 1, -1)), seed=FLEET_SEEDS)
    def take_a_step(self, choice: int, skip: int, seed: int) -> None:
        """The plan's next step, as a controller carries it out; sometimes a wrong one."""
        named, rollout = self.rollout(choice)
        steps = () if rollout.plan is None else rollout.plan.steps
        reached = -1 if rollout.step is None else rollout.step
        number = max(reached + 1 + skip, 0)
        step = steps[number] if number < len(steps) else PlanStep(1)
        if step.pause:
            self.give(Pause(named, step=number))
        else:
            self.give(Shift(named, step.weight, step.shadow, self.fleet(seed), step=number))

    @rule(choice=CHOICES, plan=st.sampled_from(PLANS), looks=st.integers(0, 9), seed=FLEET_SEEDS)
    def follow_a_plan(self, choice: int, plan: Plan, looks: int, seed: int) -> None:
        """As a controller does, until it is killed or the fleet is not ready any more."""
        self.start(choice, Strategy.CANARY, seed, plan=plan)
        rollout = self.ledger.deployment.rollout
        if rollout is None or rollout.plan is None:
            return
        for look in range(looks):
            rollout = self.ledger.deployment.rollout
            assert rollout is not None
            if rollout.paused:
                self.give(Resume(rollout.revision))
            else:
                self.take_a_step(choice=0, skip=0, seed=seed if look % 4 else 0)

    @precondition(lambda self: self.running(self.ledger.deployment))
    @rule(choice=CHOICES)
    def pause(self, choice: int) -> None:
        self.give(Pause(self.rollout(choice)[0]))

    @precondition(lambda self: self.running(self.ledger.deployment))
    @rule(choice=CHOICES)
    def resume(self, choice: int) -> None:
        self.give(Resume(self.rollout(choice)[0]))

    @precondition(lambda self: self.running(self.ledger.deployment))
    @rule(choice=CHOICES, seed=FLEET_SEEDS)
    def promote(self, choice: int, seed: int) -> None:
        self.give(Promote(self.rollout(choice)[0], self.fleet(seed)))

    @precondition(lambda self: self.running(self.ledger.deployment))
    @rule(choice=CHOICES)
    def abort(self, choice: int) -> None:
        """Whoever runs can be ended, whatever the fleet says; the champion then answers alone."""
        before = self.ledger.deployment
        named, _ = self.rollout(choice)
        assert self.give(Abort(named))
        after = self.ledger.deployment
        assert after.running(named) is None
        assert (after.champion, after.previous) == (before.champion, before.previous)

    @rule(age=st.integers(0, 99))
    def name_what_does_not_run(self, age: int) -> None:
        """A rollout that is over, or that never was, is named in vain by every command."""
        ended = sorted(self.over)
        named = ended[age % len(ended)] if ended else len(self.records) + 1
        for command in (
            Shift(named, 0, 1, ()),
            Pause(named),
            Resume(named),
            Promote(named, ()),
            Abort(named),
        ):
            assert not self.give(command)

    @rule(to=st.none() | CHOICES, seed=FLEET_SEEDS)
    def undo(self, to: int | None, seed: int) -> None:
        before = self.ledger.deployment
        version = None if to is None else self.version(to)
        former = {state.champion for state in self.states}
        if self.give(Undo(version, fleet=self.fleet(seed))):
            after = self.ledger.deployment
            assert after.rollout is None
            assert after.champion in former
            if before.rollout is not None and version is None:
                assert before.rollout.weight > 0
                assert after.champion == before.champion

    @rule(champion=CHOICES, rollout=CHOICES)
    def undo_what_was_never_seen(self, champion: int, rollout: int) -> None:
        """An undo whose giver saw something else than what is appends nothing."""
        state = self.ledger.deployment
        running = None if state.rollout is None else state.rollout.revision
        seen = Seen(champion, rollout or None)
        if seen != Seen(state.champion, running):
            assert not self.give(Undo(None, seen=seen))

    @precondition(lambda self: self.ledger.deployment.champion is not None)
    @rule(choice=CHOICES, by_canary=st.booleans())
    def promote_and_undo(self, choice: int, by_canary: bool) -> None:
        """Undo right after a promotion restores exactly the former champion."""
        before, version = self.ledger.deployment, self.version(choice)
        if not by_canary:
            switched = self.give(Start(version, Strategy.BLUE_GREEN, f"salt-{self.commands}"))
        elif self.give(Start(version, Strategy.CANARY, f"salt-{self.commands}")):
            rollout = self.ledger.deployment.rollout
            assert rollout is not None
            switched = self.give(Promote(rollout.revision, ()))
        else:
            return
        if switched:
            promoted = self.ledger.deployment
            assert (promoted.champion, promoted.previous) == (version, before.champion)
            assert self.give(Undo(None))
            after = self.ledger.deployment
            assert (after.champion, after.previous) == (before.champion, version)
            assert after.releases == before.releases
            assert after.rollout is None

    # --- what is judged of each state, also of those between the events of one command

    @invariant()
    def every_state_can_be_served(self) -> None:
        for before, after in pairwise(self.states[self.judged - 1 :]):
            assert after.revision == before.revision + 1
            self.judge_parts(after)
            assert (before.champion is None) or (after.champion is not None)
            for version, release in before.releases.items():
                assert release.may_serve or not after.releases[version].may_serve
        self.judged = len(self.states)

    def judge_parts(self, state: Deployment) -> None:
        """Nothing withdrawn or unknown has a part, nobody two, and a shadow never has traffic."""
        rollout, shadows = state.rollout, state.shadows
        named = {state.champion, state.previous, *state.wanted(), *state.required()} - {None}
        named |= {each.candidate for each in shadows.values()}
        named |= {rollout.candidate} if rollout else set()
        for version in named:
            assert version is not None
            assert state.releases[version].standing is Standing.RELEASED
        parts = [state.champion, *[each.candidate for each in shadows.values()]]
        parts += [rollout.candidate] if rollout else []
        if not (rollout and rollout.strategy == Strategy.BLUE_GREEN):
            assert len(parts) == len(set(parts))
        for name, shadow in shadows.items():
            assert shadow.is_shadow
            assert (shadow.revision, shadow.weight) == (name, 0)
        assert rollout is None or not rollout.is_shadow
        revoked = {r.digest for r in state.releases.values() if r.standing is Standing.REVOKED}
        assert not revoked & {r.digest for r in state.releases.values() if r.may_serve}

    @invariant()
    def without_weight_everything_goes_to_the_champion(self) -> None:
        routing = routing_of(self.ledger.deployment)
        if routing is not None and routing.weight == 0:
            assert {route(routing, key, "id") for key in KEYS} == {Variant.CHAMPION}

    # --- what is judged of the whole log, at its end

    def teardown(self) -> None:
        if not hasattr(self, "ledger"):
            return
        revisions = [recorded.event.revision for recorded in self.ledger.events]
        assert revisions == list(range(1, len(self.records) + 1))
        again, step_by_step = Ledger("sales"), empty("sales")
        for raw, recorded, state in zip(
            self.records, self.ledger.events, self.states[1:], strict=True
        ):
            again.take(raw)
            step_by_step = fold(step_by_step, recorded)
            assert step_by_step == state
            assert self.ledger.judge_stamp(state.stamp) is StampVerdict.KNOWN
        assert again.deployment == self.ledger.deployment


TestDeployments = Deployments.TestCase
TestDeployments.settings = settings(max_examples=80, stateful_step_count=250, deadline=None)
