"""The batch: one answer a request, in order, and a bad row pays for itself only."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
import numpy as np
import pytest
from example_contracts import (
    INPUTS,
    NOON,
    SALES,
    Arithmetic,
    answers,
    incoming,
    loaded,
    request,
    snapshot_of,
)
from hypothesis import given
from hypothesis import strategies as st

from deployment.routing import bucket, route
from schemas.forecast import Forecast, Source, Variant, decode_forecast
from schemas.rejection import MAX_DETAIL_LENGTH, Reason
from scoring.batch import Answer, ForecastAnswer, Incoming, RejectionAnswer, answer, shadow_answers
from scoring.model import Array
from scoring.snapshot import LoadedVersion, Shadow, Snapshot

SERVING = snapshot_of(loaded(Arithmetic()))

POISON: dict[str, tuple[bytes | None, Reason]] = {
    "no value": (None, Reason.TOMBSTONE),
    "empty": (b"", Reason.EMPTY),
    "not JSON": (b"{", Reason.NOT_JSON),
    "nested": (b'{"request_id":"a","inputs":%s}' % (b"[" * 2_000), Reason.TOO_DEEP),
    "too large": (b" " * 5_000, Reason.TOO_LARGE),
    "wrong type": (request({**INPUTS, "promo": 1}), Reason.WRONG_TYPE),
    "twice": (request(b'{"promo":true,' + msgspec.json.encode(INPUTS)[1:]), Reason.DUPLICATE_KEY),
    "out of horizon": (request({**INPUTS, "day": "2018-01-01"}), Reason.OUTSIDE_HORIZON),
    "fails in the model": (request({**INPUTS, "store": "bad"}), Reason.MODEL_FAILED),
    "endless": (request({**INPUTS, "store": "endless"}), Reason.NOT_FINITE),
}


def forecast_of(given_answer: Answer) -> Forecast:
    """The forecast in an answer that must be one."""
    assert isinstance(given_answer, ForecastAnswer), given_answer
    return decode_forecast(given_answer.value)


def reason_of(given_answer: Answer) -> str:
    """The reason in an answer that must be a rejection."""
    assert isinstance(given_answer, RejectionAnswer), given_answer
    return given_answer.rejection.reason


def good(number: int) -> bytes:
    """A request that is answered; its inputs depend on ``number``."""
    day = f"2017-08-{1 + number % 16:02}"
    return request(
        {**INPUTS, "store": f"s{number}", "day": day, "price": number / 3}, f"r-{number}"
    )


def test_a_forecast_says_where_it_comes_from() -> None:
    """Inputs, version, revision, source, time and instance all stand in the answer."""
    raw = b'{ "store":"s1","day":"2017-08-03",\n"promo":true,"price":2.50 }'
    (only,) = answer(
        SERVING,
        [incoming(request(raw), offset=77)],
        scored_at=NOON,
        instance="sales-0",
        runtime="a runtime",
        max_answer_bytes=10_000,
    )
    forecast = forecast_of(only)
    assert only.incoming.offset == 77
    assert bytes(forecast.inputs) == raw
    assert msgspec.structs.replace(forecast, inputs=msgspec.Raw(b"")) == Forecast(
        request_id="r-1",
        inputs=msgspec.Raw(b""),
        outputs={"units": 29.0, "lucky": True},
        model="sales",
        version=1,
        digest=SERVING.champion.digest,
        variant=Variant.CHAMPION,
        revision=5,
        source=Source("sales.requests", 3, 77, 1_500_000_000_000),
        scored_at=NOON,
        instance="sales-0",
        runtime="a runtime",
    )


@pytest.mark.parametrize("case", POISON)
def test_a_bad_request_is_rejected_with_its_reason(case: str) -> None:
    """Whatever is wrong with a request, its answer is a rejection that says what."""
    value, reason = POISON[case]
    (only,) = answers(SERVING, [value])
    assert reason_of(only) == reason


@pytest.mark.parametrize("case", POISON)
def test_a_rejection_names_the_version_once_it_is_routed(case: str) -> None:
    """Before routing a rejection names no version; after it, the version and its variant."""
    value, reason = POISON[case]
    (only,) = answers(SERVING, [value])
    assert isinstance(only, RejectionAnswer)
    rejection = only.rejection
    early = {Reason.TOMBSTONE, Reason.EMPTY, Reason.NOT_JSON, Reason.TOO_DEEP, Reason.TOO_LARGE}
    named = (rejection.version, rejection.variant, rejection.digest)
    assert named == ((0, "", "") if reason in early else (1, "champion", SERVING.champion.digest))
    assert (rejection.revision, rejection.model, rejection.instance) == (5, "sales", "sales-0")
    assert rejection.source == Source("sales.requests", 3, 0, 1_500_000_000_000)
    assert 0 < len(rejection.detail) <= MAX_DETAIL_LENGTH


slots = st.lists(st.integers(0, 999) | st.sampled_from(sorted(POISON)), min_size=0, max_size=150)


@given(slots)
def test_poison_changes_nobody_elses_answer(batch: list[int | str]) -> None:
    """Order and length are kept, bad rows are rejected, and the rest answer as if alone."""
    values = [good(slot) if isinstance(slot, int) else POISON[slot][0] for slot in batch]
    given_answers = answers(SERVING, values)
    assert [each.incoming.offset for each in given_answers] == list(range(len(batch)))
    for offset, (slot, each) in enumerate(zip(batch, given_answers, strict=True)):
        if isinstance(slot, str):
            assert reason_of(each) == POISON[slot][1]
            continue
        assert isinstance(each, ForecastAnswer)
        (alone,) = answer(
            SERVING,
            [incoming(values[offset], offset=offset)],
            scored_at=NOON,
            instance="sales-0",
            max_answer_bytes=10_000,
        )
        assert isinstance(alone, ForecastAnswer)
        assert each.value == alone.value


@given(st.lists(st.none() | st.binary(max_size=60), max_size=20))
def test_no_bytes_raise(values: list[bytes | None]) -> None:
    """Any bytes as values get one answer each."""
    inner = [b'{"request_id":"a","inputs":%s}' % value for value in values if value is not None]
    assert len(answers(SERVING, [*values, *inner])) == len(values) + len(inner)


def test_an_empty_batch_has_no_answers() -> None:
    """Nothing in, nothing out, and the model is not run."""
    model = Arithmetic()
    assert answers(snapshot_of(loaded(model)), []) == []
    assert model.sizes == []


class Broken:
    """A model that gives what ``outcome`` is, or raises it."""

    def __init__(self, outcome: Any) -> None:
        self.outcome = outcome

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        """``outcome``, whatever the feeds."""
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return list(self.outcome)


@pytest.mark.parametrize(
    "outcome",
    [
        [],
        [np.zeros(64)],
        [np.zeros(64, np.float32), np.zeros(3, bool)],
        [np.zeros((64, 2), np.float32), np.zeros(64, bool)],
        ValueError("x" * 5_000),
    ],
)
def test_a_model_that_breaks_its_contract_rejects_all_its_rows(outcome: Any) -> None:
    """Wrong tensors and constant failure end in one rejection a row."""
    given_answers = answers(snapshot_of(loaded(Broken(outcome))), [good(1), good(2), None])
    assert [reason_of(each) for each in given_answers] == [
        Reason.MODEL_FAILED,
        Reason.MODEL_FAILED,
        Reason.TOMBSTONE,
    ]
    for each in given_answers:
        assert isinstance(each, RejectionAnswer)
        assert 0 < len(each.rejection.detail) <= MAX_DETAIL_LENGTH


@pytest.mark.parametrize("trouble", [MemoryError(), KeyboardInterrupt()])
def test_trouble_of_the_process_is_not_blamed_on_a_row(trouble: BaseException) -> None:
    """Out of memory or interrupted, no request is rejected: the caller must hear of it."""
    with pytest.raises(type(trouble)):
        answers(snapshot_of(loaded(Broken(trouble))), [good(1)])


def test_an_answer_over_the_limit_becomes_a_rejection() -> None:
    """A forecast of exactly the limit is given; one byte less room, and it is rejected."""
    (whole,) = answers(SERVING, [good(1)])
    assert isinstance(whole, ForecastAnswer)
    size = len(whole.value)
    assert answers(SERVING, [good(1)], limit=size) == [whole]
    (cut,) = answers(SERVING, [good(1)], limit=size - 1)
    assert reason_of(cut) == Reason.ANSWER_TOO_LARGE
    assert isinstance(cut, RejectionAnswer)
    assert cut.rejection.version == 1


def test_a_clock_without_a_zone_is_a_bug_of_the_caller() -> None:
    """``scored_at`` must know its zone."""
    with pytest.raises(ValueError, match="time zone"):
        answer(SERVING, [], scored_at=datetime(2026, 1, 1), instance="i", max_answer_bytes=1)


NARROW = msgspec.structs.replace(SALES, fields=SALES.fields[:2], max_request_bytes=150)


class Constant:
    """A model for NARROW that always gives 1."""

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        """Ones."""
        count = len(feeds["day"])
        given_tensors = {"units": np.ones(count, np.float32), "lucky": np.ones(count, bool)}
        return [given_tensors[name] for name in outputs]


def rolling(weight: int) -> Snapshot:
    """A rollout of a candidate with another contract."""
    candidate = loaded(Constant(), version=2, contract=NARROW)
    return snapshot_of(loaded(Arithmetic()), candidate, weight)


@pytest.mark.parametrize("weight", [0, 1, 5_000, 10_000])
def test_each_request_is_answered_by_the_variant_that_it_is_routed_to(weight: int) -> None:
    """Variant, version and digest in the answer are those of the routing; contracts may differ."""
    serving = rolling(weight)
    wide = [good(number) for number in range(100)]
    narrow = [request({"store": "s", "day": "2017-08-03"}) for _ in range(100)]
    for each in answers(serving, wide) + answers(serving, narrow):
        key = each.incoming.key
        variant = route(serving.routing, key, "")
        version = 2 if variant is Variant.CANDIDATE else 1
        takes_narrow = b"promo" not in (each.incoming.value or b"")
        if takes_narrow is (variant is Variant.CANDIDATE):
            forecast = forecast_of(each)
            assert (forecast.variant, forecast.version) == (variant, version)
        else:
            assert isinstance(each, RejectionAnswer)
            assert (each.rejection.variant, each.rejection.version) == (variant, version)
            missing = Reason.MISSING_FIELD if variant is Variant.CHAMPION else Reason.UNKNOWN_FIELD
            assert each.rejection.reason == missing


def test_a_request_without_a_key_is_routed_by_its_id() -> None:
    """Ids stand in for keys that are not there."""
    serving = rolling(5_000)
    batch = [incoming(good(number), offset=number, key=None) for number in range(50)]
    given_answers = answer(serving, batch, scored_at=NOON, instance="i", max_answer_bytes=10_000)
    variants = [
        forecast_of(each).variant if isinstance(each, ForecastAnswer) else each.rejection.variant
        for each in given_answers
    ]
    assert variants == [route(serving.routing, None, f"r-{number}") for number in range(50)]
    assert set(variants) == {"champion", "candidate"}


def test_the_size_limit_is_that_of_the_version_that_answers() -> None:
    """The wider of two limits lets the envelope in; the routed version's own limit decides."""
    blank = request({"store": "s", "day": "2017-08-03"}) + b" " * 150
    (only,) = answers(rolling(10_000), [blank])
    assert reason_of(only) == Reason.TOO_LARGE
    assert isinstance(only, RejectionAnswer)
    assert only.rejection.version == 2


@pytest.mark.parametrize(
    ("champion", "candidate", "weight", "named"),
    [(2, None, 0, (1, None)), (1, 3, 0, (1, 2)), (1, 2, 0, (1, None)), (1, None, 1, (1, 2))],
)
def test_a_snapshot_holds_the_versions_that_its_routing_names(
    champion: int, candidate: int | None, weight: int, named: tuple[int, int | None]
) -> None:
    """A snapshot that could not answer what the routing asks for cannot be made."""
    routing = msgspec.convert(
        {"champion": named[0], "candidate": named[1], "weight": weight, "salt": "s"},
        type(SERVING.routing),
    )
    with pytest.raises(ValueError, match=r"routing names|not loaded"):
        Snapshot(
            "sales",
            1,
            "",
            routing,
            loaded(Arithmetic(), version=champion),
            None if candidate is None else loaded(Arithmetic(), version=candidate),
        )


def shadowed(snapshot: Snapshot, shadow: Shadow, batch: Sequence[Incoming]) -> list[Answer]:
    """What the shadow says to the batch."""
    return shadow_answers(
        snapshot, shadow, batch, scored_at=NOON, instance="sales-0", max_answer_bytes=10_000
    )


def shadow_of(version: LoadedVersion, share: int = 10_000, salt: str = "dark") -> Shadow:
    """A shadow of rollout 4."""
    return Shadow(4, salt, share, version)


@given(slots)
def test_a_shadow_says_what_it_would_say_as_champion(batch: list[int | str]) -> None:
    """Only the variant differs; a request that is none has no shadow answer."""
    version = loaded(Arithmetic(), version=2)
    requests = [
        incoming(good(slot) if isinstance(slot, int) else POISON[slot][0], offset=offset)
        for offset, slot in enumerate(batch)
    ]
    as_champion = {
        each.incoming.offset: each
        for each in answer(
            snapshot_of(version),
            requests,
            scored_at=NOON,
            instance="sales-0",
            max_answer_bytes=10_000,
        )
    }
    given_answers = shadowed(SERVING, shadow_of(version), requests)
    for each in given_answers:
        same = as_champion.pop(each.incoming.offset)
        if isinstance(each, ForecastAnswer):
            forecast = msgspec.structs.replace(forecast_of(same), variant=Variant.SHADOW)
            assert forecast_of(each) == forecast
            assert each.variant is Variant.SHADOW
        else:
            assert isinstance(same, RejectionAnswer)
            assert each.rejection == msgspec.structs.replace(same.rejection, variant=Variant.SHADOW)
    assert [each.incoming.offset for each in given_answers] == sorted(
        each.incoming.offset for each in given_answers
    )
    left = [each for each in as_champion.values() if isinstance(each, RejectionAnswer)]
    assert [each.rejection.version for each in left] == [0] * len(as_champion)


@pytest.mark.parametrize("share", [0, 1, 2_000, 9_999, 10_000])
def test_a_shadow_scores_the_keys_below_its_share(share: int) -> None:
    """By the hash of the routing, under its own salt; a request without a key goes by its id."""
    keys = [None if number % 3 == 0 else b"k%d" % number for number in range(300)]
    batch = [incoming(good(n), offset=n, key=key) for n, key in enumerate(keys)]
    shadow = shadow_of(loaded(Arithmetic(), version=2), share)
    scored = [each.incoming.offset for each in shadowed(SERVING, shadow, batch)]
    assert scored == [
        number
        for number, key in enumerate(keys)
        if bucket("dark", b"r-%d" % number if key is None else key) < share
    ]


@pytest.mark.parametrize("weight", [0, 1, 3_000, 10_000])
def test_what_a_canary_answers_is_not_shadowed_by_the_same_version(weight: int) -> None:
    """Candidate and shadow of one rollout share the keys between them; another version takes all."""
    candidate = loaded(Arithmetic(), version=2)
    serving = snapshot_of(loaded(Arithmetic()), candidate, weight)
    batch = [incoming(good(number), offset=number, key=b"k%d" % number) for number in range(200)]
    own = {each.incoming.offset for each in shadowed(serving, shadow_of(candidate), batch)}
    routed = answer(serving, batch, scored_at=NOON, instance="i", max_answer_bytes=10_000)
    assert own == {
        each.incoming.offset
        for each in routed
        if isinstance(each, ForecastAnswer) and each.variant is Variant.CHAMPION
    }
    other = shadow_of(loaded(Arithmetic(), version=3))
    assert len(shadowed(serving, other, batch)) == len(batch)


def test_a_shadows_own_contract_decides_what_it_can_answer() -> None:
    """A request for the champion's contract is one more rejection of a shadow that has another."""
    narrow = shadow_of(loaded(Constant(), version=2, contract=NARROW))
    blank = request({"store": "s", "day": "2017-08-03"}) + b" " * 150
    requests = [incoming(good(1)), incoming(request({"store": "s", "day": "2017-08-03"}), offset=1)]
    wide, fitting, large = shadowed(SERVING, narrow, [*requests, incoming(blank, offset=2)])
    assert reason_of(wide) == Reason.UNKNOWN_FIELD
    assert (forecast_of(fitting).version, forecast_of(fitting).revision) == (2, 5)
    assert reason_of(large) == Reason.TOO_LARGE
    assert isinstance(large, RejectionAnswer)
    assert (large.rejection.version, large.rejection.variant) == (2, "shadow")
