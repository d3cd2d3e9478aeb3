"""The request stream: requests in, answers and offsets out, in one Kafka transaction.

This is the edge that the exactly-once loop stands on; the order of its calls is for ``consumer``. In here
is the group's side; the transactional producer is in ``answer_writer``, errors are in ``stream_calls``.

1. The consumer reads only what is committed, stores no offsets by itself, and belongs to its group by
   the classic protocol (cooperative-sticky). A static member has a stable name: a restarted slot gets its
   partitions back at once.
2. An offset is committed with a stamp beside it. On assignment both come from the same answer of the
   broker, and a record is read only once they are known. The broker keeps them back while a transaction
   that has offsets of the partition is open, such as that of a peer that died: then the partition is
   *unsettled*. It is asked for again and again, and the others are answered meanwhile.
3. ``leave`` is an explicit leave, also of a static member (measured: librdkafka sends LeaveGroup on
   ``unsubscribe``, and does not for a static member on ``close``). ``close`` leaves a static member's
   place in the group until its session times out, so that a restart costs no rebalance.
4. Records that come while it leaves are dropped: whoever gets their partitions begins at what is
   committed. So a leave that does not end with all partitions given up ends the process, which would go
   on behind what was dropped.
5. Nothing here is unbounded: the queue has a limit in bytes.
6. What does not pass by itself ends the process, with what to do: a permission that is lacking, a
   session that the broker does not take.
7. A static member that comes back looks whether partitions were added while it was away, and has the
   group give them out (``adapters.group_cover``). Never in a transaction: the looking takes a while, and
   the leaving commits.
"""

import random
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import structlog
from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from adapters.answer_writer import AnswerWriter, Forecast, MustAbort
from adapters.group_cover import LOOK_SECONDS, Cover, assignment_of
from adapters.kafka import NotPermitted, open_client, topic_names
from adapters.settings import Membership, Settings
from adapters.stream_calls import CALL_SECONDS, PAUSE_SECONDS, Calls, StreamFailed, is_final
from adapters.stream_config import consumer_config, group_of
from adapters.unsettled import Unsettled
from schemas.errors import ModelwireError
from schemas.rejection import Headers

__all__ = [
    "Committed",
    "Fetched",
    "Listener",
    "MustAbort",
    "RequestStream",
    "StreamFailed",
]

log = structlog.get_logger()


SETTLED_SECONDS = 0.5
"""How long the broker is given to say what is committed of all partitions that were assigned."""

PROBE_SECONDS = 0.1
"""And of a single one of them, where it did not."""

PROBES = 8
"""Partitions that are asked for one by one at a time."""


@dataclass(frozen=True)
class Committed:
    """What the group committed of a partition: the next offset, and the stamp beside it (or "")."""

    offset: int
    stamp: str


class Fetched(Protocol):
    """A record as ``fetch`` gives it: a Kafka message that is no error. Called a few times a request."""

    def topic(self) -> str:
        """The request topic."""
        ...

    def partition(self) -> int:
        """Its partition."""
        ...

    def offset(self) -> int:
        """Its offset there."""
        ...

    def timestamp(self) -> tuple[int, int]:
        """The kind of time, and the time in milliseconds since 1970 (UTC)."""
        ...

    def key(self) -> bytes | None:
        """The caller's key."""
        ...

    def value(self) -> bytes | None:
        """The request; None for a tombstone."""
        ...


class Listener(Protocol):
    """Hears, from within ``fetch``, ``leave`` and ``close``, how the assignment changes."""

    def assigned(self, found: Mapping[int, Committed]) -> Collection[int]:
        """Partitions that are ours now; returns those that must not be read yet."""
        ...

    def revoked(self, partitions: Collection[int]) -> None:
        """Partitions that will go to somebody else once this returns."""
        ...

    def lost(self, partitions: Collection[int]) -> None:
        """Partitions that went to somebody else already."""
        ...


class RequestStream:
    """One instance's place in the group, and its transactional producer.

    Not thread-safe: the answering loop calls it. ``give_up`` is asked while a call is repeated; True
    ends the repeating with StreamFailed.
    """

    def __init__(
        self,
        settings: Settings,
        model: str,
        instance: str,
        listener: Listener,
        give_up: Callable[[], bool],
    ) -> None:
        self._topics = topic_names(settings, model)
        self._settings = settings
        self._group = group_of(model)
        self._is_static = settings.consumer.membership is Membership.STATIC
        self._listener = listener
        self._calls = Calls(settings, model, instance, give_up)
        self._writer = AnswerWriter(
            settings, model, instance, self._calls, lambda: self._consumer.consumer_group_metadata()
        )
        self.record_limit = self._writer.record_limit
        """The largest answer in bytes, of what the topics of answers take."""
        self._failure: ModelwireError | None = None
        self._assigned: set[int] = set()
        self._unsettled = Unsettled()
        self._cover = Cover()
        self._consumer: Consumer = open_client(Consumer, consumer_config(settings, model, instance))

    def open(self) -> None:
        """Fence older processes of this name, and abort what they left open."""
        self._writer.open()

    def join(self) -> None:
        """Become a member of the group; partitions come by the listener."""
        if self._is_static:
            self._cover.begin(time.monotonic())
        self._subscribe()

    def leave(self, limit_seconds: float) -> None:
        """Give up all partitions and the place in the group; ``join`` may follow.

        Raises StreamFailed where that takes longer than the limit.
        """
        if not self._let_go(limit_seconds):
            raise StreamFailed(
                f"the group {self._group} could not be left: after {limit_seconds:g} s partitions "
                f"{', '.join(map(str, sorted(self._assigned)))} were not given up",
                hint="start again; others get the partitions once the session has timed out",
            )

    def close(self) -> None:
        """Commit (by the listener) and close; returns within milliseconds where a broker answers."""
        if not self._is_static:
            # ``close`` would leave too, but a process that ends right after it may not get to say so.
            self._let_go(CALL_SECONDS)
        try:
            self._consumer.close()
            self._raise_failure()
            self._writer.close()
        except KafkaException as error:
            raise self._calls.failed(error.args[0], "close the stream") from error

    # --- requests

    def fetch(self, limit: int, wait_seconds: float, fill_seconds: float) -> list[Fetched]:
        """Up to ``limit`` records: waits for the first one, then a while for the batch to fill."""
        now = time.monotonic()
        if self._cover.is_due(now):
            self._see_to_cover()
        if self._unsettled.is_due(now):
            self._settle()
        messages = self._consume(1, wait_seconds)
        if messages and limit > 1:
            messages += self._consume(limit - 1, fill_seconds)
        self._raise_failure()
        if any(map(Message.error, messages)):
            messages = [message for message in messages if not self._judge_fetched(message)]
        return cast(list[Fetched], messages)

    def seek(self, positions: Mapping[int, int]) -> None:
        """Fetch these partitions, which are assigned, from these offsets. Raises StreamFailed."""
        for partition, offset in positions.items():
            try:
                self._consumer.seek(TopicPartition(self._topics.requests, partition, offset))
            except KafkaException as error:
                raise self._calls.failed(
                    error.args[0], "go back to the committed offset"
                ) from error

    def pause(self, partitions: Collection[int]) -> None:
        """Fetch nothing of these partitions for now."""
        self._consumer.pause(self._request_partitions(partitions))

    def resume(self, partitions: Collection[int]) -> None:
        """Fetch these partitions again."""
        self._consumer.resume(self._request_partitions(partitions))

    def lag(self, positions: Mapping[int, int]) -> int | None:
        """How many offsets of these partitions lie ahead, as of the last fetch; never asks the broker.

        None while an end is not known. Markers of callers' transactions count too.
        """
        ahead = 0
        for place in self._request_partitions(positions):
            try:
                ends = self._consumer.get_watermark_offsets(place, cached=True)
            except KafkaException:
                return None
            if ends is None or ends[1] < 0:
                return None
            ahead += max(ends[1] - positions[place.partition], 0)
        return ahead

    # --- answers

    def begin(self) -> None:
        """Open a transaction. Raises StreamFailed."""
        self._writer.begin()

    def produce_forecasts(self, forecasts: Iterable[Forecast]) -> list[int]:
        """Hand over forecasts; the result are the places of those that are too large for their topic.

        Raises MustAbort, StreamFailed.
        """
        return self._writer.produce_forecasts(forecasts)

    def produce_rejection(self, key: bytes | None, value: bytes, headers: Headers) -> None:
        """Hand over a rejection. Raises TooLargeForTopic, MustAbort, StreamFailed."""
        self._writer.produce_rejection(key, value, headers)

    def serve(self) -> None:
        """Hear what went wrong with the producer. Raises StreamFailed."""
        self._writer.serve()

    def commit(self, offsets: Mapping[int, int], stamp: str) -> None:
        """Commit the transaction with the next offsets. Raises MustAbort, StreamFailed."""
        self._writer.commit(offsets, stamp)

    def abort(self) -> None:
        """Undo the transaction. Raises StreamFailed."""
        self._writer.abort()

    # --- the assignment

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        paused: Collection[int] = [each.partition for each in partitions]
        found: dict[int, Committed] = {}
        try:
            if partitions:
                found = self._read_settled(partitions)
                self._unsettled.found(paused, found, time.monotonic())
                waiting = self._listener.assigned(found)
                paused = {*self._unsettled.partitions, *waiting}.intersection(paused)
        except ModelwireError as error:
            self._failure = error  # an exception must not pass through librdkafka's callback
        self._assigned.update(each.partition for each in partitions)
        self._cover.changed(time.monotonic())
        for each in partitions:
            held = found.get(each.partition)
            each.offset = OFFSET_BEGINNING if held is None else _first_of(held)
        consumer.incremental_assign(partitions)
        if paused:
            self.pause(paused)

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._give_back(consumer, partitions, self._listener.revoked)

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._give_back(consumer, partitions, self._listener.lost)

    def _give_back(
        self,
        consumer: Consumer,
        partitions: list[TopicPartition],
        tell: Callable[[Collection[int]], None],
    ) -> None:
        numbers = [each.partition for each in partitions]
        try:
            tell(numbers)
        except ModelwireError as error:
            self._failure = error
        self._assigned.difference_update(numbers)
        self._unsettled.forget(numbers)
        self._cover.changed(time.monotonic())
        consumer.incremental_unassign(partitions)

    def _settle(self) -> None:
        """Take over those of the unsettled partitions whose offsets are known now."""
        asked = random.sample(sorted(self._unsettled.partitions), k=self._unsettled.count(PROBES))
        found = self._probe(self._request_partitions(asked))
        complaint = self._unsettled.found(asked, found, time.monotonic())
        if complaint:
            log.warning("partitions.unsettled", **complaint)
        if not found:
            return
        waiting = self._listener.assigned(found)
        self.seek({partition: _first_of(held) for partition, held in found.items()})
        self.resume([partition for partition in found if partition not in waiting])

    def _read_settled(self, partitions: Sequence[TopicPartition]) -> dict[int, Committed]:
        """What is committed of those partitions for which the broker says it at once."""
        found = self._ask_settled(partitions, SETTLED_SECONDS)
        return self._probe(partitions[:PROBES]) if found is None else found

    def _probe(self, partitions: Sequence[TopicPartition]) -> dict[int, Committed]:
        one_by_one = [self._ask_settled([each], PROBE_SECONDS) for each in partitions]
        return {place: held for found in one_by_one if found for place, held in found.items()}

    def _ask_settled(
        self, partitions: Sequence[TopicPartition], seconds: float
    ) -> dict[int, Committed] | None:
        try:
            with self._calls.watching("read the committed offsets"):
                return self._ask_committed(partitions, seconds)
        except KafkaException as error:
            if is_final(error.args[0]):
                raise self._calls.failed(error.args[0], "read the committed offsets") from error
            return None

    def _ask_committed(
        self, partitions: Sequence[TopicPartition], seconds: float
    ) -> dict[int, Committed]:
        answers = self._consumer.committed(list(partitions), timeout=seconds)
        for answer in answers:
            if answer.error is not None:
                raise KafkaException(answer.error)
        return {
            answer.partition: Committed(max(answer.offset, 0), answer.metadata or "")
            for answer in answers
        }

    def _subscribe(self) -> None:
        self._consumer.subscribe(
            [self._topics.requests],
            on_assign=self._on_assign,
            on_revoke=self._on_revoke,
            on_lost=self._on_lost,
        )

    def _let_go(self, limit_seconds: float) -> bool:
        """Leave the group; whether all partitions were given up within the limit."""
        self._consumer.unsubscribe()
        deadline = time.monotonic() + limit_seconds
        while self._assigned and time.monotonic() < deadline:
            self._consume(1, PAUSE_SECONDS)
            self._raise_failure()
        self._consume(1, PAUSE_SECONDS)
        return not self._assigned

    def _see_to_cover(self) -> None:
        """Leave and join again where partitions are nobody's: only a join has them given out."""
        if self._writer.in_transaction or not self._assigned:
            return
        try:
            with self._calls.watching("look for partitions that nobody has"):
                given = assignment_of(self._settings, self._group, self._topics.requests)
                partitions = self._known_partitions()
        except NotPermitted as error:
            self._cover.end()
            log.warning("group.not_described", problem=error.message)
            return
        except ModelwireError as error:
            self._cover.failed(time.monotonic())
            log.warning("group.not_described", problem=error.message)
            return
        left = self._cover.found(given, partitions, time.monotonic())
        if left:
            log.warning("group.uncovered", partitions=sorted(left))
            self.leave(CALL_SECONDS)
            self._subscribe()

    def _known_partitions(self) -> Collection[int]:
        requests = self._topics.requests
        try:
            found = self._consumer.list_topics(requests, LOOK_SECONDS).topics[requests]
        except KafkaException as error:
            raise self._calls.failed(error.args[0], f"look at {requests}") from error
        return tuple(found.partitions)

    # --- errors

    # Without an error callback the client raises a fatal error from whichever call serves its events.

    def _consume(self, count: int, seconds: float) -> list[Message]:
        try:
            return self._consumer.consume(count, seconds)
        except KafkaException as error:
            raise self._calls.failed(error.args[0], "read requests") from error

    def _judge_fetched(self, message: Message) -> bool:
        """Whether the fetched thing is an error and no record; raises for one that ends the stream."""
        error = message.error()
        if error is None:
            return False
        if is_final(error):
            raise self._calls.failed(error, "read requests")
        if error.code() == KafkaError.INVALID_SESSION_TIMEOUT:
            raise StreamFailed(
                "the broker does not take a session of "
                f"{self._settings.consumer.session_timeout_ms} ms",
                hint="set consumer.session_timeout_ms between the broker's "
                "group.min.session.timeout.ms and group.max.session.timeout.ms",
            )
        partition = message.partition()
        if error.code() == KafkaError._AUTO_OFFSET_RESET and partition is not None:
            self._mend_position(partition)
        else:
            log.warning("stream.read_error", error=error.name(), detail=error.str())
        return True

    def _mend_position(self, partition: int) -> None:
        """The broker has nothing at our offset: requests expired, or the topic was made anew."""
        place = TopicPartition(self._topics.requests, partition)
        committed = self._calls.repeat(
            "read the committed offsets",
            lambda timeout: self._ask_committed([place], timeout)[partition].offset,
            every_error=True,
        )
        low, high = self._calls.repeat(
            "find the ends of the request topic",
            lambda timeout: self._consumer.get_watermark_offsets(place, timeout=timeout),
            every_error=True,
        )
        if committed > high:
            raise StreamFailed(
                f"the group has answered {self._topics.requests}[{partition}] up to offset "
                f"{committed}, and the topic ends at {high}: it was made anew",
                hint="delete the group's offsets of that topic, then start with --from earliest",
            )
        log.error("stream.requests_expired", partition=partition, first=committed, next=low)
        self.seek({partition: low})

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _request_partitions(self, partitions: Collection[int]) -> list[TopicPartition]:
        return [TopicPartition(self._topics.requests, partition) for partition in partitions]


def _first_of(held: Committed) -> int:
    """Where reading goes on; from offset 0 it is the first one that there is."""
    return held.offset or OFFSET_BEGINNING
