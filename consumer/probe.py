"""The probe: which rows of a batch bring the runtime down, found out where it may go down.

1. All rows at once first, as they were in hand: where that goes well, none is at fault, and what ended
   the consumer was something else.
2. Otherwise one row after the other. The one that the process does not survive is at fault; the next
   process goes on after it.
3. What is left is run at once again. Where that crashes twice, though no row does so alone, all of it is
   at fault: the requests must be answered, and cannot be by this model.
4. A row hangs when it alone takes more of the processor than a batch may take of time, twice. Time that
   passes while the process does not run, or runs slowly, is nobody's fault; it has a limit ten times as
   long. A set of rows is never at fault for taking long.
5. An end by a signal from outside says nothing of a row at first: it is tried again. Where the same row
   is met by it three times, as a row that takes all memory is, it is at fault.

A row for which there is no memory is at fault where it would have ended the consumer. The bytes come from
where bundles are; where they cannot be had in time, the error ends the consumer, and the slot's next life
tries again. ``go_on`` is asked all the time, while they are read as well, which therefore happens on a
thread of its own; once it says no, ``Stopped`` is raised.

The answering loop waits for these processes, so they step back for nobody.
"""

import math
import signal
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from enum import Enum, auto

import msgspec
import psutil

from adapters.bundles import Bundles
from adapters.processes import signal_name
from adapters.timed_reads import reading_by
from consumer.probe_child import DONE, OVER, READY, Job
from consumer.sandbox import CRASHES, Sandbox
from consumer.threads import thread_of
from schemas.errors import ModelwireError
from schemas.manifest import MODEL_NAME, Manifest, encode_manifest
from scoring.snapshot import LoadedVersion

READ_SECONDS = 120.0
"""For the bundle, which is mostly in this machine's cache. Less than the five minutes after which the
group takes a loop that fetches nothing for dead, and more than the loader usually has for it."""

START_SECONDS = 60.0
"""For the process to start and load the model, which was done before in a second or two."""

PATIENCE = 10.0
"""How many times the limit of processor time may pass on the clock."""

LOOK_SECONDS = 0.2
MOST_TRIES = 3
"""Of a process that is ended from outside."""

BY_ITSELF = CRASHES | {signal.SIGXCPU}
"""The signals that are the rows' doing."""


class Stopped(Exception):
    """The process was asked to stop; nothing was found out."""


class _End(Enum):
    """How a process ended."""

    DONE = auto()
    CRASHED = auto()
    TOO_LONG = auto()
    OUTSIDE = auto()


@dataclass(frozen=True)
class _Run:
    """How far a process came, in rows that it survived, and how it ended."""

    end: _End
    survived: int
    is_ready: bool
    how: str = ""


@dataclass(frozen=True)
class Limits:
    """Of one run: seconds of processor time, bytes of address space, and bytes that are left to take."""

    seconds: float
    address_bytes: int
    room: Callable[[], int]


class SandboxProbe:
    """Runs rows in sandboxes."""

    def __init__(self, bundles: Bundles, limits: Limits, go_on: Callable[[], bool]) -> None:
        self._bundles = bundles
        self._limits = limits
        self._go_on = go_on

    def deadly(self, version: LoadedVersion, inputs: Sequence[bytes]) -> frozenset[int]:
        """The places of ``inputs`` that crash or hang the model. Raises ModelwireError, Stopped."""
        bundle = self._read(version.digest)
        if self._run(bundle, inputs, one_by_one=False).end is _End.DONE:
            return frozenset()
        deadly = self._one_by_one(bundle, inputs)
        left = [place for place in range(len(inputs)) if place not in deadly]
        rows = [inputs[place] for place in left]
        if left and all(
            self._run(bundle, rows, one_by_one=False).end is _End.CRASHED for _ in range(2)
        ):
            deadly.update(left)
        return frozenset(deadly)

    def _read(self, digest: str) -> "_Bundle":
        """The bundle, read elsewhere: one read of a slow store may take all of the time."""
        found: Future[_Bundle] = Future()
        deadline = time.monotonic() + READ_SECONDS

        def read() -> None:
            try:
                with reading_by(deadline):
                    manifest = self._bundles.read_manifest(digest)
                    model = self._bundles.read_file(digest, manifest, MODEL_NAME)
                found.set_result(_Bundle(digest, manifest, model))
            except Exception as error:  # noqa: BLE001 - raised where it is waited for
                found.set_exception(error)

        thread_of("probe-read", read).start()
        while not wait([found], LOOK_SECONDS).done:
            self._ask()
        return found.result()

    def _ask(self) -> None:
        if not self._go_on():
            raise Stopped

    def _one_by_one(self, bundle: "_Bundle", inputs: Sequence[bytes]) -> set[int]:
        deadly: set[int] = set()
        begin = 0
        doubted: int | None = None
        while begin < len(inputs):
            run = self._run(bundle, inputs[begin:], one_by_one=True)
            if run.end is _End.DONE:
                break
            begin += run.survived
            if run.end is _End.TOO_LONG and doubted != begin:
                doubted = begin  # once may be chance
                continue
            deadly.add(begin)
            begin += 1
        return deadly

    def _run(self, bundle: "_Bundle", rows: Sequence[bytes], *, one_by_one: bool) -> _Run:
        """One process, or as many as it takes to get beyond what is done to it from outside."""
        places = []
        for _ in range(MOST_TRIES):
            run = self._try(bundle, rows, one_by_one=one_by_one)
            if run.is_ready and run.end is not _End.OUTSIDE:
                return run
            places.append(run.survived)
        if run.is_ready and one_by_one and len(set(places)) == 1:
            return _Run(_End.CRASHED, run.survived, True, run.how)
        if run.is_ready and not one_by_one:
            return run
        raise ModelwireError(
            "rows that brought a consumer down could not be told apart: the process that ran them was "
            f"ended {MOST_TRIES} times with {run.how}",
            hint="see that the machine has memory to spare, and start the consumer again",
        )

    def _try(self, bundle: "_Bundle", rows: Sequence[bytes], *, one_by_one: bool) -> _Run:
        manifest = encode_manifest(bundle.manifest)
        job = Job(
            digest=bundle.digest,
            address_bytes=self._limits.address_bytes,
            room_bytes=max(self._limits.room(), 0),
            cpu_seconds=math.ceil(START_SECONDS + self._limits.seconds * (len(rows) + 1)),
            manifest=len(manifest),
            model=len(bundle.model),
            rows=tuple(map(len, rows)),
            one_by_one=one_by_one,
        )
        try:
            with Sandbox("consumer.probe_child", niceness=None) as sandbox:
                sandbox.hand_over([msgspec.json.encode(job), b"\n", manifest, bundle.model, *rows])
                return self._follow(sandbox)
        except OSError as error:
            raise ModelwireError(
                f"no process could be started to tell rows apart: {error}",
                hint="see what the machine is short of, and start the consumer again",
            ) from error

    def _follow(self, sandbox: Sandbox) -> _Run:
        said = b""
        watch = _Watch(sandbox.pid)
        while not said.endswith(DONE):
            self._ask()
            more = sandbox.listen(LOOK_SECONDS)
            if more:
                said += more
                watch = _Watch(sandbox.pid)
                continue
            survived, is_ready = said.count(OVER), READY in said
            if more is not None:
                return _ended(sandbox, survived, is_ready=is_ready)
            limit = self._limits.seconds if is_ready else START_SECONDS
            if watch.is_over(limit):
                return _Run(_End.TOO_LONG, survived, is_ready, "no answer in time")
        return _Run(_End.DONE, said.count(OVER), True)


def _ended(sandbox: Sandbox, survived: int, *, is_ready: bool) -> _Run:
    code = sandbox.wait() or 0
    if code < 0:
        end = _End.CRASHED if -code in BY_ITSELF else _End.OUTSIDE
        return _Run(end, survived, is_ready, signal_name(-code))
    return _Run(_End.CRASHED, survived, is_ready, f"code {code}{sandbox.last_words()}")


class _Watch:
    """What a process took since this began: of the processor, and of time."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._began = time.monotonic()
        self._taken = self._cpu()

    def is_over(self, limit: float) -> bool:
        """Whether it took so many seconds of the processor, or of time many times as many."""
        return (
            self._cpu() - self._taken > limit or time.monotonic() - self._began > limit * PATIENCE
        )

    def _cpu(self) -> float:
        try:
            times = psutil.Process(self._pid).cpu_times()
        except psutil.Error:
            return 0.0
        return float(times.user + times.system)


@dataclass(frozen=True)
class _Bundle:
    digest: str
    manifest: Manifest
    model: bytes
