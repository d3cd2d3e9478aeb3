"""The outlook: the calendar by hand, and traffic that is forecast without looking ahead."""

from dataclasses import replace
from datetime import date

import numpy as np
import pytest

from tests.unit.trainer_panels import Facets, panel_with, recipe_of, scrambled_after
from trainer.calendar import COLUMNS, calendar, local_holidays
from trainer.estimator import fit
from trainer.keys import Ints
from trainer.outlook import Outlook, fit_outlook
from trainer.panel import Holidays, Panel, number_of
from trainer.traffic import LEAST_DAYS, fit_traffic
from trainer.training_rows import training_origins


def days(*dates: date) -> Ints:
    return np.array([number_of(day) for day in dates], dtype=np.int64)


def column(name: str, of: Ints, holidays: Holidays | None = None) -> list[float]:
    return [float(value) for value in calendar(of, holidays)[:, COLUMNS.index(name)]]


def holidays_on(*dates: date) -> Holidays:
    first = number_of(date(2024, 1, 1))
    everywhere = np.zeros(366, dtype=bool)
    everywhere[days(*dates) - first] = True
    local = np.zeros((2, 366), dtype=bool)
    local[1, 10] = True
    return Holidays(first, everywhere, "shop", local)


def test_paydays_are_the_fifteenth_and_the_last_of_the_month() -> None:
    """Days since one and until the next, in a month of 29 days too."""
    asked = days(
        date(2024, 2, 1), date(2024, 2, 15), date(2024, 2, 16), date(2024, 2, 28), date(2024, 2, 29)
    )
    assert column("since_payday", asked) == [1, 0, 1, 13, 0]
    assert column("until_payday", asked) == [14, 0, 13, 1, 0]
    assert column("day_of_month", asked) == [1, 15, 16, 28, 29]
    assert column("month", days(date(1969, 12, 31), date(2024, 1, 1))) == [12, 1]


def test_days_know_the_nearest_holiday() -> None:
    """Up to four days before and after; further away it is 9, as without holidays."""
    known = holidays_on(date(2024, 5, 1))
    asked = days(*(date(2024, 4, 26 + i) if i < 5 else date(2024, 5, i - 4) for i in range(11)))
    assert column("from_holiday", asked, known) == [9, -4, -3, -2, -1, 0, 1, 2, 3, 4, 9]
    assert column("holiday", asked, known) == [0] * 5 + [1] + [0] * 5
    assert column("from_holiday", asked) == [9] * 11


def test_holiday_on_monday_or_friday_makes_a_long_weekend() -> None:
    """The weekend beside it is part of it; a Wednesday makes none."""
    asked = days(*(date(2024, 7, i) for i in range(4, 16)))
    monday, friday = date(2024, 7, 8), date(2024, 7, 12)
    assert column("long_weekend", asked, holidays_on(monday)) == [0, 0, 1, 1, 1] + [0] * 7
    assert column("long_weekend", asked, holidays_on(friday)) == [0] * 8 + [1, 1, 1, 0]
    assert not any(column("long_weekend", asked, holidays_on(date(2024, 7, 10))))


def test_long_weekend_before_the_first_day_is_known() -> None:
    """A holiday beside the days asked for is looked at."""
    sunday = days(date(2024, 7, 7))
    assert column("long_weekend", sunday, holidays_on(date(2024, 7, 8))) == [1]
    assert column("from_holiday", sunday, holidays_on(date(2024, 7, 8))) == [-1]


def test_local_holidays_are_those_of_one_key() -> None:
    """The table of the key that they are tied to; none for another key."""
    known = holidays_on()
    found = local_holidays("shop", days(date(2024, 1, 10), date(2024, 1, 11)), known)
    assert found is not None
    assert found.tolist() == [[0, 0], [0, 1]]
    assert local_holidays("product", days(date(2024, 1, 10)), known) is None


def test_short_panel_has_no_calendar() -> None:
    """With months of sales the calendar would overfit: it comes with a year."""
    short = panel_with(Facets(holidays=True))
    assert fit_outlook(short, short.cutoff_day, 0).lookups(short.cutoff_day) == ()
    long = panel_with(Facets(products=2, days=400, holidays=True))
    found = fit_outlook(long, long.cutoff_day, 0).lookups(long.cutoff_day)
    assert [lookup.names for lookup in found] == [COLUMNS, ("key:shop:holiday",)]
    assert found[1].table.shape == (5 * 7, 1)
    assert not found[1].table[-7:].any()


@pytest.fixture(scope="module")
def busy() -> Panel:
    """Shops that are full on the days around the fifteenth, as their traffic shows for 300 days."""
    panel = panel_with(Facets(products=2, holidays=True, traffic=True))
    assert panel.traffic is not None
    source = panel.traffic
    known = source.first_day + np.arange(source.values.shape[1])
    since = calendar(known, None)[:, COLUMNS.index("since_payday")]
    values = source.values * np.exp(0.5 * (since <= 1))
    return replace(panel, traffic=replace(source, values=values.astype(np.float32)))


def test_traffic_tells_of_paydays(busy: Panel) -> None:
    """The excess that is forecast is high on paydays and near nothing on other days."""
    until = busy.first_day + 30
    forecaster = fit_traffic(busy, until, 0)
    assert forecaster is not None
    ahead = [origin + 1 + np.arange(busy.horizon) for origin in range(until, busy.cutoff_day, 5)]
    excess = np.stack([forecaster.excess(int(each[0]) - 1) for each in ahead])
    since = np.stack([calendar(each, None)[:, COLUMNS.index("since_payday")] for each in ahead])
    is_payday = np.broadcast_to((since <= 1)[:, None], excess.shape)
    assert excess[is_payday].mean() > 0.3
    assert abs(excess[~is_payday].mean()) < 0.1


def test_traffic_after_the_origin_changes_nothing(busy: Panel) -> None:
    """Neither what is learned, up to its last day, nor a forecast as of an origin."""
    until = busy.first_day + 30
    ours = fit_traffic(busy, until, 0)
    origin = until + 10
    other = scrambled_after(busy, origin - busy.first_day, 3)
    theirs = fit_traffic(other, until, 0)
    assert ours is not None
    assert theirs is not None
    assert np.array_equal(ours.excess(origin), theirs.excess(origin))
    assert not np.array_equal(ours.excess(origin + 5), theirs.excess(origin + 5))


def test_traffic_that_is_too_short_is_not_used(busy: Panel) -> None:
    """And a panel without any has none."""
    assert busy.traffic is not None
    assert fit_traffic(busy, busy.traffic.first_day + LEAST_DAYS - 2, 0) is None
    assert fit_traffic(replace(busy, traffic=None), busy.cutoff_day, 0) is None


def test_traffic_with_hardly_a_day_is_not_used(busy: Panel) -> None:
    """A table that begins early enough and has next to no rows: nothing can be learned from it."""
    assert busy.traffic is not None
    values = np.full_like(busy.traffic.values, np.nan)
    values[:, [0, -1]] = 7.0
    sparse = replace(busy, traffic=replace(busy.traffic, values=values))
    assert fit_traffic(sparse, busy.cutoff_day, 0) is None
    values[:, 100:160] = 7.0
    assert fit_traffic(sparse, busy.cutoff_day, 0) is not None


def test_excess_is_a_column_by_key_and_step(busy: Panel) -> None:
    """An unknown shop has the mean of all."""
    outlook: Outlook = fit_outlook(busy, busy.first_day + 30, 0)
    [lookup] = outlook.lookups(busy.cutoff_day)
    assert lookup.axes == ("key:shop", "step")
    assert lookup.names == ("traffic:visits",)
    table = lookup.table.reshape(5, 7)
    assert table[4] == pytest.approx(table[:4].mean(axis=0), abs=2e-3)


def test_shop_without_traffic_has_a_forecast() -> None:
    """A shop that has no row at all, and one that has zeros, are answered with a number."""
    panel = panel_with(Facets(products=2, traffic=True))
    assert panel.traffic is not None
    values = panel.traffic.values.copy()
    values[1] = np.nan
    values[2, -60:] = 0.0
    gaps = replace(panel, traffic=replace(panel.traffic, values=values))
    fitted = fit(gaps, recipe_of(corrected=False))
    assert all(np.isfinite(lookup.table).all() for lookup in fitted.lookups)
    forecaster = fit_traffic(gaps, gaps.first_day + 30, 0)
    assert forecaster is not None
    assert np.isfinite(forecaster.excess(gaps.cutoff_day)).all()


def test_traffic_teaches_before_the_oldest_origin() -> None:
    """So the forecasts that training rows carry are as good as those that are served."""
    panel = panel_with(Facets(products=2, traffic=True))
    fitted = fit(panel, recipe_of(corrected=False))
    assert (
        fitted.outlook_until
        == panel.first_day + min(training_origins(panel))
        == panel.first_day + 13
    )


def test_no_day_after_the_origin_is_read_more_than_a_year_ahead() -> None:
    """The same weekday a year before would lie after the origin; that of two years before does not."""
    panel = panel_with(Facets(shops=2, products=2, days=560, horizon=380, traffic=True))
    origin = panel.cutoff_day - 40
    ours = fit_traffic(panel, origin, 0)
    assert ours is not None
    assert ours.seen.all()
    other = scrambled_after(panel, origin - panel.first_day, 3).traffic
    assert other is not None
    assert np.array_equal(ours.excess(origin), replace(ours, traffic=other).excess(origin))


@pytest.mark.parametrize("horizon", [7, 250])
def test_traffic_has_days_for_the_horizon_or_is_not_used(horizon: int) -> None:
    """Each origin that is learned from has the days before it and a horizon after it."""
    panel = panel_with(Facets(shops=2, products=2, horizon=horizon, traffic=True))
    source = panel.traffic
    assert source is not None
    assert (fit_traffic(panel, source.first_day + 245, 0) is None) == (horizon > 7)
