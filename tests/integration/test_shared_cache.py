"""The cache of bundles among processes: killed and stopped ones, full disks, restarts without a store."""

import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from adapters.bundle_cache import BundleCache
from adapters.object_store import S3Settings, open_store
from schemas.manifest import GOLDEN_NAME, MODEL_NAME
from tests.bundles import store_bundle
from tests.fleet import LIMIT_SECONDS, Harness, wait_for
from tests.s3_faults import Down, Hang, S3Faults, Slow

pytestmark = pytest.mark.stack

PLENTY = 100 * 2**20
SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture
def spawned() -> Iterator[Callable[..., BaseProcess]]:
    """Starts processes that are ended with the test."""
    started: list[BaseProcess] = []

    def start(target: Callable[..., None], *arguments: object) -> BaseProcess:
        process = SPAWN.Process(target=target, args=arguments, daemon=True)
        process.start()
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.join()


def _read(store: tuple[str, S3Settings], folder: Path, limit: int, digests: list[str]) -> None:
    cache = BundleCache(open_store(*store), folder, limit)
    for digest in digests:
        manifest = cache.read_manifest(digest)
        for name in (MODEL_NAME, GOLDEN_NAME):
            cache.read_file(digest, manifest, name)


def _read_for_ever(
    store: tuple[str, S3Settings], folder: Path, limit: int, digests: list[str], seed: int
) -> None:
    chosen = random.Random(seed)
    while True:
        _read(store, folder, limit, chosen.sample(digests, len(digests)))


def test_processes_of_one_machine_fetch_a_bundle_once(
    behind: tuple[str, S3Settings],
    faults: S3Faults,
    tmp_path: Path,
    spawned: Callable[..., BaseProcess],
) -> None:
    """Three processes that start together ask the server once for each of the three files."""
    digest = store_bundle(open_store(*behind), "m", 1.0, table_bytes=1_000_000)
    faults.asked.clear()
    faults.fault = Slow(rate=1e6, delay=0.3)  # so that they meet
    readers = [spawned(_read, behind, tmp_path / "cache", PLENTY, [digest]) for _ in range(3)]
    for reader in readers:
        reader.join(LIMIT_SECONDS)
    assert [reader.exitcode for reader in readers] == [0] * 3
    assert sorted(asked.path.rsplit("/", 1)[1] for asked in faults.asked) == [
        "golden.jsonl",
        "manifest.json",
        "model.onnx",
    ]


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGSTOP])
def test_a_fetch_that_ends_half_way_blocks_nobody(
    behind: tuple[str, S3Settings],
    faults: S3Faults,
    tmp_path: Path,
    spawned: Callable[..., BaseProcess],
    end: signal.Signals,
) -> None:
    """A process killed or stopped while it fetches leaves others able to read, and nothing to clean."""
    folder = tmp_path / "cache"
    digest = store_bundle(open_store(*behind), "m", 1.0)
    faults.asked.clear()
    faults.fault = Hang()
    holder = spawned(_read, behind, folder, PLENTY, [digest])
    wait_for("a fetch under way", lambda: faults.asked)
    assert holder.pid is not None
    os.kill(holder.pid, end)
    faults.fault = None
    cache = BundleCache(open_store(*behind), folder, PLENTY, wait_seconds=1)
    manifest = cache.read_manifest(digest)
    assert len(cache.read_file(digest, manifest, MODEL_NAME)) == manifest.files[MODEL_NAME].size
    holder.kill()
    holder.join()
    cache.read_manifest(digest)
    cache.read_file(digest, manifest, GOLDEN_NAME)
    assert [path.name for path in folder.iterdir() if path.suffix] == []
    assert len(list(folder.iterdir())) == 3


def test_kills_and_evictions_at_once_are_harmless(
    tmp_path: Path, spawned: Callable[..., BaseProcess]
) -> None:
    """Readers that are killed at random over a cache too small for all never fail, nor exceed it."""
    folder, limit = tmp_path / "cache", 250_000
    place = ((tmp_path / "store").as_uri(), S3Settings())
    store = open_store(*place)
    digests = [store_bundle(store, "m", slope, table_bytes=60_000) for slope in range(1, 9)]
    chosen = random.Random(7)
    readers = [spawned(_read_for_ever, place, folder, limit, digests, seed) for seed in range(3)]
    wait_for("a cache in use", lambda: folder.is_dir() and len(list(folder.iterdir())) > 6)
    for kill in range(6):
        time.sleep(chosen.uniform(0.05, 0.2))
        victim = readers.pop(0)
        assert victim.exitcode is None, "a reader failed"
        victim.kill()
        victim.join()
        readers.append(spawned(_read_for_ever, place, folder, limit, digests, 10 + kill))
    _read(place, folder, limit, digests)
    for reader in readers:
        assert reader.exitcode is None, "a reader failed"
        reader.kill()
        reader.join()
    _read(place, folder, limit, digests)
    kept = list(folder.iterdir())
    assert [path.name for path in kept if path.suffix] == []
    assert sum(path.stat().st_size for path in kept) <= limit


def test_a_consumer_starts_from_the_cache_while_the_store_is_away(
    harness_behind: Harness, faults: S3Faults
) -> None:
    """Restarted with the S3 server down, a consumer answers with the version that it had."""
    harness_behind.release(store_bundle(harness_behind.store, harness_behind.model, 2.0))
    harness_behind.start().wait_for_line("model.prepared")
    harness_behind.instances[0].kill()
    faults.fault = Down()
    faults.asked.clear()
    second = harness_behind.start()
    harness_behind.send(10)
    assert {forecast.version for forecast in harness_behind.forecasts(10)} == {1}
    assert not second.lines("model.refused")
    assert not faults.asked


def test_a_consumer_whose_cache_cannot_be_written_goes_on_without(harness_behind: Harness) -> None:
    """Where the cache cannot be, versions are prepared all the same, and one log line says it."""
    taken = harness_behind.folder / "taken"
    taken.write_bytes(b"")
    instance = harness_behind.start(CONSUMER__CACHE_DIR=str(taken))
    for slope in (1.0, 2.0):
        bundle = store_bundle(harness_behind.store, harness_behind.model, slope)
        harness_behind.wait_for_revision(harness_behind.release(bundle))
    [line] = instance.lines("cache.unusable")
    assert line["folder"] == str(taken)
    assert not instance.lines("model.refused")
