"""The panel: daily units of every known series, dense, read from the dataset's source.

Rules:

1. Rows of the same series and day are added up; a day without a row is a day with no sales.
2. Days run without gaps from the first to the last day of the source.
3. The last ``holdout`` days are held out, and the cutoff is the day before them. Which series are
   known is decided by days up to the cutoff alone.
4. A missing value, a negative or non-finite target, a key that is not text and a date with a time
   zone are refused: each has several meanings, and guessing one would hide it.
"""

from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from schemas.errors import ModelwireError, NotFound, UsageProblem
from trainer.dataset import Dataset, DatasetFile
from trainer.keys import Floats, Ints, Keys

EPOCH = date(1970, 1, 1)

MAX_KEY_LENGTH = 256
"""Longest key value, in characters; the contract allows requests no longer ones."""

MIN_HISTORY = 56
"""Fewest days up to the cutoff: four weeks of features, and four weeks of targets to learn from."""


def day_of(number: int) -> date:
    """The date of a day number (days since 1970-01-01)."""
    return EPOCH + timedelta(days=int(number))


@dataclass(frozen=True)
class Panel:
    """Units by series and day.

    ``units`` is ``[S, T]``, at least 0, for the T days from ``first_day`` (days since 1970-01-01).
    ``cutoff`` is the column of the last day that training may see; the columns after it are held
    out. ``unit_share`` is the share of the held-out units that belongs to known series.
    """

    keys: Keys
    units: Floats
    first_day: int
    cutoff: int
    horizon: int
    unit_share: float

    @property
    def cutoff_day(self) -> int:
        """The cutoff in days since 1970-01-01."""
        return self.first_day + self.cutoff

    @property
    def logs(self) -> Floats:
        """The target: natural log of 1 + units, ``[S, T]``."""
        return np.log1p(self.units)

    def weekdays(self, columns: Ints) -> Ints:
        """Weekday of each column, Monday 0; columns may lie after the last."""
        return weekday(self.first_day + columns)


def weekday(days: Ints) -> Ints:
    """Weekday of days since 1970-01-01, Monday 0: that day was a Thursday."""
    return (days + 3) % 7


def read_source(file: DatasetFile) -> bytes:
    """The source as it is now: read once, so that what is digested is what is trained on."""
    try:
        return file.source.read_bytes()
    except FileNotFoundError:
        raise NotFound(
            f"{file.where('source')} names {file.source}, which does not exist",
            hint="the path is relative to the folder of the dataset configuration",
        ) from None
    except OSError as error:
        raise ModelwireError(f"{file.source} cannot be read: {error}") from error


def read_panel(file: DatasetFile, content: bytes) -> Panel:
    """The panel in the ``content`` of the dataset's source.

    Raises ModelwireError naming the file and what is wrong in it.
    """
    dataset = file.dataset
    table = _read_table(file, content)
    if table.num_rows == 0:
        raise ModelwireError(
            f"the panel is empty: {file.source} has no rows",
            hint="point `source` at a file with at least one row a day and series",
        )
    columns = _Columns(file.source, table)
    days = columns.days(dataset.date)
    units = columns.units(dataset.target)
    keys = [columns.texts(name) for name in dataset.keys]
    return _dense(dataset, file.source, days, units, keys)


def _read_table(file: DatasetFile, content: bytes) -> pa.Table:
    dataset, path = file.dataset, file.source
    wanted: dict[tuple[str, ...], str] = {
        ("date",): dataset.date,
        ("target",): dataset.target,
        **{("keys", name): name for name in dataset.keys},
    }
    try:
        source = pq.ParquetFile(pa.BufferReader(content))
        found = source.schema_arrow.names
        for key, column in wanted.items():
            if column not in found:
                raise UsageProblem(
                    f"{file.where(*key)} names column {column!r}, which {path} does not have",
                    hint=f"its columns are {', '.join(found)}",
                )
        return source.read(columns=list(wanted.values()))
    except (pa.ArrowInvalid, OSError) as error:
        raise ModelwireError(
            f"{path} cannot be read as Parquet: {error}",
            hint="write it again, for instance with pandas' to_parquet",
        ) from error


class _Columns:
    """Typed columns of the source, or a message that names file, column and row."""

    def __init__(self, path: Path, table: pa.Table) -> None:
        self._path = path
        self._table = table

    def days(self, name: str) -> Ints:
        column = self._whole(name)
        if pa.types.is_timestamp(column.type) and column.type.tz is not None:
            raise self._problem(name, f"has a time zone ({column.type.tz})", "write plain dates")
        if not (pa.types.is_timestamp(column.type) or pa.types.is_date(column.type)):
            raise self._problem(name, f"is {column.type}, not a date", "write it as a date")
        midnight = pc.floor_temporal(column, unit="day")
        self._refuse(name, pc.not_equal(column, midnight), "has a time of day", "sum by day first")
        days = midnight.cast(pa.date32()).cast(pa.int32())
        return np.asarray(days, dtype=np.int64)

    def units(self, name: str) -> Floats:
        column = self._whole(name)
        if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
            raise self._problem(name, f"is {column.type}, not a number", "write it as a number")
        values = np.asarray(column, dtype=np.float64)
        bad = ~np.isfinite(values) | (values < 0)
        self._refuse(name, bad, "is not a number of at least 0", "decide what the row means")
        return values

    def texts(self, name: str) -> tuple[list[str], Ints]:
        """Sorted distinct values, and the position of each row's value among them."""
        column = self._whole(name)
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
            raise self._problem(name, f"is {column.type}, not text", "write keys as text")
        too_long = pc.greater(pc.utf8_length(column), MAX_KEY_LENGTH)
        self._refuse(name, too_long, f"is longer than {MAX_KEY_LENGTH} characters", "shorten it")
        encoded = column.combine_chunks().dictionary_encode()
        values = encoded.dictionary.to_pylist()
        order = sorted(range(len(values)), key=values.__getitem__)
        rank = np.empty(len(values), dtype=np.int64)
        rank[order] = np.arange(len(values))
        return [values[i] for i in order], rank[encoded.indices.to_numpy()]

    def _whole(self, name: str) -> Any:
        column = self._table.column(name)
        self._refuse(name, pc.is_null(column), "is missing", "fill it or drop the row")
        return column

    def _refuse(self, name: str, bad: Any, said: str, hint: str) -> None:
        rows = np.flatnonzero(np.asarray(bad))
        if len(rows):
            more = f" (and {len(rows) - 1} more)" if len(rows) > 1 else ""
            value = self._table.column(name)[int(rows[0])].as_py()
            raise self._problem(name, f"{said} in row {rows[0] + 1}{more}: {value!r}", hint)

    def _problem(self, name: str, said: str, hint: str) -> ModelwireError:
        return ModelwireError(f"{self._path}: column {name!r} {said}", hint=hint)


def _dense(
    dataset: Dataset, path: Path, days: Ints, units: Floats, texts: list[tuple[list[str], Ints]]
) -> Panel:
    first, last = int(days.min()), int(days.max())
    cutoff = last - first - dataset.holdout
    if cutoff + 1 < MIN_HISTORY:
        raise ModelwireError(
            f"the panel is too short: {path} has {last - first + 1} days "
            f"({day_of(first)} … {day_of(last)}), of which {max(cutoff + 1, 0)} are not held out",
            hint=f"training needs at least {MIN_HISTORY} days beside the {dataset.holdout} held out",
        )
    columns = days - first
    shape = tuple(len(values) for values, _ in texts)
    cells = np.ravel_multi_index(tuple(codes for _, codes in texts), shape)
    known = _known_cells(dataset, cells, columns, units, cutoff, last - first + 1)
    if not len(known):
        raise ModelwireError(
            f"the panel has no series to learn from: none in {path} sold on {dataset.min_days} of "
            f"the {dataset.recent_days} days up to {day_of(first + cutoff)}",
            hint="lower `min_days` or raise `recent_days`",
        )
    row = np.searchsorted(known, cells)
    is_known = known[np.minimum(row, len(known) - 1)] == cells
    dense = np.zeros((len(known), last - first + 1))
    np.add.at(dense, (row[is_known], columns[is_known]), units[is_known])
    held_out = dense[:, cutoff + 1 :].sum()
    if not held_out:
        raise ModelwireError(
            f"nothing was sold on the held-out days {day_of(first + cutoff + 1)} … {day_of(last)} "
            f"of {path}, so no error can be measured",
            hint="raise `holdout`, or cut the empty days off the panel",
        )
    share = float(held_out / units[columns > cutoff].sum())
    return Panel(
        keys=_keys(dataset, known, shape, [values for values, _ in texts]),
        units=dense,
        first_day=first,
        cutoff=cutoff,
        horizon=dataset.horizon,
        unit_share=share,
    )


def _known_cells(
    dataset: Dataset, cells: Ints, columns: Ints, units: Floats, cutoff: int, days: int
) -> Ints:
    """Sorted combinations of keys that sold on enough recent days (each day counts once)."""
    recent = (columns <= cutoff) & (columns > cutoff - dataset.recent_days) & (units > 0)
    sold = np.unique(cells[recent] * days + columns[recent]) // days
    found, count = np.unique(sold, return_counts=True)
    return found[count >= dataset.min_days]


def _keys(dataset: Dataset, known: Ints, shape: tuple[int, ...], values: list[list[str]]) -> Keys:
    """The keys of the known series; their vocabularies hold only values that a series has."""
    vocabulary, codes = [], []
    for names, column in zip(values, np.unravel_index(known, shape), strict=True):
        present, code = np.unique(column, return_inverse=True)
        vocabulary.append(tuple(names[i] for i in present))
        codes.append(code)
    return Keys(
        names=tuple(dataset.keys),
        vocabulary=tuple(vocabulary),
        codes=np.asarray(codes, dtype=np.int64),
    )
