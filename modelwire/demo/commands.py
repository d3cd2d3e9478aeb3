"""The processes of the demo: ``modelwire`` commands, run as a person would run them.

Each gets a session of its own, so that Ctrl-C reaches the demo alone, which then stops them in order.
"""

import contextlib
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from schemas.errors import ModelwireError

STOP_SECONDS = 15.0
"""How long a process may take to stop on SIGTERM; after that it is killed."""

TAIL_LINES = 10

_Process = subprocess.Popen[bytes]


@dataclass
class Background:
    """A command that runs until it is stopped, or that ends by itself (``ends``), and the file that
    its output goes to."""

    line: str
    process: _Process
    log: Path
    ends: bool


class Commands:
    """Runs commands and remembers which still run. ``stop`` ends those."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._running: list[_Process] = []
        self.background: list[Background] = []

    def run(self, *arguments: str, meanwhile: Callable[[], None]) -> str:
        """What the command wrote to stdout. ``meanwhile`` is called again and again until it ends.

        Raises ModelwireError with what it wrote to stderr where it failed.
        """
        out, err = self._logs / "command.out", self._logs / "command.err"
        with out.open("wb") as stdout, err.open("wb") as stderr:
            process = self._start(arguments, stdout=stdout.fileno(), stderr=stderr.fileno())
            while process.poll() is None:
                meanwhile()
        self._running.remove(process)
        if process.returncode != 0:
            said = err.read_text(encoding="utf-8", errors="replace").strip()
            raise ModelwireError(f"{command_line(arguments)} failed:\n{said}")
        return out.read_text(encoding="utf-8")

    def start(self, name: str, *arguments: str, ends: bool = False) -> Background:
        """Run a command in the background, with its output in ``<name>.log``.

        ``ends`` is for one that ends by itself: see ``wait``.
        """
        log = self._logs / f"{name}.log"
        with log.open("wb") as output:
            process = self._start(arguments, stdout=output.fileno(), stderr=output.fileno())
        started = Background(command_line(arguments), process, log, ends)
        self.background.append(started)
        return started

    def wait(self, started: Background, meanwhile: Callable[[], None]) -> None:
        """Until a background command has ended, calling ``meanwhile`` again and again.

        Raises ModelwireError, with the end of its output, where it did not end well.
        """
        while started.process.poll() is None:
            meanwhile()
        self.check()
        self.background.remove(started)
        self._running.remove(started.process)

    def check(self) -> None:
        """Raises ModelwireError, with the end of its output, where a background command has ended and
        should not have, or not like this."""
        for each in self.background:
            code = each.process.poll()
            if code is not None and not (each.ends and code == 0):
                lines = each.log.read_text(encoding="utf-8", errors="replace").splitlines()
                tail = "\n".join(f"  | {line}" for line in lines[-TAIL_LINES:])
                raise ModelwireError(f"{each.line} {_ending(code)}:\n{tail}")

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

    def _start(self, arguments: Sequence[str], *, stdout: int, stderr: int) -> _Process:
        with uninterrupted():
            process = subprocess.Popen(
                [sys.executable, "-m", "modelwire", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )
            self._running.append(process)
        return process


def command_line(arguments: Sequence[str]) -> str:
    """The command as a person would type it."""
    return shlex.join(["modelwire", *arguments])


def _ending(code: int) -> str:
    return f"ended with code {code}" if code >= 0 else f"was ended by signal {-code}"


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Ctrl-C waits until the block is over: a process that nobody remembers would run for ever.

    By handlers and not by a mask, since a process inherits the mask.
    """
    came: list[tuple[int, FrameType | None]] = []
    before = {
        number: signal.signal(number, lambda number, frame: came.append((number, frame)))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    for number, frame in came[:1]:
        handler = before[signal.Signals(number)]
        if callable(handler):
            handler(number, frame)
