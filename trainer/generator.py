"""The generator: panels of daily sales in the shape of a grocery chain's, of any size, from a seed.

What is sold is ``trainer.chain``'s; here it becomes files, a block of series at a time, so a panel may be
far larger than memory. The same design gives the same bytes with the same versions of numpy and pyarrow.
A configuration lies beside the data: ``modelwire train --dataset FOLDER/dataset.toml``.
"""

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from schemas.errors import ModelwireError
from trainer.chain import FAMILIES, Block, Closed, Design, Layout, World, national_holidays
from trainer.keys import Ints
from trainer.panel import day_of

_PANEL_FILES = {Layout.FAVORITA: "train.parquet", Layout.PLAIN: "panel.parquet"}


@dataclass(frozen=True)
class Made:
    """What was written: the configuration, and how many rows the panel has."""

    dataset: Path
    rows: int


def generate(design: Design, folder: Path, progress: Callable[[int], None] | None = None) -> Made:
    """Writes the panel of a design into a folder; ``progress`` hears of the series done.

    Raises ModelwireError where the folder cannot be written, or already holds a dataset.
    """
    dataset = folder / "dataset.toml"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if dataset.exists():
            raise ModelwireError(f"{dataset} is already there", hint="name an empty folder")
        world = World(design)
        if design.layout == Layout.FAVORITA:
            _write_side_tables(world, folder)
        rows = _write_panel(world, folder / _PANEL_FILES[design.layout], progress)
        dataset.write_text(_configuration(design), encoding="utf-8")
    except OSError as error:
        raise ModelwireError(f"{folder} cannot be written: {error}") from error
    return Made(dataset, rows)


def _write_panel(world: World, path: Path, progress: Callable[[int], None] | None) -> int:
    rows = done = 0
    writer: pq.ParquetWriter | None = None
    partial = path.with_name(f"{path.name}.partial")
    try:
        for block in world.blocks():
            table = _table(world, block)
            if writer is None:
                writer = pq.ParquetWriter(partial, table.schema, compression="zstd")
            writer.write_table(table)
            rows += table.num_rows
            done += len(block.item)
            if progress:
                progress(done)
    finally:
        if writer is not None:
            writer.close()
    partial.replace(path)
    return rows


def _table(world: World, block: Block) -> pa.Table:
    rows, days = np.nonzero(block.listed)
    dates = pa.array(world.days[days].astype(np.int32)).cast(pa.date32())
    item, store = block.item[rows], block.store[rows]
    units = pa.array(block.units[rows, days].astype(np.int32))
    columns: dict[str, Any]
    if world.design.layout == Layout.FAVORITA:
        columns = {
            "date": dates,
            "store_nbr": pa.array((store + 1).astype(np.int32)),
            "item_nbr": pa.array(item_number(item).astype(np.int32)),
            "unit_sales": units,
            "onpromotion": pa.array(block.promoted[rows, days]),
        }
    else:
        columns = {
            "day": dates,
            "branch": _labels(store, [f"branch-{i:02d}" for i in range(world.stores)]),
            "article": _labels(item, [f"a{i:06d}" for i in range(world.items)]),
            "quantity": units,
        }
    if world.design.closed != Closed.NEVER:
        columns["closed"] = pa.array(world.closed[days])
    return pa.table(columns)


def item_number(item: Ints) -> Ints:
    """The number of items in the competition's layout, by their position."""
    return 96_995 + 7 * item


def _labels(codes: Ints, labels: list[str]) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32)), pa.array(labels))


def _write_side_tables(world: World, folder: Path) -> None:
    cities = [f"City {city:02d}" for city in range(int(world.city.max()) + 1)]
    states = [f"State {city // 2:02d}" for city in range(len(cities))]
    stores = range(world.stores)
    _write_csv(
        folder / "stores.csv",
        ["store_nbr", "city", "state", "type", "cluster"],
        [
            (i + 1, cities[world.city[i]], states[world.city[i]], world.type[i], world.cluster[i])
            for i in stores
        ],
    )
    families = [FAMILIES[family] for family in world.family]
    _write_csv(
        folder / "items.csv",
        ["item_nbr", "family", "perishable"],
        [(item_number(np.asarray(i)), *family) for i, family in enumerate(families)],
    )
    _write_csv(
        folder / "holidays_events.csv",
        ["date", "type", "locale", "locale_name", "description", "transferred"],
        sorted(_holiday_rows(world, cities)),
    )
    traffic = world.traffic()
    _write_csv(
        folder / "transactions.csv",
        ["date", "store_nbr", "transactions"],
        [
            (day_of(day), store + 1, traffic[store, column])
            for column, day in enumerate(world.days)
            for store in stores
            if traffic[store, column]
        ],
    )


def _holiday_rows(world: World, cities: list[str]) -> Iterator[tuple[str, ...]]:
    """The holidays from a year before the panel to a year after it, as far as they are known."""
    for year in range(day_of(world.days[0]).year - 1, day_of(world.days[-1]).year + 2):
        for on, kept in national_holidays(year):
            moved = kept != on
            name = f"Holiday {on.month}-{on.day}"
            yield str(on), "Holiday", "National", "Country", name, str(moved)
            if moved:
                yield str(kept), "Transfer", "National", "Country", f"{name} (kept)", "False"
        for city, number in zip(cities, world.city_day, strict=True):
            day = date(year, 1, 1) + timedelta(days=int(number) - 1)
            yield str(day), "Holiday", "Local", city, f"Foundation of {city}", "False"
        yield f"{year}-11-25", "Event", "National", "Country", "Discounts", "False"


def _write_csv(path: Path, names: list[str], rows: list[tuple[Any, ...]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(names)
        writer.writerows(rows)


def _configuration(design: Design) -> str:
    """The configuration of the panel, as a user would write it."""
    is_closed = design.closed != Closed.NEVER
    closed_line = 'closed = "closed"\n' if is_closed else ""
    closed_covariate = 'closed = "1 on days on which the shop is closed"' if is_closed else ""
    if design.layout == Layout.PLAIN:
        covariates = f"covariates = {{ {closed_covariate} }}\n" if is_closed else ""
        return f"""\
name = "generated, seed {design.seed}"
model = "sales"
source = "{_PANEL_FILES[design.layout]}"
date = "day"
target = "quantity"
horizon = {design.horizon}
keys = {{ branch = "The branch", article = "The article" }}
{closed_line}{covariates}"""
    return f"""\
name = "generated, seed {design.seed}"
model = "sales"
source = "{_PANEL_FILES[design.layout]}"
date = "date"
target = "unit_sales"
horizon = {design.horizon}
{closed_line}slices = ["type", "family", "perishable"]
weights = {{ perishable = 1.25 }}

[keys]
store_nbr = "Number of the store"
item_nbr = "Number of the item"

[covariates]
onpromotion = "Whether the item is on promotion in the store on that day"
{closed_covariate}
[[attributes]]
source = "stores.csv"
key = "store_nbr"
columns = ["city", "state", "type", "cluster"]

[[attributes]]
source = "items.csv"
key = "item_nbr"
columns = ["family", "perishable"]

[holidays]
source = "holidays_events.csv"
match = {{ Local = "city" }}

[traffic]
source = "transactions.csv"
key = "store_nbr"
value = "transactions"
"""
