"""SIGTERM to a chaos run: nothing of it runs on, and its folder stays."""

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.fleet import wait_for

pytestmark = pytest.mark.stack

RUN = ["-m", "tests.chaos.run", "--requests", "1500", "--kills", "2", "--broker-kills", "1"]


def working_in(folder: Path) -> list[str]:
    """The processes that have the folder on their command line or work in it."""
    found = []
    for process in psutil.process_iter(["cmdline", "cwd", "status"]):
        told = [*(process.info["cmdline"] or ()), process.info["cwd"] or ""]
        if process.info["status"] != psutil.STATUS_ZOMBIE and str(folder) in " ".join(told):
            found.append(" ".join(told))
    return found


def test_a_run_that_is_asked_to_end_leaves_its_folder_and_no_process() -> None:
    """It comes in the midst of traffic, and the last line says what is left."""
    with subprocess.Popen(
        [sys.executable, *RUN], cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, text=True
    ) as run:
        said = run.stdout
        assert said is not None
        folder = Path(said.readline().split(" is in ")[1].split(",")[0])
        assert "schedule" in said.readline()
        try:
            wait_for("a kill", lambda: "kill -9" in said.readline())
            assert working_in(folder)
            run.send_signal(signal.SIGTERM)
            last = said.read().splitlines()[-1]
        finally:
            run.terminate()
    assert run.returncode == 128 + signal.SIGTERM
    assert last == f"aborted by SIGTERM, everything is stopped; {folder} stays for reading"
    assert working_in(folder) == []
    assert (folder / "consumers" / "slots.jsonl").stat().st_size > 0
    shutil.rmtree(folder)
