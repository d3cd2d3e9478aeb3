"""A reader who types what a page says, in an empty folder."""

import json
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tests.fleet import LIMIT_SECONDS
from trainer.dataset import load_dataset

ROOT = Path(__file__).parents[1]
FEWER = {"20000": "2000"}
"""Counts that would only make the test longer."""

DATASET = Path("datasets/online_retail.toml")
PRODUCTS = 150
"""Of 4,070; a full training of them all takes a minute and a half of a processor."""


def commands_in(page: Path) -> list[list[str]]:
    """The arguments of each `modelwire …` line in a page's blocks of code, without the comments."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)
    lines = [line.removeprefix("$ ") for block in blocks for line in block.splitlines()]
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("modelwire ")]


class Shell:
    """Runs the README's commands in an empty folder, as its reader would."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._digest = ""
        self._request_id = ""

    def type(self, arguments: list[str], code: int = 0) -> str:
        """Run one command to its end, with this exit code; gives what it wrote to stdout. A training may
        take minutes on a busy machine, so it has all of the test's time."""
        blanks = {**FEWER, "DIGEST": self._digest, "REQUEST_ID": self._request_id}
        given = [blanks.get(each, each) for each in arguments]
        done = subprocess.run(
            self._line(given),
            cwd=self._folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, f"{shlex.join(given)}: {done.stdout}{done.stderr}"
        found = re.search(r"sha256:[0-9a-f]{64}", done.stdout)
        if arguments[0] == "train":
            assert found is not None, done.stdout
            self._digest = found[0]
        if arguments[:2] == ["audit", "query"] and "request_id" in arguments[-1]:
            self._request_id = done.stdout.split()[-1]
        if "--wait" in arguments and arguments[0] == "request":
            assert json.loads(done.stdout)["outputs"]
        return done.stdout

    def write_files_of(self, page: Path) -> None:
        """Write the TOML files that a page shows; the first line names the file. Times are cut."""
        blocks = re.findall(r"^```toml\n# (\S+)\n(.*?)^```", page.read_text("utf-8"), re.M | re.S)
        for name, text in blocks:
            shorter = re.sub(r'hold = "\d+m"', 'hold = "1s"', text)
            (self._folder / name).write_text(shorter, encoding="utf-8")

    def give_best_sellers(self) -> None:
        """Put a part of the shipped panel where commands look first: the products sold most often."""
        shipped = load_dataset(DATASET)
        panel = pq.read_table(shipped.source)
        counted = panel["stockcode"].value_counts().to_pylist()
        often = sorted(counted, key=lambda each: (-each["counts"], each["values"]))[:PRODUCTS]
        kept = pc.is_in(panel["stockcode"], pa.array([each["values"] for each in often]))
        place = self._folder / DATASET
        place.parent.mkdir()
        place.write_text(shipped.text, encoding="utf-8")
        pq.write_table(panel.filter(kept), place.parent / shipped.source.name)

    @contextmanager
    def until_its_end(self, arguments: list[str]) -> Iterator[None]:
        """Run a command in a terminal of its own; after the block it must come to a good end."""
        with (self._folder / "other-terminal").open("w") as log:
            process = subprocess.Popen(
                self._line(arguments), cwd=self._folder, stdout=log, stderr=log
            )
        try:
            yield
            code = process.wait(LIMIT_SECONDS)
        finally:
            process.kill()
        assert code == 0, (self._folder / "other-terminal").read_text()

    @contextmanager
    def terminal(self, arguments: list[str]) -> Iterator[None]:
        """Run a command in a terminal of its own, until the end of the block."""
        with (self._folder / "terminal").open("w") as log:
            process = subprocess.Popen(
                self._line(arguments), cwd=self._folder, stdout=log, stderr=log
            )
        try:
            yield
        finally:
            process.send_signal(signal.SIGINT)
            code = process.wait(LIMIT_SECONDS)
        assert code in (0, 130), (self._folder / "terminal").read_text()

    def watch(self, arguments: list[str], expected: str) -> None:
        """Run a command that goes on for ever until it shows something, then press Ctrl-C."""
        screen = self._folder / "screen"
        with screen.open("w") as log:
            process = subprocess.Popen(
                self._line(arguments), cwd=self._folder, stdout=log, stderr=log
            )
        deadline = time.monotonic() + LIMIT_SECONDS
        try:
            while expected not in screen.read_text():
                assert process.poll() is None, screen.read_text()
                assert time.monotonic() < deadline, screen.read_text()
                time.sleep(0.1)
        finally:
            process.send_signal(signal.SIGINT)
            code = process.wait(LIMIT_SECONDS)
        assert code in (0, 130), screen.read_text()
        assert "Traceback" not in screen.read_text()

    @staticmethod
    def _line(arguments: list[str]) -> list[str]:
        return [sys.executable, "-m", "modelwire", *arguments]
