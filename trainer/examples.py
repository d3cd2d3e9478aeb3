"""Examples: the series that a card shows, with their history, forecasts and what came.

1. The one that sold most, the typical one (median RMSLE), the best and the worst, each once.
2. A series qualifies by selling on at least half of the open held-out days: forecasting 0 for one that
   never sells is no feat. Where none does, all of them qualify.
3. Ties go to the first series, so that the same training shows the same ones.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from trainer.estimator import as_of
from trainer.evaluation import HeldOut
from trainer.keys import Floats, Ints
from trainer.panel import Flags, Panel
from trainer.requests import Forecasts
from trainer.training import Trained

HISTORY = 42
"""Days before the origin that are shown."""


@dataclass(frozen=True)
class Example:
    """One series: ``history`` up to the origin, then ``forecasts`` and ``actual`` on ``days``.

    Days are since 1970-01-01. ``keys`` are names and values of the data: to be escaped.
    """

    role: str
    keys: tuple[tuple[str, str], ...]
    rmsle: float
    history_days: Ints
    history: Floats
    days: Ints
    actual: Floats
    forecasts: Forecasts
    opened: Flags


def examples_of(
    panel: Panel, trained: Trained, held: HeldOut, answers: Forecasts | None
) -> tuple[Example, ...]:
    """The examples of a holdout, or of the newest fold where ``answers`` is None; none without both."""
    if answers is not None:
        return tuple(_examples(panel, held, answers))
    if not trained.backtest.folds:
        return ()
    fold = trained.backtest.folds[0]
    earlier = as_of(panel, fold.origin_day - panel.first_day)
    return tuple(_examples(earlier, fold.held, fold.answers[trained.backtest.chosen]))


def _examples(panel: Panel, held: HeldOut, answers: Forecasts) -> Iterator[Example]:
    count = panel.keys.series
    opened = held.opened.astype(np.float64)
    squares = (np.log1p(answers.sales) - np.log1p(held.actual)) ** 2 * opened
    rows = np.maximum(np.bincount(held.series, opened, minlength=count), 1)
    errors = np.sqrt(np.bincount(held.series, squares, minlength=count) / rows)
    selling = np.bincount(held.series, (held.actual > 0) * opened, minlength=count)
    units = np.bincount(held.series, held.actual, minlength=count)
    fit = np.flatnonzero(selling * 2 >= rows)
    fit = fit if len(fit) else np.arange(count)
    by_error = fit[np.argsort(errors[fit], kind="stable")]
    wanted = {
        "largest": fit[np.argmax(units[fit])],
        "typical": by_error[len(by_error) // 2],
        "best": by_error[0],
        "worst": by_error[-1],
    }
    shown: set[int] = set()
    for role, series in wanted.items():
        if int(series) not in shown:
            shown.add(int(series))
            yield _example(role, panel, held, answers, int(series), float(errors[series]))


def _example(
    role: str, panel: Panel, held: HeldOut, answers: Forecasts, series: int, error: float
) -> Example:
    keys = panel.keys
    rows = np.flatnonzero(held.series == series)
    columns = np.arange(max(0, panel.cutoff + 1 - HISTORY), panel.cutoff + 1)
    return Example(
        role=role,
        keys=tuple(
            (name, str(values[codes[series]]))
            for name, values, codes in zip(keys.names, keys.vocabulary, keys.codes, strict=True)
        ),
        rmsle=error,
        history_days=panel.first_day + columns,
        history=panel.units[series, columns].astype(np.float64),
        days=held.requests.days[rows],
        actual=held.actual[rows],
        forecasts=Forecasts(
            sales=answers.sales[rows],
            sales_p10=answers.sales_p10[rows],
            sales_p90=answers.sales_p90[rows],
            known_series=answers.known_series[rows],
            in_horizon=answers.in_horizon[rows],
        ),
        opened=held.opened[rows],
    )
