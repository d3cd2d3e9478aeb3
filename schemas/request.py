"""The request envelope: who asks, and the raw inputs that some version's contract will read.

The envelope is decoded before routing and does not depend on a model, so champion and candidate may
differ in contract. ``inputs`` stays raw JSON until the request is routed.

Duplicate keys are a trap of JSON: decoders keep the last one silently, so two readers of the same
bytes may see two requests. They are refused. The test is cheap: with unknown keys forbidden, the
quotes of a text number 2 × (keys + string values), plus one for each quote that is escaped inside a
string. So what was decoded says how many there are at least, a doubled key always adds to them, and
only where there are more is the text read again, slowly.
"""

import json
from datetime import datetime
from typing import Annotated, Any

import msgspec

from schemas.rejection import Reason, Rejected

MAX_REQUEST_ID_LENGTH = 256

RequestId = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_REQUEST_ID_LENGTH)]


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a caller puts on the request topic.

    ``request_id`` is the caller's and may repeat; a repeat is answered again. ``requested_at`` is the
    caller's clock (RFC 3339), kept for the audit and never used for a decision.
    """

    request_id: RequestId
    inputs: msgspec.Raw
    requested_at: datetime | None = None


_decoder = msgspec.json.Decoder(Request)


def decode_request(value: bytes | None, limit: int) -> Request:
    """The envelope in ``value``. Raises Rejected; ``limit`` is the largest size in bytes."""
    if value is None:
        raise Rejected(Reason.TOMBSTONE, "the record has no value")
    if not value:
        raise Rejected(Reason.EMPTY, "the record's value is empty")
    if len(value) > limit:
        raise Rejected(Reason.TOO_LARGE, f"the value has {len(value)} bytes; the limit is {limit}")
    try:
        request = _decoder.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise diagnose(value, error) from None
    inputs = bytes(request.inputs)
    strings = 1 if request.requested_at is None else 2
    keys = 2 if request.requested_at is None else 3
    outside = value.count(b'"') - inputs.count(b'"')
    if outside != 2 * (keys + strings):
        refuse_duplicate_keys(value)
    return request


def refuse_duplicate_keys(text: bytes) -> None:
    """Read ``text`` (valid JSON) slowly. Raises Rejected where an object repeats a key."""

    def check(pairs: list[tuple[str, Any]]) -> None:
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise Rejected(Reason.DUPLICATE_KEY, f"the key {key!r} stands twice in one object")
            seen.add(key)

    try:
        json.loads(text, object_pairs_hook=check, parse_int=str)
    except RecursionError:
        raise Rejected(Reason.TOO_DEEP, "the value nests too deeply") from None
    except UnicodeDecodeError as wrong:
        raise _not_utf8(wrong) from None
    except ValueError as error:
        raise Rejected(Reason.NOT_JSON, f"the value is not JSON: {error}") from None


def diagnose(text: bytes, error: Exception) -> Rejected:
    """Why ``text`` could not be decoded, from what the decoder said of it."""
    if isinstance(error, RecursionError):
        return Rejected(Reason.TOO_DEEP, "the value nests too deeply")
    if isinstance(error, msgspec.ValidationError):
        return _diagnose_validation(str(error))
    try:
        text.decode()
    except UnicodeDecodeError as wrong:
        return _not_utf8(wrong)
    if _names_a_constant(text):
        return Rejected(Reason.NOT_A_NUMBER, "NaN and Infinity are not numbers in JSON")
    return Rejected(Reason.NOT_JSON, f"the value is not JSON: {error}")


def _not_utf8(wrong: UnicodeDecodeError) -> Rejected:
    return Rejected(Reason.NOT_UTF8, f"byte {wrong.start} is not UTF-8: {wrong.reason}")


def _diagnose_validation(said: str) -> Rejected:
    for opening, reason in _OPENINGS:
        if said.startswith(opening):
            return Rejected(reason, said)
    if said.startswith("Expected `"):
        for sign, reason in _LIMITS:
            if sign in said:
                return Rejected(reason, said)
    return Rejected(Reason.WRONG_TYPE, said)


_OPENINGS = (
    ("Object missing required field", Reason.MISSING_FIELD),
    ("Object contains unknown field", Reason.UNKNOWN_FIELD),
    ("Number out of range", Reason.NUMBER_TOO_LARGE),
    ("Integer value out of range", Reason.NUMBER_TOO_LARGE),
    ("Invalid enum value", Reason.NOT_ALLOWED),
    ("Invalid RFC3339", Reason.NOT_A_DATE),
)
"""How the decoder's sentences begin. Their ends quote the caller, who may write anything."""

_LIMITS = (
    ("of length", Reason.WRONG_LENGTH),
    ("<=", Reason.OUT_OF_RANGE),
    (">=", Reason.OUT_OF_RANGE),
)


def _names_a_constant(text: bytes) -> bool:
    found: list[str] = []
    try:
        json.loads(text, parse_constant=found.append, parse_int=str)
    except (ValueError, RecursionError):
        return False
    return bool(found)
