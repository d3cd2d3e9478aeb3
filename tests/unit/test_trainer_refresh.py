"""A refresh: a parent's regressor on newer tables. What stays, what is refused, and what it gains."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import Ridge

from adapters.bundles import write_bundle
from adapters.object_store import ObjectStore, open_store
from adapters.onnx_model import load_onnx_model
from schemas.errors import UsageProblem
from schemas.manifest import Lineage
from tests.bundles import store_bundle
from tests.unit.trainer_panels import (
    CONFIG,
    FIRST_DAY,
    Facets,
    dataset_in,
    made_up_columns,
    trained_on,
)
from trainer import lifted
from trainer.bundle import Bundle, assemble
from trainer.dataset import DatasetFile
from trainer.estimator import Loss, Preset, Recipe, Regressor, fit
from trainer.evaluation import held_out, scores
from trainer.graph import COEFFICIENTS, INTERCEPT, QUANTILES, _trees_node, export
from trainer.history import on_grid
from trainer.lifted import LiftedLine, LiftedTrees, lift
from trainer.lineage import lineage_of
from trainer.panel import number_of
from trainer.reading import read_panel
from trainer.refreshing import Parent, read_parent, refresh_bundle
from trainer.sources import open_sources
from trainer.spread import Spread, conformal, scale_of
from trainer.structural import PACES
from trainer.sums import make_exact
from trainer.training import Backtest, Trained

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)
EARLY, LATE = date(2024, 3, 15), date(2024, 3, 26)

FULL = Recipe(Preset.FULL, Loss.LOG1P, PACES[0], seed=3)
RECIPES = {
    "plain": replace(FULL, preset=Preset.PLAIN),
    "trees": FULL,
    "trees on counts": replace(FULL, loss=Loss.COUNT),
    "the base alone": replace(FULL, corrected=False),
}

PROMO = CONFIG + '\n[covariates]\npromo = "Whether it is on promotion"\n'


def trained(file: DatasetFile, recipe: Recipe, cutoff: date = EARLY) -> Bundle:
    """A bundle with this recipe, which no backtest had to choose."""
    with open_sources(file) as sources:
        panel = read_panel(file, sources, cutoff=cutoff)
        fitted = fit(panel, recipe)
        residuals = np.linspace(-2.0, 2.0, 99)
        quantiles = conformal(residuals, np.resize(np.arange(1, 15), 99), panel.horizon)
        forecaster = fitted.forecaster(Spread(scale_of(fitted.past), quantiles))
        lineage = lineage_of(file, sources, fitted, chosen="x", features=forecaster.features)
    return assemble(
        file,
        panel,
        Trained(forecaster, fitted, Backtest((), "x")),
        lineage,
        again=partial(fit, recipe=recipe, budget=1_000),
        created_at=NOON,
        progress=lambda line: None,
    )


def parent_of(store: ObjectStore, bundle: Bundle) -> Parent:
    return read_parent(store, write_bundle(store, bundle.manifest, bundle.files))


def refreshed(file: DatasetFile, parent: Parent, cutoff: date) -> Bundle:
    return refresh_bundle(file, parent, created_at=NOON, cutoff=cutoff)


def lineage_in(bundle: Bundle) -> Lineage:
    assert bundle.manifest.lineage is not None
    return bundle.manifest.lineage


def regressor_in(bundle: Bundle) -> list[bytes]:
    """The node of the trees, or the constants of a linear model."""
    graph = onnx.load_model_from_string(bundle.files["model.onnx"]).graph
    nodes = [node.SerializeToString() for node in graph.node if node.name == "regressor"]
    line = [each for each in graph.initializer if each.name in (COEFFICIENTS, INTERCEPT)]
    return nodes or [each.SerializeToString() for each in line]


def with_promotions(columns: dict[str, Any], value: float = 1.0) -> dict[str, Any]:
    days = np.arange(len(columns["day"]))
    return {**columns, "promo": np.where(days % 5 == 0, value, 0.0)}


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store((tmp_path / "store").as_uri())


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_parents_own_cutoff_gives_the_parents_own_model(
    tmp_path: Path, store: ObjectStore, recipe: str
) -> None:
    """Tables, calibration and regressor are all there: every byte of the graph comes out again."""
    file = dataset_in(tmp_path, with_promotions(made_up_columns()), PROMO)
    bundle = trained(file, RECIPES[recipe])
    again = refreshed(file, parent_of(store, bundle), EARLY)
    assert again.files["model.onnx"] == bundle.files["model.onnx"]


def test_a_refresh_with_nothing_newer_says_so(tmp_path: Path, store: ObjectStore) -> None:
    """In a line while it works, and in the card, which stays."""
    file = dataset_in(tmp_path)
    parent = parent_of(store, trained(file, RECIPES["the base alone"]))
    heard: list[str] = []
    made = refresh_bundle(file, parent, created_at=NOON, cutoff=EARLY, progress=heard.append)
    said = "this refresh has nothing newer: its cutoff 2024-03-15 is its parent's"
    assert f"note: {said}" in heard
    assert said in made.files["card.md"].decode()
    newer = refresh_bundle(file, parent, created_at=NOON, cutoff=LATE, progress=heard.append)
    assert "nothing newer" not in newer.files["card.md"].decode()


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_later_cutoff_moves_the_tables_and_not_the_regressor(
    tmp_path: Path, store: ObjectStore, recipe: str
) -> None:
    """The node is the parent's byte for byte, the horizon begins later, and the parent is named."""
    file = dataset_in(tmp_path)
    bundle = trained(file, RECIPES[recipe])
    parent = parent_of(store, bundle)
    later = refreshed(file, parent, LATE)
    assert regressor_in(later) == regressor_in(bundle)
    assert len(regressor_in(later)) == {"plain": 2, "the base alone": 0}.get(recipe, 1)
    assert later.files["model.onnx"] != bundle.files["model.onnx"]
    assert later.manifest.contract.horizon is not None
    assert later.manifest.contract.horizon.first == LATE + timedelta(days=1)
    assert lineage_in(later).parent == parent.digest
    assert lineage_in(later).recipe == lineage_in(bundle).recipe
    assert later.manifest.parity is not None
    assert later.manifest.parity.max_difference <= 1e-7


def test_a_refreshed_bundle_can_be_refreshed(tmp_path: Path, store: ObjectStore) -> None:
    """In two steps one gets where one step leads; each names the one before it."""
    file = dataset_in(tmp_path)
    first = parent_of(store, trained(file, FULL))
    second = parent_of(store, refreshed(file, first, date(2024, 3, 20)))
    third = refreshed(file, second, LATE)
    assert third.files["model.onnx"] == refreshed(file, first, LATE).files["model.onnx"]
    assert lineage_in(third).parent == second.digest


def test_an_earlier_cutoff_is_refused(tmp_path: Path, store: ObjectStore) -> None:
    """The regressor has seen the days after it."""
    file = dataset_in(tmp_path)
    parent = parent_of(store, trained(file, FULL))
    with pytest.raises(UsageProblem, match=r"2024-03-14 lies before that of bundle .*2024-03-15"):
        refreshed(file, parent, EARLY - timedelta(days=1))


@pytest.mark.parametrize(
    ("was", "becomes", "said"),
    [
        ("horizon = 14", "horizon = 15", "horizon is 15, the parent's is 14"),
        ("min_days = 3", "min_days = 4", "min_days is 4, the parent's is 3"),
        ('model = "sales"', 'model = "other"', "model is 'other', the parent's is 'sales'"),
        (
            'product = "The product"',
            "",
            r"keys is \['shop'\], the parent's is \['shop', 'product'\]",
        ),
        (
            "horizon = 14",
            'horizon = 14\nloss = "count"',
            "loss is 'count', the parent's is 'log1p'",
        ),
        (
            "[keys]",
            '[traffic]\nsource = "t.csv"\nkey = "shop"\nvalue = "v"\n[keys]',
            "traffic.key is",
        ),
    ],
)
def test_a_dataset_of_another_meaning_is_refused(
    tmp_path: Path, store: ObjectStore, was: str, becomes: str, said: str
) -> None:
    """Every key that differs is named with both values."""
    parent = parent_of(store, trained(dataset_in(tmp_path), FULL))
    with pytest.raises(UsageProblem, match=said):
        refreshed(dataset_in(tmp_path, config=CONFIG.replace(was, becomes)), parent, LATE)


def test_a_dataset_may_lie_elsewhere_and_say_more(tmp_path: Path, store: ObjectStore) -> None:
    """Source, licence, holdout, slices and descriptions are not what the regressor learned from."""
    file = dataset_in(tmp_path)
    parent = parent_of(store, trained(file, FULL))
    moved = CONFIG.replace("panel.parquet", "newer.parquet").replace("The shop", "Which shop")
    moved = moved.replace("holdout = 10", 'holdout = 5\nslices = ["shop"]')
    (tmp_path / "newer.parquet").write_bytes(file.source.read_bytes())
    other = dataset_in(tmp_path, config=moved)
    again = refreshed(other, parent, LATE)
    assert again.files["model.onnx"] == refreshed(file, parent, LATE).files["model.onnx"]
    assert lineage_in(again).config == moved


def test_other_columns_than_the_regressor_learned_from_are_refused(
    tmp_path: Path, store: ObjectStore
) -> None:
    """A flag that got other values is a number now; both sides of the difference are named."""
    file = dataset_in(tmp_path, with_promotions(made_up_columns()), PROMO)
    parent = parent_of(store, trained(file, FULL))
    other = dataset_in(tmp_path, with_promotions(made_up_columns(), value=0.5), PROMO)
    with pytest.raises(UsageProblem, match=r"without .*promo:lift.*") as caught:
        refreshed(other, parent, LATE)
    assert "modelwire train" in caught.value.hint


def test_a_year_of_data_has_columns_that_a_shorter_parent_never_saw(
    tmp_path: Path, store: ObjectStore
) -> None:
    """With a year the calendar comes in: the refusal says which columns are new."""
    file = dataset_in(tmp_path, made_up_columns(days=370))
    parent = parent_of(store, trained(file, FULL, cutoff=date(2024, 12, 20)))
    refreshed(file, parent, date(2024, 12, 29))
    with pytest.raises(UsageProblem, match=r"other columns .* reads: with "):
        refreshed(file, parent, date(2024, 12, 30))


def test_keys_of_another_type_are_refused(tmp_path: Path, store: ObjectStore) -> None:
    """The columns are the same, but requests would have to carry numbers where they carry text."""
    columns = made_up_columns()
    columns["shop"] = np.array([name.removeprefix("shop-") for name in columns["shop"]])
    parent = parent_of(store, trained(dataset_in(tmp_path, columns), FULL))
    columns["shop"] = columns["shop"].astype(np.int64)
    with pytest.raises(UsageProblem, match="shop is int64, was string"):
        refreshed(dataset_in(tmp_path, columns), parent, LATE)


def test_a_foreign_bundle_has_nothing_to_refresh(store: ObjectStore) -> None:
    """It is told apart by its manifest, and its graph would be refused too."""
    digest = store_bundle(store, "sales", 1.0)
    with pytest.raises(UsageProblem, match=r"does not say how it was made: .* has no lineage"):
        read_parent(store, digest)
    content = store.get(f"bundles/{digest.removeprefix('sha256:')}/model.onnx", limit=10**6)
    with pytest.raises(UsageProblem, match="is no graph of this trainer"):
        lift(content, Loss.LOG1P)


def learned(regressor: Any, missing: float = 0.0) -> tuple[Any, Any]:
    generator = np.random.default_rng(5)
    features = generator.normal(size=(3_000, 6)).astype(np.float32)
    target = np.abs(features[:, 0] + features[:, 1] * features[:, 2])
    if missing:
        features[generator.random(features.shape) < missing] = np.nan
    return regressor.fit(features.astype(np.float64), target), features


REGRESSORS: dict[str, tuple[Any, Loss, float]] = {
    "trees": (HistGradientBoostingRegressor(max_iter=60), Loss.LOG1P, 0.0),
    "trees with gaps": (HistGradientBoostingRegressor(max_iter=60), Loss.LOG1P, 0.2),
    "trees on counts": (HistGradientBoostingRegressor(loss="poisson"), Loss.COUNT, 0.0),
    "leaves alone": (HistGradientBoostingRegressor(min_samples_leaf=2_000), Loss.LOG1P, 0.0),
}


@pytest.mark.parametrize("name", REGRESSORS)
def test_a_lifted_regressor_predicts_what_it_was_trained_to(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numpy over the node's attributes equals scikit-learn, whatever the rows at once."""
    estimator, loss, missing = REGRESSORS[name]
    regressor, features = learned(estimator, missing)
    make_exact(regressor)
    node = _trees_node(regressor, features.shape[1])
    found = LiftedTrees(node, loss).predict(features)
    assert np.array_equal(found, regressor.predict(features))
    assert found.std() > 0.05 or name == "leaves alone"
    monkeypatch.setattr(lifted, "CHUNK_CELLS", 1_000)
    assert np.array_equal(LiftedTrees(node, loss).predict(features), found)


def test_a_lifted_line_predicts_what_it_was_trained_to() -> None:
    """Column by column, to the bit, on features that lie on the grid."""
    regressor, features = learned(Ridge())
    make_exact(regressor)
    on_the_grid = on_grid(features)
    found = LiftedLine(regressor.coef_, regressor.intercept_).predict(on_the_grid)
    assert np.array_equal(found, regressor.predict(on_the_grid))
    assert found.std() > 0.05


@pytest.mark.parametrize("lost", [COEFFICIENTS, INTERCEPT, QUANTILES])
def test_a_graph_that_lacks_a_part_is_refused(lost: str) -> None:
    """Half a line would be taken for the base alone."""
    plain = trained_on(Facets(shops=2, products=2), replace(FULL, preset=Preset.PLAIN))
    model = onnx.load_model_from_string(export(plain, "day"))
    assert lift(model.SerializeToString(), Loss.LOG1P).regressor is not None
    [constant] = [each for each in model.graph.initializer if each.name == lost]
    model.graph.initializer.remove(constant)
    with pytest.raises(UsageProblem, match="is no graph of this trainer"):
        lift(model.SerializeToString(), Loss.LOG1P)


def test_a_value_on_a_threshold_goes_below() -> None:
    """At most the threshold, as the node says; the next float32 above it goes the other way."""
    regressor, features = learned(HistGradientBoostingRegressor(max_iter=1, max_leaf_nodes=2))
    node = _trees_node(regressor, features.shape[1])
    one = LiftedTrees(node, Loss.LOG1P)
    by_name = {each.name: each for each in node.attribute}
    threshold = np.float32(by_name["nodes_values"].floats[0])
    column = by_name["nodes_featureids"].ints[0]
    asked = np.zeros((3, features.shape[1]), dtype=np.float32)
    asked[:, column] = [np.nextafter(threshold, -9), threshold, np.nextafter(threshold, 9)]
    below, at, above = one.predict(asked)
    assert below == at != above


def test_a_lifted_regressor_is_written_as_it_is() -> None:
    """No converter comes between: the node is copied."""
    regressor, features = learned(HistGradientBoostingRegressor(max_iter=5))
    node = _trees_node(regressor, features.shape[1])
    kept: Regressor = LiftedTrees(node, Loss.LOG1P)
    copied = _trees_node(kept, features.shape[1])
    assert copied.SerializeToString() == node.SerializeToString()


def drifting_columns(days: int) -> dict[str, Any]:
    """40 series whose levels wander, so that what was true two weeks ago is not now."""
    generator = np.random.default_rng(11)
    shop, product, day = (axis.ravel() for axis in np.mgrid[0:4, 0:10, 0:days])
    level = 2.5 + generator.normal(0.0, 0.12, (40, days)).cumsum(axis=1)
    units = generator.poisson(np.exp(level.clip(0, 6)).ravel() * (1 + 0.3 * (day % 7 == 5)))
    keep = (units > 0) | (day == 0) | (day == days - 1)
    return {
        "day": FIRST_DAY + day[keep],
        "shop": np.array([f"shop-{i}" for i in shop[keep]]),
        "product": np.array([f"p{i}" for i in product[keep]]),
        "units": units[keep],
    }


def rmsle_after(bundle: Bundle, file: DatasetFile, cutoff: date) -> float:
    """A bundle's error on the days after a cutoff; days that it does not reach are its last one."""
    with open_sources(file) as sources:
        held = held_out(read_panel(file, sources, cutoff=cutoff))
    horizon = bundle.manifest.contract.horizon
    assert horizon is not None
    last = number_of(horizon.last)
    model = load_onnx_model(bundle.files["model.onnx"])
    columns = {
        name: np.array(values, dtype=object) for name, values in held.requests.columns.items()
    }
    feeds: dict[str, Any] = {**columns, file.dataset.date: np.minimum(held.requests.days, last)}
    [sales] = model.run(feeds, ["sales"])
    return scores(held.actual, sales.astype(np.float64), held.weights)["rmsle"]


def test_a_refresh_regains_most_of_what_age_costs(tmp_path: Path, store: ObjectStore) -> None:
    """On the same days: stale tables, the same trees on new tables, and trees that were fitted anew."""
    file = dataset_in(tmp_path, drifting_columns(150))
    early, late = date(2024, 4, 20), date(2024, 5, 6)
    stale = trained(file, FULL, early)
    fresh = refreshed(file, parent_of(store, stale), late)
    anew = trained(file, FULL, late)
    errors = [rmsle_after(each, file, late) for each in (stale, fresh, anew)]
    regained = (errors[0] - errors[1]) / (errors[0] - errors[2])
    assert errors[1] < 0.8 * errors[0], errors
    assert regained > 0.7, errors
