"""The training: decides by backtest what to publish, then trains it on all days up to the cutoff.

1. The pace of the structural base is the one of ``PACES`` that forecasts the newest known days best. A
   fold chooses its own, as of its origin.
2. Each fold of the backtest stands at an earlier day: what could be published then answers for the
   days after it, up to the cutoff. No fold sees a day of its own test, and none a day after the cutoff.
   Folds lie a horizon apart, the newest first. One whose days are all closed would say nothing, and is
   left out.
3. Trees are published only if they win the backtest against the structural base alone: those on logs by
   RMSLE, those on counts, where counts are asked for, by WAPE + |bias|. Who asks for counts asks for
   volume, and WAPE alone is smallest for who forecasts far too little (UCI: counts have 1.04 and a bias
   of -.34, the base .94 and -.74). The loss ``auto`` takes the one with the smaller WAPE. Without folds
   the base is published, or counts where they are asked for. ``plain`` has no base to win against.
4. The residuals of the winner on the newest fold, scaled, give the quantiles of its intervals: an older
   fold is another season (measured: with two folds the intervals of a Christmas cover 2 % less). With a
   horizon below ``LEAST_FOLD_TEST`` the newest folds that have so many days together stand for it, and
   as many older ones, where the panel has the days, calibrate those.
5. Where no open day teaches a regressor, the base alone is published.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from trainer.calibration import Residuals
from trainer.dataset import LossChoice
from trainer.estimator import (
    Fitted,
    Forecaster,
    Loss,
    Preset,
    Recipe,
    as_of,
    fit,
    is_sparse,
)
from trainer.evaluation import BASE, HeldOut, held_out, scores
from trainer.keys import Floats
from trainer.panel import Panel
from trainer.requests import Forecasts
from trainer.spread import Spread, conformal, scale_of
from trainer.structural import PACES, Pace
from trainer.training_rows import SHORT_PAST

FOLDS = 2
"""Origins of the backtest, where there are days enough; with short horizons so many times the folds that
have ``LEAST_FOLD_TEST`` days together."""

LEAST_FOLD_PAST = 28
"""Days up to a fold's origin. With fewer there is nothing to train trees on."""

LEAST_FOLD_TEST = 4
"""Days of a fold's test, or with a shorter horizon of the newest folds' tests together."""

FOLD_PAST = 2 * SHORT_PAST // 3
"""Days up to the origin of every fold but the newest: older folds of a short panel are another model."""

ALONE, TREES, COUNTS, RIDGE = BASE, "trees", "trees-count", "ridge"
"""What the backtest chooses from: the base alone, trees on it, and trees on counts. ``plain`` has
a ridge regression alone."""


@dataclass(frozen=True)
class Fold:
    """One origin of the backtest: what was held out after it, and each contender's answers."""

    origin_day: int
    held: HeldOut
    answers: Mapping[str, Forecasts]
    scale: Floats
    """Of each row's series, ``[N]``, as of the origin."""


@dataclass(frozen=True)
class Backtest:
    """The folds, the newest first, and what they chose; without folds nothing was compared."""

    folds: tuple[Fold, ...]
    chosen: str

    def score(self, contender: str) -> dict[str, float]:
        """A contender's metrics over the open days of all folds."""
        rows = [(fold.held, fold.answers[contender].sales) for fold in self.folds]
        return scores(
            np.concatenate([held.actual[held.opened] for held, _ in rows]),
            np.concatenate([sales[held.opened] for held, sales in rows]),
            np.concatenate([held.weights[held.opened] for held, _ in rows]),
        )


@dataclass(frozen=True)
class Trained:
    """What a training gives: the forecaster, how it was fitted, and the backtest that chose it.

    ``tested`` is what was chosen as the newest fold has it: trained up to that fold's origin.
    """

    forecaster: Forecaster
    fitted: Fitted
    backtest: Backtest
    tested: Forecaster | None = None


def develop(
    panel: Panel,
    preset: Preset,
    choice: LossChoice,
    seed: int,
    progress: Callable[[str], None] = lambda line: None,
) -> Trained:
    """Chooses by backtest, trains up to the panel's cutoff, and calibrates the intervals."""
    folds = []
    newest: Mapping[str, Forecaster] = {}
    for origin in fold_origins(panel):
        progress(f"backtest: training up to {_day(panel, origin)}")
        pace = choose_pace(as_of(panel, origin))
        fold, forecasters = _fold(panel, origin, _contenders(preset, choice, pace, seed))
        folds.append(fold)
        newest = newest or forecasters
    contenders = _contenders(preset, choice, choose_pace(panel), seed)
    backtest = Backtest(tuple(folds), _choose(tuple(folds), contenders, choice))
    progress(f"training {backtest.chosen} on {panel.keys.series:,} series")
    fitted = fit(panel, contenders[backtest.chosen])
    if fitted.regressor is None and backtest.chosen != ALONE:
        progress(f"no open day teaches {backtest.chosen}: publishing {ALONE}")
        backtest = replace(backtest, chosen=ALONE)
        fitted = fit(panel, contenders[ALONE])
    left = residuals_of(calibrating(backtest.folds, panel.horizon), backtest.chosen)
    quantiles = conformal(left.values, left.steps, panel.horizon)
    spread = Spread(scale_of(fitted.past), quantiles)
    return Trained(fitted.forecaster(spread), fitted, backtest, newest.get(backtest.chosen))


def choose_pace(panel: Panel) -> Pace:
    """The pace whose base forecasts the newest days up to the cutoff best.

    Where they are too few to tell, sparse series have the slow one.
    """
    origins = fold_origins(panel)[: _newest(panel.horizon)]
    if not origins:
        return PACES[1] if is_sparse(panel) else PACES[0]
    panels = [as_of(panel, origin) for origin in origins]
    tests = [(earlier, held_out(earlier, panel.cutoff)) for earlier in panels]
    actual = np.concatenate([held.actual for _, held in tests])
    weights = np.concatenate([held.weights for _, held in tests])

    def error(pace: Pace) -> float:
        alone = Recipe(Preset.FULL, Loss.LOG1P, pace, 0, corrected=False)
        found = [
            _neutral(fit(earlier, alone)).predict(held.requests).sales for earlier, held in tests
        ]
        return scores(actual, np.concatenate(found), weights)["rmsle"]

    return min(PACES, key=error)


def fold_origins(panel: Panel) -> list[int]:
    """Columns at which the folds stand, the newest first; none where the panel is too short.

    The newest ones have ``LEAST_FOLD_TEST`` days of test together.
    """
    first = max(panel.cutoff - panel.horizon, LEAST_FOLD_PAST - 1)
    newest = [first - panel.horizon * number for number in range(_newest(panel.horizon))]
    if panel.cutoff - newest[-1] < LEAST_FOLD_TEST or newest[-1] < LEAST_FOLD_PAST - 1:
        return []
    older = [first - panel.horizon * number for number in range(len(newest), FOLDS * len(newest))]
    origins = [*newest, *(origin for origin in older if origin >= FOLD_PAST)]
    return [origin for origin in origins if _opens(panel, origin)]


def _newest(horizon: int) -> int:
    """How many folds have ``LEAST_FOLD_TEST`` days of test together."""
    return -(-LEAST_FOLD_TEST // horizon)


def _opens(panel: Panel, origin: int) -> bool:
    """Whether any series is open on a day of the test of a fold at this origin."""
    last = min(origin + panel.horizon, panel.cutoff)
    return panel.closed is None or not panel.closed[:, origin + 1 : last + 1].all()


def _contenders(preset: Preset, choice: LossChoice, pace: Pace, seed: int) -> dict[str, Recipe]:
    if preset is Preset.PLAIN:
        return {RIDGE: Recipe(preset, Loss.LOG1P, pace, seed)}
    found = {ALONE: Recipe(preset, Loss.LOG1P, pace, seed, corrected=False)}
    if choice is not LossChoice.COUNT:
        found[TREES] = Recipe(preset, Loss.LOG1P, pace, seed)
    if choice is not LossChoice.LOG1P:
        found[COUNTS] = Recipe(preset, Loss.COUNT, pace, seed)
    return found


def _fold(
    panel: Panel, origin: int, contenders: Mapping[str, Recipe]
) -> tuple[Fold, Mapping[str, Forecaster]]:
    """A fold, and each contender as it was trained for it."""
    earlier = as_of(panel, origin)
    held = held_out(earlier, panel.cutoff)
    fitted = {name: fit(earlier, recipe) for name, recipe in contenders.items()}
    forecasters = {name: _neutral(each) for name, each in fitted.items()}
    answers = {name: each.predict(held.requests) for name, each in forecasters.items()}
    scale = scale_of(next(iter(fitted.values())).past)[held.series].astype(np.float64)
    return Fold(earlier.cutoff_day, held, answers, scale), forecasters


def _neutral(fitted: Fitted) -> Forecaster:
    """A forecaster whose intervals say nothing yet."""
    horizon = fitted.panel.horizon
    flat = Spread(scale_of(fitted.past), np.zeros((horizon, 2), dtype=np.float32))
    return fitted.forecaster(flat)


def _choose(folds: Sequence[Fold], contenders: Mapping[str, Recipe], choice: LossChoice) -> str:
    backtest = Backtest(tuple(folds), "")
    by_volume = choice is LossChoice.COUNT and COUNTS in contenders
    if not folds:
        return COUNTS if by_volume else next(iter(contenders))
    if by_volume:
        return min(contenders, key=lambda name: _volume_error(backtest.score(name)))
    if choice is LossChoice.AUTO and COUNTS in contenders:
        log = min((ALONE, TREES), key=lambda name: backtest.score(name)["rmsle"])
        return min((log, COUNTS), key=lambda name: backtest.score(name).get("wape", np.inf))
    return min(contenders, key=lambda name: backtest.score(name)["rmsle"])


def _volume_error(metrics: Mapping[str, float]) -> float:
    """WAPE + |bias|; where nothing was sold there is neither."""
    return metrics.get("wape", np.inf) + abs(metrics.get("bias", np.inf))


def calibrating(folds: Sequence[Fold], horizon: int) -> Sequence[Fold]:
    """Those of ``folds``, the newest first, that quantiles for the days after them are learned from."""
    return folds[: _newest(horizon)]


def residuals_of(folds: Sequence[Fold], chosen: str) -> Residuals:
    """What a contender left on the open days of folds, in scales of each series."""
    left, steps = [np.zeros(0)], [np.zeros(0, dtype=np.int64)]
    for fold in folds:
        held, opened = fold.held, fold.held.opened
        residuals = np.log1p(held.actual) - np.log1p(fold.answers[chosen].sales)
        left.append((residuals / fold.scale)[opened])
        steps.append(held.steps[opened])
    return Residuals(np.concatenate(left), np.concatenate(steps))


def _day(panel: Panel, column: int) -> str:
    return str(np.datetime64(panel.first_day + column, "D"))
