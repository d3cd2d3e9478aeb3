"""The first look: what it takes is what a closer look would take, and plain requests need no other."""

import gc
import weakref
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from example_contracts import HORIZON, field, output
from hypothesis import given
from hypothesis import strategies as st

from schemas.codec import compile_inputs
from schemas.contract import Contract
from schemas.first_look import Verdicts, compile_first_look
from schemas.rejection import Rejected
from schemas.request import UNREADABLE, decode_each, decode_envelope, decode_request

CONTRACT = Contract(
    fields=(
        field("item", "string", "string", max_length=8),
        field("day", "date", "int64"),
        field("price", "float64", "float32", nullable=True),
        field("note", "string", "string", required=False, nullable=True, null_as="", default="-"),
    ),
    outputs=(output("y"),),
    horizon=HORIZON,
    max_request_bytes=300,
)
look = compile_first_look(CONTRACT)
decode = compile_inputs(CONTRACT)


def at_first_sight(value: bytes) -> tuple[Any, ...] | None:
    """Id and row of a request that the first look takes."""
    try:
        request = decode_envelope(value)
    except UNREADABLE:
        return None
    rows, _ = look([value], [request])
    return (request, rows[0]) if rows else None


def looked_closer(value: bytes) -> tuple[Any, ...] | None:
    """Id and row of a request that the full decoders take."""
    try:
        request = decode_request(value, CONTRACT.max_request_bytes)
        return request, decode(bytes(request.inputs))
    except Rejected:
        return None


def told(found: tuple[Any, ...] | None) -> object:
    """What a request holds, in a form that can be compared."""
    if found is None:
        return None
    request, row = found
    said = (request.request_id, bytes(request.inputs), request.requested_at)
    return (*said, *msgspec.structs.astuple(row))


def spoken(rows: Sequence[Any], verdicts: Verdicts) -> list[object]:
    """What is said of each request of a batch, in a form that can be compared."""
    left = iter(rows)
    said: list[object] = []
    for place in range(len(rows) + len(verdicts)):
        if place not in verdicts:
            said.append(msgspec.structs.astuple(next(left)))
            continue
        verdict = verdicts[place]
        said.append(None if verdict is None else verdict.args)
    return said


class _Kept(msgspec.Struct, weakref=True):
    """What can be watched."""


ITEM, DAY, PRICE = b'"item":"a"', b'"day":"2017-08-03"', b'"price":1.5'
PLAIN = [
    b"{%b}" % b",".join(parts)
    for parts in (
        (ITEM, DAY, PRICE),
        (PRICE, DAY, ITEM, b'"note":"n"'),
        (ITEM, DAY, b'"price":null', b'"note":null'),
    )
]
AROUND = [
    b'{"request_id":"r","inputs":%b}',
    b'{ "inputs" : %b , "requested_at":"2026-11-21T10:00:00Z", "request_id":"r" }',
]


@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("inputs", PLAIN)
def test_a_plain_request_needs_no_closer_look(inputs: bytes, around: bytes) -> None:
    """Absent and null fields, any order and space: the first look takes it, and reads the same."""
    value = around % inputs
    assert told(at_first_sight(value)) == told(looked_closer(value)) is not None


@pytest.mark.parametrize(
    "value",
    [
        AROUND[0] % b"{%b}" % b",".join((ITEM, DAY, PRICE, ITEM)),
        AROUND[0] % b"{%b}" % b",".join((ITEM, DAY, PRICE, b'"note":null', b'"note":null')),
        AROUND[0] % b"{%b}" % b",".join((ITEM, DAY, PRICE, b'"price":null')),
        b'{"request_id":"r","request_id":"r","inputs":%b}' % PLAIN[0],
        b'{"request_id":"r","inputs":%b,"inputs":%b}' % (PLAIN[1], PLAIN[0]),
        b'{"request_id":"r","inputs":%b,"requested_at":null,"requested_at":null}' % PLAIN[0],
        AROUND[0] % PLAIN[0].replace(b"2017-08-03", b"2018-08-03"),
        AROUND[0] % PLAIN[0].replace(b"2017-08-03", b"2017-07-31"),
        AROUND[0] % PLAIN[0].replace(b"1.5", b"1e999"),
        AROUND[0] % PLAIN[0].replace(b'"a"', b'"123456789"'),
        AROUND[0] % PLAIN[0] + b" " * 300,
        AROUND[0] % PLAIN[0].replace(b'"a"', b'"\xff"'),
        AROUND[0] % (b"[" * 100_000),
    ],
)
def test_a_bad_request_is_not_taken_at_first_sight(value: bytes) -> None:
    """A key that stands twice above all: what else is bad is left to the closer look."""
    assert looked_closer(value) is None
    assert at_first_sight(value) is None


ESCAPED = b'"it\\u0065m":"b"'
NOTES = [b'"note":"n"', b'"note":null', b'"note":"\\""']
pieces = st.sampled_from([ITEM, DAY, PRICE, ESCAPED, b'"price":null', *NOTES])
outside = st.sampled_from(
    [b'"request_id":"r"', b'"request_id":"\\"r\\""', b'"requested_at":null', b'"inputs":{}']
)


@given(st.lists(pieces, max_size=6), st.lists(outside, max_size=3), st.booleans())
def test_what_is_taken_is_what_a_closer_look_takes(
    inner: list[bytes], outer: list[bytes], has_id: bool
) -> None:
    """Repeated keys, escaped quotes and nulls in any mixture never make the two differ."""
    parts = [b'"inputs":{%b}' % b",".join(inner), *outer, *[b'"request_id":"s"'] * has_id]
    value = b"{%b}" % b",".join(parts)
    found = at_first_sight(value)
    assert found is None or told(found) == told(looked_closer(value))


wrong = st.sampled_from(
    [b'"price":"x"', b'"price":1e999', b'"item":"123456789"', b'"odd":1', b'"day":"2019-01-01"']
)


@given(
    st.lists(pieces | wrong, max_size=6),
    st.lists(outside, max_size=3),
    st.booleans(),
    st.booleans(),
)
def test_what_is_rejected_at_first_sight_is_what_a_closer_look_rejects(
    inner: list[bytes], outer: list[bytes], has_id: bool, is_long: bool
) -> None:
    """With the same reason and the same sentence, whatever else is wrong with the request."""
    parts = [b'"inputs":{%b}' % b",".join(inner), *outer, *[b'"request_id":"s"'] * has_id]
    value = b"{%b}" % b",".join(parts) + b" " * 300 * is_long
    try:
        request = decode_envelope(value)
    except UNREADABLE:
        return
    _, verdicts = look([value], [request])
    sighted = verdicts.get(0)
    if sighted is None:
        return
    with pytest.raises(Rejected) as closer:
        decode(bytes(decode_request(value, CONTRACT.max_request_bytes).inputs))
    assert closer.value.args == sighted.args


@given(st.lists(st.tuples(st.lists(pieces | wrong, max_size=5), st.booleans()), max_size=12))
def test_a_request_is_told_the_same_in_any_company(
    batch: list[tuple[list[bytes], bool]],
) -> None:
    """What is wrong with others of a batch, and how many they are, changes nothing; order is kept."""
    values = [
        AROUND[0] % b"{%b}" % b",".join(inner) + b" " * 300 * is_long for inner, is_long in batch
    ]
    requests = [decode_envelope(value) for value in values]
    together = spoken(*look(values, requests))
    assert together == [
        spoken(*look([value], [request]))[0]
        for value, request in zip(values, requests, strict=True)
    ]


def test_what_follows_an_unreadable_text_is_decoded() -> None:
    """One after the other, at both ends, and nothing else: each error stands at its place."""
    texts = [b"{", b"1", b"nul", b"x", b"2", b'"\xff"', b"3", b"["]
    decoded, errors = decode_each(msgspec.json.decode, texts)
    assert decoded == [1, 2, 3]
    assert sorted(errors) == [0, 2, 3, 5, 7]
    assert all(isinstance(error, UNREADABLE) for error in errors.values())
    assert decode_each(msgspec.json.decode, []) == ([], {})


def test_an_unreadable_text_keeps_nothing_in_memory() -> None:
    """An error that held the call that raised it would hold the whole batch until a collection."""
    gc.disable()
    try:
        decoded, errors = decode_each(msgspec.json.Decoder(type=_Kept).decode, [b"{}", b"{"])
        kept = weakref.ref(decoded[0])
        del decoded, errors
        assert kept() is None
    finally:
        gc.enable()
