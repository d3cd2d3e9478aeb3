"""The demo as a stranger runs it: a process, on real servers, to its end or interrupted."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from adapters.topics import create_topics
from modelwire.demo.cli import DATASET
from modelwire.localstack.stack_info import read_stack
from tests.conftest import RunningStack
from tests.unit.trainer_panels import dataset_in

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]

LIMIT_SECONDS = 300.0


@contextmanager
def demo(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The running demo; stderr goes to a file in the test's folder. Killed at the end if need be."""
    with (folder / "err").open("w") as err, (folder / "out").open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "modelwire", "demo", *arguments],
            stdout=out,
            stderr=err,
            text=True,
            env=dict(os.environ),
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def running(state_dir: Path, command: str) -> list[psutil.Process]:
    """Processes of this command that belong to this stack."""
    found = []
    for process in psutil.process_iter():
        try:
            line = process.cmdline()
            if command in line and "modelwire" in line:
                named = process.environ().get("MODELWIRE_STATE_DIR")
                found += [process] if named == str(state_dir) else []
        except psutil.Error:
            continue
    return found


def test_the_demo_swaps_under_load_and_every_request_has_one_answer(
    stack: RunningStack, tmp_path: Path
) -> None:
    """On a stack that ran before, with a model `sales` of somebody else's: neither is touched."""
    state_dir = stack.info.state_dir
    create_topics(stack.settings("sales"), "sales")
    with demo(tmp_path, "-o", "json", "--state-dir", str(state_dir)) as process:
        code = process.wait(LIMIT_SECONDS)
    said = (tmp_path / "err").read_text()
    assert code == 0, said
    result = json.loads((tmp_path / "out").read_text())
    assert list(result) == [
        "requests",
        "forecasts",
        "rejections",
        "lost",
        "doubled",
        "revision_regressions",
        "swaps",
        "swap_seconds_max",
        "versions",
        "wape_by_version",
        "swap_seconds",
        "wrong_variant",
        "shadow",
        "canary",
        "shares",
        "audit",
    ]
    assert (result["lost"], result["doubled"], result["revision_regressions"]) == (0, 0, 0)
    assert result["requests"] == result["forecasts"] >= 20_000
    assert result["swaps"] == 3
    assert result["swap_seconds"].keys() == {"promotion", "undo", "blue-green"}
    assert result["swap_seconds_max"] > 0
    assert result["versions"].keys() == result["wape_by_version"].keys() == {"1", "2"}
    assert max(result["wape_by_version"].values()) < 1
    for said_so in (
        "rollout undo sales-",
        "passed admission on 2 of 2",
        "--run &",
        "; shadow: ver",
    ):
        assert said_so in said
    assert_a_shadow_and_a_canary(result)
    audited = result["audit"]
    assert audited["kept"] == result["forecasts"]
    assert audited["derived"] == audited["identical"] == 500
    assert f"Request '{audited['explained']}' came as sales-" in said
    assert "1 of 1 answers of sales-" in said
    assert running(state_dir, "consume") == running(state_dir, "rollout") == []
    stack_now = read_stack(state_dir)
    assert stack_now is not None
    assert stack_now.pids == stack.info.pids


def assert_a_shadow_and_a_canary(result: dict[str, Any]) -> None:
    """Both scored the same requests; keys were shared as the plan says, and the checker saw the same."""
    shadow = result["shadow"]
    assert shadow["version"] == 2
    assert 0 < shadow["compared"] <= shadow["scored"]
    assert 0 < shadow["wape"] < shadow["champion_wape"] < 1
    canary = result["canary"]
    assert [step["weight"] for step in canary] == [1_000, 5_000, 10_000]
    assert canary[2]["request_share"] == canary[2]["key_share"] == 1
    assert result["wrong_variant"] == 0
    for step in canary:
        share, keys = step["weight"] / 10_000, step["keys"]
        assert step["seconds"] > 0
        assert abs(step["key_share"] - share) <= 5 * (share * (1 - share) / keys) ** 0.5
    counted = {step["weight"]: step for step in result["shares"]}
    for step in canary[:2]:
        for figure in ("requests", "request_share", "keys", "key_share"):
            assert counted[step["weight"]][figure] == step[figure]


def test_an_interrupt_stops_all_that_the_demo_started(tmp_path: Path) -> None:
    """Ctrl-C in the middle of a canary: exit 130; no consumer, no controller, no server and no
    traceback are left. The models are of a small panel, which lies where the demo looks first."""
    state_dir = tmp_path / "state"
    (tmp_path / DATASET.parent).mkdir()
    dataset_in(tmp_path / DATASET.parent).path.rename(tmp_path / DATASET)
    with demo(tmp_path, "--state-dir", str(state_dir)) as process:
        deadline = time.monotonic() + LIMIT_SECONDS
        while "canary: 10% of the keys" not in (tmp_path / "err").read_text():
            assert process.poll() is None, (tmp_path / "err").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert len(running(state_dir, "consume")) == 2
        assert len(running(state_dir, "--run")) == 1
        process.send_signal(signal.SIGINT)
        code = process.wait(LIMIT_SECONDS)
    said = (tmp_path / "err").read_text()
    assert code == 130, said
    assert "Traceback" not in said
    assert running(state_dir, "consume") == running(state_dir, "rollout") == []
    stopped = read_stack(state_dir)
    assert stopped is not None
    assert stopped.pids == {}
