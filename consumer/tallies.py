"""Tallies: what this instance did for each version under each rollout, for the fleet status.

A tally counts from the first answer under its rollout (0: no rollout moves traffic). Kept are only those
of the rollout that the snapshot belongs to, so that there are never more than a few.
"""

from collections.abc import Hashable, Mapping
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
