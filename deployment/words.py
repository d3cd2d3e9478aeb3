"""Events and shares as sentences say them, wherever people read of them."""

from deployment.readiness import ALL
from deployment.state import short_hash
from schemas.events import (
    ModelReleased,
    ModelRestored,
    ModelRetired,
    ModelRevoked,
    Recorded,
    RolloutAborted,
    RolloutPaused,
    RolloutPromoted,
    RolloutResumed,
    RolloutShifted,
    RolloutStarted,
)


def percent(basis_points: int) -> str:
    """``12.5 %`` for 1,250."""
    return f"{basis_points / 100:g} %"


def what_happened(model: str, recorded: Recorded) -> str:
    """One event as a sentence without its end, for the history."""
    match recorded.data:
        case ModelReleased(version=version, digest=digest):
            return f"released {model}:{version} ({short_hash(digest)})"
        case ModelRevoked(version=version):
            return f"revoked {model}:{version}"
        case ModelRetired(version=version):
            return f"retired {model}:{version}"
        case RolloutStarted(candidate=version, strategy=strategy) as started:
            return f"started a {strategy} rollout of {model}:{version}{_terms(started)}"
        case RolloutShifted() as shifted:
            return f"rollout {shifted.rollout} {shares_text(shifted)}{at_step(shifted.step)}"
        case RolloutPaused(rollout=rollout, step=step):
            return f"paused rollout {rollout}{at_step(step)}"
        case RolloutResumed(rollout=rollout):
            return f"resumed rollout {rollout}"
        case RolloutPromoted(version=version):
            return f"made {model}:{version} champion"
        case RolloutAborted(rollout=rollout):
            return f"aborted rollout {rollout}"
        case ModelRestored(version=version, replaced=replaced):
            return f"restored {model}:{version} in place of {model}:{replaced}"
        case _:
            return f"{recorded.event.type} (this modelwire does not know it)"


def _terms(started: RolloutStarted) -> str:
    """What the rollout was started with, in brackets; nothing where all is as usual."""
    terms = []
    if started.plan is not None:
        count = len(started.plan.steps)
        terms.append(f"a plan of {count} step{'s' * (count > 1)}, {started.plan.analysis}")
    if started.min_ready == 0:
        terms.append("asks no instance")
    elif started.min_ready != ALL:
        terms.append(f"at least {percent(started.min_ready)} ready")
    return f" ({'; '.join(terms)})" if terms else ""


def shares_text(shifted: RolloutShifted) -> str:
    """What a shift gives the candidate: ``answers 10 %, shadows 5 %``."""
    answers, shadows = f"answers {percent(shifted.weight)}", f"shadows {percent(shifted.shadow)}"
    if shifted.shadow and not shifted.weight:
        return shadows
    # Both shares at 0: the rollout may be a shadow, which never answered.
    is_both = shifted.shadow or not shifted.weight
    return f"{answers}, {shadows}" if is_both else answers


def at_step(step: int | None) -> str:
    """`` (step 3)`` for the plan's step 2; nothing where a person moved it."""
    return "" if step is None else f" (step {step + 1})"


def reason_of(recorded: Recorded) -> str:
    """Why, as whoever gave the command wrote it; empty where nobody did."""
    return str(getattr(recorded.data, "reason", ""))
