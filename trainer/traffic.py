"""Traffic: how many more or fewer customers than usual each store will have, day by day.

A daily series that many sales share, such as a store's transactions, is often known for years before the
panel. What it says of paydays, holidays and the season is learned there, once for all series of a store:

1. The excess is ``log1p(traffic)`` less its mean of 28 days and less the weekday's deviation from it.
2. Boosted trees forecast it for each step ahead, from the calendar, the place, the last weeks and the
   same weekday a year before, or the newest whole number of years that lies at or before the origin.
3. They are fitted on days up to ``until``, which lies before the oldest origin that the estimator
   trains on. So the forecasts that it trains on are as good, and as bad, as those that it serves with.
4. A forecast as of an origin reads no traffic after it.

The table of the excess, ``[values of the key, horizon]``, is one more lookup. It never becomes ONNX.
"""

from dataclasses import dataclass

import numpy as np
from sklearn.ensemble import HistGradientBoostingRegressor

from trainer.calendar import calendar, local_holidays
from trainer.keys import Floats, Ints
from trainer.panel import Flags, Panel, Traffic, weekday

WINDOW = 28
YEAR = 364
"""Days to the same weekday of the year before."""

LEAST_DAYS = 240
"""Days up to ``until`` below which nothing is learned from traffic."""

LEAST_ORIGIN_DAYS = 4 * WINDOW
"""Days that origins are taken from. Each needs days before it for its means and a horizon after it, so
that with a horizon beyond 72 days ``LEAST_DAYS`` are too few."""

YEAR_LENGTH = 365.25

ORIGIN_STEP = 5
"""Days between the origins that are learned from; prime to a week, so that all weekdays come."""

LIMIT = 1.0
"""An excess beyond this (a factor of e) is a closed store or an error."""


@dataclass(frozen=True)
class TrafficForecaster:
    """Forecasts the excess of one panel's traffic.

    ``seen`` ``[columns]`` are those that had a value while learning: with less than a year of traffic
    there is none of a year before.
    """

    traffic: Traffic
    panel: Panel
    places: Floats
    seen: Flags
    regressor: HistGradientBoostingRegressor

    def excess(self, origin_day: int) -> Floats:
        """The excess for each step after a day since 1970-01-01, ``[values, horizon]``."""
        columns = self._columns(origin_day)
        found = self.regressor.predict(columns.reshape(-1, columns.shape[2])[:, self.seen])
        return np.asarray(found, dtype=np.float64).reshape(columns.shape[:2])

    def _columns(self, origin_day: int) -> Floats:
        return _columns(self.traffic, self.panel, self.places, origin_day)


def fit_traffic(panel: Panel, until: int, seed: int) -> TrafficForecaster | None:
    """What traffic up to day ``until`` (since 1970-01-01) teaches; None where it is too little."""
    traffic = panel.traffic
    least = max(LEAST_DAYS, 2 * WINDOW + panel.horizon + LEAST_ORIGIN_DAYS)
    if traffic is None or until - traffic.first_day + 1 < least:
        return None
    places = _places(panel, traffic.key)
    columns, targets = [], []
    first = traffic.first_day + 2 * WINDOW
    for origin in range(first, until - panel.horizon + 1, ORIGIN_STEP):
        usual, deviation = _usual(traffic, origin)
        steps = origin + 1 + np.arange(panel.horizon)
        excess = _logs(traffic, steps) - usual[:, None] - deviation[:, weekday(steps)]
        # Closed stores and days without a row teach nothing.
        known = np.isfinite(excess) & (excess > -1.5 * LIMIT)
        columns.append(_columns(traffic, panel, places, origin)[known])
        targets.append(excess[known])
    target = np.concatenate(targets)
    if not len(target):  # no day with traffic has four weeks of it before
        return None
    regressor = HistGradientBoostingRegressor(
        max_iter=300,
        learning_rate=0.06,
        max_leaf_nodes=31,
        min_samples_leaf=60,
        l2_regularization=5,
        early_stopping=False,
        random_state=seed,
    )
    matrix = np.concatenate(columns)
    seen: Flags = np.any(np.isfinite(matrix), axis=0)
    regressor.fit(matrix[:, seen], target.clip(-LIMIT, LIMIT))
    return TrafficForecaster(traffic, panel, places, seen, regressor)


def _columns(traffic: Traffic, panel: Panel, places: Floats, origin: int) -> Floats:
    """``[values, horizon, columns]`` as of an origin."""
    count, horizon = len(traffic.values), panel.horizon
    days = origin + 1 + np.arange(horizon)
    usual, deviation = _usual(traffic, origin)
    week = _mean(_logs(traffic, origin - np.arange(7)[::-1]))
    shape = (count, horizon)
    of_value = [week - usual, usual, *places.T]
    of_day = [np.arange(1, horizon + 1), weekday(days), days % YEAR_LENGTH]
    of_day += [*calendar(days, panel.holidays).T]
    local = local_holidays(traffic.key, days, panel.holidays)
    columns = [
        *(np.broadcast_to(column[:, None], shape) for column in of_value),
        *(np.broadcast_to(column, shape) for column in of_day),
        np.zeros(shape) if local is None else local,
        deviation[:, weekday(days)],
        _a_year_before(traffic, origin, days),
    ]
    return np.stack(columns, axis=2).astype(np.float64)


def _a_year_before(traffic: Traffic, origin: int, days: Ints) -> Floats:
    """Rule 4 holds beyond a year ahead too: a step's day of the year before may not have come yet."""
    shift = YEAR * -(-(days - origin) // YEAR)
    usual = np.stack([_usual(traffic, origin - each)[0] for each in np.unique(shift)], axis=1)
    return _logs(traffic, days - shift) - usual[:, shift // YEAR - 1]


def _usual(traffic: Traffic, origin: int) -> tuple[Floats, Floats]:
    """The mean of four weeks, ``[values]``, and each weekday's deviation from it, ``[values, 7]``."""
    days = origin - np.arange(WINDOW)[::-1]
    logs = _logs(traffic, days)
    usual = _mean(logs)
    of_week = weekday(days)
    by_day = [_mean(logs[:, of_week == day]) - usual for day in range(7)]
    return usual, np.stack(by_day, axis=1)


def _logs(traffic: Traffic, days: Ints) -> Floats:
    """``log1p`` of the traffic on days since 1970-01-01, NaN where there is none, ``[values, days]``."""
    columns = days - traffic.first_day
    inside = (columns >= 0) & (columns < traffic.values.shape[1])
    found = np.full((len(traffic.values), len(days)), np.nan)
    found[:, inside] = np.log1p(traffic.values[:, columns[inside]].astype(np.float64))
    return found


def _mean(values: Floats) -> Floats:
    """The mean of what is there, NaN where nothing is."""
    there = np.isfinite(values)
    count = there.sum(axis=1)
    total = np.where(there, values, 0.0).sum(axis=1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _places(panel: Panel, key: str) -> Floats:
    """The codes of the attributes of a key's values, ``[values, attributes]``."""
    found = [each.codes.astype(np.float64) for each in panel.attributes if each.key == key]
    values = len(panel.keys.vocabulary[panel.keys.names.index(key)])
    return np.stack(found, axis=1) if found else np.zeros((values, 0))
