"""The cache of bundles on a file store: what it serves, believes and removes, and what stops it."""

import fcntl
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from adapters.bundle_cache import BundleCache, open_bundles
from adapters.bundles import BundleDamaged, Bundles, StoredBundles
from adapters.object_store import ObjectStore, StoreUnavailable, open_store
from adapters.settings import load_settings
from schemas.errors import ModelwireError, NotFound, UsageProblem
from schemas.manifest import GOLDEN_NAME, MANIFEST_NAME, MODEL_NAME, digest_of
from tests.bundles import store_bundle, store_corrupt_bundle
from tests.fleet import LIMIT_SECONDS

PLENTY = 100 * 2**20


class Counted:
    """A store that counts what is read, and can be away."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self.url = store.url
        self.read: list[str] = []
        self.looked = 0
        self.away = False
        self.seconds = 0.0

    def get(self, key: str, *, limit: int) -> bytes:
        """Reads, after ``seconds``."""
        if self.away:
            raise StoreUnavailable("away")
        self.read.append(key.rsplit("/", 1)[1])
        time.sleep(self.seconds)
        return self._store.get(key, limit=limit)

    def put_if_absent(self, key: str, content: bytes) -> bool:
        """Stores."""
        return self._store.put_if_absent(key, content)

    def list(self, folder: str = "") -> Iterator[str]:
        """Lists."""
        return self._store.list(folder)

    def exists(self, key: str) -> bool:
        """Looks."""
        self.looked += 1
        if self.away:
            raise StoreUnavailable("away")
        return self._store.exists(key)


@pytest.fixture
def store(tmp_path: Path) -> Counted:
    """An empty store."""
    return Counted(open_store((tmp_path / "store").as_uri()))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the cache will be."""
    return tmp_path / "state" / "cache"


def read_all(bundles: Bundles, digest: str) -> dict[str, bytes]:
    """The files of a bundle, as a consumer asks for them."""
    manifest = bundles.read_manifest(digest)
    return {name: bundles.read_file(digest, manifest, name) for name in (MODEL_NAME, GOLDEN_NAME)}


def kept_bytes(folder: Path) -> int:
    """What the cache holds."""
    return sum(each.stat().st_size for each in folder.iterdir())


def file_of(folder: Path, content: bytes) -> Path:
    """Where the cache keeps this content."""
    return folder / digest_of(content).removeprefix("sha256:")


def test_what_was_read_once_needs_no_store(store: Counted, folder: Path) -> None:
    """A second instance, and one that starts while the store is away, read what the first fetched."""
    digest = store_bundle(store, "m", 1.0)
    first = read_all(BundleCache(store, folder, PLENTY), digest)
    assert store.read == [MANIFEST_NAME, MODEL_NAME, GOLDEN_NAME]
    store.away = True
    assert read_all(BundleCache(store, folder, PLENTY), digest) == first
    assert read_all(StoredBundles(open_store(store.url)), digest) == first


def test_a_store_that_is_away_and_not_missed_is_said_once(store: Counted, folder: Path) -> None:
    """Not before anything was read, and not where the store itself was asked, which shows it."""
    digest = store_bundle(store, "m", 1.0)
    cold = BundleCache(store, folder, PLENTY)
    read_all(cold, digest)
    store.away = True
    warm = BundleCache(store, folder, PLENTY)
    with capture_logs() as lines:
        cold.look_at_store()
        warm.look_at_store()
        assert (lines, store.looked) == ([], 0)
        read_all(warm, digest)
        warm.look_at_store()
        warm.look_at_store()
    said = [(line["event"], line["log_level"], line["problem"]) for line in lines]
    assert said == [("store.unreachable", "warning", "away")]
    assert store.looked == 1
    store.away = False
    warm = BundleCache(store, folder, PLENTY)
    read_all(warm, digest)
    with capture_logs() as lines:
        warm.look_at_store()
    assert (lines, store.looked) == ([], 2)


@pytest.mark.parametrize("damage", ["flipped", "cut", "grown", "empty"])
def test_a_damaged_file_is_fetched_anew(store: Counted, folder: Path, damage: str) -> None:
    """What does not hash to its name is said, dropped and replaced; it is never handed out."""
    digest = store_bundle(store, "m", 1.0)
    cache = BundleCache(store, folder, PLENTY)
    content = read_all(cache, digest)[MODEL_NAME]
    path = file_of(folder, content)
    path.write_bytes(
        {
            "flipped": bytes([content[0] ^ 1]) + content[1:],
            "cut": content[:-1],
            "grown": content + b"x",
            "empty": b"",
        }[damage]
    )
    store.read.clear()
    with capture_logs() as lines:
        assert read_all(cache, digest)[MODEL_NAME] == content
    assert store.read == [MODEL_NAME]
    assert [(line["event"], line["file"]) for line in lines] == [("cache.damaged", str(path))]
    assert path.read_bytes() == content


def test_the_limit_holds_and_the_oldest_use_goes_first(store: Counted, folder: Path) -> None:
    """The cache stays under its limit; what was read lately stays, what was not goes."""
    digests = [store_bundle(store, "m", slope, table_bytes=100_000) for slope in range(1, 8)]
    cache = BundleCache(store, folder, 350_000)
    contents = []
    for digest in digests:
        contents.append(read_all(cache, digest)[MODEL_NAME])
        assert kept_bytes(folder) <= 350_000
        read_all(cache, digests[0])
    kept = [number for number, each in enumerate(contents) if file_of(folder, each).exists()]
    assert kept == [0, 5, 6]
    assert store.read.count(MODEL_NAME) == len(digests), "the first never had to be fetched again"


def test_a_file_over_the_limit_is_not_kept(store: Counted, folder: Path) -> None:
    """A model larger than the whole cache is fetched each time, waits for none and drives none out."""
    small, large = (
        store_bundle(store, "m", slope, table_bytes=size)
        for slope, size in ((1, 400), (2, 200_000))
    )
    cache = BundleCache(store, folder, 100_000)
    read_all(cache, small)
    content = read_all(cache, large)[MODEL_NAME]
    store.read.clear()
    with file_of(folder, content).with_suffix(".draft").open("wb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with capture_logs() as lines:
            read_all(cache, large)
    read_all(cache, small)
    assert store.read == [MODEL_NAME]
    assert lines == []


def test_a_manifest_over_the_limit_is_not_kept(store: Counted, folder: Path) -> None:
    """A limit of less than a manifest keeps nothing, and the bundle is read all the same."""
    digest = store_bundle(store, "m", 1.0)
    assert read_all(BundleCache(store, folder, 10), digest)
    assert list(folder.iterdir()) == []


def test_of_many_readers_one_fetches(store: Counted, folder: Path) -> None:
    """Eight readers that start together cost the store one read a file."""
    digest = store_bundle(store, "m", 1.0)
    store.seconds = 0.1
    with ThreadPoolExecutor(8) as threads:
        caches = [BundleCache(store, folder, PLENTY) for _ in range(8)]
        found = list(threads.map(lambda cache: read_all(cache, digest), caches))
    assert all(each == found[0] for each in found)
    assert sorted(store.read) == sorted([MANIFEST_NAME, MODEL_NAME, GOLDEN_NAME])


def test_a_fetch_that_fails_hands_on_the_turn(store: Counted, folder: Path) -> None:
    """What the store raises reaches the caller, leaves nothing behind, and the next one may fetch."""
    digest = store_bundle(store, "m", 1.0)
    cache = BundleCache(store, folder, PLENTY)
    store.away = True
    with pytest.raises(StoreUnavailable):
        read_all(cache, digest)
    assert list(folder.iterdir()) == []
    store.away = False
    assert read_all(BundleCache(store, folder, PLENTY), digest)


def test_a_stopped_holder_is_waited_for_once(store: Counted, folder: Path) -> None:
    """Where another holds the lock for ever, a reader waits its limit once and then goes on without."""
    digest = store_bundle(store, "m", 1.0)
    folder.mkdir(parents=True)
    draft = folder / f"{digest.removeprefix('sha256:')}.draft"
    cache = BundleCache(store, folder, PLENTY, wait_seconds=0.3)
    with draft.open("wb") as held, capture_logs() as lines:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert cache.read_manifest(digest) == cache.read_manifest(digest)
    assert [line["event"] for line in lines] == ["cache.not_awaited"]
    assert store.read == [MANIFEST_NAME] * 2
    cache.read_manifest(digest)
    cache.read_manifest(digest)
    assert store.read == [MANIFEST_NAME] * 3, "kept again once the holder is gone"


def test_what_a_killed_writer_left_is_no_file_and_goes(store: Counted, folder: Path) -> None:
    """Half a file under a draft's name is not believed, neither of this digest nor of another."""
    one, other = (store_bundle(store, "m", slope) for slope in (1.0, 2.0))
    expected = read_all(StoredBundles(store), one)
    folder.mkdir(parents=True)
    for digest in (one, other):
        (folder / f"{digest.removeprefix('sha256:')}.draft").write_bytes(b"x" * 100_000)
    cache = BundleCache(store, folder, PLENTY)
    assert read_all(cache, one) == expected
    store.away = True
    assert read_all(cache, one) == expected
    assert [path for path in folder.iterdir() if path.suffix] == []
    assert len(list(folder.iterdir())) == 3


def test_a_locked_draft_of_another_stays(store: Counted, folder: Path) -> None:
    """The draft of a process that still writes it is not taken for a stray."""
    digest = store_bundle(store, "m", 1.0)
    folder.mkdir(parents=True)
    draft = folder / f"{'0' * 64}.draft"
    with draft.open("wb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        read_all(BundleCache(store, folder, PLENTY), digest)
        assert draft.exists()


def test_files_of_others_are_left_alone(store: Counted, folder: Path) -> None:
    """Nothing that the cache did not name is counted or removed, however full it is."""
    folder.mkdir(parents=True)
    (folder / "notes.txt").write_bytes(b"x" * 1_000_000)
    cache = BundleCache(store, folder, 50_000)
    for slope in range(1, 30):
        read_all(cache, store_bundle(store, "m", slope, table_bytes=10_000))
    assert (folder / "notes.txt").stat().st_size == 1_000_000
    assert kept_bytes(folder) - 1_000_000 <= 50_000


@pytest.mark.parametrize("place", ["a file is there", "below a file", "nobody may write there"])
def test_an_unusable_folder_costs_one_warning(store: Counted, tmp_path: Path, place: str) -> None:
    """Where the cache cannot be, bundles are read from the store, and one log line says so."""
    (tmp_path / "taken").write_bytes(b"")
    folder = {
        "a file is there": tmp_path / "taken",
        "below a file": tmp_path / "taken" / "cache",
        "nobody may write there": Path("/sys/kernel/modelwire"),  # not even root
    }[place]
    digest = store_bundle(store, "m", 1.0)
    cache = BundleCache(store, folder, PLENTY)
    with capture_logs() as lines:
        assert read_all(cache, digest) == read_all(cache, digest)
    assert [(line["event"], line["log_level"], line["folder"]) for line in lines] == [
        ("cache.unusable", "warning", str(folder))
    ]
    assert len(store.read) == 6


IN_A_CHILD = """
    import resource, sys
    from pathlib import Path
    from structlog.testing import capture_logs
    from adapters.bundle_cache import BundleCache
    from adapters.bundles import StoredBundles
    from adapters.object_store import open_store
    from schemas.manifest import MODEL_NAME

    url, folder, digest = sys.argv[1:]
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    store = open_store(url)
    cache = BundleCache(store, Path(folder), 2**30)
    with capture_logs() as lines:
        for bundles in (cache, cache, StoredBundles(store)):
            manifest = bundles.read_manifest(digest)
            assert len(bundles.read_file(digest, manifest, MODEL_NAME)) > 100_000
    print([(line["event"], line["problem"]) for line in lines])
"""


def test_a_disk_that_takes_no_more_costs_one_warning(store: Counted, folder: Path) -> None:
    """A write that fails half-way serves the bundle all the same and leaves no half of it."""
    digest = store_bundle(store, "m", 1.0, table_bytes=200_000)
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(IN_A_CHILD), store.url, str(folder), digest],
        env=dict(os.environ) | {"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[('cache.unusable', 'File too large')]"
    assert [path.name for path in folder.iterdir()] == [digest.removeprefix("sha256:")]


def test_refusals_are_those_of_the_store(store: Counted, folder: Path) -> None:
    """What is missing, damaged or no digest is refused in the same words, and nothing of it is kept."""
    cache, plain = BundleCache(store, folder, PLENTY), StoredBundles(store)
    corrupt = store_corrupt_bundle(store, "m", 1.0)
    manifest = cache.read_manifest(corrupt)
    uses: list[tuple[type[ModelwireError], Callable[[Bundles], object]]] = [
        (NotFound, lambda bundles: bundles.read_manifest(digest_of(b"nothing"))),
        (UsageProblem, lambda bundles: bundles.read_manifest("latest")),
        (BundleDamaged, lambda bundles: bundles.read_file(corrupt, manifest, MODEL_NAME)),
        (NotFound, lambda bundles: bundles.read_file(corrupt, manifest, "unlisted")),
    ]
    for kind, use in uses:
        said = []
        for bundles in (cache, plain):
            with pytest.raises(kind) as caught:
                use(bundles)
            said.append(caught.value.message)
        assert said[0] == said[1]
    assert len(list(folder.iterdir())) == 1


def test_the_settings_say_where_and_how_much(tmp_path: Path) -> None:
    """The cache lies under the state folder or where it is told; a size of 0 means none."""
    store = open_store((tmp_path / "store").as_uri())
    digest = store_bundle(store, "m", 1.0)

    def read(**consumer: object) -> Bundles:
        settings = load_settings(
            state_dir=tmp_path / "state", store_url=store.url, consumer=consumer or None
        )
        bundles = open_bundles(settings)
        bundles.read_manifest(digest)
        return bundles

    assert isinstance(read(cache_megabytes=0), StoredBundles)
    assert not (tmp_path / "state").exists()
    read()
    assert len(list((tmp_path / "state" / "cache").iterdir())) == 1
    read(cache_dir=tmp_path / "elsewhere")
    assert len(list((tmp_path / "elsewhere").iterdir())) == 1
