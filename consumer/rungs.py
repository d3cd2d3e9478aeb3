"""The rungs of admission: their names, and those that try the model itself.

    fetch → digest → manifest → runtime → vet → load → contract → golden → independence → warm-up → memory

1. ``runtime`` compares what the graph says it needs (opsets, IR version, operators of other domains)
   with what the installed onnxruntime really runs, so that a fleet that cannot run a version says so in
   words that people can act on, before anybody starts a rollout. The manifest must say the same as the
   graph: others decide by it.
2. All from ``runtime`` to ``warm-up`` climb first in a process that may die (``vetting_child``): the
   parsing of the graph too, since a small file can ask for a large tree of messages. ``try_out`` is that
   climb. A fall there has the code of its own rung; ``vet`` is for a model that hung or killed the
   process, or went beyond its limits.
3. The consumer itself repeats what depends on the process (``open_version``): the session is made of the
   same bytes, its tensors are what the contract says, the golden vectors hold in this very session, and
   the warm-up makes the allocations that no request should pay for. It does not repeat what follows from
   the bytes, the runtime and the CPU alone: ``runtime`` and ``independence``.

Nothing here fetches, waits or starts a process.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from adapters.onnx_model import OnnxModel, RuntimeLimits, WholeModel, load_vetted, whole_model
from schemas.errors import ModelwireError
from schemas.manifest import MODEL_NAME, GoldenVector, Graph, Manifest, decode_golden
from scoring.golden import check_golden, check_independence
from scoring.snapshot import LoadedVersion, load

WARM_UP_RUNS = 2
"""The first run allocates, the second shows that it is enough."""


class Rung(StrEnum):
    """The rungs, in order."""

    FETCH = "fetch"
    DIGEST = "digest"
    MANIFEST = "manifest"
    RUNTIME = "runtime"
    """The installed onnxruntime must run the graph's opsets, IR version and operators."""
    VET = "vet"
    """A process of its own must come to a verdict, within its limits."""
    LOAD = "load"
    CONTRACT = "contract"
    GOLDEN = "golden"
    INDEPENDENCE = "independence"
    """An answer must have the same bits at any place of a batch."""
    WARM_UP = "warm-up"
    MEMORY = "memory"
    """This instance must have room for the model, beside those that it has."""


class Again(StrEnum):
    """Whether a version that fell is tried again."""

    NEVER = "never"
    """The very bytes that the log names were judged, and they never change, nor does the runtime."""
    MENDED = "mended"
    """What it fell from may be mended outside: a store, the room in memory."""
    KILLED = "killed"
    """Somebody else killed the process that tried it, which says nothing of the model."""
    STRIKE = "strike"
    """It killed the process that tried it, or hung; once may be chance."""


MAY_BE_MENDED = frozenset({Rung.FETCH, Rung.DIGEST, Rung.MANIFEST, Rung.MEMORY})
"""What falls here may pass later: the store is asked again."""


class NotAdmitted(Exception):
    """The version fell: from which rung, why, and whether it is tried ``again``."""

    def __init__(self, rung: Rung, reason: str, again: Again | None = None) -> None:
        super().__init__(f"{rung}: {reason}")
        self.rung = rung
        self.reason = reason
        self.again = again or (Again.MENDED if rung in MAY_BE_MENDED else Again.NEVER)


@dataclass(frozen=True)
class Bundle:
    """A fetched bundle, every byte checked against the digest; nothing of it was tried."""

    digest: str
    manifest: Manifest
    model: bytes
    golden: bytes


@dataclass(frozen=True)
class Opened:
    """A version that is warm, and the seconds that its load, its checks and its warm-up took."""

    version: LoadedVersion
    load_seconds: float
    check_seconds: float
    warm_up_seconds: float


def try_out(
    bundle: Bundle, limits: RuntimeLimits, batch_size: int, before_load: Callable[[], None]
) -> None:
    """Take the bytes up every rung from ``runtime`` to ``warm-up``, and let go of the model again.

    Raises NotAdmitted. ``before_load`` is called when all that was made to judge the graph is gone.
    """
    _check_runtime(bundle, limits)
    before_load()
    vectors = _golden_of(bundle)
    loaded = _load(1, bundle)
    _check_golden(loaded, bundle, vectors)
    problem = check_independence(loaded, vectors)
    if problem is not None:
        raise NotAdmitted(Rung.INDEPENDENCE, problem)
    _warm_up(loaded, vectors, batch_size)


def open_version(version: int, bundle: Bundle, batch_size: int) -> Opened:
    """The version, ready for traffic in this process; its bytes were tried out. Raises NotAdmitted."""
    began = time.monotonic()
    vectors = _golden_of(bundle)
    loaded = _load(version, bundle)
    is_loaded = time.monotonic()
    _check_golden(loaded, bundle, vectors)
    is_checked = time.monotonic()
    _warm_up(loaded, vectors, batch_size)
    return Opened(loaded, is_loaded - began, is_checked - is_loaded, time.monotonic() - is_checked)


def _check_runtime(bundle: Bundle, limits: RuntimeLimits) -> None:
    model = _whole(bundle)
    try:
        model.check_runtime(limits)
    except ModelwireError as error:
        raise NotAdmitted(Rung.RUNTIME, error.message) from error
    stated = bundle.manifest.graph
    if stated != model.graph:
        raise NotAdmitted(
            Rung.RUNTIME,
            f"the manifest says {_graph(stated)}, and {MODEL_NAME} is {_graph(model.graph)}",
        )


def _whole(bundle: Bundle) -> WholeModel:
    try:
        model = whole_model(bundle.model)
    except ModelwireError as error:
        raise NotAdmitted(Rung.LOAD, error.message) from error
    if any("" in operators for operators in model.operators.values()):
        # onnxruntime passes over such nodes, millions of them in a few bytes, and takes long for it.
        raise NotAdmitted(Rung.LOAD, "a node of the graph names no operator")
    return model


def _graph(graph: Graph) -> str:
    opsets = (f"opset {version} of {domain}" for domain, version in sorted(graph.opsets.items()))
    return ", ".join((*opsets, f"IR version {graph.ir_version}"))


def _golden_of(bundle: Bundle) -> tuple[GoldenVector, ...]:
    try:
        return decode_golden(bundle.golden)
    except ModelwireError as error:
        raise NotAdmitted(Rung.GOLDEN, error.message) from error


def _load(version: int, bundle: Bundle) -> LoadedVersion:
    contract = bundle.manifest.contract
    try:
        model: OnnxModel = load_vetted(bundle.model)
    except ModelwireError as error:
        raise NotAdmitted(Rung.LOAD, error.message) from error
    try:
        model.check_contract(contract)
    except ModelwireError as error:
        raise NotAdmitted(Rung.CONTRACT, error.message) from error
    return load(version, bundle.digest, contract, model)


def _check_golden(loaded: LoadedVersion, bundle: Bundle, vectors: Sequence[GoldenVector]) -> None:
    problem = check_golden(loaded, vectors, bundle.manifest.tolerance)
    if problem is not None:
        raise NotAdmitted(Rung.GOLDEN, problem)


def _warm_up(loaded: LoadedVersion, vectors: Sequence[GoldenVector], batch_size: int) -> None:
    """Run a full batch, so that no request pays for the first allocations."""
    rows = [loaded.decode(bytes(vector.inputs)) for vector in vectors[:batch_size]]
    rows *= -(-batch_size // len(rows))
    try:
        for _ in range(WARM_UP_RUNS):
            loaded.model.run(loaded.gather(rows[:batch_size]), loaded.output_tensors)
    except ModelwireError as error:
        raise NotAdmitted(Rung.WARM_UP, error.message) from error
