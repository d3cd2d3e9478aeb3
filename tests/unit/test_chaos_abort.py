"""What a signal does to a chaos run: everything is torn down, once and to its end."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.chaos.consumers import kill_left_over, left_over

PROGRAM = """
import signal, sys, time
from tests.chaos.abort import Aborted, abort_by_signal
try:
    with abort_by_signal():
        try:
            print("runs", flush=True)
            time.sleep(600)
        finally:
            print("is torn down", flush=True)
            sys.stdin.readline()
            print(signal.getsignal(signal.SIGTERM) is signal.SIG_IGN, flush=True)
except Aborted as aborted:
    print(aborted.signal.name)
    sys.exit(aborted.exit_code)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_run_through_its_blocks_and_the_next_one_spoils_nothing(
    number: signal.Signals,
) -> None:
    """Both signals do the same; the second comes while the servers are stopped."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "runs\n"
        process.send_signal(number)
        assert process.stdout.readline() == "is torn down\n"
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGINT)
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.read() == f"False\n{number.name}\n"
    assert process.returncode == 128 + number


def test_what_still_works_in_the_folder_is_ended(tmp_path: Path) -> None:
    """Stopped processes too, and nobody who works elsewhere."""
    sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
    folder, elsewhere = tmp_path / "run", tmp_path / "other"
    folder.mkdir()
    elsewhere.mkdir()
    with (
        subprocess.Popen(sleep, cwd=folder) as working,
        subprocess.Popen(sleep, cwd=folder) as stopped,
        subprocess.Popen(sleep, cwd=elsewhere) as other,
    ):
        stopped.send_signal(signal.SIGSTOP)
        assert sorted(left_over(folder)) == sorted([working.pid, stopped.pid])
        kill_left_over(folder)
        assert left_over(folder) == []
        assert other.poll() is None
        other.kill()
