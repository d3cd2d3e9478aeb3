"""The spread: conformal quantiles that cover what they promise."""

import numpy as np
import pytest

from tests.unit.trainer_panels import Facets, panel_with
from trainer.history import GRID, on_grid
from trainer.past import Demand, Past
from trainer.spread import BUCKETS, COLD_FACTOR, USUAL, conformal, scale_of
from trainer.structural import PACES


def past_of(facets: Facets) -> Past:
    panel = panel_with(facets)
    return Past.of(Demand.of(panel), panel.cutoff, PACES[0])


def test_quantiles_are_those_of_their_steps() -> None:
    """Residuals that grow with the step give wider quantiles later; eight in ten lie between them."""
    generator = np.random.default_rng(0)
    steps = np.repeat(np.arange(1, 17), 4_000)
    residuals = generator.normal(0.0, 1.0 + (steps - 1) // 4, len(steps))
    found = conformal(residuals, steps, 16)
    assert found.shape == (16, 2)
    assert found.dtype == np.float32
    width = found[:, 1] - found[:, 0]
    assert width[::4] == pytest.approx(2.563 * np.arange(1, 5), rel=0.05)
    for first in range(0, 16, 4):
        assert np.ptp(found[first : first + 4], axis=0).tolist() == [0, 0]
    inside = (found[steps - 1, 0] <= residuals) & (residuals <= found[steps - 1, 1])
    assert inside.mean() == pytest.approx(0.8, abs=0.01)


def test_few_residuals_are_covered_by_their_extremes() -> None:
    """The conformal rank of four values lies outside them: nothing is promised from so few."""
    residuals = np.array([-1.0, 0.0, 0.5, 2.0])
    found = conformal(residuals, np.ones(4, dtype=np.int64), 1)
    assert found.tolist() == [[-1.0, 2.0]]


def test_nine_residuals_give_the_first_and_the_last() -> None:
    """(9 + 1) × 0.1 is rank 1, (9 + 1) × 0.9 is rank 9: exactly the smallest and the largest."""
    residuals = np.arange(9, dtype=np.float64)
    found = conformal(residuals, np.ones(9, dtype=np.int64), 1)
    assert found.tolist() == [[0.0, 8.0]]


@pytest.mark.parametrize("seen", [1, 6, 16])
def test_step_without_residuals_has_its_neighbours_quantiles(seen: int) -> None:
    """A fold that is shorter than the horizon leaves later steps without any."""
    steps = np.full(100, seen)
    found = conformal(np.linspace(-1, 1, 100), steps, 16)
    assert np.isfinite(found).all()
    assert np.ptp(found, axis=0).tolist() == [0, 0]


def test_no_residual_gives_the_usual_quantiles() -> None:
    """A pair for each step, as always."""
    found = conformal(np.zeros(0), np.zeros(0, dtype=np.int64), 5)
    assert found.tolist() == on_grid([[-USUAL, USUAL]] * 5).tolist()


def test_short_horizons_have_fewer_buckets() -> None:
    """Two days share no more than two."""
    assert BUCKETS == 4
    steps = np.array([1] * 50 + [2] * 50)
    found = conformal(np.r_[np.linspace(-1, 1, 50), np.linspace(-3, 3, 50)], steps, 2)
    assert found[1, 1] > 2 * found[0, 1]


def test_scale_is_what_the_base_leaves() -> None:
    """On the grid, positive, wider for noisy series, and for unknown ones by a factor."""
    quiet, noisy = past_of(Facets(level=5.0)), past_of(Facets(level=0.0))
    keys = quiet.keys
    scale = scale_of(quiet).astype(np.float64)
    assert scale.shape == (keys.rows,)
    assert np.array_equal(scale * GRID, np.round(scale * GRID))
    assert (scale >= 0.1).all()
    assert scale[: keys.series].mean() < scale_of(noisy)[: keys.series].mean()
    cold = scale[keys.cold_rows(0)[1]]
    of_shop = scale[: keys.series][keys.codes[0] == 1]
    assert cold == pytest.approx(COLD_FACTOR * of_shop.mean(), abs=2 / GRID)
    assert scale[-1] == pytest.approx(COLD_FACTOR * scale[: keys.series].mean(), abs=2 / GRID)
