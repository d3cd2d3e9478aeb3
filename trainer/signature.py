"""The signature of an ONNX graph: its inputs and outputs by name, with element type and shape.

It is read from the graph itself, so that a contract can be made to fit it, and what does not fit can be
said in the graph's own words. Whether the runtime sees it the same way is asked of the runtime later
(``adapters.onnx_model``).
"""

from collections.abc import Iterable
from dataclasses import dataclass

import onnx

from schemas.contract import TensorType

_ELEMENT_TYPES: dict[int, TensorType] = {
    onnx.TensorProto.STRING: TensorType.STRING,
    onnx.TensorProto.INT64: TensorType.INT64,
    onnx.TensorProto.INT32: TensorType.INT32,
    onnx.TensorProto.DOUBLE: TensorType.FLOAT64,
    onnx.TensorProto.FLOAT: TensorType.FLOAT32,
    onnx.TensorProto.BOOL: TensorType.BOOL,
}


@dataclass(frozen=True)
class Tensor:
    """An input or output of a graph.

    ``dtype`` is None where a contract has no such type: ``said`` names it. ``shape`` has None for a
    dimension of any size, and is None where the graph does not state it.
    """

    name: str
    dtype: TensorType | None
    said: str
    shape: tuple[int | None, ...] | None

    def __str__(self) -> str:
        if self.shape is None:
            return f"{self.name!r} ({self.said})"
        first = ["N" if self.shape[0] is None else str(self.shape[0])] if self.shape else []
        sizes = first + ["?" if size is None else str(size) for size in self.shape[1:]]
        return f"{self.name!r} ({self.said} [{', '.join(sizes)}])"


@dataclass(frozen=True)
class Signature:
    """What a graph reads and gives, in its own order, and the tool that wrote it, with its version."""

    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]
    producer: str
    producer_version: str


def signature_of(content: bytes) -> Signature:
    """The signature of a model that ``adapters.onnx_model.whole_model`` has looked through."""
    model = onnx.load_model_from_string(content)
    constants = {each.name for each in model.graph.initializer}
    return Signature(
        inputs=_tensors(each for each in model.graph.input if each.name not in constants),
        outputs=_tensors(model.graph.output),
        producer=model.producer_name,
        producer_version=model.producer_version,
    )


def _tensors(infos: Iterable[onnx.ValueInfoProto]) -> dict[str, Tensor]:
    return {info.name: _tensor(info) for info in infos}


def _tensor(info: onnx.ValueInfoProto) -> Tensor:
    kind = info.type.WhichOneof("value") or "value of no stated type"
    if kind != "tensor_type":
        return Tensor(info.name, None, kind.removesuffix("_type"), None)
    tensor = info.type.tensor_type
    dtype = _ELEMENT_TYPES.get(tensor.elem_type)
    said = onnx.TensorProto.DataType.Name(tensor.elem_type).lower() if dtype is None else dtype
    shape = None
    if tensor.HasField("shape"):
        shape = tuple(
            size.dim_value if size.HasField("dim_value") else None for size in tensor.shape.dim
        )
    return Tensor(info.name, dtype, said, shape)
