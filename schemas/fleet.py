"""Fleet status: what one live consumer instance says of itself on the fleet topic.

The record's key is the instance's name; a tombstone says that it stopped cleanly. The topic is
compacted, so the newest status of each instance stays. Its time is the broker's (LogAppendTime): a
reader that must know who is alive writes a probe (key ``probe/…``) and compares broker times.
"""

from datetime import datetime
from enum import StrEnum

import msgspec

PROBE_PREFIX = "probe/"
"""Keys of records that carry no status: a reader wrote them to learn the broker's time."""


class Phase(StrEnum):
    """Where an instance stands."""

    STARTING = "starting"
    """It reads the control log."""
    WAITING = "waiting"
    """It is outside the group: there is no champion, or one that it cannot serve yet."""
    READY = "ready"
    """It answers."""
    LEAVING = "leaving"
    """It gives up its partitions."""


class Refused(msgspec.Struct, frozen=True):
    """A version that the instance could not admit: the rung of admission, and why."""

    version: int
    rung: str
    reason: str


class Runtime(msgspec.Struct, frozen=True):
    """What the instance computes with. Same version and numeric class: same bits.

    ``opsets`` is the highest operator set of each domain that it runs (the standard domain is
    ``ai.onnx``), ``ir_version`` the highest IR version; empty and 0 where the instance did not say.
    """

    onnxruntime: str
    numeric_class: str
    modelwire: str
    opsets: dict[str, int] = {}
    ir_version: int = 0


class Tally(msgspec.Struct, frozen=True):
    """What an instance did for one version under one rollout (its revision; 0: under none).

    Counts since it first answered under that rollout. ``variant`` is champion, candidate or shadow.
    ``rate`` is answers a second. ``shed`` and ``failed`` are a shadow's: requests that were left out
    since it was behind, and answers that the broker did not take.
    """

    rollout: int
    version: int
    variant: str
    answered: int
    rejected: int
    rate: float = 0.0
    shed: int = 0
    failed: int = 0


class CrashCount(msgspec.Struct, frozen=True):
    """How often an instance of this name ended without a tombstone while the rollout (its revision) ran.

    Counted from the name's last clean stop, which leaves nothing to count on from.
    """

    rollout: int
    count: int


class InstanceStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One announcement. Unknown keys are accepted: later versions add some.

    ``read_revision`` is the newest event read, ``revision`` that of the snapshot that answers (0:
    none). ``answered`` and ``rejected`` count since the instance started; ``rate`` is answers a
    second since the last announcement. ``horizon_days_left`` counts whole days from ``at`` to the
    last day that the champion can answer for; it is None where the contract has no horizon.
    ``lag`` is how many requests of its partitions it has not answered yet, None where it does not know.
    ``prepared`` are the versions in memory, ``passed`` those that went through admission here, in memory
    or not, and ``refused`` those that did not get through it.
    ``crashes`` has one entry while a rollout moves traffic, with a count of 0 too: whoever finds the
    entry after an unclean end counts on from there.
    """

    instance: str
    model: str
    phase: Phase
    detail: str
    read_revision: int
    revision: int
    champion: int | None
    prepared: tuple[int, ...]
    refused: tuple[Refused, ...]
    runtime: Runtime
    partitions: tuple[int, ...]
    answered: int
    rejected: int
    rate: float
    horizon_days_left: int | None
    interval_seconds: float
    """An instance that says nothing for three of these is taken to be dead."""
    started_at: datetime
    at: datetime
    lag: int | None = None
    tallies: tuple[Tally, ...] = ()
    passed: tuple[int, ...] = ()
    crashes: tuple[CrashCount, ...] = ()


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(InstanceStatus)


def encode_status(status: InstanceStatus) -> bytes:
    """The status as the bytes of a record's value."""
    return _encoder.encode(status)


def decode_status(value: bytes) -> InstanceStatus:
    """A status from a record's value. Raises ValueError (a msgspec error) where it is not one."""
    return _decoder.decode(value)
