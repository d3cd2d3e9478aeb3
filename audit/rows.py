"""The rows of a question, printed as they come: for people, for programs, for files.

1. JSON is one object, ``{"rows": [{column: value, …}, …]}``, a row a line. CSV begins with the columns'
   names. Parquet keeps the types. None of them holds all rows in memory.
2. A table holds the first ``MOST_SHOWN`` rows and says where there are more. What callers wrote cannot
   steer the terminal: what is not printable is escaped.
3. In JSON and CSV times are RFC 3339 in UTC, bytes base64, and lists and structs JSON. A number without
   decimals is whole, however large.
4. Columns of one name get numbers behind the name, so that none is lost.
"""

import csv
import io
from base64 import b64encode
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from itertools import islice
from typing import IO, Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

MOST_SHOWN = 100
"""Rows of a table."""

NOTHING = "–"

_LONGEST = 120
"""Characters of a value in a table."""

_NUMBERS = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)

_encode = msgspec.json.Encoder(decimal_format="number", enc_hook=str).encode


def write_json(rows: pa.RecordBatchReader, out: IO[bytes]) -> None:
    """All rows as one JSON object."""
    names = _names(rows.schema)
    before = b'{"rows":['
    for row in _plain_rows(rows):
        out.write(before + b"\n" + _encode(dict(zip(names, row, strict=True))))
        before = b","
    out.write((before if before != b"," else b"") + b"\n]}\n")


def write_csv(rows: pa.RecordBatchReader, out: IO[bytes]) -> None:
    """All rows as CSV; what is missing is empty."""
    text = io.TextIOWrapper(out, "utf-8", newline="", write_through=True)
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_names(rows.schema))
    for row in _plain_rows(rows):
        writer.writerow([_in_csv(value) for value in row])
    text.detach()


def write_parquet(rows: pa.RecordBatchReader, out: IO[bytes]) -> None:
    """All rows as a Parquet file."""
    fields = [
        field.with_name(name) for field, name in zip(rows.schema, _names(rows.schema), strict=True)
    ]
    schema = pa.schema(fields)
    with pq.ParquetWriter(pa.PythonFile(out, "w"), schema, compression="zstd") as writer:
        for batch in rows:
            writer.write_batch(pa.RecordBatch.from_arrays(batch.columns, schema=schema))


def table_of(rows: pa.RecordBatchReader) -> RenderableType:
    """The first rows for people."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for field in rows.schema:
        is_number = any(is_such(field.type) for is_such in _NUMBERS)
        table.add_column(
            Text(field.name), overflow="fold", justify="right" if is_number else "left"
        )
    shown = list(islice(_plain_rows(rows), MOST_SHOWN + 1))
    for row in shown[:MOST_SHOWN]:
        table.add_row(*map(_in_table, row))
    if not shown:
        return Text("no rows")
    if len(shown) <= MOST_SHOWN:
        return table
    return Group(table, Text(f"the first {MOST_SHOWN} rows (all: -o json, csv or parquet)"))


def _plain_rows(rows: pa.RecordBatchReader) -> Iterator[tuple[Any, ...]]:
    for batch in rows:
        columns = [[_plain(value) for value in column.to_pylist()] for column in batch.columns]
        yield from zip(*columns, strict=True)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC) if value.tzinfo else value
    if isinstance(value, Decimal) and value == value.to_integral_value():
        return int(value)
    return value


def _in_csv(value: Any) -> object:
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, bytes):
        return b64encode(value).decode()
    return _encode(value).decode().removeprefix('"').removesuffix('"')


def _in_table(value: Any) -> Text:
    if value is None:
        return Text(NOTHING)
    if isinstance(value, datetime):
        said = value.isoformat(" ", "milliseconds").replace("+00:00", "Z")
    elif isinstance(value, float):
        said = f"{value:.6g}"
    elif isinstance(value, bytes):
        said = value.decode(errors="backslashreplace")
    else:
        said = value if isinstance(value, str) else str(_in_csv(value))
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in said)
    return Text(shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]}…")


def _names(schema: pa.Schema) -> list[str]:
    names: list[str] = []
    for name in schema.names:
        number = 2
        unique = name
        while unique in names:
            unique, number = f"{name}_{number}", number + 1
        names.append(unique)
    return names
