"""Answer files made of what stands in a model's topics, as the sink would make them."""

from collections.abc import Iterator, Sequence
from datetime import date
from itertools import groupby

from confluent_kafka import Consumer, KafkaError, TopicPartition

from adapters.answer_files import AnswerStore, encode_file
from adapters.answer_rows import rows_of, unreadable_in
from adapters.answer_source import topics_of
from adapters.object_store import open_store
from adapters.settings import Settings
from schemas.answer_file import ContentHash, FileName, Footer, Kind, Record, day_of
from schemas.manifest import digest_of

FILE_ROWS = 200


def keep_answers(settings: Settings, model: str, *, rows: int = FILE_ROWS) -> list[FileName]:
    """Store files of all committed records, of ``rows`` records at most; each chain begins anew."""
    answers = AnswerStore(open_store(settings.audit_url, settings.s3_settings), model)
    stored = []
    for kind, topic in topics_of(settings, model).items():
        for partition, records in committed(settings.kafka.bootstrap_servers, topic).items():
            stored += chain(answers, kind, model, topic, partition, records, rows)
    return stored


def chain(
    answers: AnswerStore,
    kind: Kind,
    model: str,
    topic: str,
    partition: int,
    records: Sequence[Record],
    rows: int = FILE_ROWS,
) -> list[FileName]:
    """Store the files of these records, one after the other."""
    stored: list[FileName] = []
    previous, after = "", records[0].offset if records else 0
    for day, part in _parts(records, rows):
        name, content = file_of(
            kind, model, topic, partition, part, day, previous=previous, first=after
        )
        assert answers.put(name, content)
        previous, after = digest_of(content), part[-1].offset + 1
        stored.append(name)
    return stored


def file_of(
    kind: Kind,
    model: str,
    topic: str,
    partition: int,
    records: Sequence[Record],
    day: date,
    *,
    previous: str = "",
    first: int | None = None,
) -> tuple[FileName, bytes]:
    """The file of these records of one day, from ``first`` on; None: from that of the first record."""
    first = records[0].offset if first is None else first
    digest = ContentHash()
    digest.take(records)
    table = rows_of(kind, topic, partition, records)
    footer = Footer(
        kind=kind,
        model=model,
        topic=topic,
        partition=partition,
        first=first,
        next=records[-1].offset + 1,
        rows=len(records),
        content=digest.digest,
        previous=previous,
        unreadable=unreadable_in(table),
    )
    return FileName(kind, model, partition, first, day), encode_file(footer, [table])


def committed(servers: str, topic: str) -> dict[int, list[Record]]:
    """The committed records of each partition, to its end as it is now."""
    consumer = Consumer(
        {
            "bootstrap.servers": servers,
            "group.id": "test-keeper",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "log_level": 0,
        }
    )
    try:
        partitions = sorted(consumer.list_topics(topic, 30).topics[topic].partitions)
        found: dict[int, list[Record]] = {number: [] for number in partitions}
        consumer.assign([TopicPartition(topic, number, 0) for number in partitions])
        unfinished = set(partitions)
        while unfinished:
            for message in consumer.consume(1_000, 0.05):
                error = message.error()
                if error is None:
                    record = Record(
                        message.offset() or 0,
                        message.timestamp()[1],
                        message.key(),
                        message.value(),
                        tuple(message.headers() or ()),
                    )
                    found[message.partition() or 0].append(record)
                else:
                    assert error.code() == KafkaError._PARTITION_EOF, error
                    unfinished.discard(message.partition() or 0)
        return found
    finally:
        consumer.close()


def _parts(records: Sequence[Record], rows: int) -> Iterator[tuple[date, list[Record]]]:
    for day, of_day in groupby(records, lambda each: day_of(each.time_ms)):
        left = list(of_day)
        for first in range(0, len(left), rows):
            yield day, left[first : first + rows]
