"""The structural base: level, weekday effects and the effects of flags of each series, in logs.

``log1p(units) ≈ level[series] + effect[series, weekday] + Σ lift[flag, series] × flag``, fitted by
backfitting. Recent days weigh more, by exponential decay. The weekday effects of a series are shrunk
toward those of its keys: the effects over all series of its last key, corrected by what the other keys
show. The lift of a flag, such as a promotion, is shrunk toward that of the last key. Sums avoid matrix
products on purpose: BLAS adds in an order that depends on its threads, plain sums do not.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trainer.keys import Floats, Ints, Keys

ROUNDS = 4
"""Rounds of backfitting; the third already changes nothing at the third digit."""


@dataclass(frozen=True)
class Pace:
    """How fast the base forgets, in days after which a day counts half, and how much it shrinks.

    ``shrinkage`` is the weight of the prior in weighted observations: of a weekday, of a flagged day.
    """

    effect_half_life: float
    level_half_life: float
    shrinkage: float


PACES = (
    Pace(effect_half_life=28.0, level_half_life=14.0, shrinkage=6.0),
    Pace(effect_half_life=56.0, level_half_life=42.0, shrinkage=10.0),
)
"""What is tried on the newest days of a panel: series that sell every day follow the first, series
that sell on one day in five say little about their own weekdays and need the second."""


@dataclass(frozen=True)
class Structure:
    """``level`` is ``[S]``, ``effect`` ``[S, 7]`` with mean 0 over the week, ``lifts`` ``[S]`` for each
    flag; all in logs."""

    level: Floats
    effect: Floats
    lifts: tuple[Floats, ...]


def fit_structure(
    keys: Keys, logs: Floats, weekdays: Ints, flags: Sequence[Floats], pace: Pace
) -> Structure:
    """The structure of ``logs`` ``[S, L]``; ``weekdays`` are ``[L]``, each of ``flags`` is ``[S, L]``."""
    age = np.arange(logs.shape[1])[::-1]
    weight = 0.5 ** (age / pace.effect_half_life)
    level_weight = 0.5 ** (age / pace.level_half_life)
    level_weight /= level_weight.sum()
    seen = np.array([weight[weekdays == day].sum() for day in range(7)])
    level = (logs * level_weight).sum(axis=1)
    effect = np.zeros((len(logs), 7))
    lifts = [np.zeros(len(logs)) for _ in flags]
    for _ in range(ROUNDS):
        lifted = _lifted(lifts, flags)
        weighted = (logs - level[:, None] - lifted) * weight
        sums = np.stack([weighted[:, weekdays == day].sum(axis=1) for day in range(7)], axis=1)
        prior = _prior(keys, sums, seen, pace.shrinkage)
        effect = _centred((sums + pace.shrinkage * prior) / (seen + pace.shrinkage))
        left = logs - level[:, None] - effect[:, weekdays]
        for number, flag in enumerate(flags):
            others = _lifted(
                [*lifts[:number], *lifts[number + 1 :]], [*flags[:number], *flags[number + 1 :]]
            )
            lifts[number] = _lift(keys, left - others, flag, weight, pace.shrinkage)
        left = logs - effect[:, weekdays] - _lifted(lifts, flags)
        level = (left * level_weight).sum(axis=1)
    return Structure(level=level, effect=effect, lifts=tuple(lifts))


def _lifted(lifts: Sequence[Floats], flags: Sequence[Floats]) -> Floats | float:
    total: Floats | float = 0.0
    for lift, flag in zip(lifts, flags, strict=True):
        total = total + lift[:, None] * flag
    return total


def _lift(keys: Keys, left: Floats, flag: Floats, weight: Floats, shrinkage: float) -> Floats:
    """The weighted slope of ``left`` on a flag, shrunk toward the slope over the last key."""
    total = weight.sum()
    flag_mean = (flag * weight).sum(axis=1, keepdims=True) / total
    left_mean = (left * weight).sum(axis=1, keepdims=True) / total
    together = ((flag - flag_mean) * (left - left_mean) * weight).sum(axis=1)
    spread = ((flag - flag_mean) ** 2 * weight).sum(axis=1)
    last = len(keys.names) - 1
    codes, values = keys.codes[last], len(keys.vocabulary[last])
    pooled = np.bincount(codes, together, values) / (np.bincount(codes, spread, values) + 1.0)
    lift: Floats = (together + shrinkage * pooled[codes]) / (spread + shrinkage)
    return lift


def _prior(keys: Keys, sums: Floats, seen: Floats, shrinkage: float) -> Floats:
    """Weekday effects ``[S, 7]`` that the keys of each series suggest."""
    *others, last = range(len(keys.names))
    pooled = _centred(keys.key_means(last, sums) / np.maximum(seen, 1e-9))
    prior: Floats = pooled[keys.codes[last]]
    for key in others:
        series = np.bincount(keys.codes[key], minlength=len(keys.vocabulary[key]))[:, None]
        left = keys.key_means(key, sums - prior * seen) * series
        prior = prior + (left / (seen * series + shrinkage * 5))[keys.codes[key]]
    return prior


def _centred(effect: Floats) -> Floats:
    centred: Floats = effect - effect.mean(axis=1, keepdims=True)
    return centred
