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

import psutil
import pytest

from adapters.topics import create_topics
from modelwire.localstack.stack_info import read_stack
from tests.conftest import RunningStack

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


def consumers_of(state_dir: Path) -> list[psutil.Process]:
    """Consumer processes that belong to this stack."""
    found = []
    for process in psutil.process_iter():
        try:
            line = process.cmdline()
            if "consume" in line and "modelwire" in line:
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
    ]
    assert (result["lost"], result["doubled"], result["revision_regressions"]) == (0, 0, 0)
    assert result["requests"] == result["forecasts"] >= 20_000
    assert result["swaps"] == 3
    assert 0 < result["swap_seconds_max"] < 10
    assert result["versions"].keys() == result["wape_by_version"].keys() == {"1", "2"}
    assert result["wape_by_version"]["2"] < result["wape_by_version"]["1"] < 1
    assert "rollout undo sales-" in said
    assert consumers_of(state_dir) == []
    running = read_stack(state_dir)
    assert running is not None
    assert running.pids == stack.info.pids


def test_an_interrupt_stops_all_that_the_demo_started(tmp_path: Path) -> None:
    """Ctrl-C under load: exit 130, no consumer, no server and no traceback are left."""
    state_dir = tmp_path / "state"
    with demo(tmp_path, "--state-dir", str(state_dir)) as process:
        deadline = time.monotonic() + LIMIT_SECONDS
        while "version 1 answers" not in (tmp_path / "err").read_text():
            assert process.poll() is None, (tmp_path / "err").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert len(consumers_of(state_dir)) == 2
        process.send_signal(signal.SIGINT)
        code = process.wait(60)
    said = (tmp_path / "err").read_text()
    assert code == 130, said
    assert "Traceback" not in said
    assert consumers_of(state_dir) == []
    stopped = read_stack(state_dir)
    assert stopped is not None
    assert stopped.pids == {}
