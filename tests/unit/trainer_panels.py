"""Small panels for the trainer's tests: a shop by product, with weekdays, levels and quiet days."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from trainer.dataset import DatasetFile, load_dataset

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
