"""The rules by which a member that came back finds partitions that its group has given to nobody."""

import pytest

from adapters.group_cover import BETWEEN_SECONDS, FAILED_SECONDS, FIRST_SECONDS, Cover

FOUR = range(4)
ALL = frozenset((member, number) for number, member in enumerate("aabb"))
GAP = ALL - {("b", 3)}
LATER = FIRST_SECONDS + BETWEEN_SECONDS


@pytest.fixture
def cover() -> Cover:
    """Of a member that joined at 0."""
    begun = Cover()
    begun.begin(0.0)
    return begun


def test_nobody_looks_before_a_member_joined_or_was_given_anything_for_a_moment() -> None:
    """Changes before the first join mean nothing; after it each puts the look off."""
    cover = Cover()
    cover.changed(0.0)
    assert not cover.is_due(1e6)
    cover.begin(0.0)
    cover.changed(FIRST_SECONDS / 2)
    assert not cover.is_due(FIRST_SECONDS)
    assert cover.is_due(1.5 * FIRST_SECONDS)


def test_a_group_that_covers_all_is_looked_at_once(cover: Cover) -> None:
    """There is nothing to give out, and no further look."""
    assert cover.found(ALL, FOUR, FIRST_SECONDS) == frozenset()
    assert not cover.is_due(1e6)


def test_a_gap_counts_once_it_was_seen_twice(cover: Cover) -> None:
    """The second look is some seconds later, and the last one."""
    assert cover.found(GAP, FOUR, FIRST_SECONDS) == frozenset()
    assert not cover.is_due(LATER - 0.1)
    assert cover.is_due(LATER)
    assert cover.found(GAP, FOUR, LATER) == {3}
    assert not cover.is_due(1e6)


@pytest.mark.parametrize("other", [ALL - {("b", 2)}, GAP | {("c", 5)}, ALL - {("a", 0)}])
def test_a_gap_among_others_partitions_is_another_gap(
    cover: Cover, other: frozenset[tuple[str, int]]
) -> None:
    """Where anything moved in between, the group was giving partitions out."""
    cover.found(GAP, FOUR, FIRST_SECONDS)
    assert cover.found(other, FOUR, LATER) == frozenset()
    assert cover.is_due(LATER + BETWEEN_SECONDS)


def test_a_rebalance_between_the_looks_starts_anew(cover: Cover) -> None:
    """A group that is giving out, or a change here, makes what was seen before worth nothing."""
    cover.found(GAP, FOUR, FIRST_SECONDS)
    assert cover.found(None, FOUR, LATER) == frozenset()
    assert cover.found(GAP, FOUR, 2 * LATER) == frozenset()
    cover.changed(2 * LATER)
    assert cover.found(GAP, FOUR, 3 * LATER) == frozenset()


def test_a_look_that_failed_is_taken_again_later(cover: Cover) -> None:
    """It does not count as one of the two."""
    cover.found(GAP, FOUR, FIRST_SECONDS)
    cover.failed(LATER)
    assert not cover.is_due(LATER + FAILED_SECONDS - 0.1)
    assert cover.is_due(LATER + FAILED_SECONDS)
    assert cover.found(GAP, FOUR, LATER + FAILED_SECONDS) == frozenset()
