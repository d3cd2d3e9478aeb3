"""The fleet topic: each instance announces itself there, and everybody may look.

An announcement's time is the broker's (LogAppendTime), and so is *now*: the time of the newest record
that a reader has seen, to which a reader makes sure by writing a record of its own: an instance by its
announcements, ``read_fleet`` by a probe. An instance is alive while its newest announcement is younger
than three of its intervals. A dead fleet therefore never looks fresh, whatever the clocks of the
machines say.

An instance that stops cleanly leaves a tombstone. One that starts and finds an announcement of its name
ended before without one: ``crashes_before`` is what it counts on from. So nothing of its own may be
announced before the past was read.
"""

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import structlog
from confluent_kafka import (
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)

from adapters.kafka import client_config, explain, open_client, require_topics, topic_names
from adapters.settings import Settings
from deployment.readiness import Instance
from schemas.errors import TimedOut
from schemas.fleet import (
    PROBE_PREFIX,
    CrashCount,
    InstanceStatus,
    Phase,
    decode_status,
    encode_status,
)

SILENT_INTERVALS = 3
"""An instance that said nothing for this many of its intervals is taken to be dead."""

READ_SECONDS = 10.0
LOOK_SECONDS = 0.05
FOLLOW_AT_ONCE = 500
"""Most records that one look takes in."""

FIRST_OFFSET = 0
"""Where reading starts. A broker that has it no more sends us to its first one; asking for that from the
start would cost a new client half a second."""

log = structlog.get_logger()


@dataclass(frozen=True)
class Sighting:
    """The newest announcement of an instance, its age by the broker's clock, and what that means."""

    status: InstanceStatus
    age_seconds: float
    alive: bool


def live_instances(sightings: Iterable[Sighting]) -> tuple[Instance, ...]:
    """The live ones among them, as the rules of readiness take them."""
    return tuple(_instance(sighting.status) for sighting in sightings if sighting.alive)


def count_crashes(sightings: Iterable[Sighting], rollout: int) -> int:
    """How often instances ended uncleanly while the rollout of this revision ran.

    The dead ones among them have ended once more than they could say.
    """
    return sum(
        entry.count + (not sighting.alive)
        for sighting in sightings
        for entry in sighting.status.crashes
        if entry.rollout == rollout
    )


def _instance(status: InstanceStatus) -> Instance:
    refused = {each.version: f"{each.rung}: {each.reason}" for each in status.refused}
    return Instance(
        name=status.instance,
        prepared=frozenset(status.prepared),
        refused=refused,
        revision=status.revision,
        answering=status.phase is Phase.READY,
        tallies=status.tallies,
        judged=frozenset((*status.prepared, *status.passed, *refused)),
    )


class Fleet:
    """The newest announcement of each instance, from records in the topic's order. No I/O."""

    def __init__(self) -> None:
        self._newest: dict[str, tuple[InstanceStatus, int]] = {}
        self._now_ms = 0

    def take(self, key: bytes | None, value: bytes | None, timestamp_ms: int) -> None:
        """One more record. A tombstone removes its instance; what cannot be read counts as time."""
        self._now_ms = max(self._now_ms, timestamp_ms)
        name = (key or b"").decode(errors="replace")
        if name.startswith(PROBE_PREFIX):
            return
        if not value:
            self._newest.pop(name, None)
            return
        try:
            self._newest[name] = (decode_status(value), timestamp_ms)
        except ValueError as error:
            log.warning("fleet.unreadable", key=name, problem=str(error))

    def sightings(self) -> list[Sighting]:
        """Every instance that has not stopped cleanly, by name."""
        return [
            self._judge(status, timestamp_ms)
            for _, (status, timestamp_ms) in sorted(self._newest.items())
        ]

    def peer_revision(self, instance: str) -> int:
        """The highest revision that a live instance other than ``instance`` has applied; 0: none."""
        return max(
            (
                sighting.status.revision
                for sighting in self.sightings()
                if sighting.alive and sighting.status.instance != instance
            ),
            default=0,
        )

    def crashes_before(self, instance: str) -> tuple[CrashCount, ...]:
        """What an instance of this name that starts now counts on from, its last end included.

        Empty where that end was clean, or no rollout moved traffic.
        """
        found = self._newest.get(instance)
        crashes = () if found is None else found[0].crashes
        return tuple(CrashCount(each.rollout, each.count + 1) for each in crashes)

    def _judge(self, status: InstanceStatus, timestamp_ms: int) -> Sighting:
        age = max(self._now_ms - timestamp_ms, 0) / 1_000
        return Sighting(status, age, alive=age < SILENT_INTERVALS * status.interval_seconds)


class Announcer:
    """Writes an instance's announcements, and follows those of all."""

    def __init__(self, settings: Settings, model: str, instance: str) -> None:
        self.fleet = Fleet()
        self.crashes_before: tuple[CrashCount, ...] = ()
        """Of this name, as ``catch_up`` found it."""
        self._settings = settings
        self._topic = topic_names(settings, model).fleet
        self._instance = instance
        self._key = instance.encode()
        self._producer: Producer = open_client(Producer, _producer_config(settings))
        self._consumer: Consumer = open_client(Consumer, _consumer_config(settings))
        self._consumer.assign([TopicPartition(self._topic, 0, FIRST_OFFSET)])

    def catch_up(self, go_on: Callable[[], bool]) -> None:
        """Read the past, before the first announcement; gives up once ``go_on`` says no.

        Raises ModelwireError where that is not done in time, KafkaException where it fails.
        """
        in_time = _within(READ_SECONDS)

        def may_go_on() -> bool:
            return go_on() and in_time()

        end = _probe(self._settings, self._producer, self._topic, may_go_on)
        _read_up_to(self.fleet, self._consumer, self._topic, end, may_go_on)
        self.crashes_before = self.fleet.crashes_before(self._instance)

    def announce(self, status: InstanceStatus) -> None:
        """Say it, without waiting for the broker; while that is away only the newest matter."""
        try:
            self._producer.produce(self._topic, encode_status(status), self._key, 0)
        except BufferError:
            self._producer.purge()
        self._producer.poll(0)

    def follow(self) -> None:
        """Take in what others have said since; never waits."""
        for message in self._consumer.consume(FOLLOW_AT_ONCE, 0):
            if message.error() is None:
                _take(self.fleet, message)

    def say_goodbye(self, limit_seconds: float) -> None:
        """Leave a tombstone: this instance stopped cleanly."""
        self._producer.produce(self._topic, None, self._key, 0)
        self._producer.flush(limit_seconds)

    def close(self) -> None:
        """Stop following."""
        self._consumer.close()


def read_fleet(settings: Settings, model: str) -> list[Sighting]:
    """Every instance of the model that has not stopped cleanly, by name, alive or not.

    Raises NotFound where the topic is missing, TimedOut where the broker does not answer in time.
    """
    topic = topic_names(settings, model).fleet
    require_topics(settings, [topic], model=model)
    producer: Producer = open_client(Producer, _producer_config(settings))
    end = _probe(settings, producer, topic, _within(READ_SECONDS))
    fleet = Fleet()
    consumer: Consumer = open_client(Consumer, _consumer_config(settings))
    try:
        consumer.assign([TopicPartition(topic, 0, FIRST_OFFSET)])
        _read_up_to(fleet, consumer, topic, end, _within(READ_SECONDS))
    except KafkaException as error:
        raise explain(error.args[0], f"read {topic}", settings.kafka.bootstrap_servers) from error
    finally:
        consumer.close()
    return fleet.sightings()


def _within(seconds: float) -> Callable[[], bool]:
    deadline = time.monotonic() + seconds
    return lambda: time.monotonic() < deadline


def _probe(
    settings: Settings, producer: Producer, topic: str, may_go_on: Callable[[], bool]
) -> int:
    """Write a probe; returns its offset. Its key is the process's, and a tombstone clears it."""
    written: list[tuple[KafkaError | None, int | None]] = []
    key = f"{PROBE_PREFIX}{os.getpid()}"
    producer.produce(
        topic,
        None,
        key,
        0,
        on_delivery=lambda error, message: written.append((error, message.offset())),
    )
    while not written and may_go_on():
        producer.poll(LOOK_SECONDS)
    if not written:
        raise TimedOut(f"{topic} did not take a record within {READ_SECONDS:.0f} s")
    error, offset = written[0]
    if error is not None:
        raise explain(error, f"write to {topic}", settings.kafka.bootstrap_servers)
    assert offset is not None
    return offset


def _read_up_to(
    fleet: Fleet, consumer: Consumer, topic: str, end: int, may_go_on: Callable[[], bool]
) -> None:
    while may_go_on():
        if _take_up_to(fleet, consumer.consume(FOLLOW_AT_ONCE, LOOK_SECONDS), end):
            return
    raise TimedOut(f"{topic} could not be read to its end within {READ_SECONDS:.0f} s")


def _take_up_to(fleet: Fleet, messages: Iterable[Message], end: int) -> bool:
    """Take the messages in; True once the one at offset ``end`` was among them."""
    for message in messages:
        error = message.error()
        if error is not None:
            raise KafkaException(error)
        _take(fleet, message)
        offset = message.offset()
        if offset is not None and offset >= end:
            return True
    return False


def _take(fleet: Fleet, message: Message) -> None:
    fleet.take(message.key(), message.value(), message.timestamp()[1])


def _producer_config(settings: Settings) -> dict[str, object]:
    return client_config(
        settings,
        **{
            "linger.ms": 0,
            "message.timeout.ms": 10_000,
            "queue.buffering.max.messages": 100,
            "reconnect.backoff.max.ms": 1_000,
        },
    )


def _consumer_config(settings: Settings) -> dict[str, object]:
    return client_config(
        settings,
        **{
            "group.id": "modelwire-fleet",  # librdkafka wants one; nothing is ever committed to it
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "earliest",
            "fetch.wait.max.ms": 50,
            "queued.max.messages.kbytes": 4_096,
            "reconnect.backoff.max.ms": 1_000,
        },
    )
