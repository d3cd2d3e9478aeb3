"""Answers as rows: how the records of the answer topics become columns, and come back byte for byte.

1. Every kind has ``topic, partition, offset, time, key, key_bytes, headers, raw``. ``time`` is the
   broker's. ``key`` is text; where the key's bytes are no UTF-8 it is null and ``key_bytes`` has them.
2. The other columns are what the record says (``columns_of``). Where they would not give the record's
   value back byte for byte, ``raw`` keeps the value too; where they say nothing of its headers,
   ``headers`` has those as JSON: ``[[name, base64 or null], …]``.
3. A record that is nothing of its kind has nulls and its ``raw``. Nothing is left out.
4. A forecast's outputs stand in ``outputs`` as the JSON that was answered, and once more, each as a
   float64, in a column ``output_<name>``: the columns of a file depend on what it holds.
"""

from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import repeat
from typing import Any

import msgspec
import pyarrow as pa

from schemas.answer_file import Kind, Record
from schemas.events import NotAnEvent, Recorded, decode_event
from schemas.forecast import Source
from schemas.rejection import ENVELOPE_HEADER, Rejection, read_rejection, rejection_headers

OUTPUT_PREFIX = "output_"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TEXT = pa.string()
_NAME = pa.dictionary(pa.int32(), pa.string())
"""Texts of which a file holds few different ones."""
_MS = pa.timestamp("ms", tz="UTC")
_US = pa.timestamp("us", tz="UTC")

_PLACE = {
    "topic": _NAME,
    "partition": pa.int32(),
    "offset": pa.int64(),
    "time": _MS,
    "key": _TEXT,
    "key_bytes": pa.binary(),
    "headers": _TEXT,
    "raw": pa.binary(),
}
_ANSWER = {
    "model": _NAME,
    "version": pa.int32(),
    "digest": _NAME,
    "variant": _NAME,
    "revision": pa.int64(),
    "source_topic": _NAME,
    "source_partition": pa.int32(),
    "source_offset": pa.int64(),
    "source_time": _MS,
    "instance": _NAME,
    "runtime": _NAME,
}
_FORECAST = {
    "request_id": _TEXT,
    "inputs": _TEXT,
    "outputs": _TEXT,
    **_ANSWER,
    "scored_at": _US,
}
_REJECTION = {
    "request_id": _TEXT,
    "reason": _NAME,
    "detail": _TEXT,
    **_ANSWER,
    "enveloped": pa.bool_(),
    "value": pa.binary(),
}
_EVENT = {
    "revision": pa.int64(),
    "type": _NAME,
    "event_time": _US,
    "actor": _NAME,
    "commandid": _TEXT,
    "data": _TEXT,
    "hash": _TEXT,
}

Columns = dict[str, Sequence[Any]]
"""Name -> a value for each record."""


class _Said(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A forecast whose parts stay as they were written. Its keys stand in a forecast's order."""

    request_id: str
    inputs: msgspec.Raw
    outputs: msgspec.Raw
    model: str
    version: int
    digest: str
    variant: str
    revision: int
    source: Source
    scored_at: datetime
    instance: str
    runtime: str = ""


_decode_said = msgspec.json.Decoder(_Said).decode
_encode = msgspec.json.Encoder().encode
_decode_outputs = msgspec.json.Decoder(dict[str, float | int | bool]).decode
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError)


def columns_of(kind: Kind) -> Mapping[str, pa.DataType]:
    """The columns that every file of this kind has, ``output_<name>`` aside."""
    own = {
        Kind.FORECASTS: _FORECAST,
        Kind.SHADOW: _FORECAST,
        Kind.REJECTIONS: _REJECTION,
        Kind.CONTROL: _EVENT,
    }
    return {**_PLACE, **own[kind]}


def rows_of(kind: Kind, topic: str, partition: int, records: Sequence[Record]) -> pa.Table:
    """The records as rows, in their order. Raises nothing for what they hold."""
    columns = _TO_COLUMNS[kind](records)
    keys = [_text(record.key) for record in records]
    columns |= {
        "topic": list(repeat(topic, len(records))),
        "partition": list(repeat(partition, len(records))),
        "offset": [record.offset for record in records],
        "time": [record.time_ms for record in records],
        "key": keys,
        "key_bytes": [
            record.key if text is None else None for record, text in zip(records, keys, strict=True)
        ],
    }
    types = columns_of(kind)
    outputs = sorted(set(columns) - set(types))
    schema = pa.schema([*types.items(), *((name, pa.float64()) for name in outputs)])
    return pa.table(
        [pa.array(columns[name], schema.field(name).type) for name in schema.names], schema
    )


def unreadable_in(table: pa.Table) -> int:
    """How many rows are nothing of their kind."""
    return int(table["revision"].null_count)


def records_of(kind: Kind, table: pa.Table) -> Iterator[Record]:
    """The records that the rows were made of, in the rows' order.

    Raises ValueError where rows have not the columns of their kind, or values that no record had.
    """
    names = list(columns_of(kind))
    missing = [name for name in names if name not in table.column_names]
    if missing:
        raise ValueError(f"it has no column {', '.join(missing)}")
    restore = _TO_RECORD[kind]
    for batch in table.select(names).to_batches(max_chunksize=10_000):
        times = batch.column("time").cast(pa.int64()).to_pylist()
        for row, time_ms in zip(batch.to_pylist(), times, strict=True):
            key = row["key_bytes"] if row["key"] is None else row["key"].encode()
            value, headers = restore(row)
            if row["raw"] is not None:
                value = row["raw"]
            if row["headers"] is not None:
                headers = _headers_in(row["headers"])
            yield Record(row["offset"], time_ms, key, value, headers)


def _text(raw: bytes | None) -> str | None:
    try:
        return None if raw is None else raw.decode()
    except UnicodeDecodeError:
        return None


# --- forecasts


def _forecast_columns(records: Sequence[Record]) -> Columns:
    said = [_said(record.value) for record in records]
    raws = [
        None if each is not None and _encode(each) == record.value else record.value
        for each, record in zip(said, records, strict=True)
    ]
    good = all(each is not None for each in said)

    def column(get: Callable[[_Said], Any]) -> list[Any]:
        if good:
            return list(map(get, said))  # type: ignore[arg-type]
        return [None if each is None else get(each) for each in said]

    return {
        "request_id": column(lambda each: each.request_id),
        "inputs": column(lambda each: bytes(each.inputs)),
        "outputs": column(lambda each: bytes(each.outputs)),
        "model": column(lambda each: each.model),
        "version": column(lambda each: each.version),
        "digest": column(lambda each: each.digest),
        "variant": column(lambda each: each.variant),
        "revision": column(lambda each: each.revision),
        "source_topic": column(lambda each: each.source.topic),
        "source_partition": column(lambda each: each.source.partition),
        "source_offset": column(lambda each: each.source.offset),
        "source_time": column(lambda each: each.source.timestamp),
        "scored_at": column(lambda each: each.scored_at),
        "instance": column(lambda each: each.instance),
        "runtime": column(lambda each: each.runtime),
        "headers": _header_column(records),
        "raw": raws,
        **_output_columns(said),
    }


def _said(value: bytes | None) -> _Said | None:
    try:
        said = _decode_said(value or b"")
        _decode_outputs(said.outputs)
    except _UNREADABLE:
        return None
    fits = _fits(said.version, said.revision, said.source)
    return said if fits and said.scored_at.tzinfo is not None else None


def _fits(version: int, revision: int, source: Source) -> bool:
    """Whether the numbers fit their columns."""
    longs = (revision, source.offset, source.timestamp)
    ints = (version, source.partition)
    return all(0 <= n < 2**53 for n in longs) and all(0 <= n < 2**31 for n in ints)


def _output_columns(said: Sequence[_Said | None]) -> Columns:
    outputs = [{} if each is None else _decode_outputs(each.outputs) for each in said]
    names = dict.fromkeys(name for each in outputs for name in each)
    return {
        f"{OUTPUT_PREFIX}{name}": [_number(each.get(name)) for each in outputs] for name in names
    }


def _number(output: float | int | bool | None) -> float | None:
    return None if output is None else float(output)


def _forecast_record(row: Mapping[str, Any]) -> tuple[bytes | None, tuple[Any, ...]]:
    if row["request_id"] is None:
        return None, ()
    said = _Said(
        request_id=row["request_id"],
        inputs=msgspec.Raw(row["inputs"].encode()),
        outputs=msgspec.Raw(row["outputs"].encode()),
        model=row["model"],
        version=row["version"],
        digest=row["digest"],
        variant=row["variant"],
        revision=row["revision"],
        source=_source(row),
        scored_at=row["scored_at"].astimezone(UTC),
        instance=row["instance"],
        runtime=row["runtime"],
    )
    return _encode(said), ()


def _source(row: Mapping[str, Any]) -> Source:
    timestamp = (row["source_time"] - _EPOCH) // timedelta(milliseconds=1)
    return Source(row["source_topic"], row["source_partition"], row["source_offset"], timestamp)


# --- rejections


class _Asked(msgspec.Struct, frozen=True):
    """What can be told of a rejected request: its id, where it had one."""

    request_id: str | None = None


_decode_asked = msgspec.json.Decoder(_Asked).decode


def _rejection_columns(records: Sequence[Record]) -> Columns:
    read = [_rejection(record) for record in records]

    def column(get: Callable[[Rejection], Any]) -> list[Any]:
        return [None if each is None else get(each) for each in read]

    enveloped = [any(name == ENVELOPE_HEADER for name, _ in each.headers) for each in records]
    return {
        "request_id": [
            None if hidden else _request_id(each.value)
            for each, hidden in zip(records, enveloped, strict=True)
        ],
        "reason": column(lambda each: each.reason),
        "detail": column(lambda each: each.detail),
        "model": column(lambda each: each.model),
        "version": column(lambda each: each.version),
        "digest": column(lambda each: each.digest),
        "variant": column(lambda each: each.variant),
        "revision": column(lambda each: each.revision),
        "source_topic": column(lambda each: each.source.topic),
        "source_partition": column(lambda each: each.source.partition),
        "source_offset": column(lambda each: each.source.offset),
        "source_time": column(lambda each: each.source.timestamp),
        "instance": column(lambda each: each.instance),
        "runtime": column(lambda each: each.runtime),
        "enveloped": enveloped,
        "value": [None if each is None else r.value for each, r in zip(read, records, strict=True)],
        "headers": [
            None if each is not None and _rejection_headers(each, hidden) == r.headers else _json(r)
            for each, hidden, r in zip(read, enveloped, records, strict=True)
        ],
        "raw": [r.value if each is None else None for each, r in zip(read, records, strict=True)],
    }


def _rejection(record: Record) -> Rejection | None:
    try:
        found = read_rejection([(name, content or b"") for name, content in record.headers])
    except ValueError:
        return None
    return found if _fits(found.version, found.revision, found.source) else None


def _rejection_headers(rejection: Rejection, enveloped: bool) -> tuple[tuple[str, bytes], ...]:
    extra = [(ENVELOPE_HEADER, b"1")] if enveloped else []
    return tuple(rejection_headers(rejection) + extra)


def _request_id(value: bytes | None) -> str | None:
    try:
        return _decode_asked(value or b"").request_id
    except _UNREADABLE:
        return None


def _rejection_record(row: Mapping[str, Any]) -> tuple[bytes | None, tuple[Any, ...]]:
    if row["reason"] is None:
        return None, ()
    rejection = Rejection(
        reason=row["reason"],
        detail=row["detail"],
        model=row["model"],
        version=row["version"],
        variant=row["variant"],
        digest=row["digest"],
        revision=row["revision"],
        source=_source(row),
        instance=row["instance"],
        runtime=row["runtime"],
    )
    return row["value"], _rejection_headers(rejection, row["enveloped"])


# --- control events


def _event_columns(records: Sequence[Record]) -> Columns:
    events: list[Recorded | None] = []
    for record in records:
        try:
            events.append(decode_event(record.value or b""))
        except NotAnEvent:
            events.append(None)

    def column(get: Callable[[Any], Any]) -> list[Any]:
        return [None if each is None else get(each) for each in events]

    return {
        "revision": column(lambda each: each.event.revision),
        "type": column(lambda each: each.event.type),
        "event_time": column(lambda each: each.event.time),
        "actor": column(lambda each: each.event.actor),
        "commandid": column(lambda each: each.event.commandid),
        "data": column(lambda each: bytes(each.event.data).decode()),
        "hash": column(lambda each: each.hash),
        "headers": _header_column(records),
        "raw": [record.value for record in records],  # what its hash is of
    }


def _event_record(_: Mapping[str, Any]) -> tuple[bytes | None, tuple[Any, ...]]:
    return None, ()


# --- headers


def _header_column(records: Iterable[Record]) -> list[str | None]:
    return [_json(record) if record.headers else None for record in records]


def _json(record: Record) -> str:
    pairs = [
        [name, None if content is None else b64encode(content).decode()]
        for name, content in record.headers
    ]
    return msgspec.json.encode(pairs).decode()


def _headers_in(text: str) -> tuple[tuple[str, bytes | None], ...]:
    pairs = msgspec.json.decode(text, type=list[tuple[str, str | None]])
    return tuple((name, None if raw is None else b64decode(raw)) for name, raw in pairs)


_TO_COLUMNS: Mapping[Kind, Callable[[Sequence[Record]], Columns]] = {
    Kind.FORECASTS: _forecast_columns,
    Kind.SHADOW: _forecast_columns,
    Kind.REJECTIONS: _rejection_columns,
    Kind.CONTROL: _event_columns,
}
_TO_RECORD: Mapping[Kind, Callable[[Mapping[str, Any]], tuple[bytes | None, tuple[Any, ...]]]] = {
    Kind.FORECASTS: _forecast_record,
    Kind.SHADOW: _forecast_record,
    Kind.REJECTIONS: _rejection_record,
    Kind.CONTROL: _event_record,
}
