"""The graph: a forecaster written as one ONNX model that reads raw request fields.

It says in ONNX what ``Forecaster.predict`` says in numpy, in the same order: values to codes
(LabelEncoder, unknown values last), codes to a row, date to step and weekday, a Gather for each
lookup, the regressor's own node as skl2onnx writes it, back from logs to units.

Inputs: each key as ``[N]`` strings, the date as ``[N]`` int64 days since 1970-01-01; N is dynamic.
Outputs, each ``[N]``: ``sales`` (float32), ``known_series`` and ``in_horizon`` (int64, 1 or 0).
The graph answers for any date; refusing those outside the horizon is the contract's business.
Names of the graph's own tensors hold a ``/``, so that no field can collide with them. The bytes
hold no time and no version of a package: the same forecaster gives the same bytes.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from skl2onnx import to_onnx

from trainer.dataset import IN_HORIZON, KNOWN_SERIES, SALES
from trainer.estimator import Forecaster, Regressor
from trainer.history import SERIES, STEP, WEEKDAY, axis_sizes, key_axis

OPSETS = {"": 18, "ai.onnx.ml": 3}
IR_VERSION = 8
"""The IR version that belongs to opset 18; every runtime that knows the opset reads it."""

_PASSING_NODES = {"Cast", "Identity", "Reshape"}
"""Nodes that skl2onnx may put around the regressor's and that change no value here."""


def export(forecaster: Forecaster, date_field: str) -> bytes:
    """The model as ONNX bytes. ``date_field`` names the date input."""
    graph = _Graph()
    axes = _axes(graph, forecaster, date_field)
    features, base = _features(graph, forecaster, axes)
    _regression(graph, forecaster, features, base)
    inputs = [_tensor(name, TensorProto.STRING) for name in forecaster.keys.names]
    inputs.append(_tensor(date_field, TensorProto.INT64))
    outputs = [_tensor(SALES, TensorProto.FLOAT)]
    outputs += [_tensor(name, TensorProto.INT64) for name in (KNOWN_SERIES, IN_HORIZON)]
    model = helper.make_model(
        helper.make_graph(graph.nodes, "forecast", inputs, outputs, graph.constants),
        opset_imports=[helper.make_opsetid(domain, v) for domain, v in OPSETS.items()],
        ir_version=IR_VERSION,
        producer_name="modelwire",
    )
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))


class _Graph:
    """Nodes and constants in the order in which they are written."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, name: str, value: Any) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def ints(self, name: str, value: Any) -> str:
        return self.constant(name, np.asarray(value, dtype=np.int64))

    def node(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def index(self, name: str, parts: Sequence[tuple[str, int]]) -> str:
        """The row-major index of (tensor, size of its axis) parts."""
        index, _ = parts[0]
        for number, (tensor, size) in enumerate(parts[1:]):
            scale = self.ints(f"{name}/size{number}", size)
            scaled = self.node("Mul", [index, scale], f"{name}/scaled{number}")
            index = self.node("Add", [scaled, tensor], f"{name}/index{number}")
        return index


def _axes(graph: _Graph, forecaster: Forecaster, date_field: str) -> dict[str, str]:
    """Axis name -> the tensor with its positions; writes both flags on the way."""
    keys = forecaster.keys
    codes = {
        name: graph.node(
            "LabelEncoder",
            [name],
            f"code/{name}",
            domain="ai.onnx.ml",
            keys_strings=list(values),
            values_int64s=list(range(len(values))),
            default_int64=len(values),
        )
        for name, values in zip(keys.names, keys.vocabulary, strict=True)
    }
    cell = graph.index("cell", list(zip(codes.values(), keys.sizes, strict=True)))
    rows = graph.constant("row/map", keys.row_map.ravel().astype(np.int32))
    narrow = graph.node("Gather", [rows, cell], "row/int32")
    row = graph.node("Cast", [narrow], "row/series", to=TensorProto.INT64)
    known = graph.node("Less", [row, graph.ints("row/known", keys.series)], "known/bool")
    graph.node("Cast", [known], KNOWN_SERIES, to=TensorProto.INT64)

    one = graph.ints("one", 1)
    cutoff = graph.ints("step/cutoff", forecaster.cutoff_day)
    days = graph.node("Sub", [date_field, cutoff], "step/days")
    near = graph.node("Clip", [days, one, graph.ints("step/last", forecaster.horizon)], "step/near")
    inside = graph.node("Equal", [days, near], "inside/bool")
    graph.node("Cast", [inside], IN_HORIZON, to=TensorProto.INT64)
    step = graph.node("Sub", [near, one], "step/position")

    monday = graph.node("Add", [date_field, graph.ints("weekday/shift", 3)], "weekday/shifted")
    weekday = graph.node("Mod", [monday, graph.ints("weekday/week", 7)], "weekday/position")
    by_key = {key_axis(name): code for name, code in codes.items()}
    return {SERIES: row, STEP: step, WEEKDAY: weekday, **by_key}


def _features(
    graph: _Graph, forecaster: Forecaster, axes: dict[str, str]
) -> tuple[str, str | None]:
    """The tensor of features ``[N, k]``, and that of the structural base ``[N, 1]`` if any."""
    sizes = axis_sizes(forecaster.keys, forecaster.horizon)
    parts = []
    base: str | None = None
    for lookup in forecaster.lookups:
        name = "table/" + "-".join(lookup.axes)
        index = graph.index(name, [(axes[axis], sizes[axis]) for axis in lookup.axes])
        table = graph.constant(f"{name}/values", lookup.table)
        values = graph.node("Gather", [table, index], f"{name}/gathered", axis=0)
        parts.append(values)
        for offset in lookup.offsets:
            column = graph.ints(f"offset/{offset}/column", [lookup.names.index(offset)])
            part = graph.node("Gather", [values, column], f"offset/{offset}", axis=1)
            base = part if base is None else graph.node("Add", [base, part], f"{part}/sum")
    return graph.node("Concat", parts, "features", axis=1), base


def _regression(graph: _Graph, forecaster: Forecaster, features: str, base: str | None) -> None:
    node = _regressor_node(forecaster.regressor, forecaster.features)
    node.input[:] = [features]
    node.output[:] = ["regressor"]
    node.name = "regressor"
    graph.nodes.append(node)
    logs = "regressor" if base is None else graph.node("Add", [base, "regressor"], "logs")
    zero = graph.constant("zero", np.zeros((1, 1), dtype=np.float32))
    one = graph.constant("unit", np.ones((1, 1), dtype=np.float32))
    positive = graph.node("Max", [logs, zero], "logs/positive")
    grown = graph.node("Exp", [positive], "sales/plus-one")
    units = graph.node("Sub", [grown, one], "sales/column")
    graph.node("Squeeze", [units, graph.ints("sales/axis", [1])], SALES)


def _regressor_node(regressor: Regressor, features: int) -> Any:
    """The one node that computes the regressor, lifted from skl2onnx's own conversion.

    Raises RuntimeError where the conversion is not one such node: then a value would be computed
    by a node that is left behind.
    """
    sample = np.zeros((1, features), dtype=np.float32)
    nodes = to_onnx(regressor, sample, target_opset=OPSETS).graph.node
    found = [node for node in nodes if node.op_type not in _PASSING_NODES]
    if len(found) != 1 or found[0].domain != "ai.onnx.ml":
        raise RuntimeError(f"expected one regressor node, found {[n.op_type for n in nodes]}")
    node = onnx.NodeProto()
    node.CopyFrom(found[0])
    return node


def _tensor(name: str, kind: int) -> Any:
    return helper.make_tensor_value_info(name, kind, ["N"])
