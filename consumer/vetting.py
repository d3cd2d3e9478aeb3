"""Vetting: a model is tried out in a process that may hang or die, before this one loads it.

1. The process (a ``sandbox``) gets the very bytes that were fetched. It has a limit of wall time, from
   when its interpreter is ready, sets itself others (``confinement``), and is ended on every path: also
   where nobody wants the version any more. It steps back for everything else, as soon as this process has
   something to answer with. The time in which a busy machine does not let it run is not held against it,
   up to ``LENIENCE`` times its limit.
2. A verdict is believed. Without one the version falls from ``vet``: it hung, or it crashed the process
   (by a signal that a crash raises, or by an exit), and that is a strike against the digest; any other
   signal came from outside, such as the SIGKILL of a system short of memory, and says nothing of it.
3. What is nearly done is not given up: a good model takes less than ``PATIENCE_SECONDS`` (0.3 s) of the
   time in which it is let run, and a log that names another version every moment would keep every one of
   them from its verdict.
"""

import math
import signal
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

import msgspec

from adapters.processes import signal_name
from consumer.memory import MIB
from consumer.rungs import Again, Bundle, NotAdmitted, Rung
from consumer.sandbox import CRASHES, Sandbox
from consumer.vetting_child import Job, Shortage, Verdict
from schemas.manifest import encode_manifest

LOOK_SECONDS = 0.05
PATIENCE_SECONDS = 3.0
START_SECONDS = 30.0
"""How long the interpreter may take to be ready; a machine that is busy takes seconds."""

LENIENCE = 5

NICENESS = 19
"""A start and a trial take most of a core for half a second, and each time slice of it is one that the
broker's, the client's or the loop's threads wait for."""

LONGEST_VERDICT = 64 * 1024


class Overtaken(Exception):
    """Another version is more urgent now, or nobody wants this one any more."""


class Trial:
    """One process, started at once so that it is ready when the bytes are. ``close`` ends it.

    It steps back as far as it can where this process answers meanwhile (``beside_answers``), else as far
    as the thread that starts it. Raises NotAdmitted where no process can be started.
    """

    def __init__(self, *, beside_answers: bool = True) -> None:
        self._heard = b""
        self._line = b""
        try:
            self._sandbox = Sandbox(
                "consumer.vetting_child", niceness=NICENESS if beside_answers else None
            )
        except OSError as error:
            raise NotAdmitted(
                Rung.VET, f"no process could be started to try it: {error}", Again.MENDED
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def judge(
        self,
        bundle: Bundle,
        *,
        seconds: float,
        address_bytes: int,
        room_bytes: int,
        batch_size: int,
        wanted: Callable[[], bool],
    ) -> int:
        """Try the bundle; returns how many bytes it will have resident once it is loaded.

        Raises NotAdmitted, and Overtaken once ``wanted`` says no.
        """
        files = (encode_manifest(bundle.manifest), bundle.golden, bundle.model)
        job = Job(
            digest=bundle.digest,
            batch_size=batch_size,
            address_bytes=address_bytes,
            room_bytes=max(room_bytes, 0),
            cpu_seconds=math.ceil(seconds) + 1,
            sizes=(len(files[0]), len(files[1]), len(files[2])),
        )
        self._hand_over(job, files)
        if self._hear_line(START_SECONDS, wanted, _not_ready()):
            self._hear_line(seconds, wanted, _timed_out(seconds))
        return self._growth(self._line, address_bytes)

    def close(self) -> None:
        """End the process, if it is still there, and wait until it is gone."""
        self._sandbox.close()

    def _hand_over(self, job: Job, files: tuple[bytes, ...]) -> None:
        try:
            self._sandbox.hand_over((msgspec.json.encode(job) + b"\n", *files))
        except OSError as error:
            raise NotAdmitted(
                Rung.VET, f"the model could not be handed over to be tried: {error}", Again.MENDED
            ) from error

    def _hear_line(self, seconds: float, wanted: Callable[[], bool], late: NotAdmitted) -> bool:
        """Wait for the next line, which is ``_line`` then; False where it ended before.

        Raises ``late`` after ``seconds``, and Overtaken once ``wanted`` says no.
        """
        began, held_up = time.monotonic(), self._sandbox.held_up()
        while b"\n" not in self._heard:
            # Listening comes first: a process that was itself stopped meanwhile finds the verdict there.
            more = self._sandbox.listen(LOOK_SECONDS)
            if more is not None:
                self._heard += more
                if not more or len(self._heard) > LONGEST_VERDICT:
                    return False
                continue
            excused = min(self._sandbox.held_up() - held_up, (LENIENCE - 1) * seconds)
            taken = time.monotonic() - began - excused
            if taken > seconds:
                raise late
            if taken > PATIENCE_SECONDS and not wanted():
                raise Overtaken
        self._line, _, self._heard = self._heard.partition(b"\n")
        return True

    def _growth(self, said: bytes, address_bytes: int) -> int:
        try:
            verdict = msgspec.json.decode(said, type=Verdict)
            rung = Rung(verdict.rung) if verdict.rung else None
        except (msgspec.DecodeError, ValueError):
            raise self._without_verdict() from None
        if verdict.shortage is Shortage.ADDRESSES:
            raise NotAdmitted(
                Rung.VET,
                f"it asked for more than the {address_bytes // MIB} MiB of address space that "
                f"consumer.vet_megabytes allows: {verdict.reason}",
            )
        if verdict.shortage is Shortage.ROOM:
            raise NotAdmitted(
                Rung.MEMORY, f"it could not be tried with the memory that is left: {verdict.reason}"
            )
        if rung is not None:
            raise NotAdmitted(rung, verdict.reason)
        return verdict.growth

    def _without_verdict(self) -> NotAdmitted:
        code = self._sandbox.wait()
        if code is None:
            return NotAdmitted(Rung.VET, "the process that tried it gave no verdict", Again.STRIKE)
        if code >= 0:
            reason = f"the process that tried it ended with code {code}"
            return NotAdmitted(Rung.VET, reason + self._sandbox.last_words(), Again.STRIKE)
        if -code in CRASHES:
            reason = f"it crashed the process that tried it with {signal_name(-code)}"
            return NotAdmitted(Rung.VET, reason + self._sandbox.last_words(), Again.STRIKE)
        if -code == signal.SIGXCPU:
            return NotAdmitted(
                Rung.VET, "it timed out: it used up its processor time", Again.STRIKE
            )
        return NotAdmitted(
            Rung.VET,
            f"the process that tried it was ended from outside with {signal_name(-code)}; a system "
            "that is short of memory does that",
            Again.KILLED,
        )


def _not_ready() -> NotAdmitted:
    return NotAdmitted(
        Rung.VET,
        f"the process to try it was not ready within {START_SECONDS:g} s; the machine is busy",
        Again.MENDED,
    )


def _timed_out(seconds: float) -> NotAdmitted:
    return NotAdmitted(
        Rung.VET,
        f"it timed out: it did not load and repeat its golden vectors within {seconds:g} s "
        "(consumer.vet_timeout_ms)",
        Again.STRIKE,
    )
