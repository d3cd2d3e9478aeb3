"""Importance: how much worse the forecasts become when one thing is shuffled among the requests.

Permutation importance (Breiman 2001; Fisher, Rudin and Dominici 2019), as the rise of the RMSLE on days
that the training did not see: the held-out ones, and where nothing is held out those of the backtest's
newest fold, on the model as it was trained for that fold.

1. Of a raw request field: its values are exchanged among the rows, and the whole pipeline answers. The
   date is shuffled as a whole, and once more among the rows of the same week ahead, which changes
   little but the weekday.
2. Of a group of features: their columns are exchanged together, as the regressor reads them. A column
   that is part of the structural base changes the base too, as it would in the graph.
3. What two groups both know is counted for neither: a group can be of no importance since others
   say the same.

Closed days have no say. Rows are sampled by a seeded generator.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import msgspec
import numpy as np

from schemas.evidence import Effect, Importance
from trainer import calendar
from trainer.estimator import Forecaster, learned_logs
from trainer.evaluation import HeldOut
from trainer.history import has_base
from trainer.keys import Float32s, Floats, Ints
from trainer.panel import day_of
from trainer.requests import Requests
from trainer.training import Trained

MOST_ROWS = 20_000
REPEATS = 3
WEEK = 7

OTHER = "other"
"""Features that no group knows; a new feature belongs into one."""

BASE_COLUMN = "base"

_GROUPS: Mapping[str, str] = {
    **dict.fromkeys(("level", "series_mean", "series_mean_28"), "level"),
    **dict.fromkeys(("mean_1", "mean_3", "mean_7", "mean_14", "mean_28", "mean_56"), "level"),
    **dict.fromkeys(("log_mean_28", "log_gap_28", "maximum_28"), "level"),
    **dict.fromkeys(("weekday", "weekday_effect", "series_weekday_mean"), "weekday"),
    **dict.fromkeys(("weekday_1", "weekday_2", "weekday_4", "weekday_8"), "weekday"),
    **dict.fromkeys(("change_week", "change_month"), "recent change"),
    **dict.fromkeys(("residual_3", "residual_7"), "recent residuals"),
    **dict.fromkeys(("zeros_7", "zeros_28", "days_since_sale"), "days without a sale"),
    "deviation_28": "variation",
    "weeks_on_sale": "age",
    **dict.fromkeys(("season", "trend"), "season"),
    "step": "days ahead",
    **dict.fromkeys(calendar.COLUMNS, "calendar"),
}

_KINDS: Mapping[str, str] = {"number": "covariates", "flag": "flags", "traffic": "traffic"}

_OF_KEYS: Mapping[str, str] = {"holiday": "calendar", "flag": "flags", "weekday_effect": "weekday"}


def group_of(name: str) -> str:
    """The group of a feature: by what its name begins with, else by the whole of it."""
    kind, colon, rest = name.partition(":")
    if not colon:
        return _GROUPS.get(name, OTHER)
    if kind == "key":
        _, _, feature = rest.partition(":")
        return _OF_KEYS.get(feature.partition(":")[0], "means by key")
    return _KINDS[kind]


def importance_of_training(
    trained: Trained, held: HeldOut, date_field: str, seed: int
) -> Importance | None:
    """Of a training on the rows ``held`` out, or on those of its newest fold; None without both."""
    if len(held):
        return importance_of(trained.forecaster, held, date_field, seed)
    if trained.tested is None:
        return None
    [newest, *_] = trained.backtest.folds
    found = importance_of(trained.tested, newest.held, date_field, seed)
    return None if found is None else msgspec.structs.replace(found, on="newest fold")


def importance_of(
    forecaster: Forecaster, held: HeldOut, date_field: str, seed: int
) -> Importance | None:
    """The importance on held-out rows within the forecaster's horizon; None where no row is open."""
    generator = np.random.default_rng(seed)
    rows = np.flatnonzero(held.opened)
    if not len(rows):
        return None
    if len(rows) > MOST_ROWS:
        rows = np.sort(generator.choice(rows, MOST_ROWS, replace=False))
    requests, actual = held.requests.take(rows), np.log1p(held.actual[rows])
    usual = _error(np.log1p(forecaster.predict(requests).sales), actual)

    def measured(name: str, logs: Callable[[], Floats], features: tuple[str, ...] = ()) -> Effect:
        rises = np.array([_error(logs(), actual) - usual for _ in range(REPEATS)])
        return Effect(name, _rounded(rises.mean()), _rounded(rises.std()), features)

    def answered(shuffled: Callable[[], Requests]) -> Floats:
        return np.log1p(forecaster.predict(shuffled()).sales)

    fields = [
        measured(name, partial(answered, shuffled))
        for name, shuffled in _fields(forecaster, requests, date_field, generator).items()
    ]
    matrix = _Matrix(forecaster, *forecaster.matrix(requests))
    groups = [
        measured(name, partial(matrix.shuffled, columns, generator), names)
        for name, (columns, names) in matrix.groups().items()
    ]
    return Importance(
        rows=len(rows),
        repeats=REPEATS,
        rmsle=_rounded(usual),
        fields=_largest_first(fields),
        groups=_largest_first(groups),
        first=day_of(held.requests.days.min()).isoformat(),
        last=day_of(held.requests.days.max()).isoformat(),
    )


def _fields(
    forecaster: Forecaster, requests: Requests, date_field: str, generator: np.random.Generator
) -> dict[str, Callable[[], Requests]]:
    """For each field, what gives the requests with that field shuffled."""
    count = len(requests)

    def key(name: str) -> Requests:
        order = generator.permutation(count)
        values = requests.columns[name]
        return replace(requests, columns={**requests.columns, name: [values[row] for row in order]})

    def covariate(name: str) -> Requests:
        shuffled = requests.covariates[name][generator.permutation(count)]
        return replace(requests, covariates={**requests.covariates, name: shuffled})

    def day() -> Requests:
        return replace(requests, days=requests.days[generator.permutation(count)])

    def weekday() -> Requests:
        week = (requests.days - forecaster.cutoff_day - 1) // WEEK
        days = requests.days.copy()
        for number in np.unique(week):
            found = np.flatnonzero(week == number)
            days[found] = days[generator.permutation(found)]
        return replace(requests, days=days)

    return {
        **{name: partial(key, name) for name in forecaster.keys.names},
        date_field: day,
        f"{date_field} (weekday)": weekday,
        **{name: partial(covariate, name) for name in forecaster.covariates},
    }


@dataclass(frozen=True)
class _Matrix:
    """What the regressor reads of N requests, and the structural base that it corrects."""

    forecaster: Forecaster
    features: Float32s
    base: Float32s

    def groups(self) -> dict[str, tuple[Ints, tuple[str, ...]]]:
        """The columns of each group and their names; the base itself follows from others."""
        found: dict[str, list[int]] = {}
        names = self.forecaster.features
        for position, name in enumerate(names):
            if name != BASE_COLUMN:
                found.setdefault(group_of(name), []).append(position)
        return {
            group: (np.asarray(columns), tuple(names[each] for each in columns))
            for group, columns in found.items()
        }

    def shuffled(self, columns: Ints, generator: np.random.Generator) -> Floats:
        """The forecasts, as logs, where the rows have exchanged these columns."""
        forecaster = self.forecaster
        order = generator.permutation(len(self.features))
        features = self.features.copy()
        features[:, columns] = self.features[order][:, columns]
        base = self.base
        offsets = {name for lookup in forecaster.lookups for name in lookup.offsets}
        for column in columns:
            if forecaster.features[column] in offsets:
                base = base + features[:, column] - self.features[:, column]
        if has_base(forecaster.lookups):
            features[:, -1] = base
        return learned_logs(forecaster.regressor, forecaster.loss, features, base)


def _error(logs: Floats, actual: Floats) -> float:
    return float(np.sqrt(((logs - actual) ** 2).mean()))


def _largest_first(effects: list[Effect]) -> tuple[Effect, ...]:
    return tuple(sorted(effects, key=lambda effect: (-effect.rise, effect.name)))


def _rounded(value: float) -> float:
    return round(float(value), 6)
