"""One feature list, two interpreters: numpy and the graph read the same numbers."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from adapters.onnx_model import load_onnx_model
from tests.unit.trainer_panels import dataset_in
from trainer.estimator import Forecaster, Preset, train
from trainer.evaluation import held_out
from trainer.graph import export
from trainer.history import GRID, Past, axis_sizes, full_lookups, gather, key_axis
from trainer.panel import Panel, read_panel, read_source, weekday
from trainer.parity import Requests, unknown_requests


@pytest.fixture
def panel(tmp_path: Path) -> Panel:
    file = dataset_in(tmp_path)
    return read_panel(file, read_source(file))


def in_graph(forecaster: Forecaster, requests: Requests, tensor: str, kind: int) -> np.ndarray:
    """What a tensor inside the exported graph holds for the requests."""
    model = onnx.load_model_from_string(export(forecaster, "day"))
    model.graph.output.append(helper.make_tensor_value_info(tensor, kind, None))
    feeds = {name: np.array(values, dtype=object) for name, values in requests.columns.items()}
    feeds["day"] = requests.days
    [values] = load_onnx_model(model.SerializeToString()).run(feeds, [tensor])
    return values


def in_numpy(forecaster: Forecaster, requests: Requests) -> tuple[np.ndarray, np.ndarray]:
    """Features and base that the same lookups give in numpy, indexed from first principles."""
    keys = forecaster.keys
    codes = keys.encode(requests.columns)
    positions = {key_axis(name): codes[i] for i, name in enumerate(keys.names)}
    positions["series"] = keys.row_map[tuple(codes)]
    positions["weekday"] = weekday(requests.days)
    steps = np.clip(requests.days - forecaster.cutoff_day, 1, forecaster.horizon)
    positions["step"] = steps - 1
    return gather(forecaster.lookups, positions, axis_sizes(keys, forecaster.horizon))


@pytest.mark.parametrize("preset", list(Preset))
def test_graph_gathers_the_bits_that_numpy_gathers(panel: Panel, preset: Preset) -> None:
    """Every feature of every held-out and unknown row is bit-equal in both interpreters."""
    forecaster = train(panel, preset, seed=0)
    held = held_out(panel)
    for requests in (Requests(held.columns, held.days), unknown_requests(forecaster)):
        features, base = in_numpy(forecaster, requests)
        graph = in_graph(forecaster, requests, "features", TensorProto.FLOAT)
        assert graph.tobytes() == features.tobytes()
        if preset is Preset.FULL:
            column = in_graph(forecaster, requests, "offset/weekday_base", TensorProto.FLOAT)
            assert column.ravel().tobytes() == base.tobytes()


def test_tables_lie_on_the_grid(panel: Panel) -> None:
    """Midpoints of table values are exact in float32, so trees split alike."""
    for lookup in full_lookups(Past.of(panel, panel.cutoff)):
        scaled = lookup.table.astype(np.float64) * GRID
        assert np.array_equal(scaled, np.round(scaled)), lookup.axes
        assert np.abs(scaled).max() < 2**23


def test_past_ends_with_its_origin(panel: Panel) -> None:
    """What lies after an origin is in no table as of it."""
    scrambled = panel.units.copy()
    scrambled[:, 51:] = 999.0
    other = Panel(**{**vars(panel), "units": scrambled})
    ours = full_lookups(Past.of(panel, 50))
    theirs = full_lookups(Past.of(other, 50))
    assert all(np.array_equal(a.table, b.table) for a, b in zip(ours, theirs, strict=True))


def test_features_say_what_their_names_say(panel: Panel) -> None:
    """A few features of one series, worked out by hand."""
    past = Past.of(panel, panel.cutoff)
    lookup = next(each for each in full_lookups(past) if each.axes == ("series",))
    units = panel.units[3, : panel.cutoff + 1]
    value = dict(zip(lookup.names, lookup.table[3], strict=True))
    assert value["mean_7"] == pytest.approx(np.log1p(units[-7:]).mean(), abs=1 / GRID)
    assert value["zeros_28"] == pytest.approx((units[-28:] == 0).mean(), abs=1 / GRID)
    assert value["days_since_sale"] == len(units) - 1 - np.flatnonzero(units)[-1]


def test_structure_finds_level_and_weekdays(panel: Panel) -> None:
    """The base follows the made-up week: high and low days differ, effects average to nothing."""
    structure = Past.of(panel, panel.cutoff).structure
    assert np.abs(structure.effect.mean(axis=1)).max() < 1e-12
    mean = structure.effect.mean(axis=0)
    # The panel's week is 1 + sin(2π day / 7) / 2 from a Monday: Tuesday is high, Saturday low.
    assert mean[1] > 0.1
    assert mean[5] < -0.1
