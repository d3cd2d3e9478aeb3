"""Readiness: which live instances could serve a revision, and whether they are enough.

1. An instance is ready for a revision when it has prepared *everything* that the revision asks for:
   the champion, and a candidate with traffic. Having the candidate alone is not enough: one instance
   with only the candidate and one with only the champion would wait for each other for ever.
2. Only live instances count; who lives is for ``adapters.fleet_topic``, by the broker's clock.
3. Enough are ready when their share of the live ones is at least the rollout's minimum. A minimum of 0
   asks nobody. With any other one somebody must live: instances that merely look dead may still answer.
4. Too few are ready for the traffic that a candidate has when they are fewer than the minimum, or none.
5. Every instance judges the newest releases as they come, whether anybody wants them or not, so that a
   fleet that cannot run one says so before it is rolled out.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

from deployment.state import Deployment
from schemas.fleet import Tally

ALL = 10_000
"""Basis points of a whole."""

JUDGED_RELEASES = 8
"""How many of the newest releases every instance judges. An older one is judged when it is started."""


@dataclass(frozen=True)
class Instance:
    """A live instance as it announced itself.

    ``refused`` maps a version that its admission turned down to the rung and the reason. ``judged`` are
    the versions that went through admission there, loaded now or not, passed or refused. ``revision``
    is that of the snapshot it answers with (0: none); ``answering`` is True while it is in its group.
    """

    name: str
    prepared: frozenset[int]
    refused: Mapping[int, str] = field(default_factory=dict)
    revision: int = 0
    answering: bool = True
    tallies: tuple[Tally, ...] = ()
    judged: frozenset[int] = frozenset()


Fleet = Sequence[Instance]
"""The live instances of a model."""


@dataclass(frozen=True)
class Lack:
    """A live instance that is not ready, and why."""

    instance: str
    version: int
    why: str

    def __str__(self) -> str:
        return f"{self.instance}: version {self.version} {self.why}"

    @property
    def brief(self) -> str:
        """The same with the rung alone: what a model said of itself is not for a log kept for ever."""
        rung, colon, _ = self.why.partition(":")
        return f"{self.instance}: version {self.version} {rung}{')' if colon else ''}"


def lacks(fleet: Fleet, versions: Collection[int]) -> tuple[Lack, ...]:
    """One line for each live instance and version that it has not prepared."""
    return tuple(
        Lack(instance.name, version, _why(instance, version))
        for instance in fleet
        for version in versions
        if version not in instance.prepared
    )


def refusals(fleet: Fleet, version: int) -> tuple[Lack, ...]:
    """One line for each live instance whose admission turned the version down."""
    return tuple(
        lack
        for instance in fleet
        if version in instance.refused
        for lack in lacks([instance], (version,))
    )


def count_ready(fleet: Fleet, versions: Collection[int]) -> int:
    """How many live instances have prepared all of ``versions``."""
    return sum(instance.prepared.issuperset(versions) for instance in fleet)


def least_ready(live: int, min_ready: int) -> int:
    """How many of ``live`` instances must be ready: the share ``min_ready`` of them, rounded up.

    With a minimum above 0 at least one, where any lives.
    """
    return -(-live * min_ready // ALL)


def is_enough(fleet: Fleet, versions: Collection[int], min_ready: int) -> bool:
    """Whether the fleet may be asked to serve ``versions``."""
    if not fleet:
        return min_ready == 0
    return count_ready(fleet, versions) >= least_ready(len(fleet), min_ready)


def is_short(fleet: Fleet, versions: Collection[int], min_ready: int) -> bool:
    """Whether too few live instances are ready for ``versions``, which the log asks for already."""
    return count_ready(fleet, versions) < max(1, least_ready(len(fleet), min_ready))


def is_hopeless(fleet: Fleet, version: int, min_ready: int) -> bool:
    """Whether so many live instances have refused the version that the minimum cannot be reached."""
    fallen = {lack.instance for lack in refusals(fleet, version)}
    return bool(fallen) and len(fleet) - len(fallen) < least_ready(len(fleet), min_ready)


def judged_releases(deployment: Deployment) -> tuple[int, ...]:
    """The versions that every instance judges: the newest that may serve, the newest first."""
    newest = sorted(deployment.releases, reverse=True)
    found = (version for version in newest if deployment.releases[version].may_serve)
    return tuple(islice(found, JUDGED_RELEASES))


def unjudged(fleet: Fleet, version: int) -> tuple[str, ...]:
    """The live instances that have not judged the version yet."""
    return tuple(
        instance.name
        for instance in fleet
        if version not in instance.judged | instance.prepared | instance.refused.keys()
    )


def _why(instance: Instance, version: int) -> str:
    if version in instance.refused:
        return f"refused ({instance.refused[version]})"
    return "not prepared yet"
