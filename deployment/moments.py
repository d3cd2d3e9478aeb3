"""Moments in a model's past, as people type them, and what the log said then.

``--at`` takes a revision (``7``), a time in ISO 8601 (``2026-11-21``, ``2026-11-21T10:00Z``; without a
zone it is UTC, and a day means its first moment), or how long ago (``10m``, ``2h``). A revision is a
whole number, so a time needs its dashes.

The state at a time is the fold of the events before the first that is later: nothing later is in it,
even where two writers' clocks did not agree.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from deployment.ledger import Ledger
from deployment.state import Deployment, empty, fold
from schemas.errors import NotFound, UsageProblem
from schemas.events import Recorded

Moment = int | datetime
"""A revision, or a time in UTC."""

_AGO = re.compile(r"(\d{1,5})\s*([smhd])(\s+ago)?")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_EXAMPLES = "a revision such as 7, a time such as 2026-11-21T10:00Z, or how long ago, such as 10m"


@dataclass(frozen=True)
class Reading:
    """A model's log up to a revision, and when that was: now, or the moment that was asked for."""

    deployment: Deployment
    events: tuple[Recorded, ...]
    at: datetime
    is_past: bool = False


def parse_moment(text: str, now: datetime) -> Moment:
    """The moment that ``text`` names. Raises UsageProblem where it names none, or one to come."""
    if text.isascii() and text.isdigit():
        return int(text[:18])
    ago = _AGO.fullmatch(text)
    if ago is not None:
        return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
    try:
        moment = datetime.fromisoformat(text)
        moment = moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC)
    except (ValueError, OverflowError):
        raise UsageProblem(f"{text!r} is not a moment", hint=f"write {_EXAMPLES}") from None
    if moment > now:
        raise UsageProblem(
            f"{text} is still to come", hint="leave --at out to see what the log says now"
        )
    return moment


def read_now(ledger: Ledger, now: datetime) -> Reading:
    """All that the log says."""
    return Reading(ledger.deployment, tuple(ledger.events), now)


def read_as_of(ledger: Ledger, moment: Moment) -> Reading:
    """What the log said then. Raises NotFound before its first event, and beyond its last revision."""
    return events_as_of(ledger.deployment.model, ledger.events, moment)


def events_as_of(model: str, events: Sequence[Recorded], moment: Moment) -> Reading:
    """The same of the events of a log."""
    if not events:
        raise NotFound(f"the control log of {model} is empty", hint="leave --at out")
    count = _count_until(model, events, moment)
    deployment = empty(model)
    for recorded in events[:count]:
        deployment = fold(deployment, recorded)
    at = events[count - 1].event.time if isinstance(moment, int) else moment
    return Reading(deployment, tuple(events[:count]), at, is_past=True)


def _count_until(model: str, events: Sequence[Recorded], moment: Moment) -> int:
    if isinstance(moment, int):
        if not 1 <= moment <= len(events):
            raise NotFound(
                f"{model} has no revision {moment}",
                hint=f"its control log has the revisions 1 to {len(events)}",
            )
        return moment
    later = (number for number, each in enumerate(events) if each.event.time > moment)
    count = next(later, len(events))
    if count == 0:
        first = events[0].event.time.astimezone(UTC)
        raise NotFound(
            f"{model} has no event up to {moment:%Y-%m-%d %H:%M:%SZ}",
            hint=f"its first is of {first:%Y-%m-%d %H:%M:%SZ}",
        )
    return count
