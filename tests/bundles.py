"""Small bundles for tests: a graph whose answers can be worked out by hand.

``forecast = slope × units + weight of the item + table[day]``. The item's weight is 1 for ``a``, 2 for
``b`` and 0 for any other; the table is zeros, as long as the test wants the model to be large. The
slope tells versions apart. Where a large model has to be like real ones in what its runtime allocates and
frees, trees that cancel each other out have the table's place.

With an ``opset`` that no onnxruntime knows, the same graph stands for a model of the future: real bytes
that only a newer runtime could load.
"""

from datetime import UTC, date, datetime
from functools import cache

import msgspec
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from adapters.bundles import write_bundle
from adapters.object_store import ObjectStore
from schemas.contract import (
    Binding,
    Contract,
    Field,
    FieldType,
    Horizon,
    Output,
    TensorType,
)
from schemas.manifest import (
    GOLDEN_NAME,
    MANIFEST_NAME,
    MODEL_NAME,
    File,
    GoldenVector,
    Graph,
    Manifest,
    Tolerance,
    digest_of,
    encode_manifest,
)

WEIGHTS = {"a": 1.0, "b": 2.0}
OPSET = 17
WIDTH = 512
"""Of the layers that make a model slow: each costs 0.03 GFLOP for 64 rows."""
LAST_DAY = date(2099, 12, 31)
LEVELS = 8
"""Of a tree, which has 256 leaves: 5 MB are some 300 trees then, and the trainer makes 200."""


def expected(slope: float, item: str, units: float) -> float:
    """What a bundle of this slope answers."""
    return slope * units + WEIGHTS.get(item, 0.0)


def contract() -> Contract:
    """The contract of every bundle made here."""
    return Contract(
        fields=(
            Field(
                name="item",
                type=FieldType.STRING,
                binding=Binding("item", TensorType.STRING),
                description="which item",
            ),
            Field(
                name="units",
                type=FieldType.FLOAT64,
                binding=Binding("units", TensorType.FLOAT32),
                description="units sold yesterday",
                minimum=-1e9,
                maximum=1e9,
            ),
            Field(
                name="date",
                type=FieldType.DATE,
                binding=Binding("date", TensorType.INT64),
                description="the day to forecast",
            ),
        ),
        outputs=(
            Output(
                name="forecast",
                tensor="forecast",
                type=FieldType.FLOAT32,
                description="units that will be sold",
            ),
        ),
        horizon=Horizon(field="date", first=date(2000, 1, 1), last=LAST_DAY),
    )


def graph(
    slope: float,
    *,
    table_bytes: int = 400,
    trees_bytes: int = 0,
    layers: int = 0,
    opset: int = OPSET,
) -> bytes:
    """The ONNX model; its table of zeros has at least ``table_bytes``. Any other opset is a claim.

    With ``trees_bytes`` it has trees of about so many bytes instead. ``layers`` products of zeros are
    added for nothing but the time that they take.
    """
    zero_nodes, zero_constants = _trees(trees_bytes) if trees_bytes else _table(table_bytes)
    constants = [numpy_helper.from_array(np.array(slope, np.float32), "slope"), *zero_constants]
    nodes = [
        helper.make_node(
            "LabelEncoder",
            ["item"],
            ["weight"],
            domain="ai.onnx.ml",
            keys_strings=list(WEIGHTS),
            values_floats=list(WEIGHTS.values()),
            default_float=0.0,
        ),
        helper.make_node("Mul", ["units", "slope"], ["scaled"]),
        helper.make_node("Add", ["scaled", "weight"], ["summed"]),
        *zero_nodes,
        helper.make_node("Add", ["summed", "looked_up"], ["plain" if layers else "forecast"]),
    ]
    if layers:
        slow_nodes, slow_constants = _slowly_add_zero("plain", "forecast", layers)
        nodes += slow_nodes
        constants += slow_constants
    inputs = [
        helper.make_tensor_value_info("item", TensorProto.STRING, ["N"]),
        helper.make_tensor_value_info("units", TensorProto.FLOAT, ["N"]),
        helper.make_tensor_value_info("date", TensorProto.INT64, ["N"]),
    ]
    outputs = [helper.make_tensor_value_info("forecast", TensorProto.FLOAT, ["N"])]
    model = helper.make_model(
        helper.make_graph(nodes, "linear", inputs, outputs, constants),
        opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", 3)],
        ir_version=8,
    )
    if opset == OPSET:
        onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _table(size: int) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Nodes and constants that look a zero up by the day."""
    table = np.zeros(max(size // 4, 1), np.float32)
    constants = [
        numpy_helper.from_array(np.array(len(table), np.int64), "length"),
        numpy_helper.from_array(table, "table"),
    ]
    nodes = [
        helper.make_node("Mod", ["date", "length"], ["place"]),
        helper.make_node("Gather", ["table", "place"], ["looked_up"]),
    ]
    return nodes, constants


def _trees(size: int) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Nodes and constants that add a zero up over trees, by the units and the day."""
    constants = [
        numpy_helper.from_array(np.array([-1, 1], np.int64), "as_column"),
        numpy_helper.from_array(np.array([-1], np.int64), "as_row"),
    ]
    nodes = [
        helper.make_node("Cast", ["date"], ["day"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["units", "as_column"], ["units_column"]),
        helper.make_node("Reshape", ["day", "as_column"], ["day_column"]),
        helper.make_node("Concat", ["units_column", "day_column"], ["features"], axis=1),
        _ensemble(size),
        helper.make_node("Reshape", ["trees_added", "as_row"], ["looked_up"]),
    ]
    return nodes, constants


@cache
def _ensemble(size: int) -> onnx.NodeProto:
    """As many trees as take about ``size`` bytes, in the form that converters give them."""
    sample = 10
    bytes_of_pair = _pairs_of_trees(sample).ByteSize() / sample
    return _pairs_of_trees(max(round(size / bytes_of_pair), 1))


def _pairs_of_trees(pairs: int) -> onnx.NodeProto:
    """Trees of ``LEVELS`` levels in pairs: a tree, and the same one with the opposite leaves.

    The leaves are small whole numbers, so that they add up to zero exactly in whatever order.
    """
    draw = np.random.default_rng(0)
    trees, branches, leaves = 2 * pairs, 2**LEVELS - 1, 2**LEVELS
    nodes = branches + leaves  # in the order of a heap: those of node n are 2n + 1 and 2n + 2
    inner = np.arange(nodes) < branches
    feature = np.where(inner, draw.integers(0, 2, (pairs, nodes)), 0)
    units, days = (draw.uniform(*span, (pairs, nodes)) for span in ((0, 1_000), (11_000, 47_000)))
    value = np.where(feature == 0, units, days)
    weight = draw.integers(1, 100, (pairs, leaves))
    child = 2 * np.arange(nodes)
    names = np.where(inner, "BRANCH_LEQ", "LEAF").tolist()
    return helper.make_node(
        "TreeEnsembleRegressor",
        ["features"],
        ["trees_added"],
        domain="ai.onnx.ml",
        n_targets=1,
        nodes_treeids=np.repeat(np.arange(trees), nodes).tolist(),
        nodes_nodeids=np.tile(np.arange(nodes), trees).tolist(),
        nodes_featureids=feature.repeat(2, axis=0).ravel().tolist(),
        nodes_modes=names * trees,
        nodes_values=np.where(inner, value, 0.0).repeat(2, axis=0).ravel().tolist(),
        nodes_truenodeids=np.tile(np.where(inner, child + 1, 0), trees).tolist(),
        nodes_falsenodeids=np.tile(np.where(inner, child + 2, 0), trees).tolist(),
        target_treeids=np.repeat(np.arange(trees), leaves).tolist(),
        target_nodeids=np.tile(np.arange(branches, nodes), trees).tolist(),
        target_ids=[0] * (trees * leaves),
        target_weights=np.stack([weight, -weight], axis=1).ravel().astype(float).tolist(),
    )


def _slowly_add_zero(
    given: str, taken: str, layers: int
) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Nodes and constants that take ``given`` to ``taken`` unchanged, by that many products of zeros."""
    shapes = {"wide": (1, WIDTH), "square": (WIDTH, WIDTH), "narrow": (WIDTH, 1)}
    constants = [
        numpy_helper.from_array(np.zeros(shape, np.float32), name) for name, shape in shapes.items()
    ]
    constants.append(numpy_helper.from_array(np.array([-1, 1], np.int64), "upright"))
    constants.append(numpy_helper.from_array(np.array([-1], np.int64), "flat"))
    nodes = [
        helper.make_node("Reshape", [given, "upright"], ["column"]),
        helper.make_node("MatMul", ["column", "wide"], ["layer_0"]),
    ]
    for layer in range(layers):
        names = ([f"layer_{layer}", "square"], [f"layer_{layer + 1}"])
        nodes.append(helper.make_node("MatMul", *names))
    nodes += [
        helper.make_node("MatMul", [f"layer_{layers}", "narrow"], ["zeros"]),
        helper.make_node("Reshape", ["zeros", "flat"], ["zero"]),
        helper.make_node("Add", [given, "zero"], [taken]),
    ]
    return nodes, constants


def golden(slope: float) -> bytes:
    """The golden vectors that a bundle of this slope passes."""
    vectors = [
        GoldenVector(
            inputs=msgspec.Raw(
                msgspec.json.encode({"item": item, "units": units, "date": "2011-12-09"})
            ),
            outputs={"forecast": expected(slope, item, units)},
        )
        for item in ("a", "b", "c")
        for units in (0.0, 1.0, 7.5)
    ]
    return b"\n".join(map(msgspec.json.encode, vectors)) + b"\n"


def make_bundle(
    model: str,
    slope: float,
    *,
    table_bytes: int = 400,
    trees_bytes: int = 0,
    layers: int = 0,
    golden_slope: float | None = None,
    opset: int = OPSET,
) -> tuple[Manifest, dict[str, bytes]]:
    """A manifest and its files. With a ``golden_slope`` of its own the golden vectors do not hold."""
    files = {
        MODEL_NAME: graph(
            slope, table_bytes=table_bytes, trees_bytes=trees_bytes, layers=layers, opset=opset
        ),
        GOLDEN_NAME: golden(slope if golden_slope is None else golden_slope),
    }
    manifest = Manifest(
        model=model,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        contract=contract(),
        files={name: File(digest_of(content), len(content)) for name, content in files.items()},
        graph=Graph(ir_version=8, opsets={"ai.onnx": opset, "ai.onnx.ml": 3}),
        tolerance=Tolerance(absolute=1e-6, relative=1e-6),
    )
    return manifest, files


def store_bundle(
    store: ObjectStore,
    model: str,
    slope: float,
    *,
    table_bytes: int = 400,
    trees_bytes: int = 0,
    layers: int = 0,
    golden_slope: float | None = None,
    opset: int = OPSET,
) -> str:
    """Make a bundle and store it; returns its digest."""
    manifest, files = make_bundle(
        model,
        slope,
        table_bytes=table_bytes,
        trees_bytes=trees_bytes,
        layers=layers,
        golden_slope=golden_slope,
        opset=opset,
    )
    return write_bundle(store, manifest, files)


def store_corrupt_bundle(store: ObjectStore, model: str, slope: float) -> str:
    """A bundle whose stored model has one bit other than its manifest says; returns its digest."""
    manifest, files = make_bundle(model, slope)
    spoiled = bytearray(files[MODEL_NAME])
    spoiled[len(spoiled) // 2] ^= 1
    raw = encode_manifest(manifest)
    digest = digest_of(raw)
    folder = f"bundles/{digest.removeprefix('sha256:')}"
    store.put_if_absent(f"{folder}/{MODEL_NAME}", bytes(spoiled))
    store.put_if_absent(f"{folder}/{GOLDEN_NAME}", files[GOLDEN_NAME])
    store.put_if_absent(f"{folder}/{MANIFEST_NAME}", raw)
    return digest
