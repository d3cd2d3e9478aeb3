"""ONNX Runtime: bytes in, a model that can be run out.

Rules:

1. A model comes from bytes, never from a path, and is whole: a tensor that refers to data elsewhere
   (a file, an address) is refused before the runtime sees it.
2. A run uses one thread and the CPU, so that the same batch gives the same bits on every CPU of one
   numeric class (below) under one version of onnxruntime.
3. What the runtime can run is asked of the runtime: tiny graphs are really loaded. What the onnx
   package or a manifest says of opsets is no proof.
4. Nothing of onnxruntime leaves this module: its exceptions become ModelwireError, and its own log,
   which would go to stderr past ours, is silent.

A model from a stranger can still crash or hang the runtime. Whoever loads one that nothing vouches
for does so in a process that may die; that is for the caller, and so are golden vectors.
"""

import platform
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from google.protobuf.message import DecodeError, Message  # type: ignore[import-untyped]
from onnx import TensorProto, helper
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from schemas.contract import Contract, Output, TensorType
from schemas.errors import ModelwireError
from schemas.manifest import Graph

_RUNTIME_ERRORS: tuple[type[Exception], ...] = (
    ort_errors.EPFail,
    ort_errors.EngineError,
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.InvalidGraph,
    ort_errors.InvalidProtobuf,
    ort_errors.ModelLoadCanceled,
    ort_errors.ModelLoaded,
    ort_errors.ModelRequiresCompilation,
    ort_errors.NoModel,
    ort_errors.NoSuchFile,
    ort_errors.NotFound,
    ort_errors.NotImplemented,
    ort_errors.RuntimeException,
    # What its Python layer raises: a missing input, an array it cannot take, std::bad_alloc.
    ValueError,
    TypeError,
    RuntimeError,
    MemoryError,
)

_ELEMENT_TYPES = {
    "tensor(string)": TensorType.STRING,
    "tensor(int64)": TensorType.INT64,
    "tensor(int32)": TensorType.INT32,
    "tensor(double)": TensorType.FLOAT64,
    "tensor(float)": TensorType.FLOAT32,
    "tensor(bool)": TensorType.BOOL,
}

_SILENT = 4
"""Severity of onnxruntime's log: fatal only. What it logs below that is in its exceptions too."""

STANDARD_DOMAIN = "ai.onnx"
"""What ONNX writes as an empty domain."""

_PROBES: dict[str, tuple[str, dict[str, Any]]] = {
    STANDARD_DOMAIN: ("Identity", {}),
    "ai.onnx.ml": ("Binarizer", {"threshold": 0.5}),
    "com.microsoft": ("FastGelu", {}),
}
"""For each domain that a released onnxruntime has kernels for, an operator of its first opset."""

_PROBE_OPSET, _PROBE_IR_VERSION = 7, 3
"""What every onnxruntime runs: the rest of a probe must not be what it cannot load."""

_NO_SUCH_VERSION = 2**20
"""Where the search for a limit ends."""

_NAMED_OPERATORS = 3
"""How many operators of an unknown domain a sentence names."""


@dataclass(frozen=True)
class RuntimeLimits:
    """The highest opset of each domain, and the highest IR version, that this onnxruntime loads."""

    onnxruntime: str
    opsets: Mapping[str, int]
    ir_version: int


@dataclass(frozen=True)
class WholeModel:
    """The bytes of an ONNX model that refers to nothing outside them, and what they need to run.

    ``operators`` are the types of operators that it uses and does not define itself, by domain.
    """

    content: bytes
    graph: Graph
    operators: Mapping[str, frozenset[str]]

    def check_runtime(self, limits: RuntimeLimits) -> None:
        """Raises ModelwireError with everything that the model needs and the runtime has not."""
        problems = [*_beyond(self, limits)]
        if problems:
            raise ModelwireError(
                f"the model needs {', and '.join(problems)}",
                hint="export it for an older opset, or give every instance a newer onnxruntime",
            )

    def load(self) -> "OnnxModel":
        """A model ready to run. Raises ModelwireError where the runtime does not take it."""
        return load_vetted(self.content)


class OnnxModel:
    """A loaded graph; ``scoring`` calls ``run``. Safe to run from several threads."""

    def __init__(self, session: "ort.InferenceSession") -> None:
        self._session = session

    def run(
        self, feeds: Mapping[str, np.ndarray[Any, Any]], outputs: Sequence[str]
    ) -> list[np.ndarray[Any, Any]]:
        """The tensors named in ``outputs``, in that order.

        ``feeds`` has an array of shape ``[N]`` or ``[N, k]`` for every input; strings are numpy
        object arrays of ``str``. Raises ModelwireError where the graph does not accept them or
        fails on them.
        """
        try:
            return self._session.run(outputs, feeds)  # type: ignore[no-any-return]
        except _RUNTIME_ERRORS as error:
            raise ModelwireError(f"the model failed on a batch: {_sentence(error)}") from error

    def check_contract(self, contract: Contract) -> None:
        """Raises ModelwireError with everything in which the graph is not what ``contract`` says."""
        problems = [*_input_problems(self._session, contract)]
        found = {each.name: each for each in self._session.get_outputs()}
        for output in contract.outputs:
            node = found.get(output.tensor)
            problems += _output_problems(output, node, found)
        if problems:
            raise ModelwireError(
                f"the model does not fit its contract: {'; '.join(problems)}",
                hint="correct the contract's bindings, or export the graph again",
            )


def load_onnx_model(content: bytes) -> OnnxModel:
    """A model ready to run. Raises ModelwireError for bytes that are no ONNX graph that can run here."""
    return whole_model(content).load()


def load_vetted(content: bytes) -> OnnxModel:
    """A model ready to run, of bytes that ``whole_model`` has looked through, here or in another process.

    Raises ModelwireError where the runtime does not take it.
    """
    try:
        return OnnxModel(_session(content))
    except _RUNTIME_ERRORS as error:
        raise ModelwireError(
            f"onnxruntime {ort.__version__} cannot load the model: {_sentence(error)}",
            hint="export it with operators and an opset that this version knows",
        ) from error


def graph_of(content: bytes) -> Graph:
    """The IR version and operator sets; the standard domain, which ONNX writes as "", is ``ai.onnx``.

    Raises ModelwireError for bytes that are no ONNX model, or one that refers to data elsewhere.
    """
    return whole_model(content).graph


def whole_model(content: bytes) -> WholeModel:
    """The model in these bytes, parsed once and looked through. Raises as ``graph_of`` does."""
    try:
        model = onnx.load_model_from_string(content)
    except DecodeError as error:
        raise ModelwireError(
            "the bytes are not an ONNX model", hint="a model is one .onnx file"
        ) from error
    if not model.HasField("graph") or model.ir_version < 1:
        raise ModelwireError(
            "the bytes are not an ONNX model: they hold no graph", hint="a model is one .onnx file"
        )
    own = {(function.domain, function.name) for function in model.functions}
    operators: dict[str, set[str]] = {}
    for part in _parts(model):
        if isinstance(part, onnx.NodeProto):
            if (part.domain, part.op_type) not in own:
                operators.setdefault(part.domain or STANDARD_DOMAIN, set()).add(part.op_type)
        elif part.external_data or part.data_location == onnx.TensorProto.EXTERNAL:
            raise ModelwireError(
                f"the model keeps tensor {part.name!r} outside its own bytes",
                hint="save it as one file: torch.onnx.export with external_data=False, or onnx.save with "
                "save_as_external_data=False",
            )
    graph = Graph(
        ir_version=model.ir_version,
        opsets={each.domain or STANDARD_DOMAIN: each.version for each in model.opset_import},
    )
    return WholeModel(content, graph, {name: frozenset(used) for name, used in operators.items()})


@cache
def runtime_limits() -> RuntimeLimits:
    """What the installed onnxruntime loads, found by loading; 22 graphs and about 10 ms, once."""
    return RuntimeLimits(
        onnxruntime=ort.__version__,
        opsets={domain: _highest(partial(_loads, domain)) for domain in _PROBES},
        ir_version=_highest(partial(_loads, STANDARD_DOMAIN, _PROBE_OPSET)),
    )


@cache
def numeric_class() -> str:
    """The class of this machine's CPU; see ``numeric_class_of``."""
    try:
        cpuinfo = Path("/proc/cpuinfo").read_text()
    except OSError:
        cpuinfo = ""
    return numeric_class_of(platform.machine(), cpuinfo)


def runtime_name() -> str:
    """What answers are computed with here, as they say it: ``onnxruntime 1.31.0 x86_64-avx512``."""
    return f"onnxruntime {ort.__version__} {numeric_class()}"


def numeric_class_of(machine: str, cpuinfo: str) -> str:
    """What decides the bits of a result on a CPU, such as ``x86_64-avx512-vnni``.

    ``machine`` is the architecture as ``uname -m`` says it, ``cpuinfo`` the text of
    ``/proc/cpuinfo``. onnxruntime picks its kernels by these features, and different kernels add in
    a different order, fuse multiply and add or not, and saturate 8-bit products or not:

    - x86-64: vector width and fusion (``sse2``, ``avx``, ``avx2`` with FMA, ``avx512f``, and
      ``avx512`` with BW, DQ and VL), then ``vnni`` and ``amx``, which change 8-bit kernels;
    - arm64: ``neon``, then ``fp16``, ``dotprod``, ``i8mm``, ``sve`` and ``sme``.

    A feature counts where every core has it. The maker does not count: onnxruntime 1.31.1 holds none
    of the approximate reciprocals (``rcpps``, ``rsqrtps`` and kin) in which makers differ. Nor do
    clock, cache and core count, with one thread. The version of onnxruntime is recorded beside the
    class, not in it. Where the features are not known the class ends in ``unknown``, and such
    machines are comparable by tolerance only.
    """
    lines = re.findall(r"^(?:flags|Features)\s*:(.*)$", cpuinfo, re.MULTILINE)
    flags = set.intersection(*(set(line.split()) for line in lines)) if lines else set()
    if not flags:
        return f"{machine}-unknown"
    if machine in ("x86_64", "amd64", "AMD64"):
        return "-".join(("x86_64", *_x86_features(flags)))
    if machine in ("aarch64", "arm64"):
        return "-".join(("aarch64", *_arm_features(flags)))
    return f"{machine}-unknown"


def _x86_features(flags: set[str]) -> Iterator[str]:
    if flags >= {"avx512f", "avx512bw", "avx512dq", "avx512vl"}:
        yield "avx512"
    elif "avx512f" in flags:
        yield "avx512f"
    elif flags >= {"avx2", "fma"}:
        yield "avx2"
    elif "avx" in flags:
        yield "avx"
    else:
        yield "sse2"
    if flags & {"avx512_vnni", "avx_vnni"}:
        yield "vnni"
    if "amx_int8" in flags:
        yield "amx"


def _arm_features(flags: set[str]) -> Iterator[str]:
    yield "neon"
    named = {"asimdhp": "fp16", "asimddp": "dotprod", "i8mm": "i8mm", "sve": "sve", "sme": "sme"}
    yield from (name for flag, name in named.items() if flag in flags)


def _session(content: bytes) -> "ort.InferenceSession":
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = _SILENT
    # Otherwise bytes that pass for a flatbuffer as well would be run as one, and never checked.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def _beyond(model: WholeModel, limits: RuntimeLimits) -> Iterator[str]:
    here = f"onnxruntime {limits.onnxruntime} here"
    for domain, version in sorted(model.graph.opsets.items()):
        highest = limits.opsets.get(domain)
        if highest is not None and version > highest:
            yield f"opset {version} of {domain}; {here} runs up to {highest}"
    if model.graph.ir_version > limits.ir_version:
        yield f"IR version {model.graph.ir_version}; {here} runs up to {limits.ir_version}"
    for domain in sorted(model.operators.keys() - limits.opsets.keys()):
        used = sorted(model.operators[domain])
        more = ", …" if len(used) > _NAMED_OPERATORS else ""
        yield (
            f"operators of {domain} ({', '.join(used[:_NAMED_OPERATORS])}{more}), a domain that "
            f"{here} does not know"
        )


def _highest(loads: Callable[[int], bool]) -> int:
    """The highest version that loads: all up to it do, and none beyond. The first one does."""
    low, high = 1, 2
    while high < _NO_SUCH_VERSION and loads(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if loads(middle) else (low, middle)
    return low


def _loads(domain: str, opset: int, ir_version: int = _PROBE_IR_VERSION) -> bool:
    """Whether a graph of one operator of this domain loads at this opset."""
    name, attributes = _PROBES[domain]
    x, y = (helper.make_tensor_value_info(end, TensorProto.FLOAT, ["N"]) for end in "xy")
    node = helper.make_node(name, ["x"], ["y"], domain=_written(domain), **attributes)
    imported = {STANDARD_DOMAIN: _PROBE_OPSET, domain: opset}
    probe = helper.make_model(
        helper.make_graph([node], "probe", [x], [y]),
        opset_imports=[helper.make_opsetid(_written(d), v) for d, v in imported.items()],
        ir_version=ir_version,
    )
    try:
        _session(probe.SerializeToString())
    except _RUNTIME_ERRORS:
        return False
    return True


def _written(domain: str) -> str:
    return "" if domain == STANDARD_DOMAIN else domain


def _parts(model: Message) -> Iterator[onnx.TensorProto | onnx.NodeProto]:
    """Every tensor and node anywhere in the model: initializers, attributes, subgraphs, functions."""
    pending = [model]
    while pending:
        message = pending.pop()
        if isinstance(message, onnx.TensorProto):
            yield message
            continue
        if isinstance(message, onnx.NodeProto):
            yield message
        for descriptor, value in message.ListFields():
            if descriptor.message_type is not None:
                pending += [value] if isinstance(value, Message) else value


def _input_problems(session: "ort.InferenceSession", contract: Contract) -> Iterator[str]:
    found = {each.name: each for each in session.get_inputs()}
    filled = contract.tensors()
    for name in sorted(found.keys() - filled.keys()):
        yield f"no field fills the graph's input {name!r}"
    for name, fields in filled.items():
        if name not in found:
            yield f"the graph has no input {name!r} (it has {', '.join(sorted(found))})"
            continue
        node, binding = found[name], fields[0].binding
        if _ELEMENT_TYPES.get(node.type) != binding.dtype:
            yield f"input {name!r} is a {node.type}, the contract says {binding.dtype}"
        wanted = ["N"] if binding.column is None else ["N", len(fields)]
        if not _fits(node.shape, wanted):
            yield f"input {name!r} has the shape {node.shape}, the contract says {wanted}"


def _output_problems(output: Output, node: Any, found: Mapping[str, Any]) -> Iterator[str]:
    if node is None:
        yield f"the graph has no output {output.tensor!r} (it has {', '.join(sorted(found))})"
        return
    if _ELEMENT_TYPES.get(node.type, TensorType.STRING) is TensorType.STRING:
        yield f"output {output.tensor!r} is a {node.type}, not a tensor of numbers or bools"
    rank, column = len(node.shape), output.column or 0
    width = node.shape[1] if rank == 2 else 1
    if rank not in (1, 2) or (isinstance(width, int) and column >= width):
        yield f"output {output.tensor!r} of shape {node.shape} has no column {column}"
    elif output.column is None and isinstance(width, int) and width != 1:
        yield f"output {output.tensor!r} of shape {node.shape} needs a column"


def _fits(shape: Sequence[object], wanted: Sequence[object]) -> bool:
    """Whether the graph takes the wanted shape; a dimension that it leaves open takes any size."""
    if len(shape) != len(wanted) or isinstance(shape[0], int):
        return False
    return all(
        not isinstance(has, int) or has == want for has, want in zip(shape, wanted, strict=True)
    )


def _sentence(error: Exception) -> str:
    """An error's first line without onnxruntime's codes, and short: it can quote a whole batch."""
    text = str(error).strip() or type(error).__name__
    return re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", text).splitlines()[0][:400]
