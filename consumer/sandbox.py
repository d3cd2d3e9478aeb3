"""A sandbox: one process in which a model may hang or die.

1. It gets its job in an open file that has no name; it fetches nothing, and inherits nothing else but
   the pipe for what it says. Its environment holds no credentials.
2. It is in a process group of its own, and killed and waited for on every path (``close``). What else it
   may not do it takes from itself (``confinement``).
3. It is started before the job is there, so that its imports cost no time (``hand_over``). Where nobody
   waits for it, it steps back for everything else (``niceness``), from right after it was started: long
   before it has a job.
4. How it ended says whether the model brought it down: by a signal that a crash raises, or by an exit.
   Any other signal came from outside, such as the SIGKILL of a system short of memory.

The group is its own and the session is not: Linux shares the processor between sessions first, and one of
its own would take half of it whatever its niceness.
"""

import contextlib
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Self

END_SECONDS = 2.0
"""How long a process that has closed its pipe may take to be gone."""

NANO = 1e9

LONGEST_LAST_WORDS = 300
LARGEST_READ = 64 * 1024

CRASHES = frozenset(
    getattr(signal, name)
    for name in ("SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE", "SIGABRT", "SIGTRAP", "SIGSYS")
    if hasattr(signal, name)
)
"""The signals by which a process brings itself down."""

KEPT_VARIABLES = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PYTHONHOME", "LANG", "TMPDIR")
"""What the interpreter may need of the environment; everything else stays here."""

ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
"""A pool of threads for each core would take its start, and address space."""


class Sandbox:
    """One process of ``python -m <module>``, started at once. ``close`` ends it. Raises OSError.

    ``niceness`` is its own, where the system lets it; None for that of the thread that starts it.
    """

    def __init__(self, module: str, *, niceness: int | None) -> None:
        with contextlib.ExitStack() as files:
            self._job = files.enter_context(_nameless_file())
            self._stderr = files.enter_context(_nameless_file())
            self._said, said = os.pipe()
            files.callback(os.close, self._said)
            try:
                self._process = _start(module, self._job, self._stderr, said)
            finally:
                os.close(said)
            if niceness is not None:
                with contextlib.suppress(OSError):
                    os.setpriority(os.PRIO_PROCESS, self._process.pid, niceness)
            self._files = files.pop_all()
        self._poll = select.poll()
        self._poll.register(self._said, select.POLLIN)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def hand_over(self, parts: Iterable[bytes]) -> None:
        """Give it the job, of these parts one after the other, and let it begin. Raises OSError."""
        for content in parts:
            left = memoryview(content)
            while left:
                left = left[self._job.write(left) :]
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it is gone already: its end says so
            self._process.stdin.write(b"1")
            self._process.stdin.close()

    def listen(self, seconds: float) -> bytes | None:
        """What it says next: some bytes, none where it has ended, None where it is silent so long."""
        if self._poll.poll(seconds * 1_000):
            return os.read(self._said, LARGEST_READ)
        return None

    def held_up(self) -> float:
        """The seconds in which it wanted a processor so far and had none; 0 where that is not known."""
        with contextlib.suppress(OSError, ValueError, IndexError):
            waited = Path(f"/proc/{self._process.pid}/schedstat").read_text().split()[1]
            return int(waited) / NANO
        return 0.0

    def wait(self) -> int | None:
        """The code that it ended with, a signal's as a negative number; None where it goes on."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(END_SECONDS)
        return None

    def last_words(self) -> str:
        """The last line that it wrote to stderr, as the end of a sentence."""
        size = self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(size - 4_096, 0))
        lines = self._stderr.read().decode(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return f": {last[:LONGEST_LAST_WORDS]}" if last else ""

    def close(self) -> None:
        """End the process, if it is still there, and wait until it is gone. Raises nothing."""
        if self._process.poll() is None:
            with contextlib.suppress(OSError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.kill()
            self._process.wait()
        with contextlib.suppress(OSError):
            if self._process.stdin is not None:
                self._process.stdin.close()
        with contextlib.suppress(OSError):  # each is closed, whatever one of them says
            self._files.close()


def _start(module: str, job: FileIO, stderr: FileIO, said: int) -> "subprocess.Popen[bytes]":
    kept = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
    # Where this code is, whoever started it: an install, or a checkout.
    kept["PYTHONPATH"] = str(Path(__file__).parents[1])
    return subprocess.Popen(
        [sys.executable, "-P", "-m", module, str(job.fileno()), str(said), str(os.getpid())],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=stderr,
        env=kept | ONE_THREAD,
        pass_fds=(job.fileno(), said),
        process_group=0,
        bufsize=0,
    )


def _nameless_file() -> FileIO:
    """A file in memory where the system has such, else in the folder for such things.

    Nothing is buffered: what could not be written would be written again by the close.
    """
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("modelwire-sandbox", os.MFD_CLOEXEC)
        return os.fdopen(descriptor, "w+b", buffering=0)
    return tempfile.TemporaryFile(buffering=0)
