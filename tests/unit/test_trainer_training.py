"""The training: what the backtest sees, what it chooses, and what it never looks at."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from schemas.errors import ModelwireError
from tests.unit.trainer_panels import Facets, forecaster_of, panel_with, recipe_of, scrambled_after
from trainer import estimator
from trainer.dataset import LossChoice
from trainer.estimator import Forecaster, Preset, Recipe, as_of, fit
from trainer.evaluation import Baseline, HeldOut, held_out, interval_scores, scores
from trainer.graph import export
from trainer.history import on_grid
from trainer.keys import Floats
from trainer.panel import Covariate, CovariateKind, Panel
from trainer.requests import Forecasts
from trainer.spread import USUAL, conformal
from trainer.structural import PACES
from trainer.training import (
    ALONE,
    COUNTS,
    LEAST_FOLD_TEST,
    RIDGE,
    TREES,
    Backtest,
    Fold,
    _choose,
    choose_pace,
    develop,
    fold_origins,
)


def training(
    panel: Panel, preset: Preset = Preset.PLAIN, loss: LossChoice = LossChoice.LOG1P
) -> Forecaster:
    return develop(panel, preset, loss, seed=0).forecaster


SHORT = Facets(days=64, horizon=14, held_out=14, flag=True, number=True)


@pytest.mark.parametrize(
    ("cutoff", "horizon", "folds"),
    [
        (400, 16, [384, 368]),
        (140, 16, [124]),
        (140, 7, [133, 126]),
        (40, 28, [27]),
        (31, 28, [27]),
        (140, 4, [136, 132]),
        (140, 3, [137, 134, 131, 128]),
        (128, 3, [125, 122]),
        (140, 2, [138, 136, 134, 132]),
        (33, 3, [30, 27]),
        (140, 1, [139, 138, 137, 136, 135, 134, 133, 132]),
        (31, 1, [30, 29, 28, 27]),
    ],
)
def test_folds_lie_a_horizon_apart(cutoff: int, horizon: int, folds: list[int]) -> None:
    """The newest first; older ones only where enough days lie before them. Short horizons need more of
    them for as many days of test."""
    panel = panel_with(Facets(shops=2, products=2, days=cutoff + 1, held_out=0, horizon=horizon))
    assert fold_origins(panel) == folds
    assert min(cutoff - origin for origin in folds) >= min(horizon, LEAST_FOLD_TEST)


@pytest.mark.parametrize(("cutoff", "horizon"), [(30, 16), (30, 1), (32, 3)])
def test_no_fold_where_too_few_days_are_left_to_test(cutoff: int, horizon: int) -> None:
    """After 28 days to learn from there are not four."""
    panel = panel_with(Facets(shops=2, products=2, days=cutoff + 1, held_out=0, horizon=horizon))
    assert fold_origins(panel) == []


def test_intervals_of_a_day_ahead_come_of_several_folds() -> None:
    """One day is too little for quantiles: those of the four newest days are pooled."""
    panel = panel_with(Facets(days=60, horizon=1, held_out=1))
    trained = develop(panel, Preset.PLAIN, LossChoice.LOG1P, seed=0)
    folds = trained.backtest.folds
    assert [fold.origin_day for fold in folds] == [panel.cutoff_day - back for back in (1, 2, 3, 4)]
    left = [
        (np.log1p(fold.held.actual) - np.log1p(fold.answers[RIDGE].sales)) / fold.scale
        for fold in folds
    ]
    steps = np.ones(4 * panel.keys.series, dtype=np.int64)
    expected = conformal(np.concatenate(left), steps, 1)
    assert trained.forecaster.spread.quantiles.tolist() == expected.tolist()


def base_of(fold: Fold) -> bytes:
    return fold.answers[ALONE].sales.tobytes()


def test_no_fold_chooses_its_pace_by_its_own_test() -> None:
    """Sales that jumped before the origin, and then stayed or fell back: what came after the origin
    decides the pace that is published, and no answer of the fold."""
    panel = panel_with(Facets(shops=3, products=3, days=90, horizon=14, held_out=0))
    [origin] = fold_origins(panel)
    stayed, fell = (np.array(panel.units) for _ in range(2))
    for units, last in ((stayed, panel.cutoff), (fell, origin)):
        units[:, origin - 10 : last + 1] *= 5
    panels = [replace(panel, units=units) for units in (stayed, fell)]
    assert [choose_pace(each) for each in panels] == list(PACES)
    one, two = (develop(each, Preset.FULL, LossChoice.LOG1P, seed=0) for each in panels)
    assert [base_of(fold) for fold in one.backtest.folds] == [
        base_of(fold) for fold in two.backtest.folds
    ]


def test_sparse_panel_too_short_to_tell_has_the_slow_pace() -> None:
    """Series that sell on one day in five say little about their weekdays."""
    assert choose_pace(panel_with(Facets(days=30, held_out=2, level=-1.5))) is PACES[1]


def closed_on(panel: Panel, days: slice, *, sold: bool = False) -> Panel:
    """The panel with all shops closed on some days, on which they may have sold all the same."""
    closed = np.zeros(panel.units.shape, dtype=bool)
    closed[:, days] = True
    units = np.where(closed & (not sold), 0, panel.units).astype(np.float32)
    shut = Covariate("shut", CovariateKind.FLAG, "", closed.astype(np.float32))
    return replace(panel, units=units, covariates=(shut,), closed=closed, closed_by="shut")


def test_fold_that_was_closed_throughout_is_none() -> None:
    """It would say nothing: an older one is tested, and gives the intervals."""
    panel = panel_with(Facets(days=160, horizon=14, held_out=7))
    closed = closed_on(panel, slice(panel.cutoff - 13, panel.cutoff + 1))
    assert fold_origins(closed) == [panel.cutoff - 28]
    trained = develop(closed, Preset.PLAIN, LossChoice.LOG1P, seed=0)
    assert trained.forecaster.spread.quantiles.shape == (14, 2)
    assert np.isfinite(trained.forecaster.spread.quantiles).all()


def test_closing_before_a_single_fold_leaves_the_usual_intervals() -> None:
    """Closed for the last two weeks of a short panel."""
    panel = panel_with(Facets(days=60, horizon=14, held_out=7))
    closed = closed_on(panel, slice(panel.cutoff - 13, panel.cutoff + 1))
    trained = develop(closed, Preset.PLAIN, LossChoice.LOG1P, seed=0)
    assert trained.backtest.folds == ()
    assert set(np.abs(trained.forecaster.spread.quantiles).ravel()) == {on_grid([USUAL])[0]}


@pytest.mark.parametrize("loss", LossChoice)
def test_panel_that_never_opens_has_the_base_alone(loss: LossChoice) -> None:
    """Though its rows have sales: no target is left, and no regressor is published."""
    panel = closed_on(panel_with(Facets(days=60, held_out=7)), slice(0, 53), sold=True)
    trained = develop(panel, Preset.FULL, loss, seed=0)
    assert trained.backtest.chosen == ALONE
    assert not trained.fitted.recipe.corrected
    assert trained.backtest.folds == ()
    assert np.isfinite(trained.forecaster.predict(held_out(panel).requests).sales_p90).all()


def test_plain_on_a_panel_that_never_opens_is_refused() -> None:
    """It has no base to fall back on."""
    panel = closed_on(panel_with(Facets(days=60)), slice(0, 60), sold=True)
    with pytest.raises(ModelwireError, match="no series is open on any day"):
        develop(panel, Preset.PLAIN, LossChoice.LOG1P, seed=0)


@pytest.mark.parametrize("loss", [LossChoice.LOG1P, LossChoice.COUNT])
@pytest.mark.parametrize("last_days", [0, 9])
def test_number_without_values_in_training_teaches_nothing(
    loss: LossChoice, last_days: int
) -> None:
    """A price that was never written, or only since after the folds' origins: requests with one and
    without are answered, in the first case alike, by the graph too."""
    panel = panel_with(Facets(shops=3, products=3, days=70, horizon=14, number=True))
    [price] = panel.covariates
    values = price.values.copy()
    values[:, : panel.cutoff + 1 - last_days] = np.nan
    panel = replace(panel, covariates=(replace(price, values=values),))
    forecaster = training(panel, Preset.FULL, loss)
    assert forecaster.numbers == ("price",)
    fitted = fit(panel, recipe_of(loss=estimator.Loss(loss)))
    requests = held_out(panel).requests
    given, left_out = (
        forecaster_of(fitted)
        .predict(replace(requests, covariates={"price": np.full(len(requests), value, np.float32)}))
        .sales
        for value in (3.0, np.nan)
    )
    assert np.isfinite(given).all()
    if not last_days:
        assert (given == left_out).all()
    export(forecaster_of(fitted), "day")


def test_panel_too_short_for_a_fold_is_trained_all_the_same() -> None:
    """28 days: no backtest, the intervals of a normal spread, and the fast pace."""
    panel = panel_with(Facets(days=30, held_out=2))
    assert fold_origins(panel) == []
    assert choose_pace(panel) is PACES[0]
    trained = develop(panel, Preset.PLAIN, LossChoice.LOG1P, seed=0)
    assert trained.backtest.folds == ()
    assert set(trained.forecaster.spread.quantiles.ravel()) == set(on_grid([-USUAL, USUAL]))
    assert np.isfinite(trained.forecaster.predict(held_out(panel).requests).sales).all()


def test_fold_is_tested_on_days_up_to_the_cutoff() -> None:
    """What is held out of a fold lies after its origin and not after the panel's cutoff."""
    panel = panel_with(SHORT)
    trained = develop(panel, Preset.PLAIN, LossChoice.LOG1P, seed=0)
    [fold] = trained.backtest.folds
    assert fold.origin_day == panel.cutoff_day - 14
    assert fold.held.requests.days.max() == panel.cutoff_day
    assert set(fold.held.steps.tolist()) == set(range(1, 15))
    assert len(fold.scale) == len(fold.held)


@pytest.mark.parametrize("seed", range(3))
def test_held_out_days_change_nothing_in_the_model(seed: int) -> None:
    """Scrambled days after the cutoff leave every byte of the model alone, intervals included."""
    panel = panel_with(replace(SHORT, closed=True, holidays=True))
    ours = export(training(panel), "day")
    assert export(training(scrambled_after(panel, panel.cutoff, seed)), "day") == ours


def test_held_out_days_change_nothing_in_trees() -> None:
    """The same with trees, traffic and the choice between them."""
    panel = panel_with(replace(SHORT, shops=3, products=3, traffic=True, holidays=True))
    ours = export(training(panel, Preset.FULL), "day")
    assert export(training(scrambled_after(panel, panel.cutoff, 1), Preset.FULL), "day") == ours


def test_last_known_day_does_change_the_model() -> None:
    """The cutoff is not a day early: without this the tests above could pass on nothing."""
    panel = panel_with(SHORT)
    changed = scrambled_after(panel, panel.cutoff - 1, 1)
    assert export(training(panel), "day") != export(training(changed), "day")


def test_seed_is_used() -> None:
    """Another seed gives other trees, the same seed the same bytes."""
    panel = panel_with(Facets(shops=3, products=3, days=60))
    ours, again, other = (
        export(
            develop(panel, Preset.FULL, LossChoice.LOG1P, seed=seed).forecaster,
            "day",
        )
        for seed in (0, 0, 1)
    )
    assert ours == again
    assert ours != other


def held_rows(actual: Floats) -> HeldOut:
    panel = panel_with(Facets(days=40, held_out=2))
    held = held_out(panel)
    keep = np.arange(len(actual))
    return replace(
        held,
        requests=held.requests.take(keep),
        series=held.series[keep],
        steps=held.steps[keep],
        actual=actual,
        weights=np.ones(len(actual)),
        opened=np.ones(len(actual), dtype=bool),
    )


def fold_of(answers: Mapping[str, Floats], actual: Floats) -> Fold:
    def forecasts(sales: Floats) -> Forecasts:
        flags = np.ones(len(sales), dtype=np.int64)
        return Forecasts(sales, sales, sales, flags, flags)

    given = {name: forecasts(sales) for name, sales in answers.items()}
    return Fold(0, held_rows(actual), given, np.ones(len(actual)))


ACTUAL = np.array([10.0, 20.0, 0.0, 40.0])


def contenders(*names: str) -> dict[str, Recipe]:
    return dict.fromkeys(names, recipe_of())


@pytest.mark.parametrize(
    ("base", "trees", "winner"), [(1.5, 1.1, TREES), (1.1, 1.5, ALONE), (1.1, 1.1, ALONE)]
)
def test_trees_are_published_only_if_they_win(base: float, trees: float, winner: str) -> None:
    """By RMSLE over all folds; a draw is the simpler model's."""
    folds = [fold_of({ALONE: ACTUAL * base, TREES: ACTUAL * trees}, ACTUAL)]
    assert _choose(folds, contenders(ALONE, TREES), LossChoice.LOG1P) == winner


def test_folds_decide_together() -> None:
    """Trees that win a little on one fold and lose much on the other lose."""
    folds = [
        fold_of({ALONE: ACTUAL * 1.2, TREES: ACTUAL * 1.1}, ACTUAL),
        fold_of({ALONE: ACTUAL * 1.2, TREES: ACTUAL * 2.0}, ACTUAL),
    ]
    assert _choose(folds, contenders(ALONE, TREES), LossChoice.LOG1P) == ALONE
    assert Backtest(tuple(folds), ALONE).score(ALONE)["wape"] == pytest.approx(0.2)


@pytest.mark.parametrize(("counts", "winner"), [(1.05, COUNTS), (1.3, TREES)])
def test_auto_takes_the_loss_with_the_smaller_wape(counts: float, winner: str) -> None:
    """Volume is what the count loss is for, so volume decides."""
    answers = {ALONE: ACTUAL * 1.4, TREES: ACTUAL * 1.2, COUNTS: ACTUAL * counts}
    folds = [fold_of(answers, ACTUAL)]
    assert _choose(folds, contenders(ALONE, TREES, COUNTS), LossChoice.AUTO) == winner


@pytest.mark.parametrize(
    ("base", "counts", "winner"),
    [
        # Wrong everywhere, and right in sum, against next to nothing forecast: WAPE 1.05 to .95.
        (ACTUAL * 0.05, np.array([26.9, 1.6, 18.4, 23.1]), COUNTS),
        (ACTUAL * 1.2, ACTUAL * 1.3, ALONE),
        (ACTUAL * 1.2, ACTUAL * 1.2, ALONE),
    ],
)
def test_counts_are_published_only_if_they_win_on_volume(
    base: Floats, counts: Floats, winner: str
) -> None:
    """By WAPE and bias together, though the base alone may have the smaller RMSLE or WAPE."""
    folds = [fold_of({ALONE: base, COUNTS: counts}, ACTUAL)]
    assert _choose(folds, contenders(ALONE, COUNTS), LossChoice.COUNT) == winner


def test_count_is_taken_where_nothing_can_be_tested() -> None:
    """It was asked for."""
    assert _choose([], contenders(ALONE, COUNTS), LossChoice.COUNT) == COUNTS


def test_panel_without_a_fold_gets_the_base() -> None:
    """Trees that won nothing are not published."""
    assert _choose([], contenders(ALONE, TREES), LossChoice.LOG1P) == ALONE


def test_count_loss_keeps_the_volume() -> None:
    """Sparse series: the count path adds up to what was sold, the log path to half of it."""
    panel = panel_with(Facets(products=12, days=120, level=-0.7, horizon=14, held_out=14))
    held = held_out(panel)
    bias = {}
    for loss in (LossChoice.COUNT, LossChoice.LOG1P):
        sales = training(panel, Preset.FULL, loss).predict(held.requests).sales
        bias[loss] = scores(held.actual, sales, held.weights)["bias"]
    assert abs(bias[LossChoice.COUNT]) < 0.12
    assert bias[LossChoice.LOG1P] < -0.15


CLOSED = Facets(shops=5, products=8, days=140, level=3.0, horizon=14, held_out=14, closed=True)


def test_closed_days_are_0_and_pull_nothing_down() -> None:
    """On known closed days exactly 0; open days as good as those of a panel that never closes."""
    errors, biases = {}, {}
    for name, facets in (("closed", CLOSED), ("never closed", replace(CLOSED, closed=False))):
        panel = panel_with(facets)
        held = held_out(panel)
        answers = training(panel, Preset.FULL).predict(held.requests)
        weekdays = panel.weekdays(panel.cutoff + held.steps)
        opened = weekdays != 6
        if facets.closed:
            assert not held.opened[~opened].any()
            for values in (answers.sales, answers.sales_p10, answers.sales_p90):
                assert (values[~opened] == 0).all()
        actual, sales = held.actual[opened], answers.sales[opened]
        found = scores(actual, sales, held.weights[opened])
        errors[name] = found["rmsle"]
        # In logs, as it learns: what a squared error of logs leaves out of the volume is no pull.
        biases[name] = float((np.log1p(sales) - np.log1p(actual)).mean())
    assert abs(biases["closed"]) <= 0.03
    assert abs(biases["closed"]) <= abs(biases["never closed"]) + 0.02
    assert errors["closed"] <= errors["never closed"] * 1.03


def test_closed_on_another_day_than_ever_before_is_0() -> None:
    """A request says which day is closed; the model need not have seen that weekday closed."""
    panel = panel_with(CLOSED)
    forecaster = training(panel)
    requests = held_out(panel).requests
    shut = {"shut": np.ones(len(requests), dtype=np.float32)}
    assert not forecaster.predict(replace(requests, covariates=shut)).sales.any()
    left_out = {"shut": np.full(len(requests), np.nan, dtype=np.float32)}
    assert forecaster.predict(replace(requests, covariates=left_out)).sales.all()


def test_intervals_cover_about_eight_in_ten() -> None:
    """On days that nobody saw."""
    panel = panel_with(Facets(shops=6, products=10, days=120, horizon=14, held_out=14))
    held = held_out(panel)
    found = interval_scores(held.actual, training(panel).predict(held.requests))
    assert 0.72 <= found["coverage"] <= 0.88


def test_unknown_keys_are_answered_and_said_to_be() -> None:
    """From a mean of what shares a key with them, with a wider interval."""
    panel = panel_with(Facets(shops=6, products=10, days=120))
    forecaster = training(panel, Preset.FULL)
    one = held_out(panel).requests.take(np.array([0, 0]))
    columns = {"shop": ["shop-0", "shop-0"], "product": ["p000", "new"]}
    found = forecaster.predict(replace(one, columns=columns))
    assert found.known_series.tolist() == [1, 0]
    logs = [np.log1p(each) for each in (found.sales_p10, found.sales, found.sales_p90)]
    assert (logs[2] - logs[0])[1] > (logs[2] - logs[0])[0]
    assert found.sales[1] > 0


def test_progress_names_each_step() -> None:
    """One line for each fold and one for the training."""
    said: list[str] = []
    develop(panel_with(SHORT), Preset.PLAIN, LossChoice.LOG1P, seed=0, progress=said.append)
    assert said == ["backtest: training up to 2024-02-05", "training ridge on 19 series"]


def test_earlier_cutoff_is_another_panel() -> None:
    """The panel as of an origin holds out what lies after it."""
    panel = panel_with(SHORT)
    earlier = as_of(panel, 30)
    assert (earlier.cutoff, earlier.held_out) == (30, 33)
    assert fit(earlier, recipe_of(corrected=False)).past.logs.shape[1] == 31


def test_metrics_by_hand() -> None:
    """RMSLE, its weighted kind, WAPE, bias, pinball and coverage of three rows, on paper."""
    actual, predicted = np.array([0.0, 1.0, 3.0]), np.array([1.0, 1.0, 1.0])
    found = scores(actual, predicted, np.array([1.0, 1.0, 2.0]))
    assert found["rmsle"] == pytest.approx(np.log(2) * np.sqrt(2 / 3))
    assert found["nwrmsle"] == pytest.approx(np.log(2) * np.sqrt(3 / 4))
    assert found["wape"] == pytest.approx(3 / 4)
    assert found["bias"] == pytest.approx(-1 / 4)
    flags = np.ones(3, dtype=np.int64)
    low, high = np.array([0.0, 1.5, 1.0]), np.array([2.0, 2.0, 2.0])
    intervals = interval_scores(actual, Forecasts(predicted, low, high, flags, flags))
    assert intervals["coverage"] == pytest.approx(1 / 3)
    lows, highs = (0.0 + 0.45 + 0.2) / 3, (0.2 + 0.1 + 0.9) / 3
    assert intervals["pinball"] == pytest.approx((lows + highs) / 2)


def test_nothing_sold_has_no_relative_errors() -> None:
    """WAPE and bias of no sales would be a division by 0."""
    zeros = np.zeros(3)
    assert list(scores(zeros, zeros, np.ones(3))) == ["rmsle", "nwrmsle"]


def test_baselines_by_hand() -> None:
    """lag-7 repeats the last week before the cutoff, the means are those of logs."""
    panel = panel_with(replace(SHORT, held_out=10))
    held = held_out(panel)
    series, start = panel.keys.series, panel.cutoff + 1
    assert len(held) == 10 * series
    logs = np.log1p(panel.units[4].astype(np.float64))
    for day in (0, 6, 7, 9):
        row = day * series + 4
        assert held.series[row] == 4
        assert held.others[Baseline.LAG_7][row] == panel.units[4, start - 7 + day % 7]
        for baseline, days in ((Baseline.MEAN_14_LOG, 14), (Baseline.MEAN_28_LOG, 28)):
            mean = np.expm1(logs[start - days : start].mean())
            assert held.others[baseline][row] == pytest.approx(mean)
