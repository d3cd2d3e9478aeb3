"""Evaluation: the held-out days, and how wrong the model and the baselines are there.

Metrics, over N rows with actual ``a`` and prediction ``p`` in units:

- ``rmsle``: root of the mean of ``(log(1 + p) - log(1 + a))²``;
- ``wape``: sum of ``|p - a|`` over the sum of ``a``;
- ``bias``: sum of ``p`` over the sum of ``a``, less 1. Below 0 the model forecasts too little.

Baselines see what the model sees, the days up to the cutoff: ``mean-28-log`` answers the mean of
the last 28 days on the log scale, ``lag-7`` the same weekday of the last week.
"""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from trainer.keys import Floats, Ints
from trainer.panel import Panel


class Predictor(StrEnum):
    """Whose predictions are scored."""

    MODEL = "model"
    MEAN_28_LOG = "mean-28-log"
    LAG_7 = "lag-7"


@dataclass(frozen=True)
class HeldOut:
    """Raw inputs and actuals of the held-out days, ordered by day, then keys.

    ``columns`` holds ``[N]`` values of each key, ``days`` ``[N]`` days since 1970-01-01, ``actual``
    ``[N]`` units, ``baselines`` their predictions.
    """

    columns: dict[str, list[str]]
    days: Ints
    actual: Floats
    baselines: dict[Predictor, Floats]


def held_out(panel: Panel) -> HeldOut:
    """Every known series on every held-out day."""
    keys, start = panel.keys, panel.cutoff + 1
    days = panel.units.shape[1] - start
    columns = {
        name: [values[code] for code in codes] * days
        for name, values, codes in zip(keys.names, keys.vocabulary, keys.codes, strict=True)
    }
    mean_28 = np.expm1(panel.logs[:, start - 28 : start].mean(axis=1))
    last_week = panel.units[:, start - 7 : start]
    return HeldOut(
        columns=columns,
        days=np.repeat(panel.cutoff_day + 1 + np.arange(days), keys.series),
        actual=panel.units[:, start:].T.ravel(),
        baselines={
            Predictor.MEAN_28_LOG: np.tile(mean_28, days),
            Predictor.LAG_7: last_week[:, np.arange(days) % 7].T.ravel(),
        },
    )


def scores(actual: Floats, predicted: Floats) -> dict[str, float]:
    """The metrics of one predictor; ``actual`` must sum to more than 0."""
    difference = np.log1p(predicted) - np.log1p(actual)
    total = actual.sum()
    return {
        "rmsle": float(np.sqrt(np.mean(difference**2))),
        "wape": float(np.abs(predicted - actual).sum() / total),
        "bias": float(predicted.sum() / total - 1),
    }
