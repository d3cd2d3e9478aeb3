"""The history of a deployment: what the control log said at each revision, and who did what.

1. A log is believed as far as its events form one chain. What breaks it is a *break*, with the revision
   from which on nothing is vouched for: that of the last event before, since only the hash in the event
   after it says that it is what was written.
2. Two copies of a log must have the same events as far as both go; where they do not, that is a break.
3. The state at a revision is the fold of the events up to it (``deployment.state``). A deed is an event
   as somebody did it.

Where the events come from is for ``audit.logs``.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

import msgspec

from deployment.ledger import Ledger
from deployment.state import BrokenLog, Deployment, empty, fold
from deployment.words import reason_of, what_happened
from schemas.events import (
    TYPE_PREFIX,
    TYPE_SUFFIX,
    ModelRestored,
    Recorded,
    RolloutPaused,
    RolloutPromoted,
    RolloutResumed,
)

APPROVED = f"{TYPE_PREFIX}model.approved{TYPE_SUFFIX}"
"""Events of this type are kept like any other and change no state; they name a version."""


class Break(msgspec.Struct, frozen=True):
    """From ``revision`` on (1 is the first) the log is not believed; ``why`` is a sentence."""

    revision: int
    why: str


class Deed(msgspec.Struct, frozen=True, kw_only=True):
    """An event as somebody did it. ``reason`` is empty where nobody gave one."""

    revision: int
    what: str
    actor: str
    time: datetime
    reason: str
    commandid: str


class _Named(msgspec.Struct):
    version: int


class History:
    """A log, folded once: the deployment at each revision. Safe to read from several threads."""

    def __init__(self, model: str, events: Sequence[Recorded], broken: Break | None = None) -> None:
        """``events`` form one chain from the first on; ``broken`` says why there are no more."""
        self.model = model
        self.events = tuple(events)
        self.broken = broken
        self._deployments = [empty(model)]
        for recorded in self.events:
            self._deployments.append(fold(self._deployments[-1], recorded))

    @property
    def last(self) -> int:
        """The last revision that was read; 0 where there is none."""
        return len(self.events)

    def at(self, revision: int) -> Deployment | None:
        """The deployment there; None where the log has no such revision."""
        return self._deployments[revision] if 1 <= revision <= self.last else None

    def vouches_for(self, revision: int) -> bool:
        """Whether the log is believed at this revision."""
        return self.broken is None or revision < self.broken.revision

    def deed(self, revision: int) -> Deed:
        """What happened at a revision that was read."""
        recorded = self.events[revision - 1]
        event = recorded.event
        return Deed(
            revision=revision,
            what=what_happened(self.model, recorded),
            actor=event.actor,
            time=event.time,
            reason=reason_of(recorded),
            commandid=event.commandid,
        )

    def released(self, version: int, revision: int) -> Deed | None:
        """Who released the version, as was known at ``revision``."""
        deployment = self.at(revision)
        release = None if deployment is None else deployment.releases.get(version)
        return None if release is None else self.deed(release.revision)

    def approved(self, version: int, revision: int) -> tuple[Deed, ...]:
        """Who approved the version up to ``revision``; the first is first."""
        return tuple(
            self.deed(recorded.event.revision)
            for recorded in self.events[:revision]
            if recorded.event.type == APPROVED and _version_in(recorded) == version
        )

    def routed(self, revision: int) -> Deed | None:
        """What set the routing of ``revision``: a shift of what runs, else a crown or an end."""
        deployment = self.at(revision)
        if deployment is None:
            return None
        if deployment.rollout is not None:
            return self.deed(deployment.rollout.shifted)
        # An aborted rollout gave everything back to the champion.
        for number in range(revision, 0, -1):
            before, after = self._deployments[number - 1], self._deployments[number]
            if before.champion != after.champion or _has_traffic(before) != _has_traffic(after):
                return self.deed(number)
        return None

    def crowned(self, revision: int) -> Deed | None:
        """What made the champion of ``revision`` champion."""
        for recorded in reversed(self.events[:revision]):
            if isinstance(recorded.data, RolloutPromoted | ModelRestored):
                return self.deed(recorded.event.revision)
        return None

    def held(self, rollout: int, revision: int) -> Deed | None:
        """What paused or resumed this rollout last, up to ``revision``."""
        for recorded in reversed(self.events[:revision]):
            data = recorded.data
            if isinstance(data, RolloutPaused | RolloutResumed) and data.rollout == rollout:
                return self.deed(recorded.event.revision)
        return None


def history_of(model: str, records: Iterable[bytes | None]) -> History:
    """The history in these records, as far as they form one chain."""
    ledger = Ledger(model)
    broken = None
    try:
        for record in records:
            ledger.take(record)
    except BrokenLog as error:
        broken = break_after(ledger, error)
    return History(model, ledger.events, broken)


def break_after(ledger: Ledger, error: BrokenLog) -> Break:
    """The break that ended the reading of ``ledger``."""
    return Break(max(len(ledger.events), 1), error.message)


def difference(copies: Mapping[str, History]) -> Break | None:
    """The first revision at which copies of a log, by the names of their places, are not the same."""
    named = list(copies.items())
    found = [
        Break(
            revision,
            f"revision {revision} is {_hash_at(one, revision)} in {first} and "
            f"{_hash_at(other, revision)} in {second}",
        )
        for place, (first, one) in enumerate(named)
        for second, other in named[place + 1 :]
        for revision in range(1, min(one.last, other.last) + 1)
        if _hash_at(one, revision) != _hash_at(other, revision)
    ]
    return min(found, key=lambda each: each.revision, default=None)


def _hash_at(history: History, revision: int) -> str:
    return history.events[revision - 1].hash


def _has_traffic(deployment: Deployment) -> bool:
    return deployment.rollout is not None and deployment.rollout.weight > 0


def _version_in(recorded: Recorded) -> int | None:
    try:
        return msgspec.json.decode(recorded.event.data, type=_Named).version
    except msgspec.DecodeError:
        return None
