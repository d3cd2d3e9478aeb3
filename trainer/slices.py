"""Slices: the groups of series that errors are broken down by.

1. The keys and attributes that the dataset names, and always the volume and the age of a series.
2. Volume and age are as of the origin: the days that are scored have no say in who is in which group.
3. Series of the same volume share a quintile, so quintiles of a panel with many equal series differ in
   size, and some may be empty.
4. A slice has at most ``MOST_GROUPS`` groups; the values that sold least share the last one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from schemas.evidence import SliceKind
from trainer.keys import Floats, Ints
from trainer.panel import Panel

RECENT = 28
"""Days before the origin that volume and age look at."""

MOST_GROUPS = 100

NEW, OLDER, UNSOLD = "new", "older", "unsold"
AGES = (NEW, OLDER, UNSOLD)
VOLUMES = ("1", "2", "3", "4", "5")


@dataclass(frozen=True)
class Grouping:
    """``codes`` ``[S]`` are positions in ``labels``; a last label that is ``pooled`` stands for many."""

    name: str
    kind: SliceKind
    labels: tuple[str, ...]
    codes: Ints
    pooled: int = 0


def groupings(panel: Panel, names: Sequence[str], units: Floats) -> Iterator[Grouping]:
    """The slices of a panel as of its cutoff. ``units`` ``[S]`` decides which values are told apart."""
    for name in names:
        yield _pooled(_named(panel, name), units)
    yield Grouping("volume", "volume", VOLUMES, volume_of(panel))
    yield Grouping("age", "age", AGES, age_of(panel))


def volume_of(panel: Panel) -> Ints:
    """The quintile of each series, 0 … 4, ``[S]``."""
    recent = panel.units[:, max(0, panel.cutoff + 1 - RECENT) : panel.cutoff + 1]
    mean = recent.mean(axis=1, dtype=np.float64)
    edges = np.quantile(mean, (0.2, 0.4, 0.6, 0.8))
    quintile: Ints = np.searchsorted(edges, mean, side="left").astype(np.int64)
    return quintile


def age_of(panel: Panel) -> Ints:
    """The position of each series' age in ``AGES``, ``[S]``."""
    known = panel.cutoff + 1
    old = np.zeros(panel.keys.series, dtype=bool)
    for start in range(0, max(0, known - RECENT), RECENT):
        old |= (panel.units[:, start : min(start + RECENT, known - RECENT)] > 0).any(axis=1)
    recent = (panel.units[:, max(0, known - RECENT) : known] > 0).any(axis=1)
    return np.where(old, AGES.index(OLDER), np.where(recent, AGES.index(NEW), AGES.index(UNSOLD)))


def _named(panel: Panel, name: str) -> Grouping:
    keys = panel.keys
    if name in keys.names:
        position = keys.names.index(name)
        labels = tuple(str(value) for value in keys.vocabulary[position])
        return Grouping(name, "key", labels, keys.codes[position])
    attribute = next(each for each in panel.attributes if each.name == name)
    codes = attribute.codes[keys.codes[keys.names.index(attribute.key)]]
    unknown = len(attribute.values)
    return Grouping(name, "attribute", (*attribute.values, ""), np.where(codes < 0, unknown, codes))


def _pooled(grouping: Grouping, units: Floats) -> Grouping:
    """Rule 4."""
    count = len(grouping.labels)
    if count <= MOST_GROUPS:
        return grouping
    sold = np.bincount(grouping.codes, weights=units, minlength=count)
    kept = np.sort(np.argsort(-sold, kind="stable")[: MOST_GROUPS - 1])
    place = np.full(count, len(kept))
    place[kept] = np.arange(len(kept))
    return Grouping(
        grouping.name,
        grouping.kind,
        (*(grouping.labels[position] for position in kept), ""),
        place[grouping.codes],
        pooled=count - len(kept),
    )
