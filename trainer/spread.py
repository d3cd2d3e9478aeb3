"""The spread: how far sales may lie from a forecast, as the two quantiles of an interval.

Split conformal prediction (Lei et al. 2018) in logs: on days that a forecaster did not learn from, the
residual of each row is divided by the scale of its series, and the quantiles of what comes are taken by
steps ahead. A forecast's interval is its log plus the scale of its series times those quantiles. Rules:

1. The scale of a series is the root of the mean square that the base leaves, shrunk toward its last key;
   that of a cold row is ``COLD_FACTOR`` times the mean over the series that it stands for.
2. The steps share ``BUCKETS`` quantiles, and a step that no residual comes from has its neighbour's.
   Without any residual they are ``USUAL``.
3. Scales and quantiles lie on the grid of ``trainer.history``.
"""

from dataclasses import dataclass

import numpy as np

from trainer.history import on_grid
from trainer.keys import Float32s, Floats, Ints
from trainer.past import Past

LOW, HIGH = 0.1, 0.9

BUCKETS = 4

USUAL = 1.2
"""The quantiles, in scales, of a panel that is too short for a fold: about those of a normal spread."""

COLD_FACTOR = 1.6
"""Measured: residuals of unknown series are so much wider than those of the known ones around them."""

SHRINKAGE_DAYS = 10.0
LEAST_SCALE = 0.1
"""Added to every scale, in logs: what a series will do is less sure than what it did."""


@dataclass(frozen=True)
class Spread:
    """``scale`` by row of the series axis, ``[rows]``; ``quantiles`` by step, ``[horizon, 2]``."""

    scale: Float32s
    quantiles: Float32s


def scale_of(past: Past) -> Float32s:
    """The scales as of the past's origin, ``[rows]``."""
    keys = past.keys
    days = past.residual.shape[1]
    own = (past.residual**2).mean(axis=1)
    last = len(keys.names) - 1
    pooled = keys.key_means(last, own)[keys.codes[last]]
    shrunk = (own * days + SHRINKAGE_DAYS * pooled) / (days + SHRINKAGE_DAYS)
    scale = keys.with_cold_rows(np.sqrt(shrunk) + LEAST_SCALE)
    scale[keys.series :] *= COLD_FACTOR
    return on_grid(scale)


def conformal(residuals: Floats, steps: Ints, horizon: int) -> Float32s:
    """The quantiles of scaled residuals ``[N]``, which were made so many ``steps`` (from 1) ahead."""
    if not len(residuals):
        return on_grid(np.tile([[-USUAL, USUAL]], (horizon, 1)))
    bucket = np.minimum((np.arange(horizon) * BUCKETS) // horizon, BUCKETS - 1)
    of_row = bucket[steps - 1]
    found: list[tuple[float, float] | None] = [
        (_quantile(residuals[of_row == number], LOW), _quantile(residuals[of_row == number], HIGH))
        if (of_row == number).any()
        else None
        for number in range(BUCKETS)
    ]
    for number in range(1, BUCKETS):
        found[number] = found[number] or found[number - 1]
    for number in reversed(range(BUCKETS - 1)):
        found[number] = found[number] or found[number + 1]
    return on_grid([found[number] for number in bucket])


def _quantile(values: Floats, share: float) -> float:
    """The conformal quantile: of N values the one whose rank is ``(N + 1) × share``, rounded outward."""
    count = len(values)
    rank = np.ceil((count + 1) * share) if share > 0.5 else np.floor((count + 1) * share)
    place = int(min(max(rank, 1), count)) - 1
    return float(np.partition(values, place)[place])
