"""The state of a deployment, and the fold that makes it from the control log.

1. State at revision r is the fold of the accepted events up to r. There is no clock in it.
2. Accepted events number 1, 2, 3 … and each carries the hash of the one before; anything else among
   accepted events is a broken log, and the reader stops.
3. An event of an unknown type counts as a revision and changes nothing else.
4. Only ``rollout.promoted`` and ``model.restored`` change the champion. What was champion before
   becomes ``previous``, unless it may not serve any more.
5. Revoking or retiring a version clears it as ``previous``. It never serves again.
6. One rollout moves traffic at a time. Shadows move none: any number run beside it, each named by the
   revision that started it, as every rollout is.

Whether an event should have been appended is decided in ``decisions`` before it is written. The fold
believes the log, with these exceptions: it refuses to make a version champion or candidate that was never
released or may not serve, to start a rollout while one runs, or to withdraw what serves, since no
reader must ever do that, whoever wrote the event.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType

from deployment.numbered import Numbered
from schemas.errors import ModelwireError
from schemas.events import (
    ControlEvent,
    EventData,
    ModelReleased,
    ModelRestored,
    ModelRetired,
    ModelRevoked,
    Plan,
    Recorded,
    RolloutAborted,
    RolloutPaused,
    RolloutPromoted,
    RolloutResumed,
    RolloutShifted,
    RolloutStarted,
)

SHADOW = "shadow"
"""The strategy of a rollout that never gets traffic."""


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
    """A rollout that runs: named by the revision that started it; shares in basis points.

    ``step`` is the place in the plan (from 0) that was reached, None before the first. ``shifted`` is
    the revision that set the shares, and ``since`` the time of the event that began what is now: the
    start, a shift, a pause or a resumption. ``resumed`` is the step at which a pause was ended last.
    """

    revision: int
    candidate: int
    strategy: str
    salt: str
    weight: int
    since: datetime
    shifted: int
    shadow: int = 0
    plan: Plan | None = None
    min_ready: int = 10_000
    step: int | None = None
    paused: bool = False
    resumed: int | None = None

    @property
    def is_shadow(self) -> bool:
        """True where it never gets traffic."""
        return self.strategy == SHADOW


@dataclass(frozen=True)
class Deployment:
    """A model's deployment at one revision.

    ``log_id`` and ``head`` are the hashes (``sha256:…``) of the first and of the latest event, None
    before there is one. ``previous`` is the champion before, while it may still serve. ``rollout`` is
    the one that moves traffic; ``shadows`` are the others, by their revisions. ``min_ready`` is the share
    of live instances (basis points) that had to be ready for the champion when it became one.
    ``crowned`` are the versions that have ever been champion; ``was_restored`` says that the champion
    came back by ``model.restored``, an undo.
    """

    model: str
    log_id: str | None
    revision: int
    head: str | None
    releases: Mapping[int, Release]
    champion: int | None
    previous: int | None
    rollout: Rollout | None
    shadows: Mapping[int, Rollout] = field(default_factory=lambda: MappingProxyType({}))
    min_ready: int = 10_000
    crowned: frozenset[int] = frozenset()
    was_restored: bool = False

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
        if self.champion is None:
            return ()
        if self.rollout is not None and self.rollout.weight > 0:
            return (self.champion, self.rollout.candidate)
        return (self.champion,)

    def wanted(self) -> tuple[int, ...]:
        """The versions worth keeping warm, the required ones first."""
        also = [] if self.rollout is None else [self.rollout.candidate]
        if self.previous is not None:
            also.append(self.previous)
        shadows = (shadow.candidate for shadow in self.shadows.values())
        return tuple(dict.fromkeys((*self.required(), *also, *shadows)))

    def running(self, revision: int) -> Rollout | None:
        """The rollout or shadow of that name, None where it is over or never was."""
        if self.rollout is not None and self.rollout.revision == revision:
            return self.rollout
        return self.shadows.get(revision)

    def shadows_of(self, version: int) -> tuple[Rollout, ...]:
        """The shadows that score with this version."""
        return tuple(each for each in self.shadows.values() if each.candidate == version)


def short_hash(digest: str) -> str:
    """The first 16 hexadecimal digits of a ``sha256:…`` digest."""
    return digest.removeprefix("sha256:")[:16]


def empty(model: str) -> Deployment:
    """The deployment of a model whose log holds nothing yet."""
    return Deployment(model, None, 0, None, Numbered(), None, None, None)


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
            return _begin(deployment, event, data)
        case RolloutShifted(rollout=named):
            return _put(deployment, _shift(_running(deployment, event, named), event, data))
        case RolloutPaused(rollout=named, step=step):
            rollout = _running(deployment, event, named)
            reached = rollout.step if step is None else step
            paused = replace(rollout, paused=True, since=event.time, step=reached)
            return _put(deployment, paused)
        case RolloutResumed(rollout=named):
            rollout = _running(deployment, event, named)
            resumed = replace(rollout, paused=False, since=event.time, resumed=rollout.step)
            return _put(deployment, resumed)
        case RolloutPromoted(rollout=named, version=version):
            rollout = _running(deployment, event, named)
            if rollout.is_shadow or version != rollout.candidate:
                raise BrokenLog(
                    f"revision {event.revision} of {deployment.model} promotes version {version}, "
                    f"but rollout {named} is a {rollout.strategy} of version {rollout.candidate}"
                )
            promoted = _crown(replace(deployment, rollout=None), event, version)
            return replace(promoted, min_ready=rollout.min_ready, was_restored=False)
        case RolloutAborted(rollout=named):
            return _end(deployment, _running(deployment, event, named))
        case ModelRestored(version=version):
            _check_no_rollout(deployment, event)
            restored = _crown(deployment, event, version)
            return replace(restored, min_ready=10_000, was_restored=True)
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
    return replace(deployment, releases=Numbered.of(deployment.releases).append(release))


def _withdraw(
    deployment: Deployment, event: ControlEvent, version: int, standing: Standing
) -> Deployment:
    _check_released(deployment, event, version)
    in_use = (deployment.champion, deployment.rollout and deployment.rollout.candidate)
    if version in in_use or deployment.shadows_of(version):
        raise BrokenLog(
            f"revision {event.revision} of {deployment.model} withdraws version {version}, "
            "which serves or is being rolled out"
        )
    withdrawn = replace(deployment.releases[version], standing=standing)
    return replace(
        deployment,
        releases=Numbered.of(deployment.releases).put(version, withdrawn),
        previous=None if deployment.previous == version else deployment.previous,
    )


def _crown(deployment: Deployment, event: ControlEvent, version: int) -> Deployment:
    _check_may_serve(deployment, event, version)
    if version == deployment.champion:
        return deployment
    return replace(
        deployment,
        champion=version,
        previous=deployment.champion,
        crowned=deployment.crowned | {version},
    )


def rollout_begun(event: ControlEvent, data: RolloutStarted) -> Rollout:
    """The rollout that this event starts, as it stands then: no traffic, before its first step."""
    return Rollout(
        event.revision,
        data.candidate,
        data.strategy,
        data.salt,
        weight=0,
        since=event.time,
        shifted=event.revision,
        plan=data.plan,
        min_ready=data.min_ready,
    )


def _begin(deployment: Deployment, event: ControlEvent, data: RolloutStarted) -> Deployment:
    if data.strategy != SHADOW:
        _check_no_rollout(deployment, event)
    _check_may_serve(deployment, event, data.candidate)
    if data.candidate == deployment.champion:
        raise BrokenLog(
            f"revision {event.revision} of {deployment.model} rolls out version "
            f"{data.candidate}, which is the champion"
        )
    return _put(deployment, rollout_begun(event, data))


def _shift(rollout: Rollout, event: ControlEvent, data: RolloutShifted) -> Rollout:
    if rollout.is_shadow and data.weight > 0:
        raise BrokenLog(
            f"revision {event.revision} of {event.subject} gives traffic to the shadow "
            f"{rollout.revision}"
        )
    return replace(
        rollout,
        weight=data.weight,
        shadow=data.shadow,
        step=rollout.step if data.step is None else data.step,
        since=event.time,
        shifted=event.revision,
    )


def _put(deployment: Deployment, rollout: Rollout) -> Deployment:
    if not rollout.is_shadow:
        return replace(deployment, rollout=rollout)
    shadows = {**deployment.shadows, rollout.revision: rollout}
    return replace(deployment, shadows=MappingProxyType(shadows))


def _end(deployment: Deployment, rollout: Rollout) -> Deployment:
    if not rollout.is_shadow:
        return replace(deployment, rollout=None)
    shadows = {name: each for name, each in deployment.shadows.items() if each is not rollout}
    return replace(deployment, shadows=MappingProxyType(shadows))


def _running(deployment: Deployment, event: ControlEvent, named: int) -> Rollout:
    rollout = deployment.running(named)
    if rollout is None:
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
