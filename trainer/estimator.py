"""The estimator: what is learned from rows of many past origins, and the forecaster that comes of it.

Rules:

1. What is learned from are the rows of ``trainer.training_rows``, which end with the cutoff. Where no
   open day is left, there is no regressor, and the structural base stands alone.
2. With the loss ``log1p`` the regressor learns ``log1p(units)`` less the structural base, with squared
   loss; with ``count`` it learns units, with Poisson loss, whose graph needs an exponential of its own
   (``trainer.graph``). Features are cast to float32 first: the path that converts without a difference.
3. Rows are sampled to a budget: same panel, same seed, same forecaster.
4. What was learned is rounded to numbers that add up exactly (``trainer.sums``).
5. A number that no training row has a value of teaches nothing: the regressor splits nowhere on it, and
   answers as if a request left it out.

``Forecaster.predict`` is the Python pipeline from raw request fields to answers. It is what the
graph is compared with (``trainer.parity``) and what golden vectors are made of.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Protocol

import numpy as np
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import Ridge

from schemas.errors import ModelwireError
from trainer.history import (
    Lookup,
    axis_sizes,
    feature_names,
    full_lookups,
    gather,
    merged,
    plain_lookups,
)
from trainer.keys import Float32s, Floats, Ints, Keys
from trainer.outlook import Outlook, fit_outlook
from trainer.panel import Panel, weekday
from trainer.past import Demand, Past
from trainer.requests import Forecasts, Requests
from trainer.spread import Spread
from trainer.structural import Pace
from trainer.sums import make_exact
from trainer.training_rows import (
    SHORT_PAST,
    as_flag,
    flags_of,
    numbers_of,
    pairs,
    positions_on_axes,
    sample,
    training_origins,
)

ROW_BUDGET = 450_000
"""Training rows. On the excerpt of Favorita 250,000 are worse by .006 RMSLE."""

SPARSE_ROW_BUDGET = 150_000
"""Training rows of a sparse panel: 400,000 give the same error (UCI: RMSLE .830 to .832)."""

SPARSE = 0.5
"""Share of days without a sale from which on a panel is sparse."""

CAP_SHARE = 0.999
"""Counts above this quantile are cut to it in training: one order of thousands would move every tree."""


class Preset(StrEnum):
    """How much model to train."""

    PLAIN = "plain"
    FULL = "full"


class Loss(StrEnum):
    """What the regressor learns: ``log1p(units)``, or units by Poisson's loss."""

    LOG1P = "log1p"
    COUNT = "count"


@dataclass(frozen=True)
class Recipe:
    """What is decided before a training. Without ``corrected`` the structural base stands alone."""

    preset: Preset
    loss: Loss
    pace: Pace
    seed: int
    corrected: bool = True


class Regressor(Protocol):
    """What is used of a regressor that was trained: scikit-learn's, or one of ``trainer.lifted``."""

    def predict(self, features: Float32s) -> Floats: ...


class Trainable(Regressor, Protocol):
    """What is used of a scikit-learn regressor in training."""

    def fit(
        self, features: Floats, target: Floats, sample_weight: Floats | None = None
    ) -> object: ...


@dataclass(frozen=True)
class Forecaster:
    """A trained model, before it is a graph: tables as of the cutoff, a regressor and a spread.

    ``flags`` and ``numbers`` are the covariates that a request carries; ``closed`` is the one that says
    which days are closed, or empty. ``reads`` are the numbers that the regressor is given: a ridge
    regression takes no missing ones, so ``plain`` is given none.
    """

    keys: Keys
    cutoff_day: int
    horizon: int
    flags: tuple[str, ...]
    numbers: tuple[str, ...]
    reads: tuple[str, ...]
    closed: str
    lookups: tuple[Lookup, ...]
    regressor: Regressor | None
    loss: Loss
    spread: Spread

    @property
    def covariates(self) -> tuple[str, ...]:
        """The covariates that a request carries."""
        return (*self.flags, *self.numbers, *((self.closed,) if self.closed else ()))

    @property
    def features(self) -> tuple[str, ...]:
        """The columns of the matrix that the regressor reads."""
        return feature_names(self.lookups, self.reads)

    def predict(self, requests: Requests) -> Forecasts:
        """Answers to raw requests. A day outside the horizon is answered as the nearest day inside it."""
        codes = self.keys.encode(requests.columns)
        rows = self.keys.rows_of(codes)
        steps = requests.days - self.cutoff_day
        near = np.clip(steps, 1, self.horizon)
        logs = self._logs(requests, codes, rows, near)
        shut = as_flag(requests.covariates[self.closed]) if self.closed else np.zeros_like(rows)
        opened = 1.0 - shut
        scale = self.spread.scale[rows].astype(np.float64)
        quantiles = self.spread.quantiles[near - 1].astype(np.float64)
        return Forecasts(
            sales=np.expm1(logs) * opened,
            sales_p10=np.expm1(np.maximum(logs + scale * quantiles[:, 0], 0.0)) * opened,
            sales_p90=np.expm1(np.maximum(logs + scale * quantiles[:, 1], 0.0)) * opened,
            known_series=(rows < self.keys.series).astype(np.int64),
            in_horizon=(steps == near).astype(np.int64),
        )

    def matrix(self, requests: Requests) -> tuple[Float32s, Float32s]:
        """The regressor's matrix and the structural base of requests within the horizon."""
        codes = self.keys.encode(requests.columns)
        near = np.clip(requests.days - self.cutoff_day, 1, self.horizon)
        return self._gathered(requests, codes, self.keys.rows_of(codes), near)

    def _gathered(
        self, requests: Requests, codes: Ints, rows: Ints, near: Ints
    ) -> tuple[Float32s, Float32s]:
        flags = {name: as_flag(requests.covariates[name]) for name in self.flags}
        positions = positions_on_axes(self.keys, codes, rows, weekday(requests.days), near, flags)
        sizes = axis_sizes(self.keys, self.horizon, self.flags)
        numbers = [requests.covariates[name] for name in self.reads]
        return gather(self.lookups, positions, sizes, numbers)

    def _logs(self, requests: Requests, codes: Ints, rows: Ints, near: Ints) -> Floats:
        features, base = self._gathered(requests, codes, rows, near)
        return learned_logs(self.regressor, self.loss, features, base)


def learned_logs(
    regressor: Regressor | None, loss: Loss, features: Float32s, base: Float32s
) -> Floats:
    """Forecasts as ``log1p(units)``, ``[N]``."""
    if regressor is None:
        return np.maximum(base.astype(np.float64), 0.0)
    found = regressor.predict(features)
    if loss is Loss.COUNT:
        return np.log1p(found)
    return np.maximum(base + found, 0.0)


@dataclass(frozen=True)
class Fitted:
    """Tables and a regressor, without a spread yet; ``past`` is the one as of the cutoff.

    ``outlook_until`` is the last day, since 1970-01-01, that forecasts of traffic were learned from.
    """

    panel: Panel
    recipe: Recipe
    past: Past
    outlook_until: int
    lookups: tuple[Lookup, ...]
    regressor: Regressor | None

    def forecaster(self, spread: Spread) -> Forecaster:
        """The forecaster with a spread."""
        return Forecaster(
            keys=self.panel.keys,
            cutoff_day=self.panel.cutoff_day,
            horizon=self.panel.horizon,
            flags=flags_of(self.panel),
            numbers=numbers_of(self.panel),
            reads=_read(self.panel, self.recipe),
            closed=self.panel.closed_by,
            lookups=self.lookups,
            regressor=self.regressor,
            loss=self.recipe.loss,
            spread=spread,
        )


def fit(panel: Panel, recipe: Recipe, budget: int | None = None) -> Fitted:
    """Tables and a regressor for the days after the panel's cutoff, from the days up to it.

    ``budget`` is the most training rows; without one the panel decides.
    """
    demand = Demand.of(panel)
    origins = training_origins(panel)
    outlook = fit_outlook(panel, panel.first_day + min(origins), recipe.seed)
    regressor = None
    if recipe.corrected or recipe.preset is Preset.PLAIN:
        regressor = _fit_regressor(demand, outlook, origins, recipe, budget)
    past = Past.of(demand, panel.cutoff, recipe.pace)
    lookups = lookups_of(past, outlook, recipe)
    return Fitted(panel, recipe, past, outlook.until, lookups, regressor)


def refresh(
    panel: Panel, recipe: Recipe, regressor: Regressor | None, outlook_until: int
) -> Fitted:
    """The tables as of the panel's cutoff under a regressor that was trained before."""
    outlook = fit_outlook(panel, outlook_until, recipe.seed)
    past = Past.of(Demand.of(panel), panel.cutoff, recipe.pace)
    lookups = lookups_of(past, outlook, recipe)
    return Fitted(panel, recipe, past, outlook_until, lookups, regressor)


def _fit_regressor(
    demand: Demand,
    outlook: Outlook,
    origins: Iterable[int],
    recipe: Recipe,
    budget: int | None,
) -> Regressor | None:
    panel = demand.panel
    sparse = is_sparse(panel)
    budget = budget or (SPARSE_ROW_BUDGET if sparse else ROW_BUDGET)
    generator = np.random.default_rng(recipe.seed)
    sizes = axis_sizes(panel.keys, panel.horizon, flags_of(panel))
    origins = tuple(origins)
    share = min(1.0, budget / sum(pairs(panel, origin) for origin in origins))
    features: list[Float32s] = []
    targets: list[Floats] = []
    weights: list[Floats] = []
    for origin in origins:
        rows = sample(panel, origin, share, generator, _read(panel, recipe))
        lookups = lookups_of(Past.of(demand, origin, recipe.pace), outlook, recipe)
        gathered, base = gather(lookups, rows.positions, sizes, rows.numbers)
        features.append(gathered)
        targets.append(rows.units if recipe.loss is Loss.COUNT else np.log1p(rows.units) - base)
        weights.append(rows.weights)
    target: Floats = np.concatenate(targets)
    if not len(target) and recipe.preset is Preset.PLAIN:
        raise ModelwireError(
            "no series is open on any day that training could learn from, and without a regressor the "
            "preset plain has no answer",
            hint="mend the column that `closed` names, or use the preset full",
        )
    # Poisson's loss is not defined where nothing was sold.
    if not len(target) or (recipe.loss is Loss.COUNT and not target.any()):
        return None
    if recipe.loss is Loss.COUNT:
        target = np.minimum(target, np.quantile(target, CAP_SHARE))
    regressor = _regressor(recipe, sparse)
    # Widening changes no value. In float32 the sums of a linear fit would depend on BLAS' threads.
    matrix = np.concatenate(features).astype(np.float64)
    # Boosted trees have no bins for a column of missing values alone; a constant they never split on.
    matrix[:, np.isnan(matrix).all(axis=0)] = 0.0
    regressor.fit(matrix, target, sample_weight=np.concatenate(weights))
    make_exact(regressor)
    return regressor


def lookups_of(past: Past, outlook: Outlook, recipe: Recipe) -> tuple[Lookup, ...]:
    """The tables as of the past's origin."""
    if recipe.preset is Preset.PLAIN:
        return merged(plain_lookups(past))
    return merged((*full_lookups(past), *outlook.lookups(past.origin_day)))


def is_sparse(panel: Panel) -> bool:
    """Whether most open days of the newest half year have no sale."""
    newest = slice(max(0, panel.cutoff + 1 - SHORT_PAST), panel.cutoff + 1)
    unsold = panel.units[:, newest] == 0
    if panel.closed is not None:
        unsold = unsold[~panel.closed[:, newest]]
    return bool(unsold.size and unsold.mean() > SPARSE)


def _regressor(recipe: Recipe, sparse: bool) -> Trainable:
    if recipe.preset is Preset.PLAIN:
        plain: Trainable = Ridge(alpha=1.0)
        return plain
    boosted: Trainable = HistGradientBoostingRegressor(
        loss="poisson" if recipe.loss is Loss.COUNT else "squared_error",
        max_iter=200,
        learning_rate=0.05,
        max_leaf_nodes=15,
        # Where four rows in five are zeros small leaves would learn noise.
        min_samples_leaf=200 if sparse else 50,
        l2_regularization=10,
        max_features=0.4,
        early_stopping=False,
        random_state=recipe.seed,
    )
    return boosted


def _read(panel: Panel, recipe: Recipe) -> tuple[str, ...]:
    return () if recipe.preset is Preset.PLAIN else numbers_of(panel)


def as_of(panel: Panel, origin: int) -> Panel:
    """The same panel with its cutoff at an earlier column."""
    return replace(panel, cutoff=origin)
