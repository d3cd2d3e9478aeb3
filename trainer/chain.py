"""A made-up chain of shops: its stores, items and calendar, and what they sell, from a seed.

A series is an item in a store. Its units are counts, negative binomial around a mean that is the product
of: a level, log-normal over the series; the weekday; the season of the year; a trend; paydays and
holidays; a promotion; and what moves all of a store's items on a day, which its traffic shows too. Some
items are new, some days are out of stock, and the shops may be closed on Sundays and holidays.

Nothing here is written anywhere: that is ``trainer.generator``'s.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from enum import StrEnum

import numpy as np

from schemas.errors import UsageProblem
from trainer.cells import FIRST_DATE, LAST_DATE
from trainer.dataset import MOST_DAYS
from trainer.keys import Floats, Ints
from trainer.panel import MIN_HISTORY, Flags, day_of, number_of, weekday
from trainer.span import MAX_DAYS

BLOCK_CELLS = 200_000
"""Cells (series × days) of a block: its dozen arrays take some 20 MB."""

MOST_YEARLY, MOST_GROWTH = 3.0, 6.0
"""Logs that season and trend may add: with both, what sells best stays below 2³¹ units a day."""

MAX_STORES = 54
_ITEM_SHARE_NEW = 0.1

FAMILIES = (
    ("GROCERY I", 0), ("BEVERAGES", 0), ("CLEANING", 0), ("PRODUCE", 1), ("DAIRY", 1),
    ("PERSONAL CARE", 0), ("BREAD/BAKERY", 1), ("HOME CARE", 0), ("DELI", 1), ("MEATS", 1),
    ("FROZEN FOODS", 0), ("EGGS", 1), ("LIQUOR,WINE,BEER", 0),
)  # fmt: skip
"""Families of items, and whether they perish."""

_NATIONAL = (
    (1, 1), (5, 1), (5, 24), (8, 10), (10, 9), (11, 2), (12, 24), (12, 25), (12, 31),
)  # fmt: skip
"""Month and day of the holidays that hold everywhere."""

_WEEK = np.asarray([-0.12, -0.10, -0.05, -0.18, -0.02, 0.22, 0.25])
"""Log effect of each weekday, Monday first."""


class Layout(StrEnum):
    """The names and files of a panel."""

    FAVORITA = "favorita"
    """As in the competition: numbered stores and items, promotions, and all side tables."""
    PLAIN = "plain"
    """Branches and articles in one file: no promotions, no side tables."""


class Closed(StrEnum):
    """On which days the shops are closed; those days have rows, and the covariate ``closed``."""

    NEVER = "never"
    WEEKLY = "weekly"
    """On Sundays and national holidays."""


@dataclass(frozen=True)
class Design:
    """What panel to make.

    ``yearly`` is the log amplitude of the season of the year, and ``trend`` the log growth a year,
    both for the middle item. ``noise`` is how far sales stray from their mean beyond the chance of
    counts: half of it is a quarter of that variance, and half as many days out of stock.
    """

    series: int
    days: int
    seed: int
    layout: Layout = Layout.FAVORITA
    closed: Closed = Closed.NEVER
    start: date = date(2015, 1, 1)
    horizon: int = 16
    yearly: float = 0.4
    trend: float = 0.05
    noise: float = 1.0

    def __post_init__(self) -> None:
        if self.series < 1 or self.horizon < 1:
            raise UsageProblem(
                f"{self.series} series and a horizon of {self.horizon} days make no panel",
                hint="ask for at least one of each",
            )
        if not 0.01 <= self.noise <= 10:
            raise UsageProblem(f"the noise {self.noise} lies outside 0.01 … 10", hint="1 is usual")
        if self.horizon > MOST_DAYS:
            raise UsageProblem(
                f"no model is trained for a horizon of {self.horizon:,} days",
                hint=f"{MOST_DAYS:,} days are the most",
            )
        if self.days < MIN_HISTORY + self.horizon:
            raise UsageProblem(
                f"{self.days} days are too few for {self.horizon} held out",
                hint=f"ask for at least {MIN_HISTORY + self.horizon} days",
            )
        most = min(MAX_DAYS, (LAST_DATE - self.start).days + 1 - self.horizon)
        if self.days > most or self.start < FIRST_DATE:
            raise UsageProblem(
                f"{self.days:,} days from {self.start} on are no panel that can be trained on: it has at "
                f"most {MAX_DAYS:,} days, and they and the {self.horizon} after them lie within "
                f"{FIRST_DATE} … {LAST_DATE}",
                hint=f"ask for at most {most:,} days"
                if most >= MIN_HISTORY + self.horizon and self.start >= FIRST_DATE
                else f"start within {FIRST_DATE.year} … {LAST_DATE.year}",
            )
        self._refuse_sales_beyond_measure()

    def _refuse_sales_beyond_measure(self) -> None:
        if not abs(self.yearly) <= MOST_YEARLY:
            raise UsageProblem(
                f"the yearly amplitude {self.yearly} lies outside -{MOST_YEARLY:g} … {MOST_YEARLY:g}",
                hint="it is in logs: 0.4 is usual",
            )
        if not abs(self.trend) * self.days / 365.25 <= MOST_GROWTH:
            raise UsageProblem(
                f"a trend of {self.trend} a year grows over {self.days:,} days beyond all that is sold",
                hint=f"it is in logs: ask for at most {MOST_GROWTH * 365.25 / self.days:.2g}",
            )


class World:
    """Stores, items and calendar of a design: all that the series share."""

    def __init__(self, design: Design) -> None:
        random = np.random.default_rng([design.seed, 0])
        self.design = design
        self.stores = min(MAX_STORES, design.series, max(1, round((design.series / 4) ** 0.5)))
        self.items = -(-design.series // self.stores)
        self.days: Ints = number_of(design.start) + np.arange(design.days)
        # Stores. A city lies in one state.
        self.city = random.integers(0, max(1, self.stores // 3), self.stores)
        self.state = self.city // 2
        self.type = random.choice(list("ABCDE"), self.stores, p=[0.17, 0.15, 0.28, 0.33, 0.07])
        self.cluster = random.integers(1, 18, self.stores)
        self.store_level = random.normal(0, 0.4, self.stores)
        # Items. New ones come at any time after a third of the days, before those that are held out.
        self.family = random.integers(0, len(FAMILIES), self.items)
        self.item_level = random.normal(np.log(12), 0.9, self.items)
        self.uplift = random.uniform(0.3, 0.9, self.items)
        self.slope = random.normal(design.trend, 0.05, self.items)
        is_new = random.random(self.items) < _ITEM_SHARE_NEW
        held_out = design.days - design.horizon
        late = random.integers(min(design.days // 3, held_out - 1), held_out, self.items)
        self.begins = np.where(is_new, late, 0)
        # Families: their own week, season and dispersion.
        families = len(FAMILIES)
        self.week = _WEEK + random.normal(0, 0.08, (families, 7))
        self.phase = random.uniform(0, 2 * np.pi, families)
        self.amplitude = design.yearly * random.uniform(0.7, 1.3, families)
        self.dispersion = random.uniform(8, 25, families) / design.noise**2
        # Calendar. Local holidays fall on a day of the year of their city.
        self.city_day = random.integers(1, 366, int(self.city.max()) + 1)
        self.national = _national_flags(self.days)
        self.local = self._local_flags()
        self.weekday = weekday(self.days)
        self.year = (
            2 * np.pi * np.asarray([_day_of_year(day) for day in self.days.tolist()]) / 365.25
        )
        self.payday = (
            np.asarray([day_of(day).day in (15, 16, 1) for day in self.days.tolist()]) * 0.12
        )
        # A store's good and bad days, which its traffic shows: half of yesterday's, and news.
        news = random.normal(0, 0.06, (self.stores, design.days))
        self.mood = np.empty_like(news)
        self.mood[:, 0] = news[:, 0]
        for day in range(1, design.days):
            self.mood[:, day] = 0.5 * self.mood[:, day - 1] + news[:, day]

    @property
    def closed(self) -> Flags:
        """Which days all shops are closed."""
        if self.design.closed == Closed.NEVER:
            return np.zeros(self.design.days, dtype=np.bool_)
        return np.asarray((self.weekday == 6) | self.national)

    def traffic(self) -> Ints:
        """Customers of each store on each day."""
        shared = _WEEK[self.weekday] + 0.2 * self.national + self.payday
        logs = np.log(900) + self.store_level[:, None] + shared + 0.1 * self.local + self.mood
        return np.where(self.closed, 0, np.rint(np.exp(logs))).astype(np.int64)

    def blocks(self) -> Iterator["Block"]:
        """The series in order, item by item, a block at a time."""
        height = max(1, BLOCK_CELLS // self.design.days)
        for number, start in enumerate(range(0, self.design.series, height)):
            yield self._block(number, np.arange(start, min(start + height, self.design.series)))

    def _block(self, number: int, series: Ints) -> "Block":
        random = np.random.default_rng([self.design.seed, 1, number])
        item, store = np.divmod(series, self.stores)
        family = self.family[item]
        shape = (len(series), self.design.days)
        promoted = _runs(random, shape, share_begun=0.015, longest=10)
        if self.design.layout == Layout.PLAIN:
            promoted = np.zeros(shape, dtype=np.bool_)
        level = self.item_level[item] + self.store_level[store] + random.normal(0, 0.4, len(series))
        years = (self.days - self.days[0]) / 365.25
        logs = level[:, None] + self.week[family][:, self.weekday] + self.mood[store]
        logs += self.amplitude[family, None] * np.cos(self.year - self.phase[family, None])
        logs += self.slope[item, None] * years + self.uplift[item, None] * promoted
        logs += self.payday + 0.25 * self.national + 0.15 * self.local[store]
        spread = np.broadcast_to(self.dispersion[family, None], shape)
        mean = np.exp(logs)
        units = random.poisson(mean * random.gamma(spread) / spread)
        units[_runs(random, shape, share_begun=0.004 * self.design.noise, longest=6)] = (
            0  # out of stock
        )
        units[:, self.closed] = 0
        promoted[:, self.closed] = False
        begins = np.minimum(self.begins[item] + random.integers(0, 3, len(series)), shape[1] - 1)
        begins[self.begins[item] == 0] = 0
        return Block(item, store, units, promoted, np.arange(shape[1]) >= begins[:, None], mean)

    def _local_flags(self) -> Flags:
        day = np.asarray([_day_of_year(day) for day in self.days.tolist()])
        return np.asarray(day == self.city_day[self.city][:, None])


@dataclass(frozen=True)
class Block:
    """Some series: item and store of each ``[B]``, and ``[B, T]`` of their days."""

    item: Ints
    store: Ints
    units: Ints
    promoted: Flags
    listed: Flags
    """Whether there is a row: from the day that an item is new."""
    mean: Floats
    """Units expected of an item that is in stock, in a shop that is open."""


def _runs(
    random: np.random.Generator, shape: tuple[int, int], share_begun: float, longest: int
) -> Flags:
    """Days within runs of 1 … ``longest`` days that begin on this share of the days."""
    rows, begins = np.nonzero(random.random(shape) < share_begun)
    ends = np.minimum(begins + random.integers(1, longest + 1, len(begins)), shape[1])
    steps = np.zeros((shape[0], shape[1] + 1), dtype=np.int32)
    np.add.at(steps, (rows, begins), 1)
    np.add.at(steps, (rows, ends), -1)
    return np.cumsum(steps, axis=1)[:, :-1] > 0


def _day_of_year(number: int) -> int:
    """1 … 366, of days since 1970-01-01."""
    return day_of(number).timetuple().tm_yday


def national_holidays(year: int) -> Iterator[tuple[date, date]]:
    """The holidays of a year: the date of each, and the day on which it is kept.

    One that falls on a weekend is kept on the Monday after it, but for those of the turn of the year.
    """
    for month, day in _NATIONAL:
        on = date(year, month, day)
        moves = on.weekday() >= 5 and month != 12 and (month, day) != (1, 1)
        yield on, on + timedelta(days=7 - on.weekday()) if moves else on


def _national_flags(days: Ints) -> Flags:
    years = range(day_of(days[0]).year, day_of(days[-1]).year + 1)
    kept = [number_of(kept) for year in years for _, kept in national_holidays(year)]
    return np.isin(days, kept)
