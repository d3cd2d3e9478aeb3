"""Where a group that has committed nothing starts to answer.

A group without offsets is new, or its offsets were lost (they expired, the group was deleted, the
cluster was restored). Only the answers tell which: with committed results or rejections it would
answer requests a second time from the earliest on, or leave some out from the latest on. So it is not
guessed; whoever starts the group says which.
"""

import time
from enum import StrEnum

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from adapters.kafka import client_config, explain, open_client, require_topics, topic_names
from adapters.settings import Settings
from adapters.stream_config import group_of
from schemas.errors import ModelwireError, RefusedByRule

ASK_SECONDS = 10.0


class Start(StrEnum):
    """The end of the request topic from which a group without offsets answers."""

    EARLIEST = "earliest"
    LATEST = "latest"


def settle_start(settings: Settings, model: str, start: Start | None) -> bool:
    """See to it that the group knows where to start; True where ``start`` was put to use.

    A group with offsets goes on from them, whatever ``start`` says. Raises RefusedByRule for one
    without offsets where answers stand already and ``start`` is None.
    """
    names = topic_names(settings, model)
    partitions = range(require_topics(settings, [names.requests])[names.requests])
    requests = [TopicPartition(names.requests, partition) for partition in partitions]
    consumer: Consumer = open_client(
        Consumer,
        client_config(
            settings,
            **{
                "group.id": group_of(model),
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "enable.partition.eof": True,
                "auto.offset.reset": "earliest",
                "fetch.wait.max.ms": 10,
            },
        ),
    )
    try:
        if _has_offsets(consumer, requests):
            return False
        if start is None:
            answered = _has_records(consumer, settings, [names.results, names.rejections])
            # Looked for again: a peer's first commit may have come between the two looks.
            if answered and not _has_offsets(consumer, requests):
                raise RefusedByRule(
                    f"group {group_of(model)} has no committed offsets, but {names.results} or "
                    f"{names.rejections} hold answers: starting anywhere may double or lose some",
                    hint="say where to start: --from earliest (answers everything that is kept "
                    "again) or --from latest (answers only what comes from now on)",
                )
            return False
        _place(consumer, requests, start)
        return True
    except KafkaException as error:
        raise explain(
            error.args[0], "find where the group starts", settings.kafka.bootstrap_servers
        ) from error
    finally:
        consumer.close()


def _has_offsets(consumer: Consumer, requests: list[TopicPartition]) -> bool:
    found = consumer.committed(requests, timeout=ASK_SECONDS)
    for each in found:
        if each.error is not None:
            raise KafkaException(each.error)
    return any(each.offset >= 0 for each in found)


def _has_records(consumer: Consumer, settings: Settings, topics: list[str]) -> bool:
    """Whether any committed record stands in the topics; watermarks count aborted ones too."""
    pending = {
        (topic, partition)
        for topic, count in require_topics(settings, topics).items()
        for partition in range(count)
    }
    consumer.assign([TopicPartition(*place, 0) for place in pending])
    deadline = time.monotonic() + ASK_SECONDS
    while pending:
        message = consumer.poll(0.1)
        if message is None:
            if time.monotonic() > deadline:
                raise ModelwireError("the topics of answers could not be read to their end")
            continue
        error = message.error()
        if error is None:
            return True
        if error.code() != KafkaError._PARTITION_EOF:
            raise KafkaException(error)
        pending.discard((str(message.topic()), int(message.partition() or 0)))
    return False


def _place(consumer: Consumer, requests: list[TopicPartition], start: Start) -> None:
    for each in requests:
        low, high = consumer.get_watermark_offsets(each, timeout=ASK_SECONDS)
        each.offset = low if start is Start.EARLIEST else high
    try:
        consumer.commit(offsets=requests, asynchronous=False)
    except KafkaException as error:
        code = error.args[0].code()
        if code in (KafkaError.UNKNOWN_MEMBER_ID, KafkaError.ILLEGAL_GENERATION):
            return  # another instance placed them in between, and answers already
        raise
