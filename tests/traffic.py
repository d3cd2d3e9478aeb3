"""Requests that go in at a rate, and the committed records of a topic.

It needs no model on this side: a test of processes on any broker can send to them and read from them.
"""

import json
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition

KEYS = tuple(f"key-{number}".encode() for number in range(97))


@dataclass(frozen=True)
class Record:
    """A committed record. ``time`` is its timestamp in seconds, of the kind that the topic keeps."""

    partition: int
    time: float
    time_type: int
    key: bytes | None
    value: bytes | None
    headers: dict[str, bytes]


class Stream:
    """A thread that sends good requests at a rate, their keys in turn, while a block runs."""

    def __init__(self, servers: str, topic: str, rate: int, keys: Sequence[bytes] = KEYS) -> None:
        self.sent = 0
        self._servers = servers
        self._topic = topic
        self._rate = rate
        self._keys = keys
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Send no more; returns when all is acknowledged."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        producer = request_producer(self._servers)
        began = time.monotonic()
        while not self._stopping.wait(0.01):
            due = int((time.monotonic() - began) * self._rate)
            while self.sent < due:
                try:
                    key = self._keys[self.sent % len(self._keys)]
                    producer.produce(self._topic, good_request(self.sent, "a"), key)
                except BufferError:
                    break
                self.sent += 1
            producer.poll(0)
        assert producer.flush(120) == 0


def request_producer(servers: str, **properties: object) -> Producer:
    """A producer of requests."""
    return Producer(
        {
            "bootstrap.servers": servers,
            "enable.idempotence": True,
            "linger.ms": 2,
            "log_level": 0,
            "message.timeout.ms": 120_000,
            **properties,
        }
    )


def good_request(number: int, item: str) -> bytes:
    """A request that every bundle of ``tests.bundles`` answers."""
    return json.dumps(
        {
            "request_id": f"r-{number}",
            "inputs": {"item": item, "units": float(number % 1_000), "date": "2011-12-09"},
        }
    ).encode()


def committed_records(servers: str, topic: str, count: int, seconds: float) -> list[Record]:
    """The committed records of all partitions, at least ``count``: fails after ``seconds``.

    It reads to the ends as they are, again and again until there are enough; so it comes to its end
    while more is written, and then holds all that was there when it began.
    """
    consumer = Consumer(
        {
            "bootstrap.servers": servers,
            "group.id": "test-reader",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "fetch.wait.max.ms": 10,
            "log_level": 0,
        }
    )
    deadline = time.monotonic() + seconds
    try:
        positions = dict.fromkeys(consumer.list_topics(topic, seconds).topics[topic].partitions, 0)
        assert positions, f"no partition of {topic}"
        found: list[Record] = []
        while True:
            found += _read_to_ends(consumer, topic, positions, deadline)
            if len(found) >= count:
                return found
            if time.monotonic() > deadline:
                raise AssertionError(f"{len(found)} of {count} records in {topic} in {seconds:g} s")
    finally:
        consumer.close()


def _read_to_ends(
    consumer: Consumer, topic: str, positions: dict[int, int], deadline: float
) -> list[Record]:
    """What is between the positions and the first end that each partition comes to; moves them."""
    consumer.assign([TopicPartition(topic, number, at) for number, at in positions.items()])
    found = []
    unfinished = {*positions}
    while unfinished and time.monotonic() <= deadline:
        for message in consumer.consume(1_000, 0.05):
            number, error = message.partition() or 0, message.error()
            if error is None:
                positions[number] = (message.offset() or 0) + 1
                found.append(_record(message))
            elif error.code() == KafkaError._PARTITION_EOF:
                unfinished.discard(number)
    return found


def _record(message: Message) -> Record:
    time_type, milliseconds = message.timestamp()
    return Record(
        message.partition() or 0,
        milliseconds / 1_000,
        time_type,
        message.key(),
        message.value(),
        dict(message.headers() or []),
    )
