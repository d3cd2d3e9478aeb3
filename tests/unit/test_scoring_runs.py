"""Rows on which the model raises: they alone are rejected, and are found in few, small runs."""

from collections.abc import Mapping, Sequence

import pytest
from example_contracts import (
    INPUTS,
    Arithmetic,
    answers,
    loaded,
    request,
    snapshot_of,
)
from hypothesis import given
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
