"""How tests read the panel of a dataset, and write the CSV files that it may come from."""

import csv
import gzip
import io
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.unit.trainer_panels import made_up_columns
from trainer.dataset import DatasetFile, load_dataset
from trainer.panel import Panel
from trainer.reading import read_panel
from trainer.sources import open_sources

FEW = """\
name = "few"
model = "sales"
source = "panel.csv"
date = "day"
target = "units"
horizon = 5

[keys]
shop = "The shop"
"""
"""The least that a dataset says."""


def panel_of(file: DatasetFile, cutoff: date | None = None, memory_mb: int = 1024) -> Panel:
    """The panel of a dataset."""
    with open_sources(file) as sources:
        return read_panel(file, sources, cutoff, memory_mb)


def write_many_rows(path: Path) -> None:
    """A panel of 7,500 shops on 40 days, as Parquet: more than a small budget holds."""
    rows = np.arange(300_000)
    columns = {
        "day": np.datetime64("2024-01-01") + rows % 40,
        "shop": rows // 40,
        "units": rows % 9,
    }
    pq.write_table(pa.table(columns), path)


def row(panel: Panel, *values: str | int) -> int:
    """The row of a series in the panel's arrays."""
    codes = panel.keys.encode({n: [v] for n, v in zip(panel.keys.names, values, strict=True)})
    return int(panel.keys.rows_of(codes)[0])


def csv_text(columns: dict[str, Any], separator: str = ",") -> str:
    """Columns as the text of a CSV file; None is an empty cell."""
    out = io.StringIO()
    writer = csv.writer(out, delimiter=separator, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return out.getvalue()


def write_csv(path: Path, columns: dict[str, Any], separator: str = ",") -> Path:
    """Writes a CSV file, gzipped where its name ends so."""
    content = csv_text(columns, separator).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def small_columns(days: int = 40) -> dict[str, list[Any]]:
    """Columns of three shops that sell 1 … 9 pieces every day of 2024, as a CSV file has them."""
    cells = [(day, shop) for day in range(days) for shop in range(3)]
    return {
        "day": [str(date.fromordinal(date(2024, 1, 1).toordinal() + day)) for day, _ in cells],
        "shop": [f"shop-{shop}" for _, shop in cells],
        "units": [1 + (3 * day + 5 * shop) % 9 for day, shop in cells],
    }


def few_in(folder: Path, columns: dict[str, Any] | None = None, config: str = FEW) -> DatasetFile:
    """The least dataset in a folder, with its panel as a CSV file."""
    write_csv(folder / "panel.csv", small_columns() if columns is None else columns)
    path = folder / "few.toml"
    path.write_text(config, encoding="utf-8")
    return load_dataset(path)


def as_csv(columns: dict[str, Any] | None = None) -> dict[str, list[str]]:
    """The made-up panel as text."""
    made = made_up_columns() if columns is None else columns
    return {name: [str(value) for value in values] for name, values in made.items()}
