"""Requests that are none, by name: each class with its bytes and the reason that it is rejected with.

``POISON`` holds what must be rejected; ``GOOD`` holds requests that look as if they should be and are
answered all the same. Both are for the bundle of ``tests.poison_bundle``, whose contract has a field of
every type. A class is varied by a number, so that no two of its requests need be the same bytes.
"""

import gzip
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import msgspec

from schemas.rejection import Reason
from tests.poison_bundle import LIMIT, SHELVES

DEEP = 5_000
"""Levels of nesting, several times what any decoder follows."""

ID_LENGTH = 256


@dataclass(frozen=True)
class Poison:
    """A class of bad requests. ``make`` gives the value of the ``number``-th; None is a tombstone."""

    name: str
    reason: Reason
    make: Callable[[int], bytes | None]


@dataclass(frozen=True)
class Good:
    """A class of requests that are answered, however odd they look."""

    name: str
    make: Callable[[int], bytes]


def request(number: int, **changed: bytes) -> bytes:
    """A good request; raw JSON of some inputs may be replaced or added, or left out where empty."""
    return envelope(number, inputs=inputs(number, **changed))


def inputs(number: int, **changed: bytes) -> bytes:
    """The inputs of a good request, as ``request`` changes them."""
    fields = {
        "item": b'"a"',
        "units": b"%d.5" % (number % 1_000),
        "count": b"2",
        "open": b"true",
        "date": b'"2011-12-09"',
        "price": b"1.25",
        "size": b'"small"',
        "shelf": b"%d" % (number % SHELVES),
    } | changed
    return _object({name: text for name, text in fields.items() if text})


def envelope(number: int, **changed: bytes) -> bytes:
    """A request of raw parts, each a key; a part is left out where it is empty."""
    parts = {"request_id": b'"p-%d"' % number, "inputs": inputs(number)} | changed
    return _object({name: text for name, text in parts.items() if text})


def padded(number: int, size: int) -> bytes:
    """A good request of exactly so many bytes: blanks behind its inputs' opening brace."""
    whole = request(number)
    return whole.replace(b'"item"', b" " * (size - len(whole)) + b'"item"')


def _object(parts: Mapping[str, bytes]) -> bytes:
    return (
        b"{" + b",".join(b'"%s":%s' % (name.encode(), text) for name, text in parts.items()) + b"}"
    )


def _twice(whole: bytes, again: bytes) -> bytes:
    """The object ``whole`` with a key and a value put before its own."""
    return b"{" + again + b"," + whole[1:]


def _id_of(number: int, length: int) -> bytes:
    return b'"' + (b"%d" % number).rjust(length, b"x") + b'"'


def _avro(number: int) -> bytes:
    return b"\0\0\0\0\x01" + b"\x02a" + bytes([number % 128])


def _protobuf(number: int) -> bytes:
    return b"\x0a\x01a\x10" + bytes([number % 128]) + b"\x1a\x0a2011-12-09"


R = Reason

_NO_TEXT: dict[str, tuple[Reason, Callable[[int], bytes | None]]] = {
    "tombstone": (R.TOMBSTONE, lambda n: None),
    "empty value": (R.EMPTY, lambda n: b""),
    "one byte too large": (R.TOO_LARGE, lambda n: padded(n, LIMIT + 1)),
    "far too large": (R.TOO_LARGE, lambda n: padded(n, 10 * LIMIT)),
    "UTF-16 with a mark": (R.NOT_UTF8, lambda n: request(n).decode().encode("utf-16")),
    "UTF-16 without a mark": (R.NOT_JSON, lambda n: request(n).decode().encode("utf-16-le")),
    "UTF-32 with a mark": (R.NOT_UTF8, lambda n: request(n).decode().encode("utf-32")),
    "UTF-8 with a mark": (R.NOT_JSON, lambda n: b"\xef\xbb\xbf" + request(n)),
    "Latin-1": (R.NOT_UTF8, lambda n: request(n, item=b'"caf\xe9"')),
    "overlong UTF-8": (R.NOT_UTF8, lambda n: request(n, item=b'"\xc0\xaf"')),
    "UTF-8 cut in a character": (R.NOT_UTF8, lambda n: request(n, item=b'"\xf0\x9f\x98"')),
    "beyond Unicode": (R.NOT_UTF8, lambda n: request(n, item=b'"\xf4\x90\x80\x80"')),
    "a surrogate's bytes": (R.NOT_UTF8, lambda n: request(n, item=b'"\xed\xa0\x80"')),
    "a surrogate's escape": (R.NOT_JSON, lambda n: request(n, item=b'"\\ud800"')),
    "a control character": (R.NOT_JSON, lambda n: request(n, item=b'"a\x01b"')),
    "a control character in the id": (
        R.NOT_JSON,
        lambda n: envelope(n, request_id=b'"p\n%d"' % n),
    ),
    "zero bytes": (R.NOT_JSON, lambda n: bytes(1 + n % 64)),
    "gzip": (R.NOT_UTF8, lambda n: gzip.compress(request(n), mtime=0)),
    "Avro with a schema id": (R.NOT_JSON, _avro),
    "protobuf": (R.NOT_JSON, _protobuf),
    "pickle": (R.NOT_UTF8, lambda n: b"\x80\x04\x95%d." % n),
}

_NO_JSON: dict[str, tuple[Reason, Callable[[int], bytes | None]]] = {
    "plain text": (R.NOT_JSON, lambda n: b"forecast for item %d please" % n),
    "comma-separated values": (R.NOT_JSON, lambda n: b"p-%d,a,1.5,2011-12-09" % n),
    "XML": (R.NOT_JSON, lambda n: b"<request id='p-%d'/>" % n),
    "cut short": (R.NOT_JSON, lambda n: request(n)[: -1 - n % 20]),
    "more behind it": (R.NOT_JSON, lambda n: request(n) + b"x"),
    "two documents": (R.NOT_JSON, lambda n: request(n) + b"\n" + request(n + 1)),
    "a comma too many": (R.NOT_JSON, lambda n: request(n)[:-1] + b",}"),
    "a comment": (R.NOT_JSON, lambda n: b"/* %d */" % n + request(n)),
    "single quotes": (R.NOT_JSON, lambda n: request(n).replace(b'"', b"'")),
    "Python's True": (R.NOT_JSON, lambda n: request(n, open=b"True")),
    "a leading zero": (R.NOT_JSON, lambda n: request(n, count=b"01")),
    "a hexadecimal number": (R.NOT_JSON, lambda n: request(n, count=b"0x1")),
    "an unknown escape": (R.NOT_JSON, lambda n: request(n, item=b'"\\x41"')),
    "no end in arrays": (R.TOO_DEEP, lambda n: envelope(n, inputs=b"[" * (LIMIT - 64))),
    "deep arrays": (R.TOO_DEEP, lambda n: envelope(n, inputs=b"[" * DEEP + b"]" * DEEP)),
    "deep objects": (R.TOO_DEEP, lambda n: envelope(n, inputs=b'{"":' * DEEP + b"0" + b"}" * DEEP)),
    "deep in a field": (R.TOO_DEEP, lambda n: request(n, item=b"[" * DEEP + b"]" * DEEP)),
    "NaN": (R.NOT_A_NUMBER, lambda n: request(n, units=b"NaN")),
    "Infinity": (R.NOT_A_NUMBER, lambda n: request(n, units=b"Infinity")),
    "-Infinity": (R.NOT_A_NUMBER, lambda n: request(n, price=b"-Infinity")),
    "NaN in a cut text": (R.NOT_A_NUMBER, lambda n: request(n, shelf=b"NaN")[:-1]),
}

_KEYS: dict[str, tuple[Reason, Callable[[int], bytes | None]]] = {
    "two ids": (R.DUPLICATE_KEY, lambda n: _twice(request(n), b'"request_id":"p"')),
    "two inputs": (R.DUPLICATE_KEY, lambda n: _twice(request(n), b'"inputs":%s' % inputs(n))),
    "two inputs, one escaped": (
        R.DUPLICATE_KEY,
        lambda n: _twice(request(n), b'"\\u0069nputs":%s' % inputs(n)),
    ),
    "two times, both null": (
        R.DUPLICATE_KEY,
        lambda n: _twice(envelope(n, requested_at=b"null"), b'"requested_at":null'),
    ),
    "a field twice": (
        R.DUPLICATE_KEY,
        lambda n: envelope(n, inputs=_twice(inputs(n), b'"units":%d' % n)),
    ),
    "a field twice, one escaped": (
        R.DUPLICATE_KEY,
        lambda n: envelope(n, inputs=_twice(inputs(n), b'"\\u0075nits":%d' % n)),
    ),
    "a field twice, one null": (
        R.DUPLICATE_KEY,
        lambda n: envelope(n, inputs=_twice(inputs(n), b'"price":null')),
    ),
    "a field twice beside a quote": (
        R.DUPLICATE_KEY,
        lambda n: envelope(n, inputs=_twice(inputs(n, item=b'"\\""'), b'"open":false')),
    ),
    "a field a thousand times": (
        R.DUPLICATE_KEY,
        lambda n: envelope(n, inputs=b"{" + b'"item":"a",' * 1_000 + inputs(n)[1:]),
    ),
    "unknown in the envelope": (R.UNKNOWN_FIELD, lambda n: envelope(n, priority=b"%d" % n)),
    "unknown in the inputs": (R.UNKNOWN_FIELD, lambda n: request(n, colour=b'"red"')),
    "another case": (R.UNKNOWN_FIELD, lambda n: request(n, Item=b'"a"')),
    "an empty key": (R.UNKNOWN_FIELD, lambda n: envelope(n, inputs=_twice(inputs(n), b'"":1'))),
    "a key of 60,000 characters": (
        R.UNKNOWN_FIELD,
        lambda n: envelope(n, inputs=b'{"%s":1}' % (b"k" * 60_000)),
    ),
    "no id": (R.MISSING_FIELD, lambda n: envelope(n, request_id=b"")),
    "no inputs": (R.MISSING_FIELD, lambda n: envelope(n, inputs=b"")),
    "empty inputs": (R.MISSING_FIELD, lambda n: envelope(n, inputs=b"{}")),
    "a field missing": (R.MISSING_FIELD, lambda n: request(n, date=b"")),
    "inputs only": (R.UNKNOWN_FIELD, inputs),
}

_TYPES: dict[str, tuple[Reason, Callable[[int], bytes | None]]] = {
    "a number alone": (R.WRONG_TYPE, lambda n: b"%d" % n),
    "a string alone": (R.WRONG_TYPE, lambda n: b'"p-%d"' % n),
    "null alone": (R.WRONG_TYPE, lambda n: b"null"),
    "an array of requests": (R.WRONG_TYPE, lambda n: b"[" + request(n) + b"]"),
    "request in a string": (R.WRONG_TYPE, lambda n: msgspec.json.encode(request(n).decode())),
    "null for inputs": (R.WRONG_TYPE, lambda n: envelope(n, inputs=b"null")),
    "an array for inputs": (R.WRONG_TYPE, lambda n: envelope(n, inputs=b"[1,2]")),
    "a string for inputs": (R.WRONG_TYPE, lambda n: envelope(n, inputs=b'"{}"')),
    "a number as id": (R.WRONG_TYPE, lambda n: envelope(n, request_id=b"%d" % n)),
    "null as id": (R.WRONG_TYPE, lambda n: envelope(n, request_id=b"null")),
    "null where none may be": (R.WRONG_TYPE, lambda n: request(n, item=b"null")),
    "a number as string": (R.WRONG_TYPE, lambda n: request(n, units=b'"1.5"')),
    "Infinity as string": (R.WRONG_TYPE, lambda n: request(n, units=b'"Infinity"')),
    "a string as number": (R.WRONG_TYPE, lambda n: request(n, item=b"%d" % n)),
    "a bool for a whole number": (R.WRONG_TYPE, lambda n: request(n, count=b"true")),
    "a bool for a number": (R.WRONG_TYPE, lambda n: request(n, units=b"false")),
    "a number for a bool": (R.WRONG_TYPE, lambda n: request(n, open=b"1")),
    "a fraction for a whole number": (R.WRONG_TYPE, lambda n: request(n, count=b"1.5")),
    "an exponent for a whole number": (R.WRONG_TYPE, lambda n: request(n, count=b"1e3")),
    "an object for a string": (R.WRONG_TYPE, lambda n: request(n, item=b'{"a":1,"a":2}')),
    "60,000 elements for a number": (
        R.WRONG_TYPE,
        lambda n: request(n, units=b"[" + b"{}," * 20_000 + b"1]"),
    ),
    "a date as number": (R.WRONG_TYPE, lambda n: request(n, date=b"15317")),
}

_VALUES: dict[str, tuple[Reason, Callable[[int], bytes | None]]] = {
    "1e999": (R.NUMBER_TOO_LARGE, lambda n: request(n, units=b"1e999")),
    "-1e999": (R.NUMBER_TOO_LARGE, lambda n: request(n, price=b"-1e999")),
    "beyond a float32": (R.NUMBER_TOO_LARGE, lambda n: request(n, price=b"3.5e38")),
    "2^63": (R.NUMBER_TOO_LARGE, lambda n: request(n, count=b"%d" % 2**63)),
    "-2^63-1": (R.NUMBER_TOO_LARGE, lambda n: request(n, count=b"%d" % (-(2**63) - 1))),
    "2^64+1": (R.NUMBER_TOO_LARGE, lambda n: request(n, count=b"%d" % (2**64 + 1))),
    "300 digits": (R.NUMBER_TOO_LARGE, lambda n: request(n, count=b"9" * 300)),
    "-300 digits": (R.NUMBER_TOO_LARGE, lambda n: request(n, count=b"-" + b"9" * 300)),
    "60,000 digits": (R.NUMBER_TOO_LARGE, lambda n: request(n, count=b"9" * 60_000)),
    "out of range": (R.OUT_OF_RANGE, lambda n: request(n, units=b"2e9")),
    "300 digits where 1e9 is the limit": (
        R.OUT_OF_RANGE,
        lambda n: request(n, units=b"-" + b"9" * 300),
    ),
    "an empty id": (R.WRONG_LENGTH, lambda n: envelope(n, request_id=b'""')),
    "an id too long": (
        R.WRONG_LENGTH,
        lambda n: envelope(n, request_id=_id_of(n, ID_LENGTH + 1)),
    ),
    "a string too long": (R.WRONG_LENGTH, lambda n: request(n, item=b'"%s"' % (b"x" * 65))),
    "60,000 escaped quotes": (
        R.WRONG_LENGTH,
        lambda n: request(n, item=b'"%s"' % (b'\\"' * 30_000)),
    ),
    "not among the allowed": (R.NOT_ALLOWED, lambda n: request(n, size=b'"huge"')),
    "60,000 characters not allowed": (
        R.NOT_ALLOWED,
        lambda n: request(n, size=b'"%s"' % ("é".encode() * 30_000)),
    ),
    "before the horizon": (R.OUTSIDE_HORIZON, lambda n: request(n, date=b'"1999-12-31"')),
    "behind the horizon": (R.OUTSIDE_HORIZON, lambda n: request(n, date=b'"2100-01-01"')),
    "no such day": (R.NOT_A_DATE, lambda n: request(n, date=b'"2011-02-30"')),
    "a day and a time": (R.NOT_A_DATE, lambda n: request(n, date=b'"2011-12-09T00:00:00Z"')),
    "another form of day": (R.NOT_A_DATE, lambda n: request(n, date=b'"09.12.2011"')),
    "no day": (R.NOT_A_DATE, lambda n: request(n, date=b'""')),
    "a time without its zone": (
        R.NOT_A_DATE,
        lambda n: envelope(n, requested_at=b'"2011-12-09T10:00:00"'),
    ),
    "a day for a time": (R.NOT_A_DATE, lambda n: envelope(n, requested_at=b'"2011-12-09"')),
    "no such time": (
        R.NOT_A_DATE,
        lambda n: envelope(n, requested_at=b'"2011-12-09T24:00:00Z"'),
    ),
    "a zone of 25 hours": (
        R.NOT_A_DATE,
        lambda n: envelope(n, requested_at=b'"2011-12-09T10:00:00+25:00"'),
    ),
    "a time as number": (R.WRONG_TYPE, lambda n: envelope(n, requested_at=b"1323424800")),
    "a forecast that is not finite": (R.NOT_FINITE, lambda n: request(n, count=b"0")),
    "a row that the model fails on": (
        R.MODEL_FAILED,
        lambda n: request(n, shelf=b"%d" % (SHELVES + n)),
    ),
    "a row that the model drops": (
        R.MODEL_FAILED,
        lambda n: request(n, shelf=b"%d" % (-1 - n % SHELVES)),
    ),
}

POISON: tuple[Poison, ...] = tuple(
    Poison(name, reason, make)
    for kind in (_NO_TEXT, _NO_JSON, _KEYS, _TYPES, _VALUES)
    for name, (reason, make) in kind.items()
)

GOOD: tuple[Good, ...] = (
    Good("plain", request),
    Good("the largest", lambda n: padded(n, LIMIT)),
    Good("the longest id", lambda n: envelope(n, request_id=_id_of(n, ID_LENGTH))),
    Good("control characters escaped", lambda n: request(n, item=b'"\\u0000\\n\\u001f"')),
    Good("a pair of surrogates", lambda n: request(n, item=b'"\\ud83d\\ude00"')),
    Good("quotes in a string", lambda n: request(n, item=b'"' + b'\\"' * 64 + b'"')),
    Good("an escaped key", lambda n: request(n).replace(b'"item"', b'"\\u0069tem"')),
    Good("a time", lambda n: envelope(n, requested_at=b'"2011-12-09T10:00:00.5+02:00"')),
    Good("null for a time", lambda n: envelope(n, requested_at=b"null")),
    Good("null where it may be", lambda n: request(n, price=b"null")),
    Good("an optional field left out", lambda n: request(n, price=b"")),
    Good("the largest whole number", lambda n: request(n, count=b"%d" % (2**63 - 1))),
    Good("60,000 digits of a fraction", lambda n: request(n, units=b"0." + b"3" * 60_000)),
    Good("too small for a number", lambda n: request(n, units=b"1e-999")),
    Good("the last day", lambda n: request(n, date=b'"2099-12-31"')),
    Good("a line that ends", lambda n: b"\r\n\t " + request(n) + b"\r\n"),
)
