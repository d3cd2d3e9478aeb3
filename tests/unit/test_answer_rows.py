"""Records as rows: whatever a record holds, it comes back byte for byte."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.answer_columns import MOST_OUTPUTS
from adapters.answer_files import encode_file, read_records
from adapters.answer_rows import (
    columns_of,
    records_of,
    rows_of,
    unreadable_in,
)
from schemas.answer_file import ContentHash, FileName, Footer, Kind, Record, day_of
from schemas.events import ModelReleased
from schemas.rejection import ENVELOPE_HEADER
from tests.answers import event_records, forecast_record, rejection_record

NOON_MS = 1_763_640_000_000

texts = st.text(max_size=20)
numbers = st.integers(-(2**70), 2**70) | st.integers(0, 100)
moments = st.datetimes(min_value=datetime(1, 1, 3), max_value=datetime(9999, 12, 29))
zones = st.sampled_from([UTC, None, timezone(timedelta(hours=2)), timezone(timedelta(seconds=90))])
json_values = st.recursive(
    st.none() | st.booleans() | numbers | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)


@st.composite
def forecast_values(draw: st.DrawFn) -> bytes:
    """What a forecast looks like, in nearly all ways that it can be wrong."""
    at = draw(moments)
    value = {
        "request_id": draw(texts),
        "inputs": draw(st.dictionaries(texts, json_values, max_size=3)),
        "outputs": draw(
            st.dictionaries(texts, numbers | st.floats(allow_nan=False) | st.booleans(), max_size=3)
        ),
        "model": draw(texts),
        "version": draw(numbers),
        "digest": draw(texts),
        "variant": draw(texts),
        "revision": draw(numbers),
        "source": {
            "topic": draw(texts),
            "partition": draw(numbers),
            "offset": draw(numbers),
            "timestamp": draw(numbers),
        },
        "scored_at": at.replace(tzinfo=draw(zones)).isoformat(),
        "instance": draw(texts),
    }
    if draw(st.booleans()):
        value["runtime"] = draw(texts)
    if draw(st.integers(0, 9)) == 0:
        value["another"] = draw(json_values)
    spaced = draw(st.sampled_from([None, (",", ":")]))
    return json.dumps(value, ensure_ascii=draw(st.booleans()), separators=spaced).encode(
        errors="replace"
    )


@st.composite
def damaged(draw: st.DrawFn, values: st.SearchStrategy[bytes]) -> bytes:
    """A value with a few bytes in it that do not belong there."""
    value = bytearray(draw(values))
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(value)))
        value[at : at + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    return bytes(value)


GOOD = forecast_record("sales", 1).value or b""
EVENT = event_records("sales", ModelReleased(1, f"sha256:{'a' * 64}"))[0].value or b""
headers = st.lists(st.tuples(texts, st.none() | st.binary(max_size=8)), max_size=3).map(tuple)


@st.composite
def rejection_headers_or_like_them(
    draw: st.DrawFn,
) -> tuple[tuple[str, bytes | None], ...]:
    """A rejection's headers with some of them missing, changed, doubled, or in another order."""
    found: list[tuple[str, bytes | None]] = list(rejection_record("sales", 3).headers)
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(found) - 1))
        match draw(st.integers(0, 4)):
            case 0:
                del found[at]
            case 1:
                found[at] = (found[at][0], draw(st.none() | st.binary(max_size=8)))
            case 2:
                found.append(found[at])
            case 3:
                found[at] = (found[at][0], str(draw(numbers)).encode())
            case _:
                found.append((ENVELOPE_HEADER, draw(st.sampled_from([b"1", b"2", None]))))
        if not found:
            break
    return tuple(found)


VALUES = {
    Kind.FORECASTS: damaged(forecast_values() | st.just(GOOD)) | st.just(GOOD) | forecast_values(),
    Kind.REJECTIONS: st.binary(max_size=30) | st.just(b'{"request_id":"r-1"}'),
    Kind.CONTROL: damaged(st.just(EVENT)) | st.just(EVENT),
}
HEADERS = {
    Kind.FORECASTS: st.just(()) | headers,
    Kind.REJECTIONS: rejection_headers_or_like_them() | headers,
    Kind.CONTROL: st.just(()) | headers,
}


@st.composite
def record_lists(draw: st.DrawFn, kind: Kind) -> list[Record]:
    """Records of one day with growing offsets."""
    offsets = sorted(draw(st.sets(st.integers(0, 2**62), min_size=1, max_size=12)))
    return [
        Record(
            offset,
            NOON_MS + draw(st.integers(0, 1_000)),
            draw(
                st.none() | st.binary(max_size=6) | texts.map(lambda t: t.encode(errors="replace"))
            ),
            draw(st.none() | VALUES[kind]),
            draw(HEADERS[kind]),
        )
        for offset in offsets
    ]


def filed(kind: Kind, records: Sequence[Record], cut: int) -> tuple[FileName, bytes]:
    """The records' file, made of two tables."""
    tables = [rows_of(kind, "t", 3, part) for part in (records[:cut], records[cut:]) if part]
    content = ContentHash()
    content.take(records)
    footer = Footer(
        kind=kind,
        model="sales",
        topic="t",
        partition=3,
        first=0,
        next=records[-1].offset + 1,
        rows=len(records),
        content=content.digest,
        unreadable=sum(map(unreadable_in, tables)),
    )
    name = FileName(kind, "sales", 3, 0, day_of(NOON_MS))
    return name, encode_file(footer, tables)


@pytest.mark.parametrize("kind", [Kind.FORECASTS, Kind.REJECTIONS, Kind.CONTROL])
def test_whatever_a_record_holds_comes_back_byte_for_byte(kind: Kind) -> None:
    """Through the file and its digest: keys, values, headers and times, of garbage too."""

    @settings(max_examples=80, deadline=None)
    @given(records=record_lists(kind), cut=st.integers(0, 12))
    def check(records: list[Record], cut: int) -> None:
        name, content = filed(kind, records, cut)
        assert read_records(content, name) == records

    check()


@pytest.mark.parametrize(
    ("kind", "good"),
    [
        (Kind.FORECASTS, forecast_record("sales", 5)),
        (Kind.SHADOW, forecast_record("sales", 5)),
        (Kind.REJECTIONS, rejection_record("sales", 5)),
        (Kind.REJECTIONS, rejection_record("sales", 5, value=None)),
    ],
)
def test_what_consumers_write_is_kept_once(kind: Kind, good: Record) -> None:
    """Its columns say all of it: nothing is kept a second time as bytes."""
    table = rows_of(kind, "t", 3, [good])
    assert table["raw"].null_count == table["headers"].null_count == 1
    assert unreadable_in(table) == 0
    assert list(records_of(kind, table)) == [good]


def test_one_bad_record_spoils_no_other() -> None:
    """Of a thousand, in whatever place: it alone has no columns of its own."""
    records = [forecast_record("sales", number) for number in range(1_000)]
    bad = Record(records[617].offset, NOON_MS, b"\xff", b"{", (("h", None),))
    records[617] = bad
    table = rows_of(Kind.FORECASTS, "t", 3, records)
    assert unreadable_in(table) == 1
    assert table["raw"].null_count == 999
    assert list(records_of(Kind.FORECASTS, table)) == records


def test_outputs_are_numbers_in_columns_of_their_own() -> None:
    """Whatever JSON number or truth they were; a row without one has null."""
    records = [
        forecast_record("sales", 1, units=1.5, rank=9_007_199_254_740_993, sold=True),
        forecast_record("sales", 2, units=2),
    ]
    table = rows_of(Kind.FORECASTS, "t", 3, records)
    outputs = [name for name in table.column_names if name.startswith("output_")]
    assert outputs == ["output_units", "output_rank", "output_sold"], "in the order of the answers"
    assert table["output_units"].to_pylist() == [1.5, 2.0]
    assert table["output_rank"].to_pylist() == [9_007_199_254_740_992.0, None]
    assert table["output_sold"].to_pylist() == [1.0, None]


def test_a_record_cannot_ask_for_any_number_of_columns() -> None:
    """It is kept as it is, and counted as unreadable."""
    record = forecast_record(
        "sales", 1, **{f"o{number}": 1.0 for number in range(MOST_OUTPUTS + 1)}
    )
    table = rows_of(Kind.FORECASTS, "t", 3, [record])
    assert table.column_names == list(columns_of(Kind.FORECASTS))
    assert unreadable_in(table) == 1
    assert list(records_of(Kind.FORECASTS, table)) == [record]


def test_rows_without_their_columns_are_refused() -> None:
    """And the message names them."""
    table = rows_of(Kind.FORECASTS, "t", 3, [forecast_record("sales", 1)]).drop(["raw", "inputs"])
    with pytest.raises(ValueError, match="it has no column raw, inputs"):
        list(records_of(Kind.FORECASTS, table))


def test_no_records_are_no_rows() -> None:
    """With all columns of their kind."""
    for kind in Kind:
        table = rows_of(kind, "t", 3, [])
        assert table.num_rows == 0
        assert table.schema == pa.schema(list(columns_of(kind).items()))
