"""The local stack as one thing: up, down, and the crashes that tests ask for.

1. All work on a state folder happens under its file lock, so concurrent `up`s become one.
2. `up` starts what does not run and leaves alone what does; it returns when real clients are served.
3. Ports, the S3 secret and the data survive `down`. A remembered port that somebody else took is an
   error that names the holder; `new_ports` chooses again.
4. If a start fails, whatever this call started is stopped again.
"""

import contextlib
import dataclasses
import fcntl
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

from modelwire.localstack import jars as jar_files
from modelwire.localstack import ports
from modelwire.localstack.broker import Broker
from modelwire.localstack.jars import JarCache
from modelwire.localstack.processes import ServerProcess, port_holder
from modelwire.localstack.progress import Reporter, Silent, ToConsole
from modelwire.localstack.runtime import java
from modelwire.localstack.s3 import S3Server
from modelwire.localstack.stack_info import KAFKA, S3, StackInfo, command, read_stack, write_stack
from schemas.errors import ModelwireError, TimedOut

START_SECONDS = 90.0
# A process that was killed a moment ago keeps its ports until its last thread has gone.
PORT_SECONDS = 2.0
# Another command may be downloading the jars over a slow line.
LOCK_SECONDS = 600.0


class Stack:
    """The broker and the S3 server of one state folder."""

    def __init__(self, state_dir: Path, reporter: Reporter) -> None:
        self.state_dir = state_dir
        self.reporter = reporter
        self.broker = Broker(state_dir)
        self.s3 = S3Server(state_dir)
        self.processes: dict[str, ServerProcess] = {
            KAFKA: self.broker.process,
            S3: self.s3.process,
        }

    @classmethod
    def up(
        cls,
        state_dir: Path,
        *,
        quiet: bool = False,
        jars: JarCache | None = None,
        limit_seconds: float = START_SECONDS,
        new_ports: bool = False,
    ) -> StackInfo:
        """Start what does not run; returns when both servers answer real clients.

        `quiet` says nothing on stderr. `jars` is where jars are kept and fetched from.
        `limit_seconds` bounds the wait for each server, not the download. `new_ports` forgets the
        remembered ports of a stack that does not run. Raises ModelwireError.
        """
        stack = cls(Path(state_dir).resolve(), Silent() if quiet else ToConsole())
        with _files_of(stack.state_dir):
            stack.state_dir.mkdir(parents=True, exist_ok=True)
            with stack.locked():
                return stack.bring_up(jars or JarCache(), limit_seconds, new_ports)

    @classmethod
    def down(cls, state_dir: Path) -> tuple[str, ...]:
        """Stop what `up` started and nothing else; returns the names of what was stopped."""
        stack = cls(Path(state_dir).resolve(), Silent())
        if not stack.state_dir.is_dir():
            return ()
        with _files_of(stack.state_dir), stack.locked():
            stopped = tuple(name for name, process in stack.processes.items() if process.stop())
            if info := read_stack(stack.state_dir):
                write_stack(dataclasses.replace(info, pids={}))
        return stopped

    @classmethod
    def kill_broker(cls, state_dir: Path) -> None:
        """End the broker with SIGKILL, as a crash would. Raises ModelwireError if it is not up."""
        stack = cls(Path(state_dir).resolve(), Silent())
        if not stack.broker.process.kill():
            raise ModelwireError(
                f"no broker of {stack.state_dir} runs", hint=command("up", stack.state_dir)
            )

    @classmethod
    def restart_broker(
        cls, state_dir: Path, *, quiet: bool = True, limit_seconds: float = START_SECONDS
    ) -> StackInfo:
        """Kill the broker if it runs, then start it on the same data and the same port."""
        stack = cls(Path(state_dir).resolve(), Silent())
        stack.broker.process.kill()
        return cls.up(state_dir, quiet=quiet, limit_seconds=limit_seconds)

    def bring_up(self, jars: JarCache, limit_seconds: float, new_ports: bool) -> StackInfo:
        """`up`, once the lock is held."""
        running = {name: pid for name, process in self.processes.items() if (pid := process.pid())}
        info = self._addresses(running, new_ports)
        started: list[ServerProcess] = []
        began = time.monotonic()
        try:
            if missing := [name for name in self.processes if name not in running]:
                self._require_free_ports(info, missing)
                for name, pid in self._start(missing, info, jars, started):
                    running[name] = pid
            self.broker.wait_ready(info.bootstrap_servers, limit_seconds)
            self.s3.wait_ready(info, limit_seconds)
        except BaseException:  # Ctrl-C too: a half-started stack helps nobody
            for process in started:
                process.stop()
            raise
        info = dataclasses.replace(info, pids=running)
        write_stack(info)
        if started:
            self.reporter.say(f"ready after {time.monotonic() - began:.1f} s")
        return info

    def _start(
        self, names: list[str], info: StackInfo, jars: JarCache, started: list[ServerProcess]
    ) -> Iterator[tuple[str, int]]:
        """Start the named servers; each is noted in `started` as soon as it lives."""
        program = java()
        locked = {name: jar_files.locked_jars(name) for name in (KAFKA, S3)}
        # Both sets at once, though only one server may be missing: the cache is whole or it is not.
        wanted = tuple(dict.fromkeys(jar for name in locked for jar in locked[name]))
        if jars.missing(wanted):
            with self.reporter.downloads() as on_jar:
                jars.fetch(wanted, on_jar)
        if S3 in names:  # first, as it starts while Kafka formats
            self.reporter.say("starting the S3 server")
            class_path = jars.class_path(locked[S3])
            started.append(self.s3.process)
            yield S3, self.s3.start(program, class_path, info)
        if KAFKA in names:
            self.reporter.say("starting Kafka")
            class_path = jars.class_path(locked[KAFKA])
            started.append(self.broker.process)
            yield (
                KAFKA,
                self.broker.start(program, class_path, info.kafka_port, info.controller_port),
            )

    def _addresses(self, running: dict[str, int], new_ports: bool) -> StackInfo:
        """What the folder remembers, or new ports and a new secret, remembered at once."""
        info = read_stack(self.state_dir)
        if info is not None and not (new_ports and not running):
            if new_ports:
                raise ModelwireError(
                    "the ports of a running stack cannot change",
                    hint=f"{command('down', self.state_dir)} && "
                    f"{command('up --new-ports', self.state_dir)}",
                )
            return info
        kafka, controller, s3 = ports.choose(3)
        fresh = StackInfo(
            state_dir=self.state_dir,
            bootstrap_servers=f"{ports.LOOPBACK}:{kafka}",
            controller_port=controller,
            s3_endpoint=f"http://{ports.LOOPBACK}:{s3}",
            s3_access_key="modelwire",
            s3_secret_key=info.s3_secret_key if info else secrets.token_hex(20),
        )
        write_stack(fresh)
        return fresh

    def _require_free_ports(self, info: StackInfo, names: list[str]) -> None:
        needed = {KAFKA: (info.kafka_port, info.controller_port), S3: (info.s3_port,)}
        for name in names:
            for port in needed[name]:
                if not ports.becomes_free(port, PORT_SECONDS):
                    raise ModelwireError(
                        f"port {port}, which {self.state_dir / 'stack.json'} remembers for {name}, "
                        f"is in use by {port_holder(port)}",
                        hint="stop that program, or choose other ports: "
                        f"{command('down', self.state_dir)} && "
                        f"{command('up --new-ports', self.state_dir)}",
                    )

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the state folder's lock. Raises TimedOut if another command keeps it."""
        path = self.state_dir / "stack.lock"
        deadline = time.monotonic() + LOCK_SECONDS
        waiting = False
        with path.open("w") as lock:
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if not waiting:
                        self.reporter.say("another command works on this stack; waiting for it")
                        waiting = True
                    if time.monotonic() > deadline:
                        raise TimedOut(
                            f"another command has held {path} for {LOCK_SECONDS:.0f} s",
                            hint="see what it does, or end it, then run this again",
                        ) from None
                    time.sleep(0.05)
            yield


@contextlib.contextmanager
def _files_of(state_dir: Path) -> Iterator[None]:
    """Turn what the file system refuses (permission, full disk) into one message."""
    try:
        yield
    except OSError as problem:
        where = f" ({problem.filename})" if problem.filename else ""
        raise ModelwireError(
            f"the state folder {state_dir} cannot be used: {problem.strerror or problem}{where}",
            hint=f"{command('doctor', state_dir)} says what is short, or name another folder "
            "with --state-dir",
        ) from problem
