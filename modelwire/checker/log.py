"""The control log, folded by the checker's own rules: who was to answer at each revision.

1. Events number 1, 2, 3 … and each carries the hash of the one before. Where one does not, the log
   ends there and has a problem. A record that is no event counts for nothing; an event of an unknown
   type counts as a revision and changes nothing.
2. ``rollout.started`` puts a candidate beside the champion, at weight 0; ``rollout.shifted`` sets its
   weight; ``rollout.promoted`` makes it champion; ``rollout.aborted`` ends it. One at a time.
3. A rollout that was started with the strategy ``shadow`` gets no traffic. Any number run beside the
   other, and what names one of them changes nothing here.
4. Each of these names its rollout by the revision that started it. One that names another, or moves
   what may not be moved, ends the log with a problem: no consumer goes on from there.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Literal

import msgspec

from modelwire.checker.wire import (
    EVENTS,
    NOT_JSON,
    Aborted,
    EventData,
    Promoted,
    Released,
    Restored,
    Revoked,
    Shifted,
    Started,
)

ALL = 10_000
"""The weight, in basis points, at which the candidate answers everything."""


class _Event(msgspec.Struct, frozen=True):
    specversion: Literal["1.0"]
    type: str
    subject: str
    sequence: str
    data: msgspec.Raw
    previous: str | None = None


_decode_event = msgspec.json.Decoder(_Event).decode


class _Impossible(Exception):
    """The event says what no writer may say; the text is what it does."""


@dataclass(frozen=True, slots=True)
class Rollout:
    """The rollout that moves traffic, named by the revision that started it."""

    revision: int
    candidate: int
    salt: str
    weight: int = 0


@dataclass(frozen=True, slots=True)
class State:
    """Who answers at a revision."""

    champion: int | None = None
    rollout: Rollout | None = None

    @property
    def split(self) -> Rollout | None:
        """The rollout that shares the traffic with the champion at this revision."""
        rollout = self.rollout
        return rollout if rollout is not None and 0 < rollout.weight < ALL else None

    def expected(self) -> dict[str, int | None]:
        """Variant -> version, for the variants that get traffic."""
        rollout = self.rollout
        if rollout is None or rollout.weight == 0:
            return {"champion": self.champion}
        if rollout.weight == ALL:
            return {"candidate": rollout.candidate}
        return {"champion": self.champion, "candidate": rollout.candidate}


@dataclass
class Log:
    """``states[r]`` is the state at revision r and ``hashes[r]`` that of its event.

    ``released`` maps a version to the revision and the digest, ``revoked`` to the revision.
    ``problem`` says why the log ends early.
    """

    states: list[State] = field(default_factory=lambda: [State()])
    hashes: list[str | None] = field(default_factory=lambda: [None])
    released: dict[int, tuple[int, str]] = field(default_factory=dict)
    revoked: dict[int, int] = field(default_factory=dict)
    shadows: set[int] = field(default_factory=set)
    problem: str = ""

    @property
    def revision(self) -> int:
        """The latest."""
        return len(self.states) - 1

    def judge(
        self, revision: int, version: int, digest: str, variant: str, *, is_forecast: bool
    ) -> str:
        """Empty, or why an answer that claims this is wrong.

        Version 0 is a rejection's from before it was routed. Which of two variants is for ``routes``.
        """
        if not 0 < revision <= self.revision:
            return f"revision {revision} is not in the control log (1 … {self.revision})"
        at = f"at revision {revision}"
        if version == 0 and not is_forecast:
            return "" if not variant else f"variant {variant!r} of no version {at}"
        released_at, released = self.released.get(version, (revision + 1, ""))
        if released_at > revision:
            return f"version {version} had not been released {at}"
        if released != digest:
            return f"version {version} was released as {released}, not {digest}"
        if self.revoked.get(version, revision + 1) <= revision:
            return f"version {version} had been revoked {at}"
        routed = self.states[revision].expected()
        if routed.get(variant) != version:
            said = " or ".join(f"version {number} as {name}" for name, number in routed.items())
            return f"version {version} as {variant or 'nothing'} {at}, where the log says {said}"
        return ""

    def extends(self, earlier: "Log") -> bool:
        """Whether this log begins with all that the earlier one held."""
        at = earlier.revision
        return at <= self.revision and self.hashes[at] == earlier.hashes[at]


def fold(values: Iterable[bytes]) -> Log:
    """Every state of the log, up to its end or its first problem."""
    log = Log()
    for raw in values:
        try:
            event = _decode_event(raw)
            kind = EVENTS.get(event.type)
            data = None if kind is None else msgspec.json.decode(event.data, type=kind)
        except NOT_JSON:
            continue
        if event.sequence != str(log.revision + 1) or event.previous != log.hashes[-1]:
            log.problem = (
                f"the event with sequence {event.sequence} does not follow revision "
                f"{log.revision} of the control log"
            )
            break
        try:
            state = _apply(log, data)
        except _Impossible as does:
            log.problem = f"revision {event.sequence} of the control log {does}"
            break
        log.states.append(state)
        log.hashes.append(f"sha256:{sha256(raw).hexdigest()}")
    return log


def _apply(log: Log, data: EventData | None) -> State:
    """The state after one more event of the log."""
    state, revision = log.states[-1], log.revision + 1
    match data:
        case Released(version=version, digest=digest):
            if version in log.released:
                raise _Impossible(f"releases version {version} again")
            log.released[version] = (revision, digest)
        case Revoked(version=version):
            log.revoked.setdefault(version, revision)
        case Started(strategy="shadow"):
            log.shadows.add(revision)
        case Started():
            if state.rollout is not None:
                raise _Impossible(f"starts a rollout while {state.rollout.revision} runs")
            return replace(state, rollout=Rollout(revision, data.candidate, data.salt))
        case Shifted(rollout=named, weight=weight):
            rollout = _moved(log, named)
            if rollout is not None:
                return replace(state, rollout=replace(rollout, weight=weight))
            if weight:
                raise _Impossible(f"gives traffic to the shadow {named}")
        case Promoted(rollout=named, version=version):
            rollout = _moved(log, named)
            if rollout is None or rollout.candidate != version:
                raise _Impossible(f"promotes version {version}, which rollout {named} does not")
            return State(version)
        case Aborted(rollout=named):
            if _moved(log, named) is not None:
                return State(state.champion)
            log.shadows.remove(named)
        case Restored(version=version):
            if state.rollout is not None:
                raise _Impossible(f"restores a version while rollout {state.rollout.revision} runs")
            return State(version)
    return state


def _moved(log: Log, named: int) -> Rollout | None:
    """The rollout of that name, None where it is a shadow. Raises _Impossible where none runs."""
    rollout = log.states[-1].rollout
    if rollout is not None and rollout.revision == named:
        return rollout
    if named not in log.shadows:
        raise _Impossible(f"names rollout {named}, which does not run")
    return None
