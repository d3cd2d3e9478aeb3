"""Follows the answers as they are committed: who answered, how well, and since when.

``Answers`` is pure and keeps the counts; ``Follower`` feeds it from the topics, with read_committed, so
what it has seen every consumer of the results can see.
"""

import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from confluent_kafka import OFFSET_BEGINNING, Consumer, Message, TopicPartition

from adapters.kafka import client_config, explain, open_client, require_topics, topic_names
from adapters.settings import Settings
from schemas.forecast import Forecast, decode_forecast

RATE_SECONDS = 2.0
"""The window of the rate, and how recently an instance must have answered to count as answering."""


@dataclass
class Score:
    """The sums behind a version's WAPE."""

    error: float = 0.0
    actual: float = 0.0

    @property
    def wape(self) -> float | None:
        """Sum of absolute errors over sum of actuals; None while nothing was sold."""
        return self.error / self.actual if self.actual else None


@dataclass
class Answers:
    """Counts over the answers seen so far.

    ``actuals`` maps raw inputs, byte for byte as a forecast echoes them, to what was sold; ``output``
    is the forecast's output that is compared with it. ``revision`` is the highest seen, ``answering`` the
    version of the newest forecast. Times are seconds of any one clock.
    """

    actuals: Mapping[bytes, float]
    output: str
    forecasts: int = 0
    rejections: int = 0
    revision: int = 0
    answering: int | None = None
    versions: Counter[int] = field(default_factory=Counter)
    scores: dict[int, Score] = field(default_factory=lambda: defaultdict(Score))
    _first_seen: dict[tuple[int, int], float] = field(default_factory=dict)
    _recent: deque[tuple[float, int]] = field(default_factory=deque)
    _instances: dict[str, float] = field(default_factory=dict)

    @property
    def answered(self) -> int:
        """Forecasts and rejections."""
        return self.forecasts + self.rejections

    def take(self, forecasts: Iterable[Forecast], rejections: int, at: float) -> None:
        """Answers that arrived at time ``at``."""
        before = self.answered
        self.rejections += rejections
        for forecast in forecasts:
            self.forecasts += 1
            self.answering = forecast.version
            self.versions[forecast.version] += 1
            self.revision = max(self.revision, forecast.revision)
            self._instances[forecast.instance] = at
            self._first_seen.setdefault((forecast.source.partition, forecast.revision), at)
            actual = self.actuals.get(bytes(forecast.inputs))
            if actual is not None:
                score = self.scores[forecast.version]
                score.error += abs(forecast.outputs[self.output] - actual)
                score.actual += actual
        self._recent.append((at, self.answered - before))

    def rate(self, at: float) -> float:
        """Answers a second over the last RATE_SECONDS."""
        while self._recent and self._recent[0][0] <= at - RATE_SECONDS:
            self._recent.popleft()
        return sum(count for _, count in self._recent) / RATE_SECONDS

    def instances(self, at: float) -> tuple[str, ...]:
        """The instances that answered in the last RATE_SECONDS, by name."""
        return tuple(sorted(n for n, seen in self._instances.items() if seen > at - RATE_SECONDS))

    def partitions(self) -> frozenset[int]:
        """The request partitions that have had answers."""
        return frozenset(partition for partition, _ in self._first_seen)

    def served_since(self, revision: int, partitions: Iterable[int]) -> float | None:
        """When the last of ``partitions`` had its first answer at ``revision`` or later.

        None while one has none.
        """
        latest = []
        for partition in partitions:
            times = [
                at
                for (number, seen), at in self._first_seen.items()
                if number == partition and seen >= revision
            ]
            if not times:
                return None
            latest.append(min(times))
        return max(latest, default=None)


class Follower:
    """Reads a model's answers from the first, into ``answers``. Wall-clock seconds since 1970."""

    def __init__(self, settings: Settings, model: str, answers: Answers) -> None:
        self.answers = answers
        names = topic_names(settings, model)
        self._rejections = names.rejections
        partitions = require_topics(settings, (names.results, names.rejections))
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
        forecasts, rejections = [], 0
        for message in messages:
            if self._is_record(message):
                if message.topic() == self._rejections:
                    rejections += 1
                else:
                    forecasts.append(decode_forecast(message.value() or b""))
        self.answers.take(forecasts, rejections, at)

    def close(self) -> None:
        """Stop following."""
        self._consumer.close()

    @staticmethod
    def _is_record(message: Message) -> bool:
        error = message.error()
        if error is not None and error.fatal():
            raise explain(error, "read the answers")
        return error is None
