"""The guard: when a live consumer takes a rollout back by itself.

A canary's candidate may be lost while it has traffic: its bundle is gone, the caches are cold, every
instance was restarted. Whoever cannot serve what the log asks for stays out of its group, so nobody
would answer, the champion's keys included. Nobody has to be there to notice: every live instance
watches, inside the group or outside. Rules:

1. Watched is a rollout that has traffic. Ready is an instance that has prepared everything that the
   revision asks for. Too few are ready where they are fewer than the rollout's minimum of the live
   ones, or none at all, however small that minimum is.
2. Too few without a break for the set time: the rollout is to be aborted, whether or not anybody has
   the champion loaded. Time runs for the rollout, so a further shift does not start it anew.
3. The instances act in turn, a pause apart by their names' order. Were two to act at once, the log
   would take one abort: each names the revision that it judged (compare-and-set).
4. An instance without a fresh view of the fleet, its own announcement in it, knows nothing: what it
   counted is void.
5. After a try it waits before the next: the abort may be on its way, or may not be allowed.

Facts come in, an abort comes out. ``aborts`` carries it out.
"""

from dataclasses import dataclass

from deployment.commands import Abort
from deployment.controller import is_short
from deployment.readiness import Fleet, count_ready, lacks, least_ready
from deployment.state import Deployment, Rollout

TURN_SECONDS = 1.0
"""Between the turns of two instances: enough for an abort to be appended and read."""

MOST_TURNS = 10
"""However large the fleet, nobody waits longer than this many turns more."""

AGAIN_SECONDS = 10.0
"""Between two tries of one instance."""

NAMED_LACKS = 3
"""How many of those that lack stand in the event, each with its rung; why is on the fleet topic."""


@dataclass(frozen=True)
class Verdict:
    """The abort to append, and the revision that it is a judgement of."""

    command: Abort
    seen: int


class Guard:
    """Watches for one instance; ``look`` is to be called every second or so."""

    def __init__(self, instance: str, wait_seconds: float) -> None:
        self._instance = instance
        self._wait = wait_seconds
        self._watched: int | None = None
        self._since = 0.0
        self._not_before = 0.0

    def look(self, now: float, deployment: Deployment, fleet: Fleet) -> Verdict | None:
        """What to do at the time ``now`` (seconds, monotonic). An empty ``fleet``: no fresh view."""
        rollout = deployment.rollout
        names = sorted(instance.name for instance in fleet)
        if rollout is None or self._instance not in names or not is_short(deployment, fleet):
            self._watched = None
            return None
        if self._watched != rollout.revision:
            self._watched, self._since = rollout.revision, now
        turn = min(names.index(self._instance), MOST_TURNS) * TURN_SECONDS
        if now < self._since + self._wait + turn or now < self._not_before:
            return None
        self._not_before = now + AGAIN_SECONDS
        reason = _reason(deployment, rollout, fleet, now - self._since)
        return Verdict(Abort(rollout.revision, reason), deployment.revision)


def _reason(deployment: Deployment, rollout: Rollout, fleet: Fleet, seconds: float) -> str:
    asked = deployment.required()
    versions = " and ".join(f"{deployment.model}:{version}" for version in asked)
    least = max(1, least_ready(len(fleet), rollout.min_ready))
    missing = lacks(fleet, asked)
    lines = [lack.brief for lack in missing[:NAMED_LACKS]]
    if len(missing) > NAMED_LACKS:
        lines.append(f"{len(missing) - NAMED_LACKS} more")
    return (
        f"guard: {count_ready(fleet, asked)} of {len(fleet)} live instances ready for {versions} for "
        f"{seconds:.0f} s, and {least} must be: {'; '.join(lines)}"
    )
