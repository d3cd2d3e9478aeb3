"""A supervisor beside its slots: it costs little, and no line of one is torn by another's."""

import json
import os
import pty
import socket
import subprocess
import sys

import pytest

from tests.fleet import LIMIT_SECONDS

LINES = """
import structlog
from adapters.logs import configure_logs
configure_logs(as_json=True)
structlog.get_logger().info("slot.started", slot=1)
structlog.get_logger().info("slot.ended", **{f"field_{n}": "x" * 1_500 for n in range(20)})
"""


def test_a_log_line_is_one_write() -> None:
    """With its newline, however long it is: what comes from another slot stands before or behind it."""
    # Of a socket like this each write stands apart.
    ours, stderr = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, stderr:
        subprocess.run(
            [sys.executable, "-c", LINES], stderr=stderr, timeout=LIMIT_SECONDS, check=True
        )
        ours.settimeout(LIMIT_SECONDS)
        writes = [ours.recv(1_000_000) for _ in range(2)]
    assert [json.loads(each)["message"] for each in writes] == ["slot.started", "slot.ended"]
    assert all(each.endswith(b"\n") for each in writes)


def test_a_supervisor_loads_no_model_runtime() -> None:
    """It only starts processes, and is to cost less than one of them."""
    said = subprocess.run(
        [sys.executable, "-c", "import sys, consumer.cli; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(said.stdout.split())
    assert "consumer.slots" in loaded
    assert loaded.isdisjoint({"numpy", "onnx", "onnxruntime", "boto3", "pandas"})


def consume(*arguments: str) -> list[str]:
    """The command line."""
    return [sys.executable, "-m", "modelwire", "consume", *arguments]


@pytest.mark.parametrize(("more", "slot"), [(["--slot", "3"], 3), (["--workers", "2"], None)])
def test_an_impossible_model_name_ends_it_at_once(more: list[str], slot: int | None) -> None:
    """Before any slot starts or a broker is asked; the one line says what to do, and which slot it is."""
    done = subprocess.run(
        consume("--model", "Sales!", *more),
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        check=False,
    )
    [line] = [json.loads(each) for each in done.stderr.splitlines()]
    assert (done.returncode, line["message"], line["log.level"]) == (2, "consumer.failed", "error")
    assert line["error"]["type"] == "UsageProblem"
    assert line["error"]["message"] == "'Sales!' is not a model's name"
    assert "Traceback" not in line["error"]["stack_trace"]
    assert line["modelwire"]["exit_code"] == 2
    assert line["modelwire"]["next"].startswith("a name has up to 63 of a-z")
    assert line["modelwire"].get("slot") == slot


def test_at_a_terminal_a_failure_is_told_in_words() -> None:
    """A person reads it; the exit code is the same."""
    ours, terminal = pty.openpty()
    with open(ours, "rb", buffering=0) as reader:
        done = subprocess.run(
            consume("--model", "Sales!"), stderr=terminal, timeout=LIMIT_SECONDS, check=False
        )
        os.close(terminal)
        said = reader.read(4_096).decode()
    assert done.returncode == 2
    assert said.startswith("error: 'Sales!' is not a model's name\r\n  next: a name has")
