"""Events as people and programs see them: the history, and what a command did."""

from collections.abc import Iterable
from typing import Any

from rich.table import Table
from rich.text import Text

from adapters.layout import new_table, utc
from deployment.commands import Strategy
from deployment.words import at_step, percent, reason_of, shares_text, what_happened
from publisher.commands import Appended
from schemas.events import (
    EventData,
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


def appended_line(appended: Appended) -> str:
    """What a command did, as one line: ``sales:2 released (revision 4), champion since revision 6``."""
    parts: list[str] = []
    for recorded in appended.events:
        part = _did(appended, recorded, is_first=not parts)
        if part:
            parts.append(part)
    return ", ".join(parts)


def _did(appended: Appended, recorded: Recorded, *, is_first: bool) -> str:
    model, revision = appended.model, recorded.event.revision
    match recorded.data:
        case ModelReleased(version=version):
            return f"{model}:{version} released (revision {revision})"
        case RolloutStarted() as started:
            return _began(appended, started, revision, is_first=is_first)
        case RolloutShifted(rollout=rollout) as shifted:
            if _started(appended, rollout):
                return ""  # the start has said it
            done = f"{shares_text(shifted)}{at_step(shifted.step)}"
            return f"rollout {rollout} {done} (revision {revision})"
        case RolloutPaused(rollout=rollout, step=step):
            return f"rollout {rollout} paused{at_step(step)} (revision {revision})"
        case RolloutResumed(rollout=rollout):
            return f"rollout {rollout} goes on (revision {revision})"
        case RolloutPromoted(rollout=rollout, version=version):
            name = "" if _started(appended, rollout) else f"{model}:{version} "
            return f"{name}champion since revision {revision}"
        case ModelRestored(version=version, replaced=replaced):
            return (
                f"{model}:{version} champion again since revision {revision}, "
                f"in place of {model}:{replaced}"
            )
        case ModelRevoked(version=version):
            return f"{model}:{version} revoked (revision {revision})"
        case ModelRetired(version=version):
            return f"{model}:{version} retired (revision {revision})"
        case RolloutAborted(rollout=rollout):
            if _started(appended, rollout):
                return f"taken back (revision {revision})"
            why = f": {recorded.data.reason}" if recorded.data.reason else ""
            return f"rollout {rollout} aborted (revision {revision}){why}"
        case _:
            return ""


def _began(appended: Appended, started: RolloutStarted, revision: int, *, is_first: bool) -> str:
    """What a start did, by what the same command went on to do with the rollout."""
    name = f"{appended.model}:{started.candidate}"
    for recorded in appended.events:
        match recorded.data:
            case RolloutPromoted(rollout=rollout) if rollout == revision:
                return f"{name} rolled out (revision {revision})" if is_first else ""
            case RolloutAborted(rollout=rollout) if rollout == revision:
                return f"{name} started (rollout {revision})"
            case RolloutShifted(rollout=rollout) as shifted if rollout == revision:
                scores = percent(shifted.shadow)  # only a shadow's start is shifted at once
                return f"{name} shadows {scores} of the requests (rollout {revision})"
    if started.strategy == Strategy.SHADOW:
        return f"{name} is loaded as a shadow (rollout {revision})"
    return f"{name} stands beside the champion, without traffic yet (rollout {revision})"


def _started(appended: Appended, rollout: int) -> bool:
    """Whether this very command started the rollout."""
    return any(
        recorded.event.revision == rollout and isinstance(recorded.data, RolloutStarted)
        for recorded in appended.events
    )


def appended_object(appended: Appended) -> dict[str, Any]:
    """What a command did, for programs. ``version`` is the last that it put in or out of service."""
    last = appended.events[-1]
    versions = [
        version for each in appended.events if (version := _version_in(each.data)) is not None
    ]
    digests = [each.data.digest for each in appended.events if isinstance(each.data, ModelReleased)]
    rollouts = [rollout for each in appended.events if (rollout := _rollout_in(each)) is not None]
    return {
        "model": appended.model,
        "version": versions[-1] if versions else None,
        "digest": digests[0] if digests else None,
        "rollout": rollouts[-1] if rollouts else None,
        "revision": last.event.revision,
        "commandid": last.event.commandid,
        "actor": last.event.actor,
        "appended_at": last.event.time,
        "seconds": round(appended.seconds, 3),
        "events": [event_object(each) for each in appended.events],
    }


def _version_in(data: EventData | None) -> int | None:
    match data:
        case RolloutStarted(candidate=version):
            return version
        case (
            ModelReleased(version=version)
            | ModelRevoked(version=version)
            | ModelRetired(version=version)
            | RolloutPromoted(version=version)
            | ModelRestored(version=version)
        ):
            return version
        case _:
            return None


def _rollout_in(recorded: Recorded) -> int | None:
    """The rollout that an event is of: the one that it starts, or the one that it names."""
    if isinstance(recorded.data, RolloutStarted):
        return recorded.event.revision
    named = getattr(recorded.data, "rollout", None)
    return named if isinstance(named, int) else None


def event_object(recorded: Recorded) -> dict[str, Any]:
    """An event with what it says."""
    event = recorded.event
    return {
        "revision": event.revision,
        "type": event.type,
        "time": event.time,
        "actor": event.actor,
        "commandid": event.commandid,
        "hash": recorded.hash,
        "data": event.data,
    }


def history_table(model: str, events: Iterable[Recorded]) -> Table:
    """Who did what, when and why, the oldest first."""
    table = new_table("revision", "time", "who", "what", "why")
    for recorded in events:
        event = recorded.event
        table.add_row(
            str(event.revision),
            utc(event.time),
            Text(event.actor),
            Text(what_happened(model, recorded)),
            Text(reason_of(recorded)),
        )
    return table


def history_object(model: str, events: Iterable[Recorded]) -> dict[str, Any]:
    """The same, as events."""
    return {
        "model": model,
        "events": [
            {
                **event_object(recorded),
                "what": what_happened(model, recorded),
                "reason": reason_of(recorded),
            }
            for recorded in events
        ],
    }
