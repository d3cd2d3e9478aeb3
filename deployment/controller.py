"""The controller: what a rollout's plan does next, as a function of the log, the fleet and the time.

All of a plan's state is the log, so whoever asks next, after a kill at any point, gets the same move;
and of two who ask at once the slower one's append is refused. In this order:

1. A rollout that does not run any more is over, and one without a plan is a person's business.
2. The guard comes first, also while the plan is paused: the candidate (or its shadow) was rejected
   ``least`` times or more, at ``factor`` times the champion's rate or more: abort. There is no rate
   of a champion that has answered fewer than ``least`` requests under this rollout. So does it where
   instances ended without saying goodbye ``crashes`` times while the rollout ran.
3. Too few ready instances, while the candidate has traffic, for longer than the patience: abort, so
   that the champion does not suffer. Until then the plan stands still.
4. A paused plan waits for a person. Who resumes says that the step is over.
5. A step is over when every live instance that answers has applied it, and its hold has passed since
   the step's event.
6. Then the analysis is asked. *Proceed*: the next step. *Hold*: the plan pauses, for a person.
   *Roll back*: abort, for which a step need not be over.
7. Shares grow only where enough live instances are ready, and one at least lives; else it waits.
8. After the last step: at a weight of 100 % the candidate is promoted; at another one the rollout
   stays as it is. A blue-green rollout has no steps: it is promoted as soon as enough are ready.
"""

import math
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from deployment import readiness
from deployment.commands import Abort, Command, Pause, Promote, Shift, Strategy
from deployment.plans import ANALYSES
from deployment.readiness import ALL, Fleet, count_ready, is_enough, least_ready
from deployment.state import Deployment, Rollout
from schemas.events import Guard, PlanStep
from schemas.forecast import Variant


class Verdict(StrEnum):
    """What an analysis says of a step."""

    PROCEED = "proceed"
    HOLD = "hold"
    ROLL_BACK = "roll-back"


@dataclass(frozen=True)
class Judgement:
    """A verdict, and why in a sentence for people."""

    verdict: Verdict
    reason: str


class Analysis(Protocol):
    """Judges the step that a rollout is in. Pure: it sees what the controller sees."""

    def judge(self, rollout: Rollout, fleet: Fleet) -> Judgement:
        """What to do after the step, or at once for a roll back."""
        ...


class FixedTime:
    """A step is good when its time is over."""

    def judge(self, rollout: Rollout, fleet: Fleet) -> Judgement:
        """Always proceeds."""
        return Judgement(Verdict.PROCEED, "the step's time is over")


class Manual:
    """A person looks at every step."""

    def judge(self, rollout: Rollout, fleet: Fleet) -> Judgement:
        """Always holds."""
        return Judgement(Verdict.HOLD, "a person looks at every step of this plan")


_JUDGES: tuple[Analysis, ...] = (FixedTime(), Manual())
_ANALYSES = dict(zip(ANALYSES, _JUDGES, strict=True))


class Outcome(StrEnum):
    """How a plan ended."""

    PROMOTED = "promoted"
    ABORTED = "aborted"
    STAYS = "stays"
    """Nothing is left to do, and the rollout runs on: a person decides."""


@dataclass(frozen=True)
class Give:
    """Append this command."""

    command: Command


@dataclass(frozen=True)
class Wait:
    """Look again after ``seconds`` at the latest, or when something changed."""

    why: str
    seconds: float


@dataclass(frozen=True)
class Over:
    """Nothing is left to do."""

    outcome: Outcome
    why: str


Move = Give | Wait | Over

LOOK_SECONDS = 1.0
"""How soon to look again where the time is not known: instances announce themselves this often."""


@dataclass(frozen=True)
class Scene:
    """What the controller sees: the newest state read, the live instances, the time (with its zone),
    for how many seconds it has seen too few of them ready without a break, and how often instances
    ended without saying goodbye while this rollout ran. An infinite patience never aborts."""

    deployment: Deployment
    fleet: Fleet
    now: datetime
    unready_seconds: float
    patience_seconds: float
    crashes: int = 0


def next_move(scene: Scene, started: Rollout) -> Move:
    """What to do for the rollout ``started`` (any state of it: its revision and candidate count)."""
    rollout = scene.deployment.running(started.revision)
    if rollout is None:
        return _ended(scene.deployment, started)
    if rollout.strategy == Strategy.BLUE_GREEN:
        if rollout.paused:
            return Over(
                Outcome.STAYS, f"rollout {rollout.revision} is paused: a person has it in hand"
            )
        return _promote(scene, rollout)
    if rollout.plan is None:
        return Over(Outcome.STAYS, f"rollout {rollout.revision} has no plan: a person moves it")
    breach = find_breach(rollout, scene, rollout.plan.guard)
    if breach:
        return Give(Abort(rollout.revision, f"guard: {breach}"))
    if is_short(scene.deployment, scene.fleet):
        return _fall_short(scene, rollout)
    if rollout.paused:
        model = scene.deployment.model
        return Wait(f"paused; go on with: modelwire rollout resume {model}", LOOK_SECONDS)
    # An analysis that this version does not know was written by a later one: a person judges.
    analysis = _ANALYSES.get(rollout.plan.analysis, Manual())
    return _after_step(scene, rollout, rollout.plan.steps, analysis)


def is_short(deployment: Deployment, fleet: Fleet) -> bool:
    """Whether a candidate has traffic and too few live instances can serve what the log asks for."""
    rollout = deployment.rollout
    if rollout is None or rollout.weight == 0:
        return False
    return readiness.is_short(fleet, deployment.required(), rollout.min_ready)


def shortage(deployment: Deployment, fleet: Fleet) -> str:
    """How many are ready, in words, for a reason in the log."""
    rollout = deployment.rollout
    assert rollout is not None
    asked = deployment.required()
    return (
        f"{count_ready(fleet, asked)} of {len(fleet)} live instances are ready for versions "
        f"{' and '.join(map(str, asked))}, and "
        f"{max(1, least_ready(len(fleet), rollout.min_ready))} must be"
    )


def find_breach(rollout: Rollout, scene: Scene, guard: Guard) -> str:
    """What the guard objects to, in words; empty where it does not."""
    if scene.crashes >= guard.crashes:
        return f"instances ended without saying goodbye {scene.crashes} times under this rollout"
    answered = dict.fromkeys(Variant, 0)
    rejected = dict.fromkeys(Variant, 0)
    for instance in scene.fleet:
        for tally in instance.tallies:
            if tally.rollout == rollout.revision and tally.variant in answered:
                answered[Variant(tally.variant)] += tally.answered
                rejected[Variant(tally.variant)] += tally.rejected
    if answered[Variant.CHAMPION] + rejected[Variant.CHAMPION] < guard.least:
        return ""
    usual = _rate(answered[Variant.CHAMPION], rejected[Variant.CHAMPION])
    for variant in (Variant.CANDIDATE, Variant.SHADOW):
        rate = _rate(answered[variant], rejected[variant])
        if rejected[variant] >= guard.least and rate >= guard.factor * usual and rate > usual:
            return (
                f"the {variant} rejected {rejected[variant]:,} of "
                f"{answered[variant] + rejected[variant]:,} requests ({rate:.2%}), "
                f"the champion {usual:.2%}"
            )
    return ""


def _after_step(
    scene: Scene, rollout: Rollout, steps: tuple[PlanStep, ...], analysis: Analysis
) -> Move:
    if rollout.step is not None and rollout.step < len(steps):
        step = steps[rollout.step]
        judgement = analysis.judge(rollout, scene.fleet)
        if judgement.verdict is Verdict.ROLL_BACK:
            return Give(Abort(rollout.revision, f"analysis: {judgement.reason}"))
        waiting = _in_step(scene, rollout, step)
        if waiting is not None:
            return waiting
        is_approved = step.pause or rollout.resumed == rollout.step
        if judgement.verdict is Verdict.HOLD and not is_approved:
            return Give(Pause(rollout.revision, f"analysis: {judgement.reason}"))
    following = 0 if rollout.step is None else rollout.step + 1
    if following < len(steps):
        return _take_step(scene, rollout, following, steps[following])
    if rollout.weight == ALL:
        return _promote(scene, rollout)
    return Over(
        Outcome.STAYS,
        f"the plan is at its end, and the candidate has {rollout.weight / 100:g} % of the traffic; "
        f"promote or abort it by hand",
    )


def _in_step(scene: Scene, rollout: Rollout, step: PlanStep) -> Wait | None:
    """What the step still waits for; nothing where a person resumed the plan at it."""
    if step.pause or rollout.resumed == rollout.step:
        return None
    answering = [instance for instance in scene.fleet if instance.answering]
    behind = [each.name for each in answering if each.revision < rollout.shifted]
    if behind or not answering:
        who = ", ".join(behind) or "any instance that answers"
        return Wait(f"waiting for {who} to apply revision {rollout.shifted}", LOOK_SECONDS)
    left = step.hold_seconds - (scene.now - rollout.since).total_seconds()
    return Wait(f"the step's time is not over: {left:.0f} s left", left) if left > 0 else None


def _take_step(scene: Scene, rollout: Rollout, number: int, step: PlanStep) -> Move:
    reason = f"step {number + 1} of the plan"
    if step.pause:
        return Give(Pause(rollout.revision, reason, number))
    grows = step.weight > rollout.weight or step.shadow > rollout.shadow
    waiting = _unready(scene, rollout) if grows else None
    if waiting is not None:
        return waiting
    return Give(Shift(rollout.revision, step.weight, step.shadow, scene.fleet, reason, number))


def _promote(scene: Scene, rollout: Rollout) -> Move:
    return _unready(scene, rollout) or Give(
        Promote(rollout.revision, scene.fleet, "the plan is done")
    )


def _unready(scene: Scene, rollout: Rollout) -> Wait | None:
    """What keeps the candidate from more traffic."""
    champion = scene.deployment.champion
    asked = (rollout.candidate,) if champion is None else (champion, rollout.candidate)
    if scene.fleet and is_enough(scene.fleet, asked, rollout.min_ready):
        return None
    ready, live = count_ready(scene.fleet, asked), len(scene.fleet)
    return Wait(f"{ready} of {live} live instances are ready", LOOK_SECONDS)


def _fall_short(scene: Scene, rollout: Rollout) -> Move:
    said = shortage(scene.deployment, scene.fleet)
    left = scene.patience_seconds - scene.unready_seconds
    if left <= 0:
        return Give(Abort(rollout.revision, f"guard: {said} for {scene.patience_seconds:g} s"))
    until = "" if math.isinf(left) else f"; aborting in {left:.0f} s"
    return Wait(said + until, min(left, LOOK_SECONDS))


def _ended(deployment: Deployment, started: Rollout) -> Over:
    name = f"{deployment.model}:{started.candidate}"
    if deployment.champion == started.candidate:
        return Over(Outcome.PROMOTED, f"{name} is the champion")
    return Over(Outcome.ABORTED, f"rollout {started.revision} of {name} was ended")


def _rate(answered: int, rejected: int) -> float:
    return rejected / (answered + rejected) if rejected else 0.0
