"""Holdings: what counts, what is committed, and where an abort leads back to."""

from collections import Counter
from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from consumer.holdings import Holdings

STAMP = "log:1:head"


@dataclass(frozen=True)
class Place:
    """A record, of which only the place counts."""

    partition: int
    offset: int


def _accept(holdings: Holdings, partition: int, *offsets: int) -> list[int]:
    """The offsets that count, of records that one fetch brought."""
    fetched = [Place(partition, offset) for offset in offsets]
    return [each.offset for each in holdings.accept(fetched)]


def _owning(partition: int = 0, offset: int = 10) -> Holdings:
    holdings = Holdings()
    holdings.take_over(partition, offset, "", None)
    holdings.begin_fetch()
    return holdings


def test_a_record_counts_once() -> None:
    """An offset behind the position was answered already."""
    holdings = _owning()
    assert _accept(holdings, 0, 9, 10, 10, 11) == [10, 11]
    assert holdings.to_refetch() == {0: 12}


def test_records_of_several_partitions_keep_their_order() -> None:
    """A partition may come in several runs, and each counts from where the one before it ended."""
    holdings = _owning()
    holdings.take_over(1, 5, "", None)
    holdings.begin_fetch()
    places = [Place(0, 10), Place(1, 5), Place(1, 6), Place(0, 10), Place(0, 11), Place(2, 0)]
    taken = holdings.accept(places)
    assert [(each.partition, each.offset) for each in taken] == [(0, 10), (1, 5), (1, 6), (0, 11)]
    assert holdings.pending() == {0: 12, 1: 7}


def test_a_gap_ahead_counts() -> None:
    """Markers and aborted requests take offsets that no record has."""
    holdings = _owning()
    assert _accept(holdings, 0, 15)
    assert holdings.pending() == {0: 16}


def test_a_record_of_a_partition_that_is_not_owned_does_not_count() -> None:
    """What was fetched before a revocation is for the next owner."""
    holdings = _owning()
    holdings.forget([0])
    assert not _accept(holdings, 0, 10)
    assert holdings.to_refetch() == {}


def test_a_commit_covers_what_was_touched() -> None:
    """Offsets and the stamp of a commit are where an abort leads back to."""
    holdings = _owning()
    _accept(holdings, 0, 10)
    holdings.note_commit(holdings.pending(), STAMP)
    assert holdings.pending() == {}
    _accept(holdings, 0, 11)
    assert holdings.rewind() == {0: 11}
    assert holdings.positions() == {0: 11}


def test_what_a_fetch_gathered_before_a_rewind_is_fetched_again() -> None:
    """A record ahead of a position that went back in the same fetch must not jump over the others."""
    holdings = _owning()
    _accept(holdings, 0, 10)
    holdings.begin_fetch()
    holdings.rewind()
    assert not _accept(holdings, 0, 11)
    assert holdings.to_refetch() == {0: 10}
    holdings.begin_fetch()
    assert _accept(holdings, 0, 10)


def test_a_waiting_partition_is_not_read_until_it_is_opened() -> None:
    """It says where it goes on, and nothing of it is fetched before."""
    holdings = Holdings()
    holdings.take_over(3, 40, STAMP, waiting_since=1.0)
    holdings.begin_fetch()
    assert not _accept(holdings, 3, 40)
    assert holdings.to_refetch() == {}
    assert list(holdings.waiting()) == [3]
    assert holdings.open(3) == 40
    assert _accept(holdings, 3, 40)


class LoopOverABroker(RuleBasedStateMachine):
    """One partition, a broker's truth beside it, and every order of events.

    ``read_from`` is where the client reads next; a fetch gathers records from there, and what happens
    during the fetch may move it.
    """

    LOG_END = 60

    def __init__(self) -> None:
        super().__init__()
        self.holdings = Holdings()
        self.owned = False
        self.committed = 0
        self.answers: Counter[int] = Counter()
        self.uncommitted: list[int] = []
        self.read_from = 0

    @precondition(lambda self: not self.owned)
    @rule()
    def assign(self) -> None:
        """The partition is ours, from the broker's committed offset."""
        self.holdings.take_over(0, self.committed, "", None)
        self.read_from = self.committed
        self.owned = True

    @precondition(lambda self: self.owned)
    @rule()
    def lose(self) -> None:
        """Another instance takes over without asking, and what was open is aborted."""
        self.holdings.forget([0])
        self.uncommitted.clear()
        assert self.holdings.rewind() == {}
        self.owned = False

    @precondition(lambda self: self.owned)
    @rule()
    def commit(self) -> None:
        """The open transaction lands."""
        offsets = self.holdings.pending()
        self.answers.update(self.uncommitted)
        self.uncommitted.clear()
        self.committed = offsets.get(0, self.committed)
        self.holdings.note_commit(offsets, STAMP)

    @rule()
    def abort(self) -> None:
        """The open transaction is aborted, and the client seeks back."""
        self.uncommitted.clear()
        self.read_from = self.holdings.rewind().get(0, self.read_from)

    @precondition(lambda self: self.owned)
    @rule(count=st.integers(1, 8), during=st.sampled_from(["nothing", "abort", "move", "commit"]))
    def fetch(self, count: int, during: str) -> None:
        """A fetch gathers records, and something may happen before it returns."""
        self.holdings.begin_fetch()
        gathered = range(self.read_from, min(self.read_from + count, self.LOG_END))
        self.read_from = gathered.stop if gathered else self.read_from
        if during == "abort":
            self.abort()
        elif during == "commit":
            self.commit()
        elif during == "move":
            self.lose()
            self.assign()
        self.uncommitted += _accept(self.holdings, 0, *gathered)
        self.read_from = self.holdings.to_refetch().get(0, self.read_from)

    @invariant()
    def every_offset_below_the_committed_one_has_one_answer(self) -> None:
        """Nothing is lost, nothing is doubled."""
        assert self.answers == Counter(range(self.committed))

    @invariant()
    def the_open_transaction_goes_on_where_the_last_one_ended(self) -> None:
        """No record is jumped over."""
        after = self.committed + len(self.uncommitted)
        assert self.uncommitted == list(range(self.committed, after))


LoopOverABroker.TestCase.settings = settings(
    max_examples=150, stateful_step_count=30, deadline=None
)
TestHoldings = LoopOverABroker.TestCase
