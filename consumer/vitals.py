"""Vitals: what is known of an instance at one moment, and whether that means alive and ready.

1. An instance is alive while it does its work, whatever it waits for: its main loop came round a moment
   ago and no thread is missing. A broker or a store that is away does not make it dead: a restart would
   mend nothing, and the fleet would be restarted as a whole.
2. It is ready while it may take traffic: it is alive, a member of the group, and answers. One that
   waits, leaves, or holds its partitions since what it serves was revoked says so, and why.

Before its parts stand, an instance has no vitals yet: it starts, which is alive and not ready.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from consumer.tallies import Observed
from schemas.fleet import Phase
from schemas.forecast import Variant


@dataclass(frozen=True)
class Vitals:
    """One moment's. Counts are since the start; what is None is not known, or there is none."""

    phase: Phase
    detail: str
    """Why in this phase, or why an instance of the group answers nothing; empty where it answers."""
    joined: bool
    """Whether it is a member of the group."""
    missing_threads: tuple[str, ...]
    """The threads that should run and do not, by name."""
    partitions: int
    """How many it owns."""
    read_revision: int
    """The newest revision read from the control log."""
    revision: int
    """Of the snapshot that answers; 0: none."""
    forecasts: Mapping[tuple[int, Variant], int]
    """Committed forecasts, by version and variant."""
    rejections: Mapping[str, int]
    """Committed rejections, by reason."""
    aborted: int
    """Transactions that had to be done again."""
    lag: int | None
    """Requests of the owned partitions without an answer."""
    batch_rows: Observed
    score_seconds: Observed
    swap_seconds: Mapping[str, Observed]
    """By stage."""
    refusals: Mapping[str, int]
    """Versions that were turned down, by the rung of admission; each try counts."""
    loaded: int
    """Models in memory."""
    resident_bytes: int
    horizon_days_left: int | None
    """Whole days to the last one that the champion can answer for; below 0 once it is over."""


@dataclass(frozen=True)
class Verdict:
    """Whether it is well, and what to tell whoever asks."""

    good: bool
    told: Mapping[str, object]


def alive(vitals: Vitals | None, loop_seconds: float, limit_seconds: float) -> Verdict:
    """Rule 1, where the main loop came round ``loop_seconds`` ago and may take ``limit_seconds``."""
    if vitals is not None and vitals.missing_threads:
        names = ", ".join(vitals.missing_threads)
        return Verdict(False, {"alive": False, "reason": f"threads that died: {names}"})
    if vitals is not None and loop_seconds > limit_seconds:
        reason = (
            f"the main loop has not come round for {loop_seconds:.1f} s; "
            f"{limit_seconds:g} s are allowed"
        )
        return Verdict(False, {"alive": False, "reason": reason})
    return Verdict(True, {"alive": True})


def ready(vitals: Vitals | None, life: Verdict) -> Verdict:
    """Rule 2, where rule 1 came to the verdict ``life``."""
    if vitals is None:
        return Verdict(False, _told(False, Phase.STARTING, "its parts are being put together"))
    if not life.good:
        return Verdict(False, _told(False, vitals.phase, str(life.told["reason"])))
    good = vitals.phase is Phase.READY and vitals.joined and not vitals.detail
    return Verdict(good, _told(good, vitals.phase, vitals.detail))


def _told(good: bool, phase: Phase, detail: str) -> Mapping[str, object]:
    return {"ready": good, "phase": phase.value, "detail": detail}
