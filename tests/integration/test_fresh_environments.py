"""Two trainings in two virtual environments that were made for it give the same ``model.onnx``."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from adapters.object_store import open_store
from tests.shell import ROOT

LIMIT_SECONDS = 1200.0

INSTALLS = {"clone": ("--no-build-isolation", "--editable"), "wheel": ("--no-build-isolation",)}
"""As ``make venv`` installs the project, and as a user does: where the code lies must not matter."""

SURROUNDINGS = {
    "clone": {"PYTHONHASHSEED": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "TZ": "UTC"},
    "wheel": {
        "PYTHONHASHSEED": "2", "OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2",
        "TZ": "Asia/Tokyo", "LC_ALL": "C",
    },
}  # fmt: skip


def run(*arguments: str | Path, **options: object) -> str:
    """Runs a program to a good end and gives what it printed."""
    done = subprocess.run(
        [str(each) for each in arguments],
        stdout=subprocess.PIPE,
        text=True,
        timeout=LIMIT_SECONDS,
        check=True,
        **options,  # type: ignore[call-overload]
    )
    return str(done.stdout)


@pytest.fixture(scope="module")
def environments(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The interpreter of each environment, installed from ``requirements.lock`` as the Makefile does."""
    found = {}
    for name, how in INSTALLS.items():
        folder = tmp_path_factory.mktemp(f"environment-{name}")
        run(sys.executable, "-m", "venv", folder)
        found[name] = folder / "bin" / "python"
        install = (found[name], "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
        run(*install, "--no-deps", "--require-hashes", "-r", ROOT / "requirements.lock")
        run(*install, "--no-deps", *how, ROOT)
    return found


def trained(python: Path, folder: Path, surroundings: dict[str, str], preset: str) -> bytes:
    """The graph that the command writes in a folder of its own, from the panel that is shipped."""
    folder.mkdir(parents=True)
    uri = (folder / "store").as_uri()
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    said = run(
        *(python, "-m", "modelwire", "train", "--dataset", "datasets/online_retail.toml"),
        *("--preset", preset, "--out", uri, "-o", "json"),
        cwd=folder,
        env={**clean, **surroundings},
    )
    digest = str(json.loads(said)["digest"]).removeprefix("sha256:")
    return open_store(uri).get(f"bundles/{digest}/model.onnx", limit=10**8)


def differences(one: bytes, other: bytes) -> Iterator[str]:
    """What differs between two graphs, tensor by tensor and node by node."""
    graphs = [onnx.load_model_from_string(each).graph for each in (one, other)]
    tensors = [{each.name: numpy_helper.to_array(each) for each in g.initializer} for g in graphs]
    for name in sorted(tensors[0].keys() | tensors[1].keys()):
        have = [each.get(name) for each in tensors]
        if have[0] is None or have[1] is None or have[0].shape != have[1].shape:
            yield f"tensor {name}: {[None if each is None else each.shape for each in have]}"
        elif not np.array_equal(have[0], have[1], equal_nan=have[0].dtype.kind == "f"):
            yield f"tensor {name}: {int((have[0] != have[1]).sum()):,} of {have[0].size:,} values"
    nodes = [[each.SerializeToString() for each in graph.node] for graph in graphs]
    for number, (have_one, have_other) in enumerate(zip(*nodes, strict=False)):
        if have_one != have_other:
            node = graphs[0].node[number]
            yield f"node {number}, {node.op_type} {node.name!r}"
    yield f"{len(nodes[0])} and {len(nodes[1])} nodes"


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("preset", ["plain", "full"])
def test_two_fresh_environments_train_the_same_bytes(
    environments: dict[str, Path], tmp_path: Path, preset: str
) -> None:
    """Neither folders nor hash seeds, threads, time zone or the way of installing change a byte."""
    folders = {"clone": tmp_path / "a", "wheel": tmp_path / "another" / "deeper folder"}
    graphs = [
        trained(python, folders[name], SURROUNDINGS[name], preset)
        for name, python in environments.items()
    ]
    print(*(hashlib.sha256(each).hexdigest() for each in graphs))
    assert graphs[0] == graphs[1], "; ".join(differences(*graphs))


def test_what_differs_between_two_graphs_is_named() -> None:
    """One value of one tensor, and one operator."""

    def graph(value: float, operator: str) -> bytes:
        x, y = (onnx.helper.make_tensor_value_info(each, 1, ["N"]) for each in "xy")
        weight = numpy_helper.from_array(np.array([1.0, value], np.float32), "w")
        node = onnx.helper.make_node(operator, ["x"], ["y"], name="first")
        made = onnx.helper.make_graph([node], "g", [x], [y], [weight])
        return bytes(onnx.helper.make_model(made).SerializeToString())

    assert list(differences(graph(1, "Neg"), graph(1, "Neg"))) == ["1 and 1 nodes"]
    said = list(differences(graph(1, "Neg"), graph(2, "Abs")))
    assert said[:2] == ["tensor w: 1 of 2 values", "node 0, Neg 'first'"]
