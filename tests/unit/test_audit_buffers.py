"""When what waits becomes a file."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from audit.buffers import PACK_RECORDS, RECORD_BYTES, Buffers, Limits
from schemas.answer_file import ContentHash, Record

DAY_MS = 86_400_000
LIMITS = Limits(file_bytes=1_000, file_seconds=10, total_bytes=2_500)


def buffers(*places: str, limits: Limits = LIMITS) -> Buffers[str, tuple[Record, ...]]:
    """Buffers for these places, from position 0 on; a chunk is its records."""
    made: Buffers[str, tuple[Record, ...]] = Buffers(limits, lambda _, records: tuple(records))
    for place in places:
        made.open(place, 0)
    return made


def records(*offsets: int, size: int = 100, day: int = 0) -> list[Record]:
    """Records that count as ``size`` bytes each."""
    return [Record(at, day * DAY_MS, None, b"v" * (size - RECORD_BYTES)) for at in offsets]


def test_a_file_is_due_when_it_is_large() -> None:
    """And not before."""
    waiting = buffers("a")
    waiting.add("a", records(*range(9)), 0)
    assert waiting.due(9.9) == []
    waiting.add("a", records(9), 1)
    assert waiting.due(1) == ["a"]


def test_a_file_is_due_when_its_first_record_is_old() -> None:
    """However few came since."""
    waiting = buffers("a", "b")
    waiting.add("a", records(0), 0)
    waiting.add("b", records(0), 5)
    waiting.add("a", records(1), 9)
    assert waiting.due(10) == ["a"]


def test_a_file_is_of_one_day() -> None:
    """The next one begins with the first record of another."""
    waiting = buffers("a")
    waiting.add("a", records(0, 1, day=3) + records(2, 4, day=4) + records(5, day=3), 0)
    assert waiting.due(0) == ["a"]
    days = []
    while waiting.holding():
        stretch = waiting.next_file("a")
        days.append((stretch.day.day, stretch.rows, stretch.next))
        waiting.stored("a")
    assert days == [(4, 2, 2), (5, 2, 5), (4, 1, 6)]
    assert waiting.bytes == waiting.rows == 0


def test_beyond_the_limit_in_all_the_largest_goes_first() -> None:
    """As many as it takes, and no more."""
    waiting = buffers("a", "b", "c", "d")
    for place, count in (("a", 7), ("b", 9), ("c", 8), ("d", 6)):
        waiting.add(place, records(*range(count)), 0)
    assert waiting.due(0) == ["b"]  # 3,000 wait, and 2,500 may
    waiting.add("d", records(6, 7), 0)
    waiting.add("a", records(7, 8), 0)
    assert set(waiting.due(0)) < {"a", "b", "c", "d"}
    assert len(waiting.due(0)) == 1


def test_what_is_due_anyway_makes_room() -> None:
    """Nothing else goes for it."""
    waiting = buffers("a", "b", "c")
    waiting.add("a", records(*range(10)), 0)
    waiting.add("b", records(*range(9)), 0)
    waiting.add("c", records(*range(9)), 0)
    assert waiting.due(0) == ["a"]


def test_marks_of_transactions_belong_to_the_file_before_them() -> None:
    """Where a partition was read to its end, the next file begins behind them."""
    waiting = buffers("a")
    waiting.reached("a", 3)
    waiting.add("a", records(5), 0)
    waiting.reached("a", 8)
    assert waiting.positions == {"a": 8}
    assert waiting.next_file("a").next == 8


def test_records_that_a_file_has_already_are_passed_over() -> None:
    """A fetch can bring some that were asked for before the place was opened anew."""
    waiting = buffers("a")
    waiting.add("a", records(0, 1), 0)
    waiting.open("a", 5)
    assert waiting.bytes == 0
    waiting.add("a", records(2, 3), 0)
    waiting.add("a", records(4, 5, 6), 0)
    assert waiting.next_file("a").chunks == [tuple(records(5, 6))]
    waiting.open("a", 0)
    assert (waiting.bytes, waiting.holding()) == (0, [])


def test_records_that_wait_already_are_passed_over() -> None:
    """However it comes that they are fetched again: none is in a file twice, or out of order."""
    waiting = buffers("a")
    waiting.add("a", records(0, 1, 2), 0)
    waiting.add("a", records(1, 2), 0)
    waiting.add("a", records(2, 3), 0)
    assert waiting.next_file("a").chunks == [tuple(records(0, 1, 2, 3))]


def test_behind_the_last_file_nothing_is_left_up_to_where_was_read() -> None:
    """Until a record comes, which is what is left then."""
    waiting = buffers("a")
    assert waiting.stored_until("a") == 0
    waiting.reached("a", 3)
    assert waiting.stored_until("a") == waiting.positions["a"] == 3
    waiting.add("a", records(5), 0)
    waiting.reached("a", 8)
    assert waiting.stored_until("a") == 0
    waiting.next_file("a")
    waiting.stored("a")
    assert waiting.stored_until("a") == 8
    waiting.open("a", 6)
    assert waiting.stored_until("a") == 6


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 300), st.integers(0, 1)), max_size=40)
)
def test_every_record_is_in_one_file_in_its_order(
    steps: Sequence[tuple[str, int, int]],
) -> None:
    """Whatever comes, and however often is stored: packed as it came, with its digest."""
    waiting = buffers("a", "b", "c", limits=Limits(20_000, 5, 45_000))
    sent: dict[str, list[Record]] = {"a": [], "b": [], "c": []}
    got: dict[str, list[Record]] = {"a": [], "b": [], "c": []}

    def store(place: str) -> None:
        stretch = waiting.next_file(place)
        held = [record for chunk in stretch.chunks for record in chunk]
        content = ContentHash()
        content.take(held)
        assert stretch.content.digest == content.digest
        assert stretch.rows == len(held)
        assert stretch.bytes == sum(RECORD_BYTES + len(record.value or b"") for record in held)
        assert all(len(chunk) <= PACK_RECORDS for chunk in stretch.chunks)
        got[place] += held
        waiting.stored(place)

    for now, (place, count, day) in enumerate(steps):
        first = len(sent[place])
        fresh = records(*range(first, first + count), day=day)
        sent[place] += fresh
        waiting.add(place, fresh, now)
        while due := waiting.due(now):
            for each in due:
                store(each)
        assert waiting.bytes <= 45_000
    while left := waiting.holding():
        store(left[0])
    assert got == sent
    assert waiting.bytes == 0
