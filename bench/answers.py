"""A reader of a model's answers as its callers are: only what is committed, as soon as it can be had."""

import threading
import time
from dataclasses import dataclass

from confluent_kafka import Consumer

from adapters.kafka import client_config
from schemas.forecast import decode_forecast
from tests.fleet import Harness


@dataclass(frozen=True)
class Seen:
    """A forecast that was read. Times are seconds since 1970, all of this machine's one clock.

    ``asked`` is the request's time, which has whole milliseconds; ``scored`` is the same for all
    forecasts of a batch.
    """

    partition: int
    revision: int
    asked: float
    scored: float
    arrived: float

    @property
    def age(self) -> float:
        """Seconds from the request to its answer in a reader's hands."""
        return self.arrived - self.asked


class Answers:
    """A thread that notes the forecasts of a model from now on."""

    def __init__(self, harness: Harness) -> None:
        self.seen: list[Seen] = []
        """Those since the last ``take``."""
        self._stopping = False
        self._consumer = Consumer(
            client_config(
                harness.settings,
                **{
                    "group.id": "bench",
                    "enable.auto.commit": False,
                    "isolation.level": "read_committed",
                    "auto.offset.reset": "latest",
                    "fetch.wait.max.ms": 5,
                },
            )
        )
        self._consumer.subscribe([harness.topics.results])
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def take(self) -> list[Seen]:
        """The forecasts since the last call."""
        taken, self.seen = self.seen, []
        return taken

    def close(self) -> None:
        """Read no more."""
        self._stopping = True
        self._thread.join()
        self._consumer.close()

    def _run(self) -> None:
        while not self._stopping:
            for message in self._consumer.consume(500, 0.005):
                value = message.value()
                if message.error() is not None or value is None:
                    continue
                arrived, forecast = time.time(), decode_forecast(value)
                asked, scored = forecast.source.timestamp / 1_000, forecast.scored_at.timestamp()
                partition, revision = forecast.source.partition, forecast.revision
                self.seen.append(Seen(partition, revision, asked, scored, arrived))
