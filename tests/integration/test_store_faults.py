"""The S3 server away, slow, throttled, hanging, cutting and flipping, seen by the store and by consumers.

The short forms are in the default run. The long ones, a minute of each fault, are marked ``chaos``.
"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from adapters.bundle_cache import BundleCache
from adapters.bundles import StoredBundles, read_manifest
from adapters.object_store import ObjectStore, S3Settings, StoreUnavailable, open_store
from adapters.timed_reads import reading_by
from schemas.manifest import MODEL_NAME
from tests.bundles import make_bundle, store_bundle
from tests.fleet import LIMIT_SECONDS, Harness, wait_for
from tests.s3_faults import (
    THROTTLED,
    Down,
    Drip,
    Fail,
    Fault,
    Flip,
    Hang,
    S3Faults,
    Slow,
    Truncate,
)

pytestmark = pytest.mark.stack

RATE = 300
RETURN_SECONDS = 10.0
"""A candidate is prepared this long after the store's return at the latest, by itself, on a machine that
does nothing else."""

QUICK: dict[str, Fault] = {
    "down": Down(),
    "500": Fail(),
    "throttled": THROTTLED,
    "truncated": Truncate(100),
    "flipped": Flip(),
}


@pytest.fixture
def store(behind: tuple[str, S3Settings]) -> ObjectStore:
    """An empty store behind the proxy."""
    return open_store(*behind)


def test_the_proxy_changes_nothing_while_all_is_well(store: ObjectStore, faults: S3Faults) -> None:
    """Puts, reads, looks, listings and refusals pass, signed as they were."""
    assert store.put_if_absent("a/b", b"content") is True
    assert store.put_if_absent("a/b", b"other") is False
    assert store.get("a/b", limit=100) == b"content"
    assert (store.exists("a/b"), store.exists("a/c")) == (True, False)
    assert list(store.list()) == ["a/b"]
    assert {asked.method for asked in faults.asked} == {"PUT", "GET", "HEAD"}


@pytest.mark.parametrize("fault", QUICK)
def test_a_fault_may_pass_and_is_never_believed(
    store: ObjectStore, faults: S3Faults, tmp_path: Path, fault: str
) -> None:
    """Tried three times, then unavailable; nothing of it is kept, and what follows is right."""
    manifest, files = make_bundle("m", 1.0)
    digest = store_bundle(store, "m", 1.0)
    cache = BundleCache(store, tmp_path / "cache", 2**20)
    faults.asked.clear()
    faults.fault = QUICK[fault]
    with pytest.raises(StoreUnavailable):
        cache.read_manifest(digest)
    with pytest.raises(StoreUnavailable):
        cache.read_file(digest, manifest, MODEL_NAME)
    assert len(faults.asked) == (0 if fault == "down" else 3 * 2)
    assert list((tmp_path / "cache").iterdir()) == []
    faults.fault = None
    assert cache.read_manifest(digest) == manifest
    assert cache.read_file(digest, manifest, MODEL_NAME) == files[MODEL_NAME]


def test_a_server_that_fails_now_and_then_is_not_noticed(
    store: ObjectStore, faults: S3Faults
) -> None:
    """Where a fifth of the requests is throttled, a read is tried again and gives what is stored."""
    digest = store_bundle(store, "m", 1.0)
    faults.asked.clear()
    faults.fault = Fail(503, "SlowDown", share=0.2)
    for _ in range(20):
        read_manifest(store, digest)
    assert len(faults.asked) > 20


def test_those_who_fail_together_do_not_return_together(
    store: ObjectStore, faults: S3Faults
) -> None:
    """The pauses between tries are drawn at random: calls that began at once end apart."""
    faults.fault = THROTTLED
    start = threading.Barrier(12)

    def seconds(_number: int) -> float:
        start.wait(timeout=LIMIT_SECONDS)
        began = time.monotonic()
        with pytest.raises(StoreUnavailable):
            store.get("key", limit=100)
        return time.monotonic() - began

    with ThreadPoolExecutor(12) as threads:
        took = list(threads.map(seconds, range(12)))
    assert max(took) - min(took) > 0.05


def test_a_slow_server_is_waited_for(store: ObjectStore, faults: S3Faults) -> None:
    """Answers that begin late and come slowly are read to their end."""
    digest = store_bundle(store, "m", 1.0, table_bytes=200_000)
    bundles = StoredBundles(store)
    faults.fault = Slow(rate=400_000, delay=0.2)
    manifest = bundles.read_manifest(digest)
    assert len(bundles.read_file(digest, manifest, MODEL_NAME)) == manifest.files[MODEL_NAME].size


@pytest.mark.slow
def test_a_server_that_hangs_is_asked_once_a_call(store: ObjectStore, faults: S3Faults) -> None:
    """No answer costs a call one timeout and no second try: the rest of the time is the caller's."""
    store.put_if_absent("key", b"content")
    faults.asked.clear()
    faults.fault = Hang()
    with pytest.raises(StoreUnavailable, match="does not answer"):
        store.get("key", limit=100)
    assert len(faults.asked) == 1


DRIPS: dict[str, Fault] = {
    "head": Drip(after=20, seconds=0.5),
    "body": Drip(after=2_000, seconds=0.5),
    "end": Drip(after=4_000_000, seconds=0.5),
}
"""Each would take an hour at the least."""


@pytest.mark.parametrize("fault", DRIPS)
def test_a_read_ends_when_its_caller_wants_it_to(
    store: ObjectStore, faults: S3Faults, fault: str
) -> None:
    """Wherever an answer begins to drip, a read has the time that it is given, and no second try."""
    store.put_if_absent("key", bytes(5_000_000))
    faults.asked.clear()
    faults.fault = DRIPS[fault]
    began = time.monotonic()
    with pytest.raises(StoreUnavailable), reading_by(began + 1):
        store.get("key", limit=5_000_000)
    assert time.monotonic() - began < LIMIT_SECONDS
    assert len(faults.asked) == 1


USES: dict[str, Callable[[ObjectStore], object]] = {
    "get": lambda store: store.get("key", limit=5_000_000),
    "exists": lambda store: store.exists("key"),
    "list": lambda store: list(store.list()),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("use", "fault"),
    [
        *(("get", drip) for drip in DRIPS.values()),
        ("get", Slow(rate=1_000)),
        ("get", Slow(rate=50_000)),
        ("exists", DRIPS["head"]),
        ("list", DRIPS["head"]),
        ("list", Drip(after=500, seconds=0.5)),
    ],
)
def test_an_answer_that_drips_is_given_up(
    store: ObjectStore, faults: S3Faults, use: str, fault: Fault
) -> None:
    """A server that sends at a trickle, from wherever on, is as good as one that hangs."""
    store.put_if_absent("key", bytes(5_000_000))
    faults.fault = fault
    began = time.monotonic()
    with pytest.raises(StoreUnavailable):
        USES[use](store)
    seconds = time.monotonic() - began
    print(f"\n{use} under {fault}: given up after {seconds:.1f} s")
    assert seconds < LIMIT_SECONDS


def _release_during(harness: Harness, faults: S3Faults, fault: Fault, seconds: float) -> float:
    """Release a second version while the store is at fault for that long, under a steady stream.

    Returns the seconds from the store's return to the version's being prepared.
    """
    harness.release(store_bundle(harness.store, harness.model, 1.0))
    # So that a try at fetching ends about when the store is back, at the least lucky moment.
    instance = harness.start(CONSUMER__LOAD_TIMEOUT_MS=str(int(seconds * 1_000)))
    harness.wait_until_ready()
    with harness.stream(RATE) as stream:
        faults.fault = fault
        began, asked = time.monotonic(), len(faults.asked)
        revision = harness.release(store_bundle(harness.store, harness.model, 2.0))
        wait_for("the fault's end", lambda: time.monotonic() - began > seconds)
        tries = len(faults.asked) - asked
        mark = stream.sent
        served = {each.version for each in harness.forecasts(mark)}
        assert served == {1}, "the champion serves all along"
        assert len(instance.lines("model.prepared")) == 1
        faults.fault = None
        healed = time.monotonic()
        try:
            wait_for("a second version", lambda: len(instance.lines("model.prepared")) == 2)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{instance.text[-4_000:]}") from None
        back = time.monotonic() - healed
        harness.wait_for_revision(revision)
        wait_for("more requests", lambda: stream.sent > mark + RATE)
    report = harness.verify()
    assert report.clean, report.findings
    assert set(report.versions) == {1, 2}
    print(f"\n{fault} for {seconds:g} s: {tries} requests meanwhile, prepared {back:.2f} s after")
    return back


def test_a_candidate_is_prepared_by_itself_once_the_store_is_back(
    harness_behind: Harness, faults: S3Faults
) -> None:
    """With S3 away for 3 s during a release the champion serves, and the candidate follows."""
    _release_during(harness_behind, faults, Down(), 3.0)


@pytest.mark.chaos
@pytest.mark.parametrize(
    "fault",
    [
        Down(),
        Hang(),
        Slow(rate=100),
        Fail(),
        THROTTLED,
        Truncate(100),
        Flip(),
    ],
    ids=["down", "hang", "slow", "500", "throttled", "truncated", "flipped"],
)
def test_a_minute_of_any_fault_ends_by_itself(
    harness_behind: Harness, faults: S3Faults, fault: Fault
) -> None:
    """With S3 at fault for 60 s during a release the champion serves, and the candidate follows."""
    assert _release_during(harness_behind, faults, fault, 60.0) <= RETURN_SECONDS
