"""The control log on Kafka, for its readers. ``adapters.control_append`` writes to it.

Partition 0 is assigned from offset 0, without a group, ``read_committed``. The first
``PARTITION_EOF`` is the log's end (a comparison of positions would hang while a transaction is open).
A log whose beginning is gone, or whose accepted events do not form one chain, stops the reader
(``BrokenLog``); a record that is no event is reported and counts for nothing.

A topic that is missing at the start ends the reading at once. One that is denied later, while the log
is followed, does not: a broker that restarts denies topics that exist. librdkafka then goes on by itself
once the topic is there (measured), mostly without a word.
"""

import time
from types import TracebackType
from typing import Self

import structlog
from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from adapters.kafka import (
    HOPELESS,
    NO_TOPIC,
    control_config,
    explain,
    open_client,
    require_topics,
    topic_names,
)
from adapters.settings import Settings
from deployment.ledger import Ledger, Unaccepted
from deployment.state import BrokenLog
from schemas.errors import Conflict, ModelwireError, NotFound
from schemas.events import Recorded

SILENCE_SECONDS = 10.0
"""How long the log's end may stay away while nothing arrives at all."""

_BATCH = 1_000

_log = structlog.get_logger("modelwire.control_log")


class LogReader:
    """Follows a model's control log. One thread reads; ``ledger.deployment`` may be read by others.

    Raises NotFound where the model has no control log, at the start and not later.
    """

    def __init__(self, settings: Settings, model: str, *, keeps_events: bool = True) -> None:
        self.ledger = Ledger(model, keeps_events=keeps_events)
        self._follows = False
        self._end_offset = 0
        self._topic = require_log(settings, model)
        self._servers = settings.kafka.bootstrap_servers
        self._consumer = open_client(
            Consumer,
            control_config(
                settings,
                **{
                    "group.id": f"{self._topic}.reader",  # demanded, never joined
                    "enable.auto.commit": False,
                    "isolation.level": "read_committed",
                    "enable.partition.eof": True,
                    "auto.offset.reset": "error",
                    "fetch.wait.max.ms": 10,
                    "fetch.error.backoff.ms": 50,
                },
            ),
        )
        self._partition = TopicPartition(self._topic, 0, 0)
        self._consumer.assign([self._partition])

    def read_to_end(self) -> list[Recorded]:
        """Reads up to the log's end. To be called once, first; ``poll`` goes on from there.

        Raises BrokenLog, and ModelwireError where the broker falls silent.
        """
        events: list[Recorded] = []
        heard = time.monotonic()
        while True:
            messages = self._fetch(0.5)
            fresh, at_end = self._take(messages)
            events += fresh
            if at_end:
                self._follows = True
                return events
            if messages:
                heard = time.monotonic()
            elif time.monotonic() - heard > SILENCE_SECONDS:
                silent = KafkaError(KafkaError._TIMED_OUT)
                raise self._explain(silent)

    def poll(self, timeout_s: float) -> list[Recorded]:
        """The events that came since; waits up to ``timeout_s`` for the first.

        Raises BrokenLog, and ModelwireError for what does not pass.
        """
        return self._take(self._fetch(timeout_s))[0]

    def hides_records(self) -> bool:
        """Whether records lie beyond the end that was read: somebody's transaction is open."""
        # What the last fetch said of the partition, so it is as old as the end itself.
        _, high = self._consumer.get_watermark_offsets(self._partition, cached=True)
        return high > self._end_offset

    def close(self) -> None:
        """Closes the connection."""
        self._consumer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _fetch(self, timeout_s: float) -> list[Message]:
        # consume(n, t) alone would wait all of t for n messages.
        first = self._consumer.poll(timeout_s)
        return [] if first is None else [first, *self._consumer.consume(_BATCH, 0)]

    def _take(self, messages: list[Message]) -> tuple[list[Recorded], bool]:
        """The accepted events among the messages, and whether the log's end is among them."""
        events: list[Recorded] = []
        at_end = False
        for message in messages:
            error = message.error()
            if error is not None:
                at_end = self._judge(error, message) or at_end
                continue
            taken = self.ledger.take(message.value())
            if isinstance(taken, Unaccepted):
                _log.warning(
                    "control_log.not_an_event",
                    topic=self._topic,
                    offset=message.offset(),
                    reason=taken.reason,
                )
            else:
                events.append(taken)
        return events, at_end

    def _judge(self, error: KafkaError, message: Message) -> bool:
        """Whether this is the log's end; raises where reading on makes no sense."""
        code = error.code()
        if code == KafkaError._PARTITION_EOF:
            self._end_offset = message.offset() or 0
            return True
        if code == KafkaError._AUTO_OFFSET_RESET:
            raise BrokenLog(
                f"the control log {self._topic} does not reach back to its beginning, or is shorter "
                "than it was",
                hint="its records were deleted or the topic was made anew; restore it from a backup",
            )
        is_denied = code in NO_TOPIC and self._follows
        if error.fatal() or (code in HOPELESS and not is_denied):
            raise self._explain(error)
        _log.warning("control_log.read_problem", topic=self._topic, problem=error.str())
        return False

    def _explain(self, error: KafkaError) -> ModelwireError:
        model = self.ledger.deployment.model
        return explain(error, f"read {self._topic}", self._servers, model=model)


def read_log(settings: Settings, model: str) -> Ledger:
    """The model's control log up to its end.

    Raises NotFound where there is no such log, BrokenLog, and ModelwireError where no broker answers.
    """
    with LogReader(settings, model) as reader:
        reader.read_to_end()
        return reader.ledger


def require_log(settings: Settings, model: str) -> str:
    """The name of the model's control topic, which exists and has one partition."""
    topic = topic_names(settings, model).control
    try:
        partitions = require_topics(settings, [topic])[topic]
    except NotFound as error:
        raise NotFound(
            f"there is no model {model!r}: the topic {topic} does not exist",
            hint=f"check the name, or create its topics: modelwire topics create {model}",
        ) from error
    if partitions != 1:
        raise Conflict(
            f"the topic {topic} has {partitions} partitions; a control log has 1",
            hint="it was not made by `modelwire topics create`; restore the log into a proper topic",
        )
    return topic
