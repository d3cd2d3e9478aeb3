"""What holds of the checker's own fold and routing whatever was commanded, in whatever order.

Logs come from the real rules and answers from the real routing, which the checker does not share.
"""

from hypothesis import given
from hypothesis import strategies as st

from deployment import routing
from deployment.commands import (
    Abort,
    Command,
    Pause,
    Promote,
    Release,
    Resume,
    Retire,
    Revoke,
    Shift,
    Start,
    Strategy,
    Undo,
)
from deployment.state import Deployment
from modelwire.checker import routes
from modelwire.checker.log import fold as fold_independently
from tests.unit.checked_streams import (
    DIGESTS,
    Move,
    answered,
    control_log,
    deployments,
    judge,
    request,
)


@given(st.text(min_size=1, max_size=64), st.binary(max_size=100))
def test_the_bucket_is_that_of_the_routing(salt: str, key: bytes) -> None:
    """Two hashes written apart agree on whatever salt and key."""
    assert routes.bucket(salt, key) == routing.bucket(salt, key)


def named(state: Deployment, which: int) -> int:
    """The revision that names a rollout: the one that moves traffic (0), a shadow, or none."""
    running = [state.rollout.revision] if state.rollout is not None else []
    running += list(state.shadows)
    return running[which] if which < len(running) else 1


versions = st.integers(1, 4)
which = st.integers(0, 2)
shares = st.integers(0, 10_000)
salts = st.sampled_from(("s", "t", "sälz"))
canaries = st.builds(Start, versions, st.just(Strategy.CANARY), salts)
shadows = st.builds(Start, versions, st.just(Strategy.SHADOW), salts)
blue_greens = st.builds(Start, versions, st.just(Strategy.BLUE_GREEN), salts)
bundles = versions.map(DIGESTS.__getitem__)
releases = st.builds(Release, bundles, st.none() | st.just(Strategy.BLUE_GREEN), salts)
undone: st.SearchStrategy[Command] = st.one_of(
    st.builds(Undo, st.none() | versions), st.builds(Revoke, versions), st.builds(Retire, versions)
)
shifts = st.builds(lambda at: lambda state: Shift(named(state, 0), at, None, ()), shares)
shadow_shifts = st.builds(
    lambda at, n: lambda state: Shift(named(state, n), None, at, ()), shares, which
)
others = st.one_of(
    which.map(lambda n: lambda state: Pause(named(state, n))),
    which.map(lambda n: lambda state: Resume(named(state, n))),
    which.map(lambda n: lambda state: Abort(named(state, n))),
    st.just(lambda state: Promote(named(state, 0), ())),
)
moves = st.one_of(
    canaries, shifts, shifts, shadows, shadow_shifts, others, releases, blue_greens, undone
)
FIRST: list[Move] = [
    Release(DIGESTS[1], Strategy.BLUE_GREEN, "s"),
    *(Release(DIGESTS[version], None, "s") for version in (2, 3)),
    Start(2, Strategy.CANARY, "u"),
    Start(3, Strategy.SHADOW, "v"),
]
logs = st.lists(moves, max_size=25).map(lambda given: control_log([*FIRST, *given]))


@given(logs)
def test_the_independent_fold_agrees_with_the_deployment(values: list[bytes]) -> None:
    """Two folds written apart name the same champion, rollout and releases at each revision."""
    log = fold_independently(values)
    assert log.problem == ""
    for ours, theirs in zip(log.states, deployments(values), strict=True):
        assert ours.champion == theirs.champion
        rollout = theirs.rollout
        assert (ours.rollout is None) is (rollout is None)
        if ours.rollout is not None and rollout is not None:
            assert ours.rollout.revision == rollout.revision
            assert ours.rollout.candidate == rollout.candidate
            assert ours.rollout.salt == rollout.salt
            assert ours.rollout.weight == rollout.weight
    known = {v: (r.revision, r.digest) for v, r in deployments(values)[-1].releases.items()}
    assert log.released == known


@given(logs, st.data())
def test_whatever_the_log_a_routed_stream_is_clean_and_each_flip_is_found(
    values: list[bytes], data: st.DataObject
) -> None:
    """Forecasts and rejections by the real routing at rising revisions, with keys and without."""
    states = [state for state in deployments(values) if state.champion is not None]
    at = sorted(data.draw(st.lists(st.sampled_from(range(len(states))), min_size=1, max_size=12)))
    keys = st.none() | st.binary(max_size=8)
    asked = [request(0, offset, key=data.draw(keys)) for offset in range(len(at))]
    split = [
        offset
        for offset, place in enumerate(at)
        if (rollout := states[place].rollout) is not None and 0 < rollout.weight < 10_000
    ]
    flipped = data.draw(st.sets(st.sampled_from(split))) if split else set()
    rejected = data.draw(st.sets(st.sampled_from(range(len(at)))))
    answers = [
        answered(
            each,
            states[place],
            flipped=each.offset in flipped,
            rejected=each.offset in rejected,
        )
        for each, place in zip(asked, at, strict=True)
    ]
    forecasts = [answers[offset] for offset in range(len(at)) if offset not in rejected]
    rejections = [answers[offset] for offset in sorted(rejected)]
    report = judge(forecasts, asked=asked, rejections=rejections, control=values)
    assert report.wrong_variant == len(flipped)
    assert report.variant_unchecked == 0
    assert sum(share.answers.total for share in report.shares) == len(split)
    assert report.clean is (not flipped)
