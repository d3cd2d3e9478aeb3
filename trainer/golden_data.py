"""Golden data: raw inputs by field name, and what the training pipeline predicts for them.

Rules:

1. It is Parquet or CSV with one row a request and one column a field. An empty cell and NaN are null: a
   null is sent where the field is nullable, and where it is optional the field is left out.
2. A column with the name of an output holds the pipeline's own predictions. They are given for every
   output or for none; without them nothing proves the graph.
3. What came stands in columns that the contract file names by ``actual``; a null says that nobody knows.
4. A column that is none of these is refused: a misspelt prediction would leave the graph unproven unseen.
5. A row passes through the decoder of requests, so that what cannot be asked is not proven either. Rows
   count from 1, without a CSV file's header.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from schemas.codec import DecodeInputs, Row, compile_inputs
from schemas.contract import Contract, Field, FieldType
from schemas.errors import ModelwireError, NotFound
from schemas.rejection import Reason, Rejected

_PLACE = re.compile(r" - at `\$\.(\w+)`$")
"""Where the decoder ends its sentence with the field that it is about."""

Inputs = dict[str, Any]
"""The raw inputs of a request, as they are written in JSON."""


@dataclass(frozen=True)
class GoldenData:
    """Rows of golden data: the inputs of each, decoded as a request's are, and what is expected.

    ``expected`` maps each output to an array ``[rows]`` of float64; None where there are none.
    ``actuals`` does so for the outputs that have some, with NaN where a row has none.
    """

    path: Path
    inputs: list[Inputs]
    rows: list[Row]
    expected: dict[str, NDArray[np.float64]] | None
    actuals: dict[str, NDArray[np.float64]]

    def where(self, index: int) -> str:
        """The row at this index, counted from 0, as people count it."""
        return f"{self.path}: row {index + 1}"


def read_golden_data(
    path: Path, contract: Contract, actuals: Mapping[str, str] | None = None
) -> GoldenData:
    """The rows at ``path``; ``actuals`` maps outputs to the columns of what came.

    Raises NotFound, or ModelwireError with the column or the row at fault.
    """
    actuals = actuals or {}
    table = _read(path, contract)
    _check_actuals(path, table, contract, actuals)
    _check_columns(path, table, contract, {*actuals.values()})
    columns = {
        field.name: _Column(path, field, table.column(field.name)).values()
        for field in contract.fields
        if field.name in table.column_names
    }
    inputs = list(_inputs(contract, columns, table.num_rows))
    decode = compile_inputs(contract)
    rows = [_decoded(path, index, each, contract, decode) for index, each in enumerate(inputs)]
    names = [output.name for output in contract.outputs]
    expected = None
    if names[0] in table.column_names:
        expected = {name: _expected(path, name, table.column(name)) for name in names}
    came = {name: _actual(path, each, table.column(each)) for name, each in actuals.items()}
    return GoldenData(path, inputs, rows, expected, came)


def _read(path: Path, contract: Contract) -> pa.Table:
    texts = (FieldType.STRING, FieldType.DATE)  # 007 is no number, and a day needs no guess
    options = csv.ConvertOptions(
        column_types={each.name: pa.string() for each in contract.fields if each.type in texts},
        null_values=[""],
        strings_can_be_null=True,
        quoted_strings_can_be_null=False,
    )
    try:
        if path.suffix == ".csv":
            table = csv.read_csv(path, convert_options=options)
        else:
            table = pq.read_table(path)
    except FileNotFoundError:
        raise NotFound(
            f"no golden data at {path}", hint="a Parquet or CSV file with a column for each field"
        ) from None
    except (pa.ArrowException, OSError) as error:
        kind = "CSV" if path.suffix == ".csv" else "Parquet"
        raise ModelwireError(
            f"{path} cannot be read as {kind}: {str(error).splitlines()[0]}",
            hint="golden data is Parquet, or CSV in a file that ends in .csv",
        ) from error
    if table.num_rows == 0:
        raise ModelwireError(f"{path} has no rows", hint="give it the rows of a validation set")
    return table


def _check_actuals(
    path: Path, table: pa.Table, contract: Contract, actuals: Mapping[str, str]
) -> None:
    taken = {*(each.name for each in contract.fields), *(each.name for each in contract.outputs)}
    for output, column in actuals.items():
        if column in taken:
            raise ModelwireError(
                f"the actuals of {output} are said to be in the column {column!r} of {path}, which is a "
                "field or an output of the contract",
                hint="store what came in a column of its own, and name it by `actual`",
            )
        if column not in table.column_names:
            raise ModelwireError(
                f"{path} has no column {column!r} with the actuals of {output}; it has "
                f"{', '.join(table.column_names)}",
                hint=f"add what came, or leave `actual` out of [outputs.{output}]",
            )


def _check_columns(path: Path, table: pa.Table, contract: Contract, actuals: set[str]) -> None:
    fields = {field.name: field for field in contract.fields}
    outputs = [output.name for output in contract.outputs]
    found = table.column_names
    if doubled := sorted({name for name in found if found.count(name) > 1}):
        raise ModelwireError(f"{path} has the column {doubled[0]!r} twice", hint="rename one")
    if both := sorted(fields.keys() & {*outputs}):
        raise ModelwireError(
            f"{both[0]!r} is a field and an output, so its column in {path} could be either",
            hint="give the output another name; its tensor says where it is read",
        )
    if missing := [name for name, each in fields.items() if each.required and name not in found]:
        raise ModelwireError(
            f"{path} has no column for {', '.join(missing)}; it has {', '.join(found)}",
            hint="golden data holds the raw inputs by the names that the contract gives the fields",
        )
    known = {*fields, *outputs, *actuals}
    if unknown := [name for name in found if name not in known]:
        raise ModelwireError(
            f"{path} has columns that are neither fields nor outputs: {', '.join(unknown)}",
            hint=f"drop them; predictions stand under the names of outputs ({', '.join(outputs)}), and "
            "the contract file names the columns of what came: `actual`, in the table of an output",
        )
    absent = [name for name in outputs if name not in found]
    if 0 < len(absent) < len(outputs):
        raise ModelwireError(
            f"{path} has the predictions of some outputs and none of {', '.join(absent)}",
            hint="give the pipeline's predictions for every output, or for none",
        )


class _Column:
    """One field's column, and what is wrong with it."""

    def __init__(self, path: Path, field: Field, column: pa.ChunkedArray) -> None:
        self._path = path
        self._field = field
        self._column = _plain(column)

    def values(self) -> list[Any]:
        """As they are written in JSON; None where the cell is null."""
        kind, field = self._column.type, self._field
        if pa.types.is_null(kind):
            values: list[Any] = self._column.to_pylist()
        elif field.type is FieldType.STRING:
            values = self._strings(kind)
        elif field.type is FieldType.DATE:
            values = self._dates(kind)
        elif field.type is FieldType.BOOL:
            values = self._bools(kind)
        else:
            values = self._numbers(kind)
        self._check_nulls(values)
        return values

    def _strings(self, kind: pa.DataType) -> list[Any]:
        if not _is_text(kind):
            raise self._wrong(
                "text", 'write type = "int64" for numbers, or store the column as text'
            )
        return list(self._column.to_pylist())

    def _dates(self, kind: pa.DataType) -> list[Any]:
        if not (pa.types.is_date(kind) or pa.types.is_timestamp(kind) or _is_text(kind)):
            raise self._wrong("days", "store days, or text such as 2017-08-16")
        return [
            self._day(index, value) if isinstance(value, date) else value
            for index, value in enumerate(self._column.to_pylist())
        ]

    def _day(self, index: int, value: date) -> str:
        if isinstance(value, datetime):
            if value.tzinfo is not None or value != datetime.combine(value, datetime.min.time()):
                raise self._wrong_cell(index, f"{value} is not a day: it has a time or a zone")
            value = value.date()
        return value.isoformat()

    def _bools(self, kind: pa.DataType) -> list[Any]:
        values = self._column.to_pylist()
        if pa.types.is_integer(kind) and {*values} <= {0, 1, None}:
            return [None if value is None else bool(value) for value in values]
        if not pa.types.is_boolean(kind):
            raise self._wrong("true and false", "store booleans, or 0 and 1")
        return list(values)

    def _numbers(self, kind: pa.DataType) -> list[Any]:
        whole = self._field.type is FieldType.INT64
        if pa.types.is_integer(kind):
            return list(self._column.to_pylist())
        if not (pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
            raise self._wrong(
                "numbers", "store numbers, or correct the field's type in the contract"
            )
        values = [
            self._number(index, value) for index, value in enumerate(self._column.to_pylist())
        ]
        if not whole:
            return values
        for index, value in enumerate(values):
            if value is not None and not value.is_integer():
                raise self._wrong_cell(index, f"{value} is not a whole number")
        return [None if value is None else int(value) for value in values]

    def _number(self, index: int, value: Any) -> float | None:
        if value is None or math.isnan(value):
            return None
        if math.isinf(value):
            raise self._wrong_cell(index, "it is infinite, and JSON has no such number")
        return float(value)

    def _check_nulls(self, values: Sequence[Any]) -> None:
        if self._field.nullable or not self._field.required:
            return
        nulls = [index for index, value in enumerate(values) if value is None]
        if nulls:
            raise ModelwireError(
                f"{self._path}: {self._field.name} is null in {len(nulls):,} of {len(values):,} rows, "
                f"first in row {nulls[0] + 1}, and the field is neither nullable nor optional",
                hint=f"write nullable = true in [fields.{self._field.name}] if the model knows what to "
                "do with nulls (a float tensor gets NaN, others need null_as); else drop these rows",
            )

    def _wrong(self, wanted: str, hint: str) -> ModelwireError:
        return ModelwireError(
            f"{self._path}: column {self._field.name} is of {self._column.type}, and the field of type "
            f"{self._field.type} wants {wanted}",
            hint=hint,
        )

    def _wrong_cell(self, index: int, what: str) -> ModelwireError:
        return ModelwireError(
            f"{self._path}: row {index + 1}, {self._field.name}: {what}",
            hint="mend the row, or correct the field in the contract",
        )


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    kind = column.type
    return column.cast(kind.value_type) if pa.types.is_dictionary(kind) else column


def _expected(path: Path, name: str, column: pa.ChunkedArray) -> NDArray[np.float64]:
    values = _numbers(path, name, column, "predictions")
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        raise ModelwireError(
            f"{path}: row {bad[0] + 1}, {name}: the prediction is {values[bad[0]]} or missing, as in "
            f"{len(bad):,} of {len(values):,} rows",
            hint="every row has a finite prediction, or the file has no such column",
        )
    return values


def _actual(path: Path, name: str, column: pa.ChunkedArray) -> NDArray[np.float64]:
    values = _numbers(path, name, column, "actuals")
    if np.isinf(values).any():
        at = int(np.flatnonzero(np.isinf(values))[0])
        raise ModelwireError(
            f"{path}: row {at + 1}, {name}: the actual is infinite",
            hint="mend the row, or empty the cell",
        )
    if np.isnan(values).all():
        raise ModelwireError(
            f"{path}: column {name} has no actual in any row",
            hint="store what came in it, or name no column by `actual`",
        )
    return values


def _numbers(path: Path, name: str, column: pa.ChunkedArray, what: str) -> NDArray[np.float64]:
    """The cells as float64, NaN where one is null."""
    column = _plain(column)
    kind = column.type
    numbers = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_decimal)
    if not (pa.types.is_null(kind) or any(each(kind) for each in numbers)):
        raise ModelwireError(
            f"{path}: column {name} is of {kind}, and {what} are numbers",
            hint=f"drop the column, or store the {what} in it",
        )
    return np.array([math.nan if v is None else float(v) for v in column.to_pylist()])


def _inputs(contract: Contract, columns: dict[str, list[Any]], count: int) -> Iterator[Inputs]:
    left_out = {field.name for field in contract.fields if not field.nullable}
    for index in range(count):
        yield {
            name: values[index]
            for name, values in columns.items()
            if values[index] is not None or name not in left_out
        }


def _decoded(
    path: Path, index: int, inputs: Inputs, contract: Contract, decode: DecodeInputs
) -> Row:
    try:
        return decode(msgspec.json.encode(inputs))
    except Rejected as rejected:
        raise ModelwireError(
            f"{path}: row {index + 1} is no request of the contract: "
            f"{_in_words(rejected, inputs, contract)}",
            hint="mend the row, or correct the field's limits in the contract",
        ) from None


def _in_words(rejected: Rejected, inputs: Inputs, contract: Contract) -> str:
    """Why a row is no request. The decoder names Python's types and JSON's paths; a table has neither."""
    place = _PLACE.search(rejected.detail)
    field = next((each for each in contract.fields if place and each.name == place[1]), None)
    if field is None:
        return rejected.detail
    value = inputs.get(field.name)
    said = f"{field.name} is {msgspec.json.encode(value).decode()}"
    match rejected.reason:
        case Reason.OUT_OF_RANGE:
            low = "any" if field.minimum is None else f"{field.minimum:g}"
            high = "any" if field.maximum is None else f"{field.maximum:g}"
            return f"{said}, outside of {low} … {high}"
        case Reason.WRONG_LENGTH:
            return f"{said}, of more than {field.max_length} characters"
        case Reason.NOT_ALLOWED:
            return f"{said}, none of {', '.join(map(str, (field.allowed or ())[:10]))}"
        case Reason.NOT_A_DATE:
            return f"{said}, no date such as 2017-08-16"
        case _:
            return f"{said}, which is no {field.type}"
