"""How the rules say no: each refusal's code, its sentence, and what would make the command allowed.

The rules themselves are listed in ``decisions``, which asks here. Codes are stable, since programs look
at them; sentences are for people.
"""

from collections.abc import Collection

from deployment.commands import Refusal, Seen, Start, Strategy, Undo
from deployment.readiness import (
    Fleet,
    count_ready,
    is_enough,
    is_hopeless,
    lacks,
    least_ready,
    refusals,
)
from deployment.state import Deployment, Rollout
from schemas.events import PlanStep


def refuse_start(deployment: Deployment, command: Start) -> Refusal | None:
    """Why the version, which may serve, cannot be started like this."""
    name = name_of(deployment, command.version)
    if command.plan is not None and command.strategy is not Strategy.CANARY:
        return Refusal(
            "plan-without-canary",
            f"a {command.strategy} rollout has no plan",
            "leave the plan out, or start a canary",
        )
    if command.strategy is Strategy.SHADOW:
        if deployment.shadows_of(command.version):
            return Refusal(
                "already-shadowed",
                f"{name} shadows the champion already",
                f"set its share: modelwire rollout set shadow {name} SHARE",
            )
        if deployment.rollout is not None and deployment.rollout.candidate == command.version:
            return Refusal(
                "being-rolled-out",
                f"{name} is the candidate of rollout {deployment.rollout.revision}",
                f"set that rollout's shadow share: modelwire rollout set shadow {name} SHARE",
            )
    elif deployment.rollout is not None:
        return refuse_second_rollout(deployment)
    if command.strategy is not Strategy.BLUE_GREEN and deployment.champion is None:
        return refuse_without_champion(deployment, command.version)
    return refuse_hopeless(
        deployment,
        command.fleet,
        command.version,
        command.min_ready,
        "mend what they say, or release another bundle",
    )


def refuse_hopeless(
    deployment: Deployment, fleet: Fleet, version: int, min_ready: int, remedy: str
) -> Refusal | None:
    """Why the version cannot serve: too many live instances have refused it."""
    if not is_hopeless(fleet, version, min_ready):
        return None
    fallen = refusals(fleet, version)
    return Refusal(
        "fleet-refused",
        f"{len(fallen)} of {len(fleet)} live instances cannot run {name_of(deployment, version)}",
        remedy,
        fallen,
    )


def refuse_traffic(deployment: Deployment, rollout: Rollout, fleet: Fleet) -> Refusal | None:
    """Why the candidate may not answer more than it does."""
    name = name_of(deployment, rollout.candidate)
    if rollout.is_shadow:
        return Refusal(
            "shadow-has-no-traffic",
            f"rollout {rollout.revision} is a shadow",
            f"start a canary: modelwire rollout start {name} --strategy canary",
        )
    if rollout.strategy == Strategy.BLUE_GREEN:
        return Refusal(
            "blue-green-is-whole",
            f"rollout {rollout.revision} is blue-green: it moves all traffic at once",
            f"promote it: modelwire rollout promote {deployment.model}; "
            "or abort it and start a canary",
        )
    if deployment.champion is None:
        return Refusal(
            "no-champion",
            f"{deployment.model} has no champion to share its traffic with {name}",
            f"promote it: modelwire rollout promote {deployment.model}",
        )
    return refuse_unready(deployment, rollout, fleet, (deployment.champion, rollout.candidate))


def refuse_unready(
    deployment: Deployment, rollout: Rollout, fleet: Fleet, versions: Collection[int]
) -> Refusal | None:
    """Why the fleet may not be asked to serve ``versions``, by the rollout's own minimum."""
    if is_enough(fleet, versions, rollout.min_ready):
        return None
    if not fleet:
        return Refusal(
            "nobody-lives",
            f"no instance of {deployment.model} has announced itself lately",
            f"start one: modelwire consume --model {deployment.model}; or see why they are silent; "
            "or start the rollout with --min-ready 0",
        )
    asked = ", ".join(name_of(deployment, version) for version in versions)
    least = least_ready(len(fleet), rollout.min_ready)
    return Refusal(
        "fleet-not-ready",
        f"{count_ready(fleet, versions)} of {len(fleet)} live instances have {asked} prepared, "
        f"and {least} must",
        f"mend what they say and try again, or give it up: modelwire rollout abort {deployment.model}",
        lacks(fleet, versions),
    )


def refuse_step(
    deployment: Deployment, rollout: Rollout, step: int, said: PlanStep
) -> Refusal | None:
    """A plan's steps are carried out once each, in their order, and as the plan says."""
    following = 0 if rollout.step is None else rollout.step + 1
    steps = () if rollout.plan is None else rollout.plan.steps
    if rollout.paused:
        return Refusal(
            "paused",
            f"rollout {rollout.revision} is paused",
            f"let it go on: modelwire rollout resume {deployment.model}",
        )
    if step != following or step >= len(steps):
        return Refusal(
            "not-the-next-step",
            f"step {step + 1} of {len(steps)} is not the next one of rollout {rollout.revision}; "
            f"it has reached step {following}",
            "another controller was faster; look at the rollout again",
        )
    planned = steps[step]
    shares = (said.weight, said.shadow) == (planned.weight, planned.shadow)
    if said.pause != planned.pause or not (shares or said.pause):
        return Refusal(
            "not-in-the-plan",
            f"step {step + 1} of rollout {rollout.revision} says something else",
            f"move it by hand: modelwire rollout set weight {deployment.model} SHARE",
        )
    return None


def refuse_undo(deployment: Deployment, command: Undo) -> Refusal | None:
    """Why the latest change cannot be taken back."""
    model, rollout, champion = deployment.model, deployment.rollout, deployment.champion
    seen = Seen(champion, None if rollout is None else rollout.revision)
    if command.seen not in (None, seen):
        return Refusal(
            "changed-meanwhile",
            f"who answers for {model} was changed while this undo was on its way",
            f"look what changed, then decide anew: modelwire rollout history {model}",
        )
    if command.to is not None:
        return refuse_return(deployment, command)
    if rollout is not None and rollout.weight > 0:
        return None
    if champion is None:
        return Refusal(
            "no-champion",
            f"{model} has no champion, so there is nothing to undo",
            "roll a version out first",
        )
    if deployment.previous is None and rollout is None:
        return Refusal(
            "no-previous",
            f"{model} has no previous champion that may serve",
            f"name a version: modelwire rollout undo {model} --to VERSION",
        )
    back = f"modelwire rollout undo {model} --to {deployment.previous or 'VERSION'}"
    if rollout is not None:
        candidate = name_of(deployment, rollout.candidate)
        return Refusal(
            "rollout-idle",
            f"the rollout of {candidate} (revision {rollout.revision}) has no traffic to take back, and "
            f"{name_of(deployment, champion)} is the champion",
            f"end the rollout: modelwire rollout abort {model}; or bring a champion back: {back}",
        )
    if deployment.was_restored:
        return Refusal(
            "undone-already",
            f"{name_of(deployment, champion)} came back by an undo; undoing that would bring back "
            f"{model}:{deployment.previous}",
            f"if that is what you want: {back}",
        )
    return None


def refuse_return(deployment: Deployment, command: Undo) -> Refusal | None:
    """Why the version that an undo names cannot come back."""
    version = command.to
    assert version is not None
    unfit = refuse_unfit(deployment, version)
    if unfit is not None:
        return unfit
    if version == deployment.champion:
        return refuse_champion_again(deployment, version)
    if version not in deployment.crowned:
        name = name_of(deployment, version)
        return Refusal(
            "never-champion",
            f"{name} has never been champion, so there is no way back to it",
            f"roll it out: modelwire rollout start {name} --strategy blue-green",
        )
    return refuse_hopeless(
        deployment,
        command.fleet,
        version,
        command.min_ready,
        f"name another version, or go without them: modelwire rollout undo {deployment.model} "
        f"--to {version} --min-ready 0",
    )


def refuse_unfit(deployment: Deployment, version: int) -> Refusal | None:
    """Why the version may not serve."""
    release = deployment.releases.get(version)
    if release is None:
        return refuse_unknown(deployment, version)
    if release.may_serve:
        return None
    return Refusal(
        f"version-{release.standing}",
        f"{name_of(deployment, version)} is {release.standing} and may not serve again",
        f"name a version that is released: modelwire release list {deployment.model}",
    )


def refuse_unknown(deployment: Deployment, version: int) -> Refusal:
    """The version was never released."""
    return Refusal(
        "unknown-version",
        f"{name_of(deployment, version)} was never released",
        "see the released versions: modelwire release list " + deployment.model,
    )


def refuse_over(deployment: Deployment, rollout: int) -> Refusal:
    """The rollout that the command means is over, or never was."""
    return Refusal(
        "rollout-over",
        f"rollout {rollout} of {deployment.model} does not run",
        f"see what does: modelwire rollout status {deployment.model}",
    )


def refuse_second_rollout(deployment: Deployment) -> Refusal:
    """One that moves traffic runs already."""
    assert deployment.rollout is not None
    candidate = name_of(deployment, deployment.rollout.candidate)
    return Refusal(
        "rollout-running",
        f"the rollout of {candidate} (revision {deployment.rollout.revision}) is not over",
        f"promote or abort it first: modelwire rollout abort {deployment.model}",
    )


def refuse_without_champion(deployment: Deployment, version: int) -> Refusal:
    """The version has nothing to stand beside."""
    name = name_of(deployment, version)
    return Refusal(
        "no-champion",
        f"{deployment.model} has no champion for {name} to stand beside",
        f"make it the first one: modelwire rollout start {name} --strategy blue-green",
    )


def refuse_champion_again(deployment: Deployment, version: int) -> Refusal:
    """The version answers already."""
    return Refusal(
        "already-champion",
        f"{name_of(deployment, version)} is the champion already",
        "nothing to do",
    )


def name_of(deployment: Deployment, version: int) -> str:
    """As people name a version: ``sales:12``."""
    return f"{deployment.model}:{version}"
