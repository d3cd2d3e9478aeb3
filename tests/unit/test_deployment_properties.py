"""What holds of a deployment whatever is commanded, in whatever order."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from deployment.decisions import (
    Command,
    Refusal,
    Release,
    Retire,
    Revoke,
    Start,
    Strategy,
    Undo,
    decide,
)
from deployment.ledger import Ledger, StampVerdict
from deployment.routing import Routing, bucket, route, routing_of
from deployment.state import Deployment, Standing, empty, fold
from schemas.events import RolloutStarted, encode_event, new_event
from schemas.forecast import Variant

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
VERSIONS = st.integers(1, 6)


class Deployments(RuleBasedStateMachine):
    """Gives any commands to a deployment and checks every state on the way."""

    @initialize()
    def begin(self) -> None:
        self.ledger = Ledger("sales")
        self.records: list[bytes] = []
        self.states: list[Deployment] = [self.ledger.deployment]
        self.commands = 0

    def give(self, command: Command) -> bool:
        """Append what the command decides; False where it is refused."""
        events = decide(self.ledger.deployment, command)
        if isinstance(events, Refusal):
            assert events.code
            assert events.sentence
            assert events.remedy
            return False
        assert events
        self.commands += 1
        for data in events:
            self.append(data)
        return True

    def append(self, data: object) -> None:
        deployment = self.ledger.deployment
        raw = encode_event(
            new_event(
                data,  # type: ignore[arg-type]
                model="sales",
                revision=deployment.revision + 1,
                previous=deployment.head,
                commandid=f"c{self.commands}",
                actor="ann",
                time=EPOCH + timedelta(seconds=self.commands),
            )
        )
        self.ledger.take(raw)
        self.records.append(raw)
        self.states.append(self.ledger.deployment)

    @rule(number=st.integers(1, 8), with_start=st.booleans())
    def release(self, number: int, with_start: bool) -> None:
        start = Strategy.BLUE_GREEN if with_start else None
        self.give(Release(f"sha256:{number:064x}", start, salt=f"s{number}"))

    @rule(version=VERSIONS)
    def start(self, version: int) -> None:
        self.give(Start(version, Strategy.BLUE_GREEN, salt="s"))

    @rule(version=VERSIONS)
    def begin_a_rollout_and_leave_it(self, version: int) -> None:
        """What a later strategy, or another writer, may leave: a candidate without traffic."""
        deployment = self.ledger.deployment
        release = deployment.releases.get(version)
        fit = release is not None and release.may_serve and version != deployment.champion
        if deployment.rollout is None and fit:
            self.commands += 1
            self.append(RolloutStarted(version, "canary", "salt"))

    @rule(to=st.none() | VERSIONS)
    def undo(self, to: int | None) -> None:
        self.give(Undo(to))

    @rule(version=VERSIONS)
    def revoke(self, version: int) -> None:
        self.give(Revoke(version))

    @rule(version=VERSIONS)
    def retire(self, version: int) -> None:
        self.give(Retire(version))

    @precondition(lambda self: self.ledger.deployment.champion is not None)
    @rule(version=VERSIONS)
    def switch_and_undo(self, version: int) -> None:
        """Undo after a switch restores the former champion exactly."""
        before = self.ledger.deployment
        if self.give(Start(version, Strategy.BLUE_GREEN, salt="s")):
            assert self.ledger.deployment.champion == version
            assert self.give(Undo(None))
            after = self.ledger.deployment
            assert after.champion == before.champion
            assert after.releases == before.releases
            assert after.rollout is None

    @invariant()
    def revisions_are_dense(self) -> None:
        revisions = [recorded.event.revision for recorded in self.ledger.events]
        assert revisions == list(range(1, len(self.records) + 1))
        assert self.ledger.deployment.revision == len(self.records)

    @invariant()
    def nothing_withdrawn_or_unknown_serves(self) -> None:
        """True of every state, also between the events of one command."""
        for state in self.states[-4:]:
            named = {state.champion, state.previous, *state.wanted(), *state.required()}
            for version in named - {None}:
                assert version is not None
                assert state.releases[version].standing is Standing.RELEASED

    @invariant()
    def withdrawal_is_for_ever(self) -> None:
        for before, after in pairwise(self.states[-4:]):
            for version, release in before.releases.items():
                if not release.may_serve:
                    assert not after.releases[version].may_serve

    @invariant()
    def a_champion_once_is_a_champion_always(self) -> None:
        """There is no way back to serving nothing."""
        if any(state.champion is not None for state in self.states):
            assert self.ledger.deployment.champion is not None

    @invariant()
    def the_fold_is_deterministic(self) -> None:
        again = Ledger("sales")
        for raw in self.records:
            again.take(raw)
        assert again.deployment == self.ledger.deployment
        step_by_step = empty("sales")
        for recorded in self.ledger.events:
            step_by_step = fold(step_by_step, recorded)
        assert step_by_step == self.ledger.deployment

    @invariant()
    def every_stamp_of_the_past_is_known(self) -> None:
        for state in self.states[1:]:
            assert self.ledger.judge_stamp(state.stamp) is StampVerdict.KNOWN

    @invariant()
    def without_weight_everything_goes_to_the_champion(self) -> None:
        routing = routing_of(self.ledger.deployment)
        if routing is not None and routing.weight == 0:
            assert route(routing, b"key", "id") is Variant.CHAMPION


TestDeployments = Deployments.TestCase
TestDeployments.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)

KEYS = st.binary(min_size=0, max_size=40)
SALTS = st.text(min_size=1, max_size=20)
WEIGHTS = st.integers(0, 10_000)


@given(SALTS, KEYS, WEIGHTS, WEIGHTS)
def test_raising_the_weight_moves_keys_one_way(salt: str, key: bytes, one: int, two: int) -> None:
    """A key that the candidate answers at a weight, it answers at every higher weight."""
    low, high = sorted((one, two))
    at_low = route(Routing(1, 2, low, salt), key, "id")
    at_high = route(Routing(1, 2, high, salt), key, "id")
    assert (at_low, at_high) != (Variant.CANDIDATE, Variant.CHAMPION)


@given(SALTS, KEYS, WEIGHTS)
def test_a_key_keeps_its_variant_while_the_weight_stands(
    salt: str, key: bytes, weight: int
) -> None:
    """Routing depends on nothing but salt, key and weight."""
    assert 0 <= bucket(salt, key) < 10_000
    variants = {route(Routing(1, 2, weight, salt), key, f"id-{n}") for n in range(3)}
    assert len(variants) == 1
    assert route(Routing(1, 2, 0, salt), key, "id") is Variant.CHAMPION
    assert route(Routing(1, 2, 10_000, salt), key, "id") is Variant.CANDIDATE
