"""The structural base: level and weekday effects of each series on the log scale.

``log1p(units) ≈ level[series] + effect[series, weekday]``, fitted by backfitting. Recent days weigh
more, by exponential decay. The weekday effects of a series are shrunk toward those of its keys: the
effects over all series of its last key, corrected by what the other keys show. Sums avoid matrix
products on purpose: BLAS adds in an order that depends on its threads, plain sums do not.
"""

from dataclasses import dataclass

import numpy as np

from trainer.keys import Floats, Ints, Keys

EFFECT_HALF_LIFE = 56.0
"""Days after which a day counts half for the weekday effects."""

LEVEL_HALF_LIFE = 42.0
"""Days after which a day counts half for the level. Sparse series need a slow one."""

SHRINKAGE = 10.0
"""Weight of the prior in weighted observations of a weekday: a series that sells on one day in
five says little about its own weekdays."""

ROUNDS = 4
"""Rounds of backfitting; the third already changes nothing at the third digit."""


@dataclass(frozen=True)
class Structure:
    """``level`` is ``[S]``, ``effect`` ``[S, 7]`` with mean 0 over the week; both in logs."""

    level: Floats
    effect: Floats


def fit_structure(keys: Keys, logs: Floats, weekdays: Ints) -> Structure:
    """Level and weekday effects of ``logs`` ``[S, L]``, whose days have ``weekdays`` ``[L]``."""
    age = np.arange(logs.shape[1])[::-1]
    weight = 0.5 ** (age / EFFECT_HALF_LIFE)
    level_weight = 0.5 ** (age / LEVEL_HALF_LIFE)
    level_weight /= level_weight.sum()
    seen = np.array([weight[weekdays == day].sum() for day in range(7)])
    level = (logs * level_weight).sum(axis=1)
    effect = np.zeros((len(logs), 7))
    for _ in range(ROUNDS):
        weighted = (logs - level[:, None]) * weight
        sums = np.stack([weighted[:, weekdays == day].sum(axis=1) for day in range(7)], axis=1)
        prior = _prior(keys, sums, seen)
        effect = _centred((sums + SHRINKAGE * prior) / (seen + SHRINKAGE))
        level = ((logs - effect[:, weekdays]) * level_weight).sum(axis=1)
    return Structure(level=level, effect=effect)


def _prior(keys: Keys, sums: Floats, seen: Floats) -> Floats:
    """Weekday effects ``[S, 7]`` that the keys of each series suggest."""
    *others, last = range(len(keys.names))
    pooled = _centred(keys.key_means(last, sums) / np.maximum(seen, 1e-9))
    prior: Floats = pooled[keys.codes[last]]
    for key in others:
        series = np.bincount(keys.codes[key])[:, None]
        left = keys.key_means(key, sums - prior * seen) * series
        prior = prior + (left / (seen * series + SHRINKAGE * 5))[keys.codes[key]]
    return prior


def _centred(effect: Floats) -> Floats:
    centred: Floats = effect - effect.mean(axis=1, keepdims=True)
    return centred
