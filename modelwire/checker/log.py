"""The control log, folded by the checker's own rules: who was to answer at each revision."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any, Literal

import msgspec

from modelwire.checker.wire import NOT_JSON

ALL = 10_000
"""The weight, in basis points, at which the candidate answers everything."""


class _Event(msgspec.Struct, frozen=True):
    specversion: Literal["1.0"]
    type: str
    subject: str
    sequence: str
    data: Any
    previous: str | None = None


@dataclass(frozen=True)
class State:
    """Who answers at a revision, and what is known of versions by then."""

    released: Mapping[int, str] = field(default_factory=dict)
    revoked: frozenset[int] = frozenset()
    champion: int | None = None
    candidate: int | None = None
    weight: int = 0

    @property
    def is_split(self) -> bool:
        """Whether champion and candidate share the traffic."""
        return self.candidate is not None and 0 < self.weight < ALL

    def expected(self) -> dict[str, int | None]:
        """Variant -> version, for the variants that get traffic."""
        if self.candidate is None or self.weight == 0:
            return {"champion": self.champion}
        if self.weight == ALL:
            return {"candidate": self.candidate}
        return {"champion": self.champion, "candidate": self.candidate}


@dataclass
class Log:
    """``states[r]`` is the state at revision r; ``problem`` says why the log ends early."""

    states: list[State]
    problem: str = ""

    def judge(self, revision: int, version: int, digest: str, variant: str) -> str:
        """Empty, or why an answer that claims this is wrong. Version 0: rejected before routing."""
        if not 0 < revision < len(self.states):
            return f"revision {revision} is not in the control log (1 … {len(self.states) - 1})"
        state = self.states[revision]
        at = f"at revision {revision}"
        if version == 0:
            return "" if not variant else f"variant {variant!r} of no version {at}"
        if version not in state.released:
            return f"version {version} had not been released {at}"
        if state.released[version] != digest:
            return f"version {version} was released as {state.released[version]}, not {digest}"
        if version in state.revoked:
            return f"version {version} had been revoked {at}"
        routed = state.expected()
        if routed.get(variant) != version:
            said = " or ".join(f"version {number} as {name}" for name, number in routed.items())
            return f"version {version} as {variant or 'nothing'} {at}, where the log says {said}"
        return ""


def fold(values: Iterable[bytes]) -> Log:
    """Every state of the log. A record that is no event counts for nothing; a broken chain ends it."""
    log = Log([State()])
    previous = None
    for raw in values:
        try:
            event = msgspec.json.decode(raw, type=_Event)
            state = _apply(log.states[-1], event)
        except (*NOT_JSON, KeyError, TypeError):
            continue
        if event.sequence != str(len(log.states)) or event.previous != previous:
            log.problem = (
                f"the event with sequence {event.sequence} does not follow revision "
                f"{len(log.states) - 1} of the control log"
            )
            break
        log.states.append(state)
        previous = f"sha256:{sha256(raw).hexdigest()}"
    return log


def _apply(state: State, event: _Event) -> State:
    data = event.data
    match event.type:
        case "io.modelwire.model.released.v1":
            return replace(state, released={**state.released, data["version"]: data["digest"]})
        case "io.modelwire.model.revoked.v1":
            return replace(state, revoked=state.revoked | {data["version"]})
        case "io.modelwire.rollout.started.v1":
            return replace(state, candidate=data["candidate"], weight=0)
        case "io.modelwire.rollout.shifted.v1":
            return replace(state, weight=data["weight"])
        case "io.modelwire.rollout.promoted.v1":
            return replace(state, champion=data["version"], candidate=None, weight=0)
        case "io.modelwire.rollout.aborted.v1":
            return replace(state, candidate=None, weight=0)
        case "io.modelwire.model.restored.v1":
            return replace(state, champion=data["version"])
    return state
