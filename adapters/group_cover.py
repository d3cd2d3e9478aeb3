"""What a group has left uncovered: partitions of a topic that no member of it was given.

A group gives partitions out when somebody joins it anew, or when a member sees the topic grow. A static
member that comes back within its session does neither: it is handed what it had. So partitions that were
added while it was away stay with nobody (measured: until the next rebalance, and requests in them wait as
long). The member that comes back can see it, by asking:

1. It asks once what it was handed has stood for a moment, and anew with each change of it.
2. A gap counts that was seen twice, some seconds apart, with every member's partitions the same: between
   the two phases of a rebalance a group is stable too, and what moves is nobody's.
3. What counts is given out by leaving and joining again, which is done once: whoever joins anew gets the
   group to give everything out.

The asking is ``assignment_of``, the rules are ``Cover``; leaving is for ``request_stream``.
"""

from collections.abc import Collection
from dataclasses import dataclass

from confluent_kafka import ConsumerGroupState, KafkaError
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # its stubs do not export it
    ConsumerGroupDescription,
)

from adapters.kafka import admin
from adapters.settings import Settings

FIRST_SECONDS = 1.0
"""After a change of the assignment, until the group is looked at."""

BETWEEN_SECONDS = 3.0
"""Between two looks at a gap. From one phase of a rebalance to the next takes a member as long as the
turn that it is in, and its commit."""

FAILED_SECONDS = 10.0
"""After a look that failed, until the next one."""

LOOK_SECONDS = 2.0
"""Limit of one question to the broker: the answering loop waits for it."""

Assignment = frozenset[tuple[str, int]]
"""Which member has which partitions: pairs of a member's id and a partition."""


def assignment_of(settings: Settings, group: str, topic: str) -> Assignment | None:
    """Who has which partitions of ``topic``.

    None while the group is giving partitions out, when nothing can be said. Raises ModelwireError.
    """
    with admin(settings) as asked:
        futures = asked.client.describe_consumer_groups([group], request_timeout=LOOK_SECONDS)
        answer: ConsumerGroupDescription | KafkaError = asked.results(futures)[group]
        if isinstance(answer, KafkaError):
            raise asked.explain(answer, f"describe the group {group}")
    if answer.state is not ConsumerGroupState.STABLE:
        return None
    return frozenset(
        (member.member_id, place.partition)
        for member in answer.members
        if member.assignment is not None
        for place in member.assignment.topic_partitions
        if place.topic == topic
    )


@dataclass(frozen=True)
class Gap:
    """Partitions that nobody has, while the others were given out like this."""

    left: frozenset[int]
    given: Assignment


class Cover:
    """When to look at the group, and what a look means. Times are readings of one clock in seconds."""

    def __init__(self) -> None:
        self._due: float | None = None
        self._seen: Gap | None = None

    def begin(self, now: float) -> None:
        """A member that may have been away has joined."""
        self._due = now + FIRST_SECONDS
        self._seen = None

    def changed(self, now: float) -> None:
        """What the member was given changed, and may change on."""
        if self._due is not None:
            self.begin(now)

    def end(self) -> None:
        """Look no more."""
        self._due = None

    def is_due(self, now: float) -> bool:
        """Whether the group should be looked at."""
        return self._due is not None and now >= self._due

    def failed(self, now: float) -> None:
        """The group could not be looked at."""
        self._seen = None
        self._due = now + FAILED_SECONDS

    def found(
        self, given: Assignment | None, partitions: Collection[int], now: float
    ) -> frozenset[int]:
        """What must be given out anew, as of a look; empty for nothing, or nothing yet.

        ``partitions`` are all of the topic, ``given`` is as ``assignment_of`` gives it.
        """
        if given is None:
            self.begin(now)
            return frozenset()
        left = frozenset(partitions) - {partition for _, partition in given}
        gap = Gap(left, given)
        if left and gap != self._seen:
            self._seen = gap
            self._due = now + BETWEEN_SECONDS
            return frozenset()
        self.end()
        return left
