"""Routing: which variant answers a request, as a pure function of (salt, key) and the weight.

A key falls into one of 10,000 buckets by a hash that the rollout salts; the candidate answers the
buckets below its weight. So a key keeps its variant while the weight stands, raising the weight only
moves keys from champion to candidate, and lowering it only moves them back. A request without a key
is routed by its id. The hash is part of the wire format: BLAKE2b with an 8-byte digest over the salt
in UTF-8, one zero byte, and the key; read as a big-endian integer, modulo 10,000.
"""

from dataclasses import dataclass
from hashlib import blake2b

from deployment.state import Deployment
from schemas.forecast import Variant

BUCKETS = 10_000


@dataclass(frozen=True)
class Routing:
    """What routing needs of a deployment: the versions, and the candidate's weight (basis points)."""

    champion: int
    candidate: int | None
    weight: int
    salt: str


def routing_of(deployment: Deployment) -> Routing | None:
    """The routing at the deployment's revision; None while there is no champion."""
    if deployment.champion is None:
        return None
    rollout = deployment.rollout
    if rollout is None:
        return Routing(deployment.champion, None, 0, "")
    return Routing(deployment.champion, rollout.candidate, rollout.weight, rollout.salt)


def bucket(salt: str, key: bytes) -> int:
    """The bucket of ``key``, 0 … 9,999."""
    digest = blake2b(salt.encode() + b"\0" + key, digest_size=8).digest()
    return int.from_bytes(digest) % BUCKETS


def route(routing: Routing, key: bytes | None, request_id: str) -> Variant:
    """The variant that answers the request with this record key, or without one this id."""
    if routing.weight == 0:
        return Variant.CHAMPION
    sticky = request_id.encode() if key is None else key
    if bucket(routing.salt, sticky) < routing.weight:
        return Variant.CANDIDATE
    return Variant.CHAMPION
