"""What the README and the documents say to type works."""

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

import click
import pytest

from modelwire.cli import modelwire

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
LIMIT_SECONDS = 120.0
FEWER = {"20000": "2000"}
"""Counts that would only make the test longer."""


def commands_in(page: Path) -> list[list[str]]:
    """The arguments of each `modelwire …` line in a page's blocks of code, without the comments."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)
    lines = [line.removeprefix("$ ") for block in blocks for line in block.splitlines()]
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("modelwire ")]


def inline_commands_in(page: Path) -> list[list[str]]:
    """The arguments of each `modelwire …` between backticks in the text."""
    found = re.findall(r"(?<!`)`modelwire ([^`\n]+)`(?!`)", page.read_text(encoding="utf-8"))
    return [shlex.split(each) for each in found if not re.search(r"[|…\[]", each)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_and_option_that_a_page_names_exists(page: Path) -> None:
    """No page shows a command or an option that the command line does not know."""
    for arguments in commands_in(page) + inline_commands_in(page):
        command: click.Command = modelwire
        context = click.Context(command, info_name="modelwire")
        rest = arguments
        while isinstance(command, click.Group) and rest:
            inner = command.get_command(context, rest[0])
            assert inner is not None, f"{page.name}: no such command: {shlex.join(arguments)}"
            command, rest = inner, rest[1:]
        known = {name for option in command.params for name in option.opts} | {"--help", "-h"}
        named = {each.partition("=")[0] for each in rest if re.match(r"--?[a-z]", each)}
        assert named <= known, f"{page.name}: {shlex.join(arguments)}: {named - known}"


class Shell:
    """Runs the README's commands in an empty folder, as its reader would."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._digest = ""

    def type(self, arguments: list[str]) -> None:
        """Run one command to its end, which must be a good one."""
        given = [self._digest if each == "DIGEST" else FEWER.get(each, each) for each in arguments]
        done = subprocess.run(
            self._line(given),
            cwd=self._folder,
            capture_output=True,
            text=True,
            timeout=LIMIT_SECONDS,
            check=False,
        )
        assert done.returncode == 0, f"{shlex.join(given)}: {done.stdout}{done.stderr}"
        found = re.search(r"sha256:[0-9a-f]{64}", done.stdout)
        if arguments[0] == "train":
            assert found is not None, done.stdout
            self._digest = found[0]
        if "--wait" in arguments and arguments[0] == "request":
            assert json.loads(done.stdout)["outputs"]

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


@pytest.mark.stack
@pytest.mark.timeout(600)
def test_the_readme_works_as_it_is_typed(tmp_path: Path) -> None:
    """Every command of the README, in its order: a consumer answers in another terminal."""
    lines = commands_in(ROOT / "README.md")
    assert [line[0] for line in lines][:2] == ["up", "topics"]
    assert lines[-1] == ["down"]
    consume = next(line for line in lines if line[0] == "consume")
    before, after = lines[: lines.index(consume)], lines[lines.index(consume) + 1 : -1]
    shell = Shell(tmp_path)
    try:
        for arguments in before:
            shell.type(arguments)
        with shell.terminal(consume):
            for arguments in after:
                if "-w" in arguments:
                    shell.watch(arguments, expected="champion sales:2, served by 1 of 1")
                else:
                    shell.type(arguments)
    finally:
        shell.type(["down"])
