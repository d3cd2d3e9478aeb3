"""The loader: newest first, one refusal changes nothing, and only its thread drops a model."""

import errno
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import psutil
import pytest
import structlog

from adapters.bundle_cache import BundleCache
from adapters.bundles import StoredBundles
from adapters.object_store import ObjectStore, StoreUnavailable, open_store
from consumer.admission import Limits
from consumer.memory import MIB, resident_bytes
from consumer.models import Loader
from consumer.retries import STRUCK_SECONDS
from consumer.threads import NICENESS
from consumer.vetting import NICENESS as TRIAL_NICENESS
from deployment.state import Deployment, Release, Rollout, Standing, empty
from schemas.manifest import GOLDEN_NAME, MODEL_NAME
from scoring.snapshot import Snapshot
from tests.bundles import store_bundle
from tests.fleet import LIMIT_SECONDS, wait_for
from tests.hostile import hostile_of


class _Patchy:
    """A store that does not answer for some digests, and keeps one waiting: the world outside."""

    def __init__(self, store: ObjectStore) -> None:
        self.url = store.url
        self.away: set[str] = set()
        self.asked: list[str] = []
        self.held: str = ""
        self.gate = threading.Event()
        self._store = store

    def get(self, key: str, *, limit: int) -> bytes:
        """The object, unless its bundle is away."""
        self.asked.append(key)
        if any(digest.removeprefix("sha256:") in key for digest in self.away):
            raise StoreUnavailable("the store does not answer")
        if self.held and self.held.removeprefix("sha256:") in key:
            assert self.gate.wait(LIMIT_SECONDS)
        return self._store.get(key, limit=limit)

    def exists(self, _key: str) -> bool:
        """No answer, which takes as long as the gate is closed."""
        assert self.gate.wait(LIMIT_SECONDS)
        raise StoreUnavailable("the store does not answer")


class _Log:
    """A deployment that grows by releases and switches."""

    def __init__(self) -> None:
        self.deployment = replace(empty("m"), log_id="sha256:aa", head="sha256:bb")

    def release(self, digest: str) -> Deployment:
        """The next version, without traffic."""
        now = self.deployment
        version = len(now.releases) + 1
        release = Release(
            version,
            digest,
            Standing.RELEASED,
            now.revision + 1,
            "test",
            datetime(2026, 1, 1, tzinfo=UTC),
            "",
        )
        releases = {**now.releases, version: release}
        self.deployment = replace(now, releases=releases, revision=now.revision + 1)
        return self.deployment

    def shadow(self, version: int) -> Deployment:
        """The version scores everything for nobody to see."""
        now = self.deployment
        name = now.revision + 1
        when = datetime(2026, 1, 1, tzinfo=UTC)
        rollout = Rollout(name, version, "shadow", "s", 0, when, name, shadow=10_000)
        self.deployment = replace(now, shadows={name: rollout}, revision=name)
        return self.deployment

    def end_shadows(self) -> Deployment:
        """Nothing is scored for nobody to see."""
        now = self.deployment
        self.deployment = replace(now, shadows={}, revision=now.revision + 1)
        return self.deployment

    def revoke(self, version: int) -> Deployment:
        """The version must not serve any more."""
        now = self.deployment
        revoked = replace(now.releases[version], standing=Standing.REVOKED)
        self.deployment = replace(
            now, releases={**now.releases, version: revoked}, revision=now.revision + 1
        )
        return self.deployment

    def switch(self, version: int) -> Deployment:
        """The champion is ``version``."""
        now = self.deployment
        self.deployment = replace(
            now, champion=version, previous=now.champion, revision=now.revision + 1
        )
        return self.deployment


LIMITS = Limits(30.0, 64)


def _loader(
    store: ObjectStore | _Patchy,
    limits: Limits = LIMITS,
    also_in_use: Callable[[], Sequence[Snapshot]] = tuple,
) -> Loader:
    bundles = StoredBundles(store)  # type: ignore[arg-type]
    return Loader(bundles, "m", limits, lambda: None, also_in_use)


@pytest.fixture
def store(tmp_path: Path) -> _Patchy:
    """An empty store that always answers, so far."""
    return _Patchy(open_store((tmp_path / "store").as_uri()))


@pytest.fixture
def loader(store: _Patchy) -> Iterator[Loader]:
    """A running loader."""
    running = _loader(store)
    running.start()
    yield running
    running.stop()


@pytest.fixture
def bundle(store: _Patchy) -> Callable[[float], str]:
    """Stores a bundle of a slope; gives its digest."""
    return lambda slope: store_bundle(store._store, "m", slope)


def _ready_at(loader: Loader, revision: int) -> None:
    def look() -> bool:
        return loader.ready is not None and loader.ready.revision == revision

    wait_for(f"a snapshot at revision {revision}", look)


def test_a_champion_becomes_a_snapshot_with_its_stamp(
    loader: Loader, bundle: Callable[[float], str]
) -> None:
    """What is ready names the revision, the version and the stamp of the deployment."""
    log = _Log()
    log.release(bundle(1.0))
    newest = log.switch(1)
    loader.consider([newest])
    _ready_at(loader, newest.revision)
    assert loader.ready is not None
    assert (loader.ready.stamp, loader.ready.champion.version) == (newest.stamp, 1)


def test_a_store_that_hangs_is_looked_for_once_all_is_ready(
    store: _Patchy, bundle: Callable[[float], str], tmp_path: Path
) -> None:
    """All came from the cache: it is ready before anybody asks, and then one line says what is away."""
    log = _Log()
    digest = bundle(1.0)
    log.release(digest)
    folder = tmp_path / "cache"
    warm = BundleCache(store, folder, 2**20)  # type: ignore[arg-type]
    manifest = warm.read_manifest(digest)
    for name in (MODEL_NAME, GOLDEN_NAME):
        warm.read_file(digest, manifest, name)
    loader = Loader(
        BundleCache(store, folder, 2**20),  # type: ignore[arg-type]
        "m",
        LIMITS,
        lambda: None,
    )
    with structlog.testing.capture_logs() as lines:
        loader.start()
        loader.consider([log.switch(1)])
        _ready_at(loader, 2)
        assert "store.unreachable" not in {line["event"] for line in lines}
        store.gate.set()
        wait_for("a word", lambda: "store.unreachable" in {line["event"] for line in lines})
    assert [line["event"] for line in lines].count("store.unreachable") == 1
    loader.stop()


def test_a_newer_revision_does_not_wait_for_an_older_ones_version(
    loader: Loader, store: _Patchy, bundle: Callable[[float], str]
) -> None:
    """A version that the store does not give is left for the one that the log asks for now."""
    log = _Log()
    gone, good = bundle(1.0), bundle(2.0)
    store.away.add(gone)
    log.release(gone)
    loader.consider([log.switch(1)])
    wait_for("an attempt", lambda: len(store.asked) > 0)
    log.release(good)
    newest = log.switch(2)
    loader.consider([newest])
    _ready_at(loader, newest.revision)


def test_what_lies_between_is_applied_only_if_it_costs_nothing(
    loader: Loader, store: _Patchy, bundle: Callable[[float], str]
) -> None:
    """Of the revisions read at once the newest that is prepared already is applied, and none loaded."""
    log = _Log()
    first, second, third = bundle(1.0), bundle(2.0), bundle(3.0)
    log.release(first)
    loader.consider([log.switch(1)])
    _ready_at(loader, 2)
    store.away.update((second, third))
    harmless = log.release(second)
    passed = [harmless, log.switch(2), log.release(third), log.switch(3)]
    asked = len(store.asked)
    loader.consider(passed)
    _ready_at(loader, harmless.revision)
    wait_for("the newest asked for", lambda: any(third[7:] in key for key in store.asked))
    assert not any(second[7:] in key for key in store.asked[asked:])


def test_the_loaders_thread_drops_what_nothing_names(
    loader: Loader, bundle: Callable[[float], str]
) -> None:
    """The answering loop lets go first; the model itself dies on the loader's thread."""
    log = _Log()
    log.release(bundle(1.0))
    loader.consider([log.switch(1)])
    _ready_at(loader, 2)
    in_use = loader.ready
    assert in_use is not None
    loader.using(in_use)
    died_on: list[str] = []
    weakref.finalize(in_use.champion.model, lambda: died_on.append(threading.current_thread().name))
    for version in (2, 3):
        log.release(bundle(float(version)))
        newest = log.switch(version)
        loader.consider([newest])
        _ready_at(loader, newest.revision)
    wait_for("three versions", lambda: loader.report.prepared == (1, 2, 3))
    assert died_on == [], "a snapshot in use keeps its model"
    in_use = loader.ready
    assert in_use is not None
    loader.using(in_use)
    wait_for("the old model's end", lambda: bool(died_on))
    assert died_on == ["loader"]
    assert loader.report.prepared == (2, 3)


def test_a_shadow_joins_the_snapshot_of_its_revision_once_it_is_loaded(
    loader: Loader, store: _Patchy, bundle: Callable[[float], str]
) -> None:
    """The champion does not wait for it: the same revision is published again with the shadow."""
    log = _Log()
    log.release(bundle(1.0))
    log.switch(1)
    slow = bundle(2.0)
    store.away.add(slow)
    log.release(slow)
    newest = log.shadow(2)
    loader.consider([newest])
    _ready_at(loader, newest.revision)
    assert loader.ready is not None
    assert loader.ready.shadows == ()
    store.away.clear()
    wait_for("the shadow", lambda: loader.ready and loader.ready.shadows)
    assert loader.ready.revision == newest.revision
    assert [shadow.version.version for shadow in loader.ready.shadows] == [2]


def test_what_waits_for_a_shadow_keeps_its_models(
    store: _Patchy, bundle: Callable[[float], str]
) -> None:
    """The loader drops them on its own thread once the shadow has let go and said so."""
    waiting: list[Snapshot] = []
    loader = _loader(store, also_in_use=lambda: tuple(waiting))
    loader.start()
    log = _Log()
    log.release(bundle(1.0))
    loader.consider([log.switch(1)])
    _ready_at(loader, 2)
    assert loader.ready is not None
    waiting.append(loader.ready)
    for version in (2, 3):
        log.release(bundle(float(version)))
        newest = log.switch(version)
        loader.consider([newest])
        _ready_at(loader, newest.revision)
        loader.using(loader.ready)
    loader.look_again()
    wait_for("three versions", lambda: loader.report.prepared == (1, 2, 3))
    died_on: list[str] = []
    model = waiting[0].champion.model
    weakref.finalize(model, lambda: died_on.append(threading.current_thread().name))
    del model
    waiting.clear()
    loader.look_again()
    wait_for("the old model's end", lambda: bool(died_on))
    assert died_on == ["loader"]
    loader.stop()


def test_a_refused_version_that_the_store_gives_later_is_admitted(
    store: _Patchy, bundle: Callable[[float], str]
) -> None:
    """A refusal by the store is tried again by itself; the snapshot before stays in the meantime."""
    loader = _loader(store, replace(LIMITS, seconds=0.2, again_seconds=0.2))
    loader.start()
    log = _Log()
    log.release(bundle(1.0))
    loader.consider([log.switch(1)])
    _ready_at(loader, 2)
    gone = bundle(2.0)
    store.away.add(gone)
    passed = [log.release(gone), log.switch(2)]
    loader.consider(passed)
    wait_for("a refusal", lambda: loader.report.refused)
    assert [(r.version, r.rung) for r in loader.report.refused] == [(2, "fetch")]
    assert loader.ready is not None
    assert loader.ready.champion.version == 1
    store.away.clear()
    _ready_at(loader, passed[-1].revision)
    wait_for("no refusal", lambda: not loader.report.refused)
    loader.stop()


def _refused(loader: Loader) -> list[tuple[int, str]]:
    return [(each.version, each.rung) for each in loader.report.refused]


def test_a_refusal_outlives_the_next_release(
    loader: Loader, store: _Patchy, bundle: Callable[[float], str]
) -> None:
    """Release 2 cannot be run, release 3 can: 2 is still refused, until it may not serve any more."""
    log = _Log()
    log.release(bundle(1.0))
    log.switch(1)
    loader.consider([log.release(store_bundle(store._store, "m", 2.0, opset=99))])
    wait_for("the refusal", lambda: _refused(loader) == [(2, "runtime")])
    loader.consider([log.release(bundle(3.0))])
    wait_for("the next one", lambda: 3 in loader.report.prepared)
    assert _refused(loader) == [(2, "runtime")]
    assert loader.report.passed == (1, 3)
    loader.consider([log.revoke(2)])
    wait_for("no verdict", lambda: not loader.report.refused)


def test_what_passed_is_known_after_it_was_dropped(
    loader: Loader, bundle: Callable[[float], str]
) -> None:
    """Release 2 is loaded while it is the newest; release 3 takes its place, and its verdict stays."""
    log = _Log()
    log.release(bundle(1.0))
    log.switch(1)
    loader.consider([log.release(bundle(2.0))])
    wait_for("the newest", lambda: loader.report.prepared == (1, 2))
    loader.consider([log.release(bundle(3.0))])
    wait_for("the next one", lambda: loader.report.prepared == (1, 3))
    assert loader.report.passed == (1, 2, 3)
    newest = log.switch(2)
    loader.consider([newest])
    _ready_at(loader, newest.revision)


def test_a_loader_that_starts_late_judges_the_old_releases_last(
    loader: Loader, store: _Patchy, bundle: Callable[[float], str]
) -> None:
    """What is wanted first, then the newest first; none of the old ones stays in memory."""
    log = _Log()
    digests = [
        bundle(1.0),
        store_bundle(store._store, "m", 2.0, opset=99),
        bundle(3.0),
        bundle(4.0),
    ]
    for digest in digests:
        log.release(digest)
    prepared: list[tuple[int, ...]] = []
    loader._on_change = lambda: prepared.append(loader.report.prepared)
    loader.consider([log.switch(1)])
    wait_for("all verdicts", lambda: loader.report.passed == (1, 3, 4) and loader.report.refused)
    assert _refused(loader) == [(2, "runtime")]
    assert set(prepared) <= {(), (1,), (1, 4)}
    asked = list(dict.fromkeys(key.split("/")[1] for key in store.asked))
    assert asked == [digests[n - 1].removeprefix("sha256:") for n in (1, 4, 3, 2)]


def test_each_release_is_judged_once(
    loader: Loader, store: _Patchy, bundle: Callable[[float], str]
) -> None:
    """A verdict that stands is no reason to ask the store again."""
    log = _Log()
    digests = [bundle(1.0), bundle(2.0), bundle(3.0)]
    for digest in digests:
        log.release(digest)
    loader.consider([log.switch(1)])
    wait_for("all verdicts", lambda: loader.report.passed == (1, 2, 3))
    asked = len(store.asked)
    loader.consider([log.release(bundle(4.0))])
    wait_for("the new one", lambda: loader.report.prepared == (1, 4))
    assert loader.report.passed == (1, 2, 3, 4)
    assert not any(digest[7:] in key for key in store.asked[asked:] for digest in digests)


def test_what_nobody_wants_is_asked_for_less_often(
    store: _Patchy, bundle: Callable[[float], str]
) -> None:
    """A bundle that is gone is tried again in the short pause only once something wants it."""
    loader = _loader(store, replace(LIMITS, seconds=0.05, again_seconds=0.05))
    loader.start()
    log = _Log()
    old, good, gone = bundle(1.0), bundle(2.0), bundle(3.0)
    store.away.update((old, gone))
    for digest in (old, good, gone):
        log.release(digest)

    def tries(digest: str) -> int:
        return sum(digest[7:] in key for key in store.asked)

    loader.consider([log.switch(2)])
    wait_for("both refusals", lambda: _refused(loader) == [(1, "fetch"), (3, "fetch")])
    then = tries(gone)
    wait_for("some more tries", lambda: tries(gone) >= then + 5)
    assert tries(old) == 1
    loader.consider([log.shadow(1)])
    wait_for("tries of what is wanted now", lambda: tries(old) >= 3)
    store.away.clear()
    wait_for("everything", lambda: loader.report.prepared == (1, 2, 3))
    assert loader.report.refused == ()
    loader.stop()


def test_what_is_loaded_is_published_while_another_version_is_downloaded(
    loader: Loader, store: _Patchy, bundle: Callable[[float], str]
) -> None:
    """A switch to a version that is there already does not wait for the loader's thread."""
    log = _Log()
    log.release(bundle(1.0))
    log.switch(1)
    loader.consider([log.release(bundle(2.0))])
    wait_for("two versions", lambda: loader.report.prepared == (1, 2))
    store.held = bundle(3.0)
    loader.consider([log.release(store.held)])
    wait_for("a download", lambda: any(store.held[7:] in key for key in store.asked))
    newest = log.switch(2)
    loader.consider([newest])
    ready = loader.ready
    store.gate.set()
    assert ready is not None
    assert (ready.revision, ready.champion.version) == (newest.revision, 2)


def test_what_hangs_is_tried_twice_and_then_left_alone_for_long(store: _Patchy) -> None:
    """Two strikes; the champion stays, and the next release is not kept waiting."""
    limits = replace(LIMITS, vet_seconds=1.0, again_seconds=0.1)
    loader = _loader(store, limits)
    loader.start()
    log = _Log()
    log.release(store_bundle(store._store, "m", 1.0))
    loader.consider([log.switch(1)])
    _ready_at(loader, 2)
    made = hostile_of("m", "hang", Random(3))
    log.release(made.store(store._store))
    with structlog.testing.capture_logs() as lines:
        loader.consider([log.switch(2)])
        wait_for("two strikes", lambda: loader.refused_total.get("vet") == 2)
    assert _refused(loader) == [(2, "vet")]
    refusals = [line for line in lines if line["event"] == "model.refused"]
    assert [line["tried_again"] for line in refusals] == [True, True]
    assert refusals[0]["again_seconds"] < 1 < STRUCK_SECONDS / 2 < refusals[1]["again_seconds"]
    loader.consider([log.release(store_bundle(store._store, "m", 3.0))])
    wait_for("the next one", lambda: loader.report.prepared == (1, 3))
    assert loader.refused_total == {"vet": 2}
    assert loader.ready is not None
    assert loader.ready.champion.version == 1
    loader.stop()


def test_what_fell_does_not_overtake_a_trial(
    store: _Patchy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The champion's bundle is gone and it is due every moment; what hangs still gets its strike."""
    monkeypatch.setattr("consumer.vetting.PATIENCE_SECONDS", 0.1)
    loader = _loader(store, replace(LIMITS, vet_seconds=2.0, again_seconds=0.1))
    loader.start()
    log = _Log()
    log.release(f"sha256:{'0' * 64}")
    loader.consider([log.switch(1)])
    wait_for("some tries", lambda: loader.refused_total.get("fetch", 0) >= 3)
    loader.consider([log.release(hostile_of("m", "hang", Random(3)).store(store._store))])
    wait_for("a strike", lambda: loader.refused_total.get("vet"))
    wait_for("its report", lambda: _refused(loader) == [(1, "fetch"), (2, "vet")])
    loader.stop()


def test_a_trial_is_given_up_for_what_was_never_tried_or_once_nobody_needs_it(
    store: _Patchy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next release does not wait for one that hangs, nor does a revoked one go on."""
    monkeypatch.setattr("consumer.vetting.PATIENCE_SECONDS", 0.1)
    loader = _loader(store, replace(LIMITS, vet_seconds=60.0))
    loader.start()
    log = _Log()
    log.release(store_bundle(store._store, "m", 1.0))
    loader.consider([log.switch(1)])
    _ready_at(loader, 2)
    hangs = hostile_of("m", "hang", Random(3)).store(store._store)

    def fetched() -> int:
        return sum(hangs[7:] in key and "golden" in key for key in store.asked)

    with structlog.testing.capture_logs() as lines:
        loader.consider([log.release(hangs)])
        wait_for("its trial", lambda: fetched() == 1)
        loader.consider([log.release(store_bundle(store._store, "m", 3.0))])
        wait_for("the next one", lambda: loader.report.prepared == (1, 3))
        wait_for("its trial again", lambda: fetched() == 2)
        loader.consider([log.revoke(2)])
        wait_for("its end", lambda: _overtaken(lines) == [2, 2])
    assert loader.refused_total == {}
    loader.stop()


def _overtaken(lines: Sequence[MutableMapping[str, Any]]) -> list[int]:
    return [line["version"] for line in lines if line["event"] == "model.overtaken"]


@pytest.mark.skipif(sys.platform != "linux", reason="a thread has no niceness of its own elsewhere")
def test_a_trial_steps_back_as_far_as_it_can_once_there_are_answers(
    store: _Patchy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An instance that starts disturbs nobody, and its first model is not kept waiting."""
    monkeypatch.setattr("consumer.vetting.PATIENCE_SECONDS", 0.1)
    before = set(psutil.Process().children())

    def is_tried_at(niceness: int) -> bool:
        trials = set(psutil.Process().children()) - before
        return [os.getpriority(os.PRIO_PROCESS, trial.pid) for trial in trials] == [niceness]

    loader = _loader(store, replace(LIMITS, vet_seconds=60.0))
    loader.start()
    log = _Log()
    hangs = hostile_of("m", "hang", Random(3)).store(store._store)
    log.release(hangs)
    loader.consider([log.switch(1)])
    wait_for("its bytes", lambda: any(hangs[7:] in k and "golden" in k for k in store.asked))
    assert is_tried_at(NICENESS)
    log.release(store_bundle(store._store, "m", 2.0))
    newest = log.switch(2)
    loader.consider([newest])
    _ready_at(loader, newest.revision)
    wait_for("a trial that steps back", lambda: is_tried_at(TRIAL_NICENESS))
    loader.stop()


@pytest.mark.parametrize(
    ("error", "rung"),
    [
        (OSError(errno.EMFILE, "too many open files"), "load"),
        (MemoryError("no page left"), "memory"),
    ],
)
def test_what_the_system_lacks_says_nothing_of_the_model(
    store: _Patchy,
    bundle: Callable[[float], str],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    rung: str,
) -> None:
    """An error that nobody foresaw is a refusal, and one that passes is tried again."""
    loader = _loader(store, replace(LIMITS, again_seconds=0.1))
    log = _Log()
    log.release(bundle(1.0))

    def fail(*_: object) -> None:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr("consumer.admission.open_version", fail)
        loader.start()
        loader.consider([log.switch(1)])
        wait_for("two refusals", lambda: loader.refused_total.get(rung, 0) >= 2)
        assert _refused(loader) == [(1, rung)]
    _ready_at(loader, 2)
    wait_for("no refusal", lambda: not loader.report.refused)
    loader.stop()


def test_falls_and_stages_are_counted(loader: Loader, store: _Patchy) -> None:
    """For the metrics: refusals by rung, seconds by stage, models in memory."""
    log = _Log()
    log.release(store_bundle(store._store, "m", 1.0))
    log.switch(1)
    loader.consider([log.release(store_bundle(store._store, "m", 2.0, golden_slope=3.0))])
    wait_for("a fall", lambda: loader.refused_total)
    assert (loader.refused_total, loader.loaded) == ({"golden": 1}, 1)
    assert set(loader.stage_seconds) == {"fetch", "vet", "load", "check", "warm-up"}
    assert all(times == 1 and seconds > 0 for times, seconds in loader.stage_seconds.values())


def test_what_was_dropped_is_given_back_and_makes_room_for_what_fell_from_memory(
    store: _Patchy,
) -> None:
    """Two large models do not fit; once the first is not needed any more the second is looked at."""
    large = 60 * MIB
    megabytes = (resident_bytes() + 4 * large) // MIB
    limits = replace(LIMITS, memory_megabytes=megabytes, again_seconds=600.0)
    loader = _loader(store, limits)
    loader.start()
    log = _Log()
    log.release(store_bundle(store._store, "m", 1.0))
    log.switch(1)
    log.release(store_bundle(store._store, "m", 2.0, table_bytes=large))
    newest = log.shadow(2)
    loader.consider([newest])
    wait_for("the first", lambda: loader.report.prepared == (1, 2))
    loader.using(_snapshot(loader))
    log.release(store_bundle(store._store, "m", 3.0, table_bytes=large))
    loader.consider([log.deployment])
    wait_for("no room", lambda: _refused(loader) == [(3, "memory")])
    with structlog.testing.capture_logs() as lines:
        newest = log.end_shadows()
        loader.consider([newest])
        _ready_at(loader, newest.revision)
        loader.using(_snapshot(loader))
        wait_for("room", lambda: loader.report.prepared == (1, 3))
    [dropped] = [line for line in lines if line["event"] == "model.dropped"]
    assert dropped["version"] == 2
    assert dropped["resident"] <= dropped["resident_before"] - large
    assert not loader.report.refused
    loader.stop()


def _snapshot(loader: Loader) -> Snapshot:
    assert loader.ready is not None
    return loader.ready
