"""The calendar: what is known of a day without any sales, and for holidays of a day at a place.

Columns of a day: its day of the month, days since and until the next payday (the 15th and the last of
the month, when most of a month's wages are paid in much of the world), whether it is a holiday
everywhere, days from the nearest one (9 beyond four), whether it lies in a long weekend, its month.
"""

import numpy as np

from trainer.keys import Floats, Ints
from trainer.panel import Holidays, weekday

COLUMNS = (
    "day_of_month", "since_payday", "until_payday", "holiday", "from_holiday", "long_weekend", "month",
)  # fmt: skip

NEAR = 4
"""Days around a holiday that people shop differently on."""

FAR = 9.0
"""The distance of a day that is near none."""

_PAYDAY = 15


def calendar(days: Ints, holidays: Holidays | None) -> Floats:
    """The ``COLUMNS`` of days since 1970-01-01, ``[days, columns]``."""
    dates = days.astype("datetime64[D]")
    months = dates.astype("datetime64[M]")
    of_month = (dates - months).astype(np.int64) + 1
    length = ((months + 1).astype("datetime64[D]") - months.astype("datetime64[D]")).astype(
        np.int64
    )
    since = np.where(of_month >= _PAYDAY, of_month - _PAYDAY, of_month)
    since = np.where(of_month == length, 0, since)
    until = np.where(of_month <= _PAYDAY, _PAYDAY - of_month, length - of_month)
    columns = [of_month, since, until, *_around(days, holidays), months.astype(np.int64) % 12 + 1]
    return np.stack([np.asarray(column, dtype=np.float64) for column in columns], axis=1)


def _around(days: Ints, holidays: Holidays | None) -> tuple[Floats, Floats, Floats]:
    """Holiday, distance from the nearest one, long weekend."""
    wide = np.arange(days.min() - NEAR, days.max() + NEAR + 1)
    free = np.zeros(len(wide), bool) if holidays is None else holidays.everywhere_on(wide)
    found = wide[free]
    distance = np.full(len(days), FAR)
    weekend = np.zeros(len(days))
    if len(found):
        gaps = days[:, None] - found
        nearest = gaps[np.arange(len(days)), np.abs(gaps).argmin(axis=1)]
        distance = np.where(np.abs(nearest) <= NEAR, nearest, FAR).astype(np.float64)
        # A Monday's holiday frees the weekend before it, a Friday's the one after.
        for day in found[np.isin(weekday(found), (0, 4))]:
            first = day - 2 if weekday(day) == 0 else day
            weekend[(days >= first) & (days <= first + 2)] = 1.0
    return np.isin(days, found).astype(np.float64), distance, weekend


def local_holidays(key: str, days: Ints, holidays: Holidays | None) -> Floats | None:
    """Whether a day is a holiday at each value of a key alone, ``[values, days]``; None without any."""
    if holidays is None or holidays.key != key:
        return None
    return holidays.local_on(days).astype(np.float64)
