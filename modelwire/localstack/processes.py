"""The server processes of a stack: started detached, known again later, stopped by their own pid.

A pid alone proves nothing: after a crash or a reboot it may belong to somebody else. Each start
therefore puts a random token on the command line of its process and writes pid and token into the
pid file. A process is ours if it lives and carries the token. Anything else makes the file stale,
and a stale file is ignored and replaced; the process it points to is never touched.
"""

import contextlib
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import psutil

from modelwire.localstack.stack_info import command, log_file
from schemas.errors import ModelwireError, TimedOut

STOP_SECONDS = 20.0  # Kafka stops in 0.4 s; a machine under load may need longer
POLL_SECONDS = 0.02
TAIL_LINES = 20

# Children of this very process: only their exits are ours to collect.
_started_here: set[int] = set()


class _PidFile(msgspec.Struct, frozen=True):
    pid: int
    token: str


@dataclass(frozen=True, slots=True)
class ServerProcess:
    """One server of one state folder, which holds its pid file, its log and its working folder."""

    name: str
    state_dir: Path

    @property
    def pid_file(self) -> Path:
        """Names the process that was started last."""
        return self.state_dir / "run" / f"{self.name}.pid"

    @property
    def log(self) -> Path:
        """What it wrote since its last start; `<name>.log.1` is that of the start before."""
        return log_file(self.state_dir, self.name)

    @property
    def folder(self) -> Path:
        """The folder in which it runs, so that its configuration needs no absolute path."""
        return self.state_dir / self.name

    def start(self, java: Path, arguments: Sequence[str], class_path: str) -> int:
        """Start it in a session of its own, its output in the log; returns the pid.

        The last log becomes `<name>.log.1`. A Ctrl-C in the terminal does not reach the process,
        and neither do the caller's JAVA_TOOL_OPTIONS and the like: its environment is made here.
        """
        for folder in (self.pid_file.parent, self.log.parent, self.folder / "tmp"):
            folder.mkdir(parents=True, exist_ok=True)
        if self.log.exists():
            self.log.replace(self.log.with_suffix(".log.1"))
        token = secrets.token_hex(8)
        with self.log.open("wb") as log:
            process = subprocess.Popen(
                [
                    str(java),
                    f"-Dmodelwire.start={token}",
                    f"-Djava.io.tmpdir={self.folder / 'tmp'}",
                    *arguments,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                # Paths with other letters than ASCII need a UTF-8 locale.
                env={"CLASSPATH": class_path, "LC_ALL": "C.UTF-8"},
                start_new_session=True,
            )
        self.pid_file.write_bytes(msgspec.json.encode(_PidFile(process.pid, token)))
        _started_here.add(process.pid)
        process.returncode = 0  # it outlives us by design: spare the warning that it still runs
        return process.pid

    def pid(self) -> int | None:
        """The pid of our running process, or None if it does not run."""
        try:
            note = msgspec.json.decode(self.pid_file.read_bytes(), type=_PidFile)
        except (OSError, msgspec.DecodeError):
            return None
        _reap(note.pid)
        try:
            process = psutil.Process(note.pid)
            if process.status() == psutil.STATUS_ZOMBIE:
                return None
            ours = f"-Dmodelwire.start={note.token}" in process.cmdline()
        except psutil.Error:
            return None
        return note.pid if ours else None

    def stop(self) -> bool:
        """Stop it, gently and then firmly, and remove the pid file; False if it did not run."""
        pid = self.pid()
        if pid is not None:
            _signal(pid, signal.SIGTERM)
            if not _leaves_within(pid, STOP_SECONDS):
                self.kill()
        self.pid_file.unlink(missing_ok=True)
        return pid is not None

    def kill(self) -> bool:
        """End it as a crash would (SIGKILL) and leave the pid file; False if it did not run."""
        pid = self.pid()
        if pid is None:
            return False
        _signal(pid, signal.SIGKILL)
        if not _leaves_within(pid, STOP_SECONDS):
            raise TimedOut(
                f"{self.name} (pid {pid}) is still there {STOP_SECONDS:.0f} s after SIGKILL",
                hint="it hangs in the kernel, most likely on a dead disk or network mount",
            )
        return True

    def log_tail(self) -> str:
        """The last lines that it wrote, for an error message."""
        try:
            text = self.log.read_text(encoding="utf-8", errors="replace")
        except OSError:
            text = ""
        # Java's stack frames would push the sentence that matters out of the tail.
        lines = [line for line in text.splitlines() if not line.startswith("\tat ")][-TAIL_LINES:]
        return "\n".join(f"  | {line[:300]}" for line in lines) or "  | (it wrote nothing)"

    def failed(self, what: str, *, timed_out: bool = False) -> ModelwireError:
        """The error for a start that failed: what happened and the tail of the log."""
        kind = TimedOut if timed_out else ModelwireError
        return kind(
            f"{self.name} {what}; the end of {self.log}:\n{self.log_tail()}",
            hint=f"{command('doctor', self.state_dir)} says what is missing; to start it afresh: "
            f"{command('down', self.state_dir)} && {command('up', self.state_dir)}",
        )


def port_holder(port: int) -> str:
    """Who listens on a loopback port, as far as the system lets us see it: `pid 7 (postgres)`."""
    try:
        for connection in psutil.net_connections("tcp"):
            if (
                connection.status == psutil.CONN_LISTEN
                and connection.laddr
                and connection.laddr.port == port
                and connection.pid
            ):
                return f"pid {connection.pid} ({psutil.Process(connection.pid).name()})"
    except psutil.Error:
        pass
    return "another program"


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _leaves_within(pid: int, seconds: float) -> bool:
    """Wait until the process holds nothing any more: no port, no file lock."""
    deadline = time.monotonic() + seconds
    while not _has_left(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


def _has_left(pid: int) -> bool:
    _reap(pid)
    try:
        process = psutil.Process(pid)
        # A zombie may still have threads that keep its ports open for some milliseconds.
        return process.status() == psutil.STATUS_ZOMBIE and process.num_threads() <= 1
    except psutil.NoSuchProcess:
        return True


def _reap(pid: int) -> None:
    """Collect the exit of a child, which would stay a zombie otherwise."""
    if pid in _started_here:
        with contextlib.suppress(ChildProcessError):
            if os.waitpid(pid, os.WNOHANG)[0] == 0:
                return
        _started_here.discard(pid)
