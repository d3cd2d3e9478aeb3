"""How many keys move when partitions are added: the formula against counting."""

import math
import zlib
from fractions import Fraction

import pytest

from adapters.topic_growth import Growth, moved_share

KEYS = 100_000


def growth(before: int, after: int, counts: dict[str, int] | None = None) -> Growth:
    """The growing of a model on whose requests 3 and 4 wait in two partitions."""
    return Growth("m", before, after, counts or {"m.requests": before}, {0: 3, 1: 0, 2: 4})


def test_the_share_is_what_counting_residues_gives() -> None:
    """For all sizes up to 24: of lcm(before, after) residues, those with another partition."""
    for before in range(1, 24):
        for after in range(before + 1, 25):
            whole = math.lcm(before, after)
            moved = [x for x in range(whole) if x % before != x % after]
            assert moved_share(before, after) == Fraction(len(moved), whole)
            among_old = sum(x % after < before for x in moved)
            assert growth(before, after).moved_among_old == Fraction(among_old, whole)


@pytest.mark.parametrize(
    ("before", "after", "share"),
    [(8, 16, Fraction(1, 2)), (8, 12, Fraction(2, 3)), (8, 9, Fraction(8, 9)), (1, 4, 0.75)],
)
def test_known_shares(before: int, after: int, share: Fraction) -> None:
    """Doubling moves half of the keys; one partition more moves nearly all."""
    assert moved_share(before, after) == share


@pytest.mark.parametrize(("before", "after"), [(8, 16), (8, 12), (3, 7)])
def test_a_real_partitioner_moves_that_share(before: int, after: int) -> None:
    """Kafka's CRC-32 partitioner moves so many of 100,000 keys, within five standard deviations."""
    hashes = [zlib.crc32(f"item-{number}".encode()) for number in range(KEYS)]
    moved = sum(each % before != each % after for each in hashes)
    share = float(moved_share(before, after))
    assert abs(moved - share * KEYS) < 5 * math.sqrt(KEYS * share * (1 - share))


def test_what_waits_is_the_sum_over_partitions() -> None:
    """Seven requests in two partitions."""
    assert growth(3, 6).waits == 7


def test_a_growing_was_begun_where_answers_have_more_partitions() -> None:
    """Results ahead of the requests are what an interrupted run leaves."""
    assert growth(3, 6, {"m.results": 6, "m.requests": 3}).was_begun
    assert not growth(3, 6, {"m.results": 3, "m.requests": 3}).was_begun
