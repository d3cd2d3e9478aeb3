"""The leakage test: nothing that a training makes may depend on days that it must not see.

Everything after an origin is replaced by noise, and what was made before and after must be the same bit
for bit. Rules:

1. **Tables at earlier origins.** Training rows stand at origins before the cutoff, so a feature that
   looks one day ahead would see its own target there, and be worthless at the cutoff. The tables as
   of some such origins are made from the panel, and from the panel scrambled after the origin.
2. **The whole fit at the cutoff.** Days after the cutoff are scrambled, and predictions of others on
   all days: they are for comparison, and nobody may learn from them. Tables, scales, and the regressor's
   predictions must be the same; so must the rows that intervals are calibrated on.
3. A panel without days after its cutoff is tested a horizon before it, or less where no training row
   would have enough days before it.
4. What a request carries may be known in advance, but it has to come in the request: covariates after
   the origin are scrambled too. Keys, attributes, weights and the table of holidays are not, they have
   no date or are published long before.

What is done where a check fails is for the caller.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from schemas.evidence import Leakage, Unchanged
from trainer.estimator import Fitted, Recipe, as_of, lookups_of
from trainer.evaluation import HeldOut, held_out
from trainer.history import Lookup
from trainer.keys import Float32s
from trainer.outlook import Outlook, fit_outlook
from trainer.panel import Covariate, CovariateKind, Flags, Panel, Traffic, day_of
from trainer.past import Demand, Past
from trainer.spread import Spread, scale_of
from trainer.training_rows import MIN_PAST, training_origins

PROBES = 3
"""Earlier origins that tables are made at."""

PROBED_ROWS = 2_000
"""Requests that two regressors answer. Two that learned from other rows differ on nearly each."""


def leakage_test(
    panel: Panel, recipe: Recipe, fit: Callable[[Panel], Fitted], seed: int
) -> Leakage:
    """The verdict on a training by ``recipe``, which ``fit`` repeats up to a panel's cutoff.

    ``fit`` is called twice; it may sample fewer rows than the training did.
    """
    generator = np.random.default_rng(seed)
    if not panel.held_out:
        panel = as_of(panel, max(panel.cutoff - panel.horizon, MIN_PAST))
    checks = [
        *_tables_at_earlier_origins(panel, recipe, generator),
        *_fit_at_the_cutoff(panel, fit, generator),
    ]
    return Leakage(
        passed=all(check.same for check in checks),
        scrambled=tuple(_scrambled_names(panel)),
        checks=tuple(checks),
    )


def scrambled(panel: Panel, origin: int, generator: np.random.Generator) -> Panel:
    """The panel with noise after the column ``origin``; its cutoff is where it was."""
    return replace(
        panel,
        units=_noise_after(panel.units, origin, generator),
        covariates=tuple(_noisy(each, origin, generator) for each in panel.covariates),
        closed=None if panel.closed is None else _flipped(panel.closed, origin, generator),
        traffic=None
        if panel.traffic is None
        else _noisy_traffic(panel.traffic, panel.first_day + origin, generator),
        references={
            name: _noise_after(values, -1, generator) for name, values in panel.references.items()
        },
    )


def _noise_after(values: Float32s, column: int, generator: np.random.Generator) -> Float32s:
    """``[S, T]`` with counts that have nothing to do with it after a column."""
    future = values[:, column + 1 :]
    noise = generator.gamma(0.5, 20.0, future.shape).astype(np.float32)
    return np.concatenate([values[:, : column + 1], np.round(noise)], axis=1)


def _flipped(values: Flags, column: int, generator: np.random.Generator) -> Flags:
    future = generator.random(values[:, column + 1 :].shape) < 0.5
    return np.concatenate([values[:, : column + 1], future], axis=1)


def _noisy(covariate: Covariate, column: int, generator: np.random.Generator) -> Covariate:
    values = covariate.values
    if covariate.kind is CovariateKind.NUMBER:
        return replace(covariate, values=_noise_after(values, column, generator))
    flags = _flipped(values > 0.5, column, generator).astype(np.float32)
    flags[:, : column + 1] = values[:, : column + 1]
    return replace(covariate, values=flags)


def _noisy_traffic(traffic: Traffic, day: int, generator: np.random.Generator) -> Traffic:
    """With noise after a day since 1970-01-01, on which there may be none yet."""
    column = max(day - traffic.first_day, -1)
    return replace(traffic, values=_noise_after(traffic.values, column, generator))


def _scrambled_names(panel: Panel) -> Iterator[str]:
    yield "units"
    yield from (each.name for each in panel.covariates)
    if panel.closed is not None:
        yield "closed days"
    if panel.traffic is not None:
        yield panel.traffic.name
    yield from (f"{name} (all days)" for name in panel.references)


def _tables_at_earlier_origins(
    panel: Panel, recipe: Recipe, generator: np.random.Generator
) -> Iterator[Unchanged]:
    origins = probed_origins(panel)
    if not origins:
        return
    # Learned up to the day that the training learns up to, so that the same columns of traffic are read.
    # A probe before that day has one of its own: each lies before what is scrambled.
    learned = min(training_origins(panel))
    outlooks = {
        until: fit_outlook(panel, panel.first_day + until, recipe.seed)
        for until in {min(learned, origin) for origin in origins}
    }
    for origin in origins:
        noisy = scrambled(panel, origin, generator)
        outlook = outlooks[min(learned, origin)]
        same = same_tables(
            tables_as_of(panel, outlook, recipe, origin),
            tables_as_of(noisy, _reading(outlook, noisy), recipe, origin),
        )
        yield Unchanged(f"tables as of {day_of(panel.first_day + origin)}", same)


def probed_origins(panel: Panel) -> list[int]:
    """Columns before the cutoff, the newest first: a day, a horizon and half the panel before it."""
    wanted = (panel.cutoff - 1, panel.cutoff - panel.horizon, panel.cutoff // 2)
    # What is filled in for closed days of the first two weeks follows from those weeks as a whole.
    return sorted({origin for origin in wanted if origin >= 2 * 7}, reverse=True)[:PROBES]


def tables_as_of(panel: Panel, outlook: Outlook, recipe: Recipe, origin: int) -> tuple[Lookup, ...]:
    """The tables that training reads at an origin of a panel."""
    return lookups_of(Past.of(Demand.of(panel), origin, recipe.pace), outlook, recipe)


def _reading(outlook: Outlook, panel: Panel) -> Outlook:
    """What was learned, reading another panel."""
    learned = outlook.traffic
    if learned is not None and panel.traffic is not None:
        learned = replace(learned, traffic=panel.traffic, panel=panel)
    return replace(outlook, panel=panel, traffic=learned)


def _fit_at_the_cutoff(
    panel: Panel, fit: Callable[[Panel], Fitted], generator: np.random.Generator
) -> Iterator[Unchanged]:
    noisy = scrambled(panel, panel.cutoff, generator)
    usual, other = fit(panel), fit(noisy)
    day = day_of(panel.cutoff_day)
    yield Unchanged(f"tables as of {day}", same_tables(usual.lookups, other.lookups))
    yield Unchanged("scales", _same(scale_of(usual.past), scale_of(other.past)))
    yield Unchanged("regressor", _same_regressors(usual, other, panel))
    earlier = max(panel.cutoff - panel.horizon, 0)
    rows = [held_out(as_of(each, earlier), panel.cutoff) for each in (panel, noisy)]
    yield Unchanged("rows that intervals are calibrated on", _same_rows(*rows))


def same_tables(usual: Iterable[Lookup], other: Iterable[Lookup]) -> bool:
    """Whether both are the same columns with the same bits."""
    usual, other = tuple(usual), tuple(other)
    return len(usual) == len(other) and all(
        (one.axes, one.names, one.offsets) == (two.axes, two.names, two.offsets)
        and _same(one.table, two.table)
        for one, two in zip(usual, other, strict=True)
    )


def _same_regressors(usual: Fitted, other: Fitted, panel: Panel) -> bool:
    """Whether both answer alike; they read the same matrix, that of the usual one."""
    if usual.regressor is None or other.regressor is None:
        return usual.regressor is other.regressor
    requests = held_out(panel).requests
    every = max(1, len(requests) // PROBED_ROWS)
    neutral = Spread(scale_of(usual.past), np.zeros((panel.horizon, 2), dtype=np.float32))
    rows = np.arange(0, len(requests), every)
    matrix, _ = usual.forecaster(neutral).matrix(requests.take(rows))
    return _same(usual.regressor.predict(matrix), other.regressor.predict(matrix))


def _same_rows(usual: HeldOut, other: HeldOut) -> bool:
    return (
        _same(usual.actual, other.actual)
        and _same(usual.opened, other.opened)
        and _same(usual.requests.days, other.requests.days)
        and all(
            _same(values, other.requests.covariates[name])
            for name, values in usual.requests.covariates.items()
        )
    )


def _same(usual: npt.NDArray[np.generic], other: npt.NDArray[np.generic]) -> bool:
    return usual.shape == other.shape and usual.tobytes() == other.tobytes()
