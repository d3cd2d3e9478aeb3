"""A training that looks at days which it must not see is caught, and an honest one passes."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from schemas.evidence import Leakage
from tests.unit.evidence_panels import FIRST_DAY, made_up_panel
from tests.unit.trainer_panels import Facets, panel_with
from trainer import leakage, traffic
from trainer.dataset import LossChoice
from trainer.estimator import Fitted, Loss, Preset, Recipe, as_of, fit
from trainer.evaluation import HeldOut, held_out
from trainer.keys import Floats, Ints
from trainer.leakage import leakage_test, same_tables, scrambled
from trainer.panel import Covariate, CovariateKind, Panel, Traffic
from trainer.past import Demand, Past
from trainer.structural import PACES, Pace
from trainer.training import develop

RECIPE = Recipe(Preset.FULL, Loss.LOG1P, PACES[0], seed=0)
PLAIN = replace(RECIPE, preset=Preset.PLAIN)
ALONE = replace(RECIPE, corrected=False)
"""All tables, and no trees, which take most of the time."""


@pytest.fixture(scope="module")
def panel() -> Panel:
    return made_up_panel()


def verdict(
    panel: Panel, recipe: Recipe = RECIPE, fitting: Callable[[Panel], Fitted] | None = None
) -> Leakage:
    return leakage_test(panel, recipe, fitting or partial(fit, recipe=recipe), seed=1)


def changed(found: Leakage) -> list[str]:
    return [check.what for check in found.checks if not check.same]


@pytest.mark.parametrize("recipe", [RECIPE, PLAIN, ALONE])
def test_an_honest_training_passes(panel: Panel, recipe: Recipe) -> None:
    """Noise on later days changes no bit of tables, regressor and scales."""
    found = verdict(panel, recipe)
    assert found.passed
    assert found.scrambled == ("units", "promotion", "other (all days)")
    assert len(found.checks) == leakage.PROBES + 4


def test_the_whole_development_knows_no_future(panel: Panel) -> None:
    """Choice, tables, regressor and intervals are the same, with the full budget of rows."""
    noisy = scrambled(panel, panel.cutoff, np.random.default_rng(0))
    one, two = (develop(each, Preset.FULL, LossChoice.LOG1P, seed=0) for each in (panel, noisy))
    assert one.backtest.chosen == two.backtest.chosen
    assert same_tables(one.forecaster.lookups, two.forecaster.lookups)
    assert (one.forecaster.spread.scale == two.forecaster.spread.scale).all()
    assert (one.forecaster.spread.quantiles == two.forecaster.spread.quantiles).all()
    requests = held_out(panel).requests
    once, again = (each.forecaster.predict(requests) for each in (one, two))
    assert once.sales.tobytes() == again.sales.tobytes()


def test_a_past_that_looks_a_day_ahead_is_caught(
    panel: Panel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At an origin of training rows it would see its own target; at the cutoff nothing is to be seen."""
    honest = Past.of

    def peeking(demand: Demand, origin: int, pace: Pace) -> Past:
        past = honest(demand, origin, pace)
        ahead = honest(demand, min(origin + 1, demand.logs.shape[1] - 1), pace)
        length = past.logs.shape[1]
        return replace(past, logs=ahead.logs[:, -length:], sold=ahead.sold[:, -length:])

    monkeypatch.setattr(Past, "of", peeking)
    found = verdict(panel, ALONE)
    assert not found.passed
    assert [what for what in changed(found) if what.startswith("tables as of")] == [
        check.what for check in found.checks[: leakage.PROBES]
    ]


def test_demand_beyond_the_cutoff_is_caught(panel: Panel, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table at the cutoff that holds a later day is the plainest leak."""
    honest = Past.of

    def peeking(demand: Demand, origin: int, pace: Pace) -> Past:
        past = honest(demand, origin, pace)
        later = np.log1p(demand.panel.units[:, origin + 1 : origin + 2].astype(np.float64))
        return replace(past, logs=np.concatenate([past.logs[:, 1:], later], axis=1))

    monkeypatch.setattr(Past, "of", peeking)
    assert {"tables as of 2024-04-07", "scales"} <= set(changed(verdict(panel, ALONE)))


def test_targets_after_the_cutoff_are_caught(panel: Panel) -> None:
    """Training rows of held-out days change the regressor."""

    def greedy(seen: Panel) -> Fitted:
        honest = fit(seen, PLAIN)
        return replace(honest, regressor=fit(as_of(seen, seen.cutoff + 5), PLAIN).regressor)

    assert changed(verdict(panel, PLAIN, greedy)) == ["regressor"]


def test_learning_from_references_is_caught(panel: Panel) -> None:
    """Predictions of others are for comparison, on whatever day."""
    guesses = {"other": panel.units + 1}

    def greedy(seen: Panel) -> Fitted:
        return fit(replace(seen, units=seen.references["other"]), ALONE)

    found = verdict(replace(panel, references=guesses), ALONE, greedy)
    assert "tables as of 2024-04-07" in changed(found)


def test_intervals_from_held_out_days_are_caught(
    panel: Panel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that intervals would be calibrated on, were they read to the panel's end."""

    def greedy(seen: Panel, last: int | None = None) -> HeldOut:
        return held_out(replace(seen, horizon=2 * seen.horizon))

    monkeypatch.setattr(leakage, "held_out", greedy)
    assert changed(verdict(panel, ALONE)) == ["rows that intervals are calibrated on"]


def test_a_panel_without_held_out_days_is_tested_earlier(panel: Panel) -> None:
    """There must be days to scramble, else the test would prove nothing."""
    known = panel.cutoff + 1
    covariates = tuple(replace(each, values=each.values[:, :known]) for each in panel.covariates)
    whole = replace(panel, units=panel.units[:, :known], covariates=covariates, references={})
    found = verdict(whole, ALONE)
    assert found.passed
    assert "tables as of 2024-03-24" in [check.what for check in found.checks]


@pytest.mark.parametrize(("days", "horizon"), [(60, 58), (28, 28), (60, 100)])
def test_a_horizon_as_long_as_the_panel_is_tested(days: int, horizon: int) -> None:
    """The cutoff moves back no further than there are days to learn from before it."""
    panel = panel_with(Facets(shops=3, products=3, days=days, held_out=0, horizon=horizon))
    found = verdict(panel)
    assert found.passed
    assert "tables as of 2024-01-15" in [check.what for check in found.checks]


def test_traffic_of_the_future_is_caught_at_an_origin_that_training_reads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Traffic that had no year before it on the day of the oldest probe, and has one in training."""
    panel = panel_with(Facets(shops=3, products=2, days=308, traffic=True))
    source = panel.traffic
    assert source is not None
    later = replace(source, first_day=source.first_day + 100, values=source.values[:, 100:])
    panel = replace(panel, traffic=later)
    honest = traffic._a_year_before

    def peeking(source: Traffic, origin: int, days: Ints) -> Floats:
        found = honest(source, origin, days)
        return np.where(np.isnan(found), np.nan, traffic._logs(source, days))

    assert verdict(panel, ALONE).passed
    monkeypatch.setattr(traffic, "_a_year_before", peeking)
    assert changed(verdict(panel, ALONE)) == ["tables as of 2024-10-26", "tables as of 2024-10-20"]


def test_noise_changes_what_comes_later_and_nothing_else(panel: Panel) -> None:
    """Up to the origin every value is kept; after it hardly one is."""
    number = Covariate(
        "price", CovariateKind.NUMBER, "", np.full(panel.units.shape, np.nan, np.float32)
    )
    whole = replace(
        panel,
        covariates=(*panel.covariates, number),
        closed=np.zeros(panel.units.shape, dtype=bool),
        traffic=Traffic("visitors", "shop", FIRST_DAY - 30, np.ones((4, 142), dtype=np.float32)),
    )
    origin = 60
    noisy = scrambled(whole, origin, np.random.default_rng(0))
    assert noisy.closed is not None
    assert whole.closed is not None
    assert noisy.traffic is not None
    assert whole.traffic is not None
    pairs = [
        (whole.units, noisy.units, origin),
        (whole.closed, noisy.closed, origin),
        (whole.traffic.values, noisy.traffic.values, origin + 30),
        *(
            (one.values, two.values, origin)
            for one, two in zip(whole.covariates, noisy.covariates, strict=True)
        ),
    ]
    for before, after, last in pairs:
        assert before[:, : last + 1].tobytes() == after[:, : last + 1].tobytes()
        assert (before[:, last + 1 :] != after[:, last + 1 :]).mean() > 0.3
    assert (noisy.references["other"] != whole.references["other"]).mean() > 0.8
    assert noisy.cutoff == whole.cutoff
