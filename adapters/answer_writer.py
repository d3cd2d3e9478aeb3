"""The writer of answers: the transactional producer of the request stream.

1. The transactional id is the slot's name: a restarted slot aborts what it left open.
2. An error of the transaction is one of three: the same call again (``stream_calls``), ``MustAbort``, or
   an error after which this object must not be used and the process ends. A commit in doubt is repeated
   or ends the process; it is never rewound.
3. What would fail again in the next transaction is never ``MustAbort``: such a process would abort for
   ever.
4. Nothing reports a delivery: it would cost a call for each answer. What the broker refused is the error
   of every later call of the transaction, by its name and with the topic. Of records that nobody took in
   time such a call only says how many.
5. The queue has a limit in bytes. Records are made as large as the topics took them when this object was
   made (``record_limit``); a topic that takes smaller ones than it took then ends the process.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Protocol, TypeVar

from confluent_kafka import KafkaError, KafkaException, Producer, TopicPartition

from adapters.kafka import NOT_ALLOWED, open_client, topic_names
from adapters.settings import Settings
from adapters.stream_calls import CALL_SECONDS, PAUSE_SECONDS, Calls, StreamFailed, is_fatal
from adapters.stream_config import producer_config, taken_record_limit
from schemas.rejection import Headers

NEW_PARTITION_SECONDS = 10.0
"""How long a partition of the results that the broker does not know yet is asked for."""

_BROKEN_SEQUENCE = frozenset(
    {KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER, KafkaError.UNKNOWN_PRODUCER_ID}
)
"""After these only a new producer can write to the partition."""

Result = TypeVar("Result")


class MustAbort(Exception):
    """The transaction can only be aborted; its requests are to be answered again."""


class TooLargeForTopic(Exception):
    """The record is beyond the producer's limit; the transaction is still good."""


class Asked(Protocol):
    """What the record of a forecast takes over from its request's."""

    @property
    def partition(self) -> int:
        """Its partition, the same in both topics."""
        ...

    @property
    def key(self) -> bytes | None:
        """The caller's key."""
        ...


class Forecast(Protocol):
    """A forecast to be written."""

    @property
    def incoming(self) -> Asked:
        """The request."""
        ...

    @property
    def value(self) -> bytes:
        """The bytes of the answer."""
        ...


class AnswerWriter:
    """One instance's transactional producer. Not thread-safe: the answering loop calls it."""

    def __init__(
        self, settings: Settings, model: str, instance: str, calls: Calls, member: Callable[[], Any]
    ) -> None:
        """``member`` gives what the group of the requests knows the instance by."""
        self.record_limit = taken_record_limit(settings, model)
        """The largest answer in bytes, of what the topics of answers take."""
        self.in_transaction = False
        """Whether a transaction is open, or may be."""
        self._topics = topic_names(settings, model)
        self._calls = calls
        self._member = member
        self._producer: Producer = open_client(
            Producer, producer_config(settings, instance, self.record_limit)
        )

    def open(self) -> None:
        """Fence older processes of this name, and abort what they left open."""
        self._repeat("open the transactional producer", self._producer.init_transactions)

    def begin(self) -> None:
        """Open a transaction. Raises StreamFailed."""
        try:
            self._producer.begin_transaction()
        except KafkaException as error:
            raise self._calls.failed(error.args[0], "begin a transaction") from error
        self.in_transaction = True

    def produce_forecasts(self, forecasts: Iterable[Forecast]) -> list[int]:
        """Hand over forecasts; the result are the places of those beyond the limit, which are not taken.

        Raises MustAbort, StreamFailed.
        """
        # A batch at a time: a call of ours for each forecast would cost a tenth of a microsecond more.
        produce, results = self._producer.produce, self._topics.results
        beyond = []
        for place, each in enumerate(forecasts):
            asked = each.incoming
            try:
                produce(results, each.value, asked.key, asked.partition)
            except (BufferError, KafkaException) as error:
                again = partial(produce, results, each.value, asked.key, asked.partition)
                try:
                    self._produce_again(error, results, again)
                except TooLargeForTopic:
                    beyond.append(place)
        return beyond

    def produce_rejection(self, key: bytes | None, value: bytes, headers: Headers) -> None:
        """Hand over a rejection. Raises TooLargeForTopic, MustAbort, StreamFailed."""

        def produce() -> None:
            self._producer.produce(self._topics.rejections, value, key, headers=list(headers))

        try:
            produce()
        except (BufferError, KafkaException) as error:
            self._produce_again(error, self._topics.rejections, produce)

    def serve(self) -> None:
        """Hear what went wrong with the producer. Raises StreamFailed."""
        self._poll(0.0)

    def commit(self, offsets: Mapping[int, int], stamp: str) -> None:
        """Commit the transaction with the next offsets. Raises MustAbort, StreamFailed."""
        self._add_offsets(offsets, stamp)
        self._repeat("commit the transaction", self._producer.commit_transaction)
        self.in_transaction = False

    def abort(self) -> None:
        """Undo the transaction. Raises StreamFailed."""
        try:
            self._repeat("abort the transaction", self._producer.abort_transaction)
        except MustAbort as error:
            raise StreamFailed(f"the transaction cannot be aborted: {error}") from error
        self.in_transaction = False

    def close(self) -> None:
        """Let what is on its way arrive. Raises KafkaException."""
        self._producer.flush(CALL_SECONDS)

    def _add_offsets(self, offsets: Mapping[int, int], stamp: str) -> None:
        requests, member = self._topics.requests, self._member()
        marked = [TopicPartition(requests, p, offset, stamp) for p, offset in offsets.items()]
        self._repeat(
            "add offsets to the transaction",
            lambda timeout: self._producer.send_offsets_to_transaction(marked, member, timeout),
        )

    # Without an error callback the client raises a fatal error from whichever call serves its events.

    def _poll(self, seconds: float) -> None:
        try:
            self._producer.poll(seconds)
        except KafkaException as error:
            raise self._calls.failed(error.args[0], "write answers") from error

    def _repeat(self, what: str, call: Callable[[float], Result]) -> Result:
        try:
            return self._calls.repeat(what, call)
        except KafkaException as error:
            raise self._must_abort(error.args[0]) from error

    def _produce_again(
        self, problem: BufferError | KafkaException, topic: str, produce: Callable[[], None]
    ) -> None:
        """After a first attempt failed: again while the queue is full, else the error's meaning."""
        deadline = time.monotonic() + NEW_PARTITION_SECONDS
        while isinstance(problem, BufferError) or (
            problem.args[0].code() == KafkaError._UNKNOWN_PARTITION and time.monotonic() < deadline
        ):
            if self._calls.give_up():
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
        if is_fatal(error):
            self._poll(PAUSE_SECONDS)  # what is behind the bare _FATAL is raised here
        elif error.code() == KafkaError._STATE:
            # An earlier record of this transaction failed, so no further one is taken. Why, is said by
            # the calls that end a transaction; this one is aborted in any case.
            self._add_offsets({0: 0}, "")
            raise MustAbort(f"{error.name()}: {error.str()}")
        elif error.txn_requires_abort():
            raise self._must_abort(error)
        raise self._calls.failed(error, f"write to {topic}")

    def _must_abort(self, error: KafkaError) -> Exception:
        """What an error amounts to after which the transaction can only be aborted.

        Where the answers would fail again in the next transaction it is a ModelwireError. A batch that
        was too large also broke the sequence of its partition, after which this producer can write there
        no more.
        """
        if error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
            answers = (self._topics.results, self._topics.rejections)
            topic = next((name for name in answers if name in error.str()), "a topic of answers")
            return StreamFailed(
                f"{topic} does not take answers of {self.record_limit} bytes any more: its "
                "max.message.bytes was lowered",
                hint="start again: the limit is read at the start, and what is larger is rejected as "
                "answer-too-large",
            )
        if error.code() in NOT_ALLOWED or error.code() in _BROKEN_SEQUENCE:
            return self._calls.failed(error, "write answers")
        return MustAbort(f"{error.name()}: {error.str()}")

    def _learn_partitions(self) -> None:
        """Topics that are grown: the consumer heard of it, and this producer looks every 5 minutes."""
        with suppress(KafkaException), self._calls.watching("look for new partitions"):
            self._producer.list_topics(self._topics.results, timeout=CALL_SECONDS)
