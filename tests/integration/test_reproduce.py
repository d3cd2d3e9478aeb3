"""``modelwire reproduce`` and ``train --refresh`` as people type them; and the same bytes everywhere."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from adapters.object_store import open_store
from deployment.commands import Release
from publisher.commands import give
from tests.conftest import RunningStack
from tests.shell import ROOT
from tests.unit.trainer_panels import CONFIG, dataset_in, made_up_columns

EARLY, LATE = "2024-03-15", "2024-03-26"


def modelwire(
    folder: Path, *arguments: str, code: int = 0, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs a command in a process of its own, whose store lies in the folder."""
    done = subprocess.run(
        [sys.executable, "-m", "modelwire", *arguments],
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "MODELWIRE_STORE_URL": (folder / "store").as_uri(),
            **(environment or {}),
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


def train(folder: Path, *arguments: str, environment: dict[str, str] | None = None) -> str:
    """The digest of what is trained."""
    done = modelwire(folder, "train", *arguments, "-o", "json", environment=environment)
    return str(json.loads(done.stdout)["digest"])


def model_of(folder: Path, digest: str) -> bytes:
    store = open_store((folder / "store").as_uri())
    return store.get(f"bundles/{digest.removeprefix('sha256:')}/model.onnx", limit=10**8)


@pytest.mark.parametrize("preset", ["plain", "full"])
def test_hashes_and_threads_change_no_byte(tmp_path: Path, preset: str) -> None:
    """Two processes, with other seeds of Python's hashes and one thread against two."""
    dataset_in(tmp_path)
    models = []
    for number in ("1", "2"):
        environment = dict.fromkeys(
            ("PYTHONHASHSEED", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), number
        )
        arguments = ["--dataset", "panel.toml", "--preset", preset]
        models.append(model_of(tmp_path, train(tmp_path, *arguments, environment=environment)))
    assert models[0] == models[1]


def test_a_bundle_is_reproduced_by_the_beginning_of_its_digest(tmp_path: Path) -> None:
    """The same data exit with 0, other data with 1 and the file that differs."""
    dataset_in(tmp_path)
    digest = train(tmp_path, "--dataset", "panel.toml", "--preset", "plain")
    short = digest.removeprefix("sha256:")[:10]
    same = modelwire(tmp_path, "reproduce", short)
    assert "model.onnx  the same, byte for byte" in same.stdout
    assert "data        the same" in same.stdout

    columns = made_up_columns()
    columns["units"] = columns["units"] + 1
    dataset_in(tmp_path, columns)
    other = modelwire(tmp_path, "reproduce", digest, "-o", "json", code=1)
    report = json.loads(other.stdout)
    assert report["same"] is False
    assert report["model_onnx"]["had"] != report["model_onnx"]["have"]
    assert list(report["differences"]["data"]) == ["panel.parquet"]
    shown = modelwire(tmp_path, "reproduce", digest, code=1)
    assert "panel.parquet: sha256:" in shown.stdout
    assert "model.onnx  differs" in shown.stdout


def test_a_refresh_needs_neither_dataset_nor_kafka(tmp_path: Path) -> None:
    """The bundle's own configuration is used; the child reproduces through its parent."""
    dataset_in(tmp_path)
    parent = train(tmp_path, "--dataset", "panel.toml", "--cutoff", EARLY)
    done = modelwire(tmp_path, "train", "--refresh", parent, "--cutoff", LATE, "-o", "json")
    report = json.loads(done.stdout)
    assert (report["parent"], report["preset"]) == (parent, "full")
    assert report["holdout"]["first"] == "2024-03-27"
    again = json.loads(modelwire(tmp_path, "reproduce", report["digest"], "-o", "json").stdout)
    assert (again["same"], again["parent"]) == (True, parent)


@pytest.mark.parametrize("option", ["--preset", "--seed"])
def test_a_refresh_takes_over_what_the_parent_decided(tmp_path: Path, option: str) -> None:
    """Such an option would promise what is not done."""
    value = {"--preset": "full", "--seed": "0"}[option]
    done = modelwire(tmp_path, "train", "--refresh", "abcdef", option, value, code=2)
    assert f"{option} is the parent's" in done.stderr


def test_a_training_needs_a_dataset(tmp_path: Path) -> None:
    """Only a refresh does without."""
    assert "Missing option '--dataset'" in modelwire(tmp_path, "train", code=2).stderr


def test_what_was_never_stored_is_not_found(tmp_path: Path) -> None:
    """The digits are named, and the exit code is that of what does not exist."""
    assert "begins with abcdef" in modelwire(tmp_path, "reproduce", "abcdef", code=4).stderr


@pytest.mark.stack
def test_a_version_is_found_by_the_control_log(
    stack: RunningStack, model: str, tmp_path: Path
) -> None:
    """MODEL:1 is the bundle that was released; a version that was not is not found."""
    environment = stack.environment(model)
    dataset_in(tmp_path, config=CONFIG.replace('model = "sales"', f'model = "{model}"'))
    modelwire(tmp_path, "topics", "create", model, environment=environment)
    digest = train(
        tmp_path,
        "--dataset",
        "panel.toml",
        "--preset",
        "plain",
        "--cutoff",
        EARLY,
        environment=environment,
    )
    give(stack.settings(model), model, Release(digest, None, "salt"))
    said = modelwire(tmp_path, "reproduce", f"{model}:1", "-o", "json", environment=environment)
    assert json.loads(said.stdout)["digest"] == digest
    done = modelwire(
        tmp_path,
        "train",
        "--refresh",
        f"{model}:1",
        "--cutoff",
        LATE,
        "-o",
        "json",
        environment=environment,
    )
    assert json.loads(done.stdout)["parent"] == digest
    missing = modelwire(tmp_path, "reproduce", f"{model}:2", code=4, environment=environment)
    assert f"{model}:2 was never released" in missing.stderr
