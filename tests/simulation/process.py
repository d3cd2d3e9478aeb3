"""A simulated consumer process: the shipped protocol and plan over a simulated broker.

``life`` is a generator that stops before every instruction, so that anything may happen in between: to
the log, to another process, to this one. Reading the log, loading and dropping happen beside it, as on
their own threads, by ``read``, ``load`` and ``drop``. The rules are ``consumer.answering``'s and
``consumer.plan``'s; in here is only what the shell around them does.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from consumer import instructions as do
from consumer import plan
from consumer.answering import Answering, Pace
from consumer.instructions import Steps, Undone, View
from deployment.ledger import Ledger
from deployment.readiness import Instance
from deployment.routing import route
from deployment.state import Deployment, empty
from schemas.events import Recorded
from schemas.fleet import Phase
from schemas.forecast import Variant
from scoring.batch import ForecastAnswer, Incoming
from scoring.snapshot import LoadedVersion, Snapshot, snapshot_of
from tests.bundles import contract
from tests.simulation.broker import Broker, Ended, Member, Producer, without

TOPIC = "m.requests"
PACE = Pace(batch_size=3, batch_wait=0.0, commit_every=5, commit_interval=0.05, stamp_wait=3.0)
CONTRACT = contract()

INSTANT = (
    do.Begin,
    do.Clock,
    do.HandOver,
    do.Pause,
    do.Resume,
    do.Say,
    do.Seek,
    do.Serve,
    do.Suspect,
    do.Use,
)
"""Nobody else can tell when these are carried out, so nothing needs to happen before them."""

Outcome = TypeVar("Outcome")
Life = Generator[None, None, Outcome]
Below = Callable[[int], int]
"""Draws a number below the given one; 0 is always the undisturbed course."""


def loaded(version: int) -> LoadedVersion:
    """A version in memory. Nothing is ever scored with it."""
    never: Any = None
    return LoadedVersion(
        version, f"sha256:{version}", CONTRACT, never, never, never, never, (), never
    )


VERSIONS = {version: loaded(version) for version in range(1, 40)}


@dataclass(frozen=True)
class Announced:
    """What the fleet topic holds of a process."""

    status: Instance
    phase: Phase


class Process:
    """One life of one slot. ``states`` are the log's deployments, the newest last."""

    def __init__(
        self,
        name: str,
        broker: Broker,
        below: Below,
        clock: Callable[[], float],
        peer_revision: Callable[[str], int],
        *,
        is_static: bool,
    ) -> None:
        self.name = name
        self.is_frozen = False
        self.is_stopping = False
        self.ledger = Ledger("m")
        self.newest: Deployment = empty("m")
        self.caught_up = False
        self.ready: Snapshot | None = None
        self.loaded: dict[int, LoadedVersion] = {}
        self.refused: dict[int, str] = {}
        self.announced: Announced | None = None
        self.answering = Answering("m", PACE)
        self.member: Member | None = None
        self._broker = broker
        self._below = below
        self._clock = clock
        self._peer_revision = peer_revision
        self._is_static = is_static
        self._in_use: Snapshot | None = None
        self._producer: Producer = broker.open_producer(name)
        self._positions: dict[int, int] = {}
        self._paused: set[int] = set()
        self.life = self._live()

    # --- beside the loop

    def read(self, events: Sequence[Recorded], states: Sequence[Deployment]) -> None:
        """Take what is new in the log, as far as the broker gives it."""
        start = len(self.ledger.events)
        if start < len(events):
            count = len(events) - start - self._below(len(events) - start)
            self.ledger.events += events[start : start + count]
            self.newest = self.ledger.deployment = states[start + count - 1]
            self._publish(states[start : start + count])
        self.caught_up = self.caught_up or len(self.ledger.events) == len(events)

    def load(self, gone: set[int]) -> None:
        """Admit the most urgent version, or note why not."""
        for version in plan.to_load(self.newest):
            if version in self.loaded:
                continue
            if version in gone:
                self.refused[version] = "fetch: gone"
                continue
            self.refused.pop(version, None)
            self.loaded[version] = VERSIONS[version]
            self._publish([self.newest])
            return

    def drop(self) -> None:
        """Let go of what nothing names."""
        for version in plan.to_drop(self.loaded, self.newest, (self.ready, self._in_use)):
            del self.loaded[version]

    def announce(self) -> None:
        """Tell the fleet how things stand."""
        serving, phase = self.answering.serving, self.answering.phase
        revision = 0 if serving is None or phase is Phase.WAITING else serving.revision
        status = Instance(
            self.name,
            frozenset(self.loaded),
            dict(self.refused),
            revision,
            phase is Phase.READY,
            judged=frozenset(self.loaded) | frozenset(self.refused),
        )
        self.announced = Announced(status, phase)

    def _publish(self, states: Sequence[Deployment]) -> None:
        chosen = plan.newest_servable(states, self.loaded)
        if chosen is not None:
            snapshot = snapshot_of(chosen, self.loaded)
            if plan.is_progress(snapshot, self.ready):
                self.ready = snapshot

    # --- the loop

    def _live(self) -> Life[None]:
        while not self.is_stopping:
            yield from self._drive(self.answering.turn())
        yield from self._drive(self.answering.stop())

    def _drive(self, steps: Steps[Outcome]) -> Life[Outcome]:
        try:
            instruction = next(steps)
            while True:
                if not isinstance(instruction, INSTANT):
                    yield
                try:
                    outcome = yield from self._carry_out(instruction)
                except Undone as error:
                    instruction = steps.throw(error)
                else:
                    instruction = steps.send(outcome)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]

    def _carry_out(self, instruction: do.Instruction) -> Life[Any]:
        match instruction:
            case do.Look():
                return self._look()
            case do.Clock():
                return self._clock()
            case do.Fetch(limit):
                return (yield from self._fetch(limit))
            case do.Suspect():
                return self._below(30) == 1
            case do.TakeApart():
                yield
            case do.Score(snapshot, batch):
                return [_answer(snapshot, each) for each in batch]
            case do.Begin():
                self._broker.begin(self._producer)
            case do.Write(answers):
                for each in answers:
                    self._write(each)
                    if self._below(40) == 1:
                        yield
                return answers
            case do.Commit(offsets, stamp):
                if self._below(25) == 1:
                    raise Undone("the broker said so")
                assert self.member is not None
                self._broker.add_offsets(self._producer, self.member, offsets, stamp)
                yield
                self._broker.commit(self._producer)
                yield
            case do.Abort():
                self._broker.abort(self._producer)
            case do.Seek(positions):
                self._positions.update(positions)
            case do.Pause(partitions):
                self._paused.update(partitions)
            case do.Resume(partitions):
                self._paused.difference_update(partitions)
            case do.Use(snapshot):
                self._in_use = snapshot
            case do.Join():
                self.member = self._broker.join(self.name)
            case do.Leave():
                yield from self._leave()
            case do.Close():
                yield from self._close()
            case do.Say(announce=True):
                self.announce()
            case _:
                assert isinstance(
                    instruction, do.Say | do.Sleep | do.Serve | do.HandOver | do.Confirm
                )
        return None

    def _look(self) -> View:
        return View(
            now=self._clock(),
            newest=self.newest,
            caught_up=self.caught_up,
            ready=self.ready,
            prepared=tuple(self.loaded),
            refused=dict(self.refused),
            peer_revision=self._peer_revision(self.name),
            judge=self.ledger.judge_stamp,
        )

    def _write(self, answer: ForecastAnswer) -> None:
        revision, version = (int(part) for part in answer.value.split())
        place = answer.incoming
        record = (place.offset, revision, version, str(answer.variant))
        self._broker.write(self._producer, place.partition, record)

    # --- the client of the group

    def _fetch(self, limit: int) -> Life[list[Incoming]]:
        first = self._gather(limit - self._below(limit))
        changed = yield from self._hear_of_changes()
        if changed or len(first) < limit:
            first += self._gather(limit - len(first))
        return first

    def _gather(self, limit: int) -> list[Incoming]:
        found: list[Incoming] = []
        assert self.member is not None
        for partition in sorted(self.member.owned - self._paused):
            keys = self._broker.requests[partition]
            while len(found) < limit and self._positions[partition] < len(keys):
                offset = self._positions[partition]
                self._positions[partition] = offset + 1
                found.append(Incoming(TOPIC, partition, offset, 0, keys[offset].encode(), b""))
        return found

    def _hear_of_changes(self) -> Life[bool]:
        """What the client hears at a fetch. It says whether the assignment changed."""
        member = self.member
        assert member is not None
        if member.is_replaced:
            raise Ended("the group has another process of this name")
        if member.is_expelled:
            yield from self._lose(member)
            return True
        revoked = self._broker.to_revoke(member)
        if revoked:
            yield from self._drive(self.answering.revoked(sorted(revoked)))
            member.owned = without(member.owned, revoked)
        if member.is_expelled or member.is_replaced:
            return bool(revoked)
        assigned = self._broker.to_assign(member)
        if not assigned:
            return bool(revoked)
        found = {p: self._broker.committed[p] for p in sorted(assigned)}
        member.owned |= assigned
        paused = yield from self._drive(self.answering.assigned(found))
        for partition, place in found.items():
            self._positions[partition] = place.offset
        self._paused.difference_update(found)
        self._paused.update(paused)
        return True

    def _lose(self, member: Member) -> Life[None]:
        yield from self._drive(self.answering.lost(sorted(member.owned)))
        member.owned = set()
        if self.name not in self._broker.members:
            self.member = self._broker.join(self.name)
        else:
            member.is_replaced = True

    def _leave(self) -> Life[None]:
        member = self.member
        assert member is not None
        if member.is_expelled:
            yield from self._drive(self.answering.lost(sorted(member.owned)))
        else:
            yield from self._drive(self.answering.revoked(sorted(member.owned)))
        member.owned = set()
        self._broker.leave(member)

    def _close(self) -> Life[None]:
        if self.member is None or not self.answering.joined:
            return
        if self._is_static:
            yield from self._drive(self.answering.revoked(sorted(self.member.owned)))
            self.member.owned = set()
        else:
            yield from self._leave()


def _answer(snapshot: Snapshot, incoming: Incoming) -> ForecastAnswer:
    key = incoming.key or b""
    variant = route(snapshot.routing, key, key.decode())
    is_candidate = variant is Variant.CANDIDATE and snapshot.candidate is not None
    held = snapshot.candidate if is_candidate else snapshot.champion
    assert held is not None
    return ForecastAnswer(incoming, f"{snapshot.revision} {held.version}".encode(), variant)
