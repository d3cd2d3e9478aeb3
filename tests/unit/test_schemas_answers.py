"""Answers on the wire: a forecast that can be audited, a rejection that can be read and sent again."""

import struct
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.forecast import (
    Forecast,
    Source,
    Variant,
    decode_forecast,
    encode_forecast,
    forecast_encoder,
)
from schemas.rejection import (
    ENVELOPE_HEADER,
    HEADER_PREFIX,
    MAX_DETAIL_LENGTH,
    Reason,
    Rejection,
    read_rejection,
    rejection_headers,
)
from schemas.request import Request

DIGEST = f"sha256:{'a' * 64}"


def forecast(inputs: bytes = b"{}", request_id: str = "r-1", **outputs: float) -> Forecast:
    """A forecast with these inputs and outputs."""
    return Forecast(
        request_id=request_id,
        inputs=msgspec.Raw(inputs),
        outputs=dict(outputs),
        model="sales",
        version=12,
        digest=DIGEST,
        variant=Variant.CANDIDATE,
        revision=44,
        source=Source("sales.requests", 3, 123, 1_500_000_000_000),
        scored_at=datetime(2026, 1, 1, 12, 0, 0, 123456, tzinfo=UTC),
        instance="sales-0",
        runtime="onnxruntime 1.31.0 x86_64-avx512",
    )


def rejection(detail: str = "a detail", topic: str = "sales.requests") -> Rejection:
    """A rejection of a routed request."""
    return Rejection(
        reason=Reason.NOT_FINITE,
        detail=detail,
        model="sales",
        version=12,
        variant=Variant.CHAMPION,
        digest=DIGEST,
        revision=44,
        source=Source(topic, 3, 123, 1_500_000_000_000),
        instance="sales-0",
        runtime="onnxruntime 1.31.0 x86_64-avx512",
    )


def test_a_forecast_has_these_bytes() -> None:
    """The order and the spelling of a forecast's keys are fixed."""
    assert encode_forecast(forecast(b'{"a": 1.50}', units=0.5)) == (
        b'{"request_id":"r-1","inputs":{"a": 1.50},"outputs":{"units":0.5},"model":"sales",'
        b'"version":12,"digest":"' + DIGEST.encode() + b'","variant":"candidate","revision":44,'
        b'"source":{"topic":"sales.requests","partition":3,"offset":123,"timestamp":1500000000000},'
        b'"scored_at":"2026-01-01T12:00:00.123456Z","instance":"sales-0",'
        b'"runtime":"onnxruntime 1.31.0 x86_64-avx512"}'
    )


names = st.text(st.characters(exclude_categories=["Cs"]), max_size=70)
whole = st.integers(0, 2**63 - 1)
zones = st.sampled_from([timezone(timedelta(hours=2)), UTC])
numbers = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**63), 2**63 - 1)
asked = st.tuples(
    names,
    st.dictionaries(names, numbers).map(msgspec.json.encode).map(msgspec.Raw),
    st.dictionaries(names, numbers | st.booleans()),
    st.builds(Source, names, whole, whole, whole),
)


@given(
    st.lists(asked, max_size=5),
    names,
    whole,
    names,
    st.sampled_from(Variant),
    st.datetimes(timezones=zones),
)
def test_the_forecasts_of_a_batch_have_the_bytes_of_each_one(
    batch: list[tuple[str, msgspec.Raw, dict[str, float], Source]],
    name: str,
    number: int,
    instance: str,
    variant: Variant,
    scored_at: datetime,
) -> None:
    """What they share is encoded once, and no byte of it shows; a long one leaves nothing behind."""
    shared: dict[str, Any] = {
        "model": name,
        "version": number,
        "digest": DIGEST,
        "variant": variant,
        "revision": number,
        "scored_at": scored_at,
        "instance": instance,
        "runtime": instance[::-1],
    }
    requests = [Request(request_id, inputs) for request_id, inputs, _, _ in batch]
    outputs = [given for _, _, given, _ in batch]
    sources = [source for _, _, _, source in batch]
    assert forecast_encoder(**shared)(requests, outputs, sources) == [
        encode_forecast(
            Forecast(request_id=request_id, inputs=inputs, outputs=given, source=source, **shared)
        )
        for request_id, inputs, given, source in batch
    ]


@given(st.text(), st.text(min_size=1), st.sampled_from(["", " ", "\n\t"]))
def test_a_forecast_echoes_its_inputs_byte_for_byte(text: str, request_id: str, blank: str) -> None:
    """Inputs come back as the caller wrote them, blanks, escapes and digits included."""
    try:
        raw = b'{%s"a"%s:%s}' % (blank.encode(), blank.encode(), msgspec.json.encode(text))
        request_id.encode()
    except UnicodeEncodeError:
        return  # no JSON in UTF-8 can hold it, so no request did
    echoed = decode_forecast(encode_forecast(forecast(raw, request_id)))
    assert bytes(echoed.inputs) == raw
    assert echoed.request_id == request_id


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_the_bits_of_a_float32_survive(value: float) -> None:
    """A float32 that was written as JSON reads back to the same 32 bits."""
    echoed = decode_forecast(encode_forecast(forecast(units=value))).outputs["units"]
    assert struct.pack("<f", echoed) == struct.pack("<f", value)


@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**63), 2**63 - 1))
def test_numbers_survive(value: float | int) -> None:
    """A float64 and an int64 read back to the same value."""
    assert decode_forecast(encode_forecast(forecast(units=value))).outputs["units"] == value


def test_a_forecast_of_a_later_version_is_read() -> None:
    """Keys that this version does not know are passed over."""
    later = encode_forecast(forecast(units=1.0))[:-1] + b',"shadow_of":"x"}'
    assert decode_forecast(later).version == 12


@pytest.mark.parametrize("raw", [b"", b"{}", b"null", b"\xff", b'{"request_id":1}'])
def test_what_is_no_forecast_is_a_value_error(raw: bytes) -> None:
    """A record that is no forecast raises ValueError."""
    with pytest.raises(ValueError):  # noqa: PT011 - msgspec's own sentence
        decode_forecast(raw)


@given(st.text(max_size=MAX_DETAIL_LENGTH), st.from_regex(r"[a-z/.]{1,20}", fullmatch=True))
def test_a_rejection_survives_its_headers(detail: str, topic: str) -> None:
    """Headers read back to the rejection, whatever stands in the sentence."""
    written = rejection(detail, topic)
    assert read_rejection(rejection_headers(written)) == written


def test_headers_of_others_are_passed_over() -> None:
    """A record may carry headers that are not ours, and ours come in any order."""
    headers = [("traceparent", b"\xff"), *reversed(rejection_headers(rejection()))]
    assert read_rejection([*headers, (ENVELOPE_HEADER, b"1")]) == rejection()


def test_a_long_sentence_is_cut() -> None:
    """The sentence in the headers has at most MAX_DETAIL_LENGTH characters."""
    read = read_rejection(rejection_headers(rejection("é" * 10_000)))
    assert read.detail == "é" * MAX_DETAIL_LENGTH


def test_a_lone_surrogate_in_a_sentence_does_no_harm() -> None:
    """A sentence that cannot be UTF-8 is written with a substitute."""
    assert read_rejection(rejection_headers(rejection("\ud800"))).detail == "?"


def test_a_rejection_of_before_says_nothing_of_its_runtime() -> None:
    """Consumers did not always write that header."""
    old = [pair for pair in rejection_headers(rejection()) if pair[0] != "modelwire-runtime"]
    assert read_rejection(old).runtime == ""


DEMANDED = [name for name, _ in rejection_headers(rejection()) if name != "modelwire-runtime"]


@pytest.mark.parametrize("name", DEMANDED)
def test_a_missing_header_is_named(name: str) -> None:
    """Without any one of its headers a rejection cannot be read."""
    headers = [pair for pair in rejection_headers(rejection()) if pair[0] != name]
    with pytest.raises(ValueError, match=name):
        read_rejection(headers)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("version", b"x"),
        ("revision", b""),
        ("source", b"sales.requests"),
        ("source", b"sales.requests/3/x"),
        ("timestamp", b"\xff"),
    ],
)
def test_a_malformed_header_is_a_value_error(name: str, value: bytes) -> None:
    """Where a number should stand and does not, ValueError is raised."""
    headers = dict(rejection_headers(rejection())) | {HEADER_PREFIX + name: value}
    with pytest.raises(ValueError):  # noqa: PT011 - int's own sentence
        read_rejection(list(headers.items()))


def test_a_rejection_before_routing_names_no_version() -> None:
    """Version 0 and empty names survive the headers too."""
    early = msgspec.structs.replace(rejection(), version=0, variant="", digest="")
    assert read_rejection(rejection_headers(early)) == early


def test_a_rejection_survives_its_envelope() -> None:
    """As JSON (where the value cannot be kept) a rejection reads back as well."""
    raw = msgspec.json.encode(rejection())
    assert msgspec.json.decode(raw, type=Rejection) == rejection()
