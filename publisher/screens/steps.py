"""A plan's steps as people see them: what each does, where the rollout is, and for how long."""

from datetime import datetime
from enum import StrEnum

from adapters.layout import duration, utc
from deployment.readiness import ALL
from deployment.state import Rollout
from deployment.words import percent
from schemas.events import PlanStep


class Place(StrEnum):
    """Where a step lies from where the rollout is."""

    DONE = "done"
    CURRENT = "current"
    COMING = "coming"


MARKERS = {Place.DONE: "✔", Place.CURRENT: "▶", Place.COMING: "·"}


def places(rollout: Rollout) -> list[tuple[PlanStep, Place]]:
    """The steps of the rollout's plan, in order; none where it has no plan."""
    if rollout.plan is None:
        return []
    reached = -1 if rollout.step is None else rollout.step
    return [(step, _place(number - reached)) for number, step in enumerate(rollout.plan.steps)]


def _place(distance: int) -> Place:
    if distance == 0:
        return Place.CURRENT
    return Place.DONE if distance < 0 else Place.COMING


def step_text(step: PlanStep) -> str:
    """``answers 10 %, holds 5m``."""
    if step.pause:
        return "pauses until it is resumed"
    parts = []
    if step.weight or not step.shadow:
        parts.append(f"answers {percent(step.weight)}")
    if step.shadow:
        parts.append(f"shadows {percent(step.shadow)}")
    if step.hold_seconds:
        parts.append(f"holds {duration(step.hold_seconds)}")
    return ", ".join(parts)


def current_note(rollout: Rollout, now: datetime) -> str:
    """Since when the rollout is where it is, and what it waits for."""
    since = f"since {utc(rollout.since)}"
    if rollout.plan is None or rollout.step is None:
        return since
    if rollout.paused:
        return f"{since}, paused"
    step = rollout.plan.steps[rollout.step]
    left = step.hold_seconds - (now - rollout.since).total_seconds()
    if rollout.step == len(rollout.plan.steps) - 1:
        what = "promotion" if rollout.weight == ALL else "the plan's end"
    else:
        what = "next"
    if left > 0:
        return f"{since}, {what} in {duration(left)}"
    return f"{since}, {what} when the fleet is ready"
