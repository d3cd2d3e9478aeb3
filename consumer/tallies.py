"""Tallies: what this instance did for each version under each rollout, for the fleet status.

A tally counts from the first answer under its rollout (0: no rollout moves traffic). Kept are only those
of the rollout that the snapshot belongs to, so that there are never more than a few.

``Meters`` measures the loop's work for metrics and summaries: how many rows a batch had, how long it was
scored, how long a swap took. A batch costs two searches in a dozen bounds, a request costs nothing.
"""

from bisect import bisect_left
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from schemas.forecast import Variant
from scoring.snapshot import Snapshot

Name = TypeVar("Name", bound=Hashable)


class TallyName(NamedTuple):
    """What a tally is of: a version, and how it served under which rollout."""

    rollout: int
    version: int
    variant: Variant


class Count(NamedTuple):
    """How often, so far. ``shed`` and ``failed`` are a shadow's."""

    answered: int = 0
    rejected: int = 0
    shed: int = 0
    failed: int = 0


Counts = Mapping[TallyName, Count]
"""Replaced as a whole and never changed, so that another thread may look at it."""


def plus(one: Count, other: Count) -> Count:
    """Both together."""
    return Count(*(here + there for here, there in zip(one, other, strict=True)))


def names_of(snapshot: Snapshot) -> dict[Variant, TallyName]:
    """The tallies that a snapshot's answers count for, by the variant that gave them."""
    rollout, champion = snapshot.rollout, snapshot.champion
    names = {Variant.CHAMPION: TallyName(rollout, champion.version, Variant.CHAMPION)}
    if snapshot.candidate is not None:
        candidate = TallyName(rollout, snapshot.candidate.version, Variant.CANDIDATE)
        names[Variant.CANDIDATE] = candidate
    return names


def carried_on(counts: Counts, snapshot: Snapshot) -> dict[TallyName, Count]:
    """A copy of ``counts`` without what is not of the snapshot's rollout and champion."""
    champion = names_of(snapshot)[Variant.CHAMPION]
    if champion not in counts:
        return {}
    return {which: count for which, count in counts.items() if which.rollout == champion.rollout}


ROW_BOUNDS = (1, 2, 5, 10, 20, 50, 100, 200, 512, 1_000, 2_000, 5_000)
"""A batch has at most ``batch_size`` rows, 512 as it is shipped."""

SCORE_BOUNDS = (
    0.0005,
    0.001,
    0.002,
    0.004,
    0.008,
    0.015,
    0.03,
    0.06,
    0.125,
    0.25,
    0.5,
    1.0,
    2.5,
    10.0,
)
"""Seconds. A batch of a small model takes 1 to 10 ms; by default it may take 10 s at most."""


@dataclass(frozen=True)
class Observed:
    """Observations so far: how many, their sum, and how many were at most each bound.

    ``buckets`` are (bound, count) with rising bounds, each count including the one before.
    """

    count: int = 0
    total: float = 0.0
    buckets: tuple[tuple[float, int], ...] = ()

    def since(self, before: "Observed") -> "Observed":
        """What came after ``before``, which was read off the same histogram."""
        return Observed(
            self.count - before.count,
            self.total - before.total,
            tuple(
                (bound, count - earlier)
                for (bound, count), (_, earlier) in zip(self.buckets, before.buckets, strict=True)
            ),
        )

    def quantile(self, share: float) -> float | None:
        """The value that this share (0 to 1) of the observations does not exceed; None without any.

        Within a bucket the observations count as evenly spread, as in Prometheus's
        ``histogram_quantile``; beyond the last bound it is that bound.
        """
        if not self.count:
            return None
        wanted, lower, below = share * self.count, 0.0, 0
        for bound, count in self.buckets:
            if count >= wanted and count > below:
                return lower + (bound - lower) * (wanted - below) / (count - below)
            lower, below = bound, count
        return lower


class Histogram:
    """Counts observations by size. One thread observes; any may read, and may find the sum one
    observation ahead of the counts, which no average notices."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(bounds) + 1)
        self._total = 0.0

    def observe(self, value: float) -> None:
        """One more."""
        self._total += value
        self._counts[bisect_left(self._bounds, value)] += 1

    def read(self) -> Observed:
        """What was observed so far."""
        counts = self._counts.copy()
        buckets, count = [], 0
        for bound, more in zip(self._bounds, counts, strict=False):
            count += more
            buckets.append((bound, count))
        return Observed(count + counts[-1], self._total, tuple(buckets))


class Meters:
    """What the answering loop measures: a batch at a time, never a request.

    The loop calls ``batch`` and ``swap``; any thread may read. Distributions say of themselves what a
    reader may find; ``swaps`` is replaced as a whole.
    """

    def __init__(self) -> None:
        self.batch_rows = Histogram(ROW_BOUNDS)
        self.score_seconds = Histogram(SCORE_BOUNDS)
        self.swaps: Mapping[str, Observed] = {}
        """How long the stages of swaps took that the loop knows of; how often, and seconds."""

    def batch(self, rows: int, score_seconds: float) -> None:
        """A batch of ``rows`` requests was scored, from the envelopes to the encoded answers."""
        self.batch_rows.observe(rows)
        self.score_seconds.observe(score_seconds)

    def swap(self, stage: str, seconds: float) -> None:
        """A stage of a swap took this long."""
        before = self.swaps.get(stage, Observed())
        self.swaps = {**self.swaps, stage: Observed(before.count + 1, before.total + seconds)}


class Meter(Generic[Name]):
    """Answers a second of each name, over at least most of an interval. ``now`` is a clock's seconds."""

    def __init__(self, interval_seconds: float, now: float) -> None:
        self._interval = interval_seconds
        self._since = now
        self._counted: dict[Name, int] = {}
        self._rates: dict[Name, float] = {}

    def measure(self, counts: Mapping[Name, int], now: float) -> dict[Name, float]:
        """The rates. A change announces in between, and gets those of before."""
        elapsed = now - self._since
        if elapsed >= 0.9 * self._interval:
            self._rates = {
                name: round(max(count - self._counted.get(name, 0), 0) / elapsed, 1)
                for name, count in counts.items()
            }
            self._since, self._counted = now, dict(counts)
        return {name: self._rates.get(name, 0.0) for name in counts}
