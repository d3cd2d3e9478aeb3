"""Follows the answers as they are committed, and what a shadow scores beside them, into ``Answers``.

Results and rejections are read with read_committed, so what was seen here every consumer of the results
can see. Times are wall-clock seconds since 1970.
"""

import time

from confluent_kafka import OFFSET_BEGINNING, Consumer, Message, TopicPartition

from adapters.kafka import client_config, explain, open_client, require_topics, topic_names
from adapters.settings import Settings
from modelwire.demo.answers import Answers, Keyed
from schemas.forecast import Forecast, decode_forecast


class Follower:
    """Reads a model's answers from the first, into ``answers``."""

    def __init__(self, settings: Settings, model: str, answers: Answers) -> None:
        self.answers = answers
        names = topic_names(settings, model)
        self._rejections = names.rejections
        self._shadow = names.shadow
        partitions = require_topics(settings, (names.results, names.rejections, names.shadow))
        self._consumer = open_client(
            Consumer,
            client_config(
                settings,
                **{
                    "group.id": "modelwire-demo",  # demanded by the client, never joined
                    "isolation.level": "read_committed",
                    "enable.auto.commit": False,
                    "auto.offset.reset": "earliest",
                    "fetch.wait.max.ms": 20,
                },
            ),
        )
        self._consumer.assign(
            [
                TopicPartition(topic, number, OFFSET_BEGINNING)
                for topic, count in partitions.items()
                for number in range(count)
            ]
        )

    def poll(self, seconds: float) -> None:
        """Take in what has arrived, waiting for at most ``seconds``."""
        messages = self._consumer.consume(1_000, seconds)
        at = time.time()
        forecasts: list[Keyed] = []
        shadow: list[Forecast] = []
        rejections = 0
        for message in messages:
            if not self._is_record(message):
                continue
            if message.topic() == self._rejections:
                rejections += 1
                continue
            forecast = decode_forecast(message.value() or b"")
            if message.topic() == self._shadow:
                shadow.append(forecast)
            else:
                forecasts.append((message.key(), forecast))
        self.answers.take(forecasts, rejections, at)
        self.answers.take_shadow(shadow)

    def close(self) -> None:
        """Stop following."""
        self._consumer.close()

    @staticmethod
    def _is_record(message: Message) -> bool:
        error = message.error()
        if error is not None and error.fatal():
            raise explain(error, "read the answers")
        return error is None
