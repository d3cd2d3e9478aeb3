"""What the records of each kind say, as columns, and what the columns say, as records.

``TO_COLUMNS`` has functions that expect good records: they raise ``MISFITS`` where one is nothing of its
kind. ``adapters.answer_rows`` has the rules, and does what is left to do then.
"""

import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import repeat
from operator import attrgetter
from typing import Any

import msgspec
import pyarrow as pa

from schemas.answer_file import Kind, Record
from schemas.contract import NAME_PATTERN
from schemas.events import Recorded, decode_event
from schemas.forecast import Source
from schemas.rejection import ENVELOPE_HEADER, Rejection, read_rejection, rejection_headers

MISFITS = (ArithmeticError, RecursionError, TypeError, ValueError, pa.ArrowException)
"""What is raised where records are nothing of their kind; msgspec's errors are ValueErrors."""

OUTPUT_PREFIX = "output_"

MOST_OUTPUTS = 256
"""Columns of outputs that records of one file may ask for."""

_END_OF_TIME_MS = 253_402_300_800_000
"""The year 10000: later times have no date, and readers of the files stumble over them."""

TEXT = pa.string()
_NAME = pa.dictionary(pa.int32(), pa.string())
"""Texts of which a file holds few different ones."""
_MS = pa.timestamp("ms", tz="UTC")
_US = pa.timestamp("us", tz="UTC")

PLACE = {
    "topic": _NAME,
    "partition": pa.int32(),
    "offset": pa.int64(),
    "time": _MS,
    "key": TEXT,
    "key_bytes": pa.binary(),
    "headers": TEXT,
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
FORECAST = {
    "request_id": TEXT,
    "inputs": TEXT,
    "outputs": TEXT,
    **_ANSWER,
    "scored_at": _US,
}
REJECTION = {
    "request_id": TEXT,
    "reason": _NAME,
    "detail": TEXT,
    **_ANSWER,
    "enveloped": pa.bool_(),
    "value": pa.binary(),
}
EVENT = {
    "revision": pa.int64(),
    "type": _NAME,
    "event_time": _US,
    "actor": _NAME,
    "commandid": TEXT,
    "data": TEXT,
    "hash": TEXT,
}

Columns = dict[str, Sequence[Any]]
"""Name -> a value for each record."""

Restored = tuple[bytes | None, tuple[tuple[str, bytes | None], ...]]
"""A record's value and headers, as its columns say them."""


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
_is_name = re.compile(NAME_PATTERN).fullmatch


# --- forecasts

_forecast_parts = attrgetter(
    "request_id", "inputs", "outputs", "model", "version", "digest", "variant", "revision",
    "source.topic", "source.partition", "source.offset", "source.timestamp",
    "instance", "runtime", "scored_at",
)  # fmt: skip
_SAID = tuple(name for name in FORECAST if name != "scored_at")
"""The columns in the order of ``_forecast_parts``, of which the time is the last."""


def _forecast_columns(records: Sequence[Record]) -> Columns:
    values = [record.value for record in records]
    said = list(map(_decode_said, values))  # type: ignore[arg-type]  # of None: TypeError
    *parts, scored_at = zip(*map(_forecast_parts, said), strict=True)
    columns: Columns = dict(zip(_SAID, parts, strict=True))
    _check_numbers(columns)
    outputs = list(map(bytes, columns["outputs"]))
    if None in {at.tzinfo for at in scored_at}:
        raise ValueError("scored_at has no zone")
    return columns | {
        "inputs": list(map(bytes, columns["inputs"])),
        "outputs": outputs,
        "scored_at": scored_at,
        "headers": header_column(records),
        "raw": [
            None if again == value and at.tzinfo is UTC else value
            for again, value, at in zip(map(_encode, said), values, scored_at, strict=True)
        ],
        **_output_columns([_decode_outputs(each) for each in outputs]),
    }


def _check_numbers(columns: Mapping[str, Sequence[int]]) -> None:
    """Raises ValueError for those that no answer has; Arrow raises for what no column holds."""
    if max(columns["source_time"]) >= _END_OF_TIME_MS or min(columns["source_time"]) < 0:
        raise ValueError("source_time is no time")


def _output_columns(outputs: Sequence[Mapping[str, float | int | bool]]) -> Columns:
    names = [name for name in dict.fromkeys(n for each in outputs for n in each) if _is_name(name)]
    if len(names) > MOST_OUTPUTS:
        raise ValueError(f"{len(names)} outputs")
    return {
        f"{OUTPUT_PREFIX}{name}": [_number(each.get(name)) for each in outputs] for name in names
    }


def _number(output: float | int | bool | None) -> float | None:
    return None if output is None else float(output)


def _forecast_records(columns: Columns) -> Iterator[Restored]:
    for (
        request_id, inputs, outputs, model, version, digest, variant, revision,
        topic, partition, offset, timestamp, instance, runtime, scored_at,
    ) in zip(*(columns[name] for name in (*_SAID, "scored_at")), strict=True):  # fmt: skip
        if request_id is None:
            yield None, ()
            continue
        said = _Said(
            request_id,
            msgspec.Raw(inputs.encode()),
            msgspec.Raw(outputs.encode()),
            model,
            version,
            digest,
            variant,
            revision,
            Source(topic, partition, offset, timestamp),
            scored_at.astimezone(UTC),
            instance,
            runtime,
        )
        yield _encode(said), ()


# --- rejections


class _Asked(msgspec.Struct, frozen=True):
    """What can be told of a rejected request: its id, where it had one."""

    request_id: str | None = None


_decode_asked = msgspec.json.Decoder(_Asked).decode
_rejection_parts = attrgetter(
    "reason", "detail", "model", "version", "digest", "variant", "revision",
    "source.topic", "source.partition", "source.offset", "source.timestamp",
    "instance", "runtime",
)  # fmt: skip
_REJECTED = tuple(name for name in REJECTION if name not in ("request_id", "enveloped", "value"))
"""The columns in the order of ``_rejection_parts``."""


def _rejection_columns(records: Sequence[Record]) -> Columns:
    read = [
        read_rejection([(name, content or b"") for name, content in record.headers])
        for record in records
    ]
    columns: Columns = dict(
        zip(_REJECTED, zip(*map(_rejection_parts, read), strict=True), strict=True)
    )
    _check_numbers(columns)
    enveloped = [any(name == ENVELOPE_HEADER for name, _ in each.headers) for each in records]
    return columns | {
        "request_id": [
            None if hidden else _request_id(each.value)
            for each, hidden in zip(records, enveloped, strict=True)
        ],
        "enveloped": enveloped,
        "value": [record.value for record in records],
        "headers": [
            None if _rejection_headers(each, hidden) == record.headers else _json(record)
            for each, hidden, record in zip(read, enveloped, records, strict=True)
        ],
        "raw": [None] * len(records),
    }


def _rejection_headers(rejection: Rejection, enveloped: bool) -> tuple[tuple[str, bytes], ...]:
    extra = [(ENVELOPE_HEADER, b"1")] if enveloped else []
    return tuple(rejection_headers(rejection) + extra)


def _request_id(value: bytes | None) -> str | None:
    try:
        found = _decode_asked(value or b"").request_id
        if found is not None:
            found.encode()
    except (RecursionError, ValueError):
        return None
    return found


def _rejection_records(columns: Columns) -> Iterator[Restored]:
    for (
        reason, detail, model, version, digest, variant, revision,
        topic, partition, offset, timestamp, instance, runtime, enveloped, value,
    ) in zip(*(columns[name] for name in (*_REJECTED, "enveloped", "value")), strict=True):  # fmt: skip
        if reason is None:
            yield None, ()
            continue
        rejection = Rejection(
            reason=reason,
            detail=detail,
            model=model,
            version=version,
            variant=variant,
            digest=digest,
            revision=revision,
            source=Source(topic, partition, offset, timestamp),
            instance=instance,
            runtime=runtime,
        )
        yield value, _rejection_headers(rejection, enveloped)


# --- control events


def _event_columns(records: Sequence[Record]) -> Columns:
    events = [decode_event(record.value or b"") for record in records]

    def column(get: Callable[[Recorded], Any]) -> list[Any]:
        return list(map(get, events))

    return {
        "revision": column(lambda each: each.event.revision),
        "type": column(lambda each: each.event.type),
        "event_time": column(lambda each: each.event.time),
        "actor": column(lambda each: each.event.actor),
        "commandid": column(lambda each: each.event.commandid),
        "data": column(lambda each: bytes(each.event.data)),
        "hash": column(lambda each: each.hash),
        "headers": header_column(records),
        "raw": [record.value for record in records],  # what its hash is of
    }


def _event_records(columns: Columns) -> Iterator[Restored]:
    return repeat((None, ()), len(columns["raw"]))


# --- headers


def header_column(records: Iterable[Record]) -> list[str | None]:
    """The headers of each record as JSON; None where it has none."""
    return [_json(record) if record.headers else None for record in records]


def _json(record: Record) -> str:
    pairs = [
        [name, None if content is None else b64encode(content).decode()]
        for name, content in record.headers
    ]
    return msgspec.json.encode(pairs).decode()


def headers_in(text: str) -> tuple[tuple[str, bytes | None], ...]:
    """The headers that ``header_column`` wrote. Raises ValueError where it did not."""
    pairs = msgspec.json.decode(text, type=list[tuple[str, str | None]])
    return tuple((name, None if content is None else b64decode(content)) for name, content in pairs)


TO_COLUMNS: Mapping[Kind, Callable[[Sequence[Record]], Columns]] = {
    Kind.FORECASTS: _forecast_columns,
    Kind.SHADOW: _forecast_columns,
    Kind.REJECTIONS: _rejection_columns,
    Kind.CONTROL: _event_columns,
}
TO_RECORDS: Mapping[Kind, Callable[[Columns], Iterator[Restored]]] = {
    Kind.FORECASTS: _forecast_records,
    Kind.SHADOW: _forecast_records,
    Kind.REJECTIONS: _rejection_records,
    Kind.CONTROL: _event_records,
}
