"""Many models as people and programs see them: a row for each, and why it stands there."""

from collections.abc import Iterable
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from adapters.layout import NOTHING, new_table, utc
from deployment.words import percent, what_happened
from publisher.models import Model
from publisher.screens.status import phase_text
from publisher.status import Status
from schemas.events import Recorded

COLUMNS = ("model", "phase", "champion", "candidate", "weight", "revision", "live", "versions")


def models_view(models: Iterable[Model]) -> RenderableType:
    """The models by name, and below each one's sentence; or how to make one."""
    listed = list(models)
    if not listed:
        return Text("there is no model; make one's topics: modelwire topics create MODEL")
    table = new_table(*COLUMNS)
    for model in listed:
        table.add_row(model.name, *_cells(model))
    return Group(table, Text(), *map(_remark, listed))


def _cells(model: Model) -> list[str | Text]:
    status = model.status
    if status is None:
        return [NOTHING] * (len(COLUMNS) - 1)
    deployment, rollout = status.deployment, status.deployment.rollout
    phase = None if model.problem else status.assessment
    return [
        NOTHING if phase is None else phase_text(phase.phase),
        _number(deployment.champion),
        _number(None if rollout is None else rollout.candidate),
        NOTHING if rollout is None else percent(rollout.weight),
        str(deployment.revision),
        NOTHING if model.problem else str(status.alive),
        str(len(deployment.releases)),
    ]


def _remark(model: Model) -> Text:
    assessment = model.status and model.status.assessment
    why = model.problem or (assessment.why if assessment else "")
    remark = Text(f"{model.name}: {why}", style="red" if model.problem else "")
    last = None if model.status is None else _last(model.status)
    if last is not None:
        remark.append(f" (changed {utc(last.event.time)} by {last.event.actor})", style="dim")
    return remark


def models_object(models: Iterable[Model]) -> dict[str, Any]:
    """The models by name. What is not known is null, and ``problem`` says why."""
    return {"models": [_object(model) for model in models]}


def _object(model: Model) -> dict[str, Any]:
    status = model.status
    deployment = status and status.deployment
    rollout = deployment and deployment.rollout
    known = None if model.problem or status is None else status.assessment
    last = status and _last(status)
    return {
        "model": model.name,
        "phase": known and known.phase,
        "why": known and known.why,
        "champion": deployment and deployment.champion,
        "candidate": rollout and rollout.candidate,
        "weight": rollout and rollout.weight,
        "shadows": deployment and [each.candidate for each in deployment.shadows.values()],
        "revision": deployment and deployment.revision,
        "alive": known and status and status.alive,
        "versions": deployment and len(deployment.releases),
        "last_change": last and last.event.time,
        "last_actor": last and last.event.actor,
        "last_what": last and what_happened(model.name, last),
        "problem": model.problem or None,
    }


def _last(status: Status) -> Recorded | None:
    return status.reading.events[-1] if status.reading.events else None


def _number(version: int | None) -> str:
    return NOTHING if version is None else str(version)
