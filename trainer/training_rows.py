"""Training rows: of which origins, series and target days, and where they lie on the axes of the tables.

1. A row has an origin, a series and a target day: its features are as of the origin, its target lies
   after the origin and **at or before the cutoff**. Nothing later is read. Closed days are no targets.
2. A share of the rows stands for keys that training does not know: such a row is answered from a cold
   row, so that unknown keys at serving time are nothing new to the regressor.
3. Rows are sampled by a seeded generator: same panel, same seed, same rows.

What is learned from them is ``trainer.estimator``'s.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from trainer.history import SERIES, STEP, WEEKDAY, flag_axis, key_axis
from trainer.keys import Float32s, Floats, Ints, Keys
from trainer.panel import CovariateKind, Panel
from trainer.season import LEAST_DAYS, LEAST_PANEL

MIN_PAST = 14
"""Fewest days before an origin."""

SHORT_PAST, LONG_PAST = 182, 730
"""Days of a panel up to which, and from which on, it counts as short, or as long."""

COLD_SHARE = 0.05
"""Share of training rows that stand for unknown keys."""


@dataclass(frozen=True)
class TrainingRows:
    """N training rows of one origin: positions on every axis, number covariates, units and weights."""

    positions: dict[str, Ints]
    numbers: list[Float32s]
    units: Floats
    weights: Floats


def training_origins(panel: Panel) -> list[int]:
    """Columns, the newest first. With a short past every other day teaches; with a longer one days a
    week apart do, each followed by the same weekdays; with years of it those of a year. Where the
    panel has a season, each has days enough before it for one.

    Where they would not reach back two horizons, they lie more weeks apart: a step ahead that no origin
    has a day for would never be learned."""
    known = panel.cutoff + 1
    if known < SHORT_PAST:
        return list(range(panel.cutoff - 1, min(MIN_PAST, panel.cutoff) - 2, -2))
    step, most = (7, 16) if known < LONG_PAST else (14, 26)
    oldest = LEAST_DAYS - 1 if known >= LEAST_PANEL else MIN_PAST - 1
    newest = panel.cutoff - 7
    wanted = min(2 * panel.horizon - 7, newest - oldest)
    step = max(step, 7 * -(-wanted // (7 * (most - 1))))
    return [origin for origin in range(newest, newest - step * most, -step) if origin >= oldest]


def pairs(panel: Panel, origin: int) -> int:
    """How many pairs of a series and a day up to the cutoff follow an origin."""
    return panel.keys.series * min(panel.horizon, panel.cutoff - origin)


def sample(
    panel: Panel, origin: int, share: float, generator: np.random.Generator, read: tuple[str, ...]
) -> TrainingRows:
    """A share of the pairs of a series and an open target day that follow an origin, with the numbers
    that are ``read``."""
    last = min(origin + panel.horizon, panel.cutoff)
    days = last - origin
    chosen = np.flatnonzero(generator.random(panel.keys.series * days) < share)
    series, columns = chosen // days, origin + 1 + chosen % days
    if panel.closed is not None:
        opened = ~panel.closed[series, columns]
        series, columns = series[opened], columns[opened]
    codes = panel.keys.codes[:, series]
    rows = _with_cold(panel.keys, series, codes, generator)
    given = {each.name: each.values[series, columns] for each in panel.covariates}
    flags = {name: as_flag(given[name]) for name in flags_of(panel)}
    weekdays = panel.weekdays(columns)
    return TrainingRows(
        positions=positions_on_axes(panel.keys, codes, rows, weekdays, columns - origin, flags),
        numbers=[given[name] for name in read],
        units=panel.units[series, columns].astype(np.float64),
        weights=np.ones(len(series)) if panel.weights is None else panel.weights[series],
    )


def _with_cold(keys: Keys, rows: Ints, codes: Ints, generator: np.random.Generator) -> Ints:
    """Rows of which some became cold; ``codes`` is changed in place where a key became unknown.

    A row that becomes cold loses one of its keys, or keeps them all in a combination that is new.
    """
    cold = np.flatnonzero(generator.random(len(rows)) < COLD_SHARE)
    loses = generator.integers(len(keys.names) + 1, size=len(cold))
    for key, size in enumerate(keys.sizes):
        codes[key, cold[loses == key]] = size - 1
    rows = rows.copy()
    rows[cold] = keys.rows_of(codes[:, cold])
    new = cold[loses == len(keys.names)]
    last = len(keys.names) - 1
    rows[new] = keys.cold_rows(last)[codes[last, new]]
    return rows


def positions_on_axes(
    keys: Keys, codes: Ints, rows: Ints, weekdays: Ints, steps: Ints, flags: Mapping[str, Ints]
) -> dict[str, Ints]:
    """Positions on every axis; ``steps`` are days after the origin, from 1."""
    by_key = {key_axis(name): codes[key] for key, name in enumerate(keys.names)}
    by_flag = {flag_axis(name): values for name, values in flags.items()}
    return {SERIES: rows, WEEKDAY: weekdays, STEP: steps - 1, **by_key, **by_flag}


def flags_of(panel: Panel) -> tuple[str, ...]:
    """The flags that features are made of: what says that a day is closed is none."""
    return tuple(
        each.name
        for each in panel.covariates
        if each.kind is CovariateKind.FLAG and each.name != panel.closed_by
    )


def numbers_of(panel: Panel) -> tuple[str, ...]:
    """The covariates that are numbers."""
    return tuple(each.name for each in panel.covariates if each.kind is CovariateKind.NUMBER)


def as_flag(values: Float32s) -> Ints:
    """A flag covariate as 0 or 1; what is missing is 0."""
    return (np.nan_to_num(values) > 0.5).astype(np.int64)
