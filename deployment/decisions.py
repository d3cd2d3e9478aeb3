"""The rules: what a command may append to the log, given the deployment it finds.

``decide`` turns a command into events, or into a refusal with a stable code. Rules:

1. **Release** gives a bundle the next ordinal. A digest that was revoked is never released again; one
   that is released already keeps its version. A release may start its own rollout, by rule 2.
2. **Start** puts a released version beside the champion, without traffic. The version may serve and is
   not the champion; of rollouts that move traffic none runs; no more live instances have refused the
   version than the minimum allows. A shadow of the version ends.
   a. *Blue-green* promotes in the same transaction where no champion serves yet, where enough live
      instances are ready, or where the minimum is 0. Otherwise it waits without traffic for its
      promotion, by rule 6.
   b. *Canary* waits at weight 0 for its plan, or for a person. It needs a champion.
   c. *Shadow* scores its share at once. It needs a champion; any number may run, one a version, and
      none of the candidate, whose rollout has a shadow share of its own.
3. **Shift** sets the shares. Traffic grows only where enough live instances have everything prepared
   that the new revision asks for; taking traffic away is always allowed. A step of a plan is carried
   out once, in its order, as the plan says, and not while the plan is paused. A shift by hand pauses a
   plan that runs, so that its next step does not take it back. A shadow never gets traffic, and a
   blue-green rollout gets all of it by its promotion, never a part.
4. **Pause** stops a plan, not the traffic: shares stay as they are.
5. **Resume** lets it go on with the step after the one it reached.
6. **Promote** makes the candidate champion, where enough live instances have it prepared. A shadow of
   the version ends.
7. **Abort** ends a rollout. It is never refused for readiness: the champion is loaded everywhere.
8. **Undo** without a version takes back the latest change of who answers: it aborts a rollout with
   traffic; where none runs, it restores the previous champion. It is refused where that could be
   either of two things: while a rollout without traffic runs, and where the champion came back by an
   undo. With a version, a former champion, it aborts what runs and restores that one, which may be
   cold: each instance goes on with what it has until it is loaded. It is refused where more live
   instances have refused the version than the minimum allows, and where what its giver saw has changed.
9. **Revoke** takes a version out of service for ever. Revoking a candidate aborts its rollout;
   revoking the champion restores the previous one first, and is refused without one. Where the same
   bundle was released once more and may serve, that version is the one to revoke.
10. **Retire** lets consumers drop a version. It is refused while the version serves, is rolled out or
    is shadowed.

A command names the rollout it means by that rollout's revision; one that is over is refused. Every
prefix of a command's events is a state that can be served.
"""

from deployment.commands import (
    Abort,
    Command,
    Pause,
    Promote,
    Refusal,
    Release,
    Resume,
    Retire,
    Revoke,
    Shift,
    Start,
    Strategy,
    Undo,
)
from deployment.readiness import is_enough
from deployment.refusals import (
    name_of,
    refuse_champion_again,
    refuse_over,
    refuse_start,
    refuse_step,
    refuse_traffic,
    refuse_undo,
    refuse_unfit,
    refuse_unknown,
    refuse_unready,
)
from deployment.state import Deployment, Standing
from schemas.events import (
    EventData,
    ModelReleased,
    ModelRestored,
    ModelRetired,
    ModelRevoked,
    PlanStep,
    RolloutAborted,
    RolloutPaused,
    RolloutPromoted,
    RolloutResumed,
    RolloutShifted,
    RolloutStarted,
)

SHADOWING = "shadowing the champion"

Decision = tuple[EventData, ...] | Refusal


def decide(deployment: Deployment, command: Command) -> Decision:
    """The events that the command appends to this deployment's log, or why it may not."""
    match command:
        case Release():
            return _release(deployment, command)
        case Start():
            return _start(deployment, command)
        case Shift():
            return _shift(deployment, command)
        case Pause():
            return _pause(deployment, command)
        case Resume():
            return _resume(deployment, command)
        case Promote():
            return _promote(deployment, command)
        case Abort():
            return _abort_named(deployment, command)
        case Undo():
            return _undo(deployment, command)
        case Revoke():
            return _revoke(deployment, command)
        case Retire():
            return _retire(deployment, command)


# --- releases


def _release(deployment: Deployment, command: Release) -> Decision:
    for release in deployment.releases.values():
        name = name_of(deployment, release.version)
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
    start = Start(
        version,
        command.start,
        command.salt,
        command.reason,
        command.plan,
        command.min_ready,
        command.share,
        command.fleet,
    )
    refused = refuse_start(deployment, start)
    if refused is not None:
        return refused
    return (released, *_launch(deployment, start, deployment.revision + 2))


def _revoke(deployment: Deployment, command: Revoke) -> Decision:
    version = command.version
    release = deployment.releases.get(version)
    if release is None:
        return refuse_unknown(deployment, version)
    if release.standing is Standing.REVOKED:
        return Refusal(
            "already-revoked", f"{name_of(deployment, version)} is revoked already", "nothing to do"
        )
    for other in deployment.releases.values():
        if other.may_serve and other.version != version and other.digest == release.digest:
            name = name_of(deployment, other.version)
            return Refusal(
                "released-again",
                f"the bundle of {name_of(deployment, version)} may serve as {name}",
                f"revoke that one: modelwire release revoke {name}",
            )
    revoked = ModelRevoked(version, command.reason)
    shadows = _end_shadows(deployment, version, command.reason)
    if deployment.rollout is not None and deployment.rollout.candidate == version:
        return (*shadows, *_abort(deployment, command.reason), revoked)
    if version != deployment.champion:
        return (*shadows, revoked)
    if deployment.previous is None:
        return Refusal(
            "no-previous",
            f"{name_of(deployment, version)} is the champion and no previous one can replace it",
            "roll out another version first, then revoke this one",
        )
    return (*shadows, *_restore(deployment, deployment.previous, version, command.reason), revoked)


def _retire(deployment: Deployment, command: Retire) -> Decision:
    version = command.version
    unfit = refuse_unfit(deployment, version)
    if unfit is not None:
        return unfit
    role = _role(deployment, version)
    if role:
        return Refusal(
            "in-service",
            f"{name_of(deployment, version)} is {role}",
            f"end that shadow: modelwire rollout abort {name_of(deployment, version)}"
            if role == SHADOWING
            else "retire it when another version has taken its place",
        )
    return (ModelRetired(version, command.reason),)


def _role(deployment: Deployment, version: int) -> str:
    if version == deployment.champion:
        return "the champion"
    if deployment.rollout is not None and version == deployment.rollout.candidate:
        return "being rolled out"
    return SHADOWING if deployment.shadows_of(version) else ""


# --- starting


def _start(deployment: Deployment, command: Start) -> Decision:
    refused = refuse_unfit(deployment, command.version)
    if refused is None and command.version == deployment.champion:
        refused = refuse_champion_again(deployment, command.version)
    if refused is None:
        refused = refuse_start(deployment, command)
    if refused is not None:
        return refused
    ended: tuple[EventData, ...] = ()
    if command.strategy is not Strategy.SHADOW:
        ended = _end_shadows(deployment, command.version, command.reason)
    return (*ended, *_launch(deployment, command, deployment.revision + len(ended) + 1))


def _launch(deployment: Deployment, command: Start, revision: int) -> tuple[EventData, ...]:
    """The events of a start that is allowed; the first of them gets ``revision``."""
    started = RolloutStarted(
        command.version,
        command.strategy.value,
        command.salt,
        command.reason,
        command.plan,
        command.min_ready,
    )
    if command.strategy is Strategy.SHADOW:
        shifted = RolloutShifted(revision, weight=0, shadow=command.share, reason=command.reason)
        return (started, shifted)
    if command.strategy is Strategy.CANARY:
        return (started,)
    if deployment.champion is None or is_enough(
        command.fleet, (command.version,), command.min_ready
    ):
        return (started, RolloutPromoted(revision, command.version, command.reason))
    return (started,)


# --- while a rollout runs


def _shift(deployment: Deployment, command: Shift) -> Decision:
    rollout = deployment.running(command.rollout)
    if rollout is None:
        return refuse_over(deployment, command.rollout)
    weight = rollout.weight if command.weight is None else command.weight
    shadow = rollout.shadow if command.shadow is None else command.shadow
    if command.step is not None:
        said = PlanStep(weight, shadow)
        wrong = refuse_step(deployment, rollout, command.step, said)
        if wrong is not None:
            return wrong
    elif (weight, shadow) == (rollout.weight, rollout.shadow):
        return Refusal(
            "already-there",
            f"rollout {rollout.revision} answers {weight / 100:g} % and shadows {shadow / 100:g} % "
            "already",
            "nothing to do",
        )
    if weight > rollout.weight:
        refused = refuse_traffic(deployment, rollout, command.fleet)
        if refused is not None:
            return refused
    shifted = RolloutShifted(rollout.revision, weight, shadow, command.reason, command.step)
    if command.step is None and rollout.plan is not None and not rollout.paused:
        return (shifted, RolloutPaused(rollout.revision, "moved by hand"))
    return (shifted,)


def _pause(deployment: Deployment, command: Pause) -> Decision:
    rollout = deployment.running(command.rollout)
    if rollout is None:
        return refuse_over(deployment, command.rollout)
    if rollout.paused:
        return Refusal(
            "already-paused",
            f"rollout {rollout.revision} is paused already",
            f"let it go on: modelwire rollout resume {deployment.model}",
        )
    if command.step is not None:
        wrong = refuse_step(deployment, rollout, command.step, PlanStep(pause=True))
        if wrong is not None:
            return wrong
    return (RolloutPaused(rollout.revision, command.reason, command.step),)


def _resume(deployment: Deployment, command: Resume) -> Decision:
    rollout = deployment.running(command.rollout)
    if rollout is None:
        return refuse_over(deployment, command.rollout)
    if not rollout.paused:
        return Refusal(
            "not-paused",
            f"rollout {rollout.revision} is not paused",
            "nothing to do; to carry out its plan: modelwire rollout run " + deployment.model,
        )
    return (RolloutResumed(rollout.revision, command.reason),)


def _promote(deployment: Deployment, command: Promote) -> Decision:
    rollout = deployment.running(command.rollout)
    if rollout is None:
        return refuse_over(deployment, command.rollout)
    if rollout.is_shadow:
        name = name_of(deployment, rollout.candidate)
        return Refusal(
            "shadow-has-no-traffic",
            f"rollout {rollout.revision} is a shadow, and becomes no champion",
            f"roll it out: modelwire rollout start {name} --strategy canary",
        )
    unready = refuse_unready(deployment, rollout, command.fleet, (rollout.candidate,))
    if unready is not None:
        return unready
    return (
        *_end_shadows(deployment, rollout.candidate, command.reason),
        RolloutPromoted(rollout.revision, rollout.candidate, command.reason),
    )


def _abort_named(deployment: Deployment, command: Abort) -> Decision:
    if deployment.running(command.rollout) is None:
        return refuse_over(deployment, command.rollout)
    return (RolloutAborted(command.rollout, command.reason),)


# --- back


def _undo(deployment: Deployment, command: Undo) -> Decision:
    refused = refuse_undo(deployment, command)
    if refused is not None:
        return refused
    if command.to is None and deployment.rollout is not None:
        return _abort(deployment, command.reason)
    target = deployment.previous if command.to is None else command.to
    assert target is not None
    assert deployment.champion is not None
    return _restore(deployment, target, deployment.champion, command.reason)


def _restore(
    deployment: Deployment, version: int, replaced: int, reason: str
) -> tuple[EventData, ...]:
    return (
        *_abort(deployment, reason),
        *_end_shadows(deployment, version, reason),
        ModelRestored(version, replaced, reason),
    )


def _abort(deployment: Deployment, reason: str) -> tuple[EventData, ...]:
    if deployment.rollout is None:
        return ()
    return (RolloutAborted(deployment.rollout.revision, reason),)


def _end_shadows(deployment: Deployment, version: int, reason: str) -> tuple[EventData, ...]:
    shadows = deployment.shadows_of(version)
    return tuple(RolloutAborted(shadow.revision, reason) for shadow in shadows)
