"""The rules: what a command may append to the log, given the deployment it finds.

``decide`` turns a command into events, or into a refusal with a stable code. Rules:

1. **Release** gives a bundle the next ordinal. A digest that was revoked is never released again; one
   that is released already keeps its version. A release may start its own rollout.
2. **Start** puts a released version beside the champion. None runs already; the version may serve; it
   is not the champion. Blue-green promotes at once: each consumer switches when it is ready.
   The first champion comes the same way.
3. **Undo** restores the previous champion, or any version that may serve. A running rollout is
   aborted first.
4. **Revoke** takes a version out of service for ever. Revoking the candidate aborts its rollout;
   revoking the champion restores the previous one first, and is refused without one.
5. **Retire** lets consumers drop a version. It is refused while the version serves or is rolled out.

Every prefix of a command's events is a state that can be served.
"""

from dataclasses import dataclass
from enum import StrEnum

from deployment.state import Deployment, Standing
from schemas.events import (
    EventData,
    ModelReleased,
    ModelRestored,
    ModelRetired,
    ModelRevoked,
    RolloutAborted,
    RolloutPromoted,
    RolloutStarted,
)


class Strategy(StrEnum):
    """How traffic moves from champion to candidate."""

    BLUE_GREEN = "blue-green"
    """The whole share in one revision."""


@dataclass(frozen=True)
class Release:
    """Release the bundle with this digest; with ``start``, roll it out as well."""

    digest: str
    start: Strategy | None
    salt: str
    reason: str = ""


@dataclass(frozen=True)
class Start:
    """Roll out a released version. ``salt`` is fresh for every rollout."""

    version: int
    strategy: Strategy
    salt: str
    reason: str = ""


@dataclass(frozen=True)
class Undo:
    """Bring back the previous champion, or the version ``to``."""

    to: int | None
    reason: str = ""


@dataclass(frozen=True)
class Revoke:
    """Take a version out of service for ever."""

    version: int
    reason: str = ""


@dataclass(frozen=True)
class Retire:
    """Let consumers drop a version that serves no more."""

    version: int
    reason: str = ""


Command = Release | Start | Undo | Revoke | Retire


@dataclass(frozen=True)
class Refusal:
    """A command that was turned down: a stable code, a sentence, and what would make it allowed."""

    code: str
    sentence: str
    remedy: str


def decide(deployment: Deployment, command: Command) -> tuple[EventData, ...] | Refusal:
    """The events that the command appends to this deployment's log, or why it may not."""
    match command:
        case Release():
            return _release(deployment, command)
        case Start():
            return _start(deployment, command)
        case Undo():
            return _undo(deployment, command)
        case Revoke():
            return _revoke(deployment, command)
        case Retire():
            return _retire(deployment, command)


def _release(deployment: Deployment, command: Release) -> tuple[EventData, ...] | Refusal:
    for release in deployment.releases.values():
        name = _name(deployment, release.version)
        if release.digest != command.digest or release.standing is Standing.RETIRED:
            continue
        if release.standing is Standing.REVOKED:
            return Refusal(
                "bundle-revoked",
                f"this bundle was revoked as {name}",
                "train and release another one",
            )
        return Refusal(
            "already-released",
            f"this bundle is released already as {name}",
            f"roll it out: modelwire rollout start {name} --strategy blue-green",
        )
    version = len(deployment.releases) + 1
    released = ModelReleased(version, command.digest, command.reason)
    if command.start is None:
        return (released,)
    if deployment.rollout is not None:
        return _refuse_second_rollout(deployment)
    revision = deployment.revision + 2
    return (
        released,
        *_blue_green(revision, version, command.start, command.salt, command.reason),
    )


def _start(deployment: Deployment, command: Start) -> tuple[EventData, ...] | Refusal:
    unfit = _unfit(deployment, command.version)
    if unfit is not None:
        return unfit
    if deployment.rollout is not None:
        return _refuse_second_rollout(deployment)
    if command.version == deployment.champion:
        return _refuse_champion_again(deployment, command.version)
    return _blue_green(
        deployment.revision + 1, command.version, command.strategy, command.salt, command.reason
    )


def _blue_green(
    revision: int, version: int, strategy: Strategy, salt: str, reason: str
) -> tuple[EventData, ...]:
    return (
        RolloutStarted(version, strategy.value, salt, reason),
        RolloutPromoted(revision, version, reason),
    )


def _undo(deployment: Deployment, command: Undo) -> tuple[EventData, ...] | Refusal:
    if deployment.champion is None:
        return Refusal(
            "no-champion",
            f"{deployment.model} has no champion, so there is nothing to undo",
            "roll a version out first",
        )
    target = deployment.previous if command.to is None else command.to
    if target is None:
        return Refusal(
            "no-previous",
            f"{deployment.model} has no previous champion that may serve",
            "name a version: modelwire rollout undo MODEL --to VERSION",
        )
    unfit = _unfit(deployment, target)
    if unfit is not None:
        return unfit
    if target == deployment.champion:
        return _refuse_champion_again(deployment, target)
    restored = ModelRestored(target, deployment.champion, command.reason)
    return (*_abort(deployment, command.reason), restored)


def _revoke(deployment: Deployment, command: Revoke) -> tuple[EventData, ...] | Refusal:
    version = command.version
    release = deployment.releases.get(version)
    if release is None:
        return _refuse_unknown(deployment, version)
    if release.standing is Standing.REVOKED:
        return Refusal(
            "already-revoked", f"{_name(deployment, version)} is revoked already", "nothing to do"
        )
    revoked = ModelRevoked(version, command.reason)
    if deployment.rollout is not None and deployment.rollout.candidate == version:
        return (*_abort(deployment, command.reason), revoked)
    if version != deployment.champion:
        return (revoked,)
    if deployment.previous is None:
        return Refusal(
            "no-previous",
            f"{_name(deployment, version)} is the champion and no previous one can replace it",
            "roll out another version first, then revoke this one",
        )
    restored = ModelRestored(deployment.previous, version, command.reason)
    return (*_abort(deployment, command.reason), restored, revoked)


def _retire(deployment: Deployment, command: Retire) -> tuple[EventData, ...] | Refusal:
    version = command.version
    unfit = _unfit(deployment, version)
    if unfit is not None:
        return unfit
    candidate = None if deployment.rollout is None else deployment.rollout.candidate
    if version in (deployment.champion, candidate):
        role = "the champion" if version == deployment.champion else "being rolled out"
        return Refusal(
            "in-service",
            f"{_name(deployment, version)} is {role}",
            "retire it when another version has taken its place",
        )
    return (ModelRetired(version, command.reason),)


def _abort(deployment: Deployment, reason: str) -> tuple[EventData, ...]:
    if deployment.rollout is None:
        return ()
    return (RolloutAborted(deployment.rollout.revision, reason),)


def _unfit(deployment: Deployment, version: int) -> Refusal | None:
    release = deployment.releases.get(version)
    if release is None:
        return _refuse_unknown(deployment, version)
    if release.may_serve:
        return None
    return Refusal(
        f"version-{release.standing}",
        f"{_name(deployment, version)} is {release.standing} and may not serve again",
        "name a version that `modelwire release list` shows as released",
    )


def _refuse_unknown(deployment: Deployment, version: int) -> Refusal:
    return Refusal(
        "unknown-version",
        f"{_name(deployment, version)} was never released",
        "see the released versions: modelwire release list " + deployment.model,
    )


def _refuse_second_rollout(deployment: Deployment) -> Refusal:
    assert deployment.rollout is not None
    candidate = _name(deployment, deployment.rollout.candidate)
    return Refusal(
        "rollout-running",
        f"the rollout of {candidate} (revision {deployment.rollout.revision}) is not over",
        "promote or undo it first",
    )


def _refuse_champion_again(deployment: Deployment, version: int) -> Refusal:
    return Refusal(
        "already-champion",
        f"{_name(deployment, version)} is the champion already",
        "nothing to do",
    )


def _name(deployment: Deployment, version: int) -> str:
    return f"{deployment.model}:{version}"
