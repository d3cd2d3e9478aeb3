"""What matters is told apart from what does not, and every feature belongs to a group."""

from dataclasses import replace

import numpy as np
import pytest

from schemas.evidence import Effect
from tests.unit.evidence_panels import made_up_panel
from tests.unit.trainer_panels import Facets, panel_with
from trainer import importance
from trainer.calendar import COLUMNS
from trainer.dataset import LossChoice
from trainer.estimator import Forecaster, Loss, Preset, Recipe, fit
from trainer.evaluation import HeldOut, held_out, scores
from trainer.importance import OTHER, group_of, importance_of, importance_of_training
from trainer.keys import Float32s, Floats
from trainer.panel import Panel
from trainer.spread import Spread, scale_of
from trainer.structural import PACES
from trainer.training import RIDGE, develop


class Cancels:
    """A regressor that takes away exactly the base that it reads, so that every forecast is 0."""

    def fit(self, features: Floats, target: Floats, sample_weight: Floats | None = None) -> object:
        raise NotImplementedError

    def predict(self, features: Float32s) -> Floats:
        return -features[:, -1].astype(np.float64)


@pytest.fixture(scope="module")
def panel() -> Panel:
    return made_up_panel()


@pytest.fixture(scope="module")
def held(panel: Panel) -> HeldOut:
    return held_out(panel)


def fitted(panel: Panel, preset: Preset) -> Forecaster:
    """Without trees, and with intervals that say nothing."""
    found = fit(panel, Recipe(preset, Loss.LOG1P, PACES[0], seed=0, corrected=False))
    flat = np.zeros((panel.horizon, 2), dtype=np.float32)
    return found.forecaster(Spread(scale_of(found.past), flat))


@pytest.fixture(scope="module")
def forecaster(panel: Panel) -> Forecaster:
    """The structural base alone: what it reads is known."""
    return fitted(panel, Preset.FULL)


def rises(effects: tuple[Effect, ...]) -> dict[str, float]:
    return {effect.name: effect.rise for effect in effects}


def test_fields_that_sales_depend_on_matter(forecaster: Forecaster, held: HeldOut) -> None:
    """Shop, product, weekday and promotion made these sales."""
    found = importance_of(forecaster, held, "day", seed=0)
    assert found is not None
    by_field = rises(found.fields)
    assert set(by_field) == {"shop", "product", "day", "day (weekday)", "promotion"}
    assert min(by_field.values()) > 0.02
    assert [effect.rise for effect in found.fields] == sorted(by_field.values(), reverse=True)


def test_a_field_that_nothing_depends_on_does_not(forecaster: Forecaster, held: HeldOut) -> None:
    """Where every row has the same promotion, shuffling changes nothing."""
    never = replace(
        held,
        requests=replace(
            held.requests, covariates={"promotion": np.zeros(len(held), dtype=np.float32)}
        ),
    )
    found = importance_of(forecaster, never, "day", seed=0)
    assert found is not None
    assert rises(found.fields)["promotion"] == 0.0


def test_weekdays_are_exchanged_within_their_week(forecaster: Forecaster, held: HeldOut) -> None:
    """What is far ahead stays far ahead; the date as a whole is exchanged among all rows."""
    generator = np.random.default_rng(0)
    fields = importance._fields(forecaster, held.requests, "day", generator)
    usual = held.requests.days
    weekday, date = fields["day (weekday)"]().days, fields["day"]().days
    first = forecaster.cutoff_day + 1
    assert ((weekday - first) // 7 == (usual - first) // 7).all()
    assert (weekday != usual).mean() > 0.7
    assert ((date - first) // 7 != (usual - first) // 7).mean() > 0.3


def test_groups_matter_as_far_as_the_base_reads_them(forecaster: Forecaster, held: HeldOut) -> None:
    """Without trees, only what adds up to the base counts."""
    found = importance_of(forecaster, held, "day", seed=0)
    assert found is not None
    by_group = rises(found.groups)
    assert by_group.pop("level") > 0.1
    assert by_group.pop("weekday") > 0.02
    assert by_group.pop("flags") > 0.02
    assert set(by_group.values()) == {0.0}


def test_base_follows_the_columns_that_it_is_made_of(forecaster: Forecaster, held: HeldOut) -> None:
    """The regressor reads the base that is added to its answer: what it cancels stays cancelled."""
    found = importance_of(replace(forecaster, regressor=Cancels()), held, "day", seed=0)
    assert found is not None
    assert {effect.rise for effect in found.groups} == {0.0}


@pytest.mark.parametrize("preset", list(Preset))
def test_every_feature_has_a_group(panel: Panel, preset: Preset) -> None:
    """A feature that no group knows would hide in the card."""
    forecaster = fitted(panel, preset)
    outlook = (*COLUMNS, "key:shop:holiday", "traffic:visitors", "season")
    for name in (*forecaster.features, *outlook):
        assert name == "base" or group_of(name) != OTHER, name
    assert group_of("key:shop:holiday") == "calendar"
    assert group_of("key:shop:flag:promotion:lift") == "flags"
    assert group_of("traffic:visitors") == "traffic"
    assert group_of("number:level") == "covariates"
    assert group_of("surprise") == OTHER


def test_rows_are_sampled_and_closed_days_left_out(
    forecaster: Forecaster, held: HeldOut, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stays cheap on a large panel, and closed days have no say."""
    opened = held.steps != 1
    found = importance_of(forecaster, replace(held, opened=opened), "day", seed=0)
    assert found is not None
    assert found.rows == opened.sum()
    monkeypatch.setattr(importance, "MOST_ROWS", 100)
    sampled = importance_of(forecaster, held, "day", seed=0)
    assert sampled is not None
    assert sampled.rows == 100
    shut = replace(held, opened=np.zeros(len(held), dtype=bool))
    assert importance_of(forecaster, shut, "day", seed=0) is None


def test_the_same_seed_gives_the_same_importance(forecaster: Forecaster, held: HeldOut) -> None:
    """So that a bundle can be made again."""
    once, again, other = (importance_of(forecaster, held, "day", seed=seed) for seed in (3, 3, 4))
    assert once == again
    assert once != other


def without_held_out_days(panel: Panel) -> Panel:
    known = panel.cutoff + 1
    covariates = tuple(replace(each, values=each.values[:, :known]) for each in panel.covariates)
    return replace(panel, units=panel.units[:, :known], covariates=covariates, references={})


def test_without_a_holdout_the_newest_fold_is_shuffled(panel: Panel) -> None:
    """With the forecaster of that fold, which saw none of its days; where and when is said."""
    whole = without_held_out_days(panel)
    trained = develop(whole, Preset.PLAIN, LossChoice.LOG1P, seed=0)
    found = importance_of_training(trained, held_out(whole), "day", seed=0)
    assert found is not None
    newest = trained.backtest.folds[0]
    assert (found.on, found.rows) == ("newest fold", len(newest.held))
    assert (found.first, found.last) == ("2024-03-25", "2024-04-07")
    assert rises(found.fields)["product"] > 0.02
    scored = scores(newest.held.actual, newest.answers[RIDGE].sales, newest.held.weights)
    assert found.rmsle == pytest.approx(scored["rmsle"], abs=1e-6)
    assert trained.tested is not None
    assert trained.tested.cutoff_day == whole.cutoff_day - whole.horizon


def test_a_holdout_is_shuffled_where_there_is_one(panel: Panel, held: HeldOut) -> None:
    """By the model that is released."""
    trained = develop(panel, Preset.PLAIN, LossChoice.LOG1P, seed=0)
    found = importance_of_training(trained, held, "day", seed=0)
    assert found == importance_of(trained.forecaster, held, "day", seed=0)
    assert found is not None
    assert (found.on, found.first, found.last) == ("holdout", "2024-04-08", "2024-04-21")


def test_without_days_to_shuffle_nothing_is_said() -> None:
    """A panel too short for a fold, of which nothing is held out."""
    short = panel_with(Facets(days=30, held_out=0))
    trained = develop(short, Preset.PLAIN, LossChoice.LOG1P, seed=0)
    assert trained.tested is None
    assert importance_of_training(trained, held_out(short), "day", seed=0) is None
