"""Planted bugs: each patches one piece of the shipped protocol, for the time of a block.

Every one is a mistake that somebody could make, or made, and that a test of one consumer would pass.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

from consumer import answering
from consumer.answering import Answering
from consumer.gate import Gate, gate_of
from consumer.holdings import Holdings, Record
from consumer.instructions import Look, Score, Steps, Undone, View
from consumer.transactions import Transactions
from scoring.batch import Answer, Incoming
from scoring.snapshot import Snapshot

write_as_shipped = Transactions.write
answer_batch_as_shipped = Answering._answer_batch
accept_as_shipped = Holdings.accept


def _commit_before_produce(self: Transactions, answers: Sequence[Answer]) -> Steps[None]:
    snapshot = self._snapshot
    assert snapshot is not None
    yield from self.commit()
    yield from self.begin(snapshot)
    yield from write_as_shipped(self, answers)


def _snapshot_twice(
    self: Answering, snapshot: Snapshot, fetched: Sequence[Incoming]
) -> Steps[None]:
    steps = answer_batch_as_shipped(self, snapshot, fetched)
    outcome: Any = None
    undone: Undone | None = None
    while True:
        try:
            instruction = steps.send(outcome) if undone is None else steps.throw(undone)
        except StopIteration:
            return
        undone = None
        if isinstance(instruction, Score):
            view: View = yield Look()
            assert view.ready is not None
            instruction = Score(view.ready, instruction.batch)
        try:
            outcome = yield instruction
        except Undone as error:
            outcome, undone = None, error


def _open_at_once(*_: object) -> Gate:
    return Gate.OPEN


def _gate_on_read(self: Answering, view: View, stamp: str) -> Gate:
    return gate_of(stamp, view.judge(stamp), view.newest.revision)


def _no_rewind(self: Holdings) -> dict[int, int]:
    self._touched.clear()
    return {}


def _forget_first(self: Answering, partitions: Sequence[int]) -> Steps[None]:
    self.holdings.forget(partitions)
    yield from self.transactions.commit()


def _never_another(self: Transactions, snapshot: Snapshot) -> bool:
    if self._snapshot is not None:
        self._snapshot = snapshot  # goes on in the open transaction
    return False


def _undisturbed(self: Holdings, fetched: Sequence[Record]) -> list[Record]:
    self._disturbed.clear()
    return accept_as_shipped(self, fetched)


PLANTED: dict[str, tuple[Any, str, Callable[..., Any]]] = {
    "commit before produce": (Transactions, "write", _commit_before_produce),
    "no stamp gate": (answering, "gate_of", _open_at_once),
    "snapshot read twice in a transaction": (Answering, "_answer_batch", _snapshot_twice),
    "missed rewind after an abort": (Holdings, "rewind", _no_rewind),
    "stamp gate on what was read": (Answering, "_gate", _gate_on_read),
    "forgotten before the commit": (Answering, "revoked", _forget_first),
    "two snapshots in a transaction": (Transactions, "is_open_under_another", _never_another),
    "a fetch that was disturbed": (Holdings, "accept", _undisturbed),
}


@contextmanager
def planted(name: str) -> Iterator[None]:
    """The shipped code with this bug."""
    owner, attribute, bug = PLANTED[name]
    with mock.patch.object(owner, attribute, bug):
        yield
