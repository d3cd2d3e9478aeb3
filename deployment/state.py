"""The state of a deployment, and the fold that makes it from the control log.

1. State at revision r is the fold of the accepted events up to r. There is no clock in it.
2. Accepted events number 1, 2, 3 … and each carries the hash of the one before; anything else among
   accepted events is a broken log, and the reader stops.
3. An event of an unknown type counts as a revision and changes nothing else.
4. Only ``rollout.promoted`` and ``model.restored`` change the champion. What was champion before
   becomes ``previous``, unless it may not serve any more.
5. Revoking or retiring a version clears it as ``previous``. It never serves again.

Whether an event should have been appended is decided in ``decisions`` before it is written. The fold
believes the log, with these exceptions: it refuses to make a version champion or candidate that was never
released or may not serve, to start a rollout while one runs, or to withdraw what serves, since no
reader must ever do that, whoever wrote the event.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType

from schemas.errors import ModelwireError
from schemas.events import (
    ControlEvent,
    EventData,
    ModelReleased,
    ModelRestored,
    ModelRetired,
    ModelRevoked,
    Recorded,
    RolloutAborted,
    RolloutPromoted,
    RolloutShifted,
    RolloutStarted,
)


class BrokenLog(ModelwireError):
    """The accepted events do not form one chain, or say what no writer may say."""


class Standing(StrEnum):
    """Whether a version may serve."""

    RELEASED = "released"
    REVOKED = "revoked"
    RETIRED = "retired"


@dataclass(frozen=True)
class Release:
    """A version: its bundle's digest, its standing, and the event that released it."""

    version: int
    digest: str
    standing: Standing
    revision: int
    actor: str
    time: datetime
    reason: str

    @property
    def may_serve(self) -> bool:
        """True until it is revoked or retired."""
        return self.standing is Standing.RELEASED


@dataclass(frozen=True)
class Rollout:
    """The rollout that runs: named by the revision that started it; weight in basis points."""

    revision: int
    candidate: int
    strategy: str
    salt: str
    weight: int


@dataclass(frozen=True)
class Deployment:
    """A model's deployment at one revision.

    ``log_id`` and ``head`` are the hashes (``sha256:…``) of the first and of the latest event, None
    before there is one. ``previous`` is the champion before, while it may still serve.
    """

    model: str
    log_id: str | None
    revision: int
    head: str | None
    releases: Mapping[int, Release]
    champion: int | None
    previous: int | None
    rollout: Rollout | None

    @property
    def stamp(self) -> str:
        """What a consumer stores beside its offsets: ``<log id>:<revision>:<hash>``, hex digits.

        Empty before the first event. 16 digits of each hash are kept: it tells logs apart, it does
        not defend against a forger.
        """
        if self.log_id is None or self.head is None:
            return ""
        return f"{short_hash(self.log_id)}:{self.revision}:{short_hash(self.head)}"

    def required(self) -> tuple[int, ...]:
        """The versions that this revision asks for: the champion, and a candidate with traffic."""
        asked = [] if self.champion is None else [self.champion]
        if self.rollout is not None and self.rollout.weight > 0:
            asked.append(self.rollout.candidate)
        return tuple(asked)

    def wanted(self) -> tuple[int, ...]:
        """The versions worth keeping warm, the required ones first."""
        also = [] if self.rollout is None else [self.rollout.candidate]
        if self.previous is not None:
            also.append(self.previous)
        return tuple(dict.fromkeys((*self.required(), *also)))


def short_hash(digest: str) -> str:
    """The first 16 hexadecimal digits of a ``sha256:…`` digest."""
    return digest.removeprefix("sha256:")[:16]


def empty(model: str) -> Deployment:
    """The deployment of a model whose log holds nothing yet."""
    return Deployment(model, None, 0, None, MappingProxyType({}), None, None, None)


def fold(deployment: Deployment, recorded: Recorded) -> Deployment:
    """The deployment after one more event. Raises BrokenLog where the event cannot follow."""
    event = recorded.event
    _check_chain(deployment, event)
    after = deployment if recorded.data is None else _apply(deployment, event, recorded.data)
    return replace(
        after,
        log_id=deployment.log_id or recorded.hash,
        revision=event.revision,
        head=recorded.hash,
    )


def _check_chain(deployment: Deployment, event: ControlEvent) -> None:
    where = f"the control log of {deployment.model}, after revision {deployment.revision},"
    if event.subject != deployment.model:
        raise BrokenLog(f"{where} holds an event of model {event.subject!r}")
    if event.revision != deployment.revision + 1:
        raise BrokenLog(f"{where} goes on with revision {event.revision}")
    previous = event.previous if isinstance(event.previous, str) else None
    if previous != deployment.head:
        raise BrokenLog(
            f"{where} goes on with an event that follows {previous}, not {deployment.head}",
            hint="the topic was truncated, rewritten or mixed with another log; restore it",
        )


def _apply(deployment: Deployment, event: ControlEvent, data: EventData) -> Deployment:
    match data:
        case ModelReleased():
            return _release(deployment, event, data)
        case ModelRevoked(version=version):
            return _withdraw(deployment, event, version, Standing.REVOKED)
        case ModelRetired(version=version):
            return _withdraw(deployment, event, version, Standing.RETIRED)
        case RolloutStarted():
            _check_no_rollout(deployment, event)
            _check_may_serve(deployment, event, data.candidate)
            if data.candidate == deployment.champion:
                raise BrokenLog(
                    f"revision {event.revision} of {deployment.model} rolls out version "
                    f"{data.candidate}, which is the champion"
                )
            started = Rollout(event.revision, data.candidate, data.strategy, data.salt, weight=0)
            return replace(deployment, rollout=started)
        case RolloutShifted(rollout=named, weight=weight):
            rollout = _running(deployment, event, named)
            return replace(deployment, rollout=replace(rollout, weight=weight))
        case RolloutPromoted(rollout=named, version=version):
            rollout = _running(deployment, event, named)
            if version != rollout.candidate:
                raise BrokenLog(
                    f"revision {event.revision} of {deployment.model} promotes version {version}, "
                    f"but rollout {named} is of version {rollout.candidate}"
                )
            return _crown(replace(deployment, rollout=None), event, version)
        case RolloutAborted(rollout=named):
            _running(deployment, event, named)
            return replace(deployment, rollout=None)
        case ModelRestored(version=version):
            _check_no_rollout(deployment, event)
            return _crown(deployment, event, version)
    raise AssertionError(f"an event type without a rule: {type(data).__name__}")


def _release(deployment: Deployment, event: ControlEvent, data: ModelReleased) -> Deployment:
    if data.version != len(deployment.releases) + 1:
        raise BrokenLog(
            f"revision {event.revision} of {deployment.model} releases version {data.version}; "
            f"the next is {len(deployment.releases) + 1}"
        )
    release = Release(
        version=data.version,
        digest=data.digest,
        standing=Standing.RELEASED,
        revision=event.revision,
        actor=event.actor,
        time=event.time,
        reason=data.reason,
    )
    return replace(
        deployment, releases=MappingProxyType({**deployment.releases, data.version: release})
    )


def _withdraw(
    deployment: Deployment, event: ControlEvent, version: int, standing: Standing
) -> Deployment:
    _check_released(deployment, event, version)
    in_use = (deployment.champion, deployment.rollout and deployment.rollout.candidate)
    if version in in_use:
        raise BrokenLog(
            f"revision {event.revision} of {deployment.model} withdraws version {version}, "
            "which serves or is being rolled out"
        )
    withdrawn = replace(deployment.releases[version], standing=standing)
    return replace(
        deployment,
        releases=MappingProxyType({**deployment.releases, version: withdrawn}),
        previous=None if deployment.previous == version else deployment.previous,
    )


def _crown(deployment: Deployment, event: ControlEvent, version: int) -> Deployment:
    _check_may_serve(deployment, event, version)
    if version == deployment.champion:
        return deployment
    return replace(deployment, champion=version, previous=deployment.champion)


def _running(deployment: Deployment, event: ControlEvent, named: int) -> Rollout:
    rollout = deployment.rollout
    if rollout is None or rollout.revision != named:
        raise BrokenLog(
            f"revision {event.revision} of {deployment.model} names rollout {named}, "
            "which is not the one that runs"
        )
    return rollout


def _check_no_rollout(deployment: Deployment, event: ControlEvent) -> None:
    if deployment.rollout is not None:
        raise BrokenLog(
            f"revision {event.revision} of {deployment.model} comes while rollout "
            f"{deployment.rollout.revision} runs"
        )


def _check_released(deployment: Deployment, event: ControlEvent, version: int) -> None:
    if version not in deployment.releases:
        raise BrokenLog(
            f"revision {event.revision} of {deployment.model} names version {version}, "
            "which was never released"
        )


def _check_may_serve(deployment: Deployment, event: ControlEvent, version: int) -> None:
    _check_released(deployment, event, version)
    standing = deployment.releases[version].standing
    if standing is not Standing.RELEASED:
        raise BrokenLog(
            f"revision {event.revision} of {deployment.model} puts version {version} into service, "
            f"which is {standing}"
        )
