"""Rollouts that run: traffic is set, stopped, promoted, and taken back. ``launches`` starts them.

A command that needs the fleet's agreement reads the fleet just before it is given, and carries what it
read; the rule itself is in ``deployment.decisions``. People name a rollout that moves traffic by its
model or by its version, and a shadow always by its version, since several may run; the command that is
given names it by its revision.
"""

import time
from dataclasses import dataclass

from adapters.control_log import read_log
from adapters.settings import Settings
from deployment.commands import Abort, Pause, Promote, Resume, Seen, Shift, Undo
from deployment.readiness import Fleet, Lack, is_enough, is_hopeless, lacks
from deployment.state import Deployment, Rollout
from publisher.commands import Appended, give
from publisher.fleets import live_fleet, wait_for_fleet
from schemas.errors import ModelwireError, NotFound
from schemas.events import ModelRestored


@dataclass(frozen=True)
class Target:
    """A rollout as people name it: its model, its candidate where that is said, its revision likewise."""

    model: str
    version: int | None = None
    revision: int | None = None


@dataclass(frozen=True)
class Undone:
    """What an undo added, and the live instances that load the version first. ``unknown`` says why
    those could not be looked up; the undo stands all the same."""

    appended: Appended
    cold: tuple[Lack, ...] = ()
    unknown: str = ""


def set_weight(
    settings: Settings, target: Target, weight: int, reason: str, wait: float
) -> Appended:
    """Sets the traffic of a rollout by hand, in basis points; more of it waits for the fleet."""
    deployment = read_log(settings, target.model).deployment
    rollout = _named(deployment, target)
    asked = tuple(each for each in (deployment.champion, rollout.candidate) if each is not None)
    patience = wait if weight > rollout.weight and not rollout.is_shadow else 0.0
    fleet = _ready_fleet(settings, target.model, rollout, asked, patience)
    return give(settings, target.model, Shift(rollout.revision, weight, None, fleet, reason))


def set_shadow(settings: Settings, target: Target, share: int, reason: str) -> Appended:
    """Sets the shadow share of a rollout by hand, in basis points. It asks nothing of the fleet."""
    rollout = find_rollout(settings, target)
    return give(settings, target.model, Shift(rollout.revision, None, share, (), reason))


def pause(settings: Settings, target: Target, reason: str) -> Appended:
    """Lets a plan wait."""
    return give(settings, target.model, Pause(find_rollout(settings, target).revision, reason))


def resume(settings: Settings, target: Target, reason: str) -> Appended:
    """Lets a paused plan go on."""
    return give(settings, target.model, Resume(find_rollout(settings, target).revision, reason))


def promote(settings: Settings, target: Target, reason: str, wait: float) -> Appended:
    """Makes a rollout's candidate champion; waits for the fleet."""
    rollout = find_rollout(settings, target)
    patience = 0.0 if rollout.is_shadow else wait
    fleet = _ready_fleet(settings, target.model, rollout, (rollout.candidate,), patience)
    return give(settings, target.model, Promote(rollout.revision, fleet, reason))


def _ready_fleet(
    settings: Settings, model: str, rollout: Rollout, asked: tuple[int, ...], wait: float
) -> Fleet:
    """The live instances, as soon as enough are ready; at the latest after ``wait`` seconds, or where
    too many of them have refused the candidate."""

    def is_over(fleet: Fleet) -> bool:
        hopeless = is_hopeless(fleet, rollout.candidate, rollout.min_ready)
        return hopeless or is_enough(fleet, asked, rollout.min_ready)

    return wait_for_fleet(settings, model, is_over, time.monotonic() + wait)


def abort(settings: Settings, target: Target, reason: str) -> Appended:
    """Ends a rollout."""
    return give(settings, target.model, Abort(find_rollout(settings, target).revision, reason))


def undo(settings: Settings, model: str, to: int | None, min_ready: int, reason: str) -> Undone:
    """Takes back the latest change of who answers, or brings back the version ``to``.

    "The latest" means another change after each: two people who undo the same one at once would bring
    it back. So without ``to`` the undo holds only for the champion and the rollout that are read here
    first. It does not wait for a look at the fleet: that comes after it, and cannot fail it.
    """
    if to is None:
        deployment = read_log(settings, model).deployment
        running = deployment.rollout
        seen = Seen(deployment.champion, None if running is None else running.revision)
        command = Undo(None, reason, seen=seen)
    else:
        command = Undo(to, reason, live_fleet(settings, model), min_ready)
    appended = give(settings, model, command)
    restored = [each.data for each in appended.events if isinstance(each.data, ModelRestored)]
    if not restored:
        return Undone(appended)
    try:
        return Undone(appended, lacks(live_fleet(settings, model), (restored[0].version,)))
    except ModelwireError as problem:
        return Undone(appended, unknown=problem.message)


def find_rollout(settings: Settings, target: Target) -> Rollout:
    """The rollout that runs under this name: a model's is the one that moves traffic, a version's that
    one or its shadow. Raises NotFound, which says what does run."""
    return _named(read_log(settings, target.model).deployment, target)


def _named(deployment: Deployment, target: Target) -> Rollout:
    model, version = target.model, target.version
    running = [*filter(None, [deployment.rollout]), *deployment.shadows.values()]
    for each in running:
        is_named = not each.is_shadow if version is None else each.candidate == version
        if is_named and target.revision in (None, each.revision):
            return each
    sought = f"no rollout of {model}" if version is None else f"no rollout of {model}:{version}"
    sought += " moves traffic" if version is None else " runs"
    if target.revision is not None:
        sought += f" that revision {target.revision} started"
    listed = ", ".join(
        f"{model}:{each.candidate} ({each.strategy}, revision {each.revision})" for each in running
    )
    raise NotFound(
        sought + (f"; what runs: {listed}" if listed else ""),
        hint=f"name it by its version, such as {model}:{running[0].candidate}"
        if running
        else f"see what happened: modelwire rollout history {model}",
    )
