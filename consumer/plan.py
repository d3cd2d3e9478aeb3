"""The plan: which versions an instance loads, which it keeps, and which revision it can answer with.

1. Loaded, and kept, is what the newest revision requires, then what it wants (a candidate without
   traffic, the previous champion, shadows), then the newest release, which is most likely the next to
   be rolled out.
2. Judged are the newest releases, all those that every instance has to know: after everything above
   each goes through admission once. The verdict is kept, the model is not. A verdict is forgotten once
   its version is neither loaded for rule 1 nor among those releases, as one that may not serve any more.
3. A revision can be served where everything that it requires is loaded. The newest such revision is
   applied; what lies between is never loaded for its own sake.
4. A revision that requires a version which a later one read to be revoked is not applied any more.
5. A version is dropped only when neither the newest state read nor a snapshot in use names it.
6. A shadow is wanted, never required: a snapshot holds those whose versions are loaded, and is made
   again when one more is. What is revoked stops an answer only where it would give one; a shadow that
   the newest state read does not run any more just stops.
"""

from collections.abc import Collection, Sequence

from deployment.readiness import judged_releases
from deployment.state import Deployment, Standing
from scoring.snapshot import Shadow, Snapshot, shadowing


def to_load(newest: Deployment) -> tuple[int, ...]:
    """The versions to load and to keep, the most needed first."""
    return tuple(dict.fromkeys((*newest.wanted(), *judged_releases(newest)[:1])))


def to_judge(newest: Deployment) -> tuple[int, ...]:
    """The versions to take through admission, the most needed first: ``to_load``, and more."""
    return tuple(dict.fromkeys((*to_load(newest), *judged_releases(newest))))


def to_drop(
    loaded: Collection[int], newest: Deployment, in_use: Sequence[Snapshot | None]
) -> tuple[int, ...]:
    """The loaded versions that nothing names any more."""
    named = set(to_load(newest))
    for snapshot in in_use:
        named.update(versions_of(snapshot))
    return tuple(version for version in loaded if version not in named)


def newest_servable(
    deployments: Sequence[Deployment], loaded: Collection[int]
) -> Deployment | None:
    """The latest of ``deployments`` (oldest first; the last is the newest read) that can be served."""
    newest = deployments[-1]
    for deployment in reversed(deployments):
        required = deployment.required()
        if (
            required
            and all(version in loaded for version in required)
            and not revoked_among(required, newest)
        ):
            return deployment
    return None


def revoked_among(versions: Collection[int], newest: Deployment) -> tuple[int, ...]:
    """Those of ``versions`` that the newest state read says are revoked."""
    return tuple(
        version
        for version in versions
        if version in newest.releases and newest.releases[version].standing is Standing.REVOKED
    )


def answering(snapshot: Snapshot | None) -> tuple[int, ...]:
    """The versions that a snapshot answers with: its champion, and a candidate with traffic."""
    if snapshot is None:
        return ()
    held = (snapshot.champion, snapshot.candidate)
    return tuple(loaded.version for loaded in held if loaded is not None)


def versions_of(snapshot: Snapshot | None) -> tuple[int, ...]:
    """The versions whose models a snapshot holds: those that answer, and its shadows."""
    if snapshot is None:
        return ()
    shadows = (shadow.version.version for shadow in snapshot.shadows)
    return tuple(dict.fromkeys((*answering(snapshot), *shadows)))


def is_progress(snapshot: Snapshot, ready: Snapshot | None) -> bool:
    """Whether ``snapshot`` takes the place of ``ready``: a later revision, or one shadow more."""
    if ready is None:
        return True
    return (snapshot.revision, len(snapshot.shadows)) > (ready.revision, len(ready.shadows))


def is_wanted(shadow: Shadow, newest: Deployment) -> bool:
    """Whether the newest state read still runs this shadow."""
    return any(rollout.revision == shadow.rollout for rollout in shadowing(newest))
