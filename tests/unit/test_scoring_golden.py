"""Golden vectors: a version that does not give what its training pipeline said is turned down."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import pytest
from example_contracts import INPUTS, Arithmetic, loaded

from schemas.manifest import GoldenVector, Tolerance
from scoring.golden import check_golden, check_independence
from scoring.model import Array

EXACT = Tolerance(absolute=0.0, relative=0.0)
VERSION = loaded(Arithmetic())


def vector(units: Any = 29.0, lucky: Any = True, **inputs: Any) -> GoldenVector:
    """A golden vector for the example inputs: 29 units, and a lucky day."""
    return GoldenVector(
        inputs=msgspec.Raw(msgspec.json.encode({**INPUTS, **inputs})),
        outputs={"units": units, "lucky": lucky},
    )


def test_a_faithful_model_passes() -> None:
    """Where every output is what it should be, there is nothing to say."""
    assert check_golden(VERSION, [vector(), vector(29, store="s2")] * 100, EXACT) is None


@pytest.mark.parametrize(
    ("golden", "tolerance", "passes"),
    [
        (29.5, Tolerance(absolute=0.5, relative=0.0), True),
        (29.5, Tolerance(absolute=0.49, relative=0.0), False),
        (28.5, Tolerance(absolute=0.5, relative=0.0), True),
        (58.0, Tolerance(absolute=0.0, relative=0.5), True),
        (58.1, Tolerance(absolute=0.0, relative=0.5), False),
        (58.1, Tolerance(absolute=0.06, relative=0.5), True),
    ],
)
def test_the_tolerance_is_absolute_plus_relative_to_the_golden_value(
    golden: float, tolerance: Tolerance, passes: bool
) -> None:
    """|x - g| <= absolute + relative * |g|, on both sides."""
    assert (check_golden(VERSION, [vector(golden)], tolerance) is None) is passes


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (vector(29.1), r"vector 2: units is 29\.0, the training pipeline said 29\.1"),
        (vector(lucky=False), "vector 2: lucky is True"),
        (vector(lucky=1), "vector 2: lucky is True"),
        (vector(units=True), r"vector 2: units is 29\.0"),
        (vector(day="2020-01-01"), "vector 2 is not a request of the contract: day is 2020-01-01"),
        (vector(store=1), "vector 2 is not a request"),
        (vector(store="endless"), "vector 2: the model gave units = inf"),
        (vector(store="bad"), "failed on the golden vectors: no such store"),
        (GoldenVector(vector().inputs, {"units": 29.0}), "vector 2: it holds outputs"),
        (
            GoldenVector(vector().inputs, {"units": 29.0, "lucky": True, "more": 1}),
            "vector 2: it holds outputs",
        ),
    ],
)
def test_the_first_vector_that_is_off_is_named(bad: GoldenVector, said: str) -> None:
    """The sentence names the line, the output, what was found and what was said."""
    sentence = check_golden(VERSION, [vector(), bad, vector(0.0)], EXACT)
    assert sentence is not None
    assert re.search(said, sentence)


def test_no_vectors_prove_nothing() -> None:
    """A version without golden vectors does not pass."""
    assert check_golden(VERSION, [], EXACT) is not None


class WrongShape:
    """A model whose outputs have the wrong length."""

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        """Three numbers, whatever was asked."""
        return [np.zeros(3, np.float32) for _ in outputs]


class Crowded(Arithmetic):
    """A model that takes 64 rows at a time."""

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        """As Arithmetic; raises for any other number of rows."""
        assert len(feeds["store"]) % 64 == 0, "too few rows"
        return super().run(feeds, outputs)


def test_a_model_that_cannot_run_a_row_alone_is_turned_down() -> None:
    """N is dynamic: a row at fault could not be told from its neighbours otherwise."""
    sentence = check_golden(loaded(Crowded()), [vector()], EXACT)
    assert sentence is not None
    assert re.search(r"fails on one alone: too few rows", sentence)


def test_a_model_that_breaks_its_contract_is_turned_down() -> None:
    """A wrong shape is named, with the output."""
    sentence = check_golden(loaded(WrongShape()), [vector()], EXACT)
    assert sentence is not None
    assert "does not keep its contract" in sentence
    assert "units" in sentence


class Misaligned(Arithmetic):
    """A model in which some places of a batch round otherwise."""

    def __init__(self, places: slice) -> None:
        super().__init__()
        self.places = places

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        """The outputs for ``feeds``, off by one bit here and there."""
        units, lucky = super().run(feeds, outputs)
        units[self.places] = np.nextafter(units[self.places], np.float32(np.inf))
        return [units, lucky]


@pytest.mark.parametrize(
    "places", [slice(0, None, 2), slice(0, None, 3), slice(0, None, 16), slice(15, None, 16)]
)
def test_a_model_whose_bits_depend_on_the_place_is_found(places: slice) -> None:
    """One bit that changes with the place in the batch is enough, and the first vector is named."""
    sentence = check_independence(loaded(Misaligned(places)), [vector()])
    assert sentence is not None
    assert sentence.startswith("golden vector 1 gives ")
    assert check_independence(VERSION, [vector(), vector(store="s2")]) is None


def test_vectors_that_cannot_be_scored_prove_no_independence() -> None:
    """A vector that is no request, or a model that fails, is said in a sentence."""
    assert "not a request" in str(check_independence(VERSION, [vector(store=1)]))
    assert "failed" in str(check_independence(VERSION, [vector(store="bad")]))
