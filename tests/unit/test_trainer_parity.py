"""The certificate: graph and Python agree for every kind of panel, and no wrong conversion passes."""

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import numpy_helper
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestRegressor
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OrdinalEncoder

from adapters.onnx_model import load_onnx_model
from schemas.errors import RefusedByRule
from tests.unit.trainer_panels import (
    Facets,
    forecaster_of,
    panel_with,
    recipe_of,
    trained_on,
)
from trainer.bundle import stand_ins
from trainer.estimator import Forecaster, Loss, Preset, fit
from trainer.evaluation import held_out
from trainer.graph import export
from trainer.history import Lookup, number_on_grid
from trainer.keys import Float32s, Floats
from trainer.parity import BATCHES, LIMIT, cases, compare
from trainer.requests import Requests

EVERYTHING = Facets(flag=True, number=True, closed=True, holidays=True, weights=True)


def certificate(forecaster: Forecaster, requests: Requests, content: bytes | None = None) -> Any:
    """What the comparison of a forecaster with its graph, or with another one, says."""
    content = export(forecaster, "day") if content is None else content
    return compare(load_onnx_model(content), forecaster, cases(forecaster, requests), "day")


KINDS = {
    "keys alone": (Facets(), recipe_of()),
    "plain": (EVERYTHING, recipe_of(Preset.PLAIN)),
    "base alone": (EVERYTHING, recipe_of(corrected=False)),
    "everything": (EVERYTHING, recipe_of()),
    "whole-number keys": (Facets(whole_keys=True, flag=True), recipe_of()),
    "counts": (EVERYTHING, recipe_of(loss=Loss.COUNT)),
    "counts that are mostly 0": (Facets(level=-2.0), recipe_of(loss=Loss.COUNT)),
    "a closed covariate alone": (Facets(closed=True), recipe_of(corrected=False)),
    "season and trend": (
        Facets(products=2, days=700, yearly=0.5, trend=0.1),
        recipe_of(corrected=False),
    ),
    "sales of millions": (Facets(level=13.0, flag=True), recipe_of()),
    "counts of millions": (Facets(level=13.0, flag=True), recipe_of(loss=Loss.COUNT)),
    "millions in plain": (replace(EVERYTHING, level=15.0), recipe_of(Preset.PLAIN)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_graph_is_the_model(kind: str) -> None:
    """For each kind of panel and recipe all rows agree, in every batch and every case."""
    facets, recipe = KINDS[kind]
    panel = panel_with(facets)
    forecaster = forecaster_of(fit(panel, recipe))
    held = held_out(panel)
    agreement = certificate(forecaster, held.requests)
    assert BATCHES == (1, 7, 64, 256)
    assert agreement.max_difference <= 1e-7, "more than the rounding of an answer to float32"
    assert agreement.rows["held-out"] == len(held) == panel.keys.series * 7
    assert agreement.rows["unknown-keys"] == 4 * (panel.horizon + 2)
    assert min(agreement.rows.values()) > 0


@pytest.fixture(scope="module")
def everything() -> tuple[Forecaster, Requests]:
    panel = panel_with(EVERYTHING)
    return forecaster_of(fit(panel, recipe_of())), held_out(panel).requests


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_request_is_answered_alike(
    everything: tuple[Forecaster, Requests], data: st.DataObject
) -> None:
    """Keys, dates, flags and numbers that nobody listed give the same answers in both."""
    forecaster, _ = everything
    rows = data.draw(st.integers(1, 12))
    shops = st.sampled_from(["shop-0", "shop-3", "", "shop-9", "é" * 200])
    products = st.sampled_from(["p000", "p004", "P000", "\x00", "p4"])
    numbers = st.none() | st.floats(-1e5, 1e5, width=32)
    flags = st.none() | st.booleans()

    def drawn(values: st.SearchStrategy[Any]) -> list[Any]:
        return data.draw(st.lists(values, min_size=rows, max_size=rows))

    def covariate(values: st.SearchStrategy[Any]) -> Float32s:
        return np.array([np.nan if v is None else v for v in drawn(values)], dtype=np.float32)

    requests = Requests(
        {"shop": drawn(shops), "product": drawn(products)},
        np.array(drawn(st.integers(-719_162, 2_932_896)), dtype=np.int64),
        {"promotion": covariate(flags), "price": covariate(numbers), "shut": covariate(flags)},
    )
    found = compare(_loaded(forecaster), forecaster, {"drawn": requests}, "day")
    assert found.max_difference <= LIMIT


_graphs: dict[int, Any] = {}


def _loaded(forecaster: Forecaster) -> Any:
    if id(forecaster) not in _graphs:
        _graphs[id(forecaster)] = load_onnx_model(export(forecaster, "day"))
    return _graphs[id(forecaster)]


def test_cases_reach_every_branch(everything: tuple[Forecaster, Requests]) -> None:
    """Unknown keys of each kind, nulls, both values of flags, dates beside and far from the horizon."""
    forecaster, held = everything
    asked = cases(forecaster, held)
    answers = {case: forecaster.predict(requests) for case, requests in asked.items()}
    assert asked["held-out"] is held
    unknown = asked["unknown-keys"]
    known = [
        {
            (shop in forecaster.keys.vocabulary[0], product in forecaster.keys.vocabulary[1])
            for shop, product in zip(*unknown.columns.values(), strict=True)
        }
    ]
    assert known == [{(True, True), (True, False), (False, True), (False, False)}]
    assert set(answers["unknown-keys"].known_series.tolist()) == {0}
    assert set(answers["unknown-keys"].in_horizon.tolist()) == {0, 1}
    assert all(np.isnan(values).all() for values in asked["nulls"].covariates.values())
    edges = asked["edge-dates"]
    beside = {forecaster.cutoff_day + shift for shift in (0, 1, 7, 8)}
    assert set(edges.days.tolist()) == beside | {-719_162, 0, 2_932_896}
    assert set(answers["edge-dates"].in_horizon.tolist()) == {0, 1}
    for name in ("promotion", "shut"):
        assert {0.0, 1.0} <= set(edges.covariates[name].tolist())
    assert np.isnan(edges.covariates["price"]).any()
    assert np.nanmax(edges.covariates["price"]) == np.nanmax(held.covariates["price"])


def test_without_a_holdout_all_series_stand_in() -> None:
    """Where no days are held out every series is compared on every day of the horizon."""
    facets = replace(EVERYTHING, held_out=0)
    panel = panel_with(facets)
    forecaster = forecaster_of(fit(panel, recipe_of(corrected=False)))
    requests = stand_ins(panel)
    agreement = certificate(forecaster, requests)
    assert agreement.rows["held-out"] == panel.keys.series * panel.horizon
    assert set((requests.days - forecaster.cutoff_day).tolist()) == set(range(1, 8))


def constant(model: onnx.ModelProto, name: str) -> Any:
    [found] = [each for each in model.graph.initializer if each.name == name]
    return found


def changed(model: onnx.ModelProto, name: str, value: Any) -> None:
    found = constant(model, name)
    dtype = numpy_helper.to_array(found).dtype
    found.CopyFrom(numpy_helper.from_array(np.asarray(value, dtype=dtype), name))


def rewired(model: onnx.ModelProto, node: str, position: int, tensor: str) -> None:
    [found] = [each for each in model.graph.node if each.name == node]
    found.input[position] = tensor


def flip_table(model: onnx.ModelProto) -> None:
    name = "table/series-weekday/values"
    table = numpy_helper.to_array(constant(model, name)).copy()
    table[5 * 7 + 2] += 0.25
    changed(model, name, table)


def move_leaf(model: onnx.ModelProto) -> None:
    [node] = [each for each in model.graph.node if each.op_type == "TreeEnsembleRegressor"]
    [weights] = [each for each in node.attribute if each.name == "target_weights"]
    weights.floats[0] += 0.01


TAMPERED: dict[str, tuple[Any, str]] = {
    "one row of a table": (flip_table, "log scale"),
    "one leaf": (move_leaf, "log scale"),
    "weekday off by one": (lambda m: changed(m, "weekday/shift", 4), "log scale"),
    "cutoff off by one": (
        lambda m: changed(m, "step/cutoff", numpy_helper.to_array(constant(m, "step/cutoff")) + 1),
        "in_horizon|log scale",
    ),
    "horizon too short": (lambda m: changed(m, "step/last", 6), "in_horizon|log scale"),
    "known rows off by one": (lambda m: changed(m, "row/known", 18), "known_series is 0"),
    "cold rows off by one": (lambda m: changed(m, "cold/product/first", 24), "log scale"),
    "interval the wrong way round": (
        lambda m: changed(m, "spread/sales_p10/place", [1]),
        "sales_p10 is",
    ),
    "quantiles of another day": (
        lambda m: changed(
            m,
            "spread/quantiles/values",
            numpy_helper.to_array(constant(m, "spread/quantiles/values"))[::-1],
        ),
        "sales_p10 is",
    ),
    "closed days open": (lambda m: changed(m, "units/one", [[2.0]]), "log scale"),
    "flag for another": (lambda m: rewired(m, "flag/promotion", 0, "shut"), "log scale"),
    "number not on the grid": (
        lambda m: rewired(m, "number/price/column", 0, "price"),
        "log scale",
    ),
}


@pytest.mark.parametrize("case", TAMPERED)
def test_graph_that_was_changed_in_one_place_is_refused(
    everything: tuple[Forecaster, Requests], case: str
) -> None:
    """The refusal names what differs and the row that shows it."""
    tamper, expected = TAMPERED[case]
    forecaster, held = everything
    model = onnx.load_model_from_string(export(forecaster, "day"))
    tamper(model)
    with pytest.raises(RefusedByRule, match=expected) as caught:
        certificate(forecaster, held, model.SerializeToString())
    assert caught.value.exit_code == 3
    assert "the exported graph is not the trained model" in caught.value.message
    assert "for shop '" in caught.value.message


class Depends:
    """A graph that answers otherwise in batches of one size."""

    def __init__(self, forecaster: Forecaster, rows: int) -> None:
        self.honest = _loaded(forecaster)
        self.rows = rows

    def run(self, feeds: dict[str, Any], names: Any) -> list[Any]:
        answers = self.honest.run(feeds, names)
        wrong = len(feeds["day"]) == self.rows
        return [1.01 * each if wrong and each.dtype == np.float32 else each for each in answers]


@pytest.mark.parametrize("rows", BATCHES)
def test_answers_that_depend_on_their_batch_are_refused(
    everything: tuple[Forecaster, Requests], rows: int
) -> None:
    """Every size of batch is run, on enough rows to fill it."""
    forecaster, held = everything
    model: Any = Depends(forecaster, rows)
    with pytest.raises(RefusedByRule, match=f"batches of {rows}\\)"):
        compare(model, forecaster, cases(forecaster, held), "day")


# What skl2onnx converts wrong without a word. Each regressor is one that somebody could put into the
# estimator; the certificate, or the export before it, must stop it.


def matrix_of(forecaster: Forecaster, requests: Requests) -> tuple[Float32s, Floats]:
    """Features of the requests, and a target that depends on all kinds of them."""
    features, base = forecaster.matrix(requests)
    generator = np.random.default_rng(0)
    noise = generator.random(len(features))
    return features, (np.exp(base * 0.3) + features[:, 1] % 3 + noise).astype(np.float64)


def boosted(**settings: Any) -> HistGradientBoostingRegressor:
    return HistGradientBoostingRegressor(
        max_iter=20, min_samples_leaf=5, early_stopping=False, random_state=0, **settings
    )


def test_poisson_loss_without_its_exponential_is_refused(
    everything: tuple[Forecaster, Requests],
) -> None:
    """skl2onnx writes the trees of a Poisson loss and forgets the exp."""
    forecaster, held = everything
    features, target = matrix_of(forecaster, held)
    wrong = replace(forecaster, regressor=boosted(loss="poisson").fit(features, target))
    with pytest.raises(RefusedByRule, match="not the trained model"):
        certificate(wrong, held)
    right = replace(wrong, loss=Loss.COUNT)
    assert certificate(right, held).max_difference <= 2e-6


def test_count_graph_without_its_exponential_is_refused(
    everything: tuple[Forecaster, Requests],
) -> None:
    """The graph that a forgotten Exp of our own would give."""
    forecaster, held = everything
    features, target = matrix_of(forecaster, held)
    counts = replace(
        forecaster,
        loss=Loss.COUNT,
        regressor=boosted(loss="poisson").fit(features, target),
    )
    model = onnx.load_model_from_string(export(counts, "day"))
    [exponential] = [node for node in model.graph.node if node.name == "counts/units"]
    exponential.op_type = "Identity"
    with pytest.raises(RefusedByRule, match="not the trained model"):
        certificate(counts, held, model.SerializeToString())


def test_categorical_features_are_refused(everything: tuple[Forecaster, Requests]) -> None:
    """Trees that split on sets of categories become comparisons with a threshold; the same target in
    trees that compare is right."""
    forecaster, held = everything
    features, _ = matrix_of(forecaster, held)
    weekday = forecaster.features.index("weekday")
    target = np.array([3.0, 0.0, 5.0, 1.0, 4.0, 0.5, 2.0])[features[:, weekday].astype(int)]
    regressor = boosted(categorical_features=[weekday]).fit(features, target)
    with pytest.raises(RefusedByRule, match=r"not the trained model: sales is .* log scale"):
        certificate(replace(forecaster, regressor=regressor), held)
    numbers = boosted().fit(features, target)
    assert certificate(replace(forecaster, regressor=numbers), held).max_difference <= LIMIT


def test_features_finer_than_float32_are_refused(everything: tuple[Forecaster, Requests]) -> None:
    """Trees that were trained on float64 split between values that the graph cannot tell apart."""
    forecaster, held = everything
    first, *others = forecaster.lookups
    fine = 1.0 + 1e-9 * np.arange(len(first.table), dtype=np.float64)
    table: Any = np.repeat(fine[:, None], first.table.shape[1], axis=1)
    finer = replace(forecaster, lookups=(Lookup(first.axes, first.names, table), *others))
    features, _ = finer.matrix(held)
    target = (features[:, 0] - 1.0) * 1e9
    assert features.dtype == np.float64
    with pytest.raises(RefusedByRule, match="not the trained model"):
        certificate(replace(finer, regressor=boosted().fit(features, target)), held)


def test_forest_that_reads_missing_numbers_is_refused(
    everything: tuple[Forecaster, Requests],
) -> None:
    """A forest learns where NaN goes; its conversion sends NaN the other way."""
    forecaster, held = everything
    features, _ = matrix_of(forecaster, held)
    price = forecaster.features.index("number:price")
    assert np.isnan(features[:, price]).any()
    target = np.where(np.isnan(features[:, price]), 0.0, features[:, price])
    forest = RandomForestRegressor(n_estimators=5, random_state=0).fit(features, target)
    with pytest.raises(RefusedByRule, match=r"not the trained model: sales is .*, price nan"):
        certificate(replace(forecaster, regressor=forest), held)


def test_boosted_trees_that_read_missing_numbers_are_right(
    everything: tuple[Forecaster, Requests],
) -> None:
    """The same target in the trees that the estimator uses: converted as it was trained."""
    forecaster, held = everything
    features, _ = matrix_of(forecaster, held)
    price = forecaster.features.index("number:price")
    target = np.where(np.isnan(features[:, price]), 3.0, features[:, price])
    trees = replace(forecaster, regressor=boosted().fit(features, target))
    assert certificate(trees, held).max_difference <= 2e-6


@pytest.mark.parametrize("unknown", ["error", "use_encoded_value"])
def test_encoder_in_the_path_is_refused(
    everything: tuple[Forecaster, Requests], unknown: Any
) -> None:
    """An encoder before the regressor, which would pass unknown values silently, is not exported."""
    forecaster, held = everything
    features, target = matrix_of(forecaster, held)
    features = np.nan_to_num(features)
    value = -1 if unknown == "use_encoded_value" else None
    encoder = OrdinalEncoder(handle_unknown=unknown, unknown_value=value)
    pipeline = make_pipeline(encoder, Ridge()).fit(features, target)
    with pytest.raises(RefusedByRule, match="Pipeline"):
        export(replace(forecaster, regressor=pipeline), "day")


def test_regressor_without_a_conversion_is_refused(
    everything: tuple[Forecaster, Requests],
) -> None:
    """What skl2onnx does not know is a refusal with a sentence, not a traceback."""

    class Median:
        def fit(self, *_: Any) -> None: ...

        def predict(self, features: Float32s) -> Floats:
            return np.median(features, axis=1).astype(np.float64)

    forecaster, _ = everything
    with pytest.raises(RefusedByRule, match="Median cannot be converted") as caught:
        export(replace(forecaster, regressor=Median()), "day")
    assert caught.value.hint


def test_numbers_beyond_the_grid_stay_numbers() -> None:
    """A covariate of 1e36 would be infinite on the grid; both interpreters say the same of it."""
    values = np.array([1e36, -1e36, np.nan, 0.1], dtype=np.float32)
    snapped = number_on_grid(values)
    assert snapped[3] == np.float32(102 / 1024)
    forecaster = trained_on(Facets(number=True, products=3), recipe_of())
    requests = Requests(
        {"shop": ["shop-0"] * 4, "product": ["p000"] * 4},
        np.full(4, forecaster.cutoff_day + 1),
        {"price": values},
    )
    found = compare(_loaded(forecaster), forecaster, {"drawn": requests}, "day")
    assert found.max_difference <= LIMIT
