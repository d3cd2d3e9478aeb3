"""The estimator: training rows from many past origins, and the forecaster that comes of them.

Rules:

1. A training row has an origin, a series and a target day: its features are as of the origin, its
   target lies after the origin and **at or before the cutoff**. Nothing later is read.
2. The regressor learns ``log1p(units)`` less the structural base, from features cast to float32 and
   with squared loss: the path that converts to ONNX without a difference.
3. A share of the rows stands for keys that training does not know: such a row is answered from a
   cold row, so that unknown keys at serving time are nothing new to the regressor.
4. Rows are sampled to a budget by a seeded generator: same panel, same seed, same forecaster.

``Forecaster.predict`` is the Python pipeline from raw request fields to answers. It is what the
graph is compared with (``trainer.parity``) and what golden vectors are made of.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import Ridge

from trainer.history import (
    SERIES,
    STEP,
    WEEKDAY,
    Float32s,
    Lookup,
    Past,
    axis_sizes,
    full_lookups,
    gather,
    key_axis,
    plain_lookups,
)
from trainer.keys import Floats, Ints, Keys
from trainer.panel import Panel, weekday

ORIGIN_STEP = 7
"""Days between origins: a week, so that every origin is followed by the same weekdays."""

MAX_ORIGINS = 16
"""Origins reach back 16 weeks before the cutoff; older ones teach another season."""

MIN_PAST = 28
"""Fewest days before an origin: the longest window that features lean on."""

ROW_BUDGET = 150_000
"""Training rows. 100,000 to 400,000 give the same error on the shipped panel (RMSLE .830 to .832)."""

COLD_SHARE = 0.05
"""Share of training rows that stand for unknown keys."""


class Preset(StrEnum):
    """How much model to train."""

    PLAIN = "plain"
    FULL = "full"


class Regressor(Protocol):
    """What is used of a scikit-learn regressor."""

    def fit(self, features: Floats, target: Floats) -> object: ...

    def predict(self, features: Float32s) -> Floats: ...


@dataclass(frozen=True)
class Forecasts:
    """Answers to N requests: ``sales`` in units, the other two 1 for yes and 0 for no."""

    sales: Floats
    known_series: Ints
    in_horizon: Ints


@dataclass(frozen=True)
class Forecaster:
    """A trained model, before it is a graph: tables as of the cutoff, and a regressor."""

    keys: Keys
    cutoff_day: int
    horizon: int
    lookups: tuple[Lookup, ...]
    regressor: Regressor

    @property
    def features(self) -> int:
        """Columns of the matrix that the regressor reads."""
        return sum(len(lookup.names) for lookup in self.lookups)

    def predict(self, columns: Mapping[str, Sequence[str]], days: Ints) -> Forecasts:
        """Answers to raw requests: ``[N]`` for each key, and ``[N]`` days since 1970-01-01.

        A day outside the horizon is answered as the nearest day inside it, and says so.
        """
        codes = self.keys.encode(columns)
        rows = self.keys.row_map[tuple(codes)]
        steps = days - self.cutoff_day
        near = np.clip(steps, 1, self.horizon)
        positions = _positions(self.keys, codes, rows, weekday(days), near)
        features, base = gather(self.lookups, positions, axis_sizes(self.keys, self.horizon))
        logs = np.maximum(base + self.regressor.predict(features), 0.0)
        return Forecasts(
            sales=np.expm1(logs),
            known_series=(rows < self.keys.series).astype(np.int64),
            in_horizon=(steps == near).astype(np.int64),
        )


def train(panel: Panel, preset: Preset, seed: int) -> Forecaster:
    """A forecaster for the days after the panel's cutoff, from the days up to it."""
    generator = np.random.default_rng(seed)
    make_lookups = plain_lookups if preset is Preset.PLAIN else full_lookups
    sizes = axis_sizes(panel.keys, panel.horizon)
    features, targets = [], []
    origins = _origins(panel)
    share = min(1.0, ROW_BUDGET / sum(_pairs(panel, origin) for origin in origins))
    for origin in origins:
        rows = _sample(panel, origin, share, generator)
        lookups = make_lookups(Past.of(panel, origin))
        gathered, base = gather(lookups, rows.positions, sizes)
        features.append(gathered)
        targets.append(rows.logs - base)
    regressor = _regressor(preset, seed)
    # Widening changes no value. In float32 the sums of a linear fit would depend on BLAS' threads.
    regressor.fit(np.concatenate(features).astype(np.float64), np.concatenate(targets))
    return Forecaster(
        keys=panel.keys,
        cutoff_day=panel.cutoff_day,
        horizon=panel.horizon,
        lookups=make_lookups(Past.of(panel, panel.cutoff)),
        regressor=regressor,
    )


def _regressor(preset: Preset, seed: int) -> Regressor:
    regressor: Regressor = (
        Ridge(alpha=1.0)
        if preset is Preset.PLAIN
        else HistGradientBoostingRegressor(
            max_iter=200,
            learning_rate=0.05,
            max_leaf_nodes=15,
            min_samples_leaf=200,  # four rows in five are zeros: small leaves would learn noise
            l2_regularization=10,
            max_features=0.4,
            early_stopping=False,
            random_state=seed,
        )
    )
    return regressor


@dataclass(frozen=True)
class _Rows:
    """N training rows of one origin: positions on every axis, and the target in logs."""

    positions: dict[str, Ints]
    logs: Floats


def _origins(panel: Panel) -> list[int]:
    newest = panel.cutoff - ORIGIN_STEP
    oldest = max(MIN_PAST - 1, newest - ORIGIN_STEP * (MAX_ORIGINS - 1))
    return list(range(newest, oldest - 1, -ORIGIN_STEP))


def _pairs(panel: Panel, origin: int) -> int:
    return panel.keys.series * min(panel.horizon, panel.cutoff - origin)


def _sample(panel: Panel, origin: int, share: float, generator: np.random.Generator) -> _Rows:
    """A share of the pairs of a series and a target day that follow an origin."""
    last = min(origin + panel.horizon, panel.cutoff)
    days = last - origin
    chosen = np.flatnonzero(generator.random(panel.keys.series * days) < share)
    series, columns = chosen // days, origin + 1 + chosen % days
    codes = panel.keys.codes[:, series]
    rows = _with_cold(panel.keys, series, codes, generator)
    positions = _positions(panel.keys, codes, rows, panel.weekdays(columns), columns - origin)
    return _Rows(positions=positions, logs=np.log1p(panel.units[series, columns]))


def _with_cold(keys: Keys, rows: Ints, codes: Ints, generator: np.random.Generator) -> Ints:
    """Rows of which some became cold; ``codes`` is changed in place where a key became unknown.

    A row that becomes cold loses one of its keys, or keeps them all in a combination that is new.
    """
    cold = np.flatnonzero(generator.random(len(rows)) < COLD_SHARE)
    loses = generator.integers(len(keys.names) + 1, size=len(cold))
    for key, size in enumerate(keys.sizes):
        codes[key, cold[loses == key]] = size - 1
    rows = rows.copy()
    rows[cold] = keys.row_map[tuple(codes[:, cold])]
    new = cold[loses == len(keys.names)]
    last = len(keys.names) - 1
    rows[new] = keys.cold_rows(last)[codes[last, new]]
    return rows


def _positions(
    keys: Keys, codes: Ints, rows: Ints, weekdays: Ints, steps: npt.NDArray[np.int64]
) -> dict[str, Ints]:
    """Positions on every axis; ``steps`` are days after the origin, from 1."""
    by_key = {key_axis(name): codes[key] for key, name in enumerate(keys.names)}
    return {SERIES: rows, WEEKDAY: weekdays, STEP: steps - 1, **by_key}
