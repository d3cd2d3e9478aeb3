"""Outgoing: which record carries an answer.

1. A forecast goes to the results topic, to the request's partition number, under the request's key.
2. A rejection goes to the rejections topic under the request's key, its headers say why, and its value
   is the request's own bytes.
3. Where those bytes cannot be kept (there are none, or with key and headers the record would be beyond
   the limit) the value is a small JSON envelope, and a header says so. A key that alone is too large
   for the record is left out then.
4. A forecast whose record is beyond the limit becomes a rejection.

The limit is the producer's, which lies below the topics'. Sizes count key, value, headers and
``RECORD_OVERHEAD`` for the record's own fields.
"""

import msgspec

from schemas.forecast import decode_forecast
from schemas.rejection import ENVELOPE_HEADER, Headers, Reason, Rejection, rejection_headers
from scoring.batch import ForecastAnswer, RejectionAnswer

RECORD_OVERHEAD = 100
"""Bytes of a record's lengths, timestamps and attributes, and of its header lengths, generously."""

MOST_HEADERS = 8_192
"""Bytes that the headers never reach: a detail has 500 characters, and names are short."""


class RejectionRecord(msgspec.Struct, frozen=True, gc=False):
    """A record of the rejections topic."""

    key: bytes | None
    value: bytes
    headers: Headers


def rejection_record(answer: RejectionAnswer, limit: int) -> RejectionRecord:
    """The record that carries a rejection, of at most ``limit`` bytes."""
    incoming, rejection = answer.incoming, answer.rejection
    headers = rejection_headers(rejection)
    # Far below the limit nothing needs to be added up.
    if incoming.value and len(incoming.key or b"") + len(incoming.value) <= limit - MOST_HEADERS:
        return RejectionRecord(incoming.key, incoming.value, headers)
    if incoming.value and _size(incoming.key, incoming.value, headers) <= limit:
        return RejectionRecord(incoming.key, incoming.value, headers)
    envelope = msgspec.json.encode(
        {"source": rejection.source, "reason": rejection.reason, "size": len(incoming.value or b"")}
    )
    headers.append((ENVELOPE_HEADER, b"1"))
    key = incoming.key if _size(incoming.key, envelope, headers) <= limit else None
    return RejectionRecord(key, envelope, headers)


def too_large(answer: ForecastAnswer, limit: int) -> RejectionAnswer:
    """The rejection that takes the place of a forecast whose record is beyond ``limit``."""
    forecast = decode_forecast(answer.value)
    return RejectionAnswer(
        answer.incoming,
        Rejection(
            reason=Reason.ANSWER_TOO_LARGE,
            detail=f"the forecast with its key has more than the {limit} bytes of a record",
            model=forecast.model,
            version=forecast.version,
            variant=forecast.variant,
            digest=forecast.digest,
            revision=forecast.revision,
            source=forecast.source,
            instance=forecast.instance,
            runtime=forecast.runtime,
        ),
    )


def _size(key: bytes | None, value: bytes, headers: Headers) -> int:
    size = RECORD_OVERHEAD + len(key or b"") + len(value)
    return size + sum(len(name) + len(text) + 4 for name, text in headers)
