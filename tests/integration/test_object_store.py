"""The object store's contract: what ``file://`` and ``s3://`` both promise."""

import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from adapters.object_store import (
    ObjectStore,
    RemovableStore,
    S3Settings,
    TooLarge,
    open_removable_store,
    open_store,
)
from schemas.errors import NotFound, UsageProblem
from tests.fleet import LIMIT_SECONDS

Opener = Callable[[], RemovableStore]

WRITERS = 16
RACES = 12


@pytest.fixture(params=["file", pytest.param("s3", marks=pytest.mark.stack)])
def opener(request: pytest.FixtureRequest, tmp_path: Path) -> Opener:
    """Opens the same empty store again and again, each time as another writer would."""
    if request.param == "file":
        return lambda: open_removable_store((tmp_path / "a store").as_uri())
    stack = request.getfixturevalue("stack")
    settings = S3Settings(
        endpoint_url=stack.s3.endpoint,
        region=stack.s3.region,
        access_key=stack.s3.access_key,
        secret_key=stack.s3.secret_key,
    )
    url = f"s3://{stack.bucket}/test-{uuid.uuid4().hex}"
    return lambda: open_removable_store(url, settings)


@pytest.fixture
def store(opener: Opener) -> ObjectStore:
    """An empty store."""
    return opener()


@pytest.mark.parametrize("content", [b"", b"one", bytes(range(256)) * 40_000])
def test_what_is_put_can_be_got(store: ObjectStore, content: bytes) -> None:
    """The bytes that come out are those that went in: none, a few, ten million."""
    assert store.put_if_absent("folder/object.bin", content) is True
    assert store.get("folder/object.bin", limit=len(content)) == content


def test_a_key_is_written_once(store: ObjectStore) -> None:
    """A second put, of other bytes or the same, says False and changes nothing."""
    assert store.put_if_absent("key", b"first") is True
    assert store.put_if_absent("key", b"second") is False
    assert store.put_if_absent("key", b"first") is False
    assert store.get("key", limit=100) == b"first"


def test_what_is_removed_is_gone_and_may_be_put_again(opener: Opener) -> None:
    """Its neighbours stay; that there is nothing to remove is fine."""
    store = opener()
    assert store.put_if_absent("folder/one", b"1")
    assert store.put_if_absent("folder/two", b"2")
    store.remove("folder/one")
    store.remove("folder/one")
    store.remove("nowhere/at-all")
    assert list(store.list("folder")) == ["folder/two"]
    with pytest.raises(NotFound):
        store.get("folder/one", limit=10)
    assert store.put_if_absent("folder/one", b"3")


def test_of_racing_writers_one_wins(opener: Opener) -> None:
    """Of 16 writers at once exactly one is told that it wrote, and its bytes are the stored ones."""
    writers = [opener() for _ in range(WRITERS)]
    for race in range(RACES):
        start = threading.Barrier(WRITERS)

        def write(number: int, start: threading.Barrier = start, race: int = race) -> bool:
            start.wait(timeout=LIMIT_SECONDS)
            return writers[number].put_if_absent(f"races/{race}", bytes([number]) * 100_000)

        with ThreadPoolExecutor(WRITERS) as threads:
            won = list(threads.map(write, range(WRITERS)))
        assert won.count(True) == 1
        assert writers[0].get(f"races/{race}", limit=100_000) == bytes([won.index(True)]) * 100_000


def test_nothing_larger_than_the_limit_is_read(store: ObjectStore) -> None:
    """A limit of the object's size is enough, one byte less is refused and names both numbers."""
    store.put_if_absent("key", b"12345")
    assert store.get("key", limit=5) == b"12345"
    with pytest.raises(TooLarge, match=r"key in .* has 5 bytes, more than the 4") as caught:
        store.get("key", limit=4)
    assert caught.value.size == 5


def test_a_missing_object_is_not_found(store: ObjectStore) -> None:
    """Reading a key that nobody wrote says which key in which store; a missing store is an empty one."""
    with pytest.raises(NotFound) as caught:
        store.get("not/there", limit=10)
    assert caught.value.message == f"there is no not/there in {store.url}"
    assert not store.exists("not/there")
    assert list(store.list()) == []


def test_a_folder_is_not_an_object(store: ObjectStore) -> None:
    """Where ``a/b`` is stored, ``a`` is not, and nor is ``a/b/c``."""
    store.put_if_absent("a/b", b"content")
    for key in ("a", "a/b/c"):
        assert not store.exists(key)
        with pytest.raises(NotFound):
            store.get(key, limit=100)


def test_exists_follows_a_put(store: ObjectStore) -> None:
    """An object exists from its put on."""
    assert not store.exists("a/b")
    store.put_if_absent("a/b", b"")
    assert store.exists("a/b")


def test_a_listing_is_of_whole_folders(store: ObjectStore) -> None:
    """``list`` gives every key below a folder, at any depth, and none of a folder beside it."""
    for key in ("a/x", "a/b/y", "ab/z", "c"):
        store.put_if_absent(key, b"content")
    assert sorted(store.list()) == ["a/b/y", "a/x", "ab/z", "c"]
    assert sorted(store.list("a")) == sorted(store.list("a/")) == ["a/b/y", "a/x"]
    assert list(store.list("a/b")) == ["a/b/y"]
    assert list(store.list("nowhere")) == []


def test_a_long_listing_is_complete(opener: Opener) -> None:
    """A listing goes on after the 1,000 keys that an S3 server gives at a time."""
    stores = [opener() for _ in range(8)]
    keys = [f"many/{number:04}" for number in range(1_010)]
    with ThreadPoolExecutor(len(stores)) as threads:
        done = threads.map(
            lambda each: stores[each[0] % len(stores)].put_if_absent(each[1], b""), enumerate(keys)
        )
        assert all(done)
    assert sorted(stores[0].list("many")) == keys


def test_a_prefix_of_the_address_is_a_folder(
    opener: Opener, request: pytest.FixtureRequest
) -> None:
    """Whoever opens the store one folder further down sees that folder's keys without its name."""
    store = opener()
    store.put_if_absent("down/key", b"content")
    settings = None
    if store.url.startswith("s3:"):
        s3 = request.getfixturevalue("stack").s3
        settings = S3Settings(s3.endpoint, s3.region, s3.access_key, s3.secret_key)
    below = open_store(f"{store.url}/down/", settings)
    assert below.url == f"{store.url}/down"
    assert list(below.list()) == ["key"]
    assert below.get("key", limit=100) == b"content"
    assert below.put_if_absent("key", b"other") is False


def _uses(store: ObjectStore, key: str) -> Iterator[Callable[[], object]]:
    yield lambda: store.put_if_absent(key, b"content")
    yield lambda: store.get(key, limit=100)
    yield lambda: store.exists(key)


@pytest.mark.parametrize(
    "key",
    [
        *("", "/a", "a/", "a//b", "..", "../a", "a/../b", "a/./b"),
        *(".hidden", "a b", "a\n", "é", "a\\b", "x" * 101, "/".join(["x" * 99] * 6)),
    ],
)
def test_an_unsafe_key_is_a_bug_of_the_caller(store: ObjectStore, key: str) -> None:
    """A key that could leave the store, or that some server cannot keep, is not even tried."""
    for use in _uses(store, key):
        with pytest.raises(ValueError, match="not a key of an object store"):
            use()
    assert list(store.list()) == []


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("", "has no scheme"),
        ("/a/folder", "has no scheme"),
        ("gs://bucket", "has the scheme 'gs'"),
        ("file:folder", "does not name an absolute path"),
        ("file://elsewhere/folder", "does not name an absolute path"),
        ("s3:///prefix", "does not name a bucket"),
        ("s3://Not_A_Bucket", "does not name a bucket"),
        ("s3://bucket/../other", "has an unusable prefix"),
        ("s3://bucket/key?versionId=1", "has a query or a fragment"),
    ],
)
def test_an_address_that_makes_no_sense_is_a_usage_problem(url: str, problem: str) -> None:
    """The message quotes the address and says what is wrong with it; the hint shows a good one."""
    with pytest.raises(UsageProblem, match=problem) as caught:
        open_store(url)
    assert repr(url) in caught.value.message
    assert "s3://bucket/prefix" in caught.value.hint
