"""A world of a few consumers, one log and one broker, driven by a list of numbers.

Every choice is a number below some limit, drawn by a seed and written down, or read from a list; 0 is
the undisturbed course, and what is beyond the list is 0. So a failing schedule can be repeated, and made
smaller by leaving numbers out (``shrink``).

``run`` disturbs the world for a while, then lets it heal: what crashed is started again, what was frozen
goes on, bundles are back, and every request must be answered within a bounded number of steps. Then
``judge`` looks at the answers with nothing but the log and the requests.
"""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from random import Random

from deployment.commands import (
    Abort,
    Command,
    Promote,
    Release,
    Revoke,
    Shift,
    Start,
    Strategy,
    Undo,
)
from deployment.readiness import Fleet
from deployment.routing import route, routing_of
from deployment.state import Deployment, empty, fold
from schemas.errors import ModelwireError
from schemas.events import Recorded
from schemas.fleet import Phase
from schemas.forecast import Variant
from tests.control_logs import Writer
from tests.simulation.broker import Broker, Ended
from tests.simulation.process import Process

PARTITIONS = 2
LONGEST_RUN = 16
"""Instructions that a process carries out while nothing else happens."""

DISTURBED_TICKS = 300
HEALING_ROUNDS = 300
MOST_VERSIONS = 6
KEYS = tuple(f"key-{number}" for number in range(7))


class Choices:
    """Numbers that decide what happens next; ``drawn`` are those so far."""

    def __init__(self, seed: int | None = None, given: Sequence[int] = ()) -> None:
        self.drawn: list[int] = []
        self._random = None if seed is None else Random(seed)
        self._given = given

    def below(self, limit: int) -> int:
        """A number from 0 up to, and without, ``limit``."""
        if self._random is not None:
            number = int(self._random.random() * limit)
        else:
            at = len(self.drawn)
            number = self._given[at] % limit if at < len(self._given) else 0
        self.drawn.append(number)
        return number


@dataclass
class Slot:
    """A place where one process runs at a time."""

    number: int
    process: Process | None = None


@dataclass(frozen=True)
class Verdict:
    """What went wrong (empty: nothing), and how much happened."""

    findings: tuple[str, ...]
    drawn: tuple[int, ...] = field(repr=False)
    answered: int = 0
    crashes: int = 0


class World:
    """One schedule. ``is_static`` is the membership of its consumers."""

    def __init__(self, choices: Choices) -> None:
        self._below = choices.below
        self._clock = 0.0
        self._broker = Broker(PARTITIONS)
        self._writer = Writer("m")
        self._states: list[Deployment] = []
        self._is_static = self._below(2) == 0
        self._slots = [Slot(number) for number in range(2 + self._below(2))]
        self._zombies: list[Process] = []
        self._gone: set[int] = set()
        self._births = 0
        self.crashes = 0
        self._draw_weights()
        self._give(Release(f"sha256:{1:064x}", Strategy.BLUE_GREEN, "s0", min_ready=0))
        for slot in self._slots:
            self._start(slot)
        for process in self._running():
            process.read(self._events, self._states)
            process.load(self._gone)

    def run(self) -> list[str]:
        """Live through the schedule; the findings, in the order in which they came."""
        try:
            for _ in range(DISTURBED_TICKS):
                self._tick()
            healed = self._heal()
        except (AssertionError, ModelwireError) as error:
            return [f"failed: {error!r}"]
        stuck = [] if healed else [f"stuck: {self._situation()}"]
        return [*judge(self._broker, self._states), *stuck]

    @property
    def answered(self) -> int:
        """How many answers count."""
        return sum(len(self._broker.answers(p)) for p in range(PARTITIONS))

    # --- what may happen

    def _tick(self) -> None:
        self._clock += 0.01
        number = self._below(self._ends[-1])
        self._acts[bisect_right(self._ends, number)]()

    def _draw_weights(self) -> None:
        """How often each thing happens in this schedule. (Swarm testing, Groce and others 2012: what is
        rare in one schedule is common in another, and combinations come up that no average has.)"""
        acts: tuple[tuple[int, Callable[[], None]], ...] = (
            (100, lambda: self._step(self._pick(), 1 + self._below(LONGEST_RUN))),
            (24, self._request),
            (24, lambda: self._beside(lambda each: each.read(self._events, self._states))),
            (24, lambda: self._beside(lambda each: each.load(self._gone))),
            (8, lambda: self._beside(Process.drop)),
            (8, lambda: self._beside(Process.announce)),
            (20, self._command),
            (4, self._crash),
            (8, self._restart),
            (4, self._freeze),
            (4, self._thaw),
            (4, self._expel),
            (4, self._end_old_transaction),
            (4, self._take_or_give_back_a_bundle),
            (8, lambda: self._broker.rebalance(self._below(3))),
            (4, self._pass_time),
        )
        self._acts = [act for _, act in acts]
        weights = [acts[0][0]]
        weights += [weight * (4, 16, 1, 0)[self._below(4)] // 4 for weight, _ in acts[1:]]
        self._ends = list(accumulate(weights))

    def _take_or_give_back_a_bundle(self) -> None:
        self._gone ^= {1 + self._below(MOST_VERSIONS)}

    def _pass_time(self) -> None:
        self._clock += self._below(5)

    def _pick(self) -> Process | None:
        running = self._running()
        return running[self._below(len(running))] if running else None

    def _running(self) -> list[Process]:
        return [p for p in self._alive() if not p.is_frozen]

    def _alive(self) -> list[Process]:
        return [slot.process for slot in self._slots if slot.process is not None] + self._zombies

    def _step(self, process: Process | None, steps: int = 1) -> None:
        if process is None:
            return
        try:
            for _ in range(steps):
                next(process.life)
        except (Ended, StopIteration):
            self._end(process)

    def _beside(self, what: Callable[[Process], None]) -> None:
        process = self._pick()
        if process is not None:
            what(process)

    def _start(self, slot: Slot) -> None:
        self._births += 1
        name = f"m-{slot.number}" if self._is_static else f"m-{slot.number}-{self._births}"
        slot.process = Process(
            name,
            self._broker,
            self._below,
            lambda: self._clock,
            self._peer_revision,
            is_static=self._is_static,
        )

    def _end(self, process: Process) -> None:
        for slot in self._slots:
            if slot.process is process:
                slot.process = None
        if process in self._zombies:
            self._zombies.remove(process)

    def _crash(self) -> None:
        process = self._pick()
        if process is not None:
            self.crashes += 1
            if self._below(4) == 1:
                process.is_stopping = True  # told to stop instead
            else:
                self._end(process)

    def _restart(self) -> None:
        for slot in self._slots:
            if slot.process is None:
                self._start(slot)
                return

    def _freeze(self) -> None:
        """SIGSTOP; with a static name a second process may be started beside the frozen one."""
        process = self._pick()
        if process is None:
            return
        process.is_frozen = True
        for slot in self._slots:
            if slot.process is process and self._is_static and self._below(2) == 1:
                self._zombies.append(process)
                slot.process = None

    def _thaw(self) -> None:
        for process in self._alive():
            process.is_frozen = False

    def _expel(self) -> None:
        """A session ends: of a process that is gone or frozen, or seems to be."""
        names = sorted(self._broker.members)
        if names:
            self._broker.expel(names[self._below(len(names))])

    def _end_old_transaction(self) -> None:
        names = self._broker.open_names
        if names:
            name = names[self._below(len(names))]
            if self._below(2) == 0:
                self._broker.abort_of(name)
            else:
                self._broker.fence(name)

    def _request(self) -> None:
        partition = self._below(PARTITIONS)
        for _ in range(1 + self._below(4)):
            keys = self._broker.requests[partition]
            keys.append(KEYS[self._below(len(KEYS))])

    # --- the log

    @property
    def _events(self) -> list[Recorded]:
        return self._writer.ledger.events

    def _give(self, command: Command) -> None:
        """Append what the command decides; the state after each event is kept for the judge."""
        before = len(self._events)
        if self._writer.give(command):
            for recorded in self._events[before:]:
                state = self._states[-1] if self._states else empty("m")
                self._states.append(fold(state, recorded))

    def _fleet(self) -> Fleet:
        return [p.announced.status for p in self._alive() if p.announced is not None]

    def _command(self) -> None:
        state, fleet = self._writer.deployment, self._fleet()
        rollout = 0 if state.rollout is None else state.rollout.revision
        number = len(state.releases)
        salt = f"s{state.revision}"
        match self._below(8):
            case 0 | 1 if number < MOST_VERSIONS:
                digest = f"sha256:{number + 1:064x}"
                start = (None, Strategy.BLUE_GREEN)[self._below(2)]
                self._give(Release(digest, start, salt, min_ready=0))
            case 2:
                version = 1 + self._below(number)
                self._give(Start(version, Strategy.CANARY, salt, min_ready=self._below(2) * 5_000))
            case 3 | 4:
                weight = (100, 5_000, 10_000, 0)[self._below(4)]
                self._give(Shift(rollout, weight, None, fleet))
            case 5:
                self._give((Promote(rollout, fleet), Abort(rollout))[self._below(2)])
            case 6:
                self._give(Undo(state.previous if self._below(2) else None, fleet=fleet))
            case _:
                if self._below(3) == 1:
                    self._give(Revoke(1 + self._below(number)))

    def _peer_revision(self, name: str) -> int:
        """The highest revision that another process says it has applied."""
        return max(
            (
                process.announced.status.revision
                for process in self._alive()
                if process.name != name
                and process.announced is not None
                and process.announced.phase is Phase.READY
            ),
            default=0,
        )

    # --- the end

    def _heal(self) -> bool:
        """Let everything be well again; True once every request is answered."""
        self._gone.clear()
        for round_number in range(HEALING_ROUNDS):
            self._clock += 0.02
            if round_number % 10 == 0:
                self._mend()
            for process in self._alive():
                if round_number % 2 == 0:
                    process.read(self._events, self._states)
                    process.load(self._gone)
                    process.announce()
                self._step(process, 4)
            if round_number % 5 == 0 and self._broker.is_answered():
                return True
        return self._broker.is_answered()

    def _mend(self) -> None:
        self._thaw()
        for slot in self._slots:
            if slot.process is None:
                self._start(slot)
        alive = {process.name for process in self._alive()}
        for name in sorted(self._broker.members.keys() - alive):
            self._broker.expel(name)
        for name in self._broker.open_names:
            if name not in alive:
                self._broker.abort_of(name)

    def _situation(self) -> str:
        lines = [
            f"{p.name}: {p.answering.phase.value} {p.answering.detail!r} at "
            f"{p.ready.revision if p.ready else 0}, owns {p.answering.holdings.partitions}"
            for p in self._alive()
        ]
        return f"{'; '.join(lines)}; log at {self._writer.deployment.revision}"


def judge(broker: Broker, states: Sequence[Deployment]) -> list[str]:
    """What is wrong with the committed answers, by the log and the requests alone."""
    findings = []
    for partition, keys in enumerate(broker.requests):
        newest = 0
        seen: set[int] = set()
        for record in broker.answers(partition):
            where = f"{partition}/{record.offset}"
            if record.offset in seen:
                findings.append(f"doubled: {where}")
            seen.add(record.offset)
            if record.revision < newest:
                findings.append(f"back: {where} at revision {record.revision} after {newest}")
            newest = max(newest, record.revision)
            routing = routing_of(states[record.revision - 1])
            if routing is None:
                findings.append(f"unserved: {where} at revision {record.revision}")
                continue
            key = keys[record.offset]
            variant = route(routing, key.encode(), key)
            version = routing.candidate if variant is Variant.CANDIDATE else routing.champion
            if (record.variant, record.version) != (str(variant), version):
                findings.append(f"wrong variant: {where} by {record.version}, not {version}")
            stamps = {int(s.split(":")[1]) for _, s in record.transaction.offsets.values()}
            if stamps != {record.revision}:
                findings.append(f"stamp: {where} at {record.revision} under {sorted(stamps)}")
        committed = broker.committed[partition].offset
        lost = set(range(committed)) - seen
        if lost:
            findings.append(f"lost: {partition}/{min(lost)}")
    return findings


def simulate(seed: int) -> Verdict:
    """Live through the schedule of this seed."""
    return _verdict(Choices(seed))


def replay(numbers: Sequence[int]) -> Verdict:
    """Live through the schedule that these numbers make."""
    return _verdict(Choices(given=numbers))


def _verdict(choices: Choices) -> Verdict:
    world = World(choices)
    findings = world.run()
    return Verdict(tuple(findings), tuple(choices.drawn), world.answered, world.crashes)


def shrink(numbers: Sequence[int], limit: int = 2_000) -> list[int]:
    """A smaller list that still fails with the same kind of finding: runs are zeroed, or cut out.

    A simple delta debugging (Zeller and Hildebrandt 2002), in at most ``limit`` tries.
    """
    kind = _kind(replay(numbers))
    best = _trimmed(numbers)
    size = max(len(best) // 2, 1)
    tries = 0
    while size >= 1 and tries < limit:
        at = 0
        while at < len(best) and tries < limit:
            zeroed = [*best[:at], *([0] * len(best[at : at + size])), *best[at + size :]]
            for candidate in ([*best[:at], *best[at + size :]], zeroed):
                tries += 1
                if candidate != best and _kind(replay(candidate)) == kind:
                    best = _trimmed(candidate)
                    break
            else:
                at += size
                continue
            if candidate is zeroed:
                at += size
        size //= 2
    return best


def _trimmed(numbers: Sequence[int]) -> list[int]:
    """Without the zeros at the end, which are what comes beyond the list anyway."""
    kept = list(numbers)
    while kept and kept[-1] == 0:
        kept.pop()
    return kept


def _kind(verdict: Verdict) -> str:
    return verdict.findings[0].split(":")[0] if verdict.findings else ""
