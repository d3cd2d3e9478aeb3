"""When a supervisor starts a slot again, gives it up, and with which code it ends."""

import heapq
import random
from dataclasses import replace
from signal import SIGKILL, SIGTERM

import pytest

from consumer.instance import DOUBT_SECONDS
from consumer.supervisor import (
    CALM_SECONDS,
    DOUBTED,
    ECHO_SECONDS,
    HELD_SECONDS,
    LASTING,
    LONGEST_DELAY_SECONDS,
    STOP_SECONDS,
    WELL_SECONDS,
    Slot,
    Stopping,
    Supervisor,
    after_end,
    delay_after,
)
from schemas.errors import (
    Conflict,
    ModelwireError,
    NotFound,
    RefusedByRule,
    TimedOut,
    UsageProblem,
)

MIDDLE = 0.5
"""A jitter that changes nothing."""

BRIEFLY = WELL_SECONDS / 2


def ends(
    *codes: int, lived: float = BRIEFLY, worked: float | None = None, slot: Slot | None = None
) -> Slot:
    """A slot whose processes ended with these codes, one after the other, each after ``lived``.

    Each was at work for the last ``worked`` seconds of it; None: never.
    """
    slot = slot or Slot(0)
    for code in codes:
        assert slot.given_up is None
        now = slot.starts_at or 0.0
        slot = replace(slot, started_at=now, pid=1)
        if worked is not None:
            slot = replace(slot, has_worked=True, at_work_since=now + lived - worked)
        slot = after_end(slot, code, now + lived, MIDDLE)
    return slot


def delay(slot: Slot, lived: float = BRIEFLY) -> float:
    """How long after its end the slot starts again."""
    assert slot.starts_at is not None
    return slot.starts_at - (slot.started_at + lived)


def running(workers: int = 2, first: int = 0) -> Supervisor:
    """A supervisor whose slots run; the pid of slot i is 100 + i."""
    supervisor = Supervisor(first, workers, now=0.0)
    for number in supervisor.due(0.0):
        supervisor.started(number, 100 + number, 0.0)
    return supervisor


@pytest.mark.parametrize("code", [-SIGKILL, 1, 0, TimedOut.exit_code])
def test_the_first_end_costs_no_wait(code: int) -> None:
    """A slot that was killed, failed, or ended well unasked is started again at once."""
    assert delay(ends(code)) == 0.0


def test_the_waits_of_a_crash_loop_grow_to_a_limit() -> None:
    """0, then from half a second doubling to half a minute, and it is never given up."""
    waits, slot = [], Slot(0)
    for _ in range(12):
        slot = ends(-SIGKILL, slot=slot)
        waits.append(delay(slot))
    assert waits == [0, 0.5, 1, 2, 4, 8, 16, 30, 30, 30, 30, 30]


def test_a_wait_after_very_many_crashes_is_still_a_number() -> None:
    """A slot may crash for months."""
    assert delay_after(1_000_000, MIDDLE) == LONGEST_DELAY_SECONDS


def test_jitter_spreads_what_fell_together() -> None:
    """Waits differ by up to a quarter either way; the first restart has none."""
    assert (delay_after(2, 0.0), delay_after(2, 0.9999)) == (0.375, pytest.approx(0.625, abs=1e-3))
    assert delay_after(1, 0.9) == 0.0


def test_a_slot_that_ran_well_begins_anew() -> None:
    """After a while at work a crash is a first one, whatever came before."""
    looping = ends(*[-SIGKILL] * 5)
    assert delay(looping) == 4.0
    recovered = ends(-SIGKILL, slot=looping, lived=WELL_SECONDS)
    assert delay(recovered, WELL_SECONDS) == 0.0
    assert delay(ends(-SIGKILL, slot=recovered)) == 0.5


@pytest.mark.parametrize("error", [UsageProblem, RefusedByRule, NotFound])
@pytest.mark.parametrize("lived", [BRIEFLY, 3_600.0])
def test_what_a_restart_cannot_mend_ends_a_slot_that_never_worked(
    error: type[ModelwireError], lived: float
) -> None:
    """Bad settings, a refusal and a missing topic are told to whoever started it."""
    assert ends(error.exit_code, lived=lived).given_up == error.exit_code
    crashed = ends(*[-SIGKILL] * 3, lived=lived)
    assert ends(error.exit_code, lived=lived, slot=crashed).given_up == error.exit_code


@pytest.mark.parametrize("error", [UsageProblem, RefusedByRule, NotFound, Conflict])
@pytest.mark.parametrize("lived", [BRIEFLY, 30.0])
def test_a_slot_that_has_worked_doubts_them(error: type[ModelwireError], lived: float) -> None:
    """A broker that is just back may know no topics for a while; said often enough, it is believed."""
    killed_young = ends(-SIGKILL, worked=0.1)
    doubting = ends(*[error.exit_code] * (DOUBTED - 1), lived=lived, slot=killed_young)
    assert doubting.given_up is None
    assert ends(error.exit_code, lived=lived, slot=doubting).given_up == error.exit_code


@pytest.mark.parametrize("error", [UsageProblem, RefusedByRule, NotFound])
def test_a_slot_that_works_in_between_is_never_given_up(error: type[ModelwireError]) -> None:
    """Whatever ends it every few seconds; one that hardly comes to work is no such slot."""
    code = error.exit_code
    assert ends(*[code] * 100, lived=8.0, worked=WELL_SECONDS).given_up is None
    hardly = ends(*[code] * (DOUBTED - 1), lived=8.0, worked=WELL_SECONDS - 0.1)
    assert ends(code, lived=8.0, worked=1.0, slot=hardly).given_up == code
    assert ends(*[code] * (DOUBTED - 1), worked=WELL_SECONDS, slot=hardly).given_up is None


def test_a_slot_that_is_taken_again_and_again_waits_longer_whatever_it_works() -> None:
    """Each process is at work until the place is taken from it: that begins no new row."""
    waits, slot = [], Slot(0)
    while slot.given_up is None:
        slot = ends(Conflict.exit_code, lived=20.0, worked=18.0, slot=slot)
        waits += [] if slot.starts_at is None else [delay(slot, 20.0)]
    assert waits == [0, 0.5, 1, 2, 4, 8, 16, 30, 30]
    assert slot.given_up == Conflict.exit_code


def test_no_other_end_breaks_the_row_of_a_taken_place() -> None:
    """A crash in between says nothing of who has the place, and has its own wait."""
    taken = ends(*[Conflict.exit_code] * 5, lived=8.0, worked=7.0)
    crashed = ends(-SIGKILL, lived=8.0, worked=7.0, slot=taken)
    assert (delay(crashed, 8.0), crashed.taken_ends) == (0.0, 5)
    assert delay(ends(Conflict.exit_code, lived=8.0, worked=7.0, slot=crashed), 8.0) == 8.0


def test_minutes_without_a_taken_place_begin_a_new_row() -> None:
    """Who lost it nine times long ago has kept it since."""
    often = ends(*[Conflict.exit_code] * (DOUBTED - 1), lived=8.0, worked=7.0)
    later = ends(Conflict.exit_code, lived=CALM_SECONDS, worked=1.0, slot=often)
    assert (later.given_up, later.taken_ends, delay(later, CALM_SECONDS)) == (None, 1, 0.0)
    sooner = ends(Conflict.exit_code, lived=CALM_SECONDS / 2, worked=1.0, slot=often)
    assert sooner.given_up == Conflict.exit_code


def test_who_had_its_place_for_long_is_given_more_patience() -> None:
    """Twice as many ends, if it held it that long when the row began; later it does not count."""
    code = Conflict.exit_code
    elder = ends(code, lived=HELD_SECONDS + 2, worked=HELD_SECONDS)
    assert ends(*[code] * (2 * DOUBTED - 2), lived=8.0, worked=7.0, slot=elder).given_up is None
    assert ends(*[code] * (2 * DOUBTED - 1), lived=8.0, worked=7.0, slot=elder).given_up == code
    younger = ends(code, lived=HELD_SECONDS, worked=HELD_SECONDS - 1)
    held = ends(*[code] * (DOUBTED - 1), lived=90.0, worked=HELD_SECONDS + 1, slot=younger)
    assert held.given_up == code


def test_a_lasting_end_is_doubted_for_a_minute_at_least() -> None:
    """However quickly each process ends, counting the shortest waits between them."""
    now, slot = 0.0, Slot(0, has_worked=True)
    while slot.given_up is None:
        slot = after_end(replace(slot, started_at=now), NotFound.exit_code, now, 0.0)
        now = slot.starts_at or now
    assert now > 60


def test_another_end_between_them_breaks_the_row() -> None:
    """Only one and the same answer, again and again, is believed."""
    ran = ends(-SIGKILL, worked=0.1)
    mixed = ends(*[4] * (DOUBTED - 1), 1, *[4] * (DOUBTED - 1), 3, *[4] * (DOUBTED - 1), slot=ran)
    assert mixed.given_up is None


def test_who_has_worked_is_told_by_its_process() -> None:
    """That of another slot, and one that ended before, tell nothing of this one's."""
    supervisor = running()
    supervisor.at_work(101, 1.0)
    supervisor.at_work(999, 1.0)
    assert [slot.has_worked for slot in supervisor.slots] == [False, True]
    ended = supervisor.ended(101, -SIGKILL, 2.0, MIDDLE)
    assert ended is not None
    assert (ended.has_worked, ended.at_work_since) == (True, None)


def test_every_code_of_the_error_family_is_decided_on() -> None:
    """What is not in the table passes: a failure and a time that was over."""
    codes = {each.exit_code for each in (ModelwireError, *ModelwireError.__subclasses__())}
    assert codes >= LASTING.keys()
    assert {ModelwireError.exit_code, TimedOut.exit_code}.isdisjoint(LASTING)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("head_start", [1.0, HELD_SECONDS, 86_400.0])
@pytest.mark.parametrize("notices", [0.0, 7.0, 20.0])
def test_of_two_supervisors_with_one_slot_one_stays(
    seed: int, head_start: float, notices: float
) -> None:
    """They take it from each other in turns until one has lost it too often; never do both give up.

    A process ends up to ``notices`` seconds after its place was taken. Who had it for long stays.
    """
    chance = random.Random(seed)
    slots = [Slot(0, has_worked=True, at_work_since=0.0), Slot(0)]
    holder = 0
    takes = [(head_start, 1)]  # when whose next process takes the slot
    while takes:
        now, taker = heapq.heappop(takes)
        ended = now + chance.uniform(0, notices)
        lost = after_end(slots[holder], Conflict.exit_code, ended, chance.random())
        slots[holder] = lost
        if lost.starts_at is not None:
            heapq.heappush(takes, (lost.starts_at + chance.uniform(0.7, 2.0), holder))
        at_work = now + chance.uniform(0.1, 1.0)
        slots[taker] = replace(
            slots[taker], started_at=now - 0.7, has_worked=True, at_work_since=at_work
        )
        holder = taker
        assert now < head_start + 1_800, "they do not come to an end"
    assert sorted(slot.given_up is None for slot in slots) == [False, True]
    assert slots[holder].given_up is None
    assert holder == 0 or head_start < HELD_SECONDS


def test_all_slots_start_at_once_and_are_named_from_the_first() -> None:
    """Numbers go on from --slot."""
    assert Supervisor(3, 2, now=7.0).due(7.0) == [3, 4]


def test_it_sleeps_until_the_next_start() -> None:
    """Nothing is due before, and without a start it sleeps until a signal."""
    supervisor = running()
    assert supervisor.wait_seconds(1.0) is None
    supervisor.ended(100, -SIGKILL, 1.0, MIDDLE)
    assert (supervisor.due(1.0), supervisor.wait_seconds(1.0)) == ([0], 0.0)
    supervisor.started(0, 200, 1.0)
    supervisor.ended(200, -SIGKILL, 2.0, MIDDLE)
    assert (supervisor.due(2.4), supervisor.wait_seconds(2.0)) == ([], 0.5)
    assert supervisor.due(2.5) == [0]


def test_a_stray_child_is_nobodys_end() -> None:
    """Process 1 of a container inherits children that it did not start."""
    supervisor = running()
    assert supervisor.ended(999, 4, 1.0, MIDDLE) is None
    assert [slot.pid for slot in supervisor.slots] == [100, 101]


def test_one_slot_given_up_lets_the_others_go_on() -> None:
    """The end comes when all are, and has the code of the first."""
    supervisor = running()
    supervisor.ended(101, 4, 1.0, MIDDLE)
    assert (supervisor.is_over, supervisor.due(99.0)) == (False, [])
    supervisor.ended(100, 2, 1.5, MIDDLE)
    assert (supervisor.is_over, supervisor.exit_code) == (True, 4)


def test_a_process_that_cannot_be_started_is_tried_again() -> None:
    """A machine without room for a process may have some later."""
    supervisor = Supervisor(0, 1, now=0.0)
    waits = [supervisor.start_failed(0, float(now), MIDDLE).starts_at for now in range(0, 40, 10)]
    assert waits == [0, 10.5, 21, 32]


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ((0, 0), 0),
        ((0, -SIGTERM), 0),  # asked before it listened
        ((0, 1), 1),
        ((-SIGKILL, 0), 1),
        ((3, 1), 3),
    ],
)
def test_a_stop_ends_with_what_its_slots_ended_with(codes: tuple[int, int], expected: int) -> None:
    """0 where all stopped cleanly, else the first that did not; nothing is started any more."""
    supervisor = running()
    assert supervisor.asked(10.0) == SIGTERM
    for pid, code in zip((100, 101), codes, strict=True):
        assert not supervisor.is_over
        supervisor.ended(pid, code, 11.0, MIDDLE)
    assert (supervisor.is_over, supervisor.due(99.0), supervisor.exit_code) == (True, [], expected)


def test_a_stop_after_one_was_given_up_says_so() -> None:
    """The others' clean stop does not hide it."""
    supervisor = running()
    supervisor.ended(100, 4, 1.0, MIDDLE)
    supervisor.asked(10.0)
    supervisor.ended(101, 0, 11.0, MIDDLE)
    assert (supervisor.is_over, supervisor.exit_code) == (True, 4)


def test_a_slot_that_waits_for_its_start_has_stopped() -> None:
    """Nothing runs, so nothing is waited for."""
    supervisor = running(workers=1)
    supervisor.ended(100, -SIGKILL, 1.0, MIDDLE)
    supervisor.asked(1.0)
    assert (supervisor.is_over, supervisor.exit_code) == (True, 0)


def test_a_second_signal_kills_and_an_echo_does_not() -> None:
    """`timeout` sends one signal twice; a person who asks again means it."""
    supervisor = running()
    assert supervisor.asked(10.0) == SIGTERM
    assert supervisor.asked(10.0 + ECHO_SECONDS / 2) is None
    assert supervisor.asked(12.0) == SIGKILL
    assert supervisor.asked(13.0) is None
    for pid in (100, 101):
        supervisor.ended(pid, -SIGKILL, 14.0, MIDDLE)
    assert (supervisor.is_over, supervisor.exit_code) == (True, 130)


def test_a_stop_that_takes_too_long_is_ended() -> None:
    """Once, at the limit, which the supervisor wakes for; the code says that the time was over."""
    supervisor = running()
    assert supervisor.overdue(10_000.0) is None
    supervisor.asked(10.0)
    assert supervisor.wait_seconds(10.0) == STOP_SECONDS
    assert supervisor.overdue(10.0 + STOP_SECONDS - 0.1) is None
    assert supervisor.overdue(10.0 + STOP_SECONDS) == SIGKILL
    assert supervisor.overdue(11.0 + STOP_SECONDS) is None
    assert supervisor.wait_seconds(11.0 + STOP_SECONDS) is None
    for pid in (100, 101):
        supervisor.ended(pid, -SIGKILL, 40.0, MIDDLE)
    assert (supervisor.exit_code, supervisor.stopping) == (124, Stopping.KILLED_LATE)


def test_a_slot_may_take_its_time_to_stop() -> None:
    """The limit is beyond what a call in doubt is repeated for, with time to end after it."""
    assert STOP_SECONDS >= DOUBT_SECONDS + 4
