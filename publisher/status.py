"""What a model's log and its fleet say: as of now, or the log alone as of a moment in the past."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property

from adapters.control_log import read_log
from adapters.fleet_topic import Sighting, live_instances, read_fleet
from adapters.settings import Settings
from deployment.moments import Reading, parse_moment, read_as_of, read_now
from deployment.phase import Assessment, asked_versions, assess
from deployment.readiness import ALL, Fleet, count_ready, least_ready
from deployment.state import Deployment
from schemas.events import ModelRestored, Recorded, RolloutPromoted
from schemas.fleet import Phase, Tally
from schemas.forecast import Variant


@dataclass(frozen=True)
class Status:
    """A deployment beside the instances that serve it. Of the past, nobody knows the instances."""

    reading: Reading
    fleet: tuple[Sighting, ...] = ()

    @property
    def deployment(self) -> Deployment:
        """What the log says."""
        return self.reading.deployment

    @property
    def champion_since(self) -> int | None:
        """The revision that made the champion champion, None without one."""
        crowned = [
            recorded.event.revision
            for recorded in self.reading.events
            if isinstance(recorded.data, RolloutPromoted | ModelRestored)
        ]
        return crowned[-1] if crowned else None

    @property
    def alive(self) -> int:
        """Instances that announced themselves lately."""
        return sum(sighting.alive for sighting in self.fleet)

    @property
    def serving(self) -> int:
        """Live instances that answer with the champion that the log asks for."""
        champion = self.deployment.champion
        return sum(
            sighting.alive
            and sighting.status.phase is Phase.READY
            and sighting.status.champion == champion
            for sighting in self.fleet
        )

    @cached_property
    def live(self) -> Fleet:
        """The live instances, as the rules of readiness take them."""
        return live_instances(self.fleet)

    @property
    def ready(self) -> int:
        """Live instances that have prepared the champion, and the candidate of a rollout."""
        return count_ready(self.live, asked_versions(self.deployment))

    @property
    def min_ready(self) -> int:
        """The share of the live instances that must be ready, in basis points."""
        rollout = self.deployment.rollout
        return ALL if rollout is None else rollout.min_ready

    @property
    def least_ready(self) -> int:
        """How many of the live instances that is."""
        return least_ready(len(self.live), self.min_ready)

    @property
    def days_left(self) -> int | None:
        """The fewest days that a live instance says its champion can answer for; None: no horizon."""
        days = [
            sighting.status.horizon_days_left
            for sighting in self.fleet
            if sighting.alive and sighting.status.champion == self.deployment.champion
        ]
        return min((each for each in days if each is not None), default=None)

    @property
    def assessment(self) -> Assessment | None:
        """The phase, and why; None of the past."""
        if self.reading.is_past:
            return None
        return assess(self.deployment, self.live, self.days_left)

    @property
    def tallies(self) -> tuple[Tally, ...]:
        """What the live instances did for each variant under what runs now, added up.

        Under a rollout champion and candidate; without one the champion; and every shadow.
        """
        rollout = self.deployment.rollout
        running = {0 if rollout is None else rollout.revision, *self.deployment.shadows}
        return add_up(
            tally
            for instance in self.live
            for tally in instance.tallies
            if tally.rollout in running
        )

    @property
    def actual_weight(self) -> float | None:
        """The candidate's share (0 … 1) of what the live instances answered or rejected since the
        rollout began; None where there is no rollout, or nothing was answered."""
        return self._candidate_share({t.variant: t.answered + t.rejected for t in self._traffic})

    @property
    def actual_weight_now(self) -> float | None:
        """The same of the answers a second, as they were announced last."""
        return self._candidate_share({t.variant: t.rate for t in self._traffic})

    @property
    def _traffic(self) -> tuple[Tally, ...]:
        """What champion and candidate did under the rollout."""
        rollout = self.deployment.rollout
        if rollout is None:
            return ()
        return tuple(tally for tally in self.tallies if tally.rollout == rollout.revision)

    @staticmethod
    def _candidate_share(amounts: Mapping[str, float]) -> float | None:
        candidate = amounts.get(Variant.CANDIDATE, 0.0)
        both = candidate + amounts.get(Variant.CHAMPION, 0.0)
        return candidate / both if both else None

    def event_at(self, revision: int) -> Recorded:
        """The event of a revision up to this one's."""
        return self.reading.events[revision - 1]


_ORDER = {variant.value: place for place, variant in enumerate(Variant)}


def add_up(tallies: Iterable[Tally]) -> tuple[Tally, ...]:
    """One tally for each rollout, variant and version, the champion's first."""
    sums: dict[tuple[int, str, int], Tally] = {}
    for each in tallies:
        name = (each.rollout, each.variant, each.version)
        so_far = sums.get(name, Tally(each.rollout, each.version, each.variant, 0, 0))
        sums[name] = Tally(
            each.rollout,
            each.version,
            each.variant,
            so_far.answered + each.answered,
            so_far.rejected + each.rejected,
            so_far.rate + each.rate,
            so_far.shed + each.shed,
            so_far.failed + each.failed,
        )
    return tuple(
        sorted(sums.values(), key=lambda t: (_ORDER.get(t.variant, 9), t.rollout, t.version))
    )


def read_history(settings: Settings, model: str, at: str | None = None) -> Reading:
    """What the model's log says, or said at the moment that ``at`` names."""
    now = datetime.now(UTC)
    moment = None if at is None else parse_moment(at, now)  # before anybody is asked
    ledger = read_log(settings, model)
    return read_now(ledger, now) if moment is None else read_as_of(ledger, moment)


def read_status(settings: Settings, model: str, at: str | None = None) -> Status:
    """The deployment and the fleet, as of now; or the deployment as of a moment in the past."""
    reading = read_history(settings, model, at)
    return Status(reading, () if reading.is_past else tuple(read_fleet(settings, model)))
