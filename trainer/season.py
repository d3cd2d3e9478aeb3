"""The season: how the days of a year differ from the year's mean, for panels of nearly two years or more.

The logs of each series are fitted by least squares over all its days with a level, a linear trend and a
short Fourier series in the day of the year, ``Σ a_k cos(2πkd/365.25) + b_k sin(2πkd/365.25)``: the trend
must be fitted beside the season, or over years that are not whole one is taken for the other. Rules:

1. The days are the same for all series, so the normal equations are solved once; the rest is plain
   sums, whose order no thread decides.
2. A coefficient of a series is shrunk toward the mean over its last key, and that one toward the mean
   over all, by what its noise says of it (empirical Bayes): sales of one series on some hundred days
   say little, those of all series of an item much.
3. A series that began to sell later than the panel says nothing of its own: its beginning would pass
   for a season. It has the season of its key.

The harmonics are smooth. What happens on single days, such as holidays, is for other features.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trainer.keys import Floats, Ints, Keys

LEAST_DAYS = 548
"""Days up to an origin: a year and a half. With fewer, trend and season cannot be told apart."""

LEAST_PANEL = LEAST_DAYS + 91
"""Days up to the cutoff from which on a panel has a season. The training needs origins from some months,
each with ``LEAST_DAYS`` before it, and the older folds of the backtest of a two-year panel have less."""

HARMONICS = 4
"""The fourth has a period of three months; with few years finer ones would learn single weeks."""

YEAR_LENGTH = 365.25

NOISE_DAYS = 3.0
"""Sales of neighbouring days are alike: so many days say as much as one that stands alone."""

BEGINNING = 28
"""Days at the start of a panel in which a series that was there sold."""


@dataclass(frozen=True)
class Season:
    """``coefficients`` ``[S, 2 × HARMONICS]``, whose profile's mean over a year is 0, and ``trend``
    ``[S]``, the growth a year; both in logs."""

    coefficients: Floats
    trend: Floats

    def at(self, days: Ints) -> Floats:
        """The season of days since 1970-01-01, ``[S, days]``, in logs."""
        total = np.zeros((len(self.coefficients), len(days)))
        for number, wave in enumerate(_waves(days)):
            total += self.coefficients[:, number : number + 1] * wave
        return total


def fit_season(keys: Keys, logs: Floats, first_day: int) -> Season:
    """The season of ``logs`` ``[S, L]`` from ``first_day`` on."""
    days = first_day + np.arange(logs.shape[1])
    years = (days - days.mean()) / YEAR_LENGTH
    columns = [np.ones(len(days)), years, *_waves(days)]
    products = np.array([[(one * other).sum() for other in columns] for one in columns])
    inverse = np.linalg.inv(products)
    found = np.empty((len(logs), len(columns)))
    left = logs.copy()
    for number, row in enumerate(inverse):
        solver = np.zeros(len(days))
        for factor, column in zip(row, columns, strict=True):
            solver += factor * column
        found[:, number] = (logs * solver).sum(axis=1)
    for number, column in enumerate(columns):
        left -= found[:, number : number + 1] * column
    noise = np.diag(inverse) * (left**2).mean(axis=1, keepdims=True) * NOISE_DAYS
    whole: npt.NDArray[np.bool_] = np.any(logs[:, :BEGINNING] > 0, axis=1)
    shrunk = _shrunk(keys, found[:, 1:], noise[:, 1:], whole)
    return Season(coefficients=shrunk[:, 1:], trend=shrunk[:, 0])


def _shrunk(keys: Keys, own: Floats, noise: Floats, whole: npt.NDArray[np.bool_]) -> Floats:
    """Rules 2 and 3, for ``own`` estimates and the variance of their ``noise``, both ``[S, k]``."""
    if not whole.any():
        return np.zeros_like(own)
    last = len(keys.names) - 1
    codes, values = keys.codes[last], len(keys.vocabulary[last])
    series = np.bincount(codes[whole], minlength=values)[:, None]
    sums, noises = np.zeros((values, own.shape[1])), np.zeros((values, own.shape[1]))
    np.add.at(sums, codes[whole], own[whole])
    np.add.at(noises, codes[whole], noise[whole])
    among = np.maximum(series, 1)
    means, overall = sums / among, own[whole].mean(axis=0)
    within = _signal(own[whole] - means[codes[whole]], noise[whole])
    of_mean = (noises / among + within) / among
    seen = series[:, 0] > 0
    between = _signal(means[seen] - overall, of_mean[seen])
    pooled = overall + (means - overall) * np.where(
        series > 0, between / (between + of_mean + 1e-12), 0.0
    )
    weight = np.where(whole[:, None], within / (within + noise + 1e-12), 0.0)
    shrunk: Floats = pooled[codes] + (own - pooled[codes]) * weight
    return shrunk


def _signal(deviations: Floats, noise: Floats) -> Floats:
    """What is left of the variance of ``deviations`` without their noise, ``[k]``, at least 0."""
    signal: Floats = np.maximum((deviations**2).mean(axis=0) - noise.mean(axis=0), 0.0)
    return signal


def _waves(days: Ints) -> list[Floats]:
    angle = 2.0 * np.pi * np.asarray(days, dtype=np.float64) / YEAR_LENGTH
    return [wave(k * angle) for k in range(1, HARMONICS + 1) for wave in (np.cos, np.sin)]
