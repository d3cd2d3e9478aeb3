"""Readiness: which live instances could serve a revision, and whether they are enough.

1. An instance is ready for a revision when it has prepared *everything* that the revision asks for:
   the champion, and a candidate with traffic. Having the candidate alone is not enough: one instance
   with only the candidate and one with only the champion would wait for each other for ever.
2. Only live instances count; who lives is for ``adapters.fleet_topic``, by the broker's clock.
3. Enough are ready when their share of the live ones is at least the rollout's minimum. Of no
   instances at all, nobody has to be ready: there is no traffic that could go wrong.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from schemas.fleet import Tally

ALL = 10_000
"""Basis points of a whole."""


@dataclass(frozen=True)
class Instance:
    """A live instance as it announced itself.

    ``refused`` maps a version that its admission turned down to the rung and the reason. ``revision``
    is that of the snapshot it answers with (0: none); ``answering`` is True while it is in its group.
    """

    name: str
    prepared: frozenset[int]
    refused: Mapping[int, str] = field(default_factory=dict)
    revision: int = 0
    answering: bool = True
    tallies: tuple[Tally, ...] = ()


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

    With a minimum above 0 at least one.
    """
    return -(-live * min_ready // ALL)


def is_enough(fleet: Fleet, versions: Collection[int], min_ready: int) -> bool:
    """Whether the fleet may be asked to serve ``versions``."""
    return count_ready(fleet, versions) >= least_ready(len(fleet), min_ready)


def _why(instance: Instance, version: int) -> str:
    if version in instance.refused:
        return f"refused ({instance.refused[version]})"
    return "not prepared yet"
