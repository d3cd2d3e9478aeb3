"""What is typical, and what each field does to one answer."""

import json
from typing import Any

import pytest
from example_contracts import INPUTS, SALES, Arithmetic, loaded
from hypothesis import given
from hypothesis import strategies as st

from audit.ablation import CannotExplain, ablate, typical_values

COLUMNS = {
    "store": ["s1", "s2", "s2", "s3"],
    "day": ["2017-08-04", "2017-08-01", "2017-08-03", "2017-08-02"],
    "promo": [True, False, False, True],
    "price": [None, 4.0, 1.0, 2.0],
    "stock": [None, None, None, 5],
}
TYPICAL = {"store": "s2", "day": "2017-08-02", "promo": False, "price": 2.0, "stock": None}


def explained(inputs: dict[str, Any], typical: dict[str, Any] = TYPICAL) -> Any:
    """The ablation under the model in numpy: units = day % 7 + promo + 2 price + 3 stock + length."""
    return ablate(loaded(Arithmetic()), json.dumps(inputs).encode(), typical, "golden.jsonl", 4)


def test_the_typical_value_was_there_and_is_in_the_middle_or_the_commonest() -> None:
    """Numbers and days: the lower median of those that are there. Ties go to the least."""
    assert typical_values(SALES, COLUMNS) == TYPICAL
    assert typical_values(SALES, {"store": ["b", "a"], "price": []}) == {"store": "a"}


@given(st.lists(st.integers(0, 50), min_size=1))
def test_a_typical_number_is_one_of_the_numbers_with_half_on_each_side(numbers: list[int]) -> None:
    """At least half are not above it, at least half not below."""
    middle = typical_values(SALES, {"stock": numbers})["stock"]
    assert middle in numbers
    assert 2 * sum(each <= middle for each in numbers) >= len(numbers)
    assert 2 * sum(each >= middle for each in numbers) >= len(numbers)


def test_an_effect_is_the_answer_less_the_answer_with_the_typical_value() -> None:
    """Worked out by hand: 2017-08-03 is day 0 of 7, 08-02 day 6; stock left out is 7."""
    given_inputs = {**INPUTS, "store": "long-name", "price": 6.0}
    found = explained(given_inputs)
    effects = {each.field: each.effects for each in found.fields}
    assert {name: effect["units"] for name, effect in effects.items()} == {
        "store": 7.0,  # nine letters instead of two
        "price": 8.0,
        "day": -6.0,
        "promo": 1.0,
        "stock": 0.0,  # typical is none, as it is here
    }
    assert [each.field for each in found.fields] == ["price", "store", "day", "promo", "stock"]
    by_name = {each.field: each for each in found.fields}
    assert (by_name["price"].value, by_name["price"].typical) == (6.0, 2.0)
    assert by_name["price"].outputs == {**found.outputs, "units": found.outputs["units"] - 8.0}
    assert found.typical is not None
    assert found.outputs["units"] - found.typical["units"] == 7.0 + 8.0 - 6.0 + 1.0
    assert (found.source, found.rows) == ("golden.jsonl", 4)


def test_a_typical_null_is_sent_as_null_or_left_out_as_the_contract_has_it() -> None:
    """Price may be null (-1 in the graph); stock may only be left out (7)."""
    found = explained({**INPUTS, "stock": 1}, {"price": None, "stock": None})
    effects = {each.field: each.effects["units"] for each in found.fields if each.effects}
    assert effects == {"price": 2 * (2.5 + 1.0), "stock": 3 * (1.0 - 7.0)}


def test_a_value_that_is_not_taken_has_no_effect_and_says_why() -> None:
    """A typical day that lies beyond this version's horizon; the other fields are told all the same."""
    found = explained(dict(INPUTS), {**TYPICAL, "day": "2017-09-30"})
    day = next(each for each in found.fields if each.field == "day")
    assert (day.outputs, day.effects) == (None, None)
    assert "2017-09-30" in day.note
    assert found.typical is None
    assert sum(each.effects is not None for each in found.fields) == 4


def test_a_row_on_which_the_model_fails_harms_no_other() -> None:
    """A typical store that it does not know."""
    found = explained(dict(INPUTS), {**TYPICAL, "store": "bad"})
    store = next(each for each in found.fields if each.field == "store")
    assert (store.effects, "no such store" in store.note) == (None, True)
    assert sum(each.effects is not None for each in found.fields) == 4


@pytest.mark.parametrize("inputs", [{**INPUTS, "store": "bad"}, {**INPUTS, "price": "dear"}])
def test_what_the_version_does_not_answer_here_cannot_be_explained(inputs: dict[str, Any]) -> None:
    """The sentence says why."""
    with pytest.raises(CannotExplain, match=r"price|store"):
        explained(inputs)
