"""Keys and rows: how the keys of a request become a row of the history tables.

A table on the ``series`` axis has one row for each known series, then the cold rows: one for each
value of each key, in the order of the keys, and one for everything. A request's row is

1. the series, where its combination of keys is known;
2. else the cold row of its last key whose value is known (the last key is the finest);
3. else the row for everything.

A key's own axis has one row for each value and a last one for an unknown value. The same two
steps (value to code, codes to row) are written into the graph by ``trainer.graph``.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from schemas.errors import ModelwireError

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Float32s = npt.NDArray[np.float32]


MOST_COMBINATIONS = 2**62
"""Combinations of values are numbered by an int64, in the graph too."""


class KeyKind(StrEnum):
    """What the values of a key are: text, or whole numbers of 64 bits."""

    TEXT = "text"
    WHOLE = "whole"


@dataclass(frozen=True)
class Keys:
    """The keys of a panel of S series.

    ``vocabulary`` holds the sorted known values of each key, all text or all whole numbers, and
    ``codes`` the position of each series' value in it, as ``[keys, S]``. Series are sorted by their
    codes.
    """

    names: tuple[str, ...]
    vocabulary: tuple[tuple[str, ...] | tuple[int, ...], ...]
    codes: Ints

    def __post_init__(self) -> None:
        combinations = math.prod(self.sizes)
        if combinations > MOST_COMBINATIONS:
            said = ", ".join(
                f"{name} {len(values):,}"
                for name, values in zip(self.names, self.vocabulary, strict=True)
            )
            raise ModelwireError(
                f"the keys have too many values together ({said}): their combinations cannot be numbered",
                hint="put keys that always come together into one column",
            )

    @property
    def kinds(self) -> tuple[KeyKind, ...]:
        """The kind of each key's values."""
        return tuple(
            KeyKind.WHOLE if isinstance(values[0], int) else KeyKind.TEXT
            for values in self.vocabulary
        )

    @property
    def series(self) -> int:
        """S, the number of known series."""
        return int(self.codes.shape[1])

    @property
    def sizes(self) -> tuple[int, ...]:
        """Values of each key, the unknown one included."""
        return tuple(len(values) + 1 for values in self.vocabulary)

    @property
    def rows(self) -> int:
        """Rows of a table on the series axis, cold rows included."""
        return self.series + sum(len(values) for values in self.vocabulary) + 1

    def cold_rows(self, key: int) -> Ints:
        """The cold rows for the values of a key, in the order of its vocabulary."""
        start = self.series + sum(len(values) for values in self.vocabulary[:key])
        return np.arange(start, start + len(self.vocabulary[key]))

    @property
    def cells(self) -> Ints:
        """The known combinations of codes as one number each, in the order of the series: sorted."""
        return self.cell_of(self.codes)

    def cell_of(self, codes: Ints) -> Ints:
        """Combinations of codes ``[keys, N]`` as one number each: row-major over ``sizes``."""
        cell: Ints = codes[0]
        for code, size in zip(codes[1:], self.sizes[1:], strict=True):
            cell = cell * size + code
        return cell

    def rows_of(self, codes: Ints) -> Ints:
        """The row of each combination of codes, ``[keys, N]`` to ``[N]``."""
        rows = np.full(codes.shape[1], self.rows - 1, dtype=np.int64)
        for key, values in enumerate(self.vocabulary):
            known = codes[key] < len(values)
            rows[known] = self.cold_rows(key)[codes[key, known]]
        cells, wanted = self.cells, self.cell_of(codes)
        place = np.minimum(np.searchsorted(cells, wanted), len(cells) - 1)
        found: Ints = np.where(cells[place] == wanted, place, rows)
        return found

    def encode(self, columns: Mapping[str, Sequence[str | int]]) -> Ints:
        """Values of raw requests, ``[N]`` for each key, to codes ``[keys, N]``; unknown is last."""
        coded = []
        for name, values in zip(self.names, self.vocabulary, strict=True):
            known: tuple[str | int, ...] = values
            positions = {value: position for position, value in enumerate(known)}
            coded.append([positions.get(value, len(values)) for value in columns[name]])
        return np.asarray(coded, dtype=np.int64)

    def key_means(self, key: int, values: Floats) -> Floats:
        """Mean over the series of each value of a key: ``[S, …]`` to ``[values, …]``."""
        codes, count = self.codes[key], len(self.vocabulary[key])
        sums = np.zeros((count, *values.shape[1:]))
        np.add.at(sums, codes, values)
        series = np.bincount(codes, minlength=count)
        return sums / series.reshape((-1,) + (1,) * (values.ndim - 1))

    def with_cold_rows(self, values: Floats) -> Floats:
        """``[S, …]`` extended by the cold rows, which are means over the series they stand for."""
        cold = [self.key_means(key, values) for key in range(len(self.names))]
        return np.concatenate([values, *cold, values.mean(axis=0, keepdims=True)])

    def with_unknown(self, key: int, values: Floats) -> Floats:
        """``[S, …]`` to the axis of one key: means for each value, and over all for unknown."""
        return np.concatenate([self.key_means(key, values), values.mean(axis=0, keepdims=True)])
