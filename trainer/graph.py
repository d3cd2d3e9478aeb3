"""The graph: a forecaster written as one ONNX model that reads raw request fields.

It says in ONNX what ``Forecaster.predict`` says in numpy, in the same order: values to codes
(LabelEncoder, unknown values last), codes to a row (LabelEncoder again; a combination that is not known
falls to a cold row), date to step and weekday, a Gather for each lookup, the trees' own node as skl2onnx
writes it or a MatMul with the coefficients, back from logs to units, and the interval beside them.

The base and the trees add up exactly in float32 (``trainer.history``, ``trainer.sums``). Coefficients
and all that follows are float64 as in numpy; only the answer is rounded.

Inputs, each ``[N]``: each key as strings or int64, the date as int64 days since 1970-01-01, flags as
bool, numbers as float32 (NaN where missing). Outputs, each ``[N]``: ``sales``, ``sales_p10`` and
``sales_p90`` (float32), ``known_series`` and ``in_horizon`` (int64, 1 or 0). N is dynamic. The graph
answers for any date; refusing those outside the horizon is the contract's business. Names of the graph's
own tensors hold a ``/``, so that no field can collide with them. The bytes hold no time and no version of
a package: the same forecaster gives the same bytes.

A regressor with Poisson loss predicts ``exp`` of its trees; skl2onnx writes the trees alone and says
nothing of it (seen with 1.20), so the Exp is written here.
"""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from skl2onnx import to_onnx

from schemas.errors import RefusedByRule
from trainer.dataset import IN_HORIZON, KNOWN_SERIES, SALES, SALES_P10, SALES_P90
from trainer.estimator import Forecaster, Loss, Regressor
from trainer.history import (
    GRID,
    SERIES,
    STEP,
    WEEKDAY,
    Lookup,
    axis_sizes,
    flag_axis,
    has_base,
    key_axis,
)
from trainer.keys import Float32s, Floats, KeyKind, Keys

OPSETS = {"": 18, "ai.onnx.ml": 3}
IR_VERSION = 8
"""The IR version that belongs to opset 18; every runtime that knows the opset reads it."""

NARROW = 32
"""Grid values below this, in absolute terms, fit an int16."""

LEAST_NARROW = 4_096
"""Smaller tables stay float32: the two nodes that widen an int16 would cost more than they save."""

TREES = "regressor"
COEFFICIENTS, INTERCEPT = "regressor/coefficients", "regressor/intercept"
QUANTILES = "spread/quantiles/values"
"""The node of the trees, and the constants that a refresh takes over (``trainer.lifted``)."""

_PASSING_NODES = {"Cast", "Identity", "Reshape"}
"""Nodes that skl2onnx may put around the regressor's and that change no value here."""

_USABLE = "nothing was written; use boosted trees or a linear model on the features as they are"


def export(forecaster: Forecaster, date_field: str) -> bytes:
    """The model as ONNX bytes. ``date_field`` names the date input."""
    graph = _Graph()
    axes = _axes(graph, forecaster, date_field)
    features, base = _features(graph, forecaster, axes)
    logs, units = _sales(graph, forecaster, features, base)
    _answers(graph, forecaster, axes, logs, units)
    floats = [_tensor(name, TensorProto.FLOAT) for name in (SALES, SALES_P10, SALES_P90)]
    whole = [_tensor(name, TensorProto.INT64) for name in (KNOWN_SERIES, IN_HORIZON)]
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "forecast",
            _inputs(forecaster, date_field),
            [*floats, *whole],
            graph.constants,
        ),
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

    def floats(self, name: str, value: Any) -> str:
        return self.constant(name, np.asarray(value, dtype=np.float32))

    def doubles(self, name: str, value: Any) -> str:
        return self.constant(name, np.asarray(value, dtype=np.float64))

    def node(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def wide(self, tensor: str, name: str) -> str:
        """The same values in float64."""
        return self.node("Cast", [tensor], name, to=TensorProto.DOUBLE)

    def index(self, name: str, parts: Sequence[tuple[str, int]]) -> str:
        """The row-major index of (tensor, size of its axis) parts."""
        index, _ = parts[0]
        for number, (tensor, size) in enumerate(parts[1:]):
            scale = self.ints(f"{name}/size{number}", size)
            scaled = self.node("Mul", [index, scale], f"{name}/scaled{number}")
            index = self.node("Add", [scaled, tensor], f"{name}/index{number}")
        return index

    def rows_of(self, name: str, table: Float32s, index: str) -> str:
        """The rows of a table ``[n, k]`` at an index ``[N]``: ``[N, k]`` float32.

        A large table on the grid is kept as int16, from which float32 comes back exactly.
        """
        if table.size < LEAST_NARROW or not np.abs(table).max() < NARROW:
            values = self.floats(f"{name}/values", table)
            return self.node("Gather", [values, index], f"{name}/gathered", axis=0)
        narrow = self.constant(f"{name}/values", np.round(table * GRID).astype(np.int16))
        found = self.node("Gather", [narrow, index], f"{name}/narrow", axis=0)
        wide = self.node("Cast", [found], f"{name}/wide", to=TensorProto.FLOAT)
        return self.node("Mul", [wide, self.floats(f"{name}/grid", 1 / GRID)], f"{name}/gathered")

    def column(self, name: str, tensor: str) -> str:
        """``[N]`` as ``[N, 1]``."""
        return self.node("Unsqueeze", [tensor, self.ints(f"{name}/axis", [1])], f"{name}/column")


def _inputs(forecaster: Forecaster, date_field: str) -> list[Any]:
    of_kind = {KeyKind.TEXT: TensorProto.STRING, KeyKind.WHOLE: TensorProto.INT64}
    keys = forecaster.keys
    flags = (*forecaster.flags, *((forecaster.closed,) if forecaster.closed else ()))
    return [
        *(_tensor(name, of_kind[kind]) for name, kind in zip(keys.names, keys.kinds, strict=True)),
        _tensor(date_field, TensorProto.INT64),
        *(_tensor(name, TensorProto.BOOL) for name in flags),
        *(_tensor(name, TensorProto.FLOAT) for name in forecaster.numbers),
    ]


def _axes(graph: _Graph, forecaster: Forecaster, date_field: str) -> dict[str, str]:
    """Axis name -> the tensor with its positions; writes both flags of an answer on the way."""
    keys = forecaster.keys
    codes = {
        name: graph.node(
            "LabelEncoder",
            [name],
            f"code/{name}",
            domain="ai.onnx.ml",
            **{"keys_int64s" if kind is KeyKind.WHOLE else "keys_strings": list(values)},
            values_int64s=list(range(len(values))),
            default_int64=len(values),
        )
        for name, kind, values in zip(keys.names, keys.kinds, keys.vocabulary, strict=True)
    }
    row = _row(graph, keys, codes)
    known = graph.node("Less", [row, graph.ints("row/known", keys.series)], "known/bool")
    graph.node("Cast", [known], KNOWN_SERIES, to=TensorProto.INT64)

    one = graph.ints("number/one", 1)
    cutoff = graph.ints("step/cutoff", forecaster.cutoff_day)
    days = graph.node("Sub", [date_field, cutoff], "step/days")
    near = graph.node("Clip", [days, one, graph.ints("step/last", forecaster.horizon)], "step/near")
    inside = graph.node("Equal", [days, near], "inside/bool")
    graph.node("Cast", [inside], IN_HORIZON, to=TensorProto.INT64)
    step = graph.node("Sub", [near, one], "step/position")

    monday = graph.node("Add", [date_field, graph.ints("weekday/shift", 3)], "weekday/shifted")
    weekday = graph.node("Mod", [monday, graph.ints("weekday/week", 7)], "weekday/position")
    by_key = {key_axis(name): code for name, code in codes.items()}
    by_flag = {
        flag_axis(name): graph.node("Cast", [name], f"flag/{name}", to=TensorProto.INT64)
        for name in forecaster.flags
    }
    return {SERIES: row, STEP: step, WEEKDAY: weekday, **by_key, **by_flag}


def _row(graph: _Graph, keys: Keys, codes: dict[str, str]) -> str:
    """``Keys.rows_of``: the series' row, else the cold row of the last key that is known."""
    cell = graph.index("cell", list(zip(codes.values(), keys.sizes, strict=True)))
    row = graph.node(
        "LabelEncoder",
        [cell],
        "row/known-series",
        domain="ai.onnx.ml",
        keys_int64s=keys.cells.tolist(),
        values_int64s=list(range(keys.series)),
        default_int64=-1,
    )
    cold = graph.ints("row/cold-for-all", keys.rows - 1)
    for position, (name, code) in enumerate(codes.items()):
        values = graph.ints(f"cold/{name}/values", len(keys.vocabulary[position]))
        is_known = graph.node("Less", [code, values], f"cold/{name}/known")
        first = graph.ints(f"cold/{name}/first", keys.cold_rows(position)[0])
        own = graph.node("Add", [code, first], f"cold/{name}/row")
        cold = graph.node("Where", [is_known, own, cold], f"cold/{name}")
    is_series = graph.node("GreaterOrEqual", [row, graph.ints("row/zero", 0)], "row/is-series")
    return graph.node("Where", [is_series, row, cold], "row/series")


def _features(
    graph: _Graph, forecaster: Forecaster, axes: dict[str, str]
) -> tuple[str, str | None]:
    """The tensor of features ``[N, k]``, and that of the structural base ``[N, 1]`` if any."""
    sizes = axis_sizes(forecaster.keys, forecaster.horizon, forecaster.flags)
    parts = []
    base: str | None = None
    for lookup in forecaster.lookups:
        name = "table/" + "-".join(lookup.axes)
        index = graph.index(name, [(axes[axis], sizes[axis]) for axis in lookup.axes])
        values = graph.rows_of(name, lookup.table, index)
        parts.append(values)
        base = _with_offsets(graph, lookup, values, base)
    if forecaster.reads:
        grid, step = graph.floats("number/grid", GRID), graph.floats("number/step", 1 / GRID)
    for number in forecaster.reads:
        scaled = graph.node("Mul", [number, grid], f"number/{number}/scaled")
        rounded = graph.node("Round", [scaled], f"number/{number}/rounded")
        snapped = graph.node("Mul", [rounded, step], f"number/{number}/snapped")
        parts.append(graph.column(f"number/{number}", snapped))
    if has_base(forecaster.lookups):
        assert base is not None
        parts.append(base)
    return graph.node("Concat", parts, "matrix/features", axis=1), base


def _with_offsets(graph: _Graph, lookup: Lookup, values: str, base: str | None) -> str | None:
    for offset in lookup.offsets:
        column = graph.ints(f"offset/{offset}/column", [lookup.names.index(offset)])
        part = graph.node("Gather", [values, column], f"offset/{offset}", axis=1)
        base = part if base is None else graph.node("Add", [base, part], f"{part}/sum")
    return base


def _sales(
    graph: _Graph, forecaster: Forecaster, features: str, base: str | None
) -> tuple[str, str]:
    """Forecasts as log(1 + units) and as units, both ``[N, 1]`` float64 and at least 0."""
    zero = graph.doubles("logs/zero", [[0.0]])
    one = graph.doubles("units/one", [[1.0]])
    if base is not None:
        base = graph.wide(base, "base/wide")
    if forecaster.regressor is None:
        assert base is not None, "a forecaster without a regressor has a base"
        logs = graph.node("Max", [base, zero], "logs/positive")
        return logs, _units(graph, logs, SALES)
    logs = _learned(graph, forecaster.regressor, features, len(forecaster.features))
    if forecaster.loss is Loss.COUNT:
        counts = graph.node("Exp", [logs], "counts/units")
        grown = graph.node("Add", [counts, one], "counts/plus-one")
        return graph.node("Log", [grown], "logs/positive"), counts
    if base is not None:
        logs = graph.node("Add", [base, logs], "logs/sum")
    logs = graph.node("Max", [logs, zero], "logs/positive")
    return logs, _units(graph, logs, SALES)


def _answers(
    graph: _Graph, forecaster: Forecaster, axes: dict[str, str], logs: str, units: str
) -> None:
    """``sales`` and its interval; nothing is sold on a closed day."""
    graph.ints("units/axis", [1])
    opened = None
    if forecaster.closed:
        shut = graph.wide(forecaster.closed, "closed/wide")
        opened = graph.node(
            "Sub", ["units/one", graph.column("closed/number", shut)], "closed/opened"
        )
    _answer(graph, units, opened, SALES)
    spread = forecaster.spread
    scale = graph.rows_of("spread/scale", spread.scale[:, None], axes[SERIES])
    quantiles = graph.rows_of("spread/quantiles", spread.quantiles, axes[STEP])
    wide = [
        graph.wide(scale, "spread/scale/float64"),
        graph.wide(quantiles, "spread/quantiles/float64"),
    ]
    widths = graph.node("Mul", wide, "spread/widths")
    for position, name in enumerate((SALES_P10, SALES_P90)):
        column = graph.ints(f"spread/{name}/place", [position])
        width = graph.node("Gather", [widths, column], f"spread/{name}/width", axis=1)
        moved = graph.node("Add", [logs, width], f"spread/{name}/logs")
        positive = graph.node("Max", [moved, "logs/zero"], f"spread/{name}/positive")
        _answer(graph, _units(graph, positive, name), opened, name)


def _units(graph: _Graph, logs: str, name: str) -> str:
    """Back from logs to units."""
    grown = graph.node("Exp", [logs], f"{name}/plus-one")
    return graph.node("Sub", [grown, "units/one"], f"{name}/units")


def _answer(graph: _Graph, units: str, opened: str | None, name: str) -> None:
    """Writes an output, ``[N]``."""
    if opened is not None:
        units = graph.node("Mul", [units, opened], f"{name}/opened")
    flat = graph.node("Squeeze", [units, "units/axis"], f"{name}/flat")
    graph.node("Cast", [flat], name, to=TensorProto.FLOAT)


@runtime_checkable
class Linear(Protocol):
    """A linear model: scikit-learn's, or one of ``trainer.lifted``."""

    @property
    def coef_(self) -> Floats: ...

    @property
    def intercept_(self) -> float: ...


@runtime_checkable
class Written(Protocol):
    """Trees that are a node of ONNX already (``trainer.lifted``)."""

    @property
    def node(self) -> onnx.NodeProto: ...


def _learned(graph: _Graph, regressor: Regressor, features: str, columns: int) -> str:
    """What the regressor says of the features, ``[N, 1]`` float64."""
    if isinstance(regressor, Linear):
        coefficients = graph.doubles(COEFFICIENTS, np.reshape(regressor.coef_, (columns, 1)))
        matrix = graph.wide(features, "matrix/wide")
        product = graph.node("MatMul", [matrix, coefficients], "regressor/product")
        intercept = graph.doubles(INTERCEPT, regressor.intercept_)
        return graph.node("Add", [product, intercept], "regressor/wide")
    node = _trees_node(regressor, columns)
    node.input[:] = [features]
    node.output[:] = ["regressor/out"]
    node.name = TREES
    graph.nodes.append(node)
    return graph.wide("regressor/out", "regressor/wide")


def _trees_node(regressor: Regressor, features: int) -> Any:
    """The one node that computes the regressor: its own, or lifted from skl2onnx's conversion.

    Raises RefusedByRule where there is no conversion, or it is not one such node: then a value would be
    computed by a node that is left behind.
    """
    node = onnx.NodeProto()
    if isinstance(regressor, Written):
        node.CopyFrom(regressor.node)
        return node
    sample = np.zeros((1, features), dtype=np.float32)
    kind = type(regressor).__name__
    try:
        nodes = to_onnx(regressor, sample, target_opset=OPSETS).graph.node
    except (RuntimeError, NotImplementedError, TypeError, ValueError, AttributeError) as error:
        raise RefusedByRule(f"{kind} cannot be converted to ONNX: {error}", hint=_USABLE) from error
    found = [node for node in nodes if node.op_type not in _PASSING_NODES]
    if len(found) != 1 or found[0].domain != "ai.onnx.ml":
        raise RefusedByRule(
            f"{kind} converts to the nodes {', '.join(node.op_type for node in nodes)}, not to one "
            "regressor",
            hint=_USABLE,
        )
    node.CopyFrom(found[0])
    return node


def _tensor(name: str, kind: int) -> Any:
    return helper.make_tensor_value_info(name, kind, ["N"])
