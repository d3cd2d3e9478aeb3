"""Transactions on a simulated broker: whatever becomes of a commit, each request has one answer."""

from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime

import msgspec
import pytest

from adapters.request_stream import StreamFailed
from consumer.holdings import Holdings
from consumer.instructions import Abort, Begin, Clock, Commit, Say, Seek, Steps, Undone, Write
from consumer.tallies import Count, TallyName
from consumer.transactions import Transactions
from deployment.routing import Routing
from schemas.forecast import Forecast, Source, Variant, encode_forecast
from schemas.rejection import Reason, Rejection
from scoring.batch import Answer, ForecastAnswer, Incoming, RejectionAnswer
from scoring.snapshot import LoadedVersion, Snapshot, load
from tests.bundles import contract


class SimulatedStream:
    """A broker with one partition of requests that keeps what a transaction commits, and no more.

    ``faults`` are raised by the next commits, one each. ``read_from`` is the client's place.
    """

    def __init__(self, faults: list[Exception]) -> None:
        self.faults = faults
        self.read_from = 0
        self.committed_offset = 0
        self.stamps: list[str] = []
        self.answered: Counter[int] = Counter()
        self._open: list[int] | None = None

    def carry_out(self, steps: Steps[None]) -> None:
        """Do what the steps ask for; a fault goes where the service would let it go."""
        try:
            instruction = next(steps)
            while True:
                try:
                    outcome = self._do(instruction)
                except Undone as fault:
                    instruction = steps.throw(fault)
                else:
                    instruction = steps.send(outcome)
        except StopIteration:
            return

    def _do(self, instruction: object) -> object:
        match instruction:
            case Begin():
                assert self._open is None
                self._open = []
            case Write(answers):
                assert self._open is not None
                self._open += [each.incoming.offset for each in answers]
                return answers
            case Commit(offsets, stamp):
                self._commit(offsets, stamp)
            case Abort():
                self._open = None
            case Seek(positions):
                self.read_from = positions.get(0, self.read_from)
            case Clock():
                return 0.0
            case _:
                assert isinstance(instruction, Say)
        return None

    def _commit(self, offsets: Mapping[int, int], stamp: str) -> None:
        """Answers, offset and stamp become visible at once, or a fault says that they do not."""
        assert self._open is not None
        if self.faults:
            raise self.faults.pop(0)
        self.answered.update(self._open)
        self.committed_offset = offsets.get(0, self.committed_offset)
        self.stamps.append(stamp)
        self._open = None


def _loaded(version: int) -> LoadedVersion:
    return load(version, "sha256:" + "0" * 64, contract(), model=None)  # type: ignore[arg-type]


def _snapshot(revision: int, rollout: int = 0, champion: int = 1) -> Snapshot:
    """With a rollout, version 9 is a candidate that answers every fifth request."""
    routing = Routing(champion, 9 if rollout else None, 2_000 if rollout else 0, "s")
    candidate = _loaded(9) if rollout else None
    stamp = f"log:{revision}:head"
    return Snapshot("m", revision, stamp, routing, _loaded(champion), candidate, rollout)


def _incoming(offset: int, key: bytes = b"key") -> Incoming:
    return Incoming("m.requests", 0, offset, 1_000, key, b"{}")


def _answer(offset: int, snapshot: Snapshot, key: bytes = b"key") -> Answer:
    is_candidate = snapshot.rollout > 0 and offset % 5 == 0
    variant = Variant.CANDIDATE if is_candidate else Variant.CHAMPION
    source = Source("m.requests", 0, offset, 1_000)
    incoming = _incoming(offset, key)
    if offset % 7 == 3:
        is_early = offset % 2 == 0
        rejection = Rejection(
            reason=Reason.NOT_JSON,
            detail="",
            model="m",
            version=0 if is_early else 9 if is_candidate else 1,
            variant="" if is_early else variant,
            digest="",
            revision=snapshot.revision,
            source=source,
            instance="i",
        )
        return RejectionAnswer(incoming, rejection)
    forecast = Forecast(
        request_id="r",
        inputs=msgspec.Raw(b"{}"),
        outputs={"forecast": 1.0},
        model="m",
        version=1,
        digest="sha256:" + "0" * 64,
        variant=variant,
        revision=snapshot.revision,
        source=source,
        scored_at=datetime(2026, 1, 1, tzinfo=UTC),
        instance="i",
    )
    return ForecastAnswer(incoming, encode_forecast(forecast), variant)


class _Loop:
    """The answering loop without the rest of the protocol: fetch, answer, write, commit."""

    def __init__(self, faults: list[Exception], most_answers: int = 10) -> None:
        self.stream = SimulatedStream(faults)
        self.holdings = Holdings()
        self.holdings.take_over(0, 0, "", None)
        self.transactions = Transactions(
            self.holdings, most_answers=most_answers, longest_seconds=60.0
        )

    def turn(self, snapshot: Snapshot, count: int) -> None:
        """A batch of ``count`` requests under the snapshot."""
        self.holdings.begin_fetch()
        offsets = range(self.stream.read_from, self.stream.read_from + count)
        self.stream.read_from = offsets.stop
        if self.transactions.is_open_under_another(snapshot):
            self.commit()
        taken = self.holdings.accept([_incoming(offset) for offset in offsets])
        self.stream.carry_out(_seek(self.holdings.to_refetch()))
        if taken:
            answers = [_answer(each.offset, snapshot) for each in taken]
            self.stream.carry_out(self.transactions.begin(snapshot))
            self.stream.carry_out(self.transactions.write(answers))
        if self.transactions.is_due(0.0):
            self.commit()

    def commit(self) -> None:
        """Commit what is open."""
        self.stream.carry_out(self.transactions.commit())


def _seek(positions: Mapping[int, int]) -> Steps[None]:
    yield Seek(positions)


@pytest.mark.parametrize("failing", [0, 1, 3])
def test_an_aborted_transactions_requests_are_answered_again(failing: int) -> None:
    """However often a commit is impossible, in the end each offset has one answer."""
    loop = _Loop([Undone("the broker said so")] * failing)
    snapshot = _snapshot(3)
    while loop.stream.committed_offset < 60:
        loop.turn(snapshot, 4)
    assert loop.stream.answered == Counter(range(loop.stream.committed_offset))
    assert loop.transactions.aborted == failing
    counted = loop.transactions.answered + loop.transactions.rejected
    assert counted == loop.stream.committed_offset


def test_under_a_new_snapshot_the_older_transaction_is_committed_first() -> None:
    """No transaction holds answers of two revisions, and each is stamped with its own."""
    loop = _Loop([], most_answers=1_000)
    loop.turn(_snapshot(3), 4)
    loop.turn(newer := _snapshot(5), 4)
    assert (loop.stream.stamps, loop.stream.committed_offset) == (["log:3:head"], 4)
    loop.turn(newer, 2)
    loop.commit()
    assert (loop.stream.stamps, loop.stream.committed_offset) == (["log:3:head", "log:5:head"], 10)


def test_an_abort_at_the_switch_does_not_answer_ahead_of_the_replay() -> None:
    """What was fetched before the abort is fetched again, in its order, under the new snapshot."""
    loop = _Loop([Undone("the broker said so")], most_answers=1_000)
    loop.turn(_snapshot(3), 4)
    loop.turn(newer := _snapshot(5), 4)
    assert loop.stream.read_from == 0
    loop.turn(newer, 8)
    loop.commit()
    assert loop.stream.answered == Counter(range(8))
    assert loop.stream.stamps == ["log:5:head"]


def test_a_failed_stream_is_not_rewound() -> None:
    """A commit in doubt may have landed, so nothing is answered again by this process."""
    loop = _Loop([StreamFailed("in doubt")])
    loop.turn(snapshot := _snapshot(3), 4)
    with pytest.raises(StreamFailed):
        loop.turn(snapshot, 8)
    assert loop.transactions.aborted == 0


def test_lost_partitions_take_their_open_answers_with_them() -> None:
    """After a loss the transaction is aborted, and nothing is sought that is not ours."""
    loop = _Loop([], most_answers=1_000)
    loop.turn(_snapshot(3), 4)
    loop.holdings.forget([0])
    loop.stream.carry_out(loop.transactions.abandon())
    assert loop.stream.read_from == 4
    assert loop.stream.answered == Counter()


def _counts(loop: _Loop) -> dict[tuple[int, int, str], tuple[int, int]]:
    return {
        (name.rollout, name.version, name.variant): (count.answered, count.rejected)
        for name, count in loop.transactions.counts.items()
    }


def test_answers_are_tallied_by_the_version_that_gave_them() -> None:
    """Forecasts and rejections count for their variant under the rollout; those not routed for none."""
    loop = _Loop([], most_answers=35)
    loop.turn(_snapshot(3, rollout=2), 35)
    # Rejected are 3, 10, 17, 24, 31; the even ones before they were routed. Every fifth is version 9's.
    assert _counts(loop) == {(2, 1, "champion"): (24, 3), (2, 9, "candidate"): (6, 0)}
    assert loop.transactions.counts[TallyName(2, 9, Variant.CANDIDATE)] == Count(6, 0, 0, 0)
    assert loop.transactions.forecasts == {(1, Variant.CHAMPION): 24, (9, Variant.CANDIDATE): 6}
    assert loop.transactions.reasons == {Reason.NOT_JSON: 5}


def test_an_aborted_transaction_counts_for_nobody() -> None:
    """Only what was committed is tallied, once."""
    loop = _Loop([Undone("the broker said so")] * 2, most_answers=3)
    snapshot = _snapshot(3)
    while loop.stream.committed_offset < 3:
        loop.turn(snapshot, 3)
    assert _counts(loop) == {(0, 1, "champion"): (3, 0)}


@pytest.mark.parametrize(
    ("later", "tallies"),
    [
        (_snapshot(5), {(0, 1, "champion"): (6, 0)}),
        (_snapshot(5, champion=4), {(0, 4, "champion"): (3, 0)}),
        (_snapshot(5, rollout=5), {(5, 1, "champion"): (3, 0), (5, 9, "candidate"): (0, 0)}),
    ],
)
def test_tallies_count_from_the_first_answer_under_a_rollout(
    later: Snapshot, tallies: dict[tuple[int, int, str], tuple[int, int]]
) -> None:
    """A new rollout or champion starts from nothing, and what was before is not kept."""
    loop = _Loop([], most_answers=3)
    loop.turn(_snapshot(3), 3)
    loop.holdings.take_over(0, 11, "", None)
    loop.stream.read_from = 11
    loop.turn(later, 3)
    assert _counts(loop) == tallies
