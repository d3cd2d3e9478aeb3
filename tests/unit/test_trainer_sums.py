"""A trained regressor's sums are exact, whatever their order, and rounding its numbers costs nothing."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import Ridge

from tests.unit.trainer_panels import Facets, panel_with, recipe_of
from trainer.estimator import Preset, fit
from trainer.history import on_grid
from trainer.keys import Float32s, Floats
from trainer.sums import COEFFICIENT_STEP, make_exact, step_for


def rows_and_target(level: float = 0.0) -> tuple[Float32s, Floats]:
    """Features on the grid, and logs of sales around 4 and a level."""
    generator = np.random.default_rng(3)
    features = on_grid(generator.normal(4.0, 1.0, (4_000, 5)))
    wanted = features[:, 0] + 0.2 * features[:, 1] * features[:, 2]
    return features, level + wanted + generator.normal(0.0, 0.5, len(wanted))


def boosted(level: float = 0.0) -> tuple[HistGradientBoostingRegressor, Float32s, Floats]:
    features, target = rows_and_target(level)
    trees = HistGradientBoostingRegressor(max_iter=200, learning_rate=0.05, max_leaf_nodes=15)
    return trees.fit(features.astype(np.float64), target), features, target


def terms_of(trees: HistGradientBoostingRegressor, features: Float32s) -> Floats:
    """What is added up for each row, ``[N, trees]``; the baseline is in the first column."""
    stages = np.stack(list(trees.staged_predict(features)), axis=1)
    return np.diff(stages, axis=1, prepend=0.0)


def largest_difference(trees: HistGradientBoostingRegressor, features: Float32s) -> float:
    """Of float32 sums in three orders from the float64 sum, as scikit-learn makes it."""
    terms = terms_of(trees, features).astype(np.float32)
    orders = [terms, terms[:, ::-1], np.random.default_rng(0).permuted(terms, axis=1)]
    sums = [np.add.accumulate(each, axis=1)[:, -1] for each in orders]
    return float(np.abs(np.stack(sums) - trees.predict(features)).max())


@pytest.mark.parametrize("level", [0.0, 20.0, -3.0])
def test_trees_add_up_in_float32_in_any_order(level: float) -> None:
    """To the last bit, for logs of small sales and of billions; without rounding they do not."""
    trees, features, _ = boosted(level)
    assert largest_difference(trees, features) > 1e-7
    make_exact(trees)
    assert largest_difference(trees, features) == 0.0


def test_rounding_is_a_millionth() -> None:
    """Half a step of each of 200 leaves at worst, in truth far less; the error does not change."""
    trees, features, target = boosted()
    before = trees.predict(features)
    make_exact(trees)
    after = trees.predict(features)
    assert 0 < np.abs(after - before).max() < 5e-5
    errors = [float(np.sqrt(((each - target) ** 2).mean())) for each in (before, after)]
    assert errors[1] == pytest.approx(errors[0], rel=1e-6)


def test_a_line_adds_up_in_any_order() -> None:
    """In float64, with features on the grid."""
    features, target = rows_and_target()
    line = Ridge().fit(features.astype(np.float64), target)
    before = line.predict(features)
    make_exact(line)
    assert np.abs(line.predict(features) - before).max() < 1e-7
    terms = np.column_stack([features * line.coef_, np.full(len(features), line.intercept_)])
    for each in (terms, terms[:, ::-1]):
        assert np.array_equal(np.add.accumulate(each, axis=1)[:, -1], line.predict(features))


@given(bound=st.floats(1e-12, 1e12))
def test_a_bound_is_less_than_24_bits_of_steps(bound: float) -> None:
    """Every sum is a whole number of steps that float32 holds, and no step is finer than needed."""
    step = step_for(bound)
    assert 2**22 <= bound / step <= 2**23
    assert np.log2(step) == np.round(np.log2(step))


@pytest.mark.parametrize("preset", list(Preset))
def test_what_is_trained_is_exact(preset: Preset) -> None:
    """Rounding belongs to the fit: a second one changes nothing."""
    regressor: Any = fit(panel_with(Facets(shops=3, products=3)), recipe_of(preset)).regressor
    if preset is Preset.PLAIN:
        assert np.array_equal(
            np.round(regressor.coef_ / COEFFICIENT_STEP) * COEFFICIENT_STEP, regressor.coef_
        )
        assert (regressor.coef_ != 0).any()
    else:
        features = on_grid(
            np.random.default_rng(0).normal(2.0, 1.0, (500, regressor.n_features_in_))
        )
        assert largest_difference(regressor, features) == 0.0
