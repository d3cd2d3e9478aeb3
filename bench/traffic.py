"""Requests for benches: the held-out rows of a released bundle, as a backlog or at a steady rate."""

import itertools
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Self

import msgspec
from confluent_kafka import Producer

from adapters.bundles import read_file, read_manifest
from adapters.object_store import ObjectStore
from modelwire.replay import HeldOutRow, endless, held_out_rows
from schemas.manifest import HOLDOUT_NAME
from schemas.request import Request

TICK_SECONDS = 0.001
"""Requests that are due within one of these leave together."""

POISON = b'{"request_id":"poison","inputs":{"no":"such field"}}'


def held_out(store: ObjectStore, digest: str) -> list[HeldOutRow]:
    """The held-out rows of a bundle."""
    manifest = read_manifest(store, digest)
    return held_out_rows(read_file(store, digest, manifest, HOLDOUT_NAME), manifest.contract)


def good_requests(rows: Sequence[HeldOutRow]) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of requests without end, in random order; ids are as long as a real caller's."""
    for number, row in enumerate(endless(list(rows), seed=0)):
        asked = Request(f"0123456789ab-{number}", msgspec.Raw(row.inputs), datetime.now(UTC))
        yield row.key, msgspec.json.encode(asked)


def with_poison(
    requests: Iterator[tuple[bytes, bytes]], one_in: int
) -> Iterator[tuple[bytes, bytes]]:
    """Every ``one_in``-th request's value is one that no contract takes; 0: none."""
    for number, (key, value) in enumerate(requests, start=1):
        yield key, POISON if one_in and number % one_in == 0 else value


def send_backlog(
    servers: str, topic: str, requests: Iterator[tuple[bytes, bytes]], count: int
) -> None:
    """Write so many requests as fast as the broker takes them."""
    producer = _producer(servers, **{"linger.ms": 20, "compression.type": "lz4"})
    for key, value in itertools.islice(requests, count):
        while True:
            try:
                producer.produce(topic, value, key)
                break
            except BufferError:
                producer.poll(0.1)
    assert producer.flush(120) == 0


class Steady:
    """A thread that sends requests at a steady rate while its block runs."""

    def __init__(
        self, servers: str, topic: str, requests: Iterator[tuple[bytes, bytes]], rate: int
    ) -> None:
        self._producer = _producer(servers, **{"linger.ms": 0})
        self._topic = topic
        self._requests = requests
        self._rate = rate
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Send no more; returns when all is acknowledged."""
        self._stopping.set()
        self._thread.join()
        assert self._producer.flush(60) == 0

    def _run(self) -> None:
        began = time.monotonic()
        sent = 0
        while not self._stopping.wait(TICK_SECONDS):
            due = int((time.monotonic() - began) * self._rate)
            for key, value in itertools.islice(self._requests, due - sent):
                self._producer.produce(self._topic, value, key)
            sent = due
            self._producer.poll(0)


def _producer(servers: str, **properties: object) -> Producer:
    return Producer(
        {
            "bootstrap.servers": servers,
            "partitioner": "murmur2_random",
            "log_level": 0,
            **properties,
        }
    )
