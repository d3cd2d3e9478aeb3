"""Rollouts: traffic moves to a version, and back.

A command that needs the fleet's agreement reads the fleet just before it is given, and carries what it
read; the rule itself is in ``deployment.decisions``. People name a rollout by its model, or by the
version where shadows run as well; the command that is given names it by its revision.
"""

import time
from dataclasses import dataclass, replace

from adapters.control_log import read_log
from adapters.fleet_topic import live_instances, read_fleet
from adapters.settings import Settings
from deployment.commands import (
    Abort,
    Pause,
    Promote,
    Resume,
    Shift,
    Start,
    Strategy,
    Undo,
)
from deployment.readiness import Fleet, Lack, is_enough, lacks, least_ready, refusals
from deployment.state import Deployment, Rollout
from publisher.commands import Appended, fresh_salt, give
from publisher.controller import Controller, quietly
from publisher.naming import VersionName
from schemas.errors import NotFound, RefusedByRule, UsageProblem
from schemas.events import ModelRestored, Plan, RolloutStarted

LOOK_SECONDS = 0.3
"""Between two looks at a fleet that is not ready yet."""


@dataclass(frozen=True)
class Target:
    """A rollout as people name it: its model, its candidate where that is said, its revision likewise."""

    model: str
    version: int | None = None
    revision: int | None = None


@dataclass(frozen=True)
class Launch:
    """How a version is rolled out; see ``deployment.commands.Start``. ``wait_seconds`` is how long a
    blue-green start waits for the fleet."""

    strategy: Strategy
    plan: Plan | None = None
    min_ready: int = 10_000
    share: int = 10_000
    wait_seconds: float = 60.0


@dataclass(frozen=True)
class Undone:
    """What an undo added, and the live instances that load the version first."""

    appended: Appended
    cold: tuple[Lack, ...]


def live_fleet(settings: Settings, model: str) -> Fleet:
    """The model's live instances, as of now."""
    return live_instances(read_fleet(settings, model))


def start(settings: Settings, named: VersionName, launch: Launch, reason: str) -> Appended:
    """Rolls out a released version; a blue-green start returns when it is promoted.

    Raises RefusedByRule with a line for each instance that is not ready.
    """
    command = Start(
        named.version,
        launch.strategy,
        fresh_salt(),
        reason,
        launch.plan,
        launch.min_ready,
        launch.share,
        live_fleet(settings, named.model),
    )
    return finish_start(settings, give(settings, named.model, command), launch)


def finish_start(settings: Settings, started: Appended, launch: Launch) -> Appended:
    """What a start of this strategy still has to do: a blue-green one is promoted once all are ready."""
    if launch.strategy is not Strategy.BLUE_GREEN:
        return started
    revisions = [r.event.revision for r in started.events if isinstance(r.data, RolloutStarted)]
    deployment = read_log(settings, started.model).deployment
    rollout = deployment.running(revisions[-1])
    if rollout is None:
        return started
    controller = Controller(settings, started.model, rollout, quietly)
    controller.run(launch.wait_seconds, is_hopeless=lambda fleet: _is_hopeless(rollout, fleet))
    promoted = controller.appended
    if not promoted:
        raise _not_promoted(settings, started.model, rollout, launch.wait_seconds)
    seconds = started.seconds + sum(each.seconds for each in promoted)
    events = [*started.events, *(event for each in promoted for event in each.events)]
    return replace(started, events=tuple(events), seconds=seconds)


def _is_hopeless(rollout: Rollout, fleet: Fleet) -> bool:
    fallen = {lack.instance for lack in refusals(fleet, rollout.candidate)}
    return len(fleet) - len(fallen) < least_ready(len(fleet), rollout.min_ready)


def _not_promoted(settings: Settings, model: str, rollout: Rollout, waited: float) -> RefusedByRule:
    deployment, fleet = read_log(settings, model).deployment, live_fleet(settings, model)
    asked = [version for version in (deployment.champion, rollout.candidate) if version is not None]
    return RefusedByRule(
        f"[fleet-not-ready] {model}:{rollout.candidate} got no traffic: not enough live instances "
        f"have it prepared (waited up to {waited:g} s)",
        hint=f"mend what they say, then: modelwire rollout promote {model}; or give it up: "
        f"modelwire rollout abort {model}",
        details=tuple(map(str, lacks(fleet, asked))),
    )


def set_weight(
    settings: Settings, target: Target, weight: int, reason: str, wait: float
) -> Appended:
    """Sets the traffic of a rollout by hand, in basis points; more of it waits for the fleet."""
    rollout = find_rollout(settings, target)
    champion = read_log(settings, target.model).deployment.champion
    asked = tuple(each for each in (champion, rollout.candidate) if each is not None)
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
    deadline = time.monotonic() + wait
    while True:
        fleet = live_fleet(settings, model)
        is_over = is_enough(fleet, asked, rollout.min_ready) or _is_hopeless(rollout, fleet)
        if is_over or time.monotonic() >= deadline:
            return fleet
        time.sleep(LOOK_SECONDS)


def abort(settings: Settings, target: Target, reason: str) -> Appended:
    """Ends a rollout."""
    return give(settings, target.model, Abort(find_rollout(settings, target).revision, reason))


def undo(settings: Settings, model: str, to: int | None, reason: str) -> Undone:
    """Takes back the latest change of who answers, or brings back the version ``to``.

    "The previous" means another version at each revision: two people who undo the same rollout at once
    would bring it back. So without ``to`` the undo holds only at the revision that is read here first.
    """
    seen = None if to is not None else read_log(settings, model).deployment.revision
    fleet = () if to is None else live_fleet(settings, model)
    appended = give(settings, model, Undo(to, reason, fleet), seen=seen)
    restored = [each.data for each in appended.events if isinstance(each.data, ModelRestored)]
    if not restored:
        return Undone(appended, ())
    # An undo does not wait for a look at the fleet; whoever has loaded it meanwhile is not cold.
    return Undone(appended, lacks(fleet or live_fleet(settings, model), (restored[0].version,)))


def find_rollout(settings: Settings, target: Target) -> Rollout:
    """The rollout that runs under this name. Raises NotFound, or UsageProblem where several do."""
    deployment = read_log(settings, target.model).deployment
    found = _candidates(deployment, target)
    if len(found) == 1:
        return found[0]
    listed = ", ".join(
        f"{target.model}:{each.candidate} ({each.strategy}, revision {each.revision})"
        for each in _running(deployment)
    )
    if found:
        raise UsageProblem(
            f"several rollouts of {target.model} run: {listed}", hint="name one by its version"
        )
    named = target.model if target.version is None else f"{target.model}:{target.version}"
    raise NotFound(
        f"no rollout of {named} runs" + (f"; what runs: {listed}" if listed else ""),
        hint=f"see what happened: modelwire rollout history {target.model}",
    )


def _candidates(deployment: Deployment, target: Target) -> list[Rollout]:
    """Those that the name may mean: without a version the one that moves traffic comes first."""
    found = [
        each
        for each in _running(deployment)
        if target.version in (None, each.candidate) and target.revision in (None, each.revision)
    ]
    if target.version is None and deployment.rollout in found:
        return [each for each in found if not each.is_shadow]
    return found


def _running(deployment: Deployment) -> list[Rollout]:
    moving = [] if deployment.rollout is None else [deployment.rollout]
    return [*moving, *deployment.shadows.values()]
