"""Rollouts: traffic moves to a version and back; and what the log and the fleet say about it."""

from dataclasses import dataclass

from adapters.control_log import read_log
from adapters.fleet_topic import Sighting, read_fleet
from adapters.settings import Settings
from deployment.decisions import Start, Strategy, Undo
from deployment.ledger import Ledger
from deployment.state import Deployment
from publisher.commands import Appended, fresh_salt, give
from publisher.naming import VersionName
from schemas.events import ModelRestored, RolloutPromoted
from schemas.fleet import Phase


@dataclass(frozen=True)
class Status:
    """A deployment beside the instances that serve it.

    ``champion_since`` is the revision that made the champion champion, None without one.
    """

    deployment: Deployment
    champion_since: int | None
    fleet: tuple[Sighting, ...]

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


def start(settings: Settings, named: VersionName, strategy: Strategy, reason: str) -> Appended:
    """Rolls out a released version."""
    command = Start(named.version, strategy, fresh_salt(), reason)
    return give(settings, named.model, command)


def undo(settings: Settings, model: str, to: int | None, reason: str) -> Appended:
    """Brings back the previous champion, or the version ``to``.

    "The previous" means another version at each revision: two people who undo the same rollout at once
    would bring it back. So without ``to`` the undo holds only at the revision that is read here first.
    """
    seen = None if to is not None else read_log(settings, model).deployment.revision
    return give(settings, model, Undo(to, reason), seen=seen)


def history(settings: Settings, model: str) -> Ledger:
    """Every event of the model's log."""
    return read_log(settings, model)


def status(settings: Settings, model: str) -> Status:
    """The deployment and the fleet, as of now."""
    ledger = read_log(settings, model)
    crowned = [
        recorded.event.revision
        for recorded in ledger.events
        if isinstance(recorded.data, RolloutPromoted | ModelRestored)
    ]
    return Status(
        deployment=ledger.deployment,
        champion_since=crowned[-1] if crowned else None,
        fleet=tuple(read_fleet(settings, model)),
    )
