"""How the clients of the request stream, and of its shadow, are configured.

What the exactly-once loop rests on cannot be set from outside; what only trades latency for throughput
has a default here that ``kafka.properties`` may override.
"""

from collections.abc import Mapping
from typing import Any

from adapters.kafka import client_config, read_batch_limits, topic_names
from adapters.settings import Membership, Settings
from adapters.topics import answer_limit
from schemas.errors import Conflict

BATCH_OVERHEAD = 1_024
"""What a batch adds to its records (61 bytes of header, the framing), generously."""

LEAST_RECORD_LIMIT = 8_192
"""Room for a rejection without the request's bytes: its headers, an envelope."""


def group_of(model: str) -> str:
    """The consumer group that answers a model's requests."""
    return f"modelwire-{model}"


def record_limit(settings: Settings) -> int:
    """The largest answer that is produced, in bytes: below what the topics of answers take."""
    return answer_limit(settings) - BATCH_OVERHEAD


def taken_record_limit(settings: Settings, model: str) -> int:
    """The largest answer that the topics of answers take as they are now, at most ``record_limit``.

    Asks the broker; where this user may not see a topic's settings, ours stand. Raises Conflict where the
    topics take so little that not every rejection would fit, and ModelwireError.
    """
    names = topic_names(settings, model)
    limit = record_limit(settings)
    for topic, taken in read_batch_limits(settings, (names.results, names.rejections)).items():
        if taken - BATCH_OVERHEAD < LEAST_RECORD_LIMIT:
            raise Conflict(
                f"{topic} takes batches of at most {taken} bytes (max.message.bytes), which is too "
                "little for an answer that says why there is no forecast",
                hint=f"set its max.message.bytes to {answer_limit(settings)}",
            )
        limit = min(limit, taken - BATCH_OVERHEAD)
    return limit


def consumer_config(settings: Settings, model: str, instance: str) -> dict[str, Any]:
    """The consumer of requests, a member of the model's group."""
    consumer = settings.consumer
    static = consumer.membership is Membership.STATIC
    return client_config(
        settings,
        **_unless_set(
            settings,
            {
                "fetch.wait.max.ms": 20,
                # A partition whose queue is full is asked again after this, and the queue of one that is
                # read fast empties in a part of the second that librdkafka waits.
                "fetch.queue.backoff.ms": 10,
                "fetch.error.backoff.ms": 50,
                # A third of a second's requests at full speed; four times as much drained no faster and
                # took 30 MB more.
                "queued.max.messages.kbytes": 8_192,
                # What one answer of a broker may add to that queue, over all partitions. It counts as
                # it was sent: compressed requests are larger in memory.
                "fetch.max.bytes": 2_097_152,
                # Four batches. The limit in bytes counts values and no keys, so this one counts too.
                "queued.min.messages": 2_000,
                "topic.metadata.refresh.interval.ms": 5_000,
                **_RECONNECT,
            },
        ),
        **{
            "client.id": instance,
            "group.id": group_of(model),
            "group.protocol": "classic",
            "partition.assignment.strategy": "cooperative-sticky",
            "session.timeout.ms": consumer.session_timeout_ms,
            # A member hears of a rebalance at its next heartbeat, and what moves waits for that twice.
            "heartbeat.interval.ms": max(consumer.session_timeout_ms // 12, 250),
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            # A position that the broker does not have is an error to look into, never a jump.
            "auto.offset.reset": "error",
        },
        **({"group.instance.id": instance} if static else {}),
    )


def producer_config(settings: Settings, instance: str, limit: int) -> dict[str, Any]:
    """The transactional producer of answers of at most ``limit`` bytes."""
    return client_config(
        settings,
        **_unless_set(
            settings,
            {
                "linger.ms": 2,
                "compression.type": "lz4",
                # Back-to-back transactions hit one retry each, which waits this long.
                "retry.backoff.ms": 10,
                "queue.buffering.max.kbytes": 65_536,
                "topic.metadata.propagation.max.ms": 3_000,
                **_RECONNECT,
            },
        ),
        **{
            "client.id": instance,
            "transactional.id": instance,
            "transaction.timeout.ms": settings.consumer.transaction_timeout_ms,
            "enable.idempotence": True,
            "acks": "all",
            "delivery.report.only.error": True,
            # A record beyond the topic's limit fails its whole batch and breaks the sequence.
            "message.max.bytes": limit,
            "batch.size": limit,
        },
    )


def shadow_config(settings: Settings, instance: str) -> dict[str, Any]:
    """The best-effort producer of a shadow's answers: a small queue, and no long tries."""
    limit = record_limit(settings)
    return client_config(
        settings,
        **_unless_set(
            settings,
            {
                "linger.ms": 50,
                "compression.type": "lz4",
                "topic.metadata.refresh.interval.ms": 5_000,
                "topic.metadata.propagation.max.ms": 3_000,
                **_RECONNECT,
            },
        ),
        **{
            "client.id": f"{instance}-shadow",
            "enable.idempotence": False,
            "acks": 1,
            "message.timeout.ms": 5_000,
            "queue.buffering.max.messages": 20_000,
            "queue.buffering.max.kbytes": 16_384,
            "delivery.report.only.error": True,
            "message.max.bytes": limit,
            "batch.size": min(limit, 131_072),
        },
    )


_RECONNECT = {"reconnect.backoff.ms": 50, "reconnect.backoff.max.ms": 1_000}
"""librdkafka's 10 s would be the largest part of getting over a broker's restart."""


def _unless_set(settings: Settings, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Those of ``defaults`` that the settings' own properties do not name."""
    return {
        name: value for name, value in defaults.items() if name not in settings.kafka.properties
    }
