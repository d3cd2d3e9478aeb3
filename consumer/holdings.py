"""Holdings: the partitions an instance owns, and how far each one is.

This is the memory of the exactly-once loop, without I/O. For every owned partition it knows the
offset to answer next, the offset that is committed, and the stamp that was committed with it. Rules:

1. A record counts only if its partition is owned, not waiting for a revision, and its offset is not
   behind the position. Gaps ahead are fine: aborted requests and markers leave them.
2. A partition that was assigned or rewound while a fetch was under way is *disturbed*: what that fetch
   had gathered of it may lie ahead of the position, so it is dropped and fetched again.
3. A commit covers every partition that was touched since the last one. After it those positions are
   the committed ones, under the stamp of the transaction's snapshot.
4. After an abort every touched partition that is still owned goes back to its committed offset.
5. What is no longer owned is forgotten, touched or not.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import Protocol, TypeVar


class Placed(Protocol):
    """A record, of which only the place counts here."""

    @property
    def partition(self) -> int:
        """Its partition."""
        ...

    @property
    def offset(self) -> int:
        """Its offset there."""
        ...


Record = TypeVar("Record", bound=Placed)

_partition_of = attrgetter("partition")


@dataclass
class Holding:
    """One owned partition. Offsets count from 0; ``waiting_since`` is a clock's reading or None."""

    position: int
    committed: int
    stamp: str
    waiting_since: float | None


class Holdings:
    """All owned partitions. Not thread-safe: it belongs to the answering loop."""

    def __init__(self) -> None:
        self._owned: dict[int, Holding] = {}
        self._touched: set[int] = set()
        self._disturbed: set[int] = set()
        self._dropped: set[int] = set()

    @property
    def partitions(self) -> tuple[int, ...]:
        """The owned partitions, in order."""
        return tuple(sorted(self._owned))

    def positions(self) -> dict[int, int]:
        """The next offset to answer of every owned partition."""
        return {partition: held.position for partition, held in self._owned.items()}

    def take_over(
        self, partition: int, offset: int, stamp: str, waiting_since: float | None
    ) -> None:
        """The partition is ours from its committed ``offset`` on."""
        self._owned[partition] = Holding(offset, offset, stamp, waiting_since)
        self._touched.discard(partition)
        self._disturbed.add(partition)

    def forget(self, partitions: Iterable[int]) -> None:
        """The partitions are not ours any more."""
        for partition in partitions:
            self._owned.pop(partition, None)
            self._touched.discard(partition)
            self._disturbed.discard(partition)
            self._dropped.discard(partition)

    def begin_fetch(self) -> None:
        """A fetch starts: what is disturbed from here on must be fetched again."""
        self._disturbed.clear()
        self._dropped.clear()

    def accept(self, fetched: Sequence[Record]) -> list[Record]:
        """Those records that count, in their order: they will be in the transaction.

        Their partitions' positions move on. Records come in runs of one partition.
        """
        taken: list[Record] = []
        take = taken.append
        for partition, run in groupby(fetched, _partition_of):
            holding = self._owned.get(partition)
            if holding is None:
                continue
            if holding.waiting_since is not None or partition in self._disturbed:
                self._dropped.add(partition)
                continue
            position = holding.position
            for record in run:
                if record.offset < position:
                    self._dropped.add(partition)
                    continue
                position = record.offset + 1
                take(record)
            if position > holding.position:
                holding.position = position
                self._touched.add(partition)
        return taken

    def to_refetch(self) -> dict[int, int]:
        """Where to seek after this fetch: the position of every partition that had records dropped.

        One that waits is left out: it is paused, and ``open`` says where it goes on.
        """
        return {
            partition: self._owned[partition].position
            for partition in self._dropped
            if self._owned[partition].waiting_since is None
        }

    def pending(self) -> dict[int, int]:
        """What a commit has to cover: the next offset of every touched partition."""
        return {partition: self._owned[partition].position for partition in self._touched}

    def note_commit(self, committed: Mapping[int, int], stamp: str) -> None:
        """The offsets in ``committed`` are committed under ``stamp``."""
        for partition, offset in committed.items():
            holding = self._owned.get(partition)
            if holding is not None:
                holding.committed = offset
                holding.stamp = stamp
        self._touched.clear()

    def rewind(self) -> dict[int, int]:
        """The transaction was aborted: the offsets to seek back to, now the positions."""
        back = {}
        for partition in self._touched:
            holding = self._owned[partition]
            holding.position = back[partition] = holding.committed
        self._disturbed |= self._touched
        self._touched.clear()
        return back

    def waiting(self) -> dict[int, Holding]:
        """The partitions that wait for a later revision."""
        return {p: held for p, held in self._owned.items() if held.waiting_since is not None}

    def open(self, partition: int) -> int:
        """The partition waits no more; returns the offset to fetch from."""
        holding = self._owned[partition]
        holding.waiting_since = None
        return holding.position
