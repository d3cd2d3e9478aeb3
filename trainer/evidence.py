"""Evidence: what the holdout and the backtest say of a training, in the form that a bundle keeps.

1. Everything is scored on open days. The predictors are the model, the structural base alone, the
   baselines and the references; those of a fold are also its other contenders.
2. The holdout is scored by the answers that the caller hands in: those of the exported graph, where
   there is one, so that the evidence is of what is released.
3. The intervals of a fold are made with quantiles from the folds before it, as those of the forecaster
   are made from the newest folds (``trainer.training``), or from as many of them as there are: which
   ones is said. The oldest fold has none.
4. Scores by value go to six significant digits (``schemas.evidence`` says why).

Importance and leakage have modules of their own (``trainer.importance``, ``trainer.leakage``).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from schemas.evidence import (
    MODEL,
    BacktestRecord,
    Evidence,
    Examined,
    Group,
    Importance,
    Leakage,
    Scores,
    Slice,
    Step,
)
from trainer.calibration import Answered, Residuals, calibration
from trainer.estimator import Forecaster, Preset, as_of
from trainer.evaluation import BASE, HeldOut, interval_scores, scores
from trainer.keys import Floats, Ints
from trainer.panel import Panel, day_of
from trainer.requests import Forecasts
from trainer.slices import Grouping, groupings
from trainer.spread import conformal
from trainer.training import Fold, Trained, calibrating, residuals_of

DIGITS = 6


def evidence_of(
    panel: Panel,
    trained: Trained,
    held: HeldOut,
    answers: Forecasts | None,
    slices: Sequence[str],
    importance: Importance | None = None,
    leakage: Leakage | None = None,
) -> Evidence:
    """The evidence of a training on ``panel``.

    ``answers`` are to ``held``, the held-out rows; None where nothing was held out. ``slices`` are the
    names of keys and attributes that the dataset gives.
    """
    recipe = trained.fitted.recipe
    share = panel.unit_share
    return Evidence(
        preset=recipe.preset.value,
        loss=recipe.loss.value,
        series=panel.keys.series,
        features=trained.forecaster.features,
        unit_share=_rounded(share) if np.isfinite(share) else None,
        holdout=None if answers is None else _holdout(panel, trained, held, answers, slices),
        backtest=_backtest(panel, trained, slices),
        importance=importance,
        leakage=leakage,
        notes=panel.notes,
    )


@dataclass(frozen=True)
class _Scored:
    """N open rows, and what each predictor says of them. ``intervals`` are the model's."""

    held: HeldOut
    opened: Ints
    predictions: Mapping[str, Floats]
    intervals: Forecasts | None

    def scores(self, rows: Ints) -> dict[str, Scores]:
        """Of some rows, by predictor; one that says nothing of them is left out."""
        found = {}
        for name, predicted in self.predictions.items():
            said = rows[np.isfinite(predicted[rows])]
            if not len(said):
                continue
            actual, weights = self.held.actual[said], self.held.weights[said]
            metrics = scores(actual, predicted[said], weights)
            if name == MODEL and self.intervals is not None:
                metrics |= interval_scores(actual, self.intervals.take(said))
            found[name] = Scores(
                rows=len(said), **{metric: _rounded(value) for metric, value in metrics.items()}
            )
        return found


def _holdout(
    panel: Panel, trained: Trained, held: HeldOut, answers: Forecasts, slices: Sequence[str]
) -> Examined:
    predictions = {MODEL: answers.sales.astype(np.float64)}
    if trained.fitted.recipe.preset is Preset.FULL:
        predictions[BASE] = _base(trained.forecaster, held)
    predictions |= held.others
    opened = np.flatnonzero(held.opened)
    scored = _Scored(held, opened, predictions, answers)
    answered = Answered(
        forecasts=answers.take(opened),
        actual=held.actual[opened],
        scale=trained.forecaster.spread.scale[held.series[opened]].astype(np.float64),
        steps=held.steps[opened],
    )
    learned_on = calibrating(trained.backtest.folds, panel.horizon)
    return _examined(panel, scored, slices, answered, learned_on, trained.backtest.chosen)


def _base(forecaster: Forecaster, held: HeldOut) -> Floats:
    _, base = forecaster.matrix(held.requests)
    alone: Floats = np.expm1(np.maximum(base.astype(np.float64), 0.0))
    return alone


def _backtest(panel: Panel, trained: Trained, slices: Sequence[str]) -> BacktestRecord:
    chosen, folds = trained.backtest.chosen, trained.backtest.folds
    return BacktestRecord(
        chosen=chosen,
        scores=_over_folds(folds, chosen),
        folds=tuple(
            _fold(panel, fold, calibrating(folds[number + 1 :], panel.horizon), chosen, slices)
            for number, fold in enumerate(folds)
        ),
    )


def _fold(
    panel: Panel, fold: Fold, before: Sequence[Fold], chosen: str, slices: Sequence[str]
) -> Examined:
    held, earlier = fold.held, as_of(panel, fold.origin_day - panel.first_day)
    opened = np.flatnonzero(held.opened)
    predictions = _predictions(fold, chosen)
    if not before:
        return _examined(earlier, _Scored(held, opened, predictions, None), slices, None, (), "")
    intervals = _with_intervals(fold, chosen, residuals_of(before, chosen), panel.horizon)
    answered = Answered(
        intervals.take(opened), held.actual[opened], fold.scale[opened], held.steps[opened]
    )
    scored = _Scored(held, opened, predictions, intervals)
    return _examined(earlier, scored, slices, answered, before, chosen)


def _predictions(fold: Fold, chosen: str) -> dict[str, Floats]:
    """The model first, then the contenders that were not chosen; the base alone is always there."""
    others = {
        name: each.sales for name, each in fold.answers.items() if name != chosen or name == BASE
    }
    return {MODEL: fold.answers[chosen].sales, **others, **fold.held.others}


def _over_folds(folds: Sequence[Fold], chosen: str) -> dict[str, Scores]:
    """Each predictor's scores over the open rows of all folds."""
    if not folds:
        return {}
    said = [_predictions(fold, chosen) for fold in folds]
    opened = [fold.held.opened for fold in folds]
    joined = [
        np.concatenate([rows[kept] for rows, kept in zip(columns, opened, strict=True)])
        for columns in (
            [fold.held.actual for fold in folds],
            [fold.held.weights for fold in folds],
        )
    ]
    found = {}
    for name in said[0]:
        columns = zip(said, opened, strict=True)
        predicted = np.concatenate([each[name][kept] for each, kept in columns])
        there = np.isfinite(predicted)
        if there.any():
            metrics = scores(joined[0][there], predicted[there], joined[1][there])
            found[name] = Scores(
                rows=int(there.sum()),
                **{metric: _rounded(value) for metric, value in metrics.items()},
            )
    return found


def _with_intervals(fold: Fold, chosen: str, learned: Residuals, horizon: int) -> Forecasts:
    answers = fold.answers[chosen]
    quantiles = conformal(learned.values, learned.steps, horizon)[fold.held.steps - 1]
    logs = np.log1p(answers.sales)[:, None] + fold.scale[:, None] * quantiles
    low, high = np.expm1(np.maximum(logs, 0.0)).T
    return Forecasts(answers.sales, low, high, answers.known_series, answers.in_horizon)


def _examined(
    panel: Panel,
    scored: _Scored,
    slices: Sequence[str],
    answered: Answered | None,
    learned_on: Sequence[Fold],
    chosen: str,
) -> Examined:
    """``answered`` are judged by quantiles that ``chosen`` gives on the folds ``learned_on``."""
    held, opened = scored.held, scored.opened
    days = held.requests.days
    units = np.zeros(panel.keys.series)
    np.add.at(units, held.series[opened], held.actual[opened])
    return Examined(
        origin=day_of(panel.cutoff_day).isoformat(),
        first=day_of(days[0]).isoformat(),
        last=day_of(days[-1]).isoformat(),
        rows=len(opened),
        closed_rows=len(held) - len(opened),
        scores=scored.scores(opened),
        steps=tuple(
            Step(step, scored.scores(rows)) for step, rows in _parts(held.steps[opened], opened)
        ),
        slices=tuple(
            _slice(scored, grouping, units) for grouping in groupings(panel, slices, units)
        ),
        calibration=()
        if answered is None or not len(opened)
        else calibration(
            answered,
            residuals_of(learned_on, chosen) if learned_on else None,
            panel.horizon,
        ),
        calibrated_on=tuple(day_of(fold.origin_day).isoformat() for fold in learned_on),
    )


def _slice(scored: _Scored, grouping: Grouping, units: Floats) -> Slice:
    last = len(grouping.labels) - 1
    series = np.bincount(grouping.codes, minlength=last + 1)
    sold = np.bincount(grouping.codes, weights=units, minlength=last + 1)
    of_rows = grouping.codes[scored.held.series[scored.opened]]
    return Slice(
        name=grouping.name,
        kind=grouping.kind,
        groups=tuple(
            Group(
                value=grouping.labels[code],
                series=int(series[code]),
                units=_rounded(sold[code]),
                scores=scored.scores(rows),
                pooled=grouping.pooled if code == last else 0,
            )
            for code, rows in _parts(of_rows, scored.opened)
        ),
    )


def _parts(codes: Ints, rows: Ints) -> list[tuple[int, Ints]]:
    """The rows of each code that there is, in the order of the codes."""
    order = np.argsort(codes, kind="stable")
    found, starts = np.unique(codes[order], return_index=True)
    parts = np.split(rows[order], starts[1:])
    return [(int(code), part) for code, part in zip(found, parts, strict=bool(len(found)))]


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
