"""Admission: the ladder that a version climbs before it may answer.

    fetch → digest → manifest → runtime → load → contract → golden → independence → warm-up

Each rung has a code, and a version that falls is refused with the rung and a sentence. A rung before
``runtime`` says something of the store, which may be mended, so its refusal is tried again after a
while; from ``runtime`` on the very bytes that the log names were judged, and they never change, nor
does this process's onnxruntime. What is loaded is what was checked: the bytes are read once.

``runtime`` compares what the graph itself says it needs (opsets, IR version, operators of other
domains) with what the installed onnxruntime really runs, so that a fleet that cannot run a version
says so in words that people can act on, before anybody starts a rollout. The manifest must say the
same as the graph: others decide by it.

Fetching is repeated with jittered pauses while the store cannot be asked, up to the limit for one
version. When to admit what is for ``plan`` and ``models``.
"""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from adapters.bundles import BundleDamaged, read_file, read_manifest
from adapters.object_store import ObjectStore, StoreUnavailable
from adapters.onnx_model import OnnxModel, WholeModel, runtime_limits, whole_model
from schemas.errors import ModelwireError, NotFound
from schemas.manifest import (
    GOLDEN_NAME,
    MODEL_NAME,
    GoldenVector,
    Graph,
    Manifest,
    decode_golden,
)
from scoring.golden import check_golden, check_independence
from scoring.snapshot import LoadedVersion, load

FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 2.0
WARM_UP_RUNS = 2
"""The first run allocates, the second shows that it is enough."""


class Rung(StrEnum):
    """The rungs, in order."""

    FETCH = "fetch"
    DIGEST = "digest"
    MANIFEST = "manifest"
    RUNTIME = "runtime"
    """The installed onnxruntime must run the graph's opsets, IR version and operators."""
    LOAD = "load"
    CONTRACT = "contract"
    GOLDEN = "golden"
    INDEPENDENCE = "independence"
    """An answer must have the same bits at any place of a batch."""
    WARM_UP = "warm-up"


MAY_BE_MENDED = frozenset({Rung.FETCH, Rung.DIGEST, Rung.MANIFEST})
"""What falls here may pass later: the store is asked again."""


class NotAdmitted(Exception):
    """The version fell: from which rung, and why."""

    def __init__(self, rung: Rung, reason: str) -> None:
        super().__init__(f"{rung}: {reason}")
        self.rung = rung
        self.reason = reason


class Overtaken(Exception):
    """Another version is more urgent now, or nobody wants this one any more."""


@dataclass(frozen=True)
class Limits:
    """What admission may take: seconds for one version, and the rows of a warm-up batch."""

    seconds: float
    batch_size: int


@dataclass(frozen=True)
class Bundle:
    """A fetched bundle, every byte checked against the digest."""

    digest: str
    manifest: Manifest
    model: bytes
    golden: tuple[GoldenVector, ...]


@dataclass(frozen=True)
class Admitted:
    """The version, ready for traffic, and the seconds that fetching and the rest took."""

    version: LoadedVersion
    size: int
    fetch_seconds: float
    load_seconds: float


def admit(
    store: ObjectStore,
    model: str,
    version: int,
    digest: str,
    limits: Limits,
    wanted: Callable[[], bool],
) -> Admitted:
    """Take a version up the ladder. Raises NotAdmitted, or Overtaken once ``wanted`` says no."""
    began = time.monotonic()
    bundle = _fetch(store, digest, began + limits.seconds, wanted)
    fetched = time.monotonic()
    if bundle.manifest.model != model:
        raise NotAdmitted(
            Rung.MANIFEST, f"the bundle is of model {bundle.manifest.model!r}, not of {model!r}"
        )
    # A later rung, a load in a process that may die, belongs here.
    loaded = load(version, digest, bundle.manifest.contract, _load(bundle))
    _check_golden(loaded, bundle)
    _warm_up(loaded, bundle, limits.batch_size)
    return Admitted(loaded, len(bundle.model), fetched - began, time.monotonic() - fetched)


def _fetch(store: ObjectStore, digest: str, deadline: float, wanted: Callable[[], bool]) -> Bundle:
    pause = FIRST_PAUSE_SECONDS
    while True:
        try:
            return _read(store, digest)
        except StoreUnavailable as error:
            if time.monotonic() + pause > deadline:
                raise NotAdmitted(Rung.FETCH, error.message) from error
        until = time.monotonic() + pause * random.uniform(0.5, 1.5)
        while time.monotonic() < until:
            if not wanted():
                raise Overtaken
            time.sleep(FIRST_PAUSE_SECONDS / 2)
        pause = min(pause * 2, LONGEST_PAUSE_SECONDS)


def _read(store: ObjectStore, digest: str) -> Bundle:
    try:
        manifest = read_manifest(store, digest)
        model = read_file(store, digest, manifest, MODEL_NAME)
        golden = read_file(store, digest, manifest, GOLDEN_NAME)
    except StoreUnavailable:
        raise
    except NotFound as error:
        raise NotAdmitted(Rung.FETCH, error.message) from error
    except BundleDamaged as error:
        raise NotAdmitted(Rung.DIGEST, error.message) from error
    except ModelwireError as error:
        raise NotAdmitted(Rung.MANIFEST, error.message) from error
    try:
        return Bundle(digest, manifest, model, decode_golden(golden))
    except ModelwireError as error:
        raise NotAdmitted(Rung.GOLDEN, error.message) from error


def _load(bundle: Bundle) -> OnnxModel:
    try:
        whole = whole_model(bundle.model)
        _check_runtime(whole, bundle.manifest)
        model = whole.load()
    except ModelwireError as error:
        raise NotAdmitted(Rung.LOAD, error.message) from error
    try:
        model.check_contract(bundle.manifest.contract)
    except ModelwireError as error:
        raise NotAdmitted(Rung.CONTRACT, error.message) from error
    return model


def _check_runtime(model: WholeModel, manifest: Manifest) -> None:
    try:
        model.check_runtime(runtime_limits())
    except ModelwireError as error:
        raise NotAdmitted(Rung.RUNTIME, error.message) from error
    if manifest.graph != model.graph:
        raise NotAdmitted(
            Rung.RUNTIME,
            f"the manifest says {_graph(manifest.graph)}, and {MODEL_NAME} is {_graph(model.graph)}",
        )


def _graph(graph: Graph) -> str:
    opsets = (f"opset {version} of {domain}" for domain, version in sorted(graph.opsets.items()))
    return ", ".join((*opsets, f"IR version {graph.ir_version}"))


def _check_golden(loaded: LoadedVersion, bundle: Bundle) -> None:
    problem = check_golden(loaded, bundle.golden, bundle.manifest.tolerance)
    if problem is not None:
        raise NotAdmitted(Rung.GOLDEN, problem)
    problem = check_independence(loaded, bundle.golden)
    if problem is not None:
        raise NotAdmitted(Rung.INDEPENDENCE, problem)


def _warm_up(loaded: LoadedVersion, bundle: Bundle, batch_size: int) -> None:
    """Run a full batch, so that no request pays for the first allocations."""
    rows = [loaded.decode(bytes(vector.inputs)) for vector in bundle.golden[:batch_size]]
    rows *= -(-batch_size // len(rows))
    try:
        for _ in range(WARM_UP_RUNS):
            loaded.model.run(loaded.gather(rows[:batch_size]), loaded.output_tensors)
    except ModelwireError as error:
        raise NotAdmitted(Rung.WARM_UP, error.message) from error
