"""Which bundles may go: the rules of ``modelwire bundle gc``.

A bundle stays as long as anything may still ask for it:

1. A version that was released and neither revoked nor retired may serve again.
2. A version that served, for callers or as a shadow, answered up to the event that ended it. Its answers
   can be asked for during the audit's retention, whether they have been copied yet or not.
3. So can the answers that refer to it in the answer files, whatever the log says.
4. A bundle that was made a short while ago may be about to be released.
5. What a kept bundle was refreshed from stays, so that its lineage can be followed.

What is left has no use to this cluster.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from deployment.state import Deployment, Standing, empty, fold
from schemas.events import Recorded


@dataclass(frozen=True)
class Stored:
    """A bundle in the store. ``parent`` is the digest it was refreshed from, or empty."""

    digest: str
    model: str
    created_at: datetime
    parent: str = ""


@dataclass(frozen=True)
class Use:
    """What a control log says of a bundle's version.

    ``served_until`` is the time of the event that ended its last service: None where it never served, and
    without meaning while ``serves``.
    """

    name: str
    standing: Standing
    serves: bool
    served_until: datetime | None


@dataclass(frozen=True)
class Verdict:
    """Whether a bundle stays, and why: ``why`` follows on the bundle's name in a sentence."""

    stored: Stored
    stays: bool
    why: str


def uses_of(model: str, events: Iterable[Recorded]) -> dict[str, list[Use]]:
    """Digest -> the versions of the model that it became. Raises BrokenLog."""
    state = empty(model)
    until: dict[int, datetime] = {}
    for recorded in events:
        for version in _serving(state):
            until[version] = recorded.event.time
        state = fold(state, recorded)
    serving = _serving(state)
    uses: dict[str, list[Use]] = {}
    for version, release in state.releases.items():
        use = Use(f"{model}:{version}", release.standing, version in serving, until.get(version))
        uses.setdefault(release.digest, []).append(use)
    return uses


def _serving(state: Deployment) -> set[int]:
    rollout = [] if state.rollout is None else [state.rollout.candidate]
    shadows = [shadow.candidate for shadow in state.shadows.values()]
    return {*state.required(), *rollout, *shadows}


def judge(
    stored: Sequence[Stored],
    uses: Mapping[str, Sequence[Use]],
    answers: Mapping[str, int],
    *,
    now: datetime,
    retention: timedelta,
    grace: timedelta,
) -> list[Verdict]:
    """A verdict on each bundle, in the order of ``stored``.

    ``answers`` counts the answers within the retention by the digest that they refer to. ``grace`` is how
    long a bundle without a release stays after it was made.
    """
    verdicts = {
        each.digest: _judge(each, uses.get(each.digest, ()), answers, now, retention, grace)
        for each in stored
    }
    for each in stored:
        if verdicts[each.digest].stays:
            _keep_ancestors(each, verdicts)
    return [verdicts[each.digest] for each in stored]


def _judge(
    stored: Stored,
    uses: Sequence[Use],
    answers: Mapping[str, int],
    now: datetime,
    retention: timedelta,
    grace: timedelta,
) -> Verdict:
    for use in uses:
        if use.serves:
            return Verdict(stored, True, f"{use.name} serves")
        if use.standing is Standing.RELEASED:
            return Verdict(stored, True, f"{use.name} may serve; retire it first")
    for use in uses:
        if use.served_until is not None and use.served_until > now - retention:
            return Verdict(stored, True, f"{use.name} answered until {use.served_until:%Y-%m-%d}")
    if count := answers.get(stored.digest, 0):
        return Verdict(stored, True, f"{count:,} kept answers refer to it")
    if not uses and stored.created_at > now - grace:
        return Verdict(stored, True, f"it was made on {stored.created_at:%Y-%m-%d}")
    if not uses:
        return Verdict(stored, False, "no model of this cluster ever released it")
    names = ", ".join(f"{use.name} is {use.standing}" for use in uses)
    return Verdict(stored, False, f"{names}, and no kept answer refers to it")


def _keep_ancestors(stored: Stored, verdicts: dict[str, Verdict]) -> None:
    child = stored
    while child.parent in verdicts and not verdicts[child.parent].stays:
        parent = verdicts[child.parent]
        why = f"{child.digest.removeprefix('sha256:')[:12]} was refreshed from it"
        verdicts[child.parent] = replace(parent, stays=True, why=why)
        child = parent.stored
