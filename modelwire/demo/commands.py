"""The processes of the demo: ``modelwire`` commands, run as a person would run them.

Each gets a session of its own, so that Ctrl-C reaches the demo alone, which then stops them in order.
"""

import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from schemas.errors import ModelwireError

STOP_SECONDS = 15.0
"""How long a process may take to stop on SIGTERM; after that it is killed."""

TAIL_LINES = 10


@dataclass
class Background:
    """A command that runs until it is stopped, and the file that its stderr goes to."""

    line: str
    process: subprocess.Popen[bytes]
    log: Path


class Commands:
    """Runs commands and remembers which still run. ``stop`` ends those."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._running: list[subprocess.Popen[bytes]] = []
        self.background: list[Background] = []

    def run(self, *arguments: str, meanwhile: Callable[[], None]) -> str:
        """What the command wrote to stdout. ``meanwhile`` is called again and again until it ends.

        Raises ModelwireError with what it wrote to stderr where it failed.
        """
        out, err = self._logs / "command.out", self._logs / "command.err"
        with out.open("wb") as stdout, err.open("wb") as stderr:
            process = _start(arguments, stdout=stdout.fileno(), stderr=stderr.fileno())
            self._running.append(process)
            while process.poll() is None:
                meanwhile()
        self._running.remove(process)
        if process.returncode != 0:
            said = err.read_text(encoding="utf-8", errors="replace").strip()
            raise ModelwireError(f"{command_line(arguments)} failed:\n{said}")
        return out.read_text(encoding="utf-8")

    def start(self, name: str, *arguments: str) -> None:
        """Run a command in the background, with its stderr in ``<name>.log``."""
        log = self._logs / f"{name}.log"
        with log.open("wb") as stderr:
            process = _start(arguments, stdout=stderr.fileno(), stderr=stderr.fileno())
        self._running.append(process)
        self.background.append(Background(command_line(arguments), process, log))

    def check(self) -> None:
        """Raises ModelwireError, with the end of its log, where a background command has ended."""
        for each in self.background:
            code = each.process.poll()
            if code is not None:
                lines = each.log.read_text(encoding="utf-8", errors="replace").splitlines()
                tail = "\n".join(f"  | {line}" for line in lines[-TAIL_LINES:])
                raise ModelwireError(f"{each.line} ended with code {code}:\n{tail}")

    def stop(self) -> None:
        """SIGTERM to all that run; returns when they have ended."""
        for process in self._running:
            process.terminate()
        deadline = time.monotonic() + STOP_SECONDS
        for process in self._running:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._running.clear()
        self.background.clear()


def command_line(arguments: Sequence[str]) -> str:
    """The command as a person would type it."""
    return shlex.join(["modelwire", *arguments])


def _start(arguments: Sequence[str], *, stdout: int, stderr: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "modelwire", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        start_new_session=True,
    )
