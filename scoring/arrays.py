"""Between rows and arrays: fills a graph's inputs from decoded requests, and reads its outputs.

1. N is a multiple of 64, padded by repeating the last row. Below 64 rows, and at sizes such as 70 or
   93, ONNX Runtime takes other code paths for the rest of a vector, and the last bits of a row then
   depend on how many rows came with it (measured: tree ensembles, Log, Sin, Softplus). At multiples
   of 64 they do not.
2. What the contract says of absent fields, nulls and dates happens here: an absent optional field
   becomes its default (null where it has none), null becomes ``null_as`` or NaN, and a date the days
   since 1970-01-01. The row itself stays what the caller wrote.
3. An output tensor of another shape or element type than the contract says is an error of the model:
   nothing is cast silently, and ``scoring.runs`` finds the rows that bring it about. A value that is
   not finite rejects its own row only.

Both directions are compiled once for a contract. Columns are taken by transposing the rows at once:
it costs a quarter of reading attributes one by one.
"""

from collections.abc import Callable, Sequence
from datetime import date
from functools import lru_cache
from itertools import repeat
from typing import Any

import msgspec
import numpy as np
from msgspec import UNSET

from schemas.codec import Row, row_fields
from schemas.contract import Contract, Field, FieldType, Output, TensorType
from schemas.rejection import Reason, Rejected
from scoring.model import Array

BATCH_MULTIPLE = 64

EPOCH = date(1970, 1, 1).toordinal()

Gather = Callable[[Sequence[Row]], dict[str, Array]]

OutputRow = Any
"""The outputs of one row: a struct with one attribute a contract output, in the contract's order."""

ReadOutputs = Callable[[Sequence[Any], int], list[OutputRow | Rejected]]

_Column = tuple[Any, ...]
_Convert = Callable[[_Column], Sequence[Any]]

_DTYPES: dict[TensorType, type[np.generic]] = {
    TensorType.STRING: np.object_,
    TensorType.INT64: np.int64,
    TensorType.INT32: np.int32,
    TensorType.FLOAT64: np.float64,
    TensorType.FLOAT32: np.float32,
    TensorType.BOOL: np.bool_,
}

_OUTPUT_DTYPES: dict[FieldType, type[np.generic]] = {
    FieldType.INT64: np.int64,
    FieldType.FLOAT64: np.float64,
    FieldType.FLOAT32: np.float32,
    FieldType.BOOL: np.bool_,
}


class WrongOutput(Exception):
    """The model gave a tensor that is not what its contract says."""


def padded(count: int) -> int:
    """The number of rows that ``count`` rows are padded to."""
    return -(-count // BATCH_MULTIPLE) * BATCH_MULTIPLE


def compile_gather(contract: Contract) -> Gather:
    """A function from one row or more to the graph's inputs by name, ``[N]`` or ``[N, k]``."""
    place = {field.name: index for index, field in enumerate(row_fields(contract))}
    vectors: list[tuple[str, type[np.generic], int, _Convert | None]] = []
    matrices: list[tuple[str, type[np.generic], list[tuple[int, _Convert | None]]]] = []
    for tensor, members in contract.tensors().items():
        dtype = _DTYPES[members[0].binding.dtype]
        columns = [(place[field.name], _conversion(field)) for field in members]
        if members[0].binding.column is None:
            vectors.append((tensor, dtype, *columns[0]))
        else:
            matrices.append((tensor, dtype, columns))

    def gather_rows(rows: Sequence[Row]) -> dict[str, Array]:
        count = padded(len(rows))
        full = [*rows, *repeat(rows[-1], count - len(rows))]
        columns = list(zip(*map(msgspec.structs.astuple, full), strict=True))
        feeds: dict[str, Array] = {}
        for tensor, dtype, index, convert in vectors:
            column = columns[index]
            feeds[tensor] = np.array(column if convert is None else convert(column), dtype=dtype)
        for tensor, dtype, members in matrices:
            matrix: Array = np.empty((count, len(members)), dtype=dtype)
            for at, (index, convert) in enumerate(members):
                column = columns[index]
                matrix[:, at] = column if convert is None else convert(column)
            feeds[tensor] = matrix
        return feeds

    return gather_rows


def _conversion(field: Field) -> _Convert | None:
    """What turns a column of wire values into values for the tensor; None where nothing must."""
    is_date = field.type is FieldType.DATE
    if field.required and not field.nullable:
        return _days if is_date else None
    null = float("nan") if field.null_as is None else field.null_as
    absent = null if field.default is None else field.default
    if not is_date:
        return lambda column: [
            absent if value is UNSET else null if value is None else value for value in column
        ]
    null, absent = _constant_days(null), _constant_days(absent)
    return lambda column: [
        absent if day is UNSET else null if day is None else day.toordinal() - EPOCH
        for day in column
    ]


def _days(column: _Column) -> list[int]:
    return [day.toordinal() - EPOCH for day in column]


def _constant_days(value: Any) -> int | float:
    """A default or ``null_as`` of a date field as days; NaN stays NaN."""
    return date.fromisoformat(value).toordinal() - EPOCH if isinstance(value, str) else value


def output_tensors(contract: Contract) -> tuple[str, ...]:
    """The graph's outputs that the contract reads, each once."""
    return tuple(dict.fromkeys(output.tensor for output in contract.outputs))


@lru_cache(maxsize=64)
def _struct_of(names: tuple[str, ...]) -> type[msgspec.Struct]:
    """The class of the outputs; versions share it, as they do that of their rows."""
    return msgspec.defstruct("Outputs", [(name, Any) for name in names], frozen=True, gc=False)


def compile_outputs(contract: Contract) -> ReadOutputs:
    """A function from (tensors in the order of ``output_tensors``, number of rows) to one entry a row.

    An entry is the row's outputs, or Rejected where one of them is not finite. A float32 becomes the
    Python float of the same value. Raises WrongOutput where a tensor is not what the contract says.
    """
    tensors = output_tensors(contract)
    outputs = contract.outputs
    shape = _struct_of(tuple(output.name for output in outputs))

    def read_outputs(arrays: Sequence[Any], count: int) -> list[OutputRow | Rejected]:
        length = padded(count)
        taken = [column[:count] for column in _columns(outputs, tensors, arrays, length)]
        entries: list[OutputRow | Rejected] = list(
            map(shape, *(column.tolist() for column in taken))
        )
        for output, column in zip(outputs, taken, strict=True):
            finite = np.isfinite(column)
            if not finite.all():
                for index in np.flatnonzero(~finite).tolist():
                    entries[index] = Rejected(
                        Reason.NOT_FINITE, f"the model gave {output.name} = {column[index]}"
                    )
        return entries

    return read_outputs


def check_outputs(contract: Contract, arrays: Sequence[Any], length: int) -> None:
    """Raises WrongOutput where the tensors of a run on ``length`` rows, padded or not, are wrong.

    ``arrays`` are in the order of ``output_tensors``.
    """
    _columns(contract.outputs, output_tensors(contract), arrays, length)


def _columns(
    outputs: Sequence[Output], tensors: Sequence[str], arrays: Sequence[Any], length: int
) -> list[Array]:
    """Each output's values, ``[length]``."""
    if len(arrays) != len(tensors):
        raise WrongOutput(f"the model gave {len(arrays)} outputs, not {len(tensors)}")
    given = dict(zip(tensors, arrays, strict=True))
    return [_column(output, given[output.tensor], length) for output in outputs]


def _column(output: Output, array: Any, length: int) -> Array:
    where = f"output {output.name!r}: tensor {output.tensor!r}"
    if not isinstance(array, np.ndarray):
        raise WrongOutput(f"{where} is a {type(array).__name__}, not a tensor")
    dtype = np.dtype(_OUTPUT_DTYPES[output.type])
    if array.dtype != dtype:
        raise WrongOutput(f"{where} is of {array.dtype}; the contract says {dtype}")
    column = output.column
    fits = array.shape[:1] == (length,) and (
        array.shape[1:] in ((), (1,)) if column is None else array.ndim == 2
    )
    if not fits or (column is not None and column >= array.shape[1]):
        said = "[N] or [N, 1]" if column is None else f"[N, k] with a column {column}"
        raise WrongOutput(
            f"{where} has shape {list(array.shape)} for N = {length}; the contract says {said}"
        )
    values: Array = array.reshape(-1) if column is None else array[:, column]
    return values
