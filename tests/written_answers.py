"""Answers that are written to a model's topics without a consumer, and what the topics then hold.

They are written as consumers do it: many a transaction, some of which are aborted, so that offsets have
holes. What is read back is read without any code of ours.
"""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition

from adapters.answer_source import topics_of
from schemas.answer_file import Kind
from schemas.forecast import Forecast, Source, Variant, encode_forecast
from schemas.rejection import Rejection, rejection_headers
from tests.fleet import Harness

Kept = tuple[int, bytes | None, bytes | None, tuple[tuple[str, bytes | None], ...]]
"""Time in milliseconds, key, value, headers."""

ONE_IN_ABORTED = 7
BATCH = 64
ASKED_MS = 1_767_268_800_000
DIGEST = f"sha256:{'ab' * 32}"


class Scribe:
    """Writes answers in transactions. Each has an id that no other has."""

    def __init__(self, harness: Harness, name: str = "scribe", **properties: Any) -> None:
        self._model = harness.model
        self._names = harness.topics
        self._partitions = harness.settings.topics.partitions
        self._producer = Producer(
            {
                "bootstrap.servers": harness.settings.kafka.bootstrap_servers,
                "transactional.id": f"{harness.model}-{name}",
                "linger.ms": 2,
                "compression.type": "lz4",
                "log_level": 0,
                **properties,
            }
        )
        self._producer.init_transactions()
        self._number = 0
        self._transactions = 0

    def write(self, count: int, *, batch: int = BATCH) -> None:
        """Write so many forecasts and, for every tenth, a shadow's answer or a rejection beside it."""
        values = self._forecasts(batch)
        left = count
        while left > 0:
            size = min(batch, left)
            self._transactions += 1
            aborts = self._transactions % ONE_IN_ABORTED == 0
            self._producer.begin_transaction()
            for _ in range(size):
                self._put(next(values))
            if aborts:
                self._producer.flush()
                self._producer.abort_transaction()
            else:
                self._producer.commit_transaction()
                left -= size

    def abort(self, partition: int, count: int) -> None:
        """Write so many forecasts to a partition in a transaction that is aborted."""
        self._producer.begin_transaction()
        for _ in range(count):
            self._producer.produce(self._names.results, b"never", None, partition)
        self._producer.flush()
        self._producer.abort_transaction()

    def _put(self, value: bytes) -> None:
        number, names = self._number, self._names
        self._number += 1
        key, partition = b"series-%d" % (number % 211), number // BATCH % self._partitions
        self._producer.produce(names.results, value, key, partition)
        if number % 10 == 0:
            self._producer.produce(names.shadow, value, key, partition)
        if number % 10 == 5:
            request = b'{"request_id":"bad-%d","inputs":{}}' % number
            self._producer.produce(names.rejections, request, key, 0, headers=self._headers(number))
        self._producer.poll(0)

    def _forecasts(self, batch: int) -> Iterator[bytes]:
        version = 1
        while True:
            version = version % 3 + 1
            scored_at = datetime.now(UTC)
            for _ in range(batch):
                yield self._forecast(version, scored_at)

    def _forecast(self, version: int, scored_at: datetime) -> bytes:
        number = self._number
        asked = number * 7_919 % 3_000 + 20_000, number % 30 + 1, number % 40, number % 97
        return encode_forecast(
            Forecast(
                request_id=f"{self._model}-{number}",
                inputs=msgspec.Raw(
                    b'{"country":"France","stockcode":"%d","date":"2011-11-%02d","price":%d.%02d}'
                    % asked
                ),
                outputs={"units": number * 37 % 1_000 / 8, "units_p90": number * 41 % 1_000 / 8},
                model=self._model,
                version=version,
                digest=DIGEST,
                variant=Variant.CHAMPION,
                revision=version,
                source=Source(self._names.requests, number % self._partitions, number, ASKED_MS),
                scored_at=scored_at,
                instance=f"modelwire-{self._model}-0",
                runtime="onnxruntime 1.31.0 x86_64-avx2",
            )
        )

    def _headers(self, number: int) -> list[tuple[str, bytes]]:
        source = Source(self._names.requests, number % 4, number, ASKED_MS)
        return rejection_headers(
            Rejection(
                reason="missing-field",
                detail="units is missing",
                model=self._model,
                version=2,
                variant="champion",
                digest=DIGEST,
                revision=2,
                source=source,
                instance="modelwire-0",
                runtime="onnxruntime 1.31.0 x86_64-avx2",
            )
        )


def topics_hold(harness: Harness) -> dict[Kind, dict[tuple[int, int], Kept]]:
    """What is committed in each of the model's topics, by partition and offset."""
    return {
        kind: _holds(harness.settings.kafka.bootstrap_servers, topic)
        for kind, topic in topics_of(harness.settings, harness.model).items()
    }


def _holds(servers: str, topic: str) -> dict[tuple[int, int], Kept]:
    consumer = Consumer(
        {
            "bootstrap.servers": servers,
            "group.id": "test-answers",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
            "log_level": 0,
        }
    )
    try:
        unfinished = set(consumer.list_topics(topic, 30).topics[topic].partitions)
        consumer.assign([TopicPartition(topic, number, 0) for number in unfinished])
        found: dict[tuple[int, int], Kept] = {}
        while unfinished:
            for message in consumer.consume(5_000, 0.1):
                error = message.error()
                if error is None:
                    found[message.partition(), message.offset()] = (  # type: ignore[index]
                        message.timestamp()[1],
                        message.key(),
                        message.value(),
                        tuple(message.headers() or ()),
                    )
                else:
                    assert error.code() == KafkaError._PARTITION_EOF, error
                    unfinished.discard(message.partition())  # type: ignore[arg-type]
        return found
    finally:
        consumer.close()


def counts(held: Mapping[Kind, Mapping[tuple[int, int], Kept]]) -> dict[Kind, int]:
    """How many records of each kind."""
    return {kind: len(records) for kind, records in held.items()}
