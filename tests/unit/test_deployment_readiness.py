"""Which live instances could serve a revision, and whether they are enough."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployment.readiness import (
    Instance,
    Lack,
    count_ready,
    is_enough,
    is_hopeless,
    is_short,
    judged_releases,
    lacks,
    least_ready,
    refusals,
    unjudged,
)
from deployment.state import Release, Standing, empty

ANN = Instance("ann", frozenset({1, 2}))
BOB = Instance("bob", frozenset({2}))
CAT = Instance("cat", frozenset({1}), {2: "golden: vector 3 differs"})


def test_ready_means_prepared_for_everything() -> None:
    """One with only the champion and one with only the candidate are no pair: neither is ready."""
    assert count_ready([ANN, BOB, CAT], (1, 2)) == 1
    assert count_ready([BOB, CAT], (1, 2)) == 0
    assert count_ready([ANN, BOB, CAT], (2,)) == 2
    assert count_ready([ANN, BOB, CAT], ()) == 3


def test_each_lack_is_a_line() -> None:
    """Per live instance and version: not prepared yet, or refused with the reason."""
    assert lacks([ANN, BOB, CAT], (1, 2)) == (
        Lack("bob", 1, "not prepared yet"),
        Lack("cat", 2, "refused (golden: vector 3 differs)"),
    )
    assert [str(lack) for lack in lacks([BOB], (1,))] == ["bob: version 1 not prepared yet"]


def test_what_was_refused_once_and_is_prepared_now_is_no_refusal() -> None:
    """An admission that failed for a while does not stand against what it took later."""
    mended = Instance("cat", frozenset({1, 2}), CAT.refused)
    assert refusals([ANN, BOB, CAT], 2) == (Lack("cat", 2, "refused (golden: vector 3 differs)"),)
    assert refusals([mended], 2) == ()
    assert refusals([CAT], 1) == ()


@pytest.mark.parametrize(
    ("live", "min_ready", "least"),
    [
        (0, 10_000, 0),
        (3, 10_000, 3),
        (10, 9_000, 9),
        (11, 9_000, 10),
        (3, 1, 1),
        (3, 0, 0),
        (1, 5_000, 1),
        (2, 5_000, 1),
        (3, 5_000, 2),
    ],
)
def test_the_minimum_is_rounded_up(live: int, min_ready: int, least: int) -> None:
    """Nine of ten at 90 %, ten of eleven; above 0 at least one; of nobody, nobody."""
    assert least_ready(live, min_ready) == least


FLEETS = st.lists(
    st.builds(Instance, name=st.just("x"), prepared=st.frozensets(st.integers(1, 3))), max_size=9
)


@given(FLEETS, st.frozensets(st.integers(1, 3)), st.integers(0, 10_000))
def test_enough_is_a_share_of_the_live_ones(
    fleet: list[Instance], versions: frozenset[int], min_ready: int
) -> None:
    """Enough exactly when ready / live is at least the minimum, in whole numbers; of nobody, never."""
    ready = sum(versions <= instance.prepared for instance in fleet)
    wanted = ready * 10_000 >= min_ready * len(fleet) if fleet else min_ready == 0
    assert is_enough(fleet, versions, min_ready) == wanted
    assert is_short(fleet, versions, min_ready) == (ready == 0 or not wanted)


def test_a_version_is_hopeless_once_too_many_refused_it() -> None:
    """Those that have not judged it yet may still pass."""
    fallen = [Instance(name, frozenset(), {2: "load: no"}) for name in "ab"]
    silent = [Instance(name, frozenset()) for name in "cd"]
    assert is_hopeless([*fallen, *silent], 2, 10_000)
    assert is_hopeless([*fallen, *silent], 2, 5_001)
    assert not is_hopeless([*fallen, *silent], 2, 5_000)
    assert not is_hopeless(silent, 2, 10_000)
    assert not is_hopeless([], 2, 10_000)
    assert not is_hopeless(fallen, 2, 0)


def test_the_newest_releases_that_may_serve_are_judged() -> None:
    """Eight of them, the newest first; whoever has said neither yes nor no is named."""
    releases = {
        number: Release(
            number,
            "sha256:0",
            Standing.RETIRED if number == 11 else Standing.RELEASED,
            number,
            "ann",
            datetime(2026, 1, 1, tzinfo=UTC),
            "",
        )
        for number in range(1, 13)
    }
    deployment = replace(empty("sales"), releases=releases)
    assert judged_releases(deployment) == (12, 10, 9, 8, 7, 6, 5, 4)
    fleet = [
        Instance("loaded", frozenset({5})),
        Instance("passed", frozenset(), judged=frozenset({5})),
        Instance("refused", frozenset(), {5: "load: no"}),
        Instance("silent", frozenset({4})),
    ]
    assert unjudged(fleet, 5) == ("silent",)


@given(FLEETS, st.frozensets(st.integers(1, 3)), st.integers(1, 3), st.integers(0, 10_000))
def test_asking_for_more_versions_never_makes_more_ready(
    fleet: list[Instance], versions: frozenset[int], another: int, min_ready: int
) -> None:
    """Nor does a higher minimum."""
    if is_enough(fleet, versions | {another}, min_ready):
        assert is_enough(fleet, versions, min_ready)
        assert is_enough(fleet, versions, min_ready // 2)
