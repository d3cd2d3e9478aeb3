"""When a chaos run is broken off, because its consumers have come to a standstill."""

from tests.chaos.standstill import STILL_SECONDS, Moment, Standstill


def test_requests_without_any_answer_are_a_standstill_after_a_while() -> None:
    """It is told from the last answer on, however many requests came since."""
    standstill = Standstill(now=1_000.0)
    assert standstill.look(1_001.0, answered=0, sent=10) is None
    assert standstill.look(1_005.0, answered=8, sent=50) is None
    for second in range(1, int(STILL_SECONDS)):
        assert standstill.look(1_005.0 + second, answered=8, sent=50 + second) is None
    last = standstill.look(1_005.0 + STILL_SECONDS, answered=8, sent=170)
    assert last == Moment(1_005.0, answered=8, sent=50)


def test_one_answer_ends_the_wait() -> None:
    """A broker that was away takes its time; what goes on is no standstill."""
    standstill = Standstill(now=0.0)
    assert standstill.look(STILL_SECONDS - 1, answered=0, sent=100) is None
    assert standstill.look(STILL_SECONDS - 0.5, answered=1, sent=100) is None
    assert standstill.look(2 * STILL_SECONDS - 1, answered=1, sent=200) is None


def test_a_stream_that_waits_is_no_standstill() -> None:
    """Nothing came after the last answer, so that there is nothing to answer."""
    standstill = Standstill(now=0.0)
    for minute in range(10):
        assert standstill.look(60.0 * minute, answered=90, sent=100) is None


def test_consumers_that_never_answer_stand_still_from_the_first_request_on() -> None:
    """Not from the start of the servers, which may take longer."""
    standstill = Standstill(now=0.0)
    assert standstill.look(500.0, answered=0, sent=0) is None
    assert standstill.look(501.0, answered=0, sent=1) is None
    assert standstill.look(499.0 + STILL_SECONDS, answered=0, sent=50) is None
    assert standstill.look(501.0 + STILL_SECONDS, answered=0, sent=50) == Moment(500.0, 0, 0)
