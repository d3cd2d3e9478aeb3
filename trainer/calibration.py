"""Calibration: whether as many actuals lie below a quantile as its name promises.

The model publishes two quantiles. The same residuals, those of the newest folds that a training did not
learn from, give every other one, so that a reader sees the whole shape: ``LEVELS``. Quantiles are
taken as the intervals are (``trainer.spread``): scaled by series, by steps ahead, at least 0.
"""

from dataclasses import dataclass

import numpy as np

from schemas.evidence import Quantile
from trainer.keys import Floats, Ints
from trainer.requests import Forecasts
from trainer.spread import BUCKETS, HIGH, LOW

LEVELS = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)


@dataclass(frozen=True)
class Residuals:
    """Residuals ``[N]`` in scales of their series, made ``steps`` ``[N]`` (from 1) ahead."""

    values: Floats
    steps: Ints


@dataclass(frozen=True)
class Answered:
    """Forecasts of N rows and what came: ``scale`` is of each row's series, ``steps`` from 1."""

    forecasts: Forecasts
    actual: Floats
    scale: Floats
    steps: Ints


def calibration(
    answered: Answered, learned: Residuals | None, horizon: int
) -> tuple[Quantile, ...]:
    """The published quantiles, and the others where there are residuals to learn them from."""
    published = {LOW: answered.forecasts.sales_p10, HIGH: answered.forecasts.sales_p90}
    found = []
    for level in LEVELS:
        if level in published:
            found.append(_observed(level, answered.actual, published[level]))
        elif learned is not None:
            found.append(_observed(level, answered.actual, _at(level, answered, learned, horizon)))
    return tuple(found)


def _at(level: float, answered: Answered, learned: Residuals, horizon: int) -> Floats:
    """The quantile of each row, in units."""
    everywhere = np.quantile(learned.values, level)
    by_bucket = np.array(
        [
            np.quantile(values, level) if len(values) else everywhere
            for number in range(BUCKETS)
            for values in [learned.values[_bucket(learned.steps, horizon) == number]]
        ]
    )
    shift = answered.scale * by_bucket[_bucket(answered.steps, horizon)]
    quantile: Floats = np.expm1(np.maximum(np.log1p(answered.forecasts.sales) + shift, 0.0))
    return quantile


def _bucket(steps: Ints, horizon: int) -> Ints:
    return np.minimum((steps - 1) * BUCKETS // horizon, BUCKETS - 1)


def _observed(level: float, actual: Floats, quantile: Floats) -> Quantile:
    return Quantile(
        nominal=level,
        below=round(float((actual < quantile).mean()), 6),
        at_or_below=round(float((actual <= quantile).mean()), 6),
    )
