"""History tables: the features, as of one day, in a form that has two interpreters.

A feature is a column of a ``Lookup``: a table and the axes that index it. Training gathers the
columns with numpy (``gather``), serving gathers the same tables with ONNX nodes
(``trainer.graph``); neither computes anything from sales. Rules:

1. A table as of an origin is made from the days up to that origin alone (``trainer.past``).
2. Values lie on a grid of 1/1024. The midpoint of two grid values is exact in float32, so a tree
   splits the same way in training and serving, the sum of two values is exact too, and a table whose
   values lie within ±32 is kept as int16.
3. Axes: ``series`` (rows of ``trainer.keys``), ``weekday`` (Monday 0), ``step`` (days after the
   cutoff, less 1), ``key:<name>`` (codes of a key) and ``flag:<name>`` (0 or 1).
4. Columns named in ``offsets`` are features and also add up to the structural base that the
   regressor corrects. The base is the last feature.

5. Names of features that come of a covariate, a key or traffic begin with its kind and a colon, which no
   column of a dataset can have.

A new feature is one entry in a dictionary below, and its group in ``trainer.importance``.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trainer.keys import Float32s, Floats, Ints, Keys
from trainer.past import MAX_HISTORY, Past

GRID = 1024

SERIES, WEEKDAY, STEP = "series", "weekday", "step"


def key_axis(name: str) -> str:
    """The axis of a key's codes."""
    return f"key:{name}"


def flag_axis(name: str) -> str:
    """The axis of a flag's two values."""
    return f"flag:{name}"


@dataclass(frozen=True)
class Lookup:
    """Columns that share their axes: ``table`` is ``[product of the axes' sizes, names]``."""

    axes: tuple[str, ...]
    names: tuple[str, ...]
    table: Float32s
    offsets: tuple[str, ...] = ()


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
    "residual_7": lambda past: past.residual[:, -7:].mean(axis=1),
    "weeks_on_sale": Past.weeks_on_sale,
}
"""One value for each series, ``[S]``."""

SERIES_WEEKDAY_FEATURES: Mapping[str, Feature] = {
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

FLAG_FEATURES: Mapping[str, Callable[[Past, str], Floats]] = {
    "lift": lambda past, name: past.structure.lifts[list(past.flags).index(name)],
    "share_7": lambda past, name: past.flags[name][:, -7:].mean(axis=1),
    "share_28": lambda past, name: past.flags[name][:, -28:].mean(axis=1),
}
"""For each flag, one value for each series, ``[S]``."""

PLAIN_SERIES: Mapping[str, Feature] = {
    "series_mean": lambda past: past.mean(MAX_HISTORY),
    "series_mean_28": lambda past: past.mean(28),
}
PLAIN_SERIES_WEEKDAY: Mapping[str, Feature] = {
    "series_weekday_mean": lambda past: past.weekday_mean(MAX_HISTORY // 7),
}
"""The features of ``plain``: what a person would work out in a spreadsheet."""


def plain_lookups(past: Past) -> tuple[Lookup, ...]:
    """Means by series, and by series and weekday; the season on top, where there is one."""
    return (
        _series(past, {name: feature(past) for name, feature in PLAIN_SERIES.items()}),
        _series_weekday(past, PLAIN_SERIES_WEEKDAY),
        *_season(past),
    )


def full_lookups(past: Past) -> tuple[Lookup, ...]:
    """The history of each series and of each value of its keys, over the structural base."""
    return tuple(_full(past))


def _full(past: Past) -> Iterator[Lookup]:
    keys = past.keys
    series = {name: feature(past) for name, feature in SERIES_FEATURES.items()}
    for flag in past.flags:
        for name, of_flag in FLAG_FEATURES.items():
            series[f"flag:{flag}:{name}"] = of_flag(past, flag)
    yield Lookup((STEP,), ("step",), on_grid(np.arange(1, past.horizon + 1))[:, None])
    yield Lookup((WEEKDAY,), ("weekday",), on_grid(np.arange(7))[:, None])
    yield _series(past, series, offsets=("level",))
    yield _series_weekday(past, SERIES_WEEKDAY_FEATURES, offsets=("weekday_effect",))
    for number, flag in enumerate(past.flags):
        yield Lookup((flag_axis(flag),), (f"flag:{flag}",), on_grid([[0.0], [1.0]]))
        lift = past.structure.lifts[number][:, None, None] * np.array([[0.0], [1.0]])
        values = np.concatenate([lift, past.at_flag(flag)], axis=2)
        columns = tuple(f"flag:{flag}:{what}" for what in ("base", "mean", "days"))
        table = on_grid(keys.with_cold_rows(values)).reshape(-1, len(columns))
        yield Lookup((SERIES, flag_axis(flag)), columns, table, columns[:1])
    yield from _season(past)
    of_keys = (*KEY_FEATURES, *(f"flag:{flag}:lift" for flag in past.flags))
    for position, name in enumerate(keys.names):
        means = np.stack([series[feature] for feature in of_keys], axis=1)
        names = tuple(f"key:{name}:{feature}" for feature in of_keys)
        yield Lookup((key_axis(name),), names, on_grid(keys.with_unknown(position, means)))
        effect = on_grid(keys.with_unknown(position, past.structure.effect)).reshape(-1, 1)
        yield Lookup((key_axis(name), WEEKDAY), (f"key:{name}:weekday_effect",), effect)


def axis_sizes(keys: Keys, horizon: int, flags: Iterable[str]) -> dict[str, int]:
    """Positions on each axis."""
    by_key = {key_axis(name): size for name, size in zip(keys.names, keys.sizes, strict=True)}
    by_flag = {flag_axis(name): 2 for name in flags}
    return {SERIES: keys.rows, WEEKDAY: 7, STEP: horizon, **by_key, **by_flag}


def merged(lookups: Iterable[Lookup]) -> tuple[Lookup, ...]:
    """The same columns with one lookup for each tuple of axes: one gather each in the graph."""
    by_axes: dict[tuple[str, ...], list[Lookup]] = {}
    for lookup in lookups:
        by_axes.setdefault(lookup.axes, []).append(lookup)
    return tuple(
        Lookup(
            axes,
            tuple(name for each in group for name in each.names),
            np.concatenate([each.table for each in group], axis=1),
            tuple(name for each in group for name in each.offsets),
        )
        for axes, group in by_axes.items()
    )


def has_base(lookups: Iterable[Lookup]) -> bool:
    """Whether some columns add up to a structural base."""
    return any(lookup.offsets for lookup in lookups)


def feature_names(lookups: Iterable[Lookup], numbers: Iterable[str]) -> tuple[str, ...]:
    """The columns of the matrix that the regressor reads, in order."""
    lookups = tuple(lookups)
    names = [name for lookup in lookups for name in lookup.names]
    read = [f"number:{name}" for name in numbers]
    return (*names, *read, *(("base",) if has_base(lookups) else ()))


def gather(
    lookups: Iterable[Lookup],
    positions: Mapping[str, Ints],
    sizes: Mapping[str, int],
    numbers: Sequence[Float32s] = (),
) -> tuple[Float32s, Float32s]:
    """Features ``[N, all names]`` and structural base ``[N]`` for N positions on every axis.

    ``numbers`` are covariates, each ``[N]``; they come on the grid too.
    """
    columns = []
    base = np.zeros(len(positions[SERIES]), dtype=np.float32)
    lookups = tuple(lookups)
    for lookup in lookups:
        index = positions[lookup.axes[0]]
        for axis in lookup.axes[1:]:
            index = index * sizes[axis] + positions[axis]
        values = lookup.table[index]
        for name in lookup.offsets:
            base = base + values[:, lookup.names.index(name)]
        columns.append(values)
    columns += [number_on_grid(number)[:, None] for number in numbers]
    if has_base(lookups):
        columns.append(base[:, None])
    return np.concatenate(columns, axis=1), base


def number_on_grid(values: Float32s) -> Float32s:
    """A covariate as the regressor sees it: the same float32 operations that the graph has."""
    with np.errstate(over="ignore"):  # beyond 3e35 both say infinite
        scaled = np.round(np.asarray(values, dtype=np.float32) * np.float32(GRID))
    snapped: Float32s = scaled * np.float32(1 / GRID)
    return snapped


def _series(past: Past, values: Mapping[str, Floats], offsets: tuple[str, ...] = ()) -> Lookup:
    table = past.keys.with_cold_rows(np.stack(list(values.values()), axis=1))
    return Lookup((SERIES,), tuple(values), on_grid(table), offsets)


def _series_weekday(
    past: Past, features: Mapping[str, Feature], offsets: tuple[str, ...] = ()
) -> Lookup:
    values = np.stack([feature(past) for feature in features.values()], axis=2)
    table = on_grid(past.keys.with_cold_rows(values)).reshape(-1, len(features))
    return Lookup((SERIES, WEEKDAY), tuple(features), table, offsets)


def _season(past: Past) -> Iterator[Lookup]:
    """The season of the days ahead; the rest of the base is less the season."""
    if past.season is not None:
        trend = past.keys.with_cold_rows(past.season.trend[:, None])
        yield Lookup((SERIES,), ("trend",), on_grid(trend))
        ahead = past.season.at(past.steps)[:, :, None]
        table = on_grid(past.keys.with_cold_rows(ahead)).reshape(-1, 1)
        yield Lookup((SERIES, STEP), ("season",), table, ("season",))


def on_grid(values: npt.ArrayLike) -> Float32s:
    """The nearest values on the grid, without a negative zero: an int16 has none."""
    snapped = np.round(np.asarray(values, dtype=np.float64) * GRID) / GRID + 0.0
    return snapped.astype(np.float32)
