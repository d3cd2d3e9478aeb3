"""What only ``file://`` can meet: a killed writer, and things in the folder that are no objects."""

import multiprocessing
import os
import threading
import time
from pathlib import Path

import pytest

from adapters.object_store import ObjectStore, open_store
from schemas.errors import ModelwireError, NotFound
from tests.fleet import LIMIT_SECONDS

SIZE = 4_000_000


def _content(number: int) -> bytes:
    return bytes([number % 256]) * SIZE


def _write_for_ever(url: str) -> None:
    store = open_store(url)
    number = 0
    while True:
        store.put_if_absent(f"objects/{number:06}", _content(number))
        number += 1


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    """An empty store in ``tmp_path / "store"``."""
    return open_store((tmp_path / "store").as_uri())


def test_a_killed_writer_leaves_whole_objects(store: ObjectStore) -> None:
    """SIGKILL in mid-write leaves only whole objects, and the next writer goes on from there."""
    for objects in (1, 4, 9):
        writer = multiprocessing.get_context("spawn").Process(
            target=_write_for_ever, args=(store.url,)
        )
        writer.start()
        deadline = time.monotonic() + LIMIT_SECONDS
        while not store.exists(f"objects/{objects:06}"):
            assert time.monotonic() < deadline
            assert writer.is_alive()
            time.sleep(0.001)
        writer.kill()
        writer.join()
        keys = sorted(store.list())
        assert keys == [f"objects/{number:06}" for number in range(len(keys))]
        for number, key in enumerate(keys):
            assert store.get(key, limit=SIZE) == _content(number)
    assert store.put_if_absent(f"objects/{len(keys):06}", b"next")


def test_a_draft_is_not_listed_and_not_left(store: ObjectStore, tmp_path: Path) -> None:
    """Nothing but the object remains of a put, and a killed writer's draft is no key."""
    store.put_if_absent("a/key", b"content")
    store.put_if_absent("a/key", b"content")
    files = [path for path in (tmp_path / "store").rglob("*") if path.is_file()]
    assert files == [tmp_path / "store/a/key"]
    (tmp_path / "store/.staging/left-behind").write_bytes(b"cont")
    assert list(store.list()) == ["a/key"]


def test_what_is_no_file_is_no_object(store: ObjectStore, tmp_path: Path) -> None:
    """A pipe and a link to nowhere are neither listed nor read; a reader does not hang on them."""
    store.put_if_absent("key", b"content")
    os.mkfifo(tmp_path / "store/pipe")
    (tmp_path / "store/dangling").symlink_to(tmp_path / "nowhere")
    assert list(store.list()) == ["key"]
    for name in ("pipe", "dangling"):
        assert not store.exists(name)
        with pytest.raises(NotFound):
            store.get(name, limit=10)


def test_a_key_cannot_be_both_file_and_folder(store: ObjectStore) -> None:
    """``a`` beside ``a/b`` is refused in both orders, and what was there stays."""
    store.put_if_absent("a/b", b"content")
    for key in ("a", "a/b/c"):
        with pytest.raises(ModelwireError, match=f"cannot write {key} in file:///") as caught:
            store.put_if_absent(key, b"other")
        assert "a file stands where the store needs a folder" in caught.value.hint
    assert list(store.list()) == ["a/b"]


def test_a_store_in_the_place_of_a_file_is_one_clear_message(tmp_path: Path) -> None:
    """Where the store's folder is a file, a put says so and reading finds nothing."""
    (tmp_path / "taken").write_text("a file")
    store = open_store((tmp_path / "taken").as_uri())
    with pytest.raises(ModelwireError, match="cannot write key in file:///"):
        store.put_if_absent("key", b"content")
    assert not store.exists("key")
    assert list(store.list()) == []


def test_a_reader_never_sees_a_part(store: ObjectStore) -> None:
    """A reader that looks all the time sees either no object or the whole of it."""
    done = threading.Event()
    seen: set[int] = set()

    def look() -> None:
        while not done.is_set():
            for key in store.list():
                seen.add(len(store.get(key, limit=SIZE)))

    reader = threading.Thread(target=look)
    reader.start()
    for number in range(20):
        store.put_if_absent(f"objects/{number}", _content(number))
    done.set()
    reader.join()
    assert seen <= {SIZE}
