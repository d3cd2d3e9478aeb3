"""The graph: what it reads and gives, how small it is, and that its bytes hold nothing else."""

import re

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from adapters.onnx_model import load_onnx_model
from tests.unit.trainer_panels import Facets, forecaster_of, panel_with, recipe_of, trained_on
from trainer.bundle import stand_ins
from trainer.estimator import Forecaster, Loss, Preset, fit
from trainer.graph import IR_VERSION, OPSETS, export
from trainer.history import GRID
from trainer.parity import run_graph

EVERYTHING = Facets(whole_keys=True, flag=True, number=True, closed=True)


@pytest.fixture(scope="module")
def forecaster() -> Forecaster:
    return trained_on(EVERYTHING, recipe_of())


def read(forecaster: Forecaster) -> onnx.ModelProto:
    return onnx.load_model_from_string(export(forecaster, "day"))


def types(values: object) -> dict[str, int]:
    return {each.name: each.type.tensor_type.elem_type for each in values}  # type: ignore[attr-defined]


@pytest.mark.parametrize("preset", list(Preset))
def test_inputs_are_raw_fields(preset: Preset) -> None:
    """Keys of text and of whole numbers, the date, flags, numbers: whatever the preset learns."""
    graph = read(trained_on(EVERYTHING, recipe_of(preset))).graph
    assert types(graph.input) == {
        "shop": TensorProto.STRING,
        "product": TensorProto.INT64,
        "day": TensorProto.INT64,
        "promotion": TensorProto.BOOL,
        "shut": TensorProto.BOOL,
        "price": TensorProto.FLOAT,
    }
    assert types(graph.output) == {
        "sales": TensorProto.FLOAT,
        "sales_p10": TensorProto.FLOAT,
        "sales_p90": TensorProto.FLOAT,
        "known_series": TensorProto.INT64,
        "in_horizon": TensorProto.INT64,
    }


def test_plain_carries_numbers_that_it_does_not_learn() -> None:
    """A ridge regression has no place for a missing number; the contract stays that of full."""
    plain = trained_on(EVERYTHING, recipe_of(Preset.PLAIN))
    assert plain.covariates == ("promotion", "price", "shut")
    assert "number:price" not in plain.features
    requests = {
        "shop": np.array(["shop-0"], dtype=object),
        "product": np.array([100]),
        "day": np.array([plain.cutoff_day + 1]),
        "promotion": np.array([True]),
        "shut": np.array([False]),
        "price": np.array([np.nan], dtype=np.float32),
    }
    [sales] = load_onnx_model(export(plain, "day")).run(requests, ["sales"])
    assert np.isfinite(sales).all()


def test_same_forecaster_gives_the_same_bytes(forecaster: Forecaster) -> None:
    """And nothing in them tells who wrote them, when, with which version, or why."""
    content = export(forecaster, "day")
    assert content == export(forecaster, "day")
    model = onnx.load_model_from_string(content)
    assert (model.producer_name, model.producer_version, model.doc_string) == ("modelwire", "", "")
    assert not model.metadata_props
    assert not [node.doc_string for node in model.graph.node if node.doc_string]
    assert model.ir_version == IR_VERSION
    assert {each.domain: each.version for each in model.opset_import} == OPSETS


def test_no_field_can_collide_with_a_tensor(forecaster: Forecaster) -> None:
    """Tensors inside the graph have a slash in their names, which no field can have."""
    model = read(forecaster)
    inside = {name for node in model.graph.node for name in node.output}
    inside |= {each.name for each in model.graph.initializer}
    outputs = {each.name for each in model.graph.output}
    assert [name for name in sorted(inside - outputs) if "/" not in name] == []


def test_one_gather_for_each_tuple_of_axes(forecaster: Forecaster) -> None:
    """A feature more is a column more, not a node more."""
    gathers = [node for node in read(forecaster).graph.node if node.op_type == "Gather"]
    tables = [node for node in gathers if re.fullmatch("table/.*/values", node.input[0])]
    assert len(tables) == len({lookup.axes for lookup in forecaster.lookups})


def test_large_tables_are_int16_on_the_grid() -> None:
    """Each value of a table comes back exactly; small tables stay as they are."""
    forecaster = trained_on(Facets(shops=10, products=30), recipe_of(corrected=False))
    found = {each.name: numpy_helper.to_array(each) for each in read(forecaster).graph.initializer}
    for lookup in forecaster.lookups:
        values = found["table/" + "-".join(lookup.axes) + "/values"]
        if values.dtype == np.int16:
            assert lookup.table.size >= 4_096
            values = values * np.float32(1 / GRID)
        assert np.array_equal(values, lookup.table)
    assert found["table/series-weekday/values"].dtype == np.int16
    assert found["table/weekday/values"].dtype == np.float32


def test_scales_of_thousands_of_series_are_int16() -> None:
    """A table of one column is narrow too where it is long, and the interval is still a graph."""
    panel = panel_with(Facets(shops=60, products=70, days=40))
    forecaster = forecaster_of(fit(panel, recipe_of(corrected=False)))
    found = {each.name: numpy_helper.to_array(each) for each in read(forecaster).graph.initializer}
    scale = found["spread/scale/values"]
    assert scale.dtype == np.int16
    assert np.array_equal(scale[:, 0] / GRID, forecaster.spread.scale)
    requests = stand_ins(panel).take(np.arange(0, 29_000, 290))
    graph = run_graph(load_onnx_model(export(forecaster, "day")), forecaster, requests, "day", 64)
    meant = forecaster.predict(requests).sales_p90
    assert graph.sales_p90 == pytest.approx(meant, rel=1e-6)


def test_count_loss_has_its_own_exponential() -> None:
    """skl2onnx writes the trees alone."""
    counts = read(trained_on(Facets(products=3), recipe_of(loss=Loss.COUNT))).graph
    assert [node.op_type for node in counts.node if node.name.startswith("counts")] == [
        "Exp",
        "Add",
    ]


def test_base_alone_has_no_regressor() -> None:
    """Where trees lost the backtest the graph is gathers and sums."""
    graph = read(trained_on(Facets(), recipe_of(corrected=False))).graph
    assert not [node for node in graph.node if node.op_type == "TreeEnsembleRegressor"]


@pytest.mark.parametrize("rows", [1, 2, 65])
def test_rows_are_dynamic(forecaster: Forecaster, rows: int) -> None:
    """Any number of rows; each answer has one value a row."""
    feeds = {
        "shop": np.array(["shop-0"] * rows, dtype=object),
        "product": np.full(rows, 100),
        "day": np.full(rows, forecaster.cutoff_day + 1),
        "promotion": np.zeros(rows, dtype=bool),
        "shut": np.arange(rows) % 2 == 1,
        "price": np.ones(rows, dtype=np.float32),
    }
    answers = load_onnx_model(export(forecaster, "day")).run(feeds, ["sales", "known_series"])
    assert [each.shape for each in answers] == [(rows,), (rows,)]
    assert (answers[0][1::2] == 0).all()
    assert (answers[0][::2] > 0).all()


def test_interval_holds_its_forecast(forecaster: Forecaster) -> None:
    """p10 at most, p90 at least the forecast, never below 0."""
    panel = panel_with(EVERYTHING)
    assert panel.keys.series == forecaster.keys.series
    rows = 20
    feeds = {
        "shop": np.array(["shop-1"] * rows, dtype=object),
        "product": np.resize(np.array([100, 107, 114, 1]), rows),
        "day": forecaster.cutoff_day + 1 + np.arange(rows) % 7,
        "promotion": np.ones(rows, dtype=bool),
        "shut": np.zeros(rows, dtype=bool),
        "price": np.full(rows, 1.5, dtype=np.float32),
    }
    names = ["sales_p10", "sales", "sales_p90"]
    low, middle, high = load_onnx_model(export(forecaster, "day")).run(feeds, names)
    assert (low >= 0).all()
    assert (low <= middle).all()
    assert (middle <= high).all()
