"""The plan: what to load, what to keep, which revision can be served."""

from dataclasses import replace
from datetime import UTC, datetime

from consumer.plan import (
    answering,
    is_progress,
    is_wanted,
    newest_servable,
    revoked_among,
    to_drop,
    to_judge,
    to_load,
    versions_of,
)
from deployment.readiness import JUDGED_RELEASES
from deployment.state import Deployment, Release, Rollout, Standing, empty
from scoring.snapshot import LoadedVersion, load, snapshot_of
from tests.bundles import contract


class _Silent:
    """A model that nobody runs."""

    def run(self, feeds: object, outputs: object) -> list[object]:
        """Never called."""
        raise AssertionError


def _loaded(*versions: int) -> dict[int, LoadedVersion]:
    silent = _Silent()
    return {v: load(v, f"sha256:{v:064d}", contract(), silent) for v in versions}  # type: ignore[arg-type]


def _rollout(revision: int, candidate: int, strategy: str = "canary", **shares: int) -> Rollout:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    blank = Rollout(revision, candidate, strategy, f"s{revision}", 0, since=now, shifted=revision)
    return replace(blank, **shares)  # type: ignore[arg-type]


def _deployment(revision: int, champion: int | None, **standings: Standing) -> Deployment:
    releases = {
        version: Release(
            version=version,
            digest=f"sha256:{version:064d}",
            standing=standings.get(f"v{version}", Standing.RELEASED),
            revision=version,
            actor="test",
            time=datetime(2026, 1, 1, tzinfo=UTC),
            reason="",
        )
        for version in (1, 2, 3)
    }
    return replace(
        empty("m"), revision=revision, champion=champion, releases=releases, log_id="a", head="b"
    )


def test_what_is_required_is_loaded_first_and_the_newest_release_last() -> None:
    """Champion, then previous, then the newest release, each once."""
    assert to_load(replace(_deployment(5, 1), previous=2)) == (1, 2, 3)
    assert to_load(_deployment(5, 3)) == (3,)
    assert to_load(empty("m")) == ()


def test_a_revoked_newest_release_is_not_loaded() -> None:
    """The newest one that may serve takes its place."""
    assert to_load(_deployment(5, 1, v3=Standing.REVOKED)) == (1, 2)


def test_every_new_release_is_judged_after_all_that_is_loaded() -> None:
    """The newest first; what nobody wants is neither loaded for it nor kept."""
    assert to_judge(_deployment(5, 1)) == (1, 3, 2)
    assert to_judge(_deployment(5, None)) == (3, 2, 1)
    assert to_load(_deployment(5, None)) == (3,)
    assert to_drop([1, 2, 3], _deployment(5, None), ()) == (1, 2)
    assert to_judge(_deployment(5, 1, v2=Standing.RETIRED)) == (1, 3)


def test_an_old_version_is_judged_when_something_wants_it() -> None:
    """Of thousands of releases the newest few are judged, and the candidate, however old."""
    release = _deployment(5, None).releases[1]
    releases = {n: replace(release, version=n) for n in range(1, 1_001)}
    many = replace(_deployment(2_000, 900), releases=releases)
    newest = tuple(range(1_000, 1_000 - JUDGED_RELEASES, -1))
    assert to_judge(many) == (900, *newest)
    canary = replace(many, rollout=_rollout(1_999, 5))
    assert to_judge(canary) == (900, 5, *newest)


def test_a_version_is_dropped_only_when_nothing_names_it() -> None:
    """Neither the newest state nor a snapshot in use may name it."""
    newest = _deployment(5, 2)
    old = snapshot_of(_deployment(4, 1), _loaded(1))
    assert to_drop([1, 2, 3], newest, (old, None)) == ()
    assert to_drop([1, 2, 3], newest, (None,)) == (1,)


def test_the_newest_revision_that_can_be_served_is_chosen() -> None:
    """A revision whose champion is missing is passed over for the one before."""
    passed = [_deployment(4, 1), _deployment(5, 1), _deployment(6, 2)]
    assert newest_servable(passed, {1, 2}) is passed[2]
    assert newest_servable(passed, {1}) is passed[1]
    assert newest_servable(passed, {3}) is None


def test_a_candidate_with_traffic_is_required() -> None:
    """Ready means prepared for everything that the revision asks for."""
    rollout = _rollout(5, 2, weight=1)
    shifted = replace(_deployment(6, 1), rollout=rollout)
    assert newest_servable([shifted], {1}) is None
    assert newest_servable([shifted], {2}) is None
    assert newest_servable([shifted], {1, 2}) is shifted
    assert versions_of(snapshot_of(shifted, _loaded(1, 2))) == (1, 2)
    idle = replace(shifted, rollout=replace(rollout, weight=0))
    assert newest_servable([idle], {1}) is idle
    assert versions_of(snapshot_of(idle, _loaded(1, 2))) == (1,)


def test_a_revision_between_is_not_applied_once_its_champion_was_revoked() -> None:
    """What the newest state read says is revoked answers nothing, under no revision."""
    passed = [_deployment(5, 1), _deployment(6, 2, v1=Standing.REVOKED)]
    assert newest_servable(passed, {1}) is None
    assert revoked_among((1, 2), passed[-1]) == (1,)


def test_nothing_can_be_served_before_the_first_champion() -> None:
    """A log without a champion asks for nothing, and gives no snapshot."""
    assert newest_servable([_deployment(3, None)], {1, 2, 3}) is None


def test_a_shadow_is_wanted_and_never_required() -> None:
    """Its revision is served without it; the snapshot is made again once it is loaded."""
    shadowed = replace(_deployment(6, 1), shadows={5: _rollout(5, 2, "shadow", shadow=2_000)})
    assert to_load(shadowed) == (1, 2, 3)
    assert newest_servable([shadowed], {1}) is shadowed
    without, with_it = snapshot_of(shadowed, _loaded(1)), snapshot_of(shadowed, _loaded(1, 2))
    assert without.shadows == ()
    [shadow] = with_it.shadows
    found = (shadow.rollout, shadow.salt, shadow.share, shadow.version.version)
    assert found == (5, "s5", 2_000, 2)
    assert is_progress(with_it, without)
    assert not is_progress(without, with_it)
    assert not is_progress(with_it, with_it)


def test_a_later_revision_is_progress_with_however_few_shadows() -> None:
    """A shadow that ended goes at once."""
    shadows = {5: _rollout(5, 2, "shadow", shadow=2_000)}
    before = snapshot_of(replace(_deployment(6, 1), shadows=shadows), _loaded(1, 2))
    after = snapshot_of(_deployment(7, 1), _loaded(1, 2))
    assert is_progress(before, None)
    assert is_progress(after, before)
    assert not is_progress(before, after)


def test_a_canary_with_a_shadow_share_is_a_shadow_of_its_candidate() -> None:
    """Its salt and its rollout are the canary's; without a share it scores nothing."""
    canary = replace(_deployment(6, 1), rollout=_rollout(5, 2, shadow=100))
    snapshot = snapshot_of(canary, _loaded(1, 2))
    assert (snapshot.rollout, snapshot.candidate) == (5, None)
    assert [(each.rollout, each.salt) for each in snapshot.shadows] == [(5, "s5")]
    idle = replace(canary, rollout=_rollout(5, 2))
    assert snapshot_of(idle, _loaded(1, 2)).shadows == ()


def test_a_shadows_version_is_held_and_does_not_answer() -> None:
    """The loader keeps it; that it was revoked does not stop the champion."""
    shadowed = replace(_deployment(6, 1), shadows={5: _rollout(5, 2, "shadow", shadow=2_000)})
    snapshot = snapshot_of(shadowed, _loaded(1, 2))
    assert (answering(snapshot), versions_of(snapshot)) == ((1,), (1, 2))
    assert to_drop([1, 2, 3], _deployment(7, 3), (snapshot,)) == ()


def test_a_shadow_is_wanted_as_long_as_the_newest_state_runs_it() -> None:
    """Ended, or set to nothing, it is not scored any more, whatever still waits."""
    shadows = {5: _rollout(5, 2, "shadow", shadow=2_000), 6: _rollout(6, 3, "shadow", shadow=1)}
    newest = replace(_deployment(8, 1), shadows=shadows)
    first, second = snapshot_of(newest, _loaded(1, 2, 3)).shadows
    fewer = replace(newest, shadows={5: replace(shadows[5], shadow=0), 6: shadows[6]})
    assert (is_wanted(first, newest), is_wanted(second, newest)) == (True, True)
    assert (is_wanted(first, fewer), is_wanted(second, fewer)) == (False, True)
    assert not is_wanted(second, _deployment(9, 1))
