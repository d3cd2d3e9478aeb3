"""The status of a model as people and programs see it: the rollout, its steps, and the fleet.

On top what the log asks for and what the fleet does of it, then the plan's steps, then counts and rate
by variant, and a row for each instance. Of the past only the log's part is known.
"""

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from adapters.layout import NOTHING, measured, new_table, utc
from deployment.phase import Assessment, Phase
from deployment.readiness import count_ready
from deployment.state import Rollout
from deployment.words import percent, reason_of
from publisher.screens.instances import days_left_text, instances_table, remarks, shared_runtime
from publisher.screens.steps import MARKERS, Place, current_note, places, step_text
from publisher.status import Status
from schemas.forecast import Variant

SYMBOLS = {
    Phase.HEALTHY: "✔",
    Phase.PROGRESSING: "◌",
    Phase.PAUSED: "॥",
    Phase.DEGRADED: "✖",
}
COLOURS = {
    Phase.HEALTHY: "green",
    Phase.PROGRESSING: "cyan",
    Phase.PAUSED: "yellow",
    Phase.DEGRADED: "red",
}


def phase_text(phase: Phase) -> Text:
    """The phase with its symbol, in its colour."""
    return Text(f"{SYMBOLS[phase]} {phase.value}", style=COLOURS[phase])


def status_line(status: Status) -> str:
    """The rollout in one line; it changes only when something does."""
    deployment = status.deployment
    parts = [f"{deployment.model} revision {deployment.revision}: {_champion(status)}"]
    if rollout := deployment.rollout:
        at = f" (step {_step_of(rollout)})" if rollout.plan else ""
        candidate = f"candidate {deployment.model}:{rollout.candidate}"
        parts.append(f"{candidate} answers {percent(rollout.weight)}{at}")
    for shadow in deployment.shadows.values():
        parts.append(f"{deployment.model}:{shadow.candidate} shadows {percent(shadow.shadow)}")
    assessment = status.assessment
    if assessment is not None and deployment.champion is not None:
        parts.append(f"{assessment.phase.value}: {assessment.why}")
    return "; ".join(parts)


def _champion(status: Status) -> str:
    deployment = status.deployment
    if deployment.champion is None:
        return "no champion yet"
    champion = f"champion {deployment.model}:{deployment.champion}"
    if status.reading.is_past:
        return champion
    return f"{champion}, served by {status.serving} of {status.alive} live instances"


def status_view(status: Status) -> RenderableType:
    """The rollout and the fleet, a row for each instance."""
    blocks: list[RenderableType] = [_head(status)]
    rollout = status.deployment.rollout
    if rollout is not None and rollout.plan is not None:
        blocks += [Text(), _steps(rollout, status)]
    if status.reading.is_past:
        return Group(
            *blocks, Text(), Text("the past of the fleet is not kept: this is the log's part")
        )
    if status.tallies:
        blocks += [Text(), _variants(status)]
    blocks.append(Text())
    if status.fleet:
        blocks += [instances_table(status.fleet), *remarks(status.fleet)]
    else:
        start_one = f"modelwire consume --model {status.deployment.model}"
        blocks.append(Text(f"no instance has announced itself; start one: {start_one}"))
    return Group(*blocks)


# --- the head


def _head(status: Status) -> Table:
    grid = Table.grid(padding=(0, 2))
    for name, value in _head_rows(status):
        grid.add_row(
            Text(f"{name}:", style="bold"), Text(value) if isinstance(value, str) else value
        )
    return grid


def _head_rows(status: Status) -> Iterator[tuple[str, str | Text]]:
    deployment = status.deployment
    yield "Name", deployment.model
    if status.assessment is not None:
        yield "Phase", _phase_with_reason(status.assessment)
    if status.reading.is_past:
        yield "As of", utc(status.reading.at)
    yield "Revision", str(deployment.revision)
    yield "Champion", _champion_row(status)
    rollout = deployment.rollout
    if rollout is not None:
        yield "Candidate", f"{deployment.model}:{rollout.candidate}"
    if deployment.previous is not None:
        yield "Previous", f"{deployment.model}:{deployment.previous}"
    if rollout is not None:
        yield from _rollout_rows(status, rollout)
    for shadow in deployment.shadows.values():
        yield "Shadow", _shadow_row(status, shadow)
    if not status.reading.is_past:
        if deployment.champion is not None:
            yield "Ready", _ready_row(status)
        if runtime := shared_runtime(status.fleet):
            yield "Runtime", runtime
        if status.days_left is not None:
            yield "Horizon", _horizon(status.days_left)


def _phase_with_reason(assessment: Assessment) -> Text:
    return phase_text(assessment.phase).append(f"  {assessment.why}", style="default")


def _champion_row(status: Status) -> str:
    if status.deployment.champion is None:
        return "none yet"
    return f"{_champion(status).removeprefix('champion ')} (since revision {status.champion_since})"


def _rollout_rows(status: Status, rollout: Rollout) -> Iterator[tuple[str, str]]:
    yield "Rollout", f"{rollout.revision}, {_started_by(status, rollout)}"
    plan = rollout.plan
    terms = "without a plan" if plan is None else f"a plan judged by {plan.analysis}"
    yield "Strategy", f"{rollout.strategy}, {terms}"
    if plan is not None:
        yield "Step", _step_of(rollout)
    yield "SetWeight", percent(rollout.weight)
    if not status.reading.is_past:
        yield "ActualWeight", _actual_weight(status)
    if rollout.shadow:
        yield "Shadowing", percent(rollout.shadow)


def _started_by(status: Status, rollout: Rollout) -> str:
    started = status.event_at(rollout.revision)
    by = f"started by {started.event.actor} at {utc(started.event.time)}"
    reason = reason_of(started)
    return f"{by}: {reason}" if reason else by


def _step_of(rollout: Rollout) -> str:
    assert rollout.plan is not None
    return f"{0 if rollout.step is None else rollout.step + 1}/{len(rollout.plan.steps)}"


def _actual_weight(status: Status) -> str:
    """What the candidate answered, of what champion and candidate did under this rollout."""
    now, whole = status.actual_weight_now, status.actual_weight
    if whole is None:
        return NOTHING
    return f"{'nothing' if now is None else measured(now)} now, {measured(whole)} since the start"


def _shadow_row(status: Status, shadow: Rollout) -> str:
    row = f"{status.deployment.model}:{shadow.candidate} scores {percent(shadow.shadow)}"
    if not status.reading.is_past:
        has = count_ready(status.live, (shadow.candidate,))
        row += f", prepared on {has}/{status.alive}"
    return f"{row} (rollout {shadow.revision}, {_started_by(status, shadow)})"


def _ready_row(status: Status) -> str:
    row = f"{status.ready}/{status.alive}"
    if status.deployment.rollout is None:
        return row
    return f"{row} (minimum {percent(status.min_ready)}: {status.least_ready})"


def _horizon(days: int) -> str:
    return f"{days} days left" if days >= 0 else days_left_text(days)


# --- steps and variants


def _steps(rollout: Rollout, status: Status) -> Table:
    assert rollout.plan is not None
    grid = Table.grid(padding=(0, 2))
    count = len(rollout.plan.steps)
    for number, (step, place) in enumerate(places(rollout), 1):
        is_current = place is Place.CURRENT
        marker = SYMBOLS[Phase.PAUSED] if is_current and rollout.paused else MARKERS[place]
        note = current_note(rollout, status.reading.at) if is_current else ""
        style = "bold" if is_current else "dim" if place is Place.COMING else ""
        grid.add_row(marker, f"step {number}/{count}", step_text(step), note, style=style)
    return grid


def _variants(status: Status) -> Table:
    table = new_table("variant", "version", "answered", "rejected", "rate", "shed", "failed")
    for column in table.columns[2:]:
        column.justify = "right"
    for tally in status.tallies:
        is_shadow = tally.variant == Variant.SHADOW
        table.add_row(
            Text(tally.variant),
            f"{status.deployment.model}:{tally.version}",
            f"{tally.answered:,}",
            f"{tally.rejected:,}",
            f"{tally.rate:,.0f}/s",
            f"{tally.shed:,}" if is_shadow else NOTHING,
            f"{tally.failed:,}" if is_shadow else NOTHING,
        )
    return table
