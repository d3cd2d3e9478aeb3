"""The consumers of a chaos run: a supervisor's slots, and members that come and go.

What they do is known from their log lines alone, which come through a pipe: so a full disk, which may
strike every file that they write, does not strike the lines.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from tests.chaos.disk import CacheDisk
from tests.fleet import flat_line

STOP_SECONDS = 25.0
"""How long an end that was asked for may take: a supervisor kills what has not stopped after 16 s."""

KILLED_SECONDS = 5.0
"""A process with much memory is not gone at once; one that its parent starts meanwhile is met as well."""

ENDED = "slot.ended by "
"""Counted beside the events, with the signal or the exit code behind it."""

KILLED = f"{ENDED}SIGKILL"

SUMMARY = "consumer.summary"

DOUBTED_SUMMARIES = 2
"""The first one after a stop may come before anything else is noticed."""


class Slots:
    """A ``modelwire consume`` and the processes under it. Its lines are kept in ``record``."""

    def __init__(
        self,
        arguments: list[str],
        environment: Mapping[str, str],
        record: Path,
        disk: CacheDisk | None = None,
    ) -> None:
        consume = [sys.executable, "-m", "modelwire", "consume", *arguments]
        self.process = subprocess.Popen(
            consume if disk is None else disk.around(consume),
            env=dict(environment),
            cwd=record.parent,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        self.events: Counter[str] = Counter()
        """How often each event was told of."""
        self.errors: list[str] = []
        """What processes said for people, mostly as they ended by themselves."""
        self.tracebacks = 0
        self.answered = 0
        """Answers told of: forecasts and rejections. Who is killed tells nothing of its last second."""
        self._record = record
        self._pids: dict[int, int] = {}
        """Slot -> its newest process."""
        self._owned: dict[int, set[int]] = {}
        """Process -> its partitions, by what it said of them."""
        self._killed: set[int] = set()
        self._doubted: dict[int, int] = {}
        """Process -> how many summaries it has to write until its partitions are believed again."""
        self._lock = threading.Lock()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def pid_of(self, slot: int) -> int | None:
        """The slot's process, where it has one that lives and was not killed."""
        with self._lock:
            pid = self._pids.get(slot)
        lives = pid is not None and pid not in self._killed and psutil.pid_exists(pid)
        return pid if lives else None

    def kill_one(self, pid: int) -> None:
        """SIGKILL for the process of a slot."""
        self._killed.add(pid)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    def owned_by(self, pid: int) -> tuple[int, ...]:
        """The partitions that the process answers; none while what it said of them is doubted."""
        with self._lock:
            return () if pid in self._doubted else tuple(sorted(self._owned.get(pid, ())))

    def doubt(self, pid: int) -> None:
        """It was stopped: somebody else may have its partitions, and it does not know yet."""
        with self._lock:
            self._doubted[pid] = DOUBTED_SUMMARIES

    def processes(self) -> Iterator[int]:
        """The supervisor and its slots, where they live."""
        with self._lock:
            pids = [self.process.pid, *self._pids.values()]
        return (pid for pid in pids if psutil.pid_exists(pid))

    def stop(self) -> int:
        """Ask for the end; returns the exit code, which is -9 where it did not come in time."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            code = -signal.SIGKILL
        self.kill()
        return code

    def kill(self) -> None:
        """End it all, and read what was said to the end."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for pid in self.processes():  # stopped ones too; the kernel has killed them already
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._reader.join(5)

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self._record.open("ab") as record:
            for line in self.process.stderr:
                record.write(line)
                record.flush()
                if line.startswith(b"Traceback"):
                    self.tracebacks += 1
                if line.startswith(b"error"):
                    self.errors.append(line.decode(errors="replace").rstrip())
                if line.startswith(b"{"):
                    with suppress(ValueError, KeyError):
                        self._take(line.decode())

    def _take(self, line: str) -> None:
        pid = json.loads(line)["process"]["pid"]
        told: dict[str, Any] = flat_line(line)
        with self._lock:
            self.events[told["event"]] += 1
            if told["event"] == SUMMARY:
                self.answered += told["answered"] + sum(told["rejected"].values())
            owned = self._owned.setdefault(pid, set())
            match told["event"]:
                case "slot.started":
                    self._pids[told["slot"]] = told["pid"]
                case "slot.ended":
                    self._owned.pop(told["pid"], None)
                    how = told.get("signal", told.get("exit_code"))
                    self.events[f"{ENDED}{how}"] += 1
                case "partitions.assigned":
                    owned.update(told["partitions"])
                case "partitions.revoked" | "partitions.lost":
                    owned.difference_update(told["partitions"])
                case "group.leave":
                    owned.clear()
                case "consumer.summary" if pid in self._doubted:
                    self._doubted[pid] -= 1
                    if self._doubted[pid] == 0:
                        del self._doubted[pid]


def kill_left_over(folder: Path) -> None:
    """End what still works in this folder, for a run that was broken off anywhere."""
    deadline = time.monotonic() + KILLED_SECONDS
    while (left := left_over(folder)) and time.monotonic() < deadline:
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


def left_over(folder: Path) -> list[int]:
    """The processes that still work in this folder."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE and process.cwd() == str(folder):
                found.append(process.pid)
    return found
