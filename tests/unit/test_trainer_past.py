"""The past: what an origin knows, and what closed days do not say."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.trainer_panels import Facets, panel_with, recipe_of, scrambled_after
from trainer.estimator import _read, fit
from trainer.keys import Floats, Keys
from trainer.panel import Covariate, CovariateKind, Panel
from trainer.past import MAX_HISTORY, Demand, Past
from trainer.structural import PACES
from trainer.training_rows import sample, training_origins


def one_series(units: list[float], closed: list[int] | None = None) -> Panel:
    """A panel of one series whose first day is a Monday."""
    shut = None if closed is None else np.array([closed], dtype=bool)
    return Panel(
        keys=Keys(("shop",), (("a",),), np.zeros((1, 1), dtype=np.int64)),
        units=np.array([units], dtype=np.float32),
        first_day=19_723,
        cutoff=len(units) - 1,
        horizon=7,
        unit_share=1.0,
        closed=shut,
    )


def units_of(panel: Panel) -> list[float]:
    """Demand as units."""
    return [round(float(value), 3) for value in np.expm1(Demand.of(panel).logs[0])]


def test_demand_of_open_days_is_what_was_sold() -> None:
    """Without closed days nothing is filled in, and days of no sales stay."""
    assert units_of(one_series([3, 0, 7])) == [3, 0, 7]


def test_closed_day_takes_the_same_weekday_of_the_week_before() -> None:
    """One holiday in a month of open days."""
    week = [1.0, 2, 3, 4, 5, 6, 7]
    units, closed = week * 3, [0] * 21
    units[16], closed[16] = 0.0, 1
    assert units_of(one_series(units, closed)) == week * 3


def test_weekday_that_is_always_closed_takes_the_mean_of_the_week() -> None:
    """Sundays without a sale: their demand is that of the other days, never 0."""
    units, closed = [8.0, 8, 8, 8, 8, 8, 0] * 4, [0, 0, 0, 0, 0, 0, 1] * 4
    assert units_of(one_series(units, closed)) == [8.0] * 28


def test_closed_first_days_take_the_mean_of_the_first_open_ones() -> None:
    """Nothing lies before them."""
    units, closed = [0.0, 0, 5, 5, 5, 5, 5] + [5.0] * 14, [1, 1] + [0] * 19
    assert units_of(one_series(units, closed)) == [5.0] * 21


def test_panel_that_was_closed_from_its_first_day_on_has_no_demand() -> None:
    """A shop that opens later: no division by its open days."""
    units, closed = [0.0] * 20 + [5.0] * 8, [1] * 20 + [0] * 8
    assert units_of(one_series(units, closed)) == [0.0] * 20 + [5.0] * 8


def test_sales_on_a_closed_day_say_nothing() -> None:
    """What a closed day sold, an error or a delivery, is not demand."""
    units, closed = [4.0] * 21, [0] * 21
    units[20], closed[20] = 400.0, 1
    assert units_of(one_series(units, closed)) == [4.0] * 21


def test_demand_ends_with_the_cutoff() -> None:
    """Held-out days are not in it at all."""
    panel = panel_with(Facets())
    assert Demand.of(panel).logs.shape == (19, panel.cutoff + 1)


def test_past_looks_back_half_a_year() -> None:
    """Origins of a long panel see as many days as those of a short one."""
    panel = panel_with(Facets(shops=2, products=2, days=300))
    past = Past.of(Demand.of(panel), 250, PACES[0])
    assert past.logs.shape == (3, MAX_HISTORY)
    assert np.array_equal(past.logs[:, -1], np.log1p(panel.units[:, 250].astype(np.float64)))
    assert past.steps.tolist() == list(range(panel.first_day + 251, panel.first_day + 258))


def test_what_says_closed_is_no_flag() -> None:
    """The covariate of closed days makes no features: closed days have been taken away."""
    panel = panel_with(Facets(flag=True, closed=True))
    past = Past.of(Demand.of(panel), panel.cutoff, PACES[0])
    assert list(past.flags) == ["promotion"]
    lookups = fit(panel, recipe_of(corrected=False)).lookups
    assert not [name for lookup in lookups for name in lookup.names if "shut" in name]


def test_counts_of_the_past_by_hand() -> None:
    """Days since the last sale, weeks since the first, share of days without one."""
    panel = one_series([0.0] * 14 + [2.0] * 10 + [0.0] * 4)
    past = Past.of(Demand.of(panel), panel.cutoff, PACES[0])
    assert past.days_since_sale().tolist() == [4.0]
    assert past.weeks_on_sale().tolist() == [2.0]
    assert past.zeros(7).tolist() == [pytest.approx(4 / 7)]
    never = Past.of(Demand.of(one_series([0.0] * 28)), 27, PACES[0])
    assert (never.days_since_sale()[0], never.weeks_on_sale()[0]) == (28.0, 0.0)


def test_mean_at_a_flag_by_hand() -> None:
    """Days with the flag and days without each have their own mean; few days lean on the base."""
    flag = np.array([[0, 1] * 14], dtype=np.float32)
    units: Floats = np.expm1(1.0 + 2.0 * flag[0].astype(np.float64))
    panel = replace(
        one_series(units.tolist()),
        covariates=(Covariate("promotion", CovariateKind.FLAG, "", flag),),
    )
    [[without, with_flag]] = Past.of(Demand.of(panel), 27, PACES[0]).at_flag("promotion")
    assert without[0] == pytest.approx(1.0, abs=0.15)
    assert with_flag[0] == pytest.approx(3.0, abs=0.15)
    weights: Floats = 0.5 ** (np.arange(28)[::-1] / 21.0)
    assert with_flag[1] == pytest.approx(np.log1p(weights[1::2].sum()))


ROWS = panel_with(Facets(flag=True, number=True, closed=True, weights=True))


def rows(panel: Panel, origin: int, seed: int) -> list[Any]:
    """Training rows of an origin, as bytes."""
    generator = np.random.default_rng(seed)
    found = sample(panel, origin, 0.7, generator, _read(panel, recipe_of()))
    arrays: list[Any] = [
        *found.positions.values(),
        *found.numbers,
        found.units,
        found.weights,
    ]
    return [each.tobytes() for each in arrays]


@settings(max_examples=25, deadline=None)
@given(st.integers(20, ROWS.cutoff - 1), st.integers(0, 1000))
def test_training_rows_hold_nothing_of_days_after_the_cutoff(origin: int, seed: int) -> None:
    """Targets and covariates of training rows lie at or before the cutoff."""
    assert rows(ROWS, origin, seed) == rows(scrambled_after(ROWS, ROWS.cutoff, seed), origin, seed)


def test_training_rows_end_with_the_cutoff_and_skip_closed_days() -> None:
    """The last day before the cutoff teaches, no closed day does."""
    origin = ROWS.cutoff - 7
    generator = np.random.default_rng(0)
    found = sample(ROWS, origin, 1.0, generator, ("price",))
    steps, weekdays = found.positions["step"], found.positions["weekday"]
    assert set(steps.tolist()) == set(range(7)) - {
        step for step in range(7) if ROWS.weekdays(np.array([origin + 1 + step]))[0] == 6
    }
    assert 6 not in weekdays
    assert len(found.units) == 19 * 6
    assert set(found.weights.tolist()) == {1.0, 1.25}


@pytest.mark.parametrize(
    ("days", "least", "oldest"), [(90, 20, 13), (300, 16, 100), (800, 13, 547)]
)
def test_origins_have_a_past_and_a_future(days: int, least: int, oldest: int) -> None:
    """Each origin has days enough before it and at least one target before the cutoff."""
    panel = panel_with(Facets(shops=2, products=2, days=days))
    origins = training_origins(panel)
    assert len(origins) >= least
    assert min(origins) >= oldest - 1
    assert max(origins) < panel.cutoff
    assert origins == sorted(origins, reverse=True)


@pytest.mark.parametrize(
    ("cutoff", "horizon", "expected"),
    [
        (300, 16, range(293, 187, -7)),
        (300, 56, range(293, 187, -7)),
        (400, 120, range(393, 77, -21)),
        (200, 120, range(193, 12, -14)),
        (1200, 250, range(1193, 667, -21)),
    ],
)
def test_origins_reach_back_two_horizons(cutoff: int, horizon: int, expected: range) -> None:
    """Where the panel has the days: else steps far ahead would have no training rows."""
    panel = panel_with(Facets(shops=2, products=2, days=cutoff + 1, held_out=0, horizon=horizon))
    assert training_origins(panel) == list(expected)
