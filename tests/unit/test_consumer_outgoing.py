"""Outgoing: the record of a rejection, whatever the request was."""

import json
from datetime import UTC, datetime

import msgspec
import pytest

from consumer.outgoing import rejection_record, too_large
from schemas.forecast import Forecast, Source, Variant, encode_forecast
from schemas.rejection import ENVELOPE_HEADER, Reason, Rejection, read_rejection
from scoring.batch import ForecastAnswer, Incoming, RejectionAnswer

LIMIT = 4_000


def _rejection(key: bytes | None, value: bytes | None) -> RejectionAnswer:
    source = Source("m.requests", 3, 17, 1_000)
    rejection = Rejection(
        reason=Reason.NOT_JSON,
        detail="the value is not JSON",
        model="m",
        version=0,
        variant="",
        digest="",
        revision=5,
        source=source,
        instance="i",
    )
    return RejectionAnswer(Incoming("m.requests", 3, 17, 1_000, key, value), rejection)


def test_the_requests_own_bytes_are_kept() -> None:
    """Key and value are the request's, and the headers read back as the rejection."""
    answer = _rejection(b"key", b"\xff not json")
    record = rejection_record(answer, LIMIT)
    assert (record.key, record.value) == (b"key", b"\xff not json")
    assert read_rejection(record.headers) == answer.rejection
    assert ENVELOPE_HEADER not in dict(record.headers)


@pytest.mark.parametrize(
    ("value", "size"), [(None, 0), (b"", 0), (b"x" * LIMIT, LIMIT)], ids=["none", "empty", "large"]
)
def test_where_the_bytes_cannot_be_kept_an_envelope_says_so(value: bytes | None, size: int) -> None:
    """The value is a small JSON object with source, reason and size, and a header marks it."""
    record = rejection_record(_rejection(b"key", value), LIMIT)
    assert ENVELOPE_HEADER in dict(record.headers)
    assert record.key == b"key"
    envelope = json.loads(record.value)
    assert (envelope["size"], envelope["reason"]) == (size, "not-json")
    assert envelope["source"]["offset"] == 17


@pytest.mark.parametrize("key_size", [LIMIT - 1_200, LIMIT, 10 * LIMIT])
def test_no_record_is_beyond_the_limit(key_size: int) -> None:
    """A key that does not fit beside the envelope is left out."""
    record = rejection_record(_rejection(b"k" * key_size, b"x" * LIMIT), LIMIT)
    size = len(record.key or b"") + len(record.value)
    size += sum(len(name) + len(text) for name, text in record.headers)
    assert size <= LIMIT
    assert (record.key is None) == (key_size >= LIMIT)


def test_a_forecast_beyond_the_limit_becomes_a_rejection_of_the_same_version() -> None:
    """The rejection says which version answered, and why nobody sees it."""
    incoming = Incoming("m.requests", 3, 17, 1_000, b"k" * LIMIT, b"{}")
    forecast = Forecast(
        request_id="r",
        inputs=msgspec.Raw(b"{}"),
        outputs={"forecast": 1.0},
        model="m",
        version=2,
        digest="sha256:" + "0" * 64,
        variant=Variant.CHAMPION,
        revision=6,
        source=Source("m.requests", 3, 17, 1_000),
        scored_at=datetime(2026, 1, 1, tzinfo=UTC),
        instance="i",
    )
    answer = too_large(ForecastAnswer(incoming, encode_forecast(forecast), forecast.variant), LIMIT)
    rejection = answer.rejection
    assert (rejection.reason, rejection.version, rejection.revision) == ("answer-too-large", 2, 6)
    assert rejection.source == forecast.source
    assert answer.incoming is incoming
