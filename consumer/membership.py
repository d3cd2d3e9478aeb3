"""Membership: when an instance joins its group, when it stops answering, when it leaves.

Rules, in the order in which they are looked at:

1. Outside the group it waits until the snapshot that it would answer with is that of the log's end,
   and says what it waits for. Then it joins.
2. In the group, with a snapshot that holds a version it has read to be revoked, it answers nothing.
   It leaves when the newer revision was refused here, or did not get ready in the time of a stamp.
3. A partition whose stamp is ahead of the snapshot waits a bounded time; then the instance leaves, so
   that one that can serve that revision gets the partition.
4. With a newer revision that it cannot serve it goes on with its older snapshot, and leaves only once
   another live instance says that it has applied that revision:
   a. at once where a version was refused here, since waiting brings nothing;
   b. at once where the rollout that runs, or that made the champion, may leave instances behind:
      those leave instead of answering as champion what the others route to the candidate;
   c. otherwise once the version has been in preparation for as long as a stamp waits: a slow load is
      no reason to move partitions, a load that does not end is.
5. Otherwise it answers.

Having left it is outside the group again, and rule 1 holds. Facts come in, a step comes out; who is
alive is for ``adapters.fleet_topic``, what is prepared for ``models``.
"""

from dataclasses import dataclass
from enum import StrEnum

from deployment.readiness import ALL
from deployment.state import Deployment


class Step(StrEnum):
    """What the instance does next."""

    WAIT = "wait"
    """Stay outside the group."""
    JOIN = "join"
    ANSWER = "answer"
    HOLD = "hold"
    """Stay in the group, and open no transaction."""
    LEAVE = "leave"


@dataclass(frozen=True)
class Decision:
    """The step, and why in a sentence for people (empty for JOIN and ANSWER)."""

    step: Step
    reason: str = ""


@dataclass(frozen=True)
class Situation:
    """What an instance knows. Revisions are 0 where there is none; times are in milliseconds.

    ``read_revision`` and ``champion`` are of the newest event read; ``snapshot_revision`` is that of
    the newest snapshot it could answer with. ``unprepared`` are the versions that the newest revision
    requires and that are not loaded here, the same ones for ``unprepared_ms``; ``refused`` maps those
    that admission turned down to the reason. ``revoked`` are versions of the snapshot that were read
    to be revoked, since ``revoked_ms``. ``blocked`` are owned partitions whose stamp is ahead, the
    longest one for ``blocked_ms``. ``peer_revision`` is the highest revision that another live
    instance has applied. ``may_leave_behind`` is as the function of that name says.
    """

    joined: bool
    caught_up: bool
    read_revision: int
    champion: int | None
    snapshot_revision: int
    unprepared: tuple[int, ...]
    unprepared_ms: int
    refused: dict[int, str]
    revoked: tuple[int, ...]
    revoked_ms: int
    blocked: tuple[int, ...]
    blocked_ms: int
    peer_revision: int
    may_leave_behind: bool
    stamp_wait_ms: int


def next_step(now: Situation) -> Decision:
    """What to do in this situation."""
    if not now.joined:
        return _outside(now)
    if now.revoked:
        why = (
            f"{_versions(now.revoked)} in service here was revoked at revision {now.read_revision}"
        )
        if now.refused:
            return Decision(Step.LEAVE, f"{why}, and {_refusals(now)}")
        if now.revoked_ms >= now.stamp_wait_ms:
            return Decision(Step.LEAVE, f"{why}, and {_versions(now.unprepared)} is not ready")
        return Decision(Step.HOLD, why)
    if now.blocked and now.blocked_ms >= now.stamp_wait_ms:
        return Decision(
            Step.LEAVE,
            f"partitions {', '.join(map(str, now.blocked))} were answered at a later revision than "
            f"{now.snapshot_revision}, which this instance has not got beyond",
        )
    if now.unprepared and now.snapshot_revision < now.read_revision <= now.peer_revision:
        lagging = _lagging(now)
        if lagging:
            ahead = f"another instance answers at revision {now.peer_revision}"
            return Decision(Step.LEAVE, f"{ahead}, and {lagging}")
    return Decision(Step.ANSWER)


def may_leave_behind(newest: Deployment) -> bool:
    """Whether what the log asks for may be asked although not every live instance was ready.

    A minimum of nobody asked no instance to be ready before: each switches when it is, and none is
    left behind.
    """
    rollout = newest.rollout
    has_traffic = rollout is not None and rollout.weight > 0
    min_ready = rollout.min_ready if rollout is not None and has_traffic else newest.min_ready
    return 0 < min_ready < ALL


def _lagging(now: Situation) -> str:
    """Why an instance that others have overtaken need not wait any longer; empty where it may."""
    if now.refused:
        return _refusals(now)
    what = _versions(now.unprepared)
    if now.may_leave_behind:
        return f"{what} is not ready here: the rollout goes on without this instance"
    if now.unprepared_ms >= now.stamp_wait_ms:
        return f"{what} is still not ready here after {now.unprepared_ms / 1_000:.0f} s"
    return ""


def _outside(now: Situation) -> Decision:
    if not now.caught_up:
        return Decision(Step.WAIT, "reading the control log")
    if now.champion is None:
        return Decision(Step.WAIT, "no champion yet: nothing has been rolled out")
    if now.refused:
        return Decision(Step.WAIT, _refusals(now))
    if now.snapshot_revision < now.read_revision or now.revoked:
        what = _versions(now.unprepared) if now.unprepared else f"revision {now.read_revision}"
        return Decision(Step.WAIT, f"{what} is being prepared")
    return Decision(Step.JOIN)


def _versions(versions: tuple[int, ...]) -> str:
    return f"version {', '.join(map(str, versions))}"


def _refusals(now: Situation) -> str:
    said = "; ".join(f"version {version}: {why}" for version, why in now.refused.items())
    return f"revision {now.read_revision} cannot be served here: {said}"
