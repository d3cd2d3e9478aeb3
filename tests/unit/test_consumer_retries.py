"""Retries: when a version that fell is taken up the ladder again."""

import math

from consumer.retries import (
    LONGEST_KILLED_SECONDS,
    LONGEST_STRUCK_SECONDS,
    SOON_SECONDS,
    STRUCK_SECONDS,
    UNWANTED_TIMES,
    Fall,
)
from consumer.rungs import Again, Rung

PAUSE = 5.0


def _pause(
    again: Again,
    count: int = 1,
    *,
    is_wanted: bool = True,
    stretch: float = 1.0,
) -> float:
    fall = Fall(Rung.VET, "why", again, at=1_000.0, count=count, stretch=stretch)
    return fall.again_at(PAUSE, is_wanted=is_wanted) - 1_000.0


def test_what_its_bytes_decided_is_never_tried_again() -> None:
    """They will not change."""
    assert _pause(Again.NEVER) == math.inf


def test_what_may_be_mended_is_asked_for_again_soon_and_then_steadily() -> None:
    """However long a store was away, it is noticed in time; nobody hurries for what nobody wants."""
    pauses = [_pause(Again.MENDED, count) for count in (1, 2, 3, 4, 5, 5_000)]
    assert pauses == [SOON_SECONDS, 1.0, 2.0, 4.0, PAUSE, PAUSE]
    for count in (1, 50):
        assert _pause(Again.MENDED, count, is_wanted=False) == UNWANTED_TIMES * PAUSE


def test_the_pauses_of_instances_differ() -> None:
    """Each stretches its own by chance."""
    assert _pause(Again.MENDED, 9, stretch=1.4) == 1.4 * PAUSE


def test_two_strikes_stop_it_for_a_while_that_grows() -> None:
    """The first may be chance; from the second on each doubles the pause, up to a limit."""
    pauses = [_pause(Again.STRIKE, count) for count in (1, 2, 3, 4, 30)]
    assert pauses == [
        PAUSE,
        STRUCK_SECONDS,
        2 * STRUCK_SECONDS,
        4 * STRUCK_SECONDS,
        LONGEST_STRUCK_SECONDS,
    ]
    assert _pause(Again.STRIKE, 2, is_wanted=False) == STRUCK_SECONDS


def test_what_was_killed_from_outside_is_tried_again_with_growing_pauses() -> None:
    """It is no strike, and a machine that is short of memory is left alone."""
    pauses = [_pause(Again.KILLED, count) for count in (1, 2, 3, 40)]
    assert pauses == [PAUSE, 2 * PAUSE, 4 * PAUSE, LONGEST_KILLED_SECONDS]
