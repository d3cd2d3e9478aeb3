"""The state at a moment: who answers, with what share, and who made it so.

Each part of a state is there since an event: the champion since it was promoted or restored, a candidate
since its rollout was started, its shares since they were shifted. The event before which none of it was
so is the one that is named.
"""

from datetime import datetime

import msgspec

from audit.history import Deed, History
from deployment.moments import Reading
from deployment.state import Deployment, Rollout


class Serving(msgspec.Struct, frozen=True, kw_only=True):
    """A version that was champion or previous, its bundle, and who made it so (None: not known)."""

    version: int
    digest: str
    released: Deed
    since: Deed | None = None
    approved: tuple[Deed, ...] = ()


class RollingOut(msgspec.Struct, frozen=True, kw_only=True):
    """A rollout or a shadow: its version, its shares in basis points, and who set them."""

    version: int
    digest: str
    rollout: int
    strategy: str
    weight: int
    shadow: int
    salt: str
    paused: bool
    released: Deed
    started: Deed
    shifted: Deed
    held: Deed | None = None
    approved: tuple[Deed, ...] = ()


class State(msgspec.Struct, frozen=True, kw_only=True):
    """A deployment at a moment. ``last`` is the latest event that was there."""

    model: str
    at: datetime
    revision: int
    last: Deed
    champion: Serving | None
    previous: Serving | None
    candidate: RollingOut | None
    shadows: tuple[RollingOut, ...]


def state_at(reading: Reading) -> State:
    """The state that the reading ends with. It has one event at least."""
    deployment = reading.deployment
    history = History(deployment.model, reading.events)
    revision = deployment.revision
    rollout = deployment.rollout
    return State(
        model=deployment.model,
        at=reading.at,
        revision=revision,
        last=history.deed(revision),
        champion=_serving(history, deployment, deployment.champion, history.crowned(revision)),
        previous=_serving(history, deployment, deployment.previous, None),
        candidate=None if rollout is None else _rolling(history, deployment, rollout),
        shadows=tuple(_rolling(history, deployment, each) for each in deployment.shadows.values()),
    )


def _serving(
    history: History, deployment: Deployment, version: int | None, since: Deed | None
) -> Serving | None:
    if version is None:
        return None
    release = deployment.releases[version]
    return Serving(
        version=version,
        digest=release.digest,
        released=history.deed(release.revision),
        since=since,
        approved=history.approved(version, deployment.revision),
    )


def _rolling(history: History, deployment: Deployment, rollout: Rollout) -> RollingOut:
    release = deployment.releases[rollout.candidate]
    return RollingOut(
        version=rollout.candidate,
        digest=release.digest,
        rollout=rollout.revision,
        strategy=rollout.strategy,
        weight=rollout.weight,
        shadow=rollout.shadow,
        salt=rollout.salt,
        paused=rollout.paused,
        released=history.deed(release.revision),
        started=history.deed(rollout.revision),
        shifted=history.deed(rollout.shifted),
        held=history.held(rollout.revision, deployment.revision),
        approved=history.approved(rollout.candidate, deployment.revision),
    )
