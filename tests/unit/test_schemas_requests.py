"""Decoding a request: which bytes are refused, and with which reason."""

import json
import time
from datetime import date
from typing import Any

import msgspec
import pytest
from example_contracts import HORIZON, field, output, request
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec import UNSET, structs

from schemas.codec import compile_inputs
from schemas.contract import Beyond, Contract
from schemas.rejection import Reason, Rejected
from schemas.request import decode_request

LIMIT = 1_000_000

EVERYTHING = Contract(
    fields=(
        field("text", "string", "string", max_length=5),
        field("whole", "int64", "int64"),
        field("small", "int64", "int32"),
        field("double", "float64", "float64"),
        field("single", "float32", "float32"),
        field("narrow", "float64", "float32"),
        field("flag", "bool", "bool"),
        field("day", "date", "int64"),
        field("share", "float32", "float32", minimum=0, maximum=1),
        field("count", "int64", "int64", minimum=1, maximum=9),
        field("positive", "int64", "int64", minimum=1),
        field("letter", "string", "string", allowed=("a", "of length", "<=")),
        field("digit", "int64", "int64", allowed=(1, 2)),
        field("maybe", "string", "string", nullable=True, null_as="none"),
        field("later", "float32", "float32", required=False, default=1.5),
        field("note", "string", "string", required=False, default="-"),
        field("until", "date", "float32", required=False, nullable=True),
    ),
    outputs=(output("y"),),
    horizon=HORIZON,
)

GOOD: dict[str, Any] = {
    "text": "x",
    "whole": 1,
    "small": 1,
    "double": 1.0,
    "single": 1.0,
    "narrow": 1.0,
    "flag": True,
    "day": "2017-08-03",
    "share": 0.5,
    "count": 5,
    "positive": 1,
    "letter": "a",
    "digit": 1,
    "maybe": "m",
}
decode = compile_inputs(EVERYTHING)


def inputs(**raw: bytes) -> bytes:
    """Good inputs in which the raw JSON of some fields is replaced or added."""
    pairs = {name: msgspec.json.encode(value) for name, value in GOOD.items()} | raw
    return (
        b"{" + b",".join(b'"%s":%s' % (name.encode(), text) for name, text in pairs.items()) + b"}"
    )


def reason_of(raw: bytes) -> Reason | None:
    """Why ``raw`` is no request for EVERYTHING; None where it is one."""
    try:
        decode(bytes(decode_request(raw, LIMIT).inputs))
    except Rejected as rejected:
        return rejected.reason
    return None


ENVELOPES: list[tuple[str, bytes, Reason]] = [
    ("empty", b"", Reason.EMPTY),
    ("over the limit", b" " * (LIMIT + 1), Reason.TOO_LARGE),
    ("blank", b"   ", Reason.NOT_JSON),
    ("zero bytes", b"\0\0", Reason.NOT_JSON),
    ("cut short", request()[:-1], Reason.NOT_JSON),
    ("followed by more", request() + b"x", Reason.NOT_JSON),
    ("two values", request() + request(), Reason.NOT_JSON),
    ("a comment", b"/**/" + request(), Reason.NOT_JSON),
    ("single quotes", request().replace(b'"', b"'"), Reason.NOT_JSON),
    ("UTF-16 with a mark", request().decode().encode("utf-16"), Reason.NOT_UTF8),
    ("UTF-16 without", request().decode().encode("utf-16-le"), Reason.NOT_JSON),
    ("a byte order mark", b"\xef\xbb\xbf" + request(), Reason.NOT_JSON),
    ("Latin-1 in the id", b'{"request_id":"\xfc","inputs":{}}', Reason.NOT_UTF8),
    ("a surrogate in the id", b'{"request_id":"\xed\xa0\x80","inputs":{}}', Reason.NOT_UTF8),
    ("an escaped lone surrogate", b'{"request_id":"\\ud800","inputs":{}}', Reason.NOT_JSON),
    ("an array", b"[]", Reason.WRONG_TYPE),
    ("a number", b"1", Reason.WRONG_TYPE),
    ("a huge number", b"1e999", Reason.NUMBER_TOO_LARGE),
    ("no id", b'{"inputs":{}}', Reason.MISSING_FIELD),
    ("no inputs", b'{"request_id":"a"}', Reason.MISSING_FIELD),
    ("an id that is a number", b'{"request_id":1,"inputs":{}}', Reason.WRONG_TYPE),
    ("an empty id", b'{"request_id":"","inputs":{}}', Reason.WRONG_LENGTH),
    ("a long id", request(request_id="x" * 257), Reason.WRONG_LENGTH),
    ("a key too many", b'{"request_id":"a","inputs":{},"x":1}', Reason.UNKNOWN_FIELD),
    (
        "an unknown key that quotes the decoder",
        b'{"request_id":"a","inputs":{},"missing required field <= of length":1}',
        Reason.UNKNOWN_FIELD,
    ),
    ("no date", b'{"request_id":"a","inputs":{},"requested_at":"x"}', Reason.NOT_A_DATE),
    ("a date in numbers", b'{"request_id":"a","inputs":{},"requested_at":1}', Reason.WRONG_TYPE),
    ("NaN", b'{"request_id":"a","inputs":NaN}', Reason.NOT_A_NUMBER),
    ("Infinity as id", b'{"request_id":-Infinity,"inputs":{}}', Reason.NOT_A_NUMBER),
    (
        "NaN after a number of 5,000 digits",
        b'{"request_id":"a","inputs":[%s,NaN]}' % (b"1" * 5_000),
        Reason.NOT_A_NUMBER,
    ),
    (
        "2,000 levels",
        b'{"request_id":"a","inputs":%s}' % (b"[" * 2_000 + b"]" * 2_000),
        Reason.TOO_DEEP,
    ),
    (
        "200,000 levels of objects",
        b'{"request_id":"a","inputs":%s}' % (b'{"":' * 200_000),
        Reason.TOO_DEEP,
    ),
    ("levels that never close", b'{"request_id":"a","inputs":' + b"[" * 500_000, Reason.TOO_DEEP),
    ("the id twice", b'{"request_id":"a","request_id":"b","inputs":{}}', Reason.DUPLICATE_KEY),
    ("inputs twice", b'{"request_id":"a","inputs":{},"inputs":{}}', Reason.DUPLICATE_KEY),
    (
        "inputs twice, once escaped",
        b'{"request_id":"a","inputs":{},"\\u0069nputs":{}}',
        Reason.DUPLICATE_KEY,
    ),
    (
        "the time twice, once null",
        b'{"request_id":"a","inputs":{},"requested_at":null,"requested_at":null}',
        Reason.DUPLICATE_KEY,
    ),
    (
        "a quote in the id, Latin-1 in the inputs",
        b'{"request_id":"\\"","inputs":{"text":"\xff"}}',
        Reason.NOT_UTF8,
    ),
    ("inputs of null", b'{"request_id":"a","inputs":null}', Reason.WRONG_TYPE),
    ("inputs in a string", b'{"request_id":"a","inputs":"{}"}', Reason.WRONG_TYPE),
    ("inputs in an array", b'{"request_id":"a","inputs":[]}', Reason.WRONG_TYPE),
]

FIELDS: list[tuple[str, bytes, Reason]] = [
    ("text", b"1", Reason.WRONG_TYPE),
    ("text", b"null", Reason.WRONG_TYPE),
    ("text", b'"123456"', Reason.WRONG_LENGTH),
    ("text", b'"\xff"', Reason.NOT_UTF8),
    ("text", b'"\xed\xa0\x80"', Reason.NOT_UTF8),
    ("text", b'"\\n\xff"', Reason.NOT_UTF8),
    ("text", b'"\\ud800"', Reason.NOT_JSON),
    ("text", b'"\\udc00\\ud800"', Reason.NOT_JSON),
    ("text", b'"a\nb"', Reason.NOT_JSON),
    ("text", b"[]", Reason.WRONG_TYPE),
    ("whole", b"1.0", Reason.WRONG_TYPE),
    ("whole", b"1e2", Reason.WRONG_TYPE),
    ("whole", b"true", Reason.WRONG_TYPE),
    ("whole", b'"1"', Reason.WRONG_TYPE),
    ("whole", b"01", Reason.NOT_JSON),
    ("whole", b"9223372036854775808", Reason.NUMBER_TOO_LARGE),
    ("whole", b"-9223372036854775809", Reason.NUMBER_TOO_LARGE),
    ("whole", b"18446744073709551616", Reason.NUMBER_TOO_LARGE),
    ("whole", b"1" * 300, Reason.NUMBER_TOO_LARGE),
    ("whole", b"-" + b"1" * 300, Reason.NUMBER_TOO_LARGE),
    ("whole", b"1" * 5_000, Reason.NUMBER_TOO_LARGE),
    ("whole", b"1e999", Reason.NUMBER_TOO_LARGE),
    ("whole", b"NaN", Reason.NOT_A_NUMBER),
    ("small", b"2147483648", Reason.NUMBER_TOO_LARGE),
    ("small", b"-2147483649", Reason.NUMBER_TOO_LARGE),
    ("double", b"1e999", Reason.NUMBER_TOO_LARGE),
    ("double", b"-1e999", Reason.NUMBER_TOO_LARGE),
    ("double", b"1" * 400, Reason.NUMBER_TOO_LARGE),
    ("double", b"NaN", Reason.NOT_A_NUMBER),
    ("double", b"Infinity", Reason.NOT_A_NUMBER),
    ("double", b"-Infinity", Reason.NOT_A_NUMBER),
    ("double", b"null", Reason.WRONG_TYPE),
    ("double", b"true", Reason.WRONG_TYPE),
    ("single", b"3.5e38", Reason.NUMBER_TOO_LARGE),
    ("single", b"-3.5e38", Reason.NUMBER_TOO_LARGE),
    ("single", b"1" * 300, Reason.NUMBER_TOO_LARGE),
    ("narrow", b"1e39", Reason.NUMBER_TOO_LARGE),
    ("flag", b"1", Reason.WRONG_TYPE),
    ("flag", b'"true"', Reason.WRONG_TYPE),
    ("day", b'"2017-02-30"', Reason.NOT_A_DATE),
    ("day", b'"2017-8-3"', Reason.NOT_A_DATE),
    ("day", b'"20170803"', Reason.NOT_A_DATE),
    ("day", b'"2017-08-03T00:00:00Z"', Reason.NOT_A_DATE),
    ("day", b'"today"', Reason.NOT_A_DATE),
    ("day", b"17381", Reason.WRONG_TYPE),
    ("day", b'"2017-07-31"', Reason.OUTSIDE_HORIZON),
    ("day", b'"2017-08-17"', Reason.OUTSIDE_HORIZON),
    ("share", b"-0.1", Reason.OUT_OF_RANGE),
    ("share", b"1.0000001", Reason.OUT_OF_RANGE),
    ("share", b"1e300", Reason.OUT_OF_RANGE),
    ("count", b"0", Reason.OUT_OF_RANGE),
    ("count", b"10", Reason.OUT_OF_RANGE),
    ("count", b"1" * 300, Reason.OUT_OF_RANGE),
    ("positive", b"0", Reason.OUT_OF_RANGE),
    ("positive", b"9223372036854775808", Reason.NUMBER_TOO_LARGE),
    ("letter", b'"b"', Reason.NOT_ALLOWED),
    ("letter", b'"no missing required field of length <= 1"', Reason.NOT_ALLOWED),
    ("letter", b"1", Reason.WRONG_TYPE),
    ("digit", b"3", Reason.NOT_ALLOWED),
    ("digit", b'"1"', Reason.WRONG_TYPE),
    ("later", b"null", Reason.WRONG_TYPE),
    ("unknown", b"1", Reason.UNKNOWN_FIELD),
    ("Text", b'"x"', Reason.UNKNOWN_FIELD),
    ('text","text', b'"x"', Reason.NOT_JSON),
]

ACCEPTED: list[tuple[str, bytes, Any]] = [
    ("text", b'"12345"', "12345"),
    ("text", b'"\xf0\x9f\x98\x80"', "\U0001f600"),
    ("text", b'"\\ud83d\\ude00"', "\U0001f600"),
    ("text", b'"\\u0000"', "\0"),
    ("text", b'"\\"\\\\"', '"\\'),
    ("text", b'""', ""),
    ("whole", b"9223372036854775807", 2**63 - 1),
    ("whole", b"-9223372036854775808", -(2**63)),
    ("whole", b"-0", 0),
    ("small", b"-2147483648", -(2**31)),
    ("double", b"1", 1.0),
    ("double", b"1e-999", 0.0),
    ("double", b"1" * 300, float("1" * 300)),
    ("double", b"1.7976931348623157e308", 1.7976931348623157e308),
    ("single", b"3.4028234663852886e38", 3.4028234663852886e38),
    ("share", b"0", 0.0),
    ("share", b"1", 1.0),
    ("count", b"1", 1),
    ("count", b"9", 9),
    ("letter", b'"<="', "<="),
    ("day", b'"2017-08-01"', date(2017, 8, 1)),
    ("day", b'"2017-08-16"', date(2017, 8, 16)),
    ("day", b'"\\u0032017-08-16"', date(2017, 8, 16)),
    ("maybe", b"null", None),
    ("later", b"2", 2.0),
    ("note", b'"n"', "n"),
    ("until", b"null", None),
    ("until", b'"0001-01-01"', date(1, 1, 1)),
    ("until", b'"9999-12-31"', date(9999, 12, 31)),
]


@pytest.mark.parametrize(
    ("raw", "reason"),
    [(raw, why) for _, raw, why in ENVELOPES],
    ids=[name for name, _, _ in ENVELOPES],
)
def test_an_envelope_is_refused_with_its_reason(raw: bytes, reason: Reason) -> None:
    """Each way of not being a request has its own reason."""
    assert reason_of(raw) is reason


@pytest.mark.parametrize(("name", "raw", "reason"), FIELDS, ids=lambda value: str(value)[:40])
def test_a_field_is_refused_with_its_reason(name: str, raw: bytes, reason: Reason) -> None:
    """Each way in which a field can break the contract has its own reason."""
    assert reason_of(request(inputs(**{name: raw}))) is reason


@pytest.mark.parametrize(("name", "raw", "value"), ACCEPTED, ids=lambda value: str(value)[:40])
def test_a_value_at_the_edge_is_taken_as_it_is(name: str, raw: bytes, value: Any) -> None:
    """What lies just inside the limits is decoded to the very value."""
    assert getattr(decode(inputs(**{name: raw})), name) == value


def test_a_record_without_a_value_is_a_tombstone() -> None:
    """A null value is told apart from an empty one."""
    with pytest.raises(Rejected) as caught:
        decode_request(None, LIMIT)
    assert caught.value.reason is Reason.TOMBSTONE


def test_every_reason_that_decoding_can_give_is_in_the_tables() -> None:
    """Only what needs a model or an answer's size is missing from the tables above."""
    given_here = {reason for _, _, reason in ENVELOPES + FIELDS} | {Reason.TOMBSTONE}
    later = {
        Reason.NOT_FINITE,
        Reason.MODEL_FAILED,
        Reason.MODEL_CRASH,
        Reason.ANSWER_TOO_LARGE,
    }
    assert given_here == set(Reason) - later


@pytest.mark.parametrize("missing", GOOD)
def test_a_required_field_must_be_there(missing: str) -> None:
    """Leaving out any one required field is refused by that name."""
    left = {name: value for name, value in GOOD.items() if name != missing}
    with pytest.raises(Rejected, match=f"missing required field `{missing}`") as caught:
        decode(msgspec.json.encode(left))
    assert caught.value.reason is Reason.MISSING_FIELD


def test_absent_and_null_are_told_apart() -> None:
    """A row says what the caller wrote: UNSET for absent, None for null."""
    absent, null = decode(inputs()), decode(inputs(until=b"null"))
    assert absent.until is UNSET
    assert null.until is None


ALL_GIVEN = {**GOOD, "later": 2.0, "note": "n", "until": "2017-01-01"}


@pytest.mark.parametrize("doubled", ALL_GIVEN)
@pytest.mark.parametrize("escaped", [False, True])
@pytest.mark.parametrize("again", ["same", "null"])
def test_a_doubled_key_is_refused(doubled: str, escaped: bool, again: str) -> None:
    """Any field twice is refused, also where one key is written with an escape or one value is null."""
    key = f"\\u{ord(doubled[0]):04x}{doubled[1:]}" if escaped else doubled
    first = msgspec.json.encode(ALL_GIVEN[doubled])
    nullable = EVERYTHING.field(doubled).nullable
    text = b"null" if again == "null" and nullable else first
    raw = b'{"%s":%s,%s' % (key.encode(), text, msgspec.json.encode(ALL_GIVEN)[1:])
    with pytest.raises(Rejected) as caught:
        decode(raw)
    assert caught.value.reason is Reason.DUPLICATE_KEY
    assert repr(doubled) in caught.value.detail


@pytest.mark.parametrize("doubled", ["flag", "whole", "later"])
def test_nulls_and_absent_fields_hide_no_doubled_key(doubled: str) -> None:
    """The quotes that a null or an absent field does not have are not mistaken for a key's."""
    value = msgspec.json.encode(ALL_GIVEN[doubled])
    raw = inputs(**{"maybe": b"null", doubled: value})
    with pytest.raises(Rejected, match=f"'{doubled}' stands twice"):
        decode(b'{"%s":%s,%s' % (doubled.encode(), value, raw[1:]))


def test_an_escape_is_no_duplicate() -> None:
    """Backslashes and quotes inside strings cost a second look and are accepted."""
    assert reason_of(request(inputs(text=b'"\\"\\"\\\\"'), request_id='"a"')) is None


def test_ten_thousand_keys_are_searched_in_no_time() -> None:
    """Looking for the doubled key takes time in proportion to the keys, not to their square."""
    many = b",".join(b'"%d":0' % number for number in range(60_000))
    raw = b'{"request_id":"a","inputs":{%s,"59999":0},"\\u0069nputs":{}}' % many
    before = time.process_time()
    assert reason_of(raw) is Reason.DUPLICATE_KEY
    assert time.process_time() - before < 2


def test_the_envelope_keeps_the_raw_inputs() -> None:
    """Inputs pass through the envelope byte for byte, blanks and all."""
    decoded = decode_request(b' { "request_id" : "a" , "inputs" : { "b" :\n1.50 } } ', LIMIT)
    assert bytes(decoded.inputs) == b'{ "b" :\n1.50 }'
    assert decoded.request_id == "a"
    assert decoded.requested_at is None


def test_a_horizon_that_lets_later_days_pass_still_has_a_first_day() -> None:
    """With LAST_DAY a day after the last is answered, and one before the first is not."""
    open_ended = compile_inputs(
        structs.replace(EVERYTHING, horizon=structs.replace(HORIZON, beyond=Beyond.LAST_DAY))
    )
    assert open_ended(inputs(day=b'"2030-01-01"')).day == date(2030, 1, 1)
    with pytest.raises(Rejected, match="day is 2017-07-31"):
        open_ended(inputs(day=b'"2017-07-31"'))


def test_without_a_horizon_every_day_is_answered() -> None:
    """A contract may have a date and no horizon."""
    timeless = compile_inputs(structs.replace(EVERYTHING, horizon=None))
    assert timeless(inputs(day=b'"1900-01-01"')).day == date(1900, 1, 1)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.binary(max_size=200))
@example(b'{"request_id":"a","inputs":{"text":"\\ud800"}}')
def test_no_bytes_do_worse_than_a_rejection(raw: bytes) -> None:
    """Whatever the bytes, decoding gives a request or Rejected and nothing else."""
    reason_of(raw)
    for shell in (b'{"request_id":"a","inputs":%s}', b'{"request_id":"%s","inputs":{}}'):
        reason_of(shell % raw)


@given(st.sampled_from(sorted(ALL_GIVEN)), json_values)
def test_no_value_of_a_field_does_worse_than_a_rejection(name: str, value: Any) -> None:
    """Whatever JSON stands in a field, decoding gives a row or Rejected and nothing else."""
    reason_of(request(json.dumps(ALL_GIVEN | {name: value}).encode()))
