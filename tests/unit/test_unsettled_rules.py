"""When partitions are asked for again whose offsets an open transaction keeps back, and what is said."""

from adapters.unsettled import (
    AGAIN_SECONDS,
    COMPLAINT_SECONDS,
    LONG_SECONDS,
    MOST_SECONDS,
    Unsettled,
)


def test_what_is_known_at_once_is_never_asked_for_again() -> None:
    """The usual case: nothing is due, ever."""
    unsettled = Unsettled()
    assert unsettled.found([0, 1], [0, 1], 5.0) is None
    assert not unsettled.is_due(1e9)


def test_the_rest_is_asked_for_more_and_more_rarely() -> None:
    """Each attempt holds the loop up for a moment."""
    unsettled = Unsettled()
    unsettled.found([0, 1, 2], [0], 0.0)
    now, waits = 0.0, []
    for _ in range(8):
        begin = now
        while not unsettled.is_due(now):
            now += 0.01
        waits.append(round(now - begin, 1))
        unsettled.found([1, 2], [], now)
    assert waits == sorted(waits)
    assert waits[0] < 2 * AGAIN_SECONDS < MOST_SECONDS == waits[-1]
    unsettled.found([1, 2], [1, 2], now)
    unsettled.found([3], [], now)
    assert unsettled.is_due(now + AGAIN_SECONDS)


def test_those_that_went_to_somebody_else_are_not_asked_for() -> None:
    """They are the new owner's to settle."""
    unsettled = Unsettled()
    unsettled.found([0, 1], [], 0.0)
    assert unsettled.count(1) == 1
    unsettled.forget([0, 1])
    assert not unsettled.is_due(100.0)


def test_a_long_wait_is_said_now_and_then_and_in_the_end_with_what_to_do() -> None:
    """A transaction that nobody ends is for a person."""
    unsettled = Unsettled()
    said = [unsettled.found([4], [], float(now)) for now in range(int(LONG_SECONDS) + 15)]
    complaints = [(now, each) for now, each in enumerate(said) if each is not None]
    assert [now for now, _ in complaints] == [
        COMPLAINT_SECONDS * number for number in range(1, len(complaints) + 1)
    ]
    assert all(each["partitions"] == [4] for _, each in complaints)
    assert ["hint" in each for now, each in complaints] == [
        now >= LONG_SECONDS for now, _ in complaints
    ]
