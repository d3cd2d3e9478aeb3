"""Small panels for the trainer's tests: a shop by product, with weekdays, levels and quiet days.

``made_up_columns`` and ``dataset_in`` make one as a folder with a configuration; ``panel_with`` makes one
as arrays, with whatever of covariates, closed days, holidays and traffic a test asks for.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from trainer.dataset import DatasetFile, load_dataset
from trainer.estimator import Fitted, Forecaster, Loss, Preset, Recipe, fit
from trainer.keys import Keys
from trainer.panel import (
    Attribute,
    Covariate,
    CovariateKind,
    Flags,
    Holidays,
    Panel,
    Traffic,
    weekday,
)
from trainer.spread import Spread, scale_of
from trainer.structural import PACES

FIRST_DAY = np.datetime64("2024-01-01")

CONFIG = """\
name = "made up"
model = "sales"
source = "panel.parquet"
licence = "none"
attribution = "made by a test"
date = "day"
target = "units"
unit = "pieces"
horizon = 14
holdout = 10
min_days = 3
recent_days = 60

[keys]
shop = "The shop"
product = "The product"
"""


def made_up_columns(days: int = 100, seed: int = 7) -> dict[str, Any]:
    """Columns of 4 shops by 6 products less one pair that never sold, without rows of no sales."""
    generator = np.random.default_rng(seed)
    shop, product, day = (axis.ravel() for axis in np.mgrid[0:4, 0:6, 0:days])
    mean = 1.5 * (1 + shop) * (1 + product % 3) * (1 + 0.5 * np.sin(2 * np.pi * day / 7))
    units = generator.poisson(mean * generator.gamma(1.0, 1.0, len(mean)))
    keep = (units > 0) & ~((shop == 3) & (product == 5))
    # The first and the last day are always there, so that the cutoff is where a test expects it.
    keep |= (shop == 0) & (product == 0) & ((day == 0) | (day == days - 1))
    return {
        "day": FIRST_DAY + day[keep],
        "shop": np.array([f"shop-{i}" for i in shop[keep]]),
        "product": np.array([f"p{i}" for i in product[keep]]),
        "units": np.maximum(units[keep], 1),
    }


def parquet_of(columns: dict[str, Any], path: Path) -> None:
    """Writes the columns to a Parquet file."""
    pq.write_table(pa.table(columns), path)


def dataset_in(
    folder: Path, columns: dict[str, Any] | None = None, config: str = CONFIG
) -> DatasetFile:
    """A dataset in a folder: its configuration, and its panel."""
    parquet_of(made_up_columns() if columns is None else columns, folder / "panel.parquet")
    path = folder / "panel.toml"
    path.write_text(config, encoding="utf-8")
    return load_dataset(path)


MONDAY = 19_723
"""2024-01-01, in days since 1970-01-01."""


@dataclass(frozen=True)
class Facets:
    """What a panel made by hand has. ``held_out`` days lie after its cutoff."""

    shops: int = 4
    products: int = 5
    days: int = 90
    horizon: int = 7
    held_out: int = 7
    whole_keys: bool = False
    flag: bool = False
    number: bool = False
    closed: bool = False
    """Closed on Sundays."""
    holidays: bool = False
    traffic: bool = False
    """Of each shop, from 300 days before the panel on."""
    weights: bool = False
    level: float = 2.0
    """Log of the mean units of the middle series."""
    steadiness: float = 8.0
    """Shape of the gamma that a day's mean is multiplied by: its variance is one by this."""
    yearly: float = 0.0
    trend: float = 0.0
    seed: int = 0


def panel_with(facets: Facets) -> Panel:
    """The panel: counts around level, weekday, season, trend and flag, one pair left without a series."""
    generator = np.random.default_rng(facets.seed)
    keys = _keys(facets)
    shape = keys.series, facets.days
    days = MONDAY + np.arange(facets.days)
    week = np.array([0.0, 0.1, -0.1, 0.0, 0.2, 0.5, 0.4])
    logs = facets.level + generator.normal(0.0, 0.6, (keys.series, 1)) + week[weekday(days)]
    # Each product has its own time of the year.
    phase = generator.uniform(0, 2 * np.pi, facets.products)[keys.codes[1]]
    logs = logs + facets.yearly * np.cos(2 * np.pi * days / 365.25 - phase[:, None])
    logs = logs + facets.trend * np.arange(facets.days) / 365.25
    covariates = []
    if facets.flag:
        flag = (generator.random(shape) < 0.2).astype(np.float32)
        logs = logs + 0.6 * flag
        covariates.append(Covariate("promotion", CovariateKind.FLAG, "On promotion", flag))
    if facets.number:
        price = (1.0 + generator.random(shape)).astype(np.float32)
        price[generator.random(shape) < 0.1] = np.nan
        logs = logs - 0.5 * np.nan_to_num(price, nan=1.5)
        covariates.append(Covariate("price", CovariateKind.NUMBER, "Price", price))
    closed: Flags | None = None
    if facets.closed:
        closed = np.broadcast_to(weekday(days) == 6, shape).copy()
        shut = Covariate("shut", CovariateKind.FLAG, "Shop is shut", closed.astype(np.float32))
        covariates.append(shut)
    units = generator.poisson(
        np.exp(logs) * generator.gamma(facets.steadiness, 1 / facets.steadiness, shape)
    )
    if closed is not None:
        units[closed] = 0
    return Panel(
        keys=keys,
        units=units.astype(np.float32),
        first_day=MONDAY,
        cutoff=facets.days - 1 - facets.held_out,
        horizon=facets.horizon,
        unit_share=1.0,
        covariates=tuple(covariates),
        closed=closed,
        closed_by="shut" if facets.closed else "",
        attributes=(Attribute("size", "shop", ("large", "small"), np.arange(facets.shops) % 2),),
        holidays=_holidays(facets) if facets.holidays else None,
        traffic=_traffic(facets, generator) if facets.traffic else None,
        weights=1.0 + 0.25 * (keys.codes[1] % 2) if facets.weights else None,
    )


def _keys(facets: Facets) -> Keys:
    grid = [
        (shop, product)
        for shop in range(facets.shops)
        for product in range(facets.products)
        if (shop, product) != (facets.shops - 1, facets.products - 1)
    ]
    products: tuple[str, ...] | tuple[int, ...] = tuple(f"p{i:03d}" for i in range(facets.products))
    if facets.whole_keys:
        products = tuple(100 + 7 * i for i in range(facets.products))
    shops = tuple(f"shop-{i}" for i in range(facets.shops))
    return Keys(("shop", "product"), (shops, products), np.array(grid, dtype=np.int64).T)


def _holidays(facets: Facets) -> Holidays:
    days = facets.days + facets.horizon + 60
    everywhere = np.arange(days) % 31 == 4
    local = np.arange(days) % 45 == 10 * np.arange(facets.shops)[:, None]
    return Holidays(MONDAY - 30, everywhere, "shop", local)


def _traffic(facets: Facets, generator: np.random.Generator) -> Traffic:
    before = 300
    known = before + facets.days - facets.held_out
    days = MONDAY - before + np.arange(known)
    logs = 6.0 + 0.3 * (weekday(days) > 4) + generator.normal(0.0, 0.1, (facets.shops, known))
    values = np.exp(logs).astype(np.float32)
    values[0, 40:45] = np.nan
    return Traffic("visits", "shop", MONDAY - before, values)


def recipe_of(
    preset: Preset = Preset.FULL,
    loss: Loss = Loss.LOG1P,
    *,
    corrected: bool = True,
    seed: int = 0,
) -> Recipe:
    """What a training would decide; the pace is the first."""
    return Recipe(preset, loss, PACES[0], seed, corrected=corrected)


def forecaster_of(fitted: Fitted) -> Forecaster:
    """The forecaster with intervals of about a normal spread, wider with each step."""
    widths = np.linspace(1.0, 1.5, fitted.panel.horizon, dtype=np.float32)
    return fitted.forecaster(Spread(scale_of(fitted.past), np.stack([-widths, widths], axis=1)))


def trained_on(facets: Facets, recipe: Recipe) -> Forecaster:
    """A forecaster of a panel made by hand."""
    return forecaster_of(fit(panel_with(facets), recipe))


def scrambled_after(panel: Panel, column: int, seed: int) -> Panel:
    """The same panel with other sales, covariates and traffic on every day after a column."""
    generator = np.random.default_rng(seed)

    def other(values: Any, first: int) -> Any:
        changed = np.array(values)
        late = changed[:, max(first, 0) :]
        late[:] = (
            generator.integers(0, 2, late.shape)
            if late.dtype == bool
            else (generator.integers(0, 5_000, late.shape))
        )
        return changed

    covariates = tuple(
        replace(
            each,
            values=np.minimum(other(each.values, column + 1), 1)
            if each.kind is CovariateKind.FLAG
            else other(each.values, column + 1),
        )
        for each in panel.covariates
    )
    traffic = panel.traffic
    if traffic is not None:
        first = panel.first_day + column + 1 - traffic.first_day
        traffic = replace(traffic, values=other(traffic.values, first))
    return replace(
        panel,
        units=other(panel.units, column + 1),
        covariates=covariates,
        closed=None if panel.closed is None else other(panel.closed, column + 1),
        traffic=traffic,
    )
