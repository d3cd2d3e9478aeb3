"""When an answer counts as the same, and what is named where it is not."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given as draws
from hypothesis import strategies as st

from audit.verdicts import (
    Compared,
    Fault,
    Outcome,
    What,
    compare_forecast,
    compare_kinds,
    compare_rejection,
    with_faults,
)
from schemas.forecast import Forecast, Source, Variant, encode_forecast
from schemas.manifest import Tolerance
from schemas.rejection import Reason, Rejection

HERE, ELSEWHERE = "onnxruntime 1.31.1 x86_64-avx512", "onnxruntime 1.31.1 x86_64-avx2"
TOLERANCE = Tolerance(absolute=1e-3, relative=1e-3)
SAID = Forecast(
    request_id="r-1",
    inputs=msgspec.Raw(b'{"item": "a"}'),
    outputs={"units": 12.5, "known": 1, "flag": True},
    model="sales",
    version=2,
    digest="sha256:" + "2" * 64,
    variant=Variant.CHAMPION,
    revision=7,
    source=Source("sales.requests", 3, 1042, 1_700_000_000_000),
    scored_at=datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC),
    instance="modelwire-sales-0",
    runtime=HERE,
)
NO = Rejection(
    reason=Reason.WRONG_TYPE,
    detail="units: expected a number",
    model="sales",
    version=2,
    variant="champion",
    digest=SAID.digest,
    revision=7,
    source=SAID.source,
    instance="modelwire-sales-0",
    runtime=HERE,
)


def again(**changes: Any) -> Forecast:
    """What came out here, under another instance's name and at another time."""
    other = {"instance": "", "scored_at": datetime(1970, 1, 1, tzinfo=UTC), "runtime": HERE}
    return msgspec.structs.replace(SAID, **other, **changes)


def compare(given: Forecast, derived: Forecast, runtime: str = HERE) -> Compared:
    return compare_forecast(encode_forecast(given), given, derived, TOLERANCE, runtime)


def whats(compared: Compared) -> list[What]:
    return [fault.what for fault in compared.faults]


def test_the_same_bytes_are_identical_whoever_derived_them() -> None:
    """Time, instance and runtime are of the deriving, not of the answer; also on another runtime."""
    for runtime in (HERE, ELSEWHERE):
        assert compare(SAID, again(), runtime) == Compared(Outcome.IDENTICAL)


@pytest.mark.parametrize("units", [12.500000000000002, 12.500001, 13.0])
def test_one_bit_differs_on_the_same_runtime(units: float) -> None:
    """There is no tolerance where the numeric class is the same."""
    compared = compare(SAID, again(outputs=SAID.outputs | {"units": units}))
    assert compared.outcome is Outcome.DIFFERS
    assert whats(compared) == [What.OUTPUTS]
    assert HERE in compared.faults[0].why
    assert compared.difference == units - 12.5


def test_the_tolerance_holds_on_another_runtime_and_is_left_beyond_it() -> None:
    """absolute + relative × |given| = 0.0135 here."""
    near = compare(SAID, again(outputs=SAID.outputs | {"units": 12.513}), ELSEWHERE)
    assert (near.outcome, near.faults) == (Outcome.WITHIN_TOLERANCE, ())
    assert near.difference == pytest.approx(0.013)
    far = compare(SAID, again(outputs=SAID.outputs | {"units": 12.514}), ELSEWHERE)
    assert (far.outcome, whats(far)) == (Outcome.DIFFERS, [What.OUTPUTS])
    assert HERE in far.faults[0].why
    assert ELSEWHERE in far.faults[0].why


def test_an_answer_of_an_unknown_runtime_is_compared_by_tolerance() -> None:
    """Answers of before said nothing of it."""
    old = msgspec.structs.replace(SAID, runtime="")
    near = compare(old, again(outputs=SAID.outputs | {"units": 12.501}))
    assert near.outcome is Outcome.WITHIN_TOLERANCE


@pytest.mark.parametrize(
    "outputs", [{"known": 2}, {"flag": False}, {"more": 1.0}, {"units": 12}, {"known": 1.0}]
)
def test_what_is_no_float_must_be_equal_everywhere(outputs: dict[str, Any]) -> None:
    """Counts, flags, names, and a float that became a whole number."""
    compared = compare(SAID, again(outputs=SAID.outputs | outputs), ELSEWHERE)
    assert (compared.outcome, whats(compared)) == (Outcome.DIFFERS, [What.OUTPUTS])


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 1},
        {"variant": Variant.CANDIDATE},
        {"digest": "sha256:" + "3" * 64},
        {"model": "other"},
    ],
)
def test_another_route_is_a_fault_of_routing_whatever_the_outputs_are(
    changes: dict[str, Any],
) -> None:
    """No runtime routes otherwise."""
    compared = compare(SAID, again(**changes), ELSEWHERE)
    assert (compared.outcome, whats(compared)) == (Outcome.DIFFERS, [What.ROUTING])


def test_bytes_that_no_forecast_has_are_a_fault_of_the_row() -> None:
    """A key that was added, or a space."""
    spaced = encode_forecast(SAID).replace(b'"model":', b'"model": ')
    compared = compare_forecast(spaced, SAID, again(), TOLERANCE, HERE)
    assert (compared.outcome, whats(compared)) == (Outcome.DIFFERS, [What.ROW])


def test_a_rejection_is_the_same_for_the_same_reason_and_sentence() -> None:
    """Its version, too."""
    assert compare_rejection(NO, NO).outcome is Outcome.IDENTICAL
    for changes, what in (
        ({"reason": Reason.OUT_OF_RANGE}, What.REJECTION),
        ({"detail": "units: expected a float"}, What.REJECTION),
        ({"version": 0, "variant": "", "digest": ""}, What.ROUTING),
    ):
        compared = compare_rejection(NO, msgspec.structs.replace(NO, **changes))
        assert (compared.outcome, whats(compared)) == (Outcome.DIFFERS, [what])


def test_of_a_failed_model_the_reason_alone_is_compared() -> None:
    """A runtime's sentence can name a row of the batch."""
    failed = msgspec.structs.replace(NO, reason=Reason.MODEL_FAILED, detail="row 17 of 64")
    compared = compare_rejection(failed, msgspec.structs.replace(failed, detail="row 0 of 64"))
    assert compared.outcome is Outcome.IDENTICAL
    assert compared.note


@draws(st.text(max_size=600))
def test_a_sentence_survives_its_way_through_headers(detail: str) -> None:
    """What a header cannot hold is lost on both sides alike."""
    from schemas.rejection import read_rejection, rejection_headers

    derived = msgspec.structs.replace(NO, detail=detail)
    assert compare_rejection(read_rejection(rejection_headers(derived)), derived) == Compared(
        Outcome.IDENTICAL
    )


def test_a_forecast_that_is_rejected_now_differs_and_so_does_the_reverse() -> None:
    """Each says what it was and what it is."""
    was = compare_kinds(SAID, NO)
    assert (was.outcome, whats(was)) == (Outcome.DIFFERS, [What.OUTPUTS])
    assert "wrong-type" in was.faults[0].why
    now = compare_kinds(NO, SAID)
    assert (now.outcome, whats(now)) == (Outcome.DIFFERS, [What.REJECTION])
    assert "12.5" in now.faults[0].why


def test_an_answer_with_a_fault_differs_whatever_else_agrees() -> None:
    """And keeps what was found of it besides."""
    fault = Fault(What.ROW, "its file was altered")
    assert with_faults(Compared(Outcome.IDENTICAL), [fault]) == Compared(Outcome.DIFFERS, (fault,))
    assert with_faults(Compared(Outcome.IDENTICAL), []) == Compared(Outcome.IDENTICAL)
    both = with_faults(compare(SAID, again(version=1)), [fault])
    assert whats(both) == [What.ROW, What.ROUTING]
