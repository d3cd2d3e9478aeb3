"""Rows on which the model raises, or for which its outputs are wrong.

They alone are rejected, and are found in few, small runs.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest
from example_contracts import (
    INPUTS,
    Arithmetic,
    answers,
    loaded,
    request,
    snapshot_of,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.rejection import Reason
from scoring.batch import Answer, ForecastAnswer, RejectionAnswer
from scoring.model import Array


def reason_of(given_answer: Answer) -> str | None:
    """The reason in a rejection; None for a forecast."""
    return given_answer.rejection.reason if isinstance(given_answer, RejectionAnswer) else None


def good(number: int) -> bytes:
    """A request that is answered; its store depends on ``number``."""
    return request({**INPUTS, "store": f"s{number}", "price": number / 3})


BAD = request({**INPUTS, "store": "bad"})


def test_one_bad_row_among_many_is_found_in_few_runs() -> None:
    """An eighth, an eighth of that, and so on; only the first and the last run are padded."""
    model = Arithmetic()
    values = [good(number) for number in range(500)]
    values[100] = BAD
    found = [reason_of(each) for each in answers(snapshot_of(loaded(model)), values)]
    assert found == [Reason.MODEL_FAILED if place == 100 else None for place in range(500)]
    assert (model.sizes[0], model.sizes[-1]) == (512, 512)
    assert len(model.sizes) <= 2 + 3 * 8
    assert sum(model.sizes[1:-1]) <= 500 + 63 + 8


def test_rows_that_are_all_bad_are_run_alone_and_not_padded() -> None:
    """A flood of them never makes runs of 64 rows for one: that was half a millisecond a row."""
    model = Arithmetic()
    found = answers(snapshot_of(loaded(model)), [BAD] * 512)
    assert {reason_of(each) for each in found} == {Reason.MODEL_FAILED}
    assert model.sizes == [512] + [64] * 8 + [1] * 512


class Jealous(Arithmetic):
    """A model that runs each row alone, and not together with some others."""

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        """As Arithmetic, unless "s1" and "s2" are both there."""
        if {"s1", "s2"} <= set(feeds["store"]):
            raise RuntimeError("one of us has to go")
        return super().run(feeds, outputs)


def test_rows_that_fail_only_together_are_answered_apart() -> None:
    """Where no row is at fault alone, none is rejected, and every run that answers is padded."""
    model = Jealous()
    values = [good(number) for number in range(4)] * 20
    together = answers(snapshot_of(loaded(model)), values)
    apart = [answers(snapshot_of(loaded(model)), [value])[0] for value in values[:4]]
    for place, each in enumerate(together):
        alone = apart[place % 4]
        assert isinstance(each, ForecastAnswer)
        assert isinstance(alone, ForecastAnswer)
        outputs = each.value.split(b'"outputs"')[1].split(b"}")[0]
        assert outputs in alone.value


class Exhausted(Arithmetic):
    """A model that fails on a batch, and runs out of memory on less."""

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        """Raises."""
        raise RuntimeError if len(feeds["store"]) % 64 == 0 else MemoryError


def test_memory_that_runs_out_in_the_search_is_nobodys_fault() -> None:
    """The caller hears of it, and no row is blamed."""
    with pytest.raises(MemoryError):
        answers(snapshot_of(loaded(Exhausted())), [good(1), good(2)])


@given(st.lists(st.booleans(), max_size=150))
def test_bad_rows_anywhere_are_the_only_ones_rejected(is_bad: list[bool]) -> None:
    """Whatever the mixture: each bad row is rejected, each other one answered as if alone."""
    values = [BAD if bad else good(number) for number, bad in enumerate(is_bad)]
    serving = snapshot_of(loaded(Arithmetic()))
    for number, (bad, each) in enumerate(zip(is_bad, answers(serving, values), strict=True)):
        assert (reason_of(each) == Reason.MODEL_FAILED) is bad
        if not bad:
            assert isinstance(each, ForecastAnswer)
            (alone,) = answers(serving, [good(number)])
            assert isinstance(alone, ForecastAnswer)
            assert each.value.split(b',"source"')[0] == alone.value.split(b',"source"')[0]


DROPPED = request({**INPUTS, "store": "dropped"})


class Dropping(Arithmetic):
    """A model that gives no output for the store "dropped"."""

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        """As Arithmetic, but for the rows left out."""
        kept = feeds["store"] != "dropped"
        return [array[kept] for array in super().run(feeds, outputs)]


def detail_of(given_answer: Answer) -> str:
    """The detail of an answer that must be a rejection."""
    assert isinstance(given_answer, RejectionAnswer), given_answer
    return given_answer.rejection.detail


def outputs_of(given_answer: Answer) -> bytes:
    """The outputs in an answer that must be a forecast."""
    assert isinstance(given_answer, ForecastAnswer), given_answer
    return given_answer.value.split(b'"outputs"')[1].split(b"}")[0]


@pytest.mark.parametrize(
    "bad", [(0,), (250,), (499,), (0, 1, 499), (7, 70, 300), tuple(range(499))]
)
def test_rows_that_the_model_leaves_out_are_the_only_ones_rejected(bad: tuple[int, ...]) -> None:
    """The last row is what the padding repeats, so leaving it out makes 13 outputs too few."""
    values = [DROPPED if number in bad else good(number) for number in range(500)]
    for number, each in enumerate(answers(snapshot_of(loaded(Dropping())), values)):
        if number in bad:
            assert reason_of(each) == Reason.MODEL_FAILED
            assert "this row: output 'units': tensor 'units' has shape [0, 1]" in detail_of(each)
        else:
            (alone,) = answers(snapshot_of(loaded(Arithmetic())), [good(number)])
            assert outputs_of(each) == outputs_of(alone)


def test_one_row_that_is_left_out_is_found_in_few_runs() -> None:
    """One eighth shows that the outputs are not always wrong; then it is as for a row that raises."""
    model = Dropping()
    values = [good(number) for number in range(500)]
    values[100] = DROPPED
    answers(snapshot_of(loaded(model)), values)
    assert (model.sizes[0], model.sizes[-1]) == (512, 512)
    assert len(model.sizes) <= 3 + 3 * 8
    assert sum(model.sizes[1:-1]) <= 63 + 500 + 63 + 2 * 8


def test_rows_that_are_all_left_out_are_not_run_one_by_one() -> None:
    """Nothing comes out, of each eighth as of its first row alone: no row is looked for."""
    model = Dropping()
    found = answers(snapshot_of(loaded(model)), [DROPPED] * 512)
    assert {reason_of(each) for each in found} == {Reason.MODEL_FAILED}
    assert model.sizes == [512] + [64] * 16


class Misshapen(Arithmetic):
    """A model whose first output is always as ``bend`` makes it."""

    def __init__(self, bend: Callable[[Array], Array]) -> None:
        super().__init__()
        self._bend = bend

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        """As Arithmetic, with the first output bent."""
        first, *others = super().run(feeds, outputs)
        return [self._bend(first), *others]


@pytest.mark.parametrize(
    "bend",
    [
        lambda units: units.astype(np.float64),
        lambda units: np.hstack([units, units]),
        lambda units: units.reshape(1, -1),
        lambda units: units[1:],
        lambda units: np.vstack([units, units[:1]]),
        lambda units: units.repeat(2, axis=0),
        lambda units: units[:1],
        lambda units: units[:0],
        lambda units: units.sum(keepdims=False),
    ],
    ids=["type", "width", "turned", "shorter", "longer", "double", "single", "empty", "scalar"],
)
@pytest.mark.parametrize("count", [9, 300, 512])
def test_a_tensor_that_is_always_wrong_costs_16_runs_a_batch(
    bend: Callable[[Array], Array], count: int
) -> None:
    """All rows are rejected, and none is run alone."""
    model = Misshapen(bend)
    found = answers(snapshot_of(loaded(model)), [good(number) for number in range(count)])
    assert {reason_of(each) for each in found} == {Reason.MODEL_FAILED}
    assert {"units" in detail_of(each) for each in found} == {True}
    assert len(model.sizes) <= 1 + 16
    assert sum(model.sizes[1:]) <= 2 * count + 2


class Squeezing(Dropping):
    """A model with a Squeeze that names no axis: a single row's output has no dimension left."""

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        """As Dropping, without dimensions of 1."""
        return [array.squeeze() for array in super().run(feeds, outputs)]


def test_a_row_is_not_at_fault_because_it_is_alone() -> None:
    """What a Squeeze does to a single row is not held against it."""
    values = [DROPPED if number % 2 else good(number) for number in range(100)]
    found = [reason_of(each) for each in answers(snapshot_of(loaded(Squeezing())), values)]
    assert found == [Reason.MODEL_FAILED if number % 2 else None for number in range(100)]


class Rivals(Arithmetic):
    """A model that leaves out a row where two certain others are both there."""

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        """As Arithmetic, and one output less if "s1" and "s2" are both there."""
        less = {"s1", "s2"} <= set(feeds["store"])
        return [array[less:] for array in super().run(feeds, outputs)]


def test_rows_that_give_too_little_only_together_are_answered_apart() -> None:
    """Where no row's output is wrong alone, none is rejected."""
    found = answers(snapshot_of(loaded(Rivals())), [good(number) for number in range(100)])
    assert {reason_of(each) for each in found} == {None}


@settings(deadline=None)
@given(st.lists(st.sampled_from(["good", "dropped", "bad"]), max_size=150))
def test_rows_left_out_anywhere_change_nobody_elses_answer(kinds: list[str]) -> None:
    """Rows left out and rows that raise, in any mixture: the others are answered as if alone."""
    values = [
        good(number) if kind == "good" else request({**INPUTS, "store": kind})
        for number, kind in enumerate(kinds)
    ]
    serving = snapshot_of(loaded(Dropping()))
    for number, (kind, each) in enumerate(zip(kinds, answers(serving, values), strict=True)):
        assert (reason_of(each) == Reason.MODEL_FAILED) is (kind != "good")
        if kind == "good":
            (alone,) = answers(serving, [good(number)])
            assert outputs_of(each) == outputs_of(alone)
