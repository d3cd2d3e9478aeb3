"""The structural base: level, weekdays and flags, shrunk toward what the keys say."""

import numpy as np
import pytest

from tests.unit.trainer_panels import MONDAY, Facets, panel_with
from trainer.keys import Floats, Ints, Keys
from trainer.panel import weekday
from trainer.past import Demand, Past
from trainer.structural import PACES, Pace, Structure, fit_structure

PACE = PACES[0]
WEEK = np.array([-0.4, -0.2, 0.0, 0.1, 0.3, 0.6, -0.4])


def keys_of(shops: int, products: int) -> Keys:
    codes = np.array(np.divmod(np.arange(shops * products), products))
    names = tuple(f"s{i}" for i in range(shops)), tuple(f"p{i}" for i in range(products))
    return Keys(("shop", "product"), names, codes)


def days_of(length: int) -> Ints:
    return np.asarray(weekday(MONDAY + np.arange(length)))


def structure_of(logs: Floats, flags: tuple[Floats, ...] = (), pace: Pace = PACE) -> Structure:
    return fit_structure(keys_of(2, len(logs) // 2), logs, days_of(logs.shape[1]), flags, pace)


def test_level_and_weekdays_are_found() -> None:
    """Logs that are exactly a level and a week come back as such."""
    levels = np.array([1.0, 2.0, 3.0, 4.0])
    logs = levels[:, None] + WEEK[days_of(84)]
    found = structure_of(logs)
    assert found.level == pytest.approx(levels, abs=0.01)
    assert np.abs(found.effect - WEEK).max() < 0.02
    assert np.abs(found.effect.mean(axis=1)).max() < 1e-12


def test_level_follows_the_newest_days() -> None:
    """After a step the level is nearer to the new days than to the old, by its half-life."""
    logs = np.ones((4, 84))
    logs[:, -14:] = 3.0
    assert structure_of(logs).level == pytest.approx(np.full(4, 2.0), abs=0.05)
    assert structure_of(logs, pace=PACES[1]).level.max() < 1.6


def test_flag_is_no_part_of_level_or_weekday() -> None:
    """Promotions on every Saturday of some weeks lift those days; the week without them stays."""
    generator = np.random.default_rng(5)
    flag = (generator.random((4, 140)) < 0.3).astype(np.float64)
    logs = 2.0 + WEEK[days_of(140)] + 0.8 * flag
    found = structure_of(logs, (flag,))
    assert found.lifts[0] == pytest.approx(np.full(4, 0.8), abs=0.05)
    assert found.level == pytest.approx(np.full(4, 2.0), abs=0.05)


def test_two_flags_are_told_apart() -> None:
    """Flags that often come together share the lift as they should."""
    generator = np.random.default_rng(6)
    one = (generator.random((4, 182)) < 0.4).astype(np.float64)
    other = np.where(generator.random((4, 182)) < 0.6, one, generator.random((4, 182)) < 0.4)
    logs = 2.0 + 0.5 * one - 0.3 * other
    found = structure_of(logs, (one, other.astype(np.float64)))
    assert found.lifts[0] == pytest.approx(np.full(4, 0.5), abs=0.1)
    assert found.lifts[1] == pytest.approx(np.full(4, -0.3), abs=0.1)


def test_flag_that_a_series_never_had_takes_the_lift_of_its_key() -> None:
    """Series 0 and 2 are the same product; only one of them was ever on promotion."""
    generator = np.random.default_rng(7)
    flag = (generator.random((4, 182)) < 0.3).astype(np.float64)
    flag[2] = 0.0
    lift = np.array([0.8, 0.2, 0.8, 0.2])[:, None]
    found = structure_of(2.0 + lift * flag, (flag,))
    assert found.lifts[0][2] > 0.6
    assert found.lifts[0][3] < 0.3


def test_short_history_leans_on_the_product_and_the_shop() -> None:
    """Two noisy weeks of a series say less about its week than those of all series."""
    logs = 2.0 + WEEK[days_of(14)] + np.random.default_rng(8).normal(0.0, 0.8, (24, 14))
    alone = np.stack([logs[:, days_of(14) == day].mean(axis=1) for day in range(7)], axis=1)
    alone -= alone.mean(axis=1, keepdims=True)
    found = fit_structure(keys_of(12, 2), logs, days_of(14), (), PACE)
    assert ((found.effect - WEEK) ** 2).mean() < 0.3 * ((alone - WEEK) ** 2).mean()


def test_base_explains_the_days_it_was_fitted_on() -> None:
    """What base and lift leave has about the noise of the panel, and no weekday in it."""
    panel = panel_with(Facets(level=4.0, flag=True))
    past = Past.of(Demand.of(panel), panel.cutoff, PACE)
    assert np.abs(past.residual).mean() < 0.45
    saturdays = past.residual[:, past.weekdays == 5].mean()
    assert abs(saturdays) < 0.1
    assert past.base.shape == (19, 7)
