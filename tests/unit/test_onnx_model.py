"""ONNX Runtime's edge: what is loaded, what is refused, and how it says so."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from adapters.onnx_model import (
    RuntimeLimits,
    graph_of,
    load_onnx_model,
    numeric_class,
    numeric_class_of,
    runtime_limits,
    whole_model,
)
from schemas.contract import Binding, Contract, Field, FieldType, Output, TensorType
from schemas.errors import ModelwireError

INPUTS = (
    helper.make_tensor_value_info("name", TensorProto.STRING, ["N"]),
    helper.make_tensor_value_info("matrix", TensorProto.FLOAT, ["N", 2]),
)
OUTPUTS = (
    helper.make_tensor_value_info("length", TensorProto.FLOAT, ["N"]),
    helper.make_tensor_value_info("sums", TensorProto.FLOAT, ["N", 2]),
)


def _tensor(name: str) -> TensorProto:
    return helper.make_tensor(name, TensorProto.FLOAT, [1], [1.0])


def model(**changes: Any) -> onnx.ModelProto:
    """A graph with a string input and a matrix: ``length`` is 2 for "two", ``sums`` is matrix + one."""
    encoder = helper.make_node(
        "LabelEncoder",
        ["name"],
        ["length"],
        domain="ai.onnx.ml",
        keys_strings=["one", "two"],
        values_floats=[1.0, 2.0],
        default_float=-1.0,
    )
    nodes = changes.get("nodes", [encoder, helper.make_node("Add", ["matrix", "one"], ["sums"])])
    graph = helper.make_graph(
        nodes, "graph", INPUTS, changes.get("outputs", OUTPUTS), [_tensor("one")]
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


FEEDS = {
    "name": np.array(["two", "other"], dtype=object),
    "matrix": np.array([[1, 2], [3, 4]], dtype=np.float32),
}


def test_a_model_answers_with_the_outputs_asked_for() -> None:
    """Outputs come in the order asked for, from string and matrix inputs."""
    loaded = load_onnx_model(model().SerializeToString())
    sums, length = loaded.run(FEEDS, ["sums", "length"])
    np.testing.assert_array_equal(sums, np.array([[2, 3], [4, 5]], dtype=np.float32))
    np.testing.assert_array_equal(length, np.array([2, -1], dtype=np.float32))
    assert len(loaded.run(FEEDS, ["length"])) == 1


def test_a_graph_is_described_by_ir_version_and_opsets() -> None:
    """The standard domain, which ONNX leaves empty, is called by its name."""
    graph = graph_of(model().SerializeToString())
    assert graph.ir_version == 8
    assert graph.opsets == {"ai.onnx": 17, "ai.onnx.ml": 3}


def test_a_model_runs_on_one_thread_of_the_cpu() -> None:
    """More threads would give other bits for the same batch."""
    session = load_onnx_model(model().SerializeToString())._session
    options = session.get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (1, 1)
    assert session.get_providers() == ["CPUExecutionProvider"]


@pytest.mark.parametrize(
    ("feeds", "problem"),
    [
        ({"name": FEEDS["name"]}, "matrix"),
        ({**FEEDS, "more": FEEDS["matrix"]}, "Invalid input name: more"),
        ({**FEEDS, "matrix": FEEDS["matrix"].astype(np.float64)}, "expected: .tensor.float"),
        ({**FEEDS, "matrix": FEEDS["matrix"][0]}, "Invalid rank for input: matrix"),
        ({**FEEDS, "matrix": np.ones((2, 3), np.float32)}, "Got invalid dimensions"),
        ({**FEEDS, "name": np.array(["\ud800", "two"], dtype=object)}, "surrogates not allowed"),
    ],
)
def test_a_batch_that_the_graph_cannot_take_is_one_sentence(
    feeds: dict[str, np.ndarray[Any, Any]], problem: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Wrong feeds give our error with the runtime's own words, and nothing reaches stderr."""
    loaded = load_onnx_model(model().SerializeToString())
    with pytest.raises(ModelwireError, match=f"the model failed on a batch: .*{problem}") as caught:
        loaded.run(feeds, ["sums"])
    assert "\n" not in caught.value.message
    assert "[ONNXRuntimeError]" not in caught.value.message
    assert capfd.readouterr() == ("", "")


def test_a_graph_that_fails_on_a_batch_is_one_sentence(capfd: pytest.CaptureFixture[str]) -> None:
    """An operator that fails while it runs is named, and the runtime's own log stays silent."""
    failing = model(
        nodes=[helper.make_node("Reshape", ["matrix", "five"], ["sums"], name="to-five")],
        outputs=[helper.make_tensor_value_info("sums", TensorProto.FLOAT, None)],
    )
    failing.graph.input.pop(0)
    failing.graph.initializer.append(helper.make_tensor("five", TensorProto.INT64, [1], [5]))
    loaded = load_onnx_model(failing.SerializeToString())
    with pytest.raises(ModelwireError, match=r"the model failed on a batch: .*to-five"):
        loaded.run({"matrix": FEEDS["matrix"]}, ["sums"])
    assert capfd.readouterr() == ("", "")


def test_an_output_that_is_not_there_is_one_sentence() -> None:
    """Asking for an unknown output is the model's failure, with the name."""
    with pytest.raises(ModelwireError, match="Invalid output name:nothing"):
        load_onnx_model(model().SerializeToString()).run(FEEDS, ["nothing"])


@pytest.mark.parametrize("content", [b"", b"no model at all" * 9, b"\x00" * 100, b"\x08\x08"])
@pytest.mark.parametrize("use", [graph_of, load_onnx_model])
def test_bytes_that_are_no_model_are_refused(
    use: Callable[[bytes], object], content: bytes
) -> None:
    """Nothing, text, zeros and a model without a graph are called what they are."""
    with pytest.raises(ModelwireError, match="the bytes are not an ONNX model"):
        use(content)


def test_a_cut_model_is_refused() -> None:
    """A model cut anywhere is refused, save where a whole opset entry is gone: digests find that."""
    content = model().SerializeToString()
    loaded = []
    for end in range(len(content)):
        try:
            load_onnx_model(content[:end])
        except ModelwireError:
            continue
        loaded.append(end)
    last = model().opset_import[-1].ByteSize() + 2  # a tag and a length stand before it
    assert loaded in ([], [len(content) - last])


def test_an_operator_that_is_unknown_is_named(capfd: pytest.CaptureFixture[str]) -> None:
    """A custom operator is refused with its name and this runtime's version."""
    node = helper.make_node("Divine", ["matrix"], ["sums"], domain="my.operators")
    strange = model(nodes=[node], outputs=OUTPUTS[1:])
    strange.opset_import.append(helper.make_opsetid("my.operators", 1))
    with pytest.raises(
        ModelwireError, match=r"onnxruntime \d.* cannot load .*my\.operators:Divine"
    ):
        load_onnx_model(strange.SerializeToString())
    assert capfd.readouterr() == ("", "")


def test_an_opset_of_the_future_is_refused() -> None:
    """A model that this runtime is too old for is refused when it is loaded."""
    future = model()
    future.opset_import[0].version = 999
    with pytest.raises(ModelwireError, match="cannot load the model"):
        load_onnx_model(future.SerializeToString())


def test_the_limits_are_those_of_the_runtime() -> None:
    """At each limit a graph loads, one beyond it does not: opsets of each domain, and the IR version."""
    limits = runtime_limits()
    assert limits.onnxruntime == onnxruntime.__version__
    assert set(limits.opsets) == {"ai.onnx", "ai.onnx.ml", "com.microsoft"}
    at_limit = model()
    at_limit.ir_version = limits.ir_version
    for each in at_limit.opset_import:
        each.version = limits.opsets[each.domain or "ai.onnx"]
    load_onnx_model(at_limit.SerializeToString())
    for beyond in (*at_limit.opset_import, at_limit):
        name = "ir_version" if beyond is at_limit else "version"
        setattr(beyond, name, getattr(beyond, name) + 1)
        with pytest.raises(ModelwireError, match="cannot load the model"):
            load_onnx_model(at_limit.SerializeToString())
        setattr(beyond, name, getattr(beyond, name) - 1)


LIMITS = RuntimeLimits("1.2.3", {"ai.onnx": 17, "ai.onnx.ml": 3}, 8)


def test_what_the_runtime_has_is_enough() -> None:
    """A model at every limit may run, and so may one that imports a domain without using it."""
    fitting = model()
    fitting.opset_import.append(helper.make_opsetid("my.unused", 7))
    whole_model(fitting.SerializeToString()).check_runtime(LIMITS)


def test_what_the_runtime_lacks_is_named_all_at_once() -> None:
    """Opset, IR version and operators of an unknown domain, with what the runtime has instead."""
    strange = model(nodes=[helper.make_node("Divine", ["matrix"], ["sums"], domain="my.operators")])
    strange.opset_import[0].version, strange.ir_version = 18, 9
    with pytest.raises(ModelwireError) as refused:
        whole_model(strange.SerializeToString()).check_runtime(LIMITS)
    assert refused.value.message == (
        "the model needs opset 18 of ai.onnx; onnxruntime 1.2.3 here runs up to 17, and "
        "IR version 9; onnxruntime 1.2.3 here runs up to 8, and "
        "operators of my.operators (Divine), a domain that onnxruntime 1.2.3 here does not know"
    )


def _in_a_branch(strange: onnx.ModelProto, node: onnx.NodeProto) -> None:
    branch = helper.make_graph([node], "branch", [], [])
    strange.graph.node.append(
        helper.make_node("If", ["b"], ["c"], then_branch=branch, else_branch=branch)
    )


def _in_a_function(strange: onnx.ModelProto, node: onnx.NodeProto) -> None:
    opsets = [helper.make_opsetid("", 17)]
    strange.functions.append(helper.make_function("my", "f", [], ["c"], [node], opsets))


@pytest.mark.parametrize("place", [_in_a_branch, _in_a_function])
def test_an_unknown_operator_is_found_wherever_it_hides(
    place: Callable[[onnx.ModelProto, onnx.NodeProto], None],
) -> None:
    """Branches of a condition and functions are looked through."""
    strange = model()
    place(strange, helper.make_node("Divine", [], ["c"], domain="my.operators"))
    with pytest.raises(ModelwireError, match=r"my\.operators \(Divine\)"):
        whole_model(strange.SerializeToString()).check_runtime(LIMITS)


def test_a_function_of_the_models_own_is_no_unknown_operator() -> None:
    """What the model defines itself it brings along: it may run, and it does."""
    body = helper.make_node("Add", ["a", "a"], ["b"])
    opsets = [helper.make_opsetid("", 17)]
    own = model(nodes=[helper.make_node("Double", ["matrix"], ["sums"], domain="my")])
    del own.graph.output[0], own.graph.input[0]
    own.opset_import.append(helper.make_opsetid("my", 1))
    own.functions.append(helper.make_function("my", "Double", ["a"], ["b"], [body], opsets))
    whole = whole_model(own.SerializeToString())
    whole.check_runtime(LIMITS)
    [doubled] = whole.load().run({"matrix": FEEDS["matrix"]}, ["sums"])
    np.testing.assert_array_equal(doubled, 2 * FEEDS["matrix"])


def _outside(tensor: TensorProto, location: str) -> TensorProto:
    tensor.ClearField("float_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return tensor


def _in_initializer(found: onnx.ModelProto, tensor: TensorProto) -> None:
    found.graph.initializer.append(tensor)


def _in_sparse_initializer(found: onnx.ModelProto, tensor: TensorProto) -> None:
    found.graph.sparse_initializer.add().values.CopyFrom(tensor)


def _in_constant(found: onnx.ModelProto, tensor: TensorProto) -> None:
    found.graph.node.append(helper.make_node("Constant", [], ["c"], value=tensor))


def _in_subgraph(found: onnx.ModelProto, tensor: TensorProto) -> None:
    branch = helper.make_graph([], "branch", [], [], [tensor])
    found.graph.node.append(
        helper.make_node("If", ["b"], ["c"], then_branch=branch, else_branch=branch)
    )


def _in_function(found: onnx.ModelProto, tensor: TensorProto) -> None:
    node = helper.make_node("Constant", [], ["c"], value=tensor)
    found.functions.append(
        helper.make_function("my", "f", [], ["c"], [node], [helper.make_opsetid("", 17)])
    )


@pytest.mark.parametrize(
    "place",
    [_in_initializer, _in_sparse_initializer, _in_constant, _in_subgraph, _in_function],
)
@pytest.mark.parametrize("location", ["weights.bin", "/etc/passwd", "*/_ORT_MEM_ADDR_/*"])
def test_data_outside_the_model_is_refused(
    place: Callable[[onnx.ModelProto, TensorProto], None], location: str
) -> None:
    """A tensor that points to a file or an address is refused, wherever in the model it hides."""
    reaching = model()
    place(reaching, _outside(_tensor("elsewhere"), location))
    for use in (graph_of, load_onnx_model):
        with pytest.raises(ModelwireError, match="keeps tensor 'elsewhere' outside its own bytes"):
            use(reaching.SerializeToString())


def _contract(fields: list[tuple[str, TensorType, int | None]], *outputs: Output) -> Contract:
    types = {TensorType.STRING: FieldType.STRING, TensorType.INT64: FieldType.INT64}
    return Contract(
        fields=tuple(
            Field(
                name=f"field_{number}",
                type=types.get(dtype, FieldType.FLOAT32),
                binding=Binding(tensor, dtype, column),
                description="a field",
            )
            for number, (tensor, dtype, column) in enumerate(fields)
        ),
        outputs=outputs,
    )


def _output(tensor: str, column: int | None = None) -> Output:
    return Output(
        name="y", tensor=tensor, type=FieldType.FLOAT32, description="an output", column=column
    )


GOOD = [
    ("name", TensorType.STRING, None),
    ("matrix", TensorType.FLOAT32, 0),
    ("matrix", TensorType.FLOAT32, 1),
]


def test_a_contract_that_fits_is_accepted() -> None:
    """A vector output needs no column, a matrix output one of its columns."""
    loaded = load_onnx_model(model().SerializeToString())
    loaded.check_contract(_contract(GOOD, _output("length")))
    loaded.check_contract(_contract(GOOD, _output("sums", 1)))


@pytest.mark.parametrize(
    ("contract", "problem"),
    [
        (_contract(GOOD[:1], _output("length")), "no field fills the graph's input 'matrix'"),
        (
            _contract([*GOOD, ("other", TensorType.STRING, None)], _output("length")),
            r"the graph has no input 'other' \(it has matrix, name\)",
        ),
        (
            _contract([("name", TensorType.INT64, None), *GOOD[1:]], _output("length")),
            r"input 'name' is a tensor\(string\), the contract says int64",
        ),
        (_contract(GOOD[:2], _output("length")), r"input 'matrix' has the shape \['N', 2\]"),
        (
            _contract([("name", TensorType.STRING, 0), *GOOD[1:]], _output("length")),
            r"input 'name' has the shape \['N'\], the contract says \['N', 1\]",
        ),
        (_contract(GOOD, _output("nothing")), r"no output 'nothing' \(it has length, sums\)"),
        (_contract(GOOD, _output("sums")), "output 'sums' .* needs a column"),
        (_contract(GOOD, _output("sums", 2)), "output 'sums' .* has no column 2"),
        (_contract(GOOD, _output("length", 1)), "output 'length' .* has no column 1"),
    ],
)
def test_a_contract_that_does_not_fit_is_refused(contract: Contract, problem: str) -> None:
    """Names, element types, shapes and columns are compared with the graph."""
    loaded = load_onnx_model(model().SerializeToString())
    with pytest.raises(ModelwireError, match=problem):
        loaded.check_contract(contract)


def _cpu(flags: str, *, key: str = "flags") -> str:
    return f"processor\t: 0\nmodel name\t: CPU\n{key}\t\t: {flags}\nbogomips\t: 1\n\n"


AVX512 = "sse2 avx avx2 fma avx512f avx512bw avx512dq avx512vl"


@pytest.mark.parametrize(
    ("machine", "cpuinfo", "expected"),
    [
        ("x86_64", _cpu("sse2"), "x86_64-sse2"),
        ("x86_64", _cpu("sse2 avx"), "x86_64-avx"),
        ("x86_64", _cpu("sse2 avx avx2"), "x86_64-avx"),
        ("x86_64", _cpu("fma avx2 avx sse2"), "x86_64-avx2"),
        ("x86_64", _cpu("sse2 avx avx2 fma avx_vnni"), "x86_64-avx2-vnni"),
        ("x86_64", _cpu("sse2 avx avx2 fma avx512f"), "x86_64-avx512f"),
        ("x86_64", _cpu(AVX512), "x86_64-avx512"),
        ("AMD64", _cpu(f"{AVX512} avx512_vnni"), "x86_64-avx512-vnni"),
        ("x86_64", _cpu(f"{AVX512} avx512_vnni amx_int8"), "x86_64-avx512-vnni-amx"),
        ("x86_64", _cpu(f"{AVX512} avx512_vnni") + _cpu("sse2 avx avx2 fma"), "x86_64-avx2"),
        ("aarch64", _cpu("fp asimd", key="Features"), "aarch64-neon"),
        ("arm64", _cpu("asimd asimddp asimdhp", key="Features"), "aarch64-neon-fp16-dotprod"),
        ("aarch64", _cpu("sve i8mm asimddp", key="Features"), "aarch64-neon-dotprod-i8mm-sve"),
        ("arm64", "", "arm64-unknown"),
        ("riscv64", _cpu("v"), "riscv64-unknown"),
    ],
)
def test_the_numeric_class_follows_the_features(machine: str, cpuinfo: str, expected: str) -> None:
    """The class names the features that choose kernels, in one order, and only what all cores have."""
    assert numeric_class_of(machine, cpuinfo) == expected


def test_this_machine_has_a_numeric_class() -> None:
    """The class is a short word that stays the same."""
    assert numeric_class() == numeric_class()
    assert len(numeric_class().split("-")) >= 2
