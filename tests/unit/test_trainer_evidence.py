"""The evidence says of each predictor, step and group what the rows say, and nothing of closed days."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from schemas.errors import ModelwireError
from schemas.evidence import MODEL, Evidence, Examined, Slice, decode_evidence, encode_evidence
from tests.unit.evidence_panels import HORIZON, made_up_panel
from tests.unit.trainer_panels import Facets, panel_with
from trainer import slices
from trainer.calibration import Answered, Residuals, calibration
from trainer.dataset import LossChoice
from trainer.estimator import Preset
from trainer.evaluation import BASE, HeldOut, held_out, interval_scores, scores
from trainer.evidence import evidence_of
from trainer.keys import Floats
from trainer.panel import Panel
from trainer.requests import Forecasts
from trainer.spread import conformal
from trainer.training import RIDGE, Trained, develop, residuals_of

NAMES = ("shop", "product", "type")


@pytest.fixture(scope="module")
def panel() -> Panel:
    return made_up_panel(days=200)


@pytest.fixture(scope="module")
def trained(panel: Panel) -> Trained:
    return develop(panel, Preset.FULL, LossChoice.LOG1P, seed=0)


@pytest.fixture(scope="module")
def held(panel: Panel) -> HeldOut:
    return held_out(panel)


@pytest.fixture(scope="module")
def answers(trained: Trained, held: HeldOut) -> Forecasts:
    return trained.forecaster.predict(held.requests)


@pytest.fixture(scope="module")
def evidence(panel: Panel, trained: Trained, held: HeldOut, answers: Forecasts) -> Evidence:
    return evidence_of(panel, trained, held, answers, NAMES)


@pytest.fixture(scope="module")
def holdout(evidence: Evidence) -> Examined:
    assert evidence.holdout is not None
    return evidence.holdout


def slice_of(examined: Examined, name: str) -> Slice:
    return next(each for each in examined.slices if each.name == name)


def test_scores_are_those_of_the_rows(holdout: Examined, held: HeldOut, answers: Forecasts) -> None:
    """The model's metrics are the evaluation's, to six digits."""
    expected = scores(held.actual, answers.sales, held.weights) | interval_scores(
        held.actual, answers
    )
    told = msgspec.to_builtins(holdout.scores[MODEL])
    assert told.pop("rows") == len(held)
    assert told == pytest.approx(expected, rel=1e-5)


def test_baselines_base_and_references_stand_beside_the_model(holdout: Examined) -> None:
    """A reader can compare with what needs no model, with the base alone, and with others."""
    assert set(holdout.scores) == {
        *(MODEL, BASE, "lag-7", "mean-14-log", "mean-28-log", "other"),
    }


def test_base_is_what_the_forecaster_answers_without_trees(
    holdout: Examined, trained: Trained, held: HeldOut
) -> None:
    """The base is told whether trees were published or not."""
    alone = replace(trained.forecaster, regressor=None).predict(held.requests).sales
    expected = scores(held.actual, alone, held.weights)
    assert holdout.scores[BASE].rmsle == pytest.approx(expected["rmsle"], rel=1e-5)


def test_a_reference_is_scored_where_it_is_there(panel: Panel, trained: Trained) -> None:
    """Rows say how many that were; one that is nowhere is left out."""
    some = panel.references["other"].copy()
    some[5:] = np.nan
    none = np.full_like(some, np.nan)
    held = held_out(replace(panel, references={"some": some, "none": none}))
    answers = trained.forecaster.predict(held.requests)
    found = evidence_of(panel, trained, held, answers, ()).holdout
    assert found is not None
    assert found.scores["some"].rows == 5 * HORIZON
    assert "none" not in found.scores


def test_a_reference_below_zero_counts_as_nothing(panel: Panel, trained: Trained) -> None:
    """Trees of other tools give such predictions; there is no log of them, and no bundle with NaN."""
    zeros = np.zeros_like(panel.references["other"])
    held = held_out(replace(panel, references={"below": zeros - 5, "none": zeros}))
    found = evidence_of(panel, trained, held, trained.forecaster.predict(held.requests), ()).holdout
    assert found is not None
    assert found.scores["below"] == found.scores["none"]
    assert np.isfinite(found.scores["below"].rmsle)


def test_steps_and_slices_have_each_row_once(holdout: Examined) -> None:
    """No row is lost or counted twice in any breakdown."""
    assert [step.step for step in holdout.steps] == list(range(1, HORIZON + 1))
    assert sum(step.scores[MODEL].rows for step in holdout.steps) == holdout.rows
    for each in holdout.slices:
        assert sum(group.scores[MODEL].rows for group in each.groups) == holdout.rows
        assert sum(group.series for group in each.groups) == 24


def test_slices_are_those_of_the_dataset_and_volume_and_age(holdout: Examined) -> None:
    """Keys and attributes that are named, then what every panel has."""
    assert [(each.name, each.kind) for each in holdout.slices] == [
        ("shop", "key"),
        ("product", "key"),
        ("type", "attribute"),
        ("volume", "volume"),
        ("age", "age"),
    ]
    assert [group.value for group in slice_of(holdout, "type").groups] == ["big", "small", ""]


def test_an_error_shows_in_its_group_and_its_step(
    panel: Panel, trained: Trained, held: HeldOut, answers: Forecasts
) -> None:
    """Where one shop is forecast badly on one day, that shop and that step are worse, no others."""
    wrong = (panel.keys.codes[0][held.series] == 2) & (held.steps == 3)
    worse = replace(answers, sales=np.where(wrong, answers.sales + 500.0, answers.sales))
    usual = evidence_of(panel, trained, held, answers, NAMES).holdout
    found = evidence_of(panel, trained, held, worse, NAMES).holdout
    assert usual is not None
    assert found is not None

    def worse_ones(before: dict[str, float], after: dict[str, float]) -> set[str]:
        return {name for name in before if after[name] > before[name]}

    def by_shop(examined: Examined) -> dict[str, float]:
        groups = slice_of(examined, "shop").groups
        return {group.value: group.scores[MODEL].rmsle for group in groups}

    def by_step(examined: Examined) -> dict[str, float]:
        return {str(step.step): step.scores[MODEL].rmsle for step in examined.steps}

    assert worse_ones(by_shop(usual), by_shop(found)) == {"13"}
    assert worse_ones(by_step(usual), by_step(found)) == {"3"}


def test_a_new_series_is_told_apart(holdout: Examined) -> None:
    """The one that was first sold ten days before the cutoff, and none that is older."""
    ages = {group.value: group.series for group in slice_of(holdout, "age").groups}
    assert ages == {"new": 1, "older": 23}


def test_volume_and_age_know_no_day_after_the_origin(panel: Panel) -> None:
    """Who is large is decided before the days that are scored."""
    units = panel.units.copy()
    units[:, panel.cutoff + 1 :] = 1_000 - units[:, panel.cutoff + 1 :]
    other = replace(panel, units=units)
    assert (slices.volume_of(panel) == slices.volume_of(other)).all()
    assert (slices.age_of(panel) == slices.age_of(other)).all()


def test_quintiles_rise_with_volume(panel: Panel) -> None:
    """A series in a higher quintile sold at least as much as one in a lower, and all five are there."""
    quintile = slices.volume_of(panel)
    mean = panel.units[:, panel.cutoff - 27 : panel.cutoff + 1].mean(axis=1)
    assert set(quintile) == {0, 1, 2, 3, 4}
    assert sorted(np.bincount(quintile).tolist()) == [4, 5, 5, 5, 5]
    for lower in range(4):
        assert mean[quintile == lower].max() <= mean[quintile == lower + 1].min()


def test_a_slice_of_many_values_pools_the_smallest(
    panel: Panel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The largest are told one by one, the others together."""
    monkeypatch.setattr(slices, "MOST_GROUPS", 3)
    units = np.where(panel.keys.codes[1] >= 4, 100.0, 1.0)
    grouping = next(slices.groupings(panel, ("product",), units))
    assert (grouping.labels, grouping.pooled) == (("p4", "p5", ""), 4)
    assert (grouping.codes == np.array([2, 2, 2, 2, 0, 1])[panel.keys.codes[1]]).all()


def test_closed_days_are_left_out(
    panel: Panel, trained: Trained, held: HeldOut, answers: Forecasts
) -> None:
    """What is forecast for a closed day changes no figure; how many there were is said."""
    opened = held.requests.days % 7 != 3
    shut = replace(held, opened=opened)
    wild = replace(answers, sales=np.where(opened, answers.sales, 1e6))
    found = evidence_of(panel, trained, shut, wild, NAMES).holdout
    assert found is not None
    assert (found.rows, found.closed_rows) == (int(opened.sum()), int((~opened).sum()))
    assert found == evidence_of(panel, trained, shut, answers, NAMES).holdout


def test_folds_have_intervals_from_the_fold_before(evidence: Evidence) -> None:
    """The newest fold's intervals were learned on the older one, which has none of its own."""
    newest, oldest = evidence.backtest.folds
    assert newest.origin > oldest.origin
    coverage = newest.scores[MODEL].coverage
    assert coverage is not None
    assert 0.6 < coverage < 0.95
    assert oldest.scores[MODEL].coverage is None
    assert oldest.calibration == ()
    assert evidence.backtest.scores[MODEL].rows == newest.rows + oldest.rows


def test_what_calibrates_is_said(panel: Panel, evidence: Evidence, holdout: Examined) -> None:
    """The newest fold calibrates the holdout, the one before it calibrates that fold."""
    newest, oldest = evidence.backtest.folds
    assert holdout.calibrated_on == (newest.origin,)
    assert newest.calibrated_on == (oldest.origin,)
    assert oldest.calibrated_on == ()


@pytest.fixture(scope="module")
def daily() -> tuple[Panel, Trained]:
    """A panel that is forecast a day ahead, with days enough for older folds."""
    panel = panel_with(Facets(days=140, horizon=1, held_out=1))
    return panel, develop(panel, Preset.PLAIN, LossChoice.LOG1P, seed=0)


def test_short_horizons_are_calibrated_on_several_folds(daily: tuple[Panel, Trained]) -> None:
    """Four days for the holdout and for each of the newest folds, and what is left for the older ones;
    what the evidence judges the holdout by are the quantiles that are published."""
    panel, trained = daily
    held = held_out(panel)
    answers = trained.forecaster.predict(held.requests)
    found = evidence_of(panel, trained, held, answers, ())
    origins = [fold.origin for fold in found.backtest.folds]
    assert found.holdout is not None
    assert list(found.holdout.calibrated_on) == origins[:4]
    learned_on = [list(fold.calibrated_on) for fold in found.backtest.folds]
    assert learned_on == [origins[n + 1 : n + 5] for n in range(8)]
    assert [len(each) for each in learned_on] == [4, 4, 4, 4, 3, 2, 1, 0]
    newest = trained.backtest.folds[0]
    left = residuals_of(trained.backtest.folds[1:5], RIDGE)
    low, high = conformal(left.values, left.steps, 1)[0].astype(np.float64)
    logs = np.log1p(newest.answers[RIDGE].sales)
    inside = (np.expm1(np.maximum(logs + newest.scale * low, 0)) <= newest.held.actual) & (
        newest.held.actual <= np.expm1(np.maximum(logs + newest.scale * high, 0))
    )
    assert found.backtest.folds[0].scores[MODEL].coverage == pytest.approx(inside.mean(), rel=1e-5)


def test_all_quantiles_of_a_short_horizon_come_of_all_its_folds(
    daily: tuple[Panel, Trained],
) -> None:
    """Those that are not published too: one day of 19 series would give others."""
    panel, trained = daily
    held = held_out(panel)
    answers = trained.forecaster.predict(held.requests)
    found = evidence_of(panel, trained, held, answers, ()).holdout
    assert found is not None
    scale = trained.forecaster.spread.scale[held.series].astype(np.float64)
    rows = Answered(answers, held.actual, scale, held.steps)
    four, one = (
        calibration(rows, residuals_of(trained.backtest.folds[:count], RIDGE), panel.horizon)
        for count in (4, 1)
    )
    assert found.calibration == four
    assert found.calibration != one


def test_backtest_names_what_it_chose_among(evidence: Evidence) -> None:
    """The loser is there too, so that the choice can be judged."""
    backtest = evidence.backtest
    losers = {"trees", BASE} - {backtest.chosen}
    assert losers <= set(backtest.scores)
    assert backtest.scores[MODEL].rmsle <= min(backtest.scores[each].rmsle for each in losers)


def test_without_a_holdout_the_newest_fold_speaks() -> None:
    """A model trained on all days has its backtest for evidence."""
    panel = made_up_panel()
    known = panel.cutoff + 1
    whole = replace(
        panel,
        units=panel.units[:, :known],
        covariates=tuple(replace(each, values=each.values[:, :known]) for each in panel.covariates),
        references={},
        unit_share=float("nan"),
    )
    trained = develop(whole, Preset.FULL, LossChoice.LOG1P, seed=0)
    found = evidence_of(whole, trained, held_out(whole), None, NAMES)
    assert (found.holdout, found.unit_share) == (None, None)
    assert found.headline == found.backtest.folds[0]


def test_evidence_reads_back_and_has_the_same_bytes_again(
    panel: Panel, trained: Trained, held: HeldOut, answers: Forecasts, evidence: Evidence
) -> None:
    """What is decoded is what was encoded, and a second making gives the same bytes."""
    raw = encode_evidence(evidence)
    assert decode_evidence(raw) == evidence
    again = evidence_of(panel, trained, held, answers, NAMES)
    assert encode_evidence(again) == raw
    assert b"NaN" not in raw


@pytest.mark.parametrize("raw", [b"", b"{}", b"[1]", b'{"format": "other/1"}', b"\xff"])
def test_what_is_no_evidence_is_refused(raw: bytes) -> None:
    """With a message, whoever wrote the file."""
    with pytest.raises(ModelwireError, match="evidence is not valid"):
        decode_evidence(raw)


def answered(actual: Floats, logs: Floats, low: float, high: float) -> Answered:
    one = np.ones(len(actual))
    forecasts = Forecasts(
        sales=np.expm1(logs),
        sales_p10=np.expm1(np.maximum(logs + low, 0)),
        sales_p90=np.expm1(np.maximum(logs + high, 0)),
        known_series=np.ones(len(actual), dtype=np.int64),
        in_horizon=np.ones(len(actual), dtype=np.int64),
    )
    steps = np.arange(len(actual)) % HORIZON + 1
    return Answered(forecasts, actual, one, steps)


def test_right_quantiles_lie_on_the_diagonal() -> None:
    """Residuals of the same distribution before and after: as many lie below as the name says."""
    generator = np.random.default_rng(0)
    logs = np.full(20_000, 8.0)
    rows = answered(np.expm1(logs + generator.normal(size=20_000)), logs, -1.2816, 1.2816)
    learned = Residuals(generator.normal(size=20_000), rows.steps)
    for each in calibration(rows, learned, HORIZON):
        assert each.below == pytest.approx(each.nominal, abs=0.01)
        assert each.at_or_below == pytest.approx(each.nominal, abs=0.01)


def test_too_narrow_quantiles_leave_the_diagonal() -> None:
    """Half the spread: too many actuals lie outside, and the shares say so."""
    generator = np.random.default_rng(0)
    logs = np.full(20_000, 8.0)
    rows = answered(np.expm1(logs + generator.normal(size=20_000)), logs, -0.64, 0.64)
    low, high = calibration(rows, None, HORIZON)
    assert low.below > 0.2
    assert high.at_or_below < 0.8


def test_zeros_have_a_share_below_and_one_at_or_below() -> None:
    """Where most days sell nothing, the quantile 0 is right though no sale is below it."""
    actual = np.repeat([0.0, 3.0], [800, 200])
    rows = answered(actual, np.full(1000, 0.1), -1.0, 1.5)
    low, _ = calibration(rows, None, HORIZON)
    assert (low.below, low.at_or_below) == (0.0, 0.8)


def test_quantiles_are_scaled_by_series_and_taken_by_steps_ahead() -> None:
    """The noisy series on late days lie on the diagonal, and the calm ones on early days: a quantile that
    is the same for all would be too narrow there and too wide here."""
    generator = np.random.default_rng(1)
    steps = np.arange(40_000) % HORIZON + 1
    late = steps > HORIZON // 2
    noisy = generator.random(len(steps)) < 0.5
    spread, scale = np.where(late, 3.0, 1.0), np.where(noisy, 0.6, 0.2)
    learned = Residuals(spread * generator.normal(size=len(steps)), steps)
    logs = np.full(len(steps), 8.0)
    actual = np.expm1(logs + scale * spread * generator.normal(size=len(steps)))
    whole = answered(actual, logs, 0.0, 0.0)
    for rows in (late & noisy, ~late & ~noisy):
        some = np.flatnonzero(rows)
        part = Answered(whole.forecasts.take(some), actual[some], scale[some], steps[some])
        found = {each.nominal: each.below for each in calibration(part, learned, HORIZON)}
        for level in (0.05, 0.25, 0.5, 0.75, 0.95):
            assert found[level] == pytest.approx(level, abs=0.02)
