"""A supervisor beside its slots: it costs little, and no line of one is torn by another's."""

import io
import json
import subprocess
import sys
from typing import Any

import pytest
import structlog

from adapters.logs import configure_logs


class Writes(io.RawIOBase):
    """A file that keeps each write apart, as other processes' writes could come between them."""

    def __init__(self) -> None:
        self.all: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.all.append(bytes(data))
        return len(data)


def test_a_log_line_is_one_write(monkeypatch: pytest.MonkeyPatch) -> None:
    """With its newline, however long it is: what comes from another slot stands before or behind it."""
    writes = Writes()
    stderr = io.TextIOWrapper(io.BufferedWriter(writes), line_buffering=True)
    monkeypatch.setattr(sys, "stderr", stderr)
    configure_logs(as_json=True)
    try:
        structlog.get_logger().info("slot.started", slot=1)
        structlog.get_logger().info("slot.ended", **{f"field_{n}": "x" * 1_500 for n in range(20)})
    finally:
        structlog.reset_defaults()
    assert len(writes.all) == 2
    assert [json.loads(each)["message"] for each in writes.all] == ["slot.started", "slot.ended"]
    assert all(each.endswith(b"\n") for each in writes.all)


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
