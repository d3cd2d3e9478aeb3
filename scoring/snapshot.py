"""The snapshot: all that a consumer answers with, immutable and swapped by one assignment.

It is one revision of the control log with its routing and its loaded models. What a transaction
commits was answered under one snapshot, whose revision stands in every answer. Shadows ride along:
versions that score a share of the requests beside the answer, for nobody to see.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from deployment.routing import Routing, routing_of
from deployment.state import Deployment, Rollout
from schemas.codec import DecodeInputs, compile_inputs
from schemas.contract import Contract
from schemas.first_look import FirstLook, compile_first_look
from scoring.arrays import Gather, ReadOutputs, compile_gather, compile_outputs, output_tensors
from scoring.model import Model


@dataclass(frozen=True)
class LoadedVersion:
    """A version with its model in memory, and its contract compiled. Made by ``load``."""

    version: int
    digest: str
    contract: Contract
    model: Model
    decode: DecodeInputs
    first_look: FirstLook
    gather: Gather
    output_tensors: tuple[str, ...]
    read_outputs: ReadOutputs


def load(version: int, digest: str, contract: Contract, model: Model) -> LoadedVersion:
    """The version, ready to score. Compiles the contract; the model has been opened by the caller."""
    return LoadedVersion(
        version=version,
        digest=digest,
        contract=contract,
        model=model,
        decode=compile_inputs(contract),
        first_look=compile_first_look(contract),
        gather=compile_gather(contract),
        output_tensors=output_tensors(contract),
        read_outputs=compile_outputs(contract),
    )


@dataclass(frozen=True)
class Shadow:
    """A version that scores, beside the answer, the keys below ``share`` (basis points).

    ``rollout`` is the revision of the rollout that asks for it; its ``salt`` is the routing's, so that
    a shadow of 20 % scores the very keys that a weight of 20 % would move.
    """

    rollout: int
    salt: str
    share: int
    version: LoadedVersion


@dataclass(frozen=True)
class Snapshot:
    """One revision's answer to everything: ``stamp`` is what is stored beside the offsets.

    ``rollout`` is the revision of the rollout that moves traffic, 0 where none runs. ``shadows`` are
    those whose versions are loaded: they are wanted, never required.
    Raises ValueError where the models are not those that the routing names: a candidate must be
    loaded once it has traffic.
    """

    model_name: str
    revision: int
    stamp: str
    routing: Routing
    champion: LoadedVersion
    candidate: LoadedVersion | None
    rollout: int = 0
    shadows: tuple[Shadow, ...] = ()

    def __post_init__(self) -> None:
        if self.champion.version != self.routing.champion:
            raise ValueError(
                f"version {self.champion.version} is loaded as champion, "
                f"the routing names {self.routing.champion}"
            )
        if self.candidate is not None and self.candidate.version != self.routing.candidate:
            raise ValueError(
                f"version {self.candidate.version} is loaded as candidate, "
                f"the routing names {self.routing.candidate}"
            )
        if self.candidate is None and self.routing.weight > 0:
            raise ValueError("the candidate has traffic and is not loaded")


def snapshot_of(deployment: Deployment, loaded: Mapping[int, LoadedVersion]) -> Snapshot:
    """The snapshot of a deployment that has a champion. ``loaded`` has, by version, all that it
    requires (``Deployment.required``)."""
    routing = routing_of(deployment)
    assert routing is not None, "a deployment without a champion requires nothing"
    # A candidate that is loaded but has no traffic is left out: no request can be routed to it.
    has_traffic = routing.candidate is not None and routing.weight > 0
    return Snapshot(
        model_name=deployment.model,
        revision=deployment.revision,
        stamp=deployment.stamp,
        routing=routing,
        champion=loaded[routing.champion],
        candidate=loaded[routing.candidate] if has_traffic and routing.candidate else None,
        rollout=0 if deployment.rollout is None else deployment.rollout.revision,
        shadows=tuple(
            Shadow(rollout.revision, rollout.salt, rollout.shadow, loaded[rollout.candidate])
            for rollout in shadowing(deployment)
            if rollout.candidate in loaded
        ),
    )


def shadowing(deployment: Deployment) -> tuple[Rollout, ...]:
    """The rollouts that have something scored for nobody to see, the one with traffic first."""
    moving = () if deployment.rollout is None else (deployment.rollout,)
    return tuple(each for each in (*moving, *deployment.shadows.values()) if each.shadow > 0)
