"""Answers as records of their topics, and answer files of them."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import msgspec

from adapters.answer_files import AnswerStore
from adapters.object_store import ObjectStore
from schemas.answer_file import FileName, Kind, Record, day_of
from schemas.events import EventData, encode_event, new_event
from schemas.forecast import Forecast, Source, Variant, encode_forecast
from schemas.manifest import digest_of
from schemas.rejection import Reason, Rejection, rejection_headers
from tests.keeping import file_of

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
RUNTIME = "onnxruntime 1.31.0 x86_64-avx512"

TOPICS = {
    Kind.FORECASTS: "results",
    Kind.REJECTIONS: "rejections",
    Kind.SHADOW: "shadow",
    Kind.CONTROL: "control",
}


def digest(version: int) -> str:
    """The digest of a version's bundle."""
    return f"sha256:{version:064x}"


def source(model: str, offset: int, at: datetime, partition: int = 0) -> Source:
    """Where a request lay that was written at a time."""
    return Source(f"{model}.requests", partition, offset, int(at.timestamp() * 1_000))


def forecast_record(
    model: str,
    offset: int,
    at: datetime = NOON,
    *,
    request_id: str | None = None,
    key: str = "France|22423",
    version: int = 1,
    variant: Variant = Variant.CHAMPION,
    revision: int = 2,
    inputs: bytes = b'{"country":"France","stockcode":"22423","date":"2026-11-21"}',
    milliseconds: int = 20,
    **outputs: float,
) -> Record:
    """A forecast whose request lay at the same offset, so many milliseconds before."""
    said = Forecast(
        request_id=request_id if request_id is not None else f"r-{offset}",
        inputs=msgspec.Raw(inputs),
        outputs=dict(outputs) or {"units": float(offset)},
        model=model,
        version=version,
        digest=digest(version),
        variant=variant,
        revision=revision,
        source=source(model, offset, at - timedelta(milliseconds=milliseconds)),
        scored_at=at - timedelta(microseconds=1_500),
        instance=f"modelwire-{model}-0",
        runtime=RUNTIME,
    )
    return Record(offset, _milliseconds(at), key.encode(), encode_forecast(said))


def rejection_record(
    model: str,
    offset: int,
    at: datetime = NOON,
    *,
    reason: Reason = Reason.WRONG_TYPE,
    detail: str = "stockcode: expected a string",
    value: bytes | None = b'{"request_id":"bad-1","inputs":{"country":"France","stockcode":7}}',
    version: int = 1,
) -> Record:
    """A rejection whose request lay at the same offset, a moment before."""
    said = Rejection(
        reason=reason,
        detail=detail,
        model=model,
        version=version,
        variant=Variant.CHAMPION if version else "",
        digest=digest(version) if version else "",
        revision=2,
        source=source(model, offset, at - timedelta(milliseconds=20)),
        instance=f"modelwire-{model}-0",
        runtime=RUNTIME,
    )
    return Record(offset, _milliseconds(at), b"k", value, tuple(rejection_headers(said)))


def event_records(model: str, *events: EventData, at: datetime = NOON) -> list[Record]:
    """The events as a control log that holds nothing else."""
    records: list[Record] = []
    for number, data in enumerate(events):
        raw = encode_event(
            new_event(
                data,
                model=model,
                revision=number + 1,
                previous=digest_of(records[-1].value or b"") if records else None,
                commandid=f"command-{number + 1}",
                actor="ann@desk",
                time=at + timedelta(minutes=number),
            )
        )
        written = at + timedelta(minutes=number)
        records.append(Record(number, _milliseconds(written), None, raw))
    return records


def answer_file(
    kind: Kind, model: str, records: Sequence[Record], partition: int = 0
) -> tuple[FileName, bytes]:
    """The file of these records, which were all written on one day."""
    day = day_of(records[0].time_ms)
    return file_of(kind, model, f"{model}.{TOPICS[kind]}", partition, records, day)


def store_answers(
    store: ObjectStore, kind: Kind, model: str, records: Sequence[Record], partition: int = 0
) -> FileName:
    """Store the file of these records."""
    name, content = answer_file(kind, model, records, partition)
    assert AnswerStore(store, model).put(name, content)
    return name


def _milliseconds(at: datetime) -> int:
    return int(at.timestamp() * 1_000)
