"""The request stream: requests in, answers and offsets out, in one Kafka transaction.

This is the edge that the exactly-once loop stands on; the order of its calls is for ``consumer``.

1. The consumer reads only what is committed, stores no offsets by itself, and belongs to its group by
   the classic protocol (cooperative-sticky). A static member has a stable name, and so has its
   transactional id: a restarted slot gets its partitions back at once, and aborts what it left open.
2. An offset is committed with a stamp beside it. On assignment both come from the same answer of the
   broker, and a record is read only once they are known.
3. An error of the transaction is one of three: the same call again (done here), ``MustAbort``, or
   ``StreamFailed``, after which this object must not be used and the process ends. A commit in doubt
   is repeated or ends the process; it is never rewound.
4. ``leave`` is an explicit leave, also of a static member (measured: librdkafka sends LeaveGroup on
   ``unsubscribe``, and does not for a static member on ``close``). ``close`` leaves a static member's
   place in the group until its session times out, so that a restart costs no rebalance.
5. Nothing here is unbounded: both clients' queues have a limit in bytes.
6. What does not pass by itself ends the process, with what to do: a permission that is lacking, a
   session that the broker does not take, a topic that takes smaller records than it took at the start.
   Records are made as large as the topics took them when this object was made (``record_limit``).
7. A static member that comes back looks whether partitions were added while it was away, and has the
   group give them out (``adapters.group_cover``).
"""

import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol, TypeVar, cast

import structlog
from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)

from adapters.group_cover import uncovered
from adapters.kafka import FENCED, NOT_ALLOWED, explain, open_client, topic_names
from adapters.settings import Membership, Settings
from adapters.stream_config import (
    consumer_config,
    group_of,
    producer_config,
    taken_record_limit,
)
from adapters.watchdog import Watchdog
from schemas.errors import Conflict, ModelwireError
from schemas.rejection import Headers

CALL_SECONDS = 5.0
"""Limit of one call to the broker; a call that may be repeated is."""

STUCK_SECONDS = 12.0
"""A call that has not come back by then, long after its own limit, never will."""

PAUSE_SECONDS = 0.05
"""Between two attempts of a call that failed at once."""

NEW_PARTITION_SECONDS = 10.0
"""How long a partition of the results that the broker does not know yet is asked for."""

COMPLAINT_SECONDS = 5.0
"""Between two log lines of a call that goes on failing."""

COVER_SECONDS = 1.0
"""After an assignment to a static member, until it looks whether the group covers every partition."""

_BROKEN_SEQUENCE = frozenset(
    {KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER, KafkaError.UNKNOWN_PRODUCER_ID}
)
"""After these only a new producer can write to the partition."""

log = structlog.get_logger()
Result = TypeVar("Result")


class StreamFailed(ModelwireError):
    """The stream cannot go on in this process; a restart of the slot can."""


class PlaceTaken(StreamFailed):
    """Another process has this instance's place: of the two only one can go on."""

    exit_code = Conflict.exit_code


class MustAbort(Exception):
    """The transaction can only be aborted; its requests are to be answered again."""


class TooLargeForTopic(Exception):
    """The record is beyond the producer's limit; the transaction is still good."""


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
        """Partitions that will go to somebody else once this returns.

        None where all stay, and only the open transaction has to end: its time runs out while others'
        offsets are waited for.
        """
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
        self._model = model
        self.record_limit = taken_record_limit(settings, model)
        """The largest answer in bytes, of what the topics of answers take."""
        self._servers = settings.kafka.bootstrap_servers
        self._instance = instance
        self._is_static = settings.consumer.membership is Membership.STATIC
        self._listener = listener
        self._give_up = give_up
        self._watchdog = Watchdog(STUCK_SECONDS)
        self._failure: ModelwireError | None = None
        self._assigned: set[int] = set()
        self._cover_due: float | None = None
        self._undelivered: tuple[KafkaError, str] | None = None
        self._in_transaction = False
        self._consumer: Consumer = open_client(Consumer, consumer_config(settings, model, instance))
        config = producer_config(settings, instance, self.record_limit)
        self._producer: Producer = open_client(
            Producer, config | {"on_delivery": self._note_undelivered}
        )

    def open(self) -> None:
        """Fence older processes of this name, and abort what they left open."""
        self._repeat("open the transactional producer", self._producer.init_transactions)

    def join(self) -> None:
        """Become a member of the group; partitions come by the listener."""
        self._cover_due = time.monotonic() + COVER_SECONDS if self._is_static else None
        self._consumer.subscribe(
            [self._topics.requests],
            on_assign=self._on_assign,
            on_revoke=self._on_revoke,
            on_lost=self._on_lost,
        )

    def leave(self, limit_seconds: float) -> None:
        """Give up all partitions and the place in the group; ``join`` may follow."""
        self._consumer.unsubscribe()
        deadline = time.monotonic() + limit_seconds
        while self._assigned and time.monotonic() < deadline:
            self._consume(1, PAUSE_SECONDS)
            self._raise_failure()
        self._consume(1, PAUSE_SECONDS)

    def close(self) -> None:
        """Commit (by the listener) and close; returns within milliseconds where a broker answers."""
        if not self._is_static:
            # ``close`` would leave too, but a process that ends right after it may not get to say so.
            self.leave(CALL_SECONDS)
        try:
            self._consumer.close()
            self._raise_failure()
            self._producer.flush(CALL_SECONDS)
        except KafkaException as error:
            raise self._failed(error.args[0], "close the stream") from error

    # --- requests

    def fetch(self, limit: int, wait_seconds: float, fill_seconds: float) -> list[Fetched]:
        """Up to ``limit`` records: waits for the first one, then a while for the batch to fill."""
        if self._cover_due is not None and self._assigned and time.monotonic() >= self._cover_due:
            self._see_to_cover()
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
                raise self._failed(error.args[0], "go back to the committed offset") from error

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
        self._undelivered = None
        try:
            self._producer.begin_transaction()
        except KafkaException as error:
            raise self._failed(error.args[0], "begin a transaction") from error
        self._in_transaction = True

    def produce_forecast(self, partition: int, key: bytes | None, value: bytes) -> None:
        """Hand over a forecast. Raises TooLargeForTopic, MustAbort, StreamFailed."""
        try:
            self._producer.produce(self._topics.results, value, key, partition)
        except (BufferError, KafkaException) as error:
            self._produce_again(
                error, lambda: self._producer.produce(self._topics.results, value, key, partition)
            )

    def produce_rejection(self, key: bytes | None, value: bytes, headers: Headers) -> None:
        """Hand over a rejection. Raises as ``produce_forecast`` does."""

        def produce() -> None:
            self._producer.produce(self._topics.rejections, value, key, headers=list(headers))

        try:
            produce()
        except (BufferError, KafkaException) as error:
            self._produce_again(error, produce)

    def serve(self) -> None:
        """Let the producer's delivery reports and log lines through. Raises StreamFailed."""
        self._poll(0.0)

    def commit(self, offsets: Mapping[int, int], stamp: str) -> None:
        """Commit the transaction with the next offsets. Raises MustAbort, StreamFailed."""
        requests = self._topics.requests
        marked = [TopicPartition(requests, p, offset, stamp) for p, offset in offsets.items()]
        member = self._consumer.consumer_group_metadata()
        self._repeat(
            "add offsets to the transaction",
            lambda timeout: self._producer.send_offsets_to_transaction(marked, member, timeout),
        )
        self._repeat("commit the transaction", self._producer.commit_transaction)
        self._in_transaction = False

    def abort(self) -> None:
        """Undo the transaction. Raises StreamFailed."""
        try:
            self._repeat("abort the transaction", self._producer.abort_transaction)
        except MustAbort as error:
            raise StreamFailed(f"the transaction cannot be aborted: {error}") from error
        self._in_transaction = False

    # --- the assignment

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        paused: Collection[int] = [each.partition for each in partitions]
        found: dict[int, Committed] = {}
        try:
            if partitions:
                # Offsets of one that died in a commit are kept back until the broker has ended its
                # transaction; measured, ours was ended in the meantime, and this process with it.
                if self._in_transaction:
                    self._listener.revoked(())
                found = self._read_committed(partitions)
                paused = self._listener.assigned(found)
        except ModelwireError as error:
            self._failure = error  # an exception must not pass through librdkafka's callback
        self._assigned.update(each.partition for each in partitions)
        if self._cover_due is not None:
            self._cover_due = (
                time.monotonic() + COVER_SECONDS
            )  # what changed just now may change on
        for each in partitions:
            held = found.get(each.partition)
            each.offset = held.offset if held is not None and held.offset else OFFSET_BEGINNING
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
        consumer.incremental_unassign(partitions)

    def _read_committed(self, partitions: list[TopicPartition]) -> dict[int, Committed]:
        def ask(timeout: float) -> dict[int, Committed]:
            answers = self._consumer.committed(partitions, timeout=timeout)
            for answer in answers:
                if answer.error is not None:
                    raise KafkaException(answer.error)
            return {
                answer.partition: Committed(max(answer.offset, 0), answer.metadata or "")
                for answer in answers
            }

        return self._repeat("read the committed offsets", ask, every_error=True)

    def _see_to_cover(self) -> None:
        """Leave and join again where partitions are nobody's: only a join has them given out."""
        self._cover_due = None
        group = group_of(self._model)
        try:
            with self._watchdog.watching("look for partitions that nobody has"):
                left = uncovered(self._settings, group, self._topics.requests)
        except ModelwireError as error:
            log.warning("group.not_described", problem=error.message)
            return
        if left:
            log.warning("group.uncovered", partitions=sorted(left))
            self.leave(CALL_SECONDS)
            self.join()
        elif left is None:
            self._cover_due = time.monotonic() + COVER_SECONDS

    # --- errors

    def _note_undelivered(self, error: KafkaError | None, message: Message) -> None:
        """Keep the first reason: librdkafka's own error only counts the records that failed."""
        if error is not None and self._undelivered is None:
            self._undelivered = error, message.topic() or ""

    # Without an error callback the client raises a fatal error from whichever call serves its events.

    def _consume(self, count: int, seconds: float) -> list[Message]:
        try:
            return self._consumer.consume(count, seconds)
        except KafkaException as error:
            raise self._failed(error.args[0], "read requests") from error

    def _poll(self, seconds: float) -> None:
        try:
            self._producer.poll(seconds)
        except KafkaException as error:
            raise self._failed(error.args[0], "write answers") from error

    def _repeat(
        self, what: str, call: Callable[[float], Result], *, every_error: bool = False
    ) -> Result:
        """The result of ``call``, made again while its error says that it may be."""
        complained = time.monotonic()
        while True:
            try:
                with self._watchdog.watching(what):
                    return call(CALL_SECONDS)
            except KafkaException as raised:
                error: KafkaError = raised.args[0]
            if _is_fatal(error) or error.code() in NOT_ALLOWED:
                raise self._failed(error, what)
            if not (every_error or error.retriable()):
                if error.txn_requires_abort():
                    raise self._must_abort(error)
                raise self._failed(error, what)
            if self._give_up():
                raise self._failed(error, what)
            if time.monotonic() - complained >= COMPLAINT_SECONDS:
                complained = time.monotonic()
                log.warning("stream.retry", what=what, error=error.name(), detail=error.str())
            time.sleep(PAUSE_SECONDS)

    def _produce_again(
        self, problem: BufferError | KafkaException, produce: Callable[[], None]
    ) -> None:
        """After a first attempt failed: again while the queue is full, else the error's meaning."""
        deadline = time.monotonic() + NEW_PARTITION_SECONDS
        while isinstance(problem, BufferError) or (
            problem.args[0].code() == KafkaError._UNKNOWN_PARTITION and time.monotonic() < deadline
        ):
            if self._give_up():
                raise StreamFailed("the producer could not take an answer to the end")
            if not isinstance(problem, BufferError):
                self._learn_partitions()
            self._poll(PAUSE_SECONDS)
            try:
                return produce()
            except (BufferError, KafkaException) as next_problem:
                problem = next_problem
        error: KafkaError = problem.args[0]
        if error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
            raise TooLargeForTopic(error.str())
        if _is_fatal(error):
            self._poll(PAUSE_SECONDS)  # what is behind the bare _FATAL is raised here
        elif error.txn_requires_abort() or error.code() == KafkaError._STATE:
            # _STATE: an earlier record of this transaction failed, so no further one is taken.
            self._poll(0.0)  # hear which
            raise self._must_abort(error)
        raise self._failed(error, "produce an answer")

    def _must_abort(self, error: KafkaError) -> Exception:
        """What an error amounts to after which the transaction can only be aborted.

        Where the answers would fail again in the next transaction it is a ModelwireError: such a process
        would abort for ever. A batch that was too large also broke the sequence of its partition, after
        which this producer can write there no more.
        """
        if self._undelivered is None:
            return MustAbort(f"{error.name()}: {error.str()}")
        cause, topic = self._undelivered
        if cause.code() == KafkaError.MSG_SIZE_TOO_LARGE:
            return StreamFailed(
                f"{topic} does not take answers of {self.record_limit} bytes any more: its "
                "max.message.bytes was lowered",
                hint="start again: the limit is read at the start, and what is larger is rejected as "
                "answer-too-large",
            )
        if cause.code() in NOT_ALLOWED or cause.code() in _BROKEN_SEQUENCE:
            return self._failed(cause, f"write answers to {topic}")
        return MustAbort(f"{cause.name()} in {topic}: {cause.str()}")

    def _learn_partitions(self) -> None:
        """Topics that are grown: the consumer heard of it, and this producer looks every 5 minutes."""
        with suppress(KafkaException), self._watchdog.watching("look for new partitions"):
            self._producer.list_topics(self._topics.results, timeout=CALL_SECONDS)

    def _judge_fetched(self, message: Message) -> bool:
        """Whether the fetched thing is an error and no record; raises for one that ends the stream."""
        error = message.error()
        if error is None:
            return False
        if _is_fatal(error) or error.code() in NOT_ALLOWED:
            raise self._failed(error, "read requests")
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
        committed = self._read_committed([place])[partition].offset
        low, high = self._repeat(
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

    def _failed(self, error: KafkaError, what: str) -> ModelwireError:
        if error.code() in FENCED or "fenced" in error.str().lower():
            return PlaceTaken(
                f"another process took the place of {self._instance} while this one tried to {what}, "
                "or the broker ended a transaction that was open for too long",
                hint="run one process a slot; give each its own --slot; after a stall of more than "
                "consumer.transaction_timeout_ms, start it again",
            )
        return explain(error, what, self._servers, model=self._model)

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _request_partitions(self, partitions: Collection[int]) -> list[TopicPartition]:
        return [TopicPartition(self._topics.requests, partition) for partition in partitions]


def _is_fatal(error: KafkaError) -> bool:
    # A static member that was fenced reports the code _FATAL on an error whose fatal() is False.
    return error.fatal() or error.code() == KafkaError._FATAL or error.code() in FENCED
