"""The panel: all that the trainer knows of a dataset, as arrays. ``trainer.reading`` makes it.

S is the number of known series, T of days from ``first_day`` without gaps. A day number counts from
1970-01-01. Columns of ``[S, T]`` after ``cutoff`` are held out; there may be none, and never more
than ``horizon``.
"""

from dataclasses import dataclass, field
from datetime import date, timedelta
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from trainer.keys import Float32s, Floats, Ints, Keys

EPOCH = date(1970, 1, 1)

Flags = npt.NDArray[np.bool_]

MAX_KEY_LENGTH = 256
"""Longest key value, in characters; the contract allows requests no longer ones."""

MIN_HISTORY = 28
"""Fewest days up to the cutoff: four weeks, so that each weekday is seen four times."""


def day_of(number: int) -> date:
    """The date of a day number (days since 1970-01-01)."""
    return EPOCH + timedelta(days=int(number))


def number_of(day: date) -> int:
    """The day number of a date."""
    return (day - EPOCH).days


def weekday(days: Ints) -> Ints:
    """Weekday of days since 1970-01-01, Monday 0: that day was a Thursday."""
    return (days + 3) % 7


class CovariateKind(StrEnum):
    """What a covariate's values are: 0 or 1, or any finite number."""

    FLAG = "flag"
    NUMBER = "number"


@dataclass(frozen=True)
class Covariate:
    """A number for each series and day that is known in advance; a request carries it.

    ``values`` is ``[S, T]``. Where nothing is said, and on a day without a row, a flag is 0 and a
    number NaN.
    """

    name: str
    kind: CovariateKind
    description: str
    values: Float32s


@dataclass(frozen=True)
class Attribute:
    """What is known of the values of the key ``key``, such as the type of a store.

    ``values`` are its sorted distinct values as text; ``codes``, in the order of the key's
    vocabulary, is the position of each value's among them, and -1 where it is unknown.
    """

    name: str
    key: str
    values: tuple[str, ...]
    codes: Ints


@dataclass(frozen=True)
class Holidays:
    """Which days are holidays, from ``first_day`` on, for whom.

    ``everywhere`` is ``[days]``; ``local`` is ``[values, days]`` in the order of the vocabulary of
    the key ``key``, and has no rows where the key is empty: no holiday is local then.
    """

    first_day: int
    everywhere: Flags
    key: str
    local: Flags

    def everywhere_on(self, days: Ints) -> Flags:
        """Whether each day, of any shape, is a holiday for all; none is outside the table."""
        columns = days - self.first_day
        inside = (columns >= 0) & (columns < len(self.everywhere))
        return np.asarray(inside & self.everywhere[np.where(inside, columns, 0)])

    def local_on(self, days: Ints) -> Flags:
        """``[values, …]``: whether each day is a holiday for the places of each value of the key."""
        columns = days - self.first_day
        inside = (columns >= 0) & (columns < self.local.shape[1])
        return np.asarray(inside & self.local[:, np.where(inside, columns, 0)])


@dataclass(frozen=True)
class Traffic:
    """A number a day for each value of the key ``key``, such as a store's transactions.

    ``values`` is ``[values, days]`` from ``first_day``, which may lie long before the panel's, and
    never goes beyond the cutoff. NaN where there is no row.
    """

    name: str
    key: str
    first_day: int
    values: Float32s


@dataclass(frozen=True)
class Panel:
    """Units by series and day, and all that is known beside them.

    ``units`` is ``[S, T]``, at least 0; a large one is a read-only map of a file. ``cutoff`` is the
    column of the last day that training may see. ``unit_share`` is the share of the held-out units
    that belongs to known series, and NaN where nothing is held out. ``closed`` is ``[S, T]``, the
    days known to be closed, and ``closed_by`` the covariate that says so.
    ``weights`` is ``[S]``, 1 where the dataset says nothing.
    ``references`` are other people's predictions, ``[S, T]``, NaN where there are none. ``notes``
    are sentences on what was found in the data and how it was treated.
    """

    keys: Keys
    units: Float32s
    first_day: int
    cutoff: int
    horizon: int
    unit_share: float
    covariates: tuple[Covariate, ...] = ()
    closed: Flags | None = None
    closed_by: str = ""
    attributes: tuple[Attribute, ...] = ()
    holidays: Holidays | None = None
    traffic: Traffic | None = None
    weights: Floats | None = None
    references: dict[str, Float32s] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def cutoff_day(self) -> int:
        """The cutoff in days since 1970-01-01."""
        return self.first_day + self.cutoff

    @property
    def held_out(self) -> int:
        """Days after the cutoff that the panel has."""
        return int(self.units.shape[1]) - self.cutoff - 1

    def weekdays(self, columns: Ints) -> Ints:
        """Weekday of each column, Monday 0; columns may lie after the last."""
        return weekday(self.first_day + columns)
