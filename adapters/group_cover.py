"""What a group has left uncovered: partitions of a topic that no member of it was given.

A group gives partitions out when somebody joins it anew, or when a member sees the topic grow. A static
member that comes back within its session does neither: it is handed what it had. So partitions that were
added while it was away stay with nobody (measured: until the next rebalance, and requests in them wait as
long). The member that comes back can see it, by asking.
"""

from confluent_kafka import ConsumerGroupState, KafkaError
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # its stubs do not export it
    ConsumerGroupDescription,
)

from adapters.kafka import ANSWER_LIMIT_SECONDS, admin, require_topics
from adapters.settings import Settings


def uncovered(settings: Settings, group: str, topic: str) -> frozenset[int] | None:
    """The partitions of ``topic`` that no member of ``group`` has.

    None while the group is giving partitions out, when nothing can be said. Raises ModelwireError.
    """
    with admin(settings) as asked:
        futures = asked.client.describe_consumer_groups(
            [group], request_timeout=ANSWER_LIMIT_SECONDS
        )
        answer: ConsumerGroupDescription | KafkaError = asked.results(futures)[group]
    if isinstance(answer, KafkaError):
        raise asked.explain(answer, f"describe the group {group}")
    if answer.state is not ConsumerGroupState.STABLE:
        return None
    given = {
        place.partition
        for member in answer.members
        if member.assignment is not None
        for place in member.assignment.topic_partitions
        if place.topic == topic
    }
    return frozenset(range(require_topics(settings, [topic])[topic])) - given
