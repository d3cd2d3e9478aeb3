"""The request envelope: who asks, and the raw inputs that some version's contract will read.

The envelope is decoded before routing and does not depend on a model, so champion and candidate may
differ in contract. ``inputs`` stays raw JSON until the request is routed.

Duplicate keys are a trap of JSON: decoders keep the last one silently, so two readers of the same
bytes may see two requests. They are refused. The test is cheap: with unknown keys forbidden, the
quotes of a text number 2 × (keys + string values), plus one for each quote that is escaped inside a
string. So what was decoded says how many there are at least, a doubled key always adds to them, and
only where there are more is the text read again (an escaped quote or a null can be why).

What a bad text costs must not depend on what is in it: whatever is looked for here is found by the
decoder's own scan, by counting bytes, or at the byte where the decoder stopped. Nothing that a caller
may make long is read in Python.
"""

import json
import re
from codecs import BOM_UTF8
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Annotated, TypeVar

import msgspec

from schemas.rejection import Reason, Rejected

MAX_REQUEST_ID_LENGTH = 256

RequestId = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_REQUEST_ID_LENGTH)]


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """What a caller puts on the request topic.

    ``request_id`` is the caller's and may repeat; a repeat is answered again. ``requested_at`` is the
    caller's clock (RFC 3339, with its zone), kept for the audit and never used for a decision.
    """

    request_id: RequestId
    inputs: msgspec.Raw
    requested_at: Annotated[datetime, msgspec.Meta(tz=True)] | None = None


decode_envelope: Callable[[bytes], Request] = msgspec.json.Decoder(Request).decode
"""The envelope alone, nothing checked beyond its types; raises one of ``UNREADABLE``."""

_keyed = msgspec.json.Decoder(dict[str, msgspec.Raw])

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding a bad text raises."""

Text = TypeVar("Text")
Decoded = TypeVar("Decoded")


def decode_each(
    decode: Callable[[Text], Decoded], texts: Iterable[Text]
) -> tuple[list[Decoded], dict[int, Exception]]:
    """What could be decoded, in order, and by place the errors (``UNREADABLE``) of the rest.

    The loop over the texts is the list's own, which costs less than one in Python.
    """
    decoded: list[Decoded] = []
    errors: dict[int, Exception] = {}
    rest = map(decode, texts)
    while True:
        try:
            decoded.extend(rest)  # keeps what came before an error, and goes on behind it
            return decoded, errors
        except UNREADABLE as error:
            # A traceback would hold this call, and all that it decoded, until the collector comes.
            errors[len(decoded) + len(errors)] = error.with_traceback(None)


MOST_BYTES_TO_NAME_A_KEY = 2_048
"""In a longer text a doubled key is found all the same, but not named: naming it makes an
object of all that the text holds, at up to 30 ns a byte."""

_read_pairs = json.JSONDecoder(object_pairs_hook=list, parse_int=str, parse_float=str).decode


def decode_request(value: bytes | None, limit: int) -> Request:
    """The envelope in ``value``. Raises Rejected; ``limit`` is the largest size in bytes."""
    if value is None:
        raise Rejected(Reason.TOMBSTONE, "the record has no value")
    if not value:
        raise Rejected(Reason.EMPTY, "the record's value is empty")
    if len(value) > limit:
        raise Rejected(Reason.TOO_LARGE, f"the value has {len(value)} bytes; the limit is {limit}")
    try:
        request = decode_envelope(value)
    except UNREADABLE as error:
        raise diagnose(value, error) from None
    inputs = bytes(request.inputs)
    strings = 1 if request.requested_at is None else 2
    keys = 2 if request.requested_at is None else 3
    outside = value.count(b'"') - inputs.count(b'"')
    if outside != 2 * (keys + strings):
        refuse_duplicate_keys(value)
    return request


def refuse_duplicate_keys(text: bytes) -> None:
    """Look closer at an object that was decoded. Raises Rejected where one of its own keys repeats.

    No key may hold a quote: then the quotes of the text are exactly those of its keys and of its
    values, and where there are more, a decoder has dropped a key with its value.
    """
    try:
        held = _keyed.decode(text)
    except UNREADABLE as error:
        raise diagnose(text, error) from None
    if text.count(b'"') > sum(2 + bytes(value).count(b'"') for value in held.values()):
        key = _doubled_key(text) if len(text) <= MOST_BYTES_TO_NAME_A_KEY else None
        which = "a key" if key is None else f"the key {key!r}"
        raise Rejected(Reason.DUPLICATE_KEY, f"{which} stands twice in one object")


def _doubled_key(text: bytes) -> str | None:
    """The first of an object's own keys that comes again; None where it cannot be told."""
    seen: set[str] = set()
    try:
        pairs = _read_pairs(text.decode(errors="replace"))
    except (ValueError, RecursionError):
        return None
    for key, _ in pairs:
        if key in seen:
            return str(key)
        seen.add(key)
    return None


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
    if _stopped_at_a_constant(text, str(error)):
        return Rejected(Reason.NOT_A_NUMBER, "NaN and Infinity are not numbers in JSON")
    if text.startswith(BOM_UTF8):
        return Rejected(Reason.NOT_JSON, "the value begins with a byte order mark; JSON has none")
    return Rejected(Reason.NOT_JSON, f"the value is not JSON: {error}")


def _not_utf8(wrong: UnicodeDecodeError) -> Rejected:
    return Rejected(Reason.NOT_UTF8, f"byte {wrong.start} is not UTF-8: {wrong.reason}")


def _diagnose_validation(said: str) -> Rejected:
    if said.startswith("Expected `"):
        for sign, reason in _LIMITS:
            if sign in said:
                return Rejected(reason, said)
        return Rejected(Reason.WRONG_TYPE, said)
    for opening, reason in _OPENINGS:
        if said.startswith(opening):
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
    ("with a timezone component", Reason.NOT_A_DATE),
    ("of length", Reason.WRONG_LENGTH),
    ("<=", Reason.OUT_OF_RANGE),
    (">=", Reason.OUT_OF_RANGE),
)


_PLACE = re.compile(r"\(byte (\d+)\)\Z")
"""How the decoder's sentence ends where it says at which byte it stopped."""


def _stopped_at_a_constant(text: bytes, said: str) -> bool:
    place = _PLACE.search(said)
    # Of -Infinity the decoder takes the minus.
    return place is not None and text.startswith((b"NaN", b"Infinity"), int(place[1]))
