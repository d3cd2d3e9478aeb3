"""A bundle that passes admission and brings the runtime down on certain rows.

It answers as ``tests.bundles`` says. Only where a row's units are ``CRASH`` it divides the least 64-bit
integer by -1, which the processor answers with SIGFPE, and where they are ``HANG`` it loops for years.
"""

import msgspec
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from adapters.bundles import write_bundle
from adapters.object_store import ObjectStore
from schemas.manifest import MODEL_NAME, File, digest_of
from tests.bundles import make_bundle

CRASH = -1.0
HANG = -2.0
_LEAST = -(2**63)
_YEARS = 2**62


def trap(slope: float) -> bytes:
    """The ONNX model."""
    manifest, files = make_bundle("m", slope)
    del manifest
    model = onnx.load_from_string(files[MODEL_NAME])
    model.graph.node[-1].output[0] = "plain"
    model.graph.initializer.extend(
        [
            _number("crash", CRASH, np.float32),
            _number("hang", HANG, np.float32),
            _number("least", _LEAST),
            _number("minus", -1),
            _number("one", 1),
            _number("none", 0),
            _number("years", _YEARS),
            _number("nothing", 0.0, np.float32),
            numpy_helper.from_array(np.array(True), "on"),
        ]
    )
    model.graph.node.extend(
        [
            helper.make_node("Equal", ["units", "crash"], ["crashes"]),
            helper.make_node("Where", ["crashes", "minus", "one"], ["divisor"]),
            helper.make_node("Div", ["least", "divisor"], ["divided"]),
            helper.make_node("Cast", ["divided"], ["quotient"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["quotient", "nothing"], ["zero"]),
            helper.make_node("Equal", ["units", "hang"], ["hangs"]),
            helper.make_node("Where", ["hangs", "years", "none"], ["turns"]),
            helper.make_node("ReduceMax", ["turns"], ["trips"], keepdims=0),
            helper.make_node("Loop", ["trips", "on", "nothing"], ["looped"], body=_body()),
            helper.make_node("Add", ["plain", "zero"], ["safe"]),
            helper.make_node("Add", ["safe", "looped"], ["forecast"]),
        ]
    )
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def store_trap(store: ObjectStore, model: str, slope: float) -> str:
    """Make the bundle and store it; returns its digest."""
    manifest, files = make_bundle(model, slope)
    files[MODEL_NAME] = trap(slope)
    entry = File(digest_of(files[MODEL_NAME]), len(files[MODEL_NAME]))
    listed = dict(manifest.files) | {MODEL_NAME: entry}
    return write_bundle(store, msgspec.structs.replace(manifest, files=listed), files)


def _body() -> onnx.GraphProto:
    """What the loop does: nothing, again and again."""
    given = [
        helper.make_tensor_value_info("turn", TensorProto.INT64, []),
        helper.make_tensor_value_info("go", TensorProto.BOOL, []),
        helper.make_tensor_value_info("carried", TensorProto.FLOAT, []),
    ]
    taken = [
        helper.make_tensor_value_info("goes_on", TensorProto.BOOL, []),
        helper.make_tensor_value_info("carried_on", TensorProto.FLOAT, []),
    ]
    nodes = [
        helper.make_node("Identity", ["go"], ["goes_on"]),
        helper.make_node("Identity", ["carried"], ["carried_on"]),
    ]
    return helper.make_graph(nodes, "nothing", given, taken)


def _number(name: str, value: float, kind: type = np.int64) -> TensorProto:
    return numpy_helper.from_array(np.array(value, kind), name)
