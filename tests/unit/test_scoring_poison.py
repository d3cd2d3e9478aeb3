"""Each named class of bad request has its reason, and touches nobody else's answer."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import onnxruntime as ort
import pytest
from example_contracts import NOON, incoming, loaded, snapshot_of
from hypothesis import example, given, settings
from hypothesis import strategies as st

from consumer.outgoing import rejection_record
from schemas.forecast import decode_forecast
from schemas.rejection import ENVELOPE_HEADER, Reason, read_rejection
from scoring.batch import Answer, ForecastAnswer, RejectionAnswer, answer
from scoring.model import Array
from tests.poison import GOOD, POISON, Good, Poison, envelope, inputs, request
from tests.poison_bundle import contract, graph

RECORD_LIMIT = 1_000_000


class Shelves:
    """The bundle's model on the real runtime, on one thread as consumers run it."""

    def __init__(self) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 4  # the rows that it fails on are meant
        self._session = ort.InferenceSession(graph(), options)

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        """The outputs for ``feeds``."""
        given_back: list[Array] = self._session.run(list(outputs), dict(feeds))
        return given_back


SERVING = snapshot_of(loaded(Shelves(), contract=contract()))


def answers(values: Sequence[bytes | None]) -> list[Answer]:
    """The answers to ``values`` as one batch, at offsets 0, 1, 2 …"""
    batch = [incoming(value, offset=offset) for offset, value in enumerate(values)]
    return answer(SERVING, batch, scored_at=NOON, instance="sales-0", max_answer_bytes=RECORD_LIMIT)


def bits(given_answer: Answer) -> bytes:
    """The outputs of a forecast, to the bit."""
    assert isinstance(given_answer, ForecastAnswer), given_answer
    return msgspec.msgpack.encode(decode_forecast(given_answer.value).outputs)


def test_the_classes_have_names_of_their_own_and_every_reason_has_one() -> None:
    """No class hides another; only what no request can bring about is missing."""
    names = Counter(each.name for each in (*POISON, *GOOD))
    assert len(POISON) >= 25
    assert set(names.values()) == {1}
    elsewhere = {Reason.MODEL_CRASH, Reason.ANSWER_TOO_LARGE}
    assert {each.reason for each in POISON} == set(Reason) - elsewhere


@pytest.mark.parametrize("poison", POISON, ids=lambda each: each.name)
def test_poison_is_rejected_with_its_reason_and_keeps_its_bytes(poison: Poison) -> None:
    """The reason is the class's own, a sentence says more, and the record holds the very bytes."""
    value = poison.make(7)
    (only,) = answers([value])
    assert isinstance(only, RejectionAnswer), only
    assert only.rejection.reason == poison.reason, only.rejection.detail
    assert only.rejection.detail
    record = rejection_record(only, RECORD_LIMIT)
    assert read_rejection(record.headers) == only.rejection
    is_enveloped = ENVELOPE_HEADER in dict(record.headers)
    assert is_enveloped == (not value)
    assert is_enveloped or record.value == value


@pytest.mark.parametrize("good", GOOD, ids=lambda each: each.name)
def test_what_only_looks_odd_is_answered(good: Good) -> None:
    """At the edge of what is admissible there is a forecast, which echoes the inputs."""
    value = good.make(7)
    (only,) = answers([value])
    assert isinstance(only, ForecastAnswer), only
    assert bytes(decode_forecast(only.value).inputs) in value


@pytest.mark.parametrize("number", [0, 1, 501])
def test_neighbours_answer_as_if_no_poison_lay_between_them(number: int) -> None:
    """With one of each class between good requests, every good answer has the bits that it has alone."""
    good = [request(number + place) for place in range(len(POISON) + 1)]
    mixed: list[bytes | None] = [good[0]]
    for poison, neighbour in zip(POISON, good[1:], strict=True):
        mixed += [poison.make(number), neighbour]
    found = answers(mixed)
    assert [each.incoming.offset for each in found] == list(range(len(mixed)))
    reasons = [each.rejection.reason for each in found if isinstance(each, RejectionAnswer)]
    assert reasons == [poison.reason for poison in POISON]
    alone = [bits(answers([value])[0]) for value in good]
    assert [bits(each) for each in found[::2]] == alone


DROPPED = request(0, shelf=b"-1")


@pytest.mark.parametrize("size", [2, 9, 64, 65, 200, 512])
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0], ids=["first", "middle", "last"])
def test_a_row_that_the_graph_drops_costs_its_neighbours_nothing(size: int, share: float) -> None:
    """One output is missing for the whole batch; its row is found, and the rest has its own bits."""
    place = round(share * (size - 1))
    values = [request(number) for number in range(size)]
    whole = [bits(each) for each in answers(values)]
    values[place] = DROPPED
    found = answers(values)
    dropped = found.pop(place)
    assert isinstance(dropped, RejectionAnswer)
    assert dropped.rejection.reason == Reason.MODEL_FAILED
    assert "'forecast' has shape [0]" in dropped.rejection.detail
    assert [bits(each) for each in found] == whole[:place] + whole[place + 1 :]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.sampled_from([request(1), request(6), DROPPED, request(0, shelf=b"99")]), max_size=200
    )
)
def test_rows_that_raise_and_rows_that_are_dropped_are_told_apart_in_one_batch(
    values: list[bytes],
) -> None:
    """Whatever the mixture, each request has the answer that it has alone."""
    alone = {value: answers([value])[0] for value in set(values)}
    for value, each in zip(values, answers(values), strict=True):
        if isinstance(alone[value], ForecastAnswer):
            assert bits(each) == bits(alone[value])
        else:
            assert isinstance(each, RejectionAnswer)
            assert each.rejection.reason == Reason.MODEL_FAILED


NEAR = [request(7), inputs(7), envelope(7, requested_at=b'"2011-12-09T10:00:00Z"')]
NEAR += [value for each in (*POISON, *GOOD) if (value := each.make(7)) and len(value) < 1_000]


@st.composite
def spoiled(draw: st.DrawFn) -> bytes:
    """A request, or nearly one, of which a part is cut out, doubled or replaced by any bytes."""
    value = draw(st.sampled_from(NEAR))
    first, last = sorted(draw(st.tuples(*[st.integers(0, len(value))] * 2)))
    other = draw(st.sampled_from(NEAR))
    put = draw(
        st.sampled_from([b"", value[first:last] * 2, b'"', b"null", b"\\", b"1e400", b"\xff"])
        | st.binary(max_size=8)
        | st.text(max_size=4).map(str.encode)
        | st.integers().map(lambda whole: b"%d" % whole)
        | st.just(other[first:last])
    )
    return value[:first] + put + value[last:]


def any_json() -> st.SearchStrategy[Any]:
    """Whatever JSON can hold."""
    scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
    keys = st.sampled_from(["request_id", "inputs", "requested_at", "units", "item"]) | st.text()
    return st.recursive(
        scalars, lambda inner: st.lists(inner) | st.dictionaries(keys, inner), max_leaves=10
    )


anything = (
    st.none()
    | st.binary(max_size=200)
    | spoiled()
    | any_json().map(msgspec.json.encode)
    | any_json().map(lambda value: envelope(1, inputs=msgspec.json.encode(value)))
    | st.text().map(lambda said: envelope(1, requested_at=msgspec.json.encode(said)))
)


@settings(max_examples=300, deadline=None)
@given(st.lists(anything, min_size=1, max_size=6))
@example([b'{"request_id":"a","inputs":%s,"requested_at":null}' % (b"[" * 997 + b"]" * 997)])
@example([b'{"request_id":"\\"","inputs":%s}' % (b"[" * levels) for levels in range(960, 1_000)])
def test_any_bytes_whatever_get_exactly_one_answer(values: list[bytes | None]) -> None:
    """No exception, one answer each in their order, and the good one behind them has its bits."""
    found = answers([*values, request(3)])
    assert [each.incoming.offset for each in found] == list(range(len(values) + 1))
    for value, each in zip(values, found, strict=False):
        if isinstance(each, RejectionAnswer):
            assert each.rejection.reason in set(Reason)
            record = rejection_record(each, RECORD_LIMIT)
            assert not value or record.value == value
        else:
            assert bytes(decode_forecast(each.value).inputs) in (value or b"")
    assert bits(found[-1]) == ALONE


ALONE = bits(answers([request(3)])[0])


@given(st.binary(max_size=30), st.integers(1, 4), st.booleans())
def test_a_doubled_key_is_found_wherever_it_stands(
    blanks: bytes, times: int, is_inner: bool
) -> None:
    """Blanks, escapes and quotes around it hide no doubled key; without one nothing is refused."""
    space = bytes(b" \t\r\n"[each % 4] for each in blanks)
    quotes = b'"%s"' % (b'\\"' * times)
    plain = inputs(1, item=quotes)
    doubled = b"{%s" % space + b'"it\\u0065m"%s:%s%s,' % (space, space, quotes) + plain[1:]
    whole = [
        envelope(1, inputs=plain, requested_at=b"null"),
        envelope(1, inputs=doubled)
        if is_inner
        else b'{"request_id":%s,' % quotes + space + envelope(1, inputs=plain)[1:],
    ]
    kept, refused = answers(whole)
    assert isinstance(kept, ForecastAnswer)
    assert isinstance(refused, RejectionAnswer)
    assert refused.rejection.reason == Reason.DUPLICATE_KEY
    assert repr("item" if is_inner else "request_id") in refused.rejection.detail
