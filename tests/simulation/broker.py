"""A simulated broker: requests, one transactional log of answers, committed offsets, and one group.

It keeps what the protocol rests on, and nothing else:

1. What a transaction wrote counts, with its offsets, from the moment that it is committed, or never.
2. A producer that opens under a name fences the one before it, and aborts what that one left open. A
   transaction can also be aborted by its age.
3. A partition whose offsets lie in an open transaction cannot be taken over until that one has ended.
4. A partition goes to another member only once its owner let it go, left, or was expelled; an expelled
   member can add no offsets any more. It hears of all that at its next fetch.

``Undone`` is raised where the client says that a transaction can only be aborted, ``Ended`` where it
says that this process must end.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from consumer.instructions import Undone


class Ended(Exception):
    """The process has to end: somebody else has its name."""


@dataclass
class Transaction:
    """``is_committed`` is None while it is open."""

    is_committed: bool | None = None
    offsets: dict[int, tuple[int, str]] = field(default_factory=dict)
    """What was added: partition -> next offset and stamp."""


@dataclass(frozen=True)
class Record:
    """An answer in the log of its partition, in the order in which answers arrived."""

    transaction: Transaction
    offset: int
    revision: int
    version: int
    variant: str


@dataclass(frozen=True)
class Producer:
    """A transactional producer: its name, and which of that name's producers it is."""

    name: str
    epoch: int


@dataclass(eq=False)
class Member:
    """A member of the group. ``is_expelled`` once the group took it for dead."""

    name: str
    owned: set[int] = field(default_factory=set)
    is_expelled: bool = False
    is_replaced: bool = False
    """Another process has joined under this static name."""


@dataclass(frozen=True)
class Place:
    """What is committed of a partition."""

    offset: int = 0
    stamp: str = ""


class Broker:
    """Partitions are numbered from 0. ``requests`` holds the keys of each one's requests."""

    def __init__(self, partitions: int) -> None:
        self.requests: list[list[str]] = [[] for _ in range(partitions)]
        self.results: list[list[Record]] = [[] for _ in range(partitions)]
        self.committed = [Place() for _ in range(partitions)]
        self.members: dict[str, Member] = {}
        self._target: dict[int, str] = {}
        self._epochs: dict[str, int] = {}
        self._open: dict[str, Transaction] = {}

    # --- transactions

    def open_producer(self, name: str) -> Producer:
        """Fence the older producer of this name."""
        self.abort_of(name)
        self._epochs[name] = self._epochs.get(name, 0) + 1
        return Producer(name, self._epochs[name])

    def begin(self, producer: Producer) -> None:
        """Open a transaction."""
        self._check(producer)
        assert producer.name not in self._open, "a transaction is open already"
        self._open[producer.name] = Transaction()

    def write(self, producer: Producer, partition: int, record: tuple[int, int, int, str]) -> None:
        """Append an answer: its request's offset, revision, version and variant."""
        self._check(producer)
        self.results[partition].append(Record(self._current(producer), *record))

    def add_offsets(
        self, producer: Producer, member: Member, offsets: Mapping[int, int], stamp: str
    ) -> None:
        """Let the transaction commit these offsets too. Refused for a member that was expelled."""
        self._check(producer)
        transaction = self._current(producer)
        if member.is_replaced:
            raise Ended("the group has another process of this name")
        if member.is_expelled or self.members.get(member.name) is not member:
            raise Undone("not a member")
        transaction.offsets = {p: (offset, stamp) for p, offset in offsets.items()}

    def commit(self, producer: Producer) -> None:
        """All of the transaction counts from here on."""
        self._check(producer)
        transaction = self._current(producer)
        transaction.is_committed = True
        for partition, place in transaction.offsets.items():
            self.committed[partition] = Place(*place)
        del self._open[producer.name]

    def abort(self, producer: Producer) -> None:
        """Nothing of the transaction counts."""
        self._check(producer)
        self.abort_of(producer.name)

    def abort_of(self, name: str) -> None:
        """Abort what the producer of this name has open, as the broker does with what is too old."""
        transaction = self._open.pop(name, None)
        if transaction is not None:
            transaction.is_committed = False

    def fence(self, name: str) -> None:
        """The broker lets go of a producer whose transaction was too old."""
        self.abort_of(name)
        self._epochs[name] = self._epochs.get(name, 0) + 1

    @property
    def open_names(self) -> list[str]:
        """The producers that have a transaction open."""
        return sorted(self._open)

    def _check(self, producer: Producer) -> None:
        if self._epochs[producer.name] != producer.epoch:
            raise Ended("fenced")

    def _current(self, producer: Producer) -> Transaction:
        transaction = self._open.get(producer.name)
        if transaction is None:
            raise Undone("the broker aborted it")
        return transaction

    # --- the group

    def join(self, name: str) -> Member:
        """Become a member. A static name that is taken is taken over, with its place."""
        before = self.members.get(name)
        member = Member(name)
        self.members[name] = member
        if before is None:
            self.rebalance(0)
        else:
            before.is_replaced = True
        return member

    def leave(self, member: Member) -> None:
        """Be a member no more."""
        if self.members.get(member.name) is member:
            del self.members[member.name]
            self.rebalance(0)

    def expel(self, name: str) -> None:
        """The session of this member has timed out."""
        self.members.pop(name).is_expelled = True
        self.rebalance(0)

    def rebalance(self, shift: int) -> None:
        """Give each partition to a member, the same as before where that is fair and ``shift`` is 0."""
        names = sorted(self.members)
        if not names:
            self._target = {}
            return
        partitions = range(len(self.requests))
        most = -(-len(self.requests) // len(names))
        target: dict[int, str] = {}
        loads = dict.fromkeys(names, 0)
        for partition in partitions:
            keeper = self._target.get(partition)
            if shift == 0 and keeper in loads and loads[keeper] < most:
                target[partition] = keeper
                loads[keeper] += 1
        for partition in partitions:
            if partition not in target:
                order = names[shift % len(names) :] + names[: shift % len(names)]
                taker = min(order, key=lambda name: loads[name])
                target[partition] = taker
                loads[taker] += 1
        self._target = target

    def to_revoke(self, member: Member) -> set[int]:
        """What this member has and should not have."""
        return {p for p in member.owned if self._target.get(p) != member.name}

    def to_assign(self, member: Member) -> set[int]:
        """What this member should have, nobody has any more, and no open transaction hangs over."""
        taken = {p for each in self.members.values() for p in each.owned}
        hanging = {p for each in self._open.values() for p in each.offsets}
        return {
            p
            for p, name in self._target.items()
            if name == member.name and p not in taken and p not in hanging
        }

    # --- what was answered

    def answers(self, partition: int) -> list[Record]:
        """The committed answers of a partition, in the order of its log."""
        return [each for each in self.results[partition] if each.transaction.is_committed]

    def is_answered(self) -> bool:
        """Whether every request has an answer that counts."""
        return all(
            {each.offset for each in self.answers(p)} == set(range(len(keys)))
            for p, keys in enumerate(self.requests)
        )


def without(owned: Collection[int], partitions: Collection[int]) -> set[int]:
    """``owned`` less ``partitions``."""
    return set(owned) - set(partitions)
