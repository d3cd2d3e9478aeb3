"""The loader: newest first, one refusal changes nothing, and only its thread drops a model."""

import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from adapters.object_store import ObjectStore, StoreUnavailable, open_store
from consumer.admission import Limits
from consumer.models import Loader
from deployment.state import Deployment, Release, Rollout, Standing, empty
from scoring.snapshot import Snapshot
from tests.bundles import store_bundle
from tests.fleet import wait_for


class _Patchy:
    """A store that does not answer for some digests: the world outside, not our code."""

    def __init__(self, store: ObjectStore) -> None:
        self.url = store.url
        self.away: set[str] = set()
        self.asked: list[str] = []
        self._store = store

    def get(self, key: str, *, limit: int) -> bytes:
        """The object, unless its bundle is away."""
        self.asked.append(key)
        if any(digest.removeprefix("sha256:") in key for digest in self.away):
            raise StoreUnavailable("the store does not answer")
        return self._store.get(key, limit=limit)


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

    def switch(self, version: int) -> Deployment:
        """The champion is ``version``."""
        now = self.deployment
        self.deployment = replace(
            now, champion=version, previous=now.champion, revision=now.revision + 1
        )
        return self.deployment


@pytest.fixture
def store(tmp_path: Path) -> _Patchy:
    """An empty store that always answers, so far."""
    return _Patchy(open_store((tmp_path / "store").as_uri()))


@pytest.fixture
def loader(store: _Patchy) -> Iterator[Loader]:
    """A running loader."""
    running = Loader(store, "m", Limits(30.0, 64), lambda: None)  # type: ignore[arg-type]
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

    wait_for(f"a snapshot at revision {revision}", look, 10)


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
    wait_for("three versions", lambda: loader.report.prepared == (1, 2, 3), 10)
    assert died_on == [], "a snapshot in use keeps its model"
    in_use = loader.ready
    assert in_use is not None
    loader.using(in_use)
    wait_for("the old model's end", lambda: bool(died_on), 10)
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
    wait_for("the shadow", lambda: loader.ready and loader.ready.shadows, 10)
    assert loader.ready.revision == newest.revision
    assert [shadow.version.version for shadow in loader.ready.shadows] == [2]


def test_what_waits_for_a_shadow_keeps_its_models(
    store: _Patchy, bundle: Callable[[float], str]
) -> None:
    """The loader drops them on its own thread once the shadow has let go and said so."""
    waiting: list[Snapshot] = []
    loader = Loader(
        store,  # type: ignore[arg-type]
        "m",
        Limits(30.0, 64),
        lambda: None,
        lambda: tuple(waiting),
    )
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
    wait_for("three versions", lambda: loader.report.prepared == (1, 2, 3), 10)
    died_on: list[str] = []
    model = waiting[0].champion.model
    weakref.finalize(model, lambda: died_on.append(threading.current_thread().name))
    del model
    waiting.clear()
    loader.look_again()
    wait_for("the old model's end", lambda: bool(died_on), 10)
    assert died_on == ["loader"]
    loader.stop()


def test_a_refused_version_that_the_store_gives_later_is_admitted(
    store: _Patchy, bundle: Callable[[float], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refusal by the store is tried again by itself; the snapshot before stays in the meantime."""
    monkeypatch.setattr("consumer.models.AGAIN_SECONDS", 0.2)
    loader = Loader(store, "m", Limits(0.2, 64), lambda: None)  # type: ignore[arg-type]
    loader.start()
    log = _Log()
    log.release(bundle(1.0))
    loader.consider([log.switch(1)])
    _ready_at(loader, 2)
    gone = bundle(2.0)
    store.away.add(gone)
    passed = [log.release(gone), log.switch(2)]
    loader.consider(passed)
    wait_for("a refusal", lambda: loader.report.refused, 10)
    assert [(r.version, r.rung) for r in loader.report.refused] == [(2, "fetch")]
    assert loader.ready is not None
    assert loader.ready.champion.version == 1
    store.away.clear()
    _ready_at(loader, passed[-1].revision)
    wait_for("no refusal", lambda: not loader.report.refused)
    loader.stop()
