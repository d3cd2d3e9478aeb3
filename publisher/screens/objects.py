"""The status of a model as one object for programs."""

from typing import Any

import msgspec

from deployment.state import Rollout
from deployment.words import reason_of
from publisher.screens.steps import places
from publisher.status import Status


def status_object(status: Status) -> dict[str, Any]:
    """The rollout and the fleet. Shares are basis points, as in the log; ``actual_weight`` too."""
    deployment, assessment = status.deployment, status.assessment
    rollout = deployment.rollout
    reading = status.reading
    return {
        "model": deployment.model,
        "phase": assessment and assessment.phase,
        "why": assessment and assessment.why,
        "at": reading.at,
        "is_past": reading.is_past,
        "revision": deployment.revision,
        "champion": deployment.champion,
        "champion_since": status.champion_since,
        "candidate": rollout and rollout.candidate,
        "previous": deployment.previous,
        "rollout": rollout and _rollout_object(status, rollout),
        "shadows": [_rollout_object(status, each) for each in deployment.shadows.values()],
        "alive": status.alive,
        "serving": status.serving,
        "ready": status.ready,
        "least_ready": status.least_ready,
        "horizon_days_left": status.days_left,
        "variants": status.tallies,
        "instances": [
            {
                **msgspec.to_builtins(sighting.status),
                "alive": sighting.alive,
                "age_seconds": round(sighting.age_seconds, 3),
            }
            for sighting in status.fleet
        ],
    }


def _rollout_object(status: Status, rollout: Rollout) -> dict[str, Any]:
    started = status.event_at(rollout.revision)
    return {
        "revision": rollout.revision,
        "candidate": rollout.candidate,
        "strategy": rollout.strategy,
        "weight": rollout.weight,
        "shadow": rollout.shadow,
        "actual_weight": None if rollout.is_shadow else _basis_points(status.actual_weight),
        "min_ready": rollout.min_ready,
        "paused": rollout.paused,
        "step": rollout.step,
        "steps": [
            {**msgspec.structs.asdict(step), "place": place} for step, place in places(rollout)
        ],
        "analysis": rollout.plan and rollout.plan.analysis,
        "since": rollout.since,
        "started_at": started.event.time,
        "started_by": started.event.actor,
        "reason": reason_of(started),
    }


def _basis_points(share: float | None) -> int | None:
    return None if share is None else round(share * 10_000)
