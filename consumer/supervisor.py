"""When each of a supervisor's slots is started, started again, asked to stop, killed, given up.

Rules, over what happened (which process ended how, which signal came, what time it is):

1. A slot that ended is started again. At once after its first bad end, so that a kill costs no more than
   a start; after each further one in a row later (``delay_after``), with jitter, so that slots that fell
   together do not come back together. A slot that ran for ``WELL_SECONDS`` begins a new row.
2. A good end (code 0) that nobody asked the supervisor for is a person's wish for a fresh process: it is
   started again as after a first bad end.
3. Four codes say what a restart does not mend (``LASTING``). A slot none of whose processes has been at
   work (past all that these codes tell of a start, and in its group) is given up at once where it ends
   with one of them (but for 5, rule 5), so that whoever starts it hears of it. Giving it up takes nothing
   away.
4. A slot that has been at work is not to be lost for what passes: a broker that is just back can say for
   a while that a topic is not there. It is given up after ``DOUBTED`` ends in a row with one and the same
   of these codes. A process that was at work for ``WELL_SECONDS`` begins a new row.
5. Code 5 is also the end of a process whose slot another one took. Such ends have a row of their own,
   which no other end and no work breaks, only ``CALM_SECONDS`` without one: two supervisors with the same
   slots take them from each other in turns, and each process is at work until it is taken from. Each
   start waits longer, by that row. A slot is given up after ``DOUBTED`` such ends, and one that had its
   place for ``HELD_SECONDS`` before the row began after twice as many: so who came later gives it up.
6. Everything else (a broker that is away, a crash, a kill, a watchdog's end) is tried for ever.
7. The first signal asks every slot to stop, and nothing is started any more. A second one, if it comes
   later than ``ECHO_SECONDS`` (``timeout`` and others send one signal twice), or ``STOP_SECONDS``, kills.
8. It is over when no process runs and none is to be started.

The code at the end says why: 130 where a second signal killed; 124 where a slot did not stop in time;
else that of the slot that was given up first; else of the first that failed in its stop, 1 for a signal;
else 0. A slot that the asking itself ended (SIGTERM before it listened) stopped well.

``consumer/slots.py`` starts and signals the processes, and tells what happened here.
"""

from dataclasses import dataclass, replace
from enum import Enum
from signal import SIGKILL, SIGTERM

WELL_SECONDS = 5.0
"""A start takes one to three seconds. On a machine that is so overloaded that it takes longer, a crash
loop is not slowed down further."""

SHORTEST_DELAY_SECONDS = 0.5
LONGEST_DELAY_SECONDS = 30.0

DOUBTED = 10
"""Ends in a row with a lasting code until it is believed. Where each comes soon after its start, the
delays between them alone take a minute and a half (``delay_after``)."""

CALM_SECONDS = 300.0
"""Without an end with code 5, until a next one begins a new row. In a row they are at most two minutes
apart: half a minute's delay on either side, two starts, and the 20 seconds that a process may take to
hear that its place is taken."""

HELD_SECONDS = 60.0
"""Who had the place that long when it was first taken had it before the other one came, which cannot
hold it that long at first: its first end with 5 comes with the other one's next start, at once."""

STOP_SECONDS = 16.0
"""How long a slot may take to stop. It repeats a call in doubt for 8 s, and its watchdog ends it where a
call has not come back after 12."""

ECHO_SECONDS = 0.5

TIMED_OUT = 124
INTERRUPTED = 130

TAKEN = 5

LASTING = {
    2: "its command or its settings are not usable",
    3: "a rule refuses that it starts; a person has to say how",
    4: "what it was told to answer for does not exist",
    TAKEN: "another process has its slot, or its topics are not as they must be",
}
"""Exit code -> why a restart does not mend it (schemas/errors.py)."""


@dataclass(frozen=True, slots=True)
class Slot:
    """One slot: its process, or when the next one starts, or the code with which it was given up."""

    number: int
    pid: int | None = None
    started_at: float = 0.0
    starts_at: float | None = None
    given_up: int | None = None
    starts: int = 0
    bad_ends: int = 0
    """In a row, since it last ran well."""
    lasting_ends: int = 0
    """The newest ones, in a row, with one and the same lasting code, but for ``TAKEN``."""
    taken_ends: int = 0
    """With ``TAKEN``, in their own row."""
    taken_at: float | None = None
    """When the newest of them came."""
    held_long: bool = False
    """Whether it had its place for ``HELD_SECONDS`` when that row began."""
    last_code: int | None = None
    has_worked: bool = False
    """One of its processes has been at work."""
    at_work_since: float | None = None
    """The newest process; None where it is not, or not yet."""


class Stopping(Enum):
    """How far the end has come."""

    NO = "no"
    ASKED = "asked"
    KILLED_LATE = "killed, since the time was over"
    KILLED_ASKED = "killed, since a second signal came"


def delay_after(bad_ends: int, jitter: float) -> float:
    """Seconds until the next start after that many bad ends in a row; ``jitter`` is from [0, 1).

    0, then 0.5, 1, 2, 4, … up to 30, each between three and five quarters of it.
    """
    if bad_ends <= 1:
        return 0.0
    doublings = min(bad_ends - 2, 16)  # beyond it the number would only grow
    return min(SHORTEST_DELAY_SECONDS * 2.0**doublings, LONGEST_DELAY_SECONDS) * (0.75 + jitter / 2)


def after_end(slot: Slot, code: int, now: float, jitter: float) -> Slot:
    """The slot after its process ended with ``code`` (below 0: the signal), nobody having asked.

    Either ``starts_at`` or ``given_up`` is set. Times are seconds of one monotonic clock.
    """
    ran_well = now - slot.started_at >= WELL_SECONDS
    worked_well = slot.at_work_since is not None and now - slot.at_work_since >= WELL_SECONDS
    bad_ends = 1 if ran_well or code == 0 else slot.bad_ends + 1
    if code == TAKEN:
        slot = _taken(slot, now)
        row, lasting_ends = slot.taken_ends, 0
        in_vain = row
    else:
        goes_on = code == slot.last_code and not worked_well
        lasting_ends = (slot.lasting_ends if goes_on else 0) + 1 if code in LASTING else 0
        row, in_vain = bad_ends, lasting_ends
    given_up = in_vain >= patience(slot, code)
    return replace(
        slot,
        pid=None,
        starts_at=None if given_up else now + delay_after(row, jitter),
        given_up=code if given_up else None,
        bad_ends=bad_ends,
        lasting_ends=lasting_ends,
        last_code=code,
        at_work_since=None,
    )


def _taken(slot: Slot, now: float) -> Slot:
    """The slot with one more end with ``TAKEN`` in its row."""
    if slot.taken_at is not None and now - slot.taken_at < CALM_SECONDS:
        return replace(slot, taken_ends=slot.taken_ends + 1, taken_at=now)
    held_long = slot.at_work_since is not None and now - slot.at_work_since >= HELD_SECONDS
    return replace(slot, taken_ends=1, taken_at=now, held_long=held_long)


def patience(slot: Slot, code: int) -> float:
    """How often in a row the slot may end with ``code`` before it is given up."""
    if code not in LASTING:
        return float("inf")
    if code == TAKEN:
        return DOUBTED * 2 if slot.held_long else DOUBTED
    return DOUBTED if slot.has_worked else 1


class Supervisor:
    """The slots ``first`` … ``first + workers - 1``. One thread calls; others may read ``slots``."""

    def __init__(self, first: int, workers: int, now: float) -> None:
        numbers = range(first, first + workers)
        self.stopping = Stopping.NO
        self._slots = {number: Slot(number, starts_at=now) for number in numbers}
        self._asked_at = 0.0
        self._gave_up_with: int | None = None
        self._failed_stop: int | None = None

    @property
    def slots(self) -> tuple[Slot, ...]:
        """Every slot as it stands, by number."""
        return tuple(self._slots.values())

    @property
    def running(self) -> list[Slot]:
        """Those with a process."""
        return [slot for slot in self.slots if slot.pid is not None]

    @property
    def is_over(self) -> bool:
        """True once nothing runs and nothing is to be started."""
        return all(slot.pid is None and slot.starts_at is None for slot in self.slots)

    @property
    def exit_code(self) -> int:
        """Why it is over."""
        if self.stopping is Stopping.KILLED_ASKED:
            return INTERRUPTED
        if self.stopping is Stopping.KILLED_LATE:
            return TIMED_OUT
        return self._gave_up_with or self._failed_stop or 0

    def due(self, now: float) -> list[int]:
        """The slots to start now."""
        return [
            each.number
            for each in self.slots
            if each.starts_at is not None and each.starts_at <= now
        ]

    def wait_seconds(self, now: float) -> float | None:
        """How long nothing is to be done unless something happens; None: for ever."""
        times = [slot.starts_at for slot in self.slots if slot.starts_at is not None]
        if self.stopping is Stopping.ASKED:
            times.append(self._asked_at + STOP_SECONDS)
        return max(min(times) - now, 0.0) if times else None

    def started(self, number: int, pid: int, now: float) -> None:
        """The slot's process was started."""
        slot = self._slots[number]
        self._slots[number] = replace(
            slot, pid=pid, started_at=now, starts_at=None, starts=slot.starts + 1
        )

    def at_work(self, pid: int, since: float) -> None:
        """The process has passed all that can keep a start from its work, and joins its group."""
        for slot in self.slots:
            if slot.pid == pid:
                self._slots[slot.number] = replace(slot, has_worked=True, at_work_since=since)

    def start_failed(self, number: int, now: float, jitter: float) -> Slot:
        """The machine could not start the process; as a bad end of one that never ran."""
        self._slots[number] = after_end(
            replace(self._slots[number], started_at=now), 1, now, jitter
        )
        return self._slots[number]

    def ended(self, pid: int, code: int, now: float, jitter: float) -> Slot | None:
        """A child ended: its slot as it stands after it; None where it was none of the slots."""
        slot = next((each for each in self.slots if each.pid == pid), None)
        if slot is None:
            return None
        if self.stopping is Stopping.NO:
            after = after_end(slot, code, now, jitter)
            if self._gave_up_with is None:
                self._gave_up_with = after.given_up
        else:
            after = replace(slot, pid=None, last_code=code)
            if code not in (0, -SIGTERM) and self._failed_stop is None:
                self._failed_stop = max(code, 1)
        self._slots[slot.number] = after
        return after

    def asked(self, now: float) -> int | None:
        """A signal asked for the end: the signal to pass on to what runs, None for nothing."""
        if self.stopping is Stopping.NO:
            self.stopping, self._asked_at = Stopping.ASKED, now
            for slot in self.slots:
                self._slots[slot.number] = replace(slot, starts_at=None)
            return SIGTERM
        if self.stopping is Stopping.ASKED and now - self._asked_at > ECHO_SECONDS:
            self.stopping = Stopping.KILLED_ASKED
            return SIGKILL
        return None

    def overdue(self, now: float) -> int | None:
        """SIGKILL for what runs where the stop has taken too long, else None."""
        if self.stopping is not Stopping.ASKED or now - self._asked_at < STOP_SECONDS:
            return None
        self.stopping = Stopping.KILLED_LATE
        return SIGKILL
