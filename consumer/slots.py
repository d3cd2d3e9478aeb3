"""The processes of a supervisor's slots: started, heard of when they end, signalled, never left behind.

What is to be done is decided in ``consumer/supervisor.py``. Here it is done, on one thread that sleeps
until a signal comes (SIGCHLD too) or the next start is due:

1. Each slot is ``python -m modelwire consume --slot i``, with the supervisor's stderr, and in a process
   group of its own, so that a Ctrl-C reaches it once, through the supervisor.
2. SIGTERM, SIGINT and SIGHUP (a terminal was closed; not where ``nohup`` ignores it) ask for the end, and
   slots are then asked with SIGTERM.
3. A slot dies with its supervisor, however that ends: the kernel kills it (``end_with``). A slot that
   lived on would hold its place until the next supervisor's slot took it.
4. A slot says once when it is at work (``AtWork``), through a pipe that all share, so that the supervisor
   can tell a slot that never could work from one that did.
5. Every child is reaped, also those it did not start: as process 1 of a container it inherits them.

Nothing here, or above it, imports a model runtime: the supervisor costs less than one slot.
"""

import os
import random
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

import structlog

from adapters.processes import die_with_parent, signal_name
from consumer.supervisor import LASTING, TAKEN, Slot, Stopping, Supervisor
from schemas.errors import ModelwireError

_ASKING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

log = structlog.get_logger()

Command = Callable[[int, int], Sequence[str]]
"""A slot's number, the descriptor to tell on that it is at work -> the arguments of its ``modelwire``."""

Variables = Callable[[int], Mapping[str, str]]
"""A slot's number -> its environment."""


def end_with(supervisor: int) -> None:
    """Let the kernel kill this process when its parent, the process ``supervisor``, is gone.

    Raises ModelwireError where it is gone already. Where the kernel cannot, a slot lives on until its
    place is taken.
    """
    if not die_with_parent(supervisor):
        raise ModelwireError(
            f"the supervisor of this slot (process {supervisor}) is gone",
            hint="start it again: modelwire consume --workers N",
        )


class AtWork:
    """The pipe on which a supervisor's slots say that they are at work, and since when."""

    _WORD = struct.Struct("=qd")
    """Process id, and seconds of the monotonic clock, which is one for the whole system."""

    def __init__(self) -> None:
        self._reader, self.writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_inheritable(self.writer, True)

    @classmethod
    def say(cls, writer: int) -> None:
        """In a slot: it is at work now."""
        with suppress(OSError):  # the supervisor is gone, and this process soon
            os.write(writer, cls._WORD.pack(os.getpid(), time.monotonic()))

    def heard(self) -> list[tuple[int, float]]:
        """What was said since the last time."""
        words = b""
        with suppress(BlockingIOError):
            while more := os.read(self._reader, 4_096):
                words += more
        return list(self._WORD.iter_unpack(words))


def supervise(supervisor: Supervisor, command: Command, variables: Variables) -> int:
    """Keep the slots running until a signal comes or all were given up; returns the exit code."""
    shell = _Shell(supervisor, command, variables)
    with _signals() as wait:
        log.info("supervisor.start", slots=[s.number for s in supervisor.slots])
        while True:
            shell.reap()
            shell.start_due()
            if supervisor.is_over:
                break
            came = wait(supervisor.wait_seconds(time.monotonic()))
            # The wish to stop first: a slot that the same signal reached has then stopped, not ended.
            shell.ask([each for each in came if each in _ASKING])
    code = supervisor.exit_code
    write = log.info if code == 0 else log.error
    write("supervisor.stop", exit_code=code, reason=_why(supervisor))
    return code


class _Shell:
    """Does what the supervisor says, and says what it did."""

    def __init__(self, supervisor: Supervisor, command: Command, variables: Variables) -> None:
        self._supervisor = supervisor
        self._command = command
        self._variables = variables
        self._at_work = AtWork()

    def start_due(self) -> None:
        """Start the slots whose time has come."""
        for number in self._supervisor.due(time.monotonic()):
            arguments = [
                sys.executable,
                "-m",
                "modelwire",
                *self._command(number, self._at_work.writer),
            ]
            try:
                # Not fork: the health server's threads may hold any lock.
                pid = os.posix_spawn(
                    sys.executable,
                    arguments,
                    self._variables(number),
                    file_actions=[(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)],
                    setpgroup=0,
                )
            except OSError as error:
                now = time.monotonic()
                slot = self._supervisor.start_failed(number, now, random.random())
                log.error("slot.not_started", slot=number, problem=str(error), **_next(slot, now))
                continue
            self._supervisor.started(number, pid, time.monotonic())
            log.info("slot.started", slot=number, pid=pid)

    def ask(self, signals: Sequence[int]) -> None:
        """A signal asked for the end, or the time for it is over: pass that on."""
        now = time.monotonic()
        answers = [self._supervisor.asked(now) for _ in signals] + [self._supervisor.overdue(now)]
        for passed_on in answers:
            if passed_on is None:
                continue
            running = self._supervisor.running
            log.warning(
                "supervisor.stopping",
                signal=signal.Signals(passed_on).name,
                slots=[slot.number for slot in running],
            )
            for slot in running:
                assert slot.pid is not None
                os.kill(slot.pid, passed_on)  # not reaped yet, so the pid is nobody else's

    def reap(self) -> None:
        """Collect every child that has ended. What it said before counts."""
        with suppress(ChildProcessError):
            while (found := os.waitpid(-1, os.WNOHANG))[0] != 0:
                for pid, since in self._at_work.heard():
                    self._supervisor.at_work(pid, since)
                self._ended(found[0], os.waitstatus_to_exitcode(found[1]))

    def _ended(self, pid: int, code: int) -> None:
        now = time.monotonic()
        slot = self._supervisor.ended(pid, code, now, random.random())
        if slot is None:
            return
        how = {"exit_code": code} if code >= 0 else {"signal": signal_name(-code)}
        taken = {"taken_ends": slot.taken_ends} if code == TAKEN else {}
        asked = self._supervisor.stopping is not Stopping.NO
        write = log.info if asked and code in (0, -signal.SIGTERM) else log.warning
        write(
            "slot.ended",
            slot=slot.number,
            pid=pid,
            **how,
            seconds=round(now - slot.started_at, 3),
            bad_ends=slot.bad_ends,
            **taken,
            **_next(slot, now),
        )
        if slot.given_up is not None:
            log.error("slot.given_up", slot=slot.number, exit_code=code, reason=LASTING[code])


def _next(slot: Slot, now: float) -> dict[str, float]:
    """When it starts again, for a log line."""
    return {} if slot.starts_at is None else {"starts_in_seconds": round(slot.starts_at - now, 3)}


def _why(supervisor: Supervisor) -> str:
    given_up = [slot.number for slot in supervisor.slots if slot.given_up is not None]
    if supervisor.stopping is Stopping.NO:
        return "every slot was given up"
    said = "asked to stop" if supervisor.stopping is Stopping.ASKED else supervisor.stopping.value
    return f"{said}; given up before: {given_up}" if given_up else said


@contextmanager
def _signals() -> Iterator[Callable[[float | None], list[int]]]:
    """For the block, signals wake the function that it is given, which returns which ones came.

    After it the process is about to end: who asks for that once more must not change its exit code.
    """
    ours, pythons = socket.socketpair()
    ours.setblocking(False)
    pythons.setblocking(False)
    nohup = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    asking = [each for each in _ASKING if not (nohup and each == signal.SIGHUP)]
    for number in (*asking, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    signal.set_wakeup_fd(pythons.fileno(), warn_on_full_buffer=False)

    def wait(seconds: float | None) -> list[int]:
        select.select([ours], [], [], seconds)
        with suppress(BlockingIOError):
            return list(ours.recv(4_096))
        return []

    try:
        yield wait
    finally:
        for number in asking:
            signal.signal(number, signal.SIG_IGN)
        signal.set_wakeup_fd(-1)
        ours.close()
        pythons.close()
