"""Dense: rows sorted by series and day, a batch at a time, become arrays of series by day.

An array is written to a file from its first row to its last, so that memory holds one block of it
however many series there are, and is then read or mapped. Rows of one series and day are combined
in the order of the source: sums of fractions depend on the order, and the same data must give the
same bytes.
"""

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from enum import StrEnum

import numpy as np

from schemas.errors import ModelwireError
from trainer.keys import Float32s, Floats, Ints

BLOCK_CELLS = 4 * 1024 * 1024
"""Cells of an array that are being filled: 16 MB."""

MAPPED_BYTES = 128 * 1024 * 1024
"""An array beyond this is a map of a file, whose pages the system takes back when it needs them."""


@contextmanager
def temporary_room() -> Iterator[None]:
    """For a block whose files are temporary, but for those whose problems it tells itself."""
    try:
        yield
    except OSError as error:
        raise ModelwireError(
            f"the panel cannot be kept in the temporary folder: {error.strerror or error}",
            hint="name a folder with more room by TMPDIR",
        ) from error


class Combine(StrEnum):
    """What several rows of a series and day give, and what a day without a row is."""

    SUM = "sum"
    """0 without a row."""
    ANY = "any"
    """The largest, for flags; 0 without a row."""
    MEAN = "mean"
    """Of the rows that have a value; NaN where none has."""


class Dense:
    """Arrays of ``series`` by ``days``, one for each way to ``combine``, being filled."""

    def __init__(
        self,
        series: int,
        days: int,
        combine: tuple[Combine, ...],
        block_cells: int = BLOCK_CELLS,
    ) -> None:
        self.shape = (series, days)
        self.doubled = 0
        """Series and days that had several rows."""
        self._combine = combine
        # Files without a name: they are gone with the process at the latest.
        self._files = [tempfile.TemporaryFile(prefix="modelwire-") for _ in combine]  # noqa: SIM115
        self._height = max(1, block_cells // days)
        self._start = 0
        self._blocks = self._new_blocks()

    def fill(self, batches: Iterable[tuple[Ints, list[Floats]]]) -> list[Float32s]:
        """The arrays. A batch is the cells (series · days + day), ascending over all batches, and the
        values of each array."""
        left: tuple[Ints, list[Floats]] | None = None
        for cells, values in batches:
            if left is not None:
                cells = np.concatenate([left[0], cells])
                values = [np.concatenate(pair) for pair in zip(left[1], values, strict=True)]
            if not len(cells):
                continue
            # The last cell waits for the next batch, which may have more rows of it.
            whole = int(np.searchsorted(cells, cells[-1]))
            self._put(cells[:whole], [each[:whole] for each in values])
            left = cells[whole:], [each[whole:] for each in values]
        if left is not None:
            self._put(*left)
        while self._start < self.shape[0]:
            self._flush()
        return [self._array(position) for position in range(len(self._files))]

    def _put(self, cells: Ints, values: list[Floats]) -> None:
        if not len(cells):
            return
        begins = np.flatnonzero(np.diff(cells, prepend=-1))
        self.doubled += int((np.diff(begins, append=len(cells)) > 1).sum())
        cells = cells[begins]
        values = [
            _combined(how, each, begins) for how, each in zip(self._combine, values, strict=True)
        ]
        while len(cells):
            end = (self._start + self._height) * self.shape[1]
            inside = int(np.searchsorted(cells, end))
            here = cells[:inside] - self._start * self.shape[1]
            for block, each in zip(self._blocks, values, strict=True):
                block[here] = each[:inside]
            cells, values = cells[inside:], [each[inside:] for each in values]
            if len(cells):
                self._flush()

    def _flush(self) -> None:
        rows = min(self._height, self.shape[0] - self._start)
        for file, block in zip(self._files, self._blocks, strict=True):
            file.write(block[: rows * self.shape[1]].tobytes())
        self._start += rows
        self._blocks = self._new_blocks()

    def _new_blocks(self) -> list[Float32s]:
        rows = min(self._height, self.shape[0] - self._start)
        return [
            np.full(rows * self.shape[1], np.nan if how == Combine.MEAN else 0, dtype=np.float32)
            for how in self._combine
        ]

    def _array(self, position: int) -> Float32s:
        """The file as an array. It has no name, and its space is freed with the array."""
        with self._files[position] as file:
            file.flush()
            if self.shape[0] * self.shape[1] * 4 > MAPPED_BYTES:
                return np.memmap(file, dtype=np.float32, mode="r", shape=self.shape)
            file.seek(0)
            return np.frombuffer(file.read(), dtype=np.float32).reshape(self.shape)


def _combined(how: Combine, values: Floats, begins: Ints) -> Floats:
    if how == Combine.SUM:
        return np.add.reduceat(values, begins)
    if how == Combine.ANY:
        return np.maximum.reduceat(np.nan_to_num(values), begins)
    has = np.isfinite(values)
    count = np.add.reduceat(has.astype(np.float64), begins)
    total = np.add.reduceat(np.where(has, values, 0), begins)
    return np.asarray(np.divide(total, np.where(count > 0, count, np.nan)))
