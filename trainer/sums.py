"""Sums: the numbers of a trained regressor, on grids on which no sum of them is ever rounded.

scikit-learn adds the leaves of some hundred trees in float64, the ONNX operator in float32, in an order
of its own: on counts the two were 3e-6 apart. On a grid both find the same bits. Rules:

1. Leaves, added in float32: the grid's step is a power of two for which no sum of the baseline and a leaf
   of each tree, in whatever order, has more than float32's 24 bits. With sums below 8 it is 2⁻²⁰.
2. Coefficients, multiplied with features on a grid of 2⁻¹⁰ (``trainer.history``) and added in float64:
   with 2⁻³⁰ sums below 8,192 are exact.
3. Rounding is the last step of a training. What answers, is scored and is exported has rounded numbers.
"""

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import Ridge

BITS = 23
"""Of float32's 24; the last one is for what rounding itself adds to a sum."""

COEFFICIENT_STEP = 2.0**-30


def make_exact(regressor: object) -> None:
    """Rounds the numbers of a fitted regressor in place; one of another kind is left as it is."""
    if isinstance(regressor, HistGradientBoostingRegressor):
        _round_leaves(regressor)
    elif isinstance(regressor, Ridge):
        regressor.coef_ = _rounded(regressor.coef_, COEFFICIENT_STEP)
        regressor.intercept_ = float(_rounded(regressor.intercept_, COEFFICIENT_STEP))


def _round_leaves(trees: HistGradientBoostingRegressor) -> None:
    # scikit-learn has no public names for them; skl2onnx reads the same ones.
    nodes = [predictor.nodes for [predictor] in trees._predictors]
    leaves = [each["is_leaf"].astype(bool) for each in nodes]
    baseline = np.asarray(trees._baseline_prediction, dtype=np.float64)
    largest = [np.abs(each["value"][leaf]).max() for each, leaf in zip(nodes, leaves, strict=True)]
    step = step_for(float(np.abs(baseline).sum() + sum(largest)))
    trees._baseline_prediction = _rounded(baseline, step)
    for each, leaf in zip(nodes, leaves, strict=True):
        each["value"][leaf] = _rounded(each["value"][leaf], step)


def step_for(bound: float) -> float:
    """The step of the grid on which float32 adds exactly, where no sum is larger than ``bound``."""
    _, exponent = np.frexp(bound)
    return float(np.ldexp(1.0, int(exponent) - BITS))


def _rounded(values: npt.ArrayLike, step: float) -> npt.NDArray[np.float64]:
    return np.round(np.asarray(values, dtype=np.float64) / step) * step
