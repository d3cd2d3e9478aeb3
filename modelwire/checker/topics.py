"""Reads the topics of a stream from a broker and has them checked."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from modelwire.checker.report import Record, Report
from modelwire.checker.stream import StreamCheck

SILENCE_SECONDS = 30.0
"""A broker that gives neither a record nor an end for this long is taken to be unreachable."""

CONNECT_SECONDS = 10.0
POLL_SECONDS = 0.1


class StreamUnreadable(Exception):
    """A topic could not be read to its end."""


@dataclass(frozen=True)
class Topics:
    """What to read. Without a control log, versions are counted, and neither they nor variants judged."""

    requests: str
    results: str
    rejections: str
    control: str | None = None


def check_topics(config: Mapping[str, Any], topics: Topics, *, wait_seconds: float = 0.0) -> Report:
    """The report on topics of a broker, read with read_committed.

    ``config`` holds librdkafka properties that say how to connect. Answers are awaited for up to
    ``wait_seconds`` while a due request has none. Raises StreamUnreadable.
    """
    deadline = time.monotonic() + wait_seconds
    with (
        _TopicReader(config, topics.requests) as requests,
        _TopicReader(config, topics.results) as results,
        _TopicReader(config, topics.rejections) as rejections,
    ):
        stream = StreamCheck(
            topics.requests,
            same_partitions=requests.partitions == results.partitions,
            first_held=requests.first_offsets(),
        )
        _take_control(config, topics, stream)
        for record in requests.to_end():
            stream.take_request(record)
        while True:
            for record in results.to_end():
                stream.take_forecast(record)
            for record in rejections.to_end():
                stream.take_rejection(record)
            if not stream.unanswered or time.monotonic() >= deadline:
                break
            if stream.is_behind:
                _take_control(config, topics, stream)
            time.sleep(POLL_SECONDS)
        if stream.orphans:
            for record in requests.to_end():
                stream.take_request(record, due=False)
    _take_control(config, topics, stream)
    return stream.report()


def _take_control(config: Mapping[str, Any], topics: Topics, stream: StreamCheck) -> None:
    """The whole control log as it is now, where there is one."""
    if topics.control is not None:
        with _TopicReader(config, topics.control) as control:
            stream.take_control(record.value or b"" for record in control.to_end())


class _TopicReader:
    """Reads every partition of a topic to its present end, and on from there when asked again.

    The end is the first PARTITION_EOF after an assignment: comparing positions with the high
    watermark would hang while a transaction is open.
    """

    def __init__(self, config: Mapping[str, Any], topic: str) -> None:
        self._topic = topic
        self._consumer = Consumer(
            {
                **config,
                "group.id": "modelwire-verify-stream",  # demanded by the client, never joined
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "error",
                "fetch.wait.max.ms": 10,
            }
        )
        try:
            self._positions = dict.fromkeys(self._find_partitions(), OFFSET_BEGINNING)
        except StreamUnreadable:
            self._consumer.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._consumer.close()

    @property
    def partitions(self) -> int:
        """How many the topic has."""
        return len(self._positions)

    def first_offsets(self) -> dict[int, int]:
        """Partition -> the first offset that retention has left."""
        return {number: self._first_offset(number) for number in self._positions}

    def _first_offset(self, number: int) -> int:
        deadline = time.monotonic() + CONNECT_SECONDS
        while True:
            try:
                first, _ = self._consumer.get_watermark_offsets(
                    TopicPartition(self._topic, number), timeout=1.0
                )
                return first
            except TypeError:  # None, which the stubs do not know: no answer in time
                problem = "the broker does not answer"
            except KafkaException as error:  # a partition that was just made has no leader yet
                problem = error.args[0].str()
            if time.monotonic() > deadline:
                raise StreamUnreadable(f"{self._topic}: {problem}")
            time.sleep(POLL_SECONDS)

    def to_end(self) -> Iterator[Record]:
        """The records from where the last call ended to the end of each partition as it is now."""
        self._consumer.assign(
            [TopicPartition(self._topic, number, at) for number, at in self._positions.items()]
        )
        unfinished: set[int | None] = {*self._positions}
        heard = time.monotonic()
        while unfinished:
            batch = self._consumer.consume(1_000, POLL_SECONDS)
            if batch:
                heard = time.monotonic()
            elif time.monotonic() - heard > SILENCE_SECONDS:
                raise StreamUnreadable(
                    f"{self._topic}: the broker has given neither a record nor an end for "
                    f"{SILENCE_SECONDS:.0f} s"
                )
            for message in batch:
                error = message.error()
                if error is None:
                    record = _record(message)
                    self._positions[record.partition] = record.offset + 1
                    yield record
                elif error.code() == KafkaError._PARTITION_EOF:
                    unfinished.discard(message.partition())
                elif not error.retriable() and error.code() not in _PASSING:
                    raise StreamUnreadable(f"{self._topic}: {error.str()}")

    def _find_partitions(self) -> list[int]:
        try:
            found = self._consumer.list_topics(self._topic, timeout=CONNECT_SECONDS)
        except KafkaException as error:
            raise StreamUnreadable(f"no broker answers: {error.args[0].str()}") from error
        topic = found.topics[self._topic]
        if topic.error is not None:
            raise StreamUnreadable(f"{self._topic}: {topic.error.str()}")
        return sorted(topic.partitions)


def _record(message: Message) -> Record:
    topic, partition, offset = message.topic(), message.partition(), message.offset()
    assert topic is not None
    assert partition is not None
    assert offset is not None
    headers = message.headers() or []
    assert isinstance(headers, list)
    return Record(
        topic,
        partition,
        offset,
        message.timestamp()[1],
        message.key(),
        message.value(),
        tuple((name, _bytes(value)) for name, value in headers),
    )


def _bytes(header: str | bytes | None) -> bytes:
    return header.encode() if isinstance(header, str) else header or b""


_PASSING = (KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._TIMED_OUT)
"""Errors after which the client goes on by itself; the silence limit ends what does not pass."""
