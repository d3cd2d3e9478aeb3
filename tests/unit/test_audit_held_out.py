"""How a version did on held-out days for the series of a request."""

import math

import numpy as np
import pytest

from audit.held_out import held_out_scores

COLUMNS = {"country": ["France", "France", "Spain", "Spain"], "code": ["1", "2", "1", "2"]}
ACTUAL = np.array([2.0, 0.0, 4.0, 0.0])
ANSWERS = np.array([1.0, 1.0, 5.0, 0.0])


def test_the_series_comes_first_and_then_each_of_its_keys() -> None:
    """Worked out by hand."""
    own, country, code = held_out_scores(
        COLUMNS, ACTUAL, ANSWERS, {"country": "France", "code": "1"}
    )
    assert (own.keys, own.rows) == ({"country": "France", "code": "1"}, 1)
    assert own.rmsle == pytest.approx(math.log(3) - math.log(2))
    assert (own.wape, own.bias, own.mean_actual, own.mean_answer) == (0.5, -0.5, 2.0, 1.0)
    assert (country.keys, country.rows) == ({"country": "France"}, 2)
    assert (country.wape, country.bias) == (1.0, 0.0)
    assert (code.keys, code.rows, code.bias) == ({"code": "1"}, 2, 0.0)


def test_where_nothing_was_sold_there_is_no_share_of_it() -> None:
    """The error in logs is there all the same."""
    own, *_ = held_out_scores(COLUMNS, ACTUAL, ANSWERS, {"country": "France", "code": "2"})
    assert (own.wape, own.bias) == (None, None)
    assert own.rmsle == pytest.approx(math.log(2))


def test_a_series_that_was_not_held_out_has_the_scores_of_its_keys_alone() -> None:
    """And a key that no row has none; a single key is not told twice."""
    found = held_out_scores(COLUMNS, ACTUAL, ANSWERS, {"country": "Italy", "code": "2"})
    assert [each.keys for each in found] == [{"code": "2"}]
    assert held_out_scores(COLUMNS, ACTUAL, ANSWERS, {"store": "x"}) == ()
    [only] = held_out_scores(COLUMNS, ACTUAL, ANSWERS, {"country": "Spain"})
    assert only.rows == 2
