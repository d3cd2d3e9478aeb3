"""Models that mean harm, and bundles with flipped bits: a corpus that a seed makes.

Every hostile model has valid digests, and most answer rightly beside what they do: only a process that
tries them can tell. What crashes was found by trying: onnxruntime 1.31 checks most of what it is given,
but divides the smallest integer by -1. ``hostile`` gives them kind by kind, ``flipped`` is a bundle with
one bit turned, its digests left alone or made to match. ``problem_of`` says whether a kind fell from
where it has to, and not for another reason.
"""

import contextlib
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random

import msgspec
import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from adapters.object_store import ObjectStore
from adapters.onnx_model import graph_of
from consumer.admission import Limits
from consumer.rungs import NotAdmitted, Rung
from schemas.errors import ModelwireError
from schemas.manifest import (
    GOLDEN_NAME,
    MANIFEST_NAME,
    MODEL_NAME,
    File,
    Manifest,
    digest_of,
    encode_manifest,
)
from tests.bundles import golden, graph, make_bundle

SLOPE = 1.5
OWN_DOMAIN = "own"
Files = Mapping[str, bytes]


@dataclass(frozen=True)
class Made:
    """A bundle as it is stored: its kind, the digest that a release names, and its files."""

    kind: str
    digest: str
    files: Files

    def store(self, store: ObjectStore) -> str:
        """Write it as it is, past every check; returns the digest."""
        for name, content in self.files.items():
            store.put_if_absent(f"{self.folder}/{name}", content)
        return self.digest

    @property
    def folder(self) -> str:
        """Where it lies in a store."""
        return f"bundles/{self.digest.removeprefix('sha256:')}"


def hostile(model: str, seed: int, count: int) -> Iterator[Made]:
    """``count`` hostile models, the kinds in turn; the same for the same seed."""
    random = Random(seed)
    for number in range(count):
        kind = list(KINDS)[number % len(KINDS)]
        yield hostile_of(model, kind, random)


def hostile_of(model: str, kind: str, random: Random) -> Made:
    """One of a kind, with valid digests and a manifest that says of the graph what can be said."""
    made = KINDS[kind](random)
    content, vectors = made if isinstance(made, tuple) else (made, golden(SLOPE))
    manifest, _ = make_bundle(model, SLOPE)
    # Where there is no graph, or one that nobody may open, the manifest says what a good one has.
    with contextlib.suppress(ModelwireError):
        manifest = msgspec.structs.replace(manifest, graph=graph_of(content))
    return sealed(kind, manifest, {MODEL_NAME: content, GOLDEN_NAME: vectors})


def flipped(manifest: Manifest, files: Files, random: Random, *, to_match: bool) -> Made:
    """One bit is another. ``to_match``: it is the model's, and its digests are made again."""
    if to_match:
        turned = {**files, MODEL_NAME: _turned(files[MODEL_NAME], random)}
        return sealed("flipped", manifest, turned)
    raw = encode_manifest(manifest)
    stored = {MANIFEST_NAME: raw, MODEL_NAME: files[MODEL_NAME], GOLDEN_NAME: files[GOLDEN_NAME]}
    name = random.choice(sorted(stored))
    return Made(name, digest_of(raw), {**stored, name: _turned(stored[name], random)})


def sealed(kind: str, manifest: Manifest, files: Files) -> Made:
    """The bundle of these files, with digests that match them."""
    listed = {name: File(digest_of(content), len(content)) for name, content in files.items()}
    raw = encode_manifest(msgspec.structs.replace(manifest, files=listed))
    return Made(kind, digest_of(raw), {**files, MANIFEST_NAME: raw})


def _turned(content: bytes, random: Random) -> bytes:
    turned = bytearray(content)
    turned[random.randrange(len(turned))] ^= 1 << random.randrange(8)
    return bytes(turned)


def _number(name: str, value: float, kind: type = np.int64) -> TensorProto:
    return numpy_helper.from_array(np.array(value, kind), name)


def _list(name: str, values: Sequence[float], kind: type = np.int64) -> TensorProto:
    return numpy_helper.from_array(np.array(values, kind), name)


def _good() -> onnx.ModelProto:
    """The model that answers rightly; its last node gives ``forecast``."""
    return onnx.load_model_from_string(graph(SLOPE))


def _beside(
    nodes: Sequence[NodeProto],
    constants: Sequence[TensorProto] = (),
    functions: Sequence[onnx.FunctionProto] = (),
) -> bytes:
    """The right answer plus nothing times ``evil``, a number or one for each row."""
    model = _good()
    model.graph.node[-1].output[0] = "plain"
    model.graph.node.extend(nodes)
    model.graph.node.extend(
        (
            helper.make_node("Cast", ["evil"], ["evil_float"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["evil_float", "nothing"], ["no_evil"]),
            helper.make_node("Add", ["plain", "no_evil"], ["forecast"]),
        )
    )
    model.graph.initializer.extend((*constants, _number("nothing", 0, np.float32)))
    if functions:
        model.opset_import.append(helper.make_opsetid(OWN_DOMAIN, 1))
        model.functions.extend(functions)
    return bytes(model.SerializeToString())


def _instead(node: NodeProto, constants: Sequence[TensorProto] = ()) -> bytes:
    """``forecast`` is what ``node`` makes of the right answer, which is called ``plain``."""
    model = _good()
    model.graph.node[-1].output[0] = "plain"
    model.graph.node.append(node)
    model.graph.initializer.extend(constants)
    return bytes(model.SerializeToString())


def _hang(random: Random) -> bytes:
    """A loop of 2⁶² turns, each as good as nothing, over a constant or over the rows."""
    given = random.choice(("units", "one"))
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", "y")]
    flags = [helper.make_tensor_value_info(name, TensorProto.BOOL, []) for name in ("go", "on")]
    turn = helper.make_tensor_value_info("turn", TensorProto.INT64, [])
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["on"]),
            helper.make_node(random.choice(("Sin", "Cos", "Sqrt", "Neg")), ["x"], ["y"]),
        ],
        "body",
        [turn, flags[0], ends[0]],
        [flags[1], ends[1]],
    )
    return _beside(
        [helper.make_node("Loop", ["turns", "yes", given], ["evil"], body=body)],
        [
            _number("turns", 2 ** random.randrange(50, 63)),
            _number("yes", True, np.bool_),
            _number("one", 1.0, np.float32),
        ],
    )


def _unfolding(random: Random) -> bytes:
    """Functions that each call the one before twice: a few hundred bytes, 2ⁿ nodes."""
    depth = random.randrange(26, 60)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(OWN_DOMAIN, 1)]
    first = [helper.make_node("Neg", ["x"], ["y"])]
    functions = [helper.make_function(OWN_DOMAIN, "f0", ["x"], ["y"], first, opsets)]
    for level in range(1, depth):
        calls = [
            helper.make_node(f"f{level - 1}", *ends, domain=OWN_DOMAIN)
            for ends in ((["x"], ["t"]), (["t"], ["y"]))
        ]
        functions.append(helper.make_function(OWN_DOMAIN, f"f{level}", ["x"], ["y"], calls, opsets))
    call = helper.make_node(f"f{depth - 1}", ["units"], ["evil"], domain=OWN_DOMAIN)
    return _beside([call], (), functions)


def _crash(random: Random) -> bytes:
    """The smallest integer by -1, when the graph is made or for each row: SIGFPE on x86."""
    # For each row, 32 bits are divided as vectors of floats, which do not trap.
    is_for_rows = random.random() < 0.5
    kind, bits = (np.int64, 63) if is_for_rows else random.choice(((np.int64, 63), (np.int32, 31)))
    constants = [_number("smallest", -(2**bits), kind), _number("minus", -1, kind)]
    divide = helper.make_node(random.choice(("Div", "Mod")), ["low", "minus"], ["evil"])
    if not is_for_rows:
        return _beside([helper.make_node("Identity", ["smallest"], ["low"]), divide], constants)
    return _beside(
        [
            helper.make_node("Sub", ["date", "date"], ["zeros"]),
            helper.make_node("Add", ["zeros", "smallest"], ["low"]),
            divide,
        ],
        constants,
    )


def _allocation(random: Random) -> bytes:
    """Asks for many GiB at once, in one of several ways."""
    size = 2 ** random.randrange(33, 40)
    zero = _list("zero", [0.0], np.float32)
    ways = {
        "ConstantOfShape": ([_list("size", [size])], ["size"]),
        "Expand": ([_list("size", [size]), zero], ["zero", "size"]),
        "Tile": ([_list("size", [size]), zero], ["zero", "size"]),
        "Pad": ([_list("size", [size, 0]), zero], ["zero", "size"]),
    }
    name = random.choice(sorted(ways))
    constants, given = ways[name]
    return _beside(
        [
            helper.make_node(name, given, ["large"]),
            helper.make_node("ReduceMax", ["large"], ["evil"], keepdims=0),
        ],
        constants,
    )


def _shape(random: Random) -> bytes:
    """The right numbers in the wrong shape."""
    ways: list[Callable[[], bytes]] = [
        lambda: _instead(helper.make_node("ReduceMax", ["plain"], ["forecast"], keepdims=0)),
        lambda: _instead(helper.make_node("Concat", ["plain", "plain"], ["forecast"], axis=0)),
        lambda: _instead(
            helper.make_node("Slice", ["plain", "from", "to"], ["forecast"]),
            [_list("from", [random.randrange(1, 8)]), _list("to", [2**40])],
        ),
        lambda: _instead(
            helper.make_node("Reshape", ["plain", "upright"], ["forecast"]),
            [_list("upright", random.choice(([-1, 1], [1, -1], [1, 1, -1], [2, -1])))],
        ),
    ]
    return random.choice(ways)()


def _type(random: Random) -> bytes:
    """The right numbers as something else."""
    other = random.choice(
        (TensorProto.STRING, TensorProto.INT64, TensorProto.BOOL, TensorProto.INT32)
    )
    model = onnx.load_model_from_string(
        _instead(helper.make_node("Cast", ["plain"], ["forecast"], to=other))
    )
    if random.random() < 0.5:  # and says so
        model.graph.output[0].type.tensor_type.elem_type = other
    return bytes(model.SerializeToString())


def _not_a_number(random: Random) -> bytes:
    """NaN or infinite for every row, or only where the golden vectors have one number of units."""
    if random.random() < 0.5:
        bad = _number("bad", random.choice((np.nan, np.inf, -np.inf)), np.float32)
        return _instead(helper.make_node("Add", ["plain", "bad"], ["forecast"]), [bad])
    model = _good()
    model.graph.node[-1].output[0] = "plain"
    model.graph.node.extend(
        (
            helper.make_node("Sub", ["units", "hole"], ["distance"]),
            helper.make_node("Div", ["distance", "distance"], ["one"]),
            helper.make_node("Mul", ["plain", "one"], ["forecast"]),
        )
    )
    model.graph.initializer.append(_number("hole", random.choice((0.0, 1.0, 7.5)), np.float32))
    return bytes(model.SerializeToString())


def _external(random: Random) -> bytes:
    """A tensor that lies in a file: an initializer's, an attribute's, or one in a subgraph."""
    tensor = _list("secret", [0.0] * 4, np.float32)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    place = tensor.external_data.add()
    place.key = "location"
    place.value = random.choice(
        ("/etc/passwd", "../../secret.bin", "model.onnx", "*/_ORT_MEM_ADDR_/*", "https://x/y")
    )
    top = helper.make_node("ReduceMax", ["secret"], ["evil"], keepdims=0)
    if random.random() < 0.3:
        return _beside([top], [tensor])
    constant = helper.make_node("Constant", [], ["secret"], value=tensor)
    if random.random() < 0.5:
        return _beside([constant, top])
    value = helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)
    inner = helper.make_node("ReduceMax", ["secret"], ["inner"], keepdims=0)
    branch = helper.make_graph([constant, inner], "branch", [], [value])
    choice = helper.make_node("If", ["yes"], ["evil"], then_branch=branch, else_branch=branch)
    return _beside([choice], [_number("yes", True, np.bool_)])


def _random_graph(random: Random) -> bytes:
    """Operators drawn by chance on what is there, one of them in place of the answer."""
    names = ["units", "date", "weight", "plain", "small", "wide"]
    nodes = []
    for number in range(random.randrange(2, 12)):
        schema = random.choice(_SCHEMAS)
        given = [random.choice(names) for _ in range(max(schema.min_input, 1))]
        taken = [f"r{number}_{place}" for place in range(max(schema.min_output, 1))]
        nodes.append(helper.make_node(schema.name, given, taken))
        names += taken
    model = onnx.load_model_from_string(
        _instead(
            helper.make_node("Sum", ["plain", names[-1]], ["forecast"]),
            [_number("small", random.randrange(-3, 9)), _list("wide", [1.0] * 7, np.float32)],
        )
    )
    last = model.graph.node.pop()
    model.graph.node.extend((*nodes, last))
    return bytes(model.SerializeToString())


def _truncated(random: Random) -> bytes:
    """Cut off, or with noise between its bytes."""
    content = graph(SLOPE)
    place = random.randrange(1, len(content))
    if random.random() < 0.5:
        return content[:place]
    return content[:place] + random.randbytes(16) + content[place:]


def _bomb(random: Random) -> bytes:
    """Few bytes that say that they are many: empty messages, a sparse tensor, a size without data."""
    way = random.randrange(3)
    if way == 0:
        model = _good()
        body = model.graph.SerializeToString() + b"\x0a\x00" * random.randrange(300_000, 900_000)
        model.ClearField("graph")
        return bytes(model.SerializeToString()) + b"\x3a" + _varint(len(body)) + body
    model = onnx.load_model_from_string(
        _beside([helper.make_node("ReduceMax", ["large"], ["evil"], keepdims=0)])
    )
    size = 2 ** random.randrange(34, 42)
    if way == 1:
        sparse = model.graph.sparse_initializer.add()
        sparse.values.CopyFrom(_list("large", [1.0], np.float32))
        sparse.indices.CopyFrom(_list("", [size - 1]))
        sparse.dims.append(size)
    else:
        dense = _list("large", [1.0], np.float32)
        dense.dims[0] = size
        model.graph.initializer.append(dense)
    return bytes(model.SerializeToString())


def _varint(number: int) -> bytes:
    encoded = b""
    while number > 127:
        encoded += bytes([number & 127 | 128])
        number >>= 7
    return encoded + bytes([number])


def _wrong(random: Random) -> tuple[bytes, bytes]:
    """It answers, and not what its training pipeline said; or the vectors are none."""
    if random.random() < 0.3:
        vectors = golden(SLOPE)
        return graph(SLOPE), random.choice((b"", b"[]\n", vectors[:-20], b"\xff" + vectors))
    off = SLOPE * (1 + random.choice((1e-4, -1e-3, 0.1, 1.0)))
    return graph(off), golden(SLOPE)


_SCHEMAS = [
    schema
    for schema in onnx.defs.get_all_schemas()
    if schema.domain == "" and not schema.deprecated and schema.name not in ("Loop", "Scan", "If")
]

KINDS: dict[str, Callable[[Random], bytes | tuple[bytes, bytes]]] = {
    "hang": _hang,
    "crash": _crash,
    "allocation": _allocation,
    "shape": _shape,
    "type": _type,
    "not a number": _not_a_number,
    "external": _external,
    "random": _random_graph,
    "truncated": _truncated,
    "bomb": _bomb,
    "wrong": _wrong,
    "unfolding": _unfolding,
}
HANGING = frozenset({"hang", "unfolding"})
"""The kinds that end at the limit of time, and at nothing else."""

RUNGS: dict[str, frozenset[Rung]] = {
    "hang": frozenset({Rung.VET}),
    "crash": frozenset({Rung.VET}),
    "allocation": frozenset({Rung.GOLDEN, Rung.VET}),
    "shape": frozenset({Rung.CONTRACT, Rung.GOLDEN}),
    "type": frozenset({Rung.LOAD, Rung.CONTRACT, Rung.GOLDEN}),
    "not a number": frozenset({Rung.GOLDEN}),
    "external": frozenset({Rung.LOAD}),
    "random": frozenset({Rung.RUNTIME, Rung.LOAD, Rung.CONTRACT, Rung.GOLDEN, Rung.VET}),
    "truncated": frozenset({Rung.RUNTIME, Rung.LOAD}),
    "bomb": frozenset({Rung.LOAD, Rung.VET}),
    "wrong": frozenset({Rung.GOLDEN}),
    "unfolding": frozenset({Rung.VET}),
}
"""Where each kind falls."""

LIMITS = Limits(seconds=30.0, batch_size=64, vet_seconds=60.0)
SHORT = replace(LIMITS, vet_seconds=2.0)


def limits_for(kind: str) -> Limits:
    """Enough for a busy machine where a kind ends by itself; short where only the limit ends it."""
    return SHORT if kind in HANGING else LIMITS


def problem_of(kind: str, fallen: NotAdmitted) -> str | None:
    """None where this kind fell as it should; else a sentence. A turned bit may bring about anything."""
    is_late = "timed out" in fallen.reason
    if kind not in RUNGS or (fallen.rung in RUNGS[kind] and is_late == (kind in HANGING)):
        return None
    return f"{kind}: {fallen}"


if platform.machine() not in ("x86_64", "AMD64"):
    del KINDS["crash"]  # other processors do not trap, and the model answers rightly
