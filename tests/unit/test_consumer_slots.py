"""A supervisor beside its slots: it costs little, and no line of one is torn by another's."""

import json
import socket
import subprocess
import sys

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
        subprocess.run([sys.executable, "-c", LINES], stderr=stderr, timeout=30, check=True)
        ours.settimeout(5)
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
