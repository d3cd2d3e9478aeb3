"""How a command gets into the control log: its id, who gives it, and when.

An id is made once for each run of a command, so that whatever is repeated below, the command counts
once.
"""

import secrets
import time
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime

from adapters.control_append import append
from adapters.settings import Settings
from deployment.commands import Command
from schemas.events import Recorded


@dataclass(frozen=True)
class Appended:
    """What a command added to a model's log, and how long that took."""

    model: str
    events: tuple[Recorded, ...]
    seconds: float


def give(settings: Settings, model: str, command: Command, *, seen: int | None = None) -> Appended:
    """Appends what the command amounts to. Raises as ``adapters.control_append.append`` does."""
    started = time.monotonic()
    events = append(
        settings,
        model,
        command,
        commandid=str(uuid.uuid4()),
        actor=settings.actor,
        now=lambda: datetime.now(UTC),
        seen=seen,
    )
    return Appended(model, events, time.monotonic() - started)


def fresh_salt() -> str:
    """A rollout's own salt: which keys move first differs from rollout to rollout."""
    return secrets.token_hex(8)
