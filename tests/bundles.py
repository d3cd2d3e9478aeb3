"""Small bundles for tests: a graph whose answers can be worked out by hand.

``forecast = slope × units + weight of the item + table[day]``. The item's weight is 1 for ``a``, 2 for
``b`` and 0 for any other; the table is zeros, as long as the test wants the model to be large. The
slope tells versions apart.
"""

from datetime import UTC, date, datetime

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
LAST_DAY = date(2099, 12, 31)


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


def graph(slope: float, *, table_bytes: int = 400) -> bytes:
    """The ONNX model; its table of zeros has at least ``table_bytes``."""
    table = np.zeros(max(table_bytes // 4, 1), np.float32)
    constants = [
        numpy_helper.from_array(np.array(slope, np.float32), "slope"),
        numpy_helper.from_array(np.array(len(table), np.int64), "length"),
        numpy_helper.from_array(table, "table"),
    ]
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
        helper.make_node("Mod", ["date", "length"], ["place"]),
        helper.make_node("Gather", ["table", "place"], ["looked_up"]),
        helper.make_node("Add", ["summed", "looked_up"], ["forecast"]),
    ]
    inputs = [
        helper.make_tensor_value_info("item", TensorProto.STRING, ["N"]),
        helper.make_tensor_value_info("units", TensorProto.FLOAT, ["N"]),
        helper.make_tensor_value_info("date", TensorProto.INT64, ["N"]),
    ]
    outputs = [helper.make_tensor_value_info("forecast", TensorProto.FLOAT, ["N"])]
    model = helper.make_model(
        helper.make_graph(nodes, "linear", inputs, outputs, constants),
        opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)],
        ir_version=8,
    )
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


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
    model: str, slope: float, *, table_bytes: int = 400, golden_slope: float | None = None
) -> tuple[Manifest, dict[str, bytes]]:
    """A manifest and its files. With a ``golden_slope`` of its own the golden vectors do not hold."""
    files = {
        MODEL_NAME: graph(slope, table_bytes=table_bytes),
        GOLDEN_NAME: golden(slope if golden_slope is None else golden_slope),
    }
    manifest = Manifest(
        model=model,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        contract=contract(),
        files={name: File(digest_of(content), len(content)) for name, content in files.items()},
        graph=Graph(ir_version=8, opsets={"ai.onnx": 17, "ai.onnx.ml": 3}),
        tolerance=Tolerance(absolute=1e-6, relative=1e-6),
    )
    return manifest, files


def store_bundle(
    store: ObjectStore,
    model: str,
    slope: float,
    *,
    table_bytes: int = 400,
    golden_slope: float | None = None,
) -> str:
    """Make a bundle and store it; returns its digest."""
    manifest, files = make_bundle(model, slope, table_bytes=table_bytes, golden_slope=golden_slope)
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
