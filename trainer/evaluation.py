"""Evaluation: days that a training did not see, and how wrong forecasts of them are.

Metrics, over N rows with actual ``a``, prediction ``p`` in units, an interval ``l`` … ``h``, and weights
``w`` (1 where the dataset gives none):

- ``rmsle``: root of the mean of ``(log(1 + p) - log(1 + a))²``;
- ``nwrmsle``: the same with the mean weighted by ``w`` (the error of the Favorita competition);
- ``wape``: sum of ``|p - a|`` over the sum of ``a``;
- ``bias``: sum of ``p`` over the sum of ``a``, less 1. Below 0 the model forecasts too little;
- ``pinball``: mean of the two quantile losses of ``l`` and ``h`` at their levels, in units;
- ``coverage``: share of rows with ``l <= a <= h``.

Baselines see what the model sees, the days up to the cutoff: ``lag-7`` answers the same weekday of the
last week, ``mean-14-log`` and ``mean-28-log`` the mean of so many days on the log scale. Predictions of
others count as 0 where they are less, as trees of other tools give them: nothing less can be sold.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from trainer.keys import Floats, Ints
from trainer.panel import Panel
from trainer.requests import Forecasts, Requests
from trainer.spread import HIGH, LOW

Metrics = dict[str, float]


class Baseline(StrEnum):
    """What anybody could answer without a model."""

    LAG_7 = "lag-7"
    MEAN_14_LOG = "mean-14-log"
    MEAN_28_LOG = "mean-28-log"


BASE = "structural-base"
"""The base alone, as a predictor and as a contender."""


@dataclass(frozen=True)
class HeldOut:
    """Raw requests and actuals of days after an origin, ordered by day, then series.

    ``series`` ``[N]`` is the row of each request's series in the panel, ``steps`` ``[N]`` its days after
    the origin; ``actual`` ``[N]`` units, ``weights`` ``[N]``, ``opened`` ``[N]`` whether the day was
    open; ``others`` are the predictions of baselines and references by name, NaN where there is none.
    """

    requests: Requests
    series: Ints
    steps: Ints
    actual: Floats
    weights: Floats
    opened: npt.NDArray[np.bool_]
    others: Mapping[str, Floats]

    def __len__(self) -> int:
        return len(self.actual)


def held_out(panel: Panel, last: int | None = None) -> HeldOut:
    """Every known series on the days after the panel's cutoff, up to the column ``last``.

    Without ``last`` these are all days that the panel has, at most its horizon.
    """
    keys, start = panel.keys, panel.cutoff + 1
    end = panel.units.shape[1] if last is None else last + 1
    end = min(end, start + panel.horizon)
    columns = np.repeat(np.arange(start, end), keys.series)
    series = np.tile(np.arange(keys.series), end - start)
    known = np.log1p(panel.units[:, max(0, start - 28) : start].astype(np.float64))
    lag = panel.cutoff - 6 + (columns - start) % 7
    others = {
        Baseline.LAG_7.value: panel.units[series, lag].astype(np.float64),
        Baseline.MEAN_14_LOG.value: np.expm1(known[:, -14:].mean(axis=1))[series],
        Baseline.MEAN_28_LOG.value: np.expm1(known.mean(axis=1))[series],
        **{
            name: np.maximum(values[series, columns].astype(np.float64), 0.0)
            for name, values in panel.references.items()
        },
    }
    return HeldOut(
        requests=Requests(
            columns={
                name: [values[code] for code in codes[series]]
                for name, values, codes in zip(keys.names, keys.vocabulary, keys.codes, strict=True)
            },
            days=panel.first_day + columns,
            covariates={each.name: each.values[series, columns] for each in panel.covariates},
        ),
        series=series,
        steps=columns - panel.cutoff,
        actual=panel.units[series, columns].astype(np.float64),
        weights=np.ones(len(series)) if panel.weights is None else panel.weights[series],
        opened=np.ones(len(series), dtype=bool)
        if panel.closed is None
        else ~panel.closed[series, columns],
        others=others,
    )


def scores(actual: Floats, predicted: Floats, weights: Floats) -> Metrics:
    """The metrics of one predictor; those in units are left out where nothing was sold."""
    squares = (np.log1p(predicted) - np.log1p(actual)) ** 2
    found = {
        "rmsle": float(np.sqrt(squares.mean())),
        "nwrmsle": float(np.sqrt((squares * weights).sum() / weights.sum())),
    }
    total = actual.sum()
    if total > 0:
        found["wape"] = float(np.abs(predicted - actual).sum() / total)
        found["bias"] = float(predicted.sum() / total - 1)
    return found


def interval_scores(actual: Floats, forecasts: Forecasts) -> Metrics:
    """The metrics of the intervals."""
    low, high = forecasts.sales_p10, forecasts.sales_p90
    return {
        "pinball": float((_pinball(actual, low, LOW) + _pinball(actual, high, HIGH)) / 2),
        "coverage": float(((low <= actual) & (actual <= high)).mean()),
    }


def _pinball(actual: Floats, quantile: Floats, level: float) -> float:
    """Koenker and Bassett (1978)."""
    over = actual - quantile
    return float(np.maximum(level * over, (level - 1) * over).mean())
