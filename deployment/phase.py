"""The phase of a deployment: one word that operators of rollouts know, and a sentence that says why.

The first of these rules that applies decides:

1. Without a champion nobody can be served, and nothing is broken: *Progressing*.
2. *Degraded* is what needs somebody's hand. No instance lives; a live instance has refused a version
   that the revision asks for; a candidate has traffic, and fewer live instances are ready than the
   rollout's minimum; or so many have refused a candidate without traffic that the minimum cannot be
   reached.
3. *Paused* is a rollout that waits for a person: an event says so; or every instance that answers has
   applied the newest revision and nothing moves the rollout by itself. Nothing does where it has no plan
   (a canary that is moved by hand, a blue-green that is ready for its promotion), or where the plan has
   reached its last step and that is below 100 %.
4. *Progressing*: any other rollout, and a fleet where not every live instance answers at the newest
   revision.
5. *Healthy*: no rollout runs, and every live instance answers as the newest revision says. That the
   champion's horizon is over is said beside it: what lies within it is still answered, as in a replay.

Shadows move no traffic and change no phase. A rollout's minimum ends with it: without a rollout, an
instance that has not prepared the champion yet is progress, and one that has refused it is not.
"""

from dataclasses import dataclass
from enum import StrEnum

from deployment.commands import Strategy
from deployment.readiness import (
    ALL,
    Fleet,
    count_ready,
    is_enough,
    is_hopeless,
    is_short,
    least_ready,
    refusals,
)
from deployment.state import Deployment, Rollout


class Phase(StrEnum):
    """Where a deployment stands, in the words of Argo Rollouts."""

    HEALTHY = "Healthy"
    PROGRESSING = "Progressing"
    PAUSED = "Paused"
    DEGRADED = "Degraded"


@dataclass(frozen=True)
class Assessment:
    """A phase and the sentence that says why."""

    phase: Phase
    why: str


def asked_versions(deployment: Deployment) -> tuple[int, ...]:
    """The versions that an instance must have prepared to count as ready.

    The champion, and the candidate of a rollout from its start on: its next revision asks for it.
    """
    if deployment.champion is None:
        return ()
    if deployment.rollout is None:
        return (deployment.champion,)
    return (deployment.champion, deployment.rollout.candidate)


def assess(deployment: Deployment, fleet: Fleet, days_left: int | None) -> Assessment:
    """The phase of the deployment on these live instances.

    ``days_left`` is the fewest days that any of them says its champion can still answer for, negative
    where that is over, None where the champion has no horizon.
    """
    if deployment.champion is None:
        return Assessment(Phase.PROGRESSING, f"{deployment.model} has no champion yet")
    broken = _degraded(deployment, fleet)
    if broken:
        return Assessment(Phase.DEGRADED, broken)
    rollout = deployment.rollout
    behind = _behind(deployment, fleet)
    if rollout is None:
        if behind:
            return Assessment(Phase.PROGRESSING, behind)
        champion = _name(deployment, deployment.champion)
        healthy = f"{champion} answers on {_instances(len(fleet))}{_expiry(days_left)}"
        return Assessment(Phase.HEALTHY, healthy)
    waits = _waits_for_person(deployment, rollout, fleet)
    if waits:
        return Assessment(Phase.PAUSED, waits)
    return Assessment(Phase.PROGRESSING, _progress(deployment, rollout, fleet))


def _degraded(deployment: Deployment, fleet: Fleet) -> str:
    if not fleet:
        return "no instance lives"
    for version in deployment.required():
        fallen = {lack.instance for lack in refusals(fleet, version)}
        if fallen:
            return (
                f"{len(fallen)} of {_instances(len(fleet))} cannot run {_name(deployment, version)}"
            )
    rollout = deployment.rollout
    if rollout is None:
        return ""
    if rollout.weight > 0 and is_short(fleet, deployment.required(), rollout.min_ready):
        return _ready(deployment, rollout, fleet)
    if is_hopeless(fleet, rollout.candidate, rollout.min_ready):
        fallen = {lack.instance for lack in refusals(fleet, rollout.candidate)}
        candidate = _name(deployment, rollout.candidate)
        return f"{len(fallen)} of {_instances(len(fleet))} cannot run {candidate}"
    return ""


def _expiry(days_left: int | None) -> str:
    """What to add where the champion's horizon is over."""
    if days_left is None or days_left >= 0:
        return ""
    ended = "yesterday" if days_left == -1 else f"{-days_left} days ago"
    return f"; its horizon ended {ended}, and it turns down what lies beyond"


def _behind(deployment: Deployment, fleet: Fleet) -> str:
    """What keeps live instances from answering at the newest revision; empty where all do."""
    silent = sum(not instance.answering for instance in fleet)
    if silent:
        return f"waiting for {silent} of {_instances(len(fleet))} to answer"
    return _late(deployment, fleet)


def _late(deployment: Deployment, fleet: Fleet) -> str:
    """How many of those that answer have not applied the newest revision; empty where all have."""
    late = sum(each.answering and each.revision < deployment.revision for each in fleet)
    if not late:
        return ""
    return f"waiting for {late} of {_instances(len(fleet))} to apply revision {deployment.revision}"


def _waits_for_person(deployment: Deployment, rollout: Rollout, fleet: Fleet) -> str:
    """What a person has to do before the rollout goes on; empty where it goes on by itself."""
    candidate = _name(deployment, rollout.candidate)
    share = f"{rollout.weight / 100:g} %"
    if rollout.paused:
        return f"{candidate} stays at {share} until it is resumed"
    if not is_enough(fleet, asked_versions(deployment), rollout.min_ready):
        return ""
    if _late(deployment, fleet):
        return ""
    plan = rollout.plan
    if plan is None:
        if rollout.strategy == Strategy.BLUE_GREEN:
            return f"{candidate} is ready and waits to be promoted"
        return f"{candidate} stays at {share} until its weight is set or it is promoted"
    is_last = rollout.step == len(plan.steps) - 1
    if is_last and rollout.weight < ALL:
        return f"the plan is over and leaves {candidate} at {share}"
    return ""


def _progress(deployment: Deployment, rollout: Rollout, fleet: Fleet) -> str:
    if not is_enough(fleet, asked_versions(deployment), rollout.min_ready):
        return _ready(deployment, rollout, fleet)
    late = _late(deployment, fleet)
    if late:
        return late
    candidate = _name(deployment, rollout.candidate)
    assert rollout.plan is not None, "without a plan it waits for a person"
    steps = len(rollout.plan.steps)
    if rollout.step is None:
        return f"{candidate} is ready for step 1 of {steps}"
    return f"{candidate} answers {rollout.weight / 100:g} %, step {rollout.step + 1} of {steps}"


def _ready(deployment: Deployment, rollout: Rollout, fleet: Fleet) -> str:
    asked = asked_versions(deployment)
    names = " and ".join(_name(deployment, version) for version in asked)
    least = least_ready(len(fleet), rollout.min_ready)
    ready = f"{count_ready(fleet, asked)} of {_instances(len(fleet))}"
    return f"{ready} ready for {names}, at least {least} needed"


def _instances(count: int) -> str:
    return f"{count} live instance" if count == 1 else f"{count} live instances"


def _name(deployment: Deployment, version: int) -> str:
    return f"{deployment.model}:{version}"
