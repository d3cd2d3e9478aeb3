"""What the demo counts over the answers that it has seen. Pure; ``follower`` reads the topics.

1. An answer counts for the version that gave it, and for the split of its revision: how many requests,
   and which keys, each variant answered while the log stood there.
2. What a shadow said is compared with the champion's answer to the *same* request, found by the
   request's place. A request that only one of the two has answered is not compared, and one that the
   shadow scored twice counts once.
"""

from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from schemas.forecast import Forecast, Variant

RATE_SECONDS = 2.0
"""The window of the rate, and how recently an instance must have answered to count as answering."""

Keyed = tuple[bytes | None, Forecast]
"""A forecast with the key of its record, which is the request's."""


@dataclass
class Score:
    """The sums behind a version's WAPE."""

    error: float = 0.0
    actual: float = 0.0

    @property
    def wape(self) -> float | None:
        """Sum of absolute errors over sum of actuals; None while nothing was sold."""
        return self.error / self.actual if self.actual else None

    def add(self, error: float, actual: float) -> None:
        """One more row: its absolute error, and what was sold."""
        self.error += error
        self.actual += actual


@dataclass
class Split:
    """How the answers at one revision were shared between champion and candidate."""

    requests: Counter[Variant] = field(default_factory=Counter)
    keys: dict[Variant, set[bytes]] = field(default_factory=lambda: defaultdict(set))
    versions: set[int] = field(default_factory=set)

    def take(self, key: bytes | None, forecast: Forecast) -> None:
        """One more answer at this revision."""
        self.requests[forecast.variant] += 1
        self.versions.add(forecast.version)
        if key is not None:
            self.keys[forecast.variant].add(key)

    @property
    def request_share(self) -> float | None:
        """The candidate's part of the requests, 0 … 1; None while there are none."""
        return _part(self.requests[Variant.CANDIDATE], self.requests.total())

    @property
    def key_count(self) -> int:
        """Distinct keys; one that both variants answered counts for both."""
        return sum(map(len, self.keys.values()))

    @property
    def key_share(self) -> float | None:
        """The candidate's part of the keys, 0 … 1; None while there are none."""
        return _part(len(self.keys[Variant.CANDIDATE]), self.key_count)


@dataclass
class Comparison:
    """A shadow beside the champion: their scores over the requests that both have answered.

    ``scored`` is how many requests the shadow has answered, ``compared`` how many of these the
    champion has too. A row without a known actual counts for neither score.
    """

    scored: int = 0
    compared: int = 0
    shadow: Score = field(default_factory=Score)
    champion: Score = field(default_factory=Score)
    _by_shadow: dict[tuple[int, int], float | None] = field(default_factory=dict)
    _by_champion: dict[tuple[int, int], float | None] = field(default_factory=dict)

    def take_shadow(self, forecast: Forecast, error: float | None, actual: float | None) -> None:
        """What the shadow said. ``error`` is absolute; both are None where the actual is not known."""
        place = (forecast.source.partition, forecast.source.offset)
        if place not in self._by_shadow:
            self.scored += 1
            self._by_shadow[place] = error
            if place in self._by_champion:
                self._compare(error, self._by_champion[place], actual)

    def take_champion(self, forecast: Forecast, error: float | None, actual: float | None) -> None:
        """What the champion answered."""
        place = (forecast.source.partition, forecast.source.offset)
        if place not in self._by_champion:
            self._by_champion[place] = error
            if place in self._by_shadow:
                self._compare(self._by_shadow[place], error, actual)

    def _compare(self, shadow: float | None, champion: float | None, actual: float | None) -> None:
        self.compared += 1
        if shadow is not None and champion is not None and actual is not None:
            self.shadow.add(shadow, actual)
            self.champion.add(champion, actual)


@dataclass
class Answers:
    """Counts over the answers seen so far.

    ``actuals`` maps raw inputs, byte for byte as a forecast echoes them, to what was sold; ``output``
    is the forecast's output that is compared with it. ``revision`` is the highest seen. Times are
    seconds of any one clock.
    """

    actuals: Mapping[bytes, float]
    output: str
    forecasts: int = 0
    rejections: int = 0
    revision: int = 0
    versions: Counter[int] = field(default_factory=Counter)
    scores: dict[int, Score] = field(default_factory=lambda: defaultdict(Score))
    splits: dict[int, Split] = field(default_factory=lambda: defaultdict(Split))
    comparison: Comparison = field(default_factory=Comparison)
    _first_seen: dict[tuple[int, int], float] = field(default_factory=dict)
    _recent: deque[tuple[float, int]] = field(default_factory=deque)
    _instances: dict[str, float] = field(default_factory=dict)

    @property
    def answered(self) -> int:
        """Forecasts and rejections."""
        return self.forecasts + self.rejections

    @property
    def answering(self) -> tuple[int, ...]:
        """The versions that have answered at the highest revision."""
        split = self.splits.get(self.revision)
        return () if split is None else tuple(sorted(split.versions))

    def take(self, forecasts: Iterable[Keyed], rejections: int, at: float) -> None:
        """Answers that arrived at time ``at``."""
        before = self.answered
        self.rejections += rejections
        for key, forecast in forecasts:
            self.forecasts += 1
            self.versions[forecast.version] += 1
            self.revision = max(self.revision, forecast.revision)
            self.splits[forecast.revision].take(key, forecast)
            self._instances[forecast.instance] = at
            self._first_seen.setdefault((forecast.source.partition, forecast.revision), at)
            error, actual = self._judge(forecast)
            if error is not None and actual is not None:
                self.scores[forecast.version].add(error, actual)
            if forecast.variant is Variant.CHAMPION:
                self.comparison.take_champion(forecast, error, actual)
        self._recent.append((at, self.answered - before))

    def take_shadow(self, forecasts: Iterable[Forecast]) -> None:
        """What a shadow said; nobody was answered with it."""
        for forecast in forecasts:
            self.comparison.take_shadow(forecast, *self._judge(forecast))

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

    def _judge(self, forecast: Forecast) -> tuple[float | None, float | None]:
        """The absolute error and the actual; None for both where that is not known."""
        actual = self.actuals.get(bytes(forecast.inputs))
        if actual is None:
            return None, None
        return abs(forecast.outputs[self.output] - actual), actual


def _part(part: int, whole: int) -> float | None:
    return part / whole if whole else None
