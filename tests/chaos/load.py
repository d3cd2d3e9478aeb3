"""The requests of a chaos run: a steady stream with real keys, and one in a hundred is no request."""

import threading
import time
from random import Random
from typing import Self

import pyarrow.parquet as pq
from confluent_kafka import Producer

from tests.poison import POISON
from tests.traffic import good_request, request_producer
from trainer.dataset import load_dataset, shipped_datasets

POISONED = 0.01
LARGEST = 4_096
"""Bytes of a poisoned request, at most: the log is not what is tried."""

SLOWED = 0.2
"""Of the rate, while a fault is awaited: the stream goes on, and does not run away from the schedule."""

FLUSH_SECONDS = 120.0
BROKEN_OFF_SECONDS = 5.0
"""How long acknowledgements are awaited where the run is broken off, and nobody judges it."""

GOOD_START = good_request(0, "a")[:16]


def real_keys() -> list[bytes]:
    """The keys of all series of the shipped panel."""
    file = load_dataset(shipped_datasets() / "online_retail.toml")
    rows = pq.read_table(file.source, columns=list(file.dataset.keys)).to_pylist()
    return sorted({"|".join(row.values()).encode() for row in rows})


class Load:
    """A thread that sends ``count`` requests at a rate while its block runs.

    None of ``tests.poison`` is a request for ``tests.bundles``. Which requests are poisoned follows from
    the seed.
    """

    def __init__(self, servers: str, topic: str, count: int, rate: float, seed: int) -> None:
        self.sent = 0
        self.poisoned = 0
        self.is_slowed = False
        self.limit = count
        """No more than this many are sent for now."""
        self._servers = servers
        self._topic = topic
        self._count = count
        self._rate = rate
        self._random = Random(f"{seed}: load")
        self._keys = real_keys()
        self._random.shuffle(self._keys)
        self._poison = [each for each in POISON if len(each.make(0) or b"") <= LARGEST]
        self._unsent = 0
        self._patience = FLUSH_SECONDS
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def is_over(self) -> bool:
        """Whether all is sent."""
        return self.sent >= self._count

    @property
    def least_seconds(self) -> float:
        """How long all of it takes where no fault slows it."""
        return self._count / self._rate

    def seconds_left(self) -> float:
        """A limit for the rest, amply."""
        return 60.0 + 3.0 * (self._count - self.sent) / self._rate

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Send no more; returns when all is acknowledged, or soon where the block failed."""
        if kind is not None:
            self._patience = BROKEN_OFF_SECONDS
        self._stopping.set()
        self._thread.join()
        assert kind is not None or self._unsent == 0, f"{self._unsent} requests not acknowledged"

    def _run(self) -> None:
        producer = request_producer(self._servers)
        due = 0.0
        then = time.monotonic()
        while not self._stopping.wait(0.01) and not self.is_over:
            now = time.monotonic()
            due += (now - then) * self._rate * (SLOWED if self.is_slowed else 1.0)
            then = now
            due = min(due, self.limit, self._count)
            while self.sent < due and not self._stopping.is_set():
                self._send(producer)
            producer.poll(0)
        self._unsent = producer.flush(self._patience)

    def _send(self, producer: Producer) -> None:
        value, key = self._next(), self._keys[self.sent % len(self._keys)]
        while not self._stopping.is_set():
            try:
                producer.produce(self._topic, value, key)
            except BufferError:
                producer.poll(0.1)
            else:
                self.sent += 1
                return

    def _next(self) -> bytes | None:
        if self._random.random() < POISONED:
            self.poisoned += 1
            return self._random.choice(self._poison).make(self.sent)
        return good_request(self.sent, "ab"[self.sent % 2])
