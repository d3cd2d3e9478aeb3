"""The past: what is known on the evening of an origin, in the form that features are made from.

1. It holds no day after the origin: a feature cannot look at one.
2. A closed day says nothing of demand, so its sales are replaced by the same weekday of the week before,
   or where that was closed too by the mean of the last seven days; both as they were filled in
   themselves. Open days are not pulled down by closed ones. What is filled in follows from earlier days
   alone, but for the first two weeks of a panel.
3. Logs are ``log1p(units)``. Features look back ``MAX_HISTORY`` days, so that every origin sees alike;
   the season (``trainer.season``) looks back over all days.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from trainer.keys import Floats, Ints, Keys
from trainer.panel import CovariateKind, Panel
from trainer.season import LEAST_PANEL, Season, fit_season
from trainer.structural import Pace, Structure, fit_structure

MAX_HISTORY = 182
"""Days before an origin that features look at: half a year."""

FLAG_HALF_LIFE = 21.0
"""Days after which a day counts half for the mean at a flag's value."""

FLAG_SHRINKAGE = 1.5
"""Days that the base counts for in that mean."""

START_DAYS = 14
"""The first days of a panel, whose closed days have too little before them."""


@dataclass(frozen=True)
class Demand:
    """A panel's demand up to its cutoff: ``logs`` ``[S, cutoff + 1]`` with closed days filled in."""

    panel: Panel
    logs: Floats

    @classmethod
    def of(cls, panel: Panel) -> "Demand":
        """What the panel says of the days up to its cutoff; nothing after it is read."""
        known = panel.cutoff + 1
        logs = np.log1p(panel.units[:, :known].astype(np.float64))
        if panel.closed is not None:
            _fill(logs, panel.closed[:, :known])
        return cls(panel, logs)

    @property
    def seasonal(self) -> bool:
        """Whether the panel is long enough for a season: then every origin has one, else none."""
        return bool(self.logs.shape[1] >= LEAST_PANEL)


def _fill(logs: Floats, closed: npt.NDArray[np.bool_]) -> None:
    """Rule 2, in place."""
    start = ~closed[:, :START_DAYS]
    opened = np.maximum(start.sum(axis=1), 1)
    first = (logs[:, :START_DAYS] * start).sum(axis=1) / opened
    for day in range(logs.shape[1]):
        shut = closed[:, day]
        if not shut.any():
            continue
        if day < 7:
            logs[shut, day] = first[shut]
            continue
        usual = np.where(closed[:, day - 7], logs[:, day - 7 : day].mean(axis=1), logs[:, day - 7])
        logs[shut, day] = usual[shut]


@dataclass(frozen=True)
class Past:
    """What is known on the evening of ``origin_day`` (days since 1970-01-01).

    ``logs``, ``sold`` and each of ``flags`` are ``[S, L]`` and end with that day; ``season`` is None
    where the panel is too short for one. Logs are less the season, if there is one; ``sold`` is
    whether there were sales. What says that a day is closed is no flag: rule 2 has taken closed days
    away.
    """

    keys: Keys
    origin_day: int
    horizon: int
    logs: Floats
    sold: npt.NDArray[np.bool_]
    weekdays: Ints
    flags: Mapping[str, Floats]
    season: Season | None
    pace: Pace

    @classmethod
    def of(cls, demand: Demand, origin: int, pace: Pace) -> "Past":
        """The past as of column ``origin`` of a panel."""
        panel = demand.panel
        first = max(0, origin + 1 - MAX_HISTORY)
        logs = demand.logs[:, first : origin + 1]
        sold = logs > 0
        season = None
        if demand.seasonal:
            season = fit_season(panel.keys, demand.logs[:, : origin + 1], panel.first_day)
            days = panel.first_day + np.arange(first, origin + 1)
            logs = logs - season.at(days)
        return cls(
            keys=panel.keys,
            origin_day=panel.first_day + origin,
            horizon=panel.horizon,
            logs=logs,
            sold=sold,
            weekdays=panel.weekdays(np.arange(first, origin + 1)),
            flags={
                each.name: each.values[:, first : origin + 1].astype(np.float64)
                for each in panel.covariates
                if each.kind is CovariateKind.FLAG and each.name != panel.closed_by
            },
            season=season,
            pace=pace,
        )

    @cached_property
    def structure(self) -> Structure:
        """The structural base's parts."""
        return fit_structure(
            self.keys, self.logs, self.weekdays, tuple(self.flags.values()), self.pace
        )

    @cached_property
    def units(self) -> Floats:
        """Sales, ``[S, L]``."""
        return np.expm1(self.logs)

    @cached_property
    def base(self) -> Floats:
        """Level plus weekday effect, ``[S, 7]``."""
        return self.structure.level[:, None] + self.structure.effect

    @cached_property
    def residual(self) -> Floats:
        """What the base leaves of the known days, ``[S, L]``."""
        left = self.logs - self.base[:, self.weekdays]
        for lift, flag in zip(self.structure.lifts, self.flags.values(), strict=True):
            left = left - lift[:, None] * flag
        return left

    @cached_property
    def steps(self) -> Ints:
        """The days after the origin, ``[H]``, since 1970-01-01."""
        return self.origin_day + 1 + np.arange(self.horizon)

    def mean(self, days: int) -> Floats:
        """Mean of the logs of the last ``days`` days, ``[S]``."""
        mean: Floats = self.logs[:, -days:].mean(axis=1)
        return mean

    def weekday_mean(self, weeks: int) -> Floats:
        """Mean of the logs of each weekday's last ``weeks`` occurrences, ``[S, 7]``."""
        columns = [np.flatnonzero(self.weekdays == day)[-weeks:] for day in range(7)]
        return np.stack([self.logs[:, found].mean(axis=1) for found in columns], axis=1)

    def zeros(self, days: int) -> Floats:
        """Share of the last ``days`` days without a sale, ``[S]``."""
        share: Floats = (~self.sold[:, -days:]).mean(axis=1)
        return share

    def days_since_sale(self) -> Floats:
        """Days since the last day with a sale, at most 31, ``[S]``."""
        newest_first = self.sold[:, ::-1]
        since = np.where(newest_first.any(axis=1), newest_first.argmax(axis=1), self.sold.shape[1])
        capped: Floats = since.clip(0, 31).astype(np.float64)
        return capped

    def weeks_on_sale(self) -> Floats:
        """Weeks since the first sale of the days looked at, at most 26, ``[S]``."""
        length = self.sold.shape[1]
        days = np.where(self.sold.any(axis=1), length - self.sold.argmax(axis=1), 0)
        weeks: Floats = days / 7.0
        return weeks

    def at_flag(self, name: str) -> Floats:
        """``[S, 2, 2]``: by value of a flag, mean of logs, shrunk to the base, and log1p of its days."""
        flag, lift = self.flags[name], self.structure.lifts[list(self.flags).index(name)]
        age = np.arange(self.logs.shape[1])[::-1]
        weight = 0.5 ** (age / FLAG_HALF_LIFE)
        share = flag.mean(axis=1)
        found = np.empty((len(flag), 2, 2))
        for value in (0, 1):
            weights = (flag == value) * weight
            days = weights.sum(axis=1)
            usual = self.structure.level + (value - share) * lift
            total = (self.logs * weights).sum(axis=1) + FLAG_SHRINKAGE * usual
            found[:, value, 0] = total / (days + FLAG_SHRINKAGE)
            found[:, value, 1] = np.log1p(days)
        return found
