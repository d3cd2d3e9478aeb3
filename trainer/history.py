"""History tables: the features, as of one day, in a form that has two interpreters.

A feature is a column of a ``Lookup``: a table and the axes that index it. Training gathers the
columns with numpy (``gather``), serving gathers the same tables with ONNX nodes
(``trainer.graph``); neither computes anything from sales. Rules:

1. A table as of an origin is made from the days up to that origin alone (``Past`` holds no others).
2. Values lie on a grid of 1/1024. The midpoint of two grid values is exact in float32, so a tree
   splits the same way in training and serving, and the sum of two values is exact too.
3. Axes: ``series`` (rows of ``trainer.keys``), ``weekday`` (Monday 0), ``step`` (days after the
   cutoff, less 1) and ``key:<name>`` (codes of a key).
4. Columns named in ``offsets`` are features and also add up to the structural base that the
   regressor corrects.

A new feature is one entry in a dictionary below.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from trainer.keys import Floats, Ints, Keys
from trainer.panel import Panel
from trainer.structural import Structure, fit_structure

Float32s = npt.NDArray[np.float32]

MAX_HISTORY = 182
"""Days before an origin that features look at: half a year, so that every origin sees alike."""

GRID = 1024

SERIES, WEEKDAY, STEP = "series", "weekday", "step"


def key_axis(name: str) -> str:
    """The axis of a key's codes."""
    return f"key:{name}"


@dataclass(frozen=True)
class Lookup:
    """Columns that share their axes: ``table`` is ``[product of the axes' sizes, names]``."""

    axes: tuple[str, ...]
    names: tuple[str, ...]
    table: Float32s
    offsets: tuple[str, ...] = ()


@dataclass(frozen=True)
class Past:
    """What is known on the evening of an origin: ``logs`` ``[S, L]`` ends with that day."""

    keys: Keys
    logs: Floats
    weekdays: Ints
    horizon: int

    @classmethod
    def of(cls, panel: Panel, origin: int) -> "Past":
        """The past as of column ``origin`` of a panel."""
        first = max(0, origin + 1 - MAX_HISTORY)
        columns = np.arange(first, origin + 1)
        return cls(
            keys=panel.keys,
            logs=np.log1p(panel.units[:, first : origin + 1]),
            weekdays=panel.weekdays(columns),
            horizon=panel.horizon,
        )

    @cached_property
    def structure(self) -> Structure:
        return fit_structure(self.keys, self.logs, self.weekdays)

    @cached_property
    def units(self) -> Floats:
        return np.expm1(self.logs)

    @cached_property
    def base(self) -> Floats:
        """Level plus weekday effect, ``[S, 7]``."""
        return self.structure.level[:, None] + self.structure.effect

    @cached_property
    def residual(self) -> Floats:
        """What the base leaves of the last 7 days, ``[S, 7]``."""
        left: Floats = self.logs[:, -7:] - self.base[:, self.weekdays[-7:]]
        return left

    def mean(self, days: int) -> Floats:
        """Mean of the logs of the last ``days`` days, ``[S]``."""
        mean: Floats = self.logs[:, -days:].mean(axis=1)
        return mean

    def zeros(self, days: int) -> Floats:
        """Share of the last ``days`` days without a sale, ``[S]``."""
        share: Floats = (self.logs[:, -days:] == 0).mean(axis=1)
        return share

    def days_since_sale(self) -> Floats:
        """Days since the last day with a sale, at most 31, ``[S]``."""
        sold = self.logs[:, ::-1] > 0
        since = np.where(sold.any(axis=1), sold.argmax(axis=1), sold.shape[1])
        capped: Floats = since.clip(0, 31).astype(np.float64)
        return capped

    def weekday_mean(self, weeks: int) -> Floats:
        """Mean of the logs of each weekday's last ``weeks`` occurrences, ``[S, 7]``."""
        columns = [np.flatnonzero(self.weekdays == day)[-weeks:] for day in range(7)]
        return np.stack([self.logs[:, found].mean(axis=1) for found in columns], axis=1)


Feature = Callable[[Past], Floats]

SERIES_FEATURES: Mapping[str, Feature] = {
    "level": lambda past: past.structure.level,
    "mean_1": lambda past: past.mean(1),
    "mean_3": lambda past: past.mean(3),
    "mean_7": lambda past: past.mean(7),
    "mean_14": lambda past: past.mean(14),
    "mean_28": lambda past: past.mean(28),
    "mean_56": lambda past: past.mean(56),
    "log_mean_28": lambda past: np.log1p(past.units[:, -28:].mean(axis=1)),
    "log_gap_28": lambda past: np.log1p(past.units[:, -28:].mean(axis=1)) - past.mean(28),
    "deviation_28": lambda past: past.logs[:, -28:].std(axis=1),
    "maximum_28": lambda past: past.logs[:, -28:].max(axis=1),
    "zeros_7": lambda past: past.zeros(7),
    "zeros_28": lambda past: past.zeros(28),
    "days_since_sale": Past.days_since_sale,
    "change_week": lambda past: past.mean(7) - past.logs[:, -14:-7].mean(axis=1),
    "change_month": lambda past: past.mean(7) - past.mean(28),
    "residual_3": lambda past: past.residual[:, -3:].mean(axis=1),
    "residual_7": lambda past: past.residual.mean(axis=1),
}
"""One value for each series, ``[S]``."""

SERIES_WEEKDAY_FEATURES: Mapping[str, Feature] = {
    "weekday_base": lambda past: past.base,
    "weekday_1": lambda past: past.weekday_mean(1),
    "weekday_2": lambda past: past.weekday_mean(2),
    "weekday_4": lambda past: past.weekday_mean(4),
    "weekday_8": lambda past: past.weekday_mean(8),
    "weekday_effect": lambda past: past.structure.effect,
}
"""One value for each series and weekday, ``[S, 7]``."""

KEY_FEATURES = (
    "mean_7", "mean_28", "change_week", "residual_7", "zeros_28", "deviation_28", "log_mean_28",
)  # fmt: skip
"""Series features whose mean over the series of a key's value says something of its own."""

PLAIN_SERIES: Mapping[str, Feature] = {
    "series_mean": lambda past: past.mean(MAX_HISTORY),
    "series_mean_28": lambda past: past.mean(28),
}
PLAIN_SERIES_WEEKDAY: Mapping[str, Feature] = {
    "series_weekday_mean": lambda past: past.weekday_mean(MAX_HISTORY // 7),
}
"""The features of ``plain``: what a person would work out in a spreadsheet."""


def plain_lookups(past: Past) -> tuple[Lookup, ...]:
    """Means by series, and by series and weekday."""
    return (
        _series_lookup(past, PLAIN_SERIES),
        _series_weekday_lookup(past, PLAIN_SERIES_WEEKDAY),
    )


def full_lookups(past: Past) -> tuple[Lookup, ...]:
    """The history of each series and of each value of its keys, over the structural base."""
    series = {name: feature(past) for name, feature in SERIES_FEATURES.items()}
    lookups = [
        Lookup((STEP,), ("step",), _on_grid(np.arange(1, past.horizon + 1))[:, None]),
        Lookup((WEEKDAY,), ("weekday",), _on_grid(np.arange(7))[:, None]),
        _series_lookup(past, SERIES_FEATURES),
        _series_weekday_lookup(past, SERIES_WEEKDAY_FEATURES, offsets=("weekday_base",)),
    ]
    keys = past.keys
    for position, name in enumerate(keys.names):
        means = np.stack([series[feature] for feature in KEY_FEATURES], axis=1)
        names = tuple(f"{name}_{feature}" for feature in KEY_FEATURES)
        table = _on_grid(keys.with_unknown(position, means))
        lookups.append(Lookup((key_axis(name),), names, table))
        effect = _on_grid(keys.with_unknown(position, past.structure.effect)).reshape(-1, 1)
        lookups.append(Lookup((key_axis(name), WEEKDAY), (f"{name}_weekday_effect",), effect))
    return tuple(lookups)


def axis_sizes(keys: Keys, horizon: int) -> dict[str, int]:
    """Positions on each axis."""
    by_key = {key_axis(name): size for name, size in zip(keys.names, keys.sizes, strict=True)}
    return {SERIES: keys.rows, WEEKDAY: 7, STEP: horizon, **by_key}


def gather(
    lookups: tuple[Lookup, ...], positions: Mapping[str, Ints], sizes: Mapping[str, int]
) -> tuple[Float32s, Float32s]:
    """Features ``[N, all names]`` and structural base ``[N]`` for N positions on every axis."""
    columns = []
    base = np.zeros(len(positions[SERIES]), dtype=np.float32)
    for lookup in lookups:
        index = positions[lookup.axes[0]]
        for axis in lookup.axes[1:]:
            index = index * sizes[axis] + positions[axis]
        values = lookup.table[index]
        for name in lookup.offsets:
            base = base + values[:, lookup.names.index(name)]
        columns.append(values)
    return np.concatenate(columns, axis=1), base


def _series_lookup(past: Past, features: Mapping[str, Feature]) -> Lookup:
    values = np.stack([feature(past) for feature in features.values()], axis=1)
    return Lookup((SERIES,), tuple(features), _on_grid(past.keys.with_cold_rows(values)))


def _series_weekday_lookup(
    past: Past, features: Mapping[str, Feature], offsets: tuple[str, ...] = ()
) -> Lookup:
    values = np.stack([feature(past) for feature in features.values()], axis=2)
    table = _on_grid(past.keys.with_cold_rows(values)).reshape(-1, len(features))
    return Lookup((SERIES, WEEKDAY), tuple(features), table, offsets)


def _on_grid(values: npt.ArrayLike) -> Float32s:
    return (np.round(np.asarray(values, dtype=np.float64) * GRID) / GRID).astype(np.float32)
