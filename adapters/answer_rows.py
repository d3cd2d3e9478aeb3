"""Answers as rows: how the records of the answer topics become columns, and come back byte for byte.

1. Every kind has ``topic, partition, offset, time, key, key_bytes, headers, raw``. ``time`` is the
   broker's. ``key`` is text; where the key's bytes are no UTF-8 it is null and ``key_bytes`` has them.
2. The other columns are what the record says (``columns_of``). Where they would not give the record's
   value back byte for byte, ``raw`` keeps the value too; where they say nothing of its headers,
   ``headers`` has those as JSON: ``[[name, base64 or null], …]``.
3. A record that is nothing of its kind has nulls and its ``raw``. Nothing is left out.
4. A forecast's outputs stand in ``outputs`` as the JSON that was answered, and once more, each as a
   float64, in a column ``output_<name>``: the columns of a file depend on what it holds.
5. Records become columns many at a time, by functions that expect them to be good. Where one is not,
   they are halved until it stands alone (rule 3).
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import repeat
from typing import Any

import pyarrow as pa

from adapters.answer_columns import (
    EVENT,
    FORECAST,
    MISFITS,
    OUTPUT_PREFIX,
    PLACE,
    REJECTION,
    TEXT,
    TO_COLUMNS,
    TO_RECORDS,
    Columns,
    header_column,
    headers_in,
)
from schemas.answer_file import Kind, Record

__all__ = ["OUTPUT_PREFIX", "columns_of", "records_of", "rows_of", "unreadable_in"]


def columns_of(kind: Kind) -> Mapping[str, pa.DataType]:
    """The columns that every file of this kind has, ``output_<name>`` aside."""
    own = {
        Kind.FORECASTS: FORECAST,
        Kind.SHADOW: FORECAST,
        Kind.REJECTIONS: REJECTION,
        Kind.CONTROL: EVENT,
    }
    return {**PLACE, **own[kind]}


def rows_of(kind: Kind, topic: str, partition: int, records: Sequence[Record]) -> pa.Table:
    """The records as rows, in their order. Raises nothing for what they hold."""
    types = columns_of(kind)
    if not records:
        return pa.schema(list(types.items())).empty_table()
    try:
        columns = TO_COLUMNS[kind](records)
        outputs = [name for name in columns if name not in types]
        columns |= _place_columns(topic, partition, records)
        schema = pa.schema([*types.items(), *((name, pa.float64()) for name in outputs)])
        arrays = [_array(columns[name], schema.field(name).type) for name in schema.names]
    except MISFITS:
        if len(records) > 1:
            half = len(records) // 2
            parts = (records[:half], records[half:])
            return pa.concat_tables(
                [rows_of(kind, topic, partition, part) for part in parts],
                promote_options="default",
            )
        return _misfit(types, topic, partition, records)
    return pa.table(arrays, schema)


def _misfit(
    types: Mapping[str, pa.DataType], topic: str, partition: int, records: Sequence[Record]
) -> pa.Table:
    """The row of a record that is nothing of its kind."""
    columns: Columns = {name: [None] for name in types}
    columns |= _place_columns(topic, partition, records)
    columns |= {"headers": header_column(records), "raw": [records[0].value]}
    schema = pa.schema(list(types.items()))
    return pa.table([_array(columns[name], of) for name, of in types.items()], schema)


def _array(values: Sequence[Any] | pa.Array, of: pa.DataType) -> pa.Array:
    return values if isinstance(values, pa.Array) else pa.array(values, of)


def _place_columns(topic: str, partition: int, records: Sequence[Record]) -> Columns:
    count = len(records)
    keys = [record.key for record in records]
    try:
        texts: Any = pa.array(keys, TEXT)
        others: Any = pa.nulls(count, pa.binary())
    except pa.ArrowException:
        texts = [_text(key) for key in keys]
        others = [key if text is None else None for key, text in zip(keys, texts, strict=True)]
    return {
        "topic": list(repeat(topic, count)),
        "partition": list(repeat(partition, count)),
        "offset": [record.offset for record in records],
        "time": [record.time_ms for record in records],
        "key": texts,
        "key_bytes": others,
    }


def _text(raw: bytes | None) -> str | None:
    try:
        return None if raw is None else raw.decode()
    except UnicodeDecodeError:
        return None


def unreadable_in(table: pa.Table) -> int:
    """How many rows are nothing of their kind."""
    return int(table["revision"].null_count)


def records_of(kind: Kind, table: pa.Table) -> Iterator[Record]:
    """The records that the rows were made of, in the rows' order.

    Raises ValueError where rows have not the columns of their kind, and what Python and Arrow raise for
    values that no record had (ArithmeticError, AttributeError, TypeError, ValueError).
    """
    names = list(columns_of(kind))
    missing = [name for name in names if name not in table.column_names]
    if missing:
        raise ValueError(f"it has no column {', '.join(missing)}")
    for batch in table.select(names).to_batches(max_chunksize=10_000):
        columns = {name: batch.column(name) for name in names}
        for name in ("time", "source_time"):  # a time may be one that datetime has not
            if name in columns:
                columns[name] = columns[name].cast(pa.int64())
        values = {name: column.to_pylist() for name, column in columns.items()}
        places = zip(
            *(values[name] for name in ("offset", "time", "key", "key_bytes", "headers", "raw")),
            TO_RECORDS[kind](values),
            strict=True,
        )
        for offset, time_ms, text, key, kept, raw, (value, headers) in places:
            yield Record(
                offset,
                time_ms,
                key if text is None else text.encode(),
                value if raw is None else raw,
                headers if kept is None else headers_in(kept),
            )
