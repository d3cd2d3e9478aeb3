"""The commands that people and controllers give, and how one is turned down.

A command carries the evidence that its rule needs: the live instances as they announced themselves,
read just before it is given. It names the rollout that it means by that rollout's revision.
"""

from dataclasses import dataclass
from enum import StrEnum

from deployment.readiness import Fleet, Lack
from schemas.events import Plan


class Strategy(StrEnum):
    """How a rollout treats traffic."""

    BLUE_GREEN = "blue-green"
    """The whole share in one revision."""
    CANARY = "canary"
    """A growing share of the keys, by a plan or by hand."""
    SHADOW = "shadow"
    """No traffic: the candidate scores a share beside the champion, for nobody to see."""


@dataclass(frozen=True)
class Release:
    """Release the bundle with this digest; with ``start``, roll it out as well.

    The rest is the rollout's, as in ``Start``.
    """

    digest: str
    start: Strategy | None
    salt: str
    reason: str = ""
    plan: Plan | None = None
    min_ready: int = 0
    share: int = 10_000
    fleet: Fleet = ()


@dataclass(frozen=True)
class Start:
    """Roll out a released version. ``salt`` is fresh for every rollout.

    ``plan`` is for a canary; ``share`` (basis points) is what a shadow scores. ``min_ready`` is the
    share of live instances (basis points) that must be ready before traffic moves; 0 asks nobody, and
    each instance switches when it is ready.
    """

    version: int
    strategy: Strategy
    salt: str
    reason: str = ""
    plan: Plan | None = None
    min_ready: int = 0
    share: int = 10_000
    fleet: Fleet = ()


@dataclass(frozen=True)
class Shift:
    """Set what a rollout's candidate gets, in basis points; None leaves a share as it is.

    ``step`` is the plan's step (from 0) that this carries out; None where a person moves the rollout.
    """

    rollout: int
    weight: int | None
    shadow: int | None
    fleet: Fleet
    reason: str = ""
    step: int | None = None


@dataclass(frozen=True)
class Pause:
    """Let a rollout's plan wait; ``step`` as in ``Shift``."""

    rollout: int
    reason: str = ""
    step: int | None = None


@dataclass(frozen=True)
class Resume:
    """Let a paused plan go on with its next step."""

    rollout: int
    reason: str = ""


@dataclass(frozen=True)
class Promote:
    """Make a rollout's candidate champion."""

    rollout: int
    fleet: Fleet
    reason: str = ""


@dataclass(frozen=True)
class Abort:
    """End a rollout: the champion answers everything again."""

    rollout: int
    reason: str = ""


@dataclass(frozen=True)
class Seen:
    """What the giver of an undo looked at: the champion, and the rollout that ran (its revision)."""

    champion: int | None
    rollout: int | None


@dataclass(frozen=True)
class Undo:
    """Take back the latest change of who answers.

    Without ``to``: a rollout with traffic is aborted; else the previous champion comes back. With
    ``to``, a former champion, that version becomes champion, and a rollout that runs is aborted. What
    "latest" means changes with every change, so the undo holds only for what its giver has ``seen``;
    None where that does not matter. ``min_ready`` of the live instances (basis points) must not have
    refused the version.
    """

    to: int | None
    reason: str = ""
    fleet: Fleet = ()
    min_ready: int = 10_000
    seen: Seen | None = None


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


Command = Release | Start | Shift | Pause | Resume | Promote | Abort | Undo | Revoke | Retire


@dataclass(frozen=True)
class Refusal:
    """A command that was turned down: a stable code, a sentence, and what would make it allowed.

    ``lacks`` says which live instances are not ready, where that is the reason.
    """

    code: str
    sentence: str
    remedy: str
    lacks: tuple[Lack, ...] = ()
