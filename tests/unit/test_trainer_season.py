"""The season: found beside a trend, shrunk where it is noise, and worth having on long panels."""

from pathlib import Path

import numpy as np
import pytest

from tests.unit.panel_reading import panel_of
from tests.unit.trainer_panels import Facets, panel_with, recipe_of
from trainer.chain import Design
from trainer.dataset import LossChoice, load_dataset
from trainer.estimator import Preset, fit
from trainer.evaluation import held_out, scores
from trainer.generator import generate
from trainer.keys import Floats, Ints, Keys
from trainer.panel import Panel
from trainer.past import Demand, Past
from trainer.season import HARMONICS, LEAST_DAYS, LEAST_PANEL, Season, fit_season
from trainer.structural import PACES
from trainer.training import develop
from trainer.training_rows import training_origins

FIRST = 17_000
YEAR: Ints = np.arange(FIRST + 1_000, FIRST + 1_365)


def keys_of(series: int, items: int) -> Keys:
    """Series in shops by items, all pairs, in order."""
    shops = tuple(f"s{i:03d}" for i in range(series // items))
    names = tuple(f"i{i:03d}" for i in range(items))
    codes = np.array(np.divmod(np.arange(series), items))
    return Keys(("shop", "item"), (shops, names), codes)


def wave(days: Ints, phase: Floats | float = 0.0) -> Floats:
    found: Floats = 0.5 * np.cos(2 * np.pi * days / 365.25 - phase)
    return found


@pytest.mark.parametrize("length", [LEAST_DAYS, 730, 1_000, 1_826])
def test_season_is_found_beside_a_trend(length: int) -> None:
    """A wave on a line: what is found is the wave, whatever part of a year the panel ends with."""
    days: Ints = FIRST + np.arange(length)
    generator = np.random.default_rng(1)
    noise = generator.normal(0.0, 0.1, (6, length))
    logs = 3.0 + wave(days) + 0.3 * (days - FIRST) / 365.25 + noise
    season = fit_season(keys_of(6, 3), logs, FIRST)
    assert np.abs(season.at(YEAR) - wave(YEAR)).max() < 0.05
    assert season.trend == pytest.approx(np.full(6, 0.3), abs=0.05)
    assert np.abs(season.at(YEAR).mean(axis=1)).max() < 1e-3


def test_items_keep_their_own_season() -> None:
    """Two items with opposite phases in the same shops are not averaged away."""
    days: Ints = FIRST + np.arange(800)
    keys = keys_of(8, 2)
    phase: Floats = np.pi * keys.codes[1][:, None].astype(np.float64)
    noise = np.random.default_rng(2).normal(0.0, 0.3, (8, 800))
    season = fit_season(keys, 3.0 + wave(days, phase) + noise, FIRST)
    assert np.abs(season.at(YEAR) - wave(YEAR, phase)).max() < 0.15


def test_noise_makes_no_season() -> None:
    """Series without a season: what is found is a tenth of what each alone would say, or less."""
    noise = 3.0 + np.random.default_rng(3).normal(0.0, 0.8, (40, 730))
    found = fit_season(keys_of(40, 20), noise, FIRST).coefficients
    alone = [fit_season(keys_of(1, 1), row[None], FIRST).coefficients for row in noise]
    assert (found**2).mean() < 0.1 * (np.concatenate(alone) ** 2).mean()


def test_new_series_has_the_season_of_its_key() -> None:
    """It began late; its zeros before that would pass for a trend and a season of its own, which the
    others, that differ a little, do have."""
    days: Ints = FIRST + np.arange(900)
    strength = np.linspace(0.8, 1.2, 12)[:, None]
    logs = 3.0 + strength * wave(days)
    logs[11, :600] = 0.0
    season = fit_season(keys_of(12, 3), logs, FIRST)
    assert np.abs(season.at(YEAR)[:11] - strength[:11] * wave(YEAR)).max() < 0.02
    assert np.abs(season.at(YEAR)[11] - wave(YEAR)).max() < 0.1
    assert season.trend[11] == pytest.approx(0.0, abs=0.01)


def test_panel_of_new_series_has_a_flat_season() -> None:
    """Where nothing sold in the first weeks nobody knows."""
    logs = np.ones((4, 700))
    logs[:, :100] = 0.0
    season = fit_season(keys_of(4, 2), logs, FIRST)
    assert not season.coefficients.any()
    assert not season.trend.any()


def test_profile_has_four_harmonics() -> None:
    """The first coefficient is the year's cosine."""
    coefficients = np.zeros((1, 2 * HARMONICS))
    coefficients[0, 0] = 0.5
    season = Season(coefficients, np.zeros(1))
    assert np.allclose(season.at(YEAR)[0], wave(YEAR))


@pytest.mark.parametrize("days", [LEAST_PANEL + 6, LEAST_PANEL + 7, LEAST_PANEL + 21, 760])
def test_every_origin_of_a_panel_has_a_season_or_none(days: int) -> None:
    """Panels about as long as a season needs train: all training rows have the same columns."""
    panel = panel_with(Facets(shops=2, products=2, days=days, yearly=0.3))
    fitted = fit(panel, recipe_of(Preset.PLAIN))
    names = [name for lookup in fitted.lookups for name in lookup.names]
    assert ("season" in names) == (panel.cutoff + 1 >= LEAST_PANEL)
    demand = Demand.of(panel)
    for origin in (panel.cutoff, *training_origins(panel)):
        season = Past.of(demand, origin, PACES[0]).season
        assert (season is not None) == (panel.cutoff + 1 >= LEAST_PANEL), origin


LONG = Facets(
    shops=6,
    products=10,
    days=3 * 365,
    horizon=28,
    held_out=28,
    level=4.0,
    steadiness=60.0,
    yearly=0.5,
    trend=0.15,
)


def same_weekdays(panel: Panel) -> Floats:
    """The log mean of the same weekday of the last four weeks, for every held-out row."""
    held = held_out(panel)
    columns = panel.cutoff - 6 + (held.steps - 1) % 7
    weeks = [np.log1p(panel.units[held.series, columns - 7 * week]) for week in range(4)]
    mean: Floats = np.expm1(np.mean(weeks, axis=0, dtype=np.float64))
    return mean


def gains(panel: Panel) -> dict[str, float]:
    """RMSLE of the full preset as a share of that of each baseline."""
    held = held_out(panel)
    trained = develop(panel, Preset.FULL, LossChoice.LOG1P, seed=0)
    a_year_ago = panel.units[held.series, panel.cutoff + held.steps - 364].astype(np.float64)
    answers = {
        "model": trained.forecaster.predict(held.requests).sales,
        "lag-364": a_year_ago,
        "same weekdays": same_weekdays(panel),
    }
    found = {name: scores(held.actual, p, held.weights)["rmsle"] for name, p in answers.items()}
    return {name: found["model"] / found[name] for name in ("lag-364", "same weekdays")}


def test_long_panel_beats_last_year_and_last_month_by_a_fifth() -> None:
    """60 series of three years with a season and a trend, forecast a month ahead."""
    found = gains(panel_with(LONG))
    assert found["lag-364"] <= 0.8
    assert found["same weekdays"] <= 0.8


@pytest.mark.slow
def test_five_years_of_500_series_beat_last_year_and_last_month_by_a_fifth(tmp_path: Path) -> None:
    """A generated panel, with promotions, holidays, new items and items out of stock."""
    design = Design(series=500, days=1_826, seed=1, horizon=28, noise=0.2, yearly=0.6, trend=0.15)
    found = gains(panel_of(load_dataset(generate(design, tmp_path).dataset)))
    assert found["lag-364"] <= 0.8
    assert found["same weekdays"] <= 0.8
