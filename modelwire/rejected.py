"""The rejections topic as people ask of it: which requests were rejected, why, and what was kept.

Only what is committed is read, to the ends that the partitions have then. What cannot be read as a
rejection (somebody else's record) is counted and passed over.
"""

import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import msgspec
from confluent_kafka import (
    OFFSET_END,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from adapters.kafka import client_config, explain, open_client
from adapters.settings import Settings
from schemas.errors import TimedOut
from schemas.rejection import ENVELOPE_HEADER, Headers, Rejection, read_rejection

CALL_SECONDS = 10.0
PAUSE_SECONDS = 0.05
"""How long the broker may take to answer, or to give neither a record nor an end."""

LOOK_SECONDS = 0.05

FIRST_OFFSET = 0
"""A broker that has it no more sends us to its first one; asking for that costs half a second."""

Place = tuple[int, int]
"""Partition and offset."""


@dataclass(frozen=True)
class Choice:
    """Which rejections are meant: all those that have everything that is named here.

    ``sources`` and ``partition`` are of the request topic. ``since_ms`` is the time from which on a
    rejection was written, since 1970 (UTC).
    """

    reasons: frozenset[str] = frozenset()
    sources: frozenset[Place] = frozenset()
    partition: int | None = None
    since_ms: int | None = None

    def holds(self, rejected: "Rejected") -> bool:
        """Whether this one is meant."""
        return (
            (not self.reasons or rejected.rejection.reason in self.reasons)
            and (not self.sources or rejected.source in self.sources)
            and (self.partition is None or rejected.source[0] == self.partition)
            and (self.since_ms is None or rejected.time_ms >= self.since_ms)
        )


@dataclass(frozen=True)
class Rejected:
    """A record of the rejections topic. ``value`` is None where the request's bytes were not kept.

    ``size`` is the request's, in bytes; ``time_ms`` when the rejection was written (UTC, since 1970).
    """

    place: Place
    time_ms: int
    rejection: Rejection
    key: bytes | None
    value: bytes | None
    size: int

    @property
    def source(self) -> Place:
        """Where the request lay."""
        return self.rejection.source.partition, self.rejection.source.offset


def read_rejected(
    settings: Settings, topic: str, partitions: int, choice: Choice
) -> Iterator[Rejected]:
    """The chosen rejections, in the order of each partition."""
    for message in committed(settings, topic, range(partitions), choice.since_ms):
        found = rejected_in(message)
        if found is not None and choice.holds(found):
            yield found


def read_again(settings: Settings, topic: str, places: Collection[Place]) -> Iterator[Rejected]:
    """The rejections that were found at these places, as far as they are still there."""
    firsts: dict[int, int] = {}
    for partition, offset in places:
        firsts[partition] = min(offset, firsts.get(partition, offset))
    left = len(places)
    reader = open_reader(settings)
    starts = [TopicPartition(topic, number, first) for number, first in firsts.items()]
    for message in _to_the_ends(reader, topic, starts):
        if place_of(message) in places:
            found = rejected_in(message)
            if found is not None:
                yield found
            left -= 1
            if not left:
                return


def rejected_in(message: Message) -> Rejected | None:
    """The rejection that a message holds; None where it is somebody else's record."""
    headers = headers_of(message)
    try:
        rejection = read_rejection(headers)
    except ValueError:
        return None
    value = message.value() or b""
    is_enveloped = any(name == ENVELOPE_HEADER for name, _ in headers)
    return Rejected(
        place=place_of(message),
        time_ms=message.timestamp()[1],
        rejection=rejection,
        key=message.key(),
        value=None if is_enveloped else value,
        size=_size_in(value) if is_enveloped else len(value),
    )


class _Envelope(msgspec.Struct):
    size: int = 0


def _size_in(envelope: bytes) -> int:
    try:
        return msgspec.json.decode(envelope, type=_Envelope).size
    except (msgspec.DecodeError, UnicodeDecodeError):
        return 0


def headers_of(message: Message) -> Headers:
    """The headers, each with its bytes."""
    headers = message.headers() or []
    assert isinstance(headers, list)
    return [(name, value if isinstance(value, bytes) else b"") for name, value in headers]


def place_of(message: Message) -> Place:
    """Where a message that is no error lies in its topic."""
    partition, offset = message.partition(), message.offset()
    assert partition is not None
    assert offset is not None
    return partition, offset


def open_reader(settings: Settings) -> Consumer:
    """A consumer of committed records, in no group."""
    return open_client(
        Consumer,
        client_config(
            settings,
            **{
                "group.id": "modelwire-rejections",  # demanded by the client, never joined
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "enable.partition.eof": True,
                "auto.offset.reset": "earliest",
                "fetch.wait.max.ms": 20,
            },
        ),
    )


def committed(
    settings: Settings, topic: str, partitions: range, since_ms: int | None = None
) -> Iterator[Message]:
    """The committed records of these partitions from a time on, to their ends as they are now."""
    reader = open_reader(settings)
    return _to_the_ends(reader, topic, beginnings(reader, topic, partitions, since_ms))


def _to_the_ends(reader: Consumer, topic: str, starts: list[TopicPartition]) -> Iterator[Message]:
    try:
        reader.assign(starts)
        unfinished: set[int | None] = {each.partition for each in starts}
        heard = time.monotonic()
        while unfinished:
            batch = reader.consume(1_000, LOOK_SECONDS)
            if batch:
                heard = time.monotonic()
            elif time.monotonic() - heard > CALL_SECONDS:
                raise TimedOut(
                    f"the broker gave neither a record nor the end of {topic} for "
                    f"{CALL_SECONDS:.0f} s",
                    hint="is the broker up? modelwire doctor",
                )
            for message in batch:
                error = message.error()
                if error is None:
                    yield message
                elif error.code() == KafkaError._PARTITION_EOF:
                    unfinished.discard(message.partition())
                elif not error.retriable() and error.code() not in _PASSING:
                    raise explain(error, f"read {topic}")
    finally:
        reader.close()


def beginnings(
    consumer: Consumer, topic: str, partitions: range, since_ms: int | None
) -> list[TopicPartition]:
    """Where reading begins: at the first record of that time or a later one, or at the end."""
    if since_ms is None:
        return [TopicPartition(topic, number, FIRST_OFFSET) for number in partitions]
    asked = [TopicPartition(topic, number, since_ms) for number in partitions]
    deadline = time.monotonic() + CALL_SECONDS
    while True:
        try:
            found = consumer.offsets_for_times(asked, timeout=CALL_SECONDS)
        except KafkaException as error:
            raise explain(error.args[0], f"find a time in {topic}") from error
        problem = next((place.error for place in found if place.error is not None), None)
        if problem is None:
            break
        if not problem.retriable() or time.monotonic() > deadline:
            raise explain(problem, f"find a time in {topic}")
        time.sleep(PAUSE_SECONDS)  # a topic that was just made has no leader for a moment
    for place in found:
        place.offset = OFFSET_END if place.offset < 0 else place.offset
    return found


_PASSING = (KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._TIMED_OUT)
"""Errors after which the client goes on by itself; the silence limit ends what does not pass."""
