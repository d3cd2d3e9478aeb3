"""The schedule of a chaos run: which fault comes after how many requests. Seed and sizes in, faults out.

1. A fault's place is a number of requests sent, never a time: a slow machine runs the same schedule. What
   has to outlast a session (a stopped process, a broker that is away) says how many seconds it lasts.
2. The places of one kind are spread over the run, one at random in each of as many equal parts as there
   are faults of the kind. The first and the last few requests are left in peace.
3. Each kind draws from a source of its own, so that another number of kills moves no other fault.
4. Faults of the store do not overlap each other, nor do full disks. With each comes a release, since a
   fleet that fetches nothing would not notice.
5. What a command does depends on the deployment that it finds, so that a draw goes with it and not the
   command (``commands``). Kills and restarts race with it: the schedule is replayed, not every answer.

``campaign`` carries it out.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from enum import StrEnum
from hashlib import sha256
from random import Random

FIRST, LAST = 0.03, 0.93
"""The part of the requests during which faults begin."""

LASTING = 0.4
"""Longest a fault of the store or a full disk lasts, as a part of its share of the run."""

SHORT_STOP_SECONDS = (0.2, 1.5)
LONG_STOP_SECONDS = (7.5, 13.0)
"""Beyond a session of 6 s; and some beyond a transaction, which the broker aborts after 10 s."""

AWAY_SECONDS = (0.0, 1.0)
"""How long a killed broker is left alone. To that comes its start, of four seconds or so."""

FULL_REQUESTS, FULL_FLOOD, LEAST_FLOOD = 100_000, 500, 20
"""A flood grows with the run, up to the full size. A command takes 0.4 s beside everything else, so that
500 of them made a run of 2,000 requests, which take 25 s, last four minutes."""

FASTEST = 1_500.0
"""Requests a second, at most: beyond it the reading of the topics is what takes time."""


class StoreFault(StrEnum):
    """What the store does, in the order in which a schedule takes them."""

    DOWN = "down"
    SLOW = "slow"
    TRUNCATED = "truncated"
    FAILING = "500"
    THROTTLED = "throttled"
    FLIPPED = "flipped"
    HANGING = "hanging"


class Ask(StrEnum):
    """What a scheduled command is about."""

    RELEASE = "release"
    ANY = "any"


@dataclass(frozen=True)
class Kill:
    """SIGKILL for the process of this slot, or of the next one that answers."""

    slot: int


@dataclass(frozen=True)
class KillBroker:
    """SIGKILL for the broker, and a start on the same data after so many seconds."""

    away_seconds: float


@dataclass(frozen=True)
class Stop:
    """SIGSTOP for the process of this slot, and SIGCONT after so many seconds."""

    slot: int
    seconds: float


@dataclass(frozen=True)
class SpoilStore:
    """The store does this until so many requests were sent."""

    fault: StoreFault
    until: int


@dataclass(frozen=True)
class FillDisk:
    """No file of a consumer may grow until so many requests were sent."""

    until: int


@dataclass(frozen=True)
class Join:
    """One more instance, a dynamic member, which leaves when so many requests were sent."""

    until: int


@dataclass(frozen=True)
class Command:
    """One command, whatever the deployment allows then: ``draw`` says which."""

    ask: Ask
    draw: int


@dataclass(frozen=True)
class Flood:
    """So many commands, as fast as the log takes them."""

    commands: int
    draw: int


Fault = Kill | KillBroker | Stop | SpoilStore | FillDisk | Join | Command | Flood


@dataclass(frozen=True)
class Step:
    """A fault, and how many requests were sent when it comes."""

    at: int
    fault: Fault


@dataclass(frozen=True)
class Sizes:
    """How much of everything. ``long_stops`` are those of the ``stops`` that outlast a session."""

    requests: int
    slots: int
    kills: int
    broker_kills: int
    stops: int
    long_stops: int
    store_faults: int
    full_disks: int
    joins: int
    commands: int
    flood: int

    def __post_init__(self) -> None:
        if min(getattr(self, each.name) for each in fields(self)) < 0 or self.slots < 1:
            raise ValueError(f"sizes below nothing: {self}")


def sizes_for(requests: int, kills: int, broker_kills: int, slots: int, flood: int) -> Sizes:
    """The rest of the sizes in proportion; every kind of fault occurs once at least."""
    return Sizes(
        requests=requests,
        slots=slots,
        kills=kills,
        broker_kills=broker_kills,
        stops=max(kills // 8, 2),
        long_stops=max(kills // 16, 1),
        store_faults=max(kills // 8, len(StoreFault)),
        full_disks=max(kills // 40, 1),
        joins=max(kills // 8, 1),
        commands=max(kills // 2, 5),
        flood=flood,
    )


def flood_for(requests: int) -> int:
    """How many commands a flood has where nobody says."""
    return min(max(FULL_FLOOD * requests // FULL_REQUESTS, LEAST_FLOOD), FULL_FLOOD)


def pace(sizes: Sizes) -> float:
    """Requests a second at which two cores keep up: a slot that starts takes one of them for 2 s."""
    seconds = 10 + 2.7 * sizes.kills + 5.0 * sizes.broker_kills
    return min(sizes.requests / seconds, FASTEST)


def schedule(sizes: Sizes, seed: int) -> tuple[Step, ...]:
    """All faults of a run, by their places."""
    steps = [
        *_kills(sizes, _source(seed, "kills")),
        *_broker_kills(sizes, _source(seed, "broker kills")),
        *_stops(sizes, _source(seed, "stops")),
        *_store_faults(sizes, _source(seed, "store")),
        *_full_disks(sizes, _source(seed, "disks")),
        *_joins(sizes, _source(seed, "joins")),
        *_commands(sizes, _source(seed, "commands")),
        *_flood(sizes, _source(seed, "flood")),
    ]
    return tuple(sorted(steps, key=lambda step: step.at))


def digest(steps: tuple[Step, ...]) -> str:
    """Names a schedule: 16 hexadecimal digits of the sha256 of all its steps."""
    return sha256("\n".join(map(repr, steps)).encode()).hexdigest()[:16]


def _source(seed: int, kind: str) -> Random:
    return Random(f"{seed}: {kind}")


def _kills(sizes: Sizes, random: Random) -> Iterator[Step]:
    for at, _ in _places(sizes, sizes.kills, random):
        yield Step(at, Kill(random.randrange(sizes.slots)))


def _broker_kills(sizes: Sizes, random: Random) -> Iterator[Step]:
    for at, _ in _places(sizes, sizes.broker_kills, random):
        yield Step(at, KillBroker(round(random.uniform(*AWAY_SECONDS), 1)))


def _stops(sizes: Sizes, random: Random) -> Iterator[Step]:
    lengths = [LONG_STOP_SECONDS] * sizes.long_stops
    lengths += [SHORT_STOP_SECONDS] * (sizes.stops - sizes.long_stops)
    random.shuffle(lengths)
    for (at, _), length in zip(_places(sizes, len(lengths), random), lengths, strict=True):
        yield Step(at, Stop(random.randrange(sizes.slots), round(random.uniform(*length), 1)))


def _store_faults(sizes: Sizes, random: Random) -> Iterator[Step]:
    kinds = tuple(StoreFault)
    for number, (at, share) in enumerate(_places(sizes, sizes.store_faults, random)):
        until = at + _length(share, random)
        yield Step(at, SpoilStore(kinds[number % len(kinds)], until))
        yield Step(at, Command(Ask.RELEASE, random.getrandbits(32)))


def _full_disks(sizes: Sizes, random: Random) -> Iterator[Step]:
    for at, share in _places(sizes, sizes.full_disks, random):
        yield Step(at, FillDisk(at + _length(share, random)))
        yield Step(at, Command(Ask.RELEASE, random.getrandbits(32)))


def _joins(sizes: Sizes, random: Random) -> Iterator[Step]:
    for at, share in _places(sizes, sizes.joins, random):
        yield Step(at, Join(at + _length(share, random)))


def _commands(sizes: Sizes, random: Random) -> Iterator[Step]:
    for at, _ in _places(sizes, sizes.commands, random):
        yield Step(at, Command(Ask.ANY, random.getrandbits(32)))


def _flood(sizes: Sizes, random: Random) -> Iterator[Step]:
    if sizes.flood:
        at = int(sizes.requests * random.uniform(0.3, 0.5))
        yield Step(at, Flood(sizes.flood, random.getrandbits(32)))


def _places(sizes: Sizes, count: int, random: Random) -> list[tuple[int, int]]:
    """One place in the first half or so of each of ``count`` equal parts, with the part's length."""
    whole = sizes.requests * (LAST - FIRST)
    places = []
    for number in range(count):
        at = sizes.requests * FIRST + whole * (number + random.uniform(0, 1 - LASTING)) / count
        places.append((int(at), int(whole / count)))
    return places


def _length(share: int, random: Random) -> int:
    return max(int(share * random.uniform(LASTING / 2, LASTING)), 1)
