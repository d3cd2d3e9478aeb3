"""The process in which a model is tried out: it may hang or die, and nothing is lost.

    python -m consumer.vetting_child <job> <verdict> <parent>

``vetting`` starts it while the model is still being fetched, so that its imports cost no time, and writes
one byte to its stdin when the job is complete; an end of stdin without it says that nobody needs a
verdict any more. ``job`` and ``verdict`` are open files: the first holds a ``Job`` as one line of JSON
and then the bytes of manifest, golden vectors and model; into the second goes an empty line where the
trial begins, from when on its time counts, and one ``Verdict`` as a line of JSON.

Before it looks at the bytes it takes from itself what it will not need (``confinement``).

The verdict's ``growth`` is the most that the model had resident here, in bytes, beyond what the process
had before the load: what it will take in the consumer.
"""

import contextlib
import os
import sys
from enum import StrEnum

import msgspec

from adapters.onnx_model import runtime_limits
from consumer.confinement import ALLOCATION_FAILED, confine, has_job, settle
from consumer.memory import give_back
from consumer.rungs import Bundle, NotAdmitted, Rung, try_out
from schemas.manifest import decode_manifest

ADDRESSES_TIMES = 1.5
"""Address space that a load takes for each byte that it has resident at most: measured 1.3 to 1.5."""

LONGEST_REASON = 2_000
"""Characters; it goes to the fleet topic and into log lines."""

RESET_PEAK = "5"
"""What ``/proc/self/clear_refs`` takes for: forget how much was resident at most."""


class Shortage(StrEnum):
    """What there was too little of."""

    ADDRESSES = "addresses"
    """The model asked for more than any may have."""
    ROOM = "room"
    """It asked for more than is left now."""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What to try, and how. ``sizes`` are those of manifest, golden vectors and model, in bytes.

    ``address_bytes`` is the most address space, ``room_bytes`` how much memory there is to take.
    """

    digest: str
    batch_size: int
    address_bytes: int
    room_bytes: int
    cpu_seconds: int
    sizes: tuple[int, int, int]


class Verdict(msgspec.Struct, frozen=True):
    """Passed where ``rung`` is empty. ``shortage``: the limit at which an allocation failed, if any."""

    rung: str = ""
    reason: str = ""
    growth: int = 0
    shortage: Shortage | None = None


class _Taken:
    """What this process has taken of memory. Its files stay open: later none can be opened."""

    def __init__(self) -> None:
        self._before = 0
        with contextlib.suppress(OSError):
            self._status = os.open("/proc/self/status", os.O_RDONLY)
            self._peak = os.open("/proc/self/clear_refs", os.O_WRONLY)

    def addresses(self) -> int:
        """Bytes of address space."""
        return self._read("VmSize")

    def start(self) -> None:
        """From here on growth is counted, and nothing that is free now is hidden by it."""
        give_back()
        with contextlib.suppress(OSError, AttributeError):
            os.write(self._peak, RESET_PEAK.encode())
        self._before = self._read("VmRSS")

    def growth(self) -> int:
        """The most that was resident since ``start``, beyond what was then; 0 where nobody says."""
        return max(self._read("VmHWM") - self._before, 0)

    def _read(self, name: str) -> int:
        try:
            text = os.pread(self._status, 8192, 0).decode()
        except (OSError, AttributeError):
            return 0
        lines = (line.split() for line in text.splitlines())
        return next((int(line[1]) * 1024 for line in lines if line[0] == f"{name}:"), 0)


def main(job_file: int, verdict_file: int, parent: int) -> None:
    """Wait for the job, try the model, say how it went."""
    settle(parent)
    taken = _Taken()
    runtime_limits()  # the runtime is awake, and has read of the machine what it reads
    if has_job():
        job, bundle = _read_job(job_file)
        os.write(verdict_file, b"\n")
        verdict = _judge(job, bundle, taken)
        os.write(verdict_file, msgspec.json.encode(verdict) + b"\n")
    os._exit(0)  # what the runtime does at the interpreter's end is no part of the trial


def _judge(job: Job, bundle: Bundle, taken: _Taken) -> Verdict:
    shortage = _limit(job, taken)
    try:
        try_out(bundle, runtime_limits(), job.batch_size, taken.start)
    except NotAdmitted as fallen:
        # A parser that got no memory says that the bytes are no model.
        is_short = any(words in fallen.reason for words in ALLOCATION_FAILED) or (
            fallen.rung is Rung.LOAD and shortage is Shortage.ROOM
        )
        return Verdict(fallen.rung, _short(fallen.reason), shortage=shortage if is_short else None)
    except MemoryError:
        return Verdict(Rung.VET, "an allocation failed", shortage=shortage)
    except Exception as error:  # noqa: BLE001 - whatever it is, the model is not fit to answer
        return Verdict(Rung.VET, _short(f"{type(error).__name__}: {error}"))
    return Verdict(growth=taken.growth())


def _read_job(job_file: int) -> tuple[Job, Bundle]:
    with open(job_file, "rb", closefd=True) as file:
        file.seek(0)
        job = msgspec.json.decode(file.readline(), type=Job)
        manifest, golden, model = (file.read(size) for size in job.sizes)
    return job, Bundle(job.digest, decode_manifest(manifest), model, golden)


def _limit(job: Job, taken: _Taken) -> Shortage:
    """Set the limits; says which one an allocation will fail at."""
    by_room = taken.addresses() + int(ADDRESSES_TIMES * job.room_bytes)
    confine(address_bytes=min(job.address_bytes, by_room), cpu_seconds=job.cpu_seconds)
    return Shortage.ROOM if by_room < job.address_bytes else Shortage.ADDRESSES


def _short(reason: str) -> str:
    return reason[:LONGEST_REASON]


if __name__ == "__main__":
    main(*map(int, sys.argv[1:4]))
