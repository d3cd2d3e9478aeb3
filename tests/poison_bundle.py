"""The bundle that the requests of ``tests.poison`` are for: its contract has a field of every type.

It answers ``units / count + open + price + table[shelf]``: a count of 0 gives a forecast that is not
finite, a shelf that is not in the table makes the model fail, and one below 0 is dropped: the model gives
an output less than it got rows.
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
    MODEL_NAME,
    File,
    GoldenVector,
    Graph,
    Manifest,
    Tolerance,
    digest_of,
)

LIMIT = 65_536
"""Largest request of the contract, in bytes."""

SHELVES = 8
"""Rows of the model's table; a shelf beyond them makes it fail."""

INPUTS = {
    "item": "a",
    "units": 3.5,
    "count": 2,
    "open": True,
    "date": "2011-12-09",
    "price": 1.25,
    "size": "small",
    "shelf": 3,
}
FORECAST = 7.0
"""What the model answers to them."""


def contract() -> Contract:
    """Fields of every type, with limits, nulls, allowed values and a horizon."""

    def field(name: str, kind: FieldType, dtype: TensorType, **rest: object) -> Field:
        return Field(name=name, type=kind, binding=Binding(name, dtype), description=name, **rest)

    return Contract(
        fields=(
            field("item", FieldType.STRING, TensorType.STRING, max_length=64),
            field("units", FieldType.FLOAT64, TensorType.FLOAT32, minimum=-1e9, maximum=1e9),
            field("count", FieldType.INT64, TensorType.INT64),
            field("open", FieldType.BOOL, TensorType.FLOAT32),
            field("date", FieldType.DATE, TensorType.INT64),
            field(
                "price",
                FieldType.FLOAT32,
                TensorType.FLOAT32,
                required=False,
                nullable=True,
                null_as=0.0,
            ),
            field("size", FieldType.STRING, TensorType.STRING, allowed=("small", "large")),
            field("shelf", FieldType.INT64, TensorType.INT64),
        ),
        outputs=(
            Output(
                name="forecast", tensor="forecast", type=FieldType.FLOAT32, description="forecast"
            ),
        ),
        horizon=Horizon(field="date", first=date(2000, 1, 1), last=date(2099, 12, 31)),
        max_request_bytes=LIMIT,
    )


def graph() -> bytes:
    """The ONNX model. It takes every field, and the strings and the date change nothing."""
    constants = [
        numpy_helper.from_array(np.arange(SHELVES, dtype=np.float32), "table"),
        numpy_helper.from_array(np.array(0, np.int64), "nothing"),
    ]
    nodes = [
        helper.make_node("Cast", ["count"], ["divisor"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["units", "divisor"], ["share"]),
        helper.make_node("Add", ["share", "open"], ["opened"]),
        helper.make_node("Add", ["opened", "price"], ["priced"]),
        helper.make_node("Gather", ["table", "shelf"], ["looked_up"]),
        helper.make_node("Add", ["priced", "looked_up"], ["shelved"]),
        *(
            helper.make_node(
                "LabelEncoder",
                [name],
                [f"{name}_weight"],
                domain="ai.onnx.ml",
                keys_strings=["none"],
                values_floats=[0.0],
                default_float=0.0,
            )
            for name in ("item", "size")
        ),
        helper.make_node("Mul", ["date", "nothing"], ["no_day"]),
        helper.make_node("Cast", ["no_day"], ["day_weight"], to=TensorProto.FLOAT),
        helper.make_node(
            "Sum", ["shelved", "item_weight", "size_weight", "day_weight"], ["weighed"]
        ),
        helper.make_node("GreaterOrEqual", ["shelf", "nothing"], ["is_kept"]),
        helper.make_node("Compress", ["weighed", "is_kept"], ["forecast"], axis=0),
    ]
    kinds = {
        "item": TensorProto.STRING,
        "units": TensorProto.FLOAT,
        "count": TensorProto.INT64,
        "open": TensorProto.FLOAT,
        "date": TensorProto.INT64,
        "price": TensorProto.FLOAT,
        "size": TensorProto.STRING,
        "shelf": TensorProto.INT64,
    }
    taken = [helper.make_tensor_value_info(name, kind, ["N"]) for name, kind in kinds.items()]
    given = [helper.make_tensor_value_info("forecast", TensorProto.FLOAT, ["N"])]
    model = helper.make_model(
        helper.make_graph(nodes, "shelves", taken, given, constants),
        opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)],
        ir_version=8,
    )
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def store_poison_bundle(store: ObjectStore, model: str) -> str:
    """Store the bundle; returns its digest."""
    golden = GoldenVector(
        inputs=msgspec.Raw(msgspec.json.encode(INPUTS)), outputs={"forecast": FORECAST}
    )
    files = {MODEL_NAME: graph(), GOLDEN_NAME: msgspec.json.encode(golden) + b"\n"}
    manifest = Manifest(
        model=model,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        contract=contract(),
        files={name: File(digest_of(content), len(content)) for name, content in files.items()},
        graph=Graph(ir_version=8, opsets={"ai.onnx": 17, "ai.onnx.ml": 3}),
        tolerance=Tolerance(absolute=1e-6, relative=1e-6),
    )
    return write_bundle(store, manifest, files)
