"""Instructions: what the answering protocol asks of the world, and what it is told in return.

``consumer.answering`` decides and touches nothing: its steps are generators that yield an instruction
and are sent what came of it. ``consumer.service`` carries instructions out on a real broker, a
simulation on one of its own. The answer to an instruction is None unless it says otherwise.

An instruction of a transaction (``Write``, ``Commit``) may raise ``Undone``; nothing else is raised into
a step. Whatever else goes wrong ends the process, in the middle of the step that it stood in.
"""

from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from deployment.ledger import StampVerdict
from deployment.state import Deployment
from scoring.batch import Answer, Incoming
from scoring.snapshot import Snapshot

Outcome = TypeVar("Outcome")


class Undone(Exception):
    """The transaction can only be aborted: nothing of it counts, and its requests must come again."""


class Place(Protocol):
    """What the group committed of a partition: the next offset, and the stamp beside it (or "")."""

    @property
    def offset(self) -> int:
        """From 0; the next request to answer."""
        ...

    @property
    def stamp(self) -> str:
        """Empty where there is none."""
        ...


@dataclass(frozen=True)
class View:
    """What the instance knows at one moment. ``now`` is a monotonic clock's reading in seconds.

    ``newest`` is the newest state read, the log's end once ``caught_up``. ``ready`` is the newest
    snapshot that can answer. ``prepared`` are the loaded versions, ``refused`` maps those that admission
    turned down to the reason. ``peer_revision`` is the highest revision that another live instance has
    applied. ``judge`` says of a stamp what the log as read so far says of it.
    """

    now: float
    newest: Deployment
    caught_up: bool
    ready: Snapshot | None
    prepared: Collection[int]
    refused: Mapping[int, str]
    peer_revision: int
    judge: Callable[[str], StampVerdict]


@dataclass(frozen=True)
class Look:
    """Answered with a ``View``."""


@dataclass(frozen=True)
class Clock:
    """Answered with the clock's reading in seconds."""


@dataclass(frozen=True)
class Sleep:
    """Do nothing for a while."""

    seconds: float


@dataclass(frozen=True)
class Join:
    """Become a member of the group."""


@dataclass(frozen=True)
class Leave:
    """Give up all partitions and the place in the group."""


@dataclass(frozen=True)
class Close:
    """The end: let the group and the broker know."""


@dataclass(frozen=True)
class Fetch:
    """Answered with up to ``limit`` requests: wait for the first one, then a while for more.

    Partitions may be assigned, revoked and lost meanwhile, by steps of their own.
    """

    limit: int
    wait_seconds: float
    fill_seconds: float


@dataclass(frozen=True)
class Seek:
    """Fetch these partitions from these offsets next."""

    positions: Mapping[int, int]


@dataclass(frozen=True)
class Pause:
    """Fetch nothing of these partitions for now."""

    partitions: Collection[int]


@dataclass(frozen=True)
class Resume:
    """Fetch these partitions again."""

    partitions: Collection[int]


@dataclass(frozen=True)
class Suspect:
    """Answered with whether requests of the batch were in hand when earlier processes ended."""

    snapshot: Snapshot
    batch: Sequence[Incoming]


@dataclass(frozen=True)
class TakeApart:
    """Find out which of them bring a process down; takes long."""

    snapshot: Snapshot
    batch: Sequence[Incoming]


@dataclass(frozen=True)
class Score:
    """Answered with one answer for each request of the batch, under this snapshot."""

    snapshot: Snapshot
    batch: Sequence[Incoming]


@dataclass(frozen=True)
class Begin:
    """Open a transaction."""


@dataclass(frozen=True)
class Write:
    """Put these answers into the open transaction; answered with what was written, in their order.

    A forecast that turns out to be too large for its topic is written as a rejection.
    """

    answers: Sequence[Answer]


@dataclass(frozen=True)
class Commit:
    """Commit the open transaction with the next offset of each partition, the stamp beside each."""

    offsets: Mapping[int, int]
    stamp: str


@dataclass(frozen=True)
class Abort:
    """Nothing of the open transaction is to count."""


@dataclass(frozen=True)
class Serve:
    """Hear what became of what was written: raises where answering cannot go on."""


@dataclass(frozen=True)
class HandOver:
    """This batch was answered and written: shadows may score it. ``is_behind``: more requests wait."""

    snapshot: Snapshot
    batch: Sequence[Incoming]
    is_behind: bool


@dataclass(frozen=True)
class Use:
    """The loop answers with this snapshot from here on, and holds no other."""

    snapshot: Snapshot


@dataclass(frozen=True)
class Confirm:
    """Look for this stamp in a fresh reading of the log; the process ends where it is not there."""

    stamp: str


@dataclass(frozen=True)
class Say:
    """A log line for people; with ``announce`` the fleet is told of the change at once."""

    event: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    level: str = "info"
    announce: bool = False


Instruction = (
    Look
    | Clock
    | Sleep
    | Join
    | Leave
    | Close
    | Fetch
    | Seek
    | Pause
    | Resume
    | Suspect
    | TakeApart
    | Score
    | Begin
    | Write
    | Commit
    | Abort
    | Serve
    | HandOver
    | Use
    | Confirm
    | Say
)

Steps = Generator[Instruction, Any, Outcome]
"""A step of the protocol: yields instructions, and ends with its outcome."""
