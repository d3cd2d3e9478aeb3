"""The shadow stream: a shadow's answers to the shadow topic, as well as it goes.

1. It takes no part in any transaction and never waits: where its own small queue is full, or the topic
   is missing, an answer is turned down at once, and the caller counts it.
2. An answer goes to its request's partition number, under the key ``<partition>/<offset>/<version>`` of
   its request. Requests that are answered again are scored again, and the repeat has the same key.
3. What the broker does not take (no permission, too large, too late) is told to the caller by name, and
   logged once in a while. It is not tried for longer than a few seconds.

Not thread-safe: the shadow's own thread calls everything.
"""

import time
from collections.abc import Callable
from enum import Enum

import structlog
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from adapters.kafka import open_client, topic_names
from adapters.settings import Settings
from adapters.stream_config import shadow_config

COMPLAINT_SECONDS = 30.0
"""Between two log lines that say that answers are not taken."""

log = structlog.get_logger()


class Handed(Enum):
    """What became of an answer when it was handed over."""

    TAKEN = "taken"
    """On its way; if it fails, the caller hears of it."""
    FULL = "full"
    """There was no room."""
    FAILED = "failed"
    """It can never get there."""


class ShadowStream:
    """A producer of its own, best effort. Raises UsageProblem where it cannot be configured."""

    def __init__(self, settings: Settings, model: str, instance: str) -> None:
        self._topic = topic_names(settings, model).shadow
        self._producer: Producer = open_client(Producer, shadow_config(settings, instance))
        self._complained = -COMPLAINT_SECONDS

    def send(self, partition: int, key: str, value: bytes, failed: Callable[[], None]) -> Handed:
        """Hand an answer over; ``failed`` is called, from within ``serve``, if the broker refuses it."""

        def report(error: KafkaError | None, _message: Message) -> None:
            if error is not None:
                self._complain(error)
                failed()

        try:
            self._producer.produce(self._topic, value, key, partition, on_delivery=report)
        except BufferError:
            return Handed.FULL
        except KafkaException as error:
            self._complain(error.args[0])
            return Handed.FAILED
        return Handed.TAKEN

    def serve(self) -> None:
        """Let reports of failed answers through; never waits."""
        self._producer.poll(0)

    def close(self, limit_seconds: float) -> None:
        """Give what is on its way this long, and let the rest go."""
        self._producer.flush(limit_seconds)
        self._producer.purge()
        self._producer.poll(0)

    def _complain(self, error: KafkaError) -> None:
        if time.monotonic() >= self._complained + COMPLAINT_SECONDS:
            self._complained = time.monotonic()
            log.warning(
                "shadow.not_taken", topic=self._topic, error=error.name(), detail=error.str()
            )
