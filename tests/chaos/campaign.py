"""A chaos run: a schedule carried out against real consumers on a stack of its own, and its judgement.

1. Requests flow all the time. A fault comes once so many requests were sent; what ends by itself (a stop,
   a spoilt store, a full disk, a member that leaves) ends while others are awaited.
2. A kill counts where the process answered: it waits for a slot that owns partitions. After
   ``ANSWERING_SECONDS`` without one it kills what there is, which is counted as ``idle_kills``.
3. A fault of the store ends once it struck a request, a full disk once somebody said so (a release comes
   with each), and a member leaves once it had partitions. After ``STRUCK_SECONDS`` without, all the same.
4. While a fault waits, the stream is slowed, and in the end stopped, so that it cannot outrun the faults.
5. At the end everything is healed and the checker reads the topics. It shares no code with consumers.
6. A run in which nothing is answered any more (``standstill``) is broken off there, and judged as it is.
7. What struck counts apart from what came: a stop strikes a process that owns partitions, a joined member
   owned some before it left, a fault of the store met a request, a full disk somebody who said so.
"""

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

import psutil

from deployment.commands import Release, Strategy
from modelwire.checker import Report
from modelwire.localstack.stack import Stack
from tests.chaos.commander import Commander
from tests.chaos.consumers import ENDED, KILLED, Slots, left_over
from tests.chaos.disk import CacheDisk
from tests.chaos.load import GOOD_START, Load
from tests.chaos.outcome import Outcome
from tests.chaos.rederive import Rederivation
from tests.chaos.schedule import (
    Command,
    Fault,
    FillDisk,
    Flood,
    Join,
    Kill,
    KillBroker,
    Sizes,
    SpoilStore,
    Stop,
    StoreFault,
    digest,
    schedule,
)
from tests.chaos.standstill import Standstill
from tests.fleet import LIMIT_SECONDS, PARTITIONS, Harness, environment_of, wait_for
from tests.s3_faults import THROTTLED, Down, Fail, Flip, Hang, S3Faults, Slow, Truncate
from tests.s3_faults import Fault as Spoilt

TICK_SECONDS = 0.02
ANSWERING_SECONDS = 60.0
STRUCK_SECONDS = 60.0
"""A member, for one, has to start, and the group to give it something, while brokers die and others are
stopped. On a machine under load 20 s were too few."""

TOLD_SECONDS = 10.0
"""This often a run says how far it is."""

DOWN_SECONDS = 4.0
ANSWERED_SECONDS = LIMIT_SECONDS
"""How long answers are awaited after everything is healed."""

AHEAD = 0.1
"""The part of the requests that may be sent while one fault waits."""

LATE_REQUESTS = 50
"""A fault that is so far behind its place slows the stream."""

STORE_FAULTS: dict[StoreFault, Spoilt] = {
    StoreFault.DOWN: Down(),
    StoreFault.SLOW: Slow(rate=20_000, delay=0.5),
    StoreFault.TRUNCATED: Truncate(after=1_000),
    StoreFault.FAILING: Fail(500, "InternalError"),
    StoreFault.THROTTLED: Fail(THROTTLED.status, THROTTLED.code, share=0.8),
    StoreFault.FLIPPED: Flip(),
    StoreFault.HANGING: Hang(),
}


class StoodStill(Exception):
    """Nothing is answered any more; it says since when."""


class Campaign:
    """One run. ``rate`` is in requests a second; ``sample`` is how many answers are derived again."""

    def __init__(
        self, harness: Harness, faults: S3Faults, sizes: Sizes, seed: int, rate: float, sample: int
    ) -> None:
        self.seen: Counter[str] = Counter()
        self.slots: Slots
        self._harness = harness
        self._faults = faults
        self._sizes = sizes
        self._seed = seed
        self._steps = schedule(sizes, seed)
        self._sample = sample
        self._began = time.monotonic()
        self._problems: list[str] = []
        servers, topic = harness.settings.kafka.bootstrap_servers, harness.topics.requests
        self._load = Load(servers, topic, sizes.requests, rate, seed)
        self._commander = Commander(harness, self._say)
        self._disk = CacheDisk(harness.folder / "cache")
        self._environment = environment_of(harness.settings) | {
            "MODELWIRE_S3__ENDPOINT": faults.endpoint,
            "MODELWIRE_TOPICS__PARTITIONS": str(PARTITIONS),
            "MODELWIRE_CONSUMER__SUMMARY_INTERVAL_MS": "1000",
            "MODELWIRE_CONSUMER__CACHE_DIR": str(self._disk.folder),
        }
        self._endings: list[tuple[Callable[[], bool], Callable[[], None]]] = []
        self._stopped: set[int] = set()
        self._disk_is_full = False
        self._joined: list[Slots] = []
        self._broker: threading.Thread | None = None
        self._asked_since = 0.0
        self._standstill = Standstill(self._began)
        self._told = self._began

    def run(self) -> Outcome:
        """Carry the schedule out, and judge."""
        self._say(
            f"seed {self._seed}, schedule {digest(self._steps)}: {len(self._steps)} faults "
            f"in {self._sizes.requests:,} requests, {self._load.least_seconds:.0f} s at least"
        )
        try:
            self._start()
            try:
                with self._load:
                    self._carry_out()
                self._heal()
            except StoodStill as still:
                self._give_up(str(still))
                report = self._harness.verify()
            else:
                self._say("everything is healed; answers are awaited")
                report = self._harness.verify(wait_seconds=ANSWERED_SECONDS)
        finally:
            self._end()
        return self._judge(report)

    # --- start and end

    def _start(self) -> None:
        harness = self._harness
        champion = Release(self._commander.new_bundle(), Strategy.BLUE_GREEN, "first", min_ready=0)
        harness.command(champion)
        workers = ("--workers", str(self._sizes.slots))
        self.slots = self._consumers("slots", self._disk, *workers)
        self._commander.start()
        wait_for("slots that answer", lambda: len(self._answering()) == self._sizes.slots)
        self._standstill = Standstill(time.monotonic())

    def _consumers(
        self, name: str, disk: CacheDisk | None, *arguments: str, **settings: str
    ) -> Slots:
        named = {f"MODELWIRE_{key}": value for key, value in settings.items()}
        record = self._harness.folder / f"{name}.jsonl"
        given = ["--model", self._harness.model, *arguments]
        return Slots(given, self._environment | named, record, disk)

    def _heal(self) -> None:
        """Wait for what was begun."""
        if self._broker is not None:
            self._broker.join()
        self._commander.close()
        while not self._commander.is_done:
            self._tick()
        self._problems += self._commander.failures

    def _give_up(self, why: str) -> None:
        """Let the rest be; the broker has to be there for the checker."""
        self._say(f"the run is broken off: {why}")
        self._problems.append(why)
        self._commander.stop()
        if self._broker is not None:
            self._broker.join()

    def _end(self) -> None:
        self._commander.stop()
        if self._broker is not None:  # or it would start the broker after the stack was stopped
            self._broker.join()
        self._say("the consumers are asked to stop")
        for pid in self._stopped:
            _signal(pid, signal.SIGCONT)
        everyone = [*self._joined, *([self.slots] if hasattr(self, "slots") else [])]
        for each in everyone:
            code = each.stop()
            if code != 0 and each not in self._joined:
                self._problems.append(f"the supervisor ended with {code}")
            if each.tracebacks:
                self._problems.append(f"{each.tracebacks} tracebacks on stderr")
            self._note(each)
        folder = self._harness.folder
        with suppress(AssertionError):
            wait_for("no process left", lambda: not left_over(folder))
        if left := left_over(folder):
            self._problems.append(f"processes {left} outlived their consumer")

    def _note(self, consumers: Slots) -> None:
        for error in consumers.errors:
            self._say(f"a consumer ended by itself: {error}")
        for event, count in consumers.events.items():
            if event in TOLD or event.startswith(ENDED):
                self.seen[event] += count
        if consumers is self.slots and consumers.events[KILLED] < self.seen["kills"]:
            self._problems.append(f"the supervisor saw {consumers.events[KILLED]} kills")
        if consumers.events["slot.given_up"]:
            self._problems.append("a slot was given up")

    def _judge(self, report: Report) -> Outcome:
        harness = self._harness
        rejected = harness.records(harness.topics.rejections, report.rejections)
        again, wrong = Rederivation(harness).check(self._sample, self._seed)
        return Outcome(
            sizes=self._sizes,
            seed=self._seed,
            schedule=digest(self._steps),
            report=report,
            seen=self.seen + self._commander.counts,
            rederived=again,
            rederived_wrong=tuple(wrong),
            wrongly_rejected=sum((r.value or b"").startswith(GOOD_START) for r in rejected),
            poisoned=self._load.poisoned,
            problems=tuple(self._problems),
            seconds=time.monotonic() - self._began,
        )

    # --- the schedule

    def _carry_out(self) -> None:
        for step in self._steps:
            self._asked_since = 0.0
            self._load.limit = step.at + int(self._sizes.requests * AHEAD)
            while self._load.sent < step.at or not self._strike(step.fault):
                self._load.is_slowed = self._load.sent > step.at + LATE_REQUESTS
                self._tick()
        self._load.is_slowed, self._load.limit = False, self._sizes.requests
        deadline = time.monotonic() + self._load.seconds_left()
        while self._endings or not self._load.is_over:
            if not self._load.is_over and time.monotonic() > deadline:
                raise AssertionError(f"only {self._load.sent} requests could be sent")
            self._tick()

    def _tick(self) -> None:
        """What goes on while something is awaited. Raises StoodStill."""
        self._end_what_is_due()
        now = time.monotonic()
        everyone = [self.slots, *self._joined]
        answered, sent = sum(each.answered for each in everyone), self._load.sent
        if last := self._standstill.look(now, answered, sent):
            raise StoodStill(
                f"nothing was answered for {now - last.at:.0f} s, since second "
                f"{last.at - self._began:.0f} of the run: {last.answered} answers were told of then, "
                f"and {sent - last.sent} requests were sent since"
            )
        if now - self._told >= TOLD_SECONDS:
            self._told = now
            self._say(f"{answered:,} answers were told of")
        time.sleep(TICK_SECONDS)

    def _end_what_is_due(self) -> None:
        for each in [each for each in self._endings if each[0]()]:
            self._endings.remove(each)
            each[1]()

    def _after(self, seconds: float, ending: Callable[[], None]) -> None:
        due = time.monotonic() + seconds
        self._endings.append((lambda: time.monotonic() >= due, ending))

    def _once_struck(
        self,
        count: int,
        struck: Callable[[], bool],
        ending: Callable[[], None],
    ) -> None:
        """End it when so many requests were sent and it struck, or did not for too long."""
        late = time.monotonic() + STRUCK_SECONDS

        def is_due() -> bool:
            return self._load.sent >= count and (struck() or time.monotonic() > late)

        self._endings.append((is_due, ending))

    def _strike(self, fault: Fault) -> bool:
        """Do it; False where it has to wait."""
        match fault:
            case Kill(slot):
                return self._kill(slot)
            case KillBroker(away_seconds):
                return self._kill_broker(away_seconds)
            case Stop(slot, seconds):
                return self._stop(slot, seconds)
            case SpoilStore(kind, until):
                return self._spoil(kind, until)
            case FillDisk(until):
                return self._fill_disk(until)
            case Join(until):
                self._join(until)
            case Command():
                self._commander.order(fault)
            case Flood(commands):
                self._say(f"a flood of {commands} commands begins")
                self._commander.flood(fault)
        return True

    # --- processes

    def _answering(self) -> dict[int, tuple[int, tuple[int, ...]]]:
        """Slot -> its process and partitions, of those that answer."""
        found = {}
        for slot in range(self._sizes.slots):
            pid = self.slots.pid_of(slot)
            if pid is not None and pid not in self._stopped and (own := self.slots.owned_by(pid)):
                found[slot] = pid, own
        return found

    def _pick(self, slot: int) -> tuple[int, int, tuple[int, ...]] | None:
        """The first slot from ``slot`` on that answers, with its process and partitions."""
        answering = self._answering()
        self._asked_since = self._asked_since or time.monotonic()
        patience = ANSWERING_SECONDS if not answering else 3.0
        if slot not in answering and time.monotonic() - self._asked_since < patience:
            return None
        for other in range(slot, slot + self._sizes.slots):
            number = other % self._sizes.slots
            if number in answering:
                return number, *answering[number]
        if (pid := self.slots.pid_of(slot)) is None:
            return None
        waited = time.monotonic() - self._asked_since
        self._say(f"no slot has partitions, {waited:.0f} s after the next fault was due")
        return slot, pid, ()

    def _kill(self, slot: int) -> bool:
        picked = self._pick(slot)
        if picked is None:
            return False
        slot, pid, own = picked
        self._say(f"kill -9 of slot {slot}, process {pid}, which has partitions {list(own)}")
        self.slots.kill_one(pid)
        self.seen["kills" if own else "idle_kills"] += 1
        return True

    def _stop(self, slot: int, seconds: float) -> bool:
        picked = self._pick(slot)
        if picked is None:
            return False
        slot, pid, own = picked
        self._say(f"stop slot {slot}, process {pid}, for {seconds:.1f} s; it has {list(own)}")
        self._stopped.add(pid)
        _signal(pid, signal.SIGSTOP)
        self.seen["stops"] += 1
        self.seen["stops_struck"] += bool(own)

        def go_on() -> None:
            self._say(f"process {pid} of slot {slot} goes on")
            self._stopped.discard(pid)
            self.slots.doubt(pid)
            _signal(pid, signal.SIGCONT)

        self._after(seconds, go_on)
        return True

    def _join(self, until: int) -> None:
        self._say("one more member joins")
        number = len(self._joined)
        member = self._consumers(f"member-{number}", None, CONSUMER__MEMBERSHIP="dynamic")
        self._joined.append(member)
        self.seen["joins"] += 1

        def leave() -> None:
            own = member.owned_by(member.process.pid)
            self._say(f"member {number} leaves; it has {list(own)}")
            self.seen["joins_struck"] += bool(own)
            _signal(member.process.pid, signal.SIGTERM)

        def struck() -> bool:
            return bool(member.owned_by(member.process.pid))

        self._once_struck(until, struck, leave)

    # --- servers and disks

    def _kill_broker(self, away_seconds: float) -> bool:
        if self._broker is not None and self._broker.is_alive():
            return False
        self._say(f"kill -9 of the broker, for {away_seconds:.1f} s")
        state_dir = self._harness.settings.state_dir
        Stack.kill_broker(state_dir)
        self.seen["broker_kills"] += 1

        def restart() -> None:
            time.sleep(away_seconds)
            try:
                Stack.restart_broker(state_dir)
            except Exception as error:  # noqa: BLE001 - a thread's failure is the run's
                self._problems.append(f"the broker did not start again: {error}")
            self._say("the broker is back")

        self._broker = threading.Thread(target=restart, daemon=True)
        self._broker.start()
        return True

    def _spoil(self, kind: StoreFault, until: int) -> bool:
        if self._faults.fault is not None:
            return False
        self._say(f"the store is {kind}")
        before, began = len(self._faults.asked), time.monotonic()
        self._faults.fault = STORE_FAULTS[kind]
        self.seen[f"store_{kind}"] += 1

        def struck() -> bool:
            if kind is StoreFault.DOWN:  # nobody counts refused connections
                return time.monotonic() - began > DOWN_SECONDS
            return len(self._faults.asked) > before

        def heal() -> None:
            asked = len(self._faults.asked) - before
            self._say(f"the store was {kind}: {asked} requests reached it")
            self.seen["store_faults_struck"] += asked > 0
            self._faults.fault = None

        self._once_struck(until, struck, heal)
        return True

    def _fill_disk(self, until: int) -> bool:
        if self._disk_is_full:
            return False
        self._say("the disk is full")
        self._disk_is_full = True
        self._disk.fill(self.slots.processes())
        before = self.slots.events[CACHE_UNUSABLE]
        self.seen["full_disks"] += 1

        def struck() -> bool:
            return self.slots.events[CACHE_UNUSABLE] > before

        def heal() -> None:
            self._say(f"the disk has room again; {'noticed' if struck() else 'nobody noticed'}")
            self.seen["full_disks_struck"] += struck()
            self._disk.empty(self.slots.processes())
            self._disk_is_full = False

        self._once_struck(until, struck, heal)
        return True

    def _say(self, what: str) -> None:
        sent = self._load.sent if hasattr(self, "_load") else 0
        print(f"[{time.monotonic() - self._began:7.1f} s {sent:8,}] {what}", flush=True)


CACHE_UNUSABLE = "cache.unusable"

TOLD = (
    "slot.started",
    "slot.given_up",
    "partitions.assigned",
    "partitions.lost",
    "snapshot.applied",
    "model.prepared",
    "model.refused",
    "transaction.aborted",
    CACHE_UNUSABLE,
    "group.leave",
)
"""Events of the consumers that are counted, so that a run shows what it went through."""


def _signal(pid: int, number: signal.Signals) -> None:
    if psutil.pid_exists(pid):
        with suppress(ProcessLookupError):
            os.kill(pid, number)
