"""A bundle is copied from store to store, byte for byte, and a damaged one is not."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from adapters.bundles import check_writable, list_bundles, read_manifest, verify_bundle
from adapters.object_store import ObjectStore, open_store
from schemas.errors import Conflict, ModelwireError, NotFound
from tests.bundles import store_bundle
from trainer.bundle_cli import bundle
from trainer.cli import train


@pytest.fixture
def had(tmp_path: Path) -> ObjectStore:
    return open_store((tmp_path / "before" / ".modelwire" / "store").as_uri())


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store((tmp_path / "now").as_uri())


def copy(had: ObjectStore, store: ObjectStore, name: str, *more: str) -> Result:
    words = ["copy", name, "--from", had.url, "--to", store.url, *more]
    return CliRunner().invoke(bundle, words, catch_exceptions=False)


def file_of(store: ObjectStore, digest: str, name: str) -> Path:
    folder = Path(store.url.removeprefix("file://"))
    return folder / "bundles" / digest.removeprefix("sha256:") / name


def test_a_copy_has_every_byte_and_the_same_digest(had: ObjectStore, store: ObjectStore) -> None:
    """The beginning of the digest is enough, and a second copy changes nothing."""
    digest = store_bundle(had, "sales", 1.0)
    said = json.loads(copy(had, store, digest[7:19], "-o", "json").stdout)
    assert said["digest"] == digest
    assert said["copied"]
    assert said["uri"] == f"{store.url}/bundles/{digest.removeprefix('sha256:')}"
    assert verify_bundle(store, digest) == verify_bundle(had, digest)
    again = copy(had, store, digest)
    assert "was there already" in again.stdout
    assert f"digest  {digest}" in again.stdout


def test_a_damaged_bundle_is_not_copied(had: ObjectStore, store: ObjectStore) -> None:
    """A byte that changed on the way to the disk is found, and the other store has no such bundle."""
    digest = store_bundle(had, "sales", 1.0)
    path = file_of(had, digest, "model.onnx")
    content = bytearray(path.read_bytes())
    content[20] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelwireError, match=r"is damaged: model\.onnx"):
        copy(had, store, digest)
    assert not list(list_bundles(store))


def test_other_bytes_in_the_other_store_stay(had: ObjectStore, store: ObjectStore) -> None:
    """What is in the way is a conflict, and is not overwritten."""
    digest = store_bundle(had, "sales", 1.0)
    store.put_if_absent(f"bundles/{digest[7:]}/model.onnx", b"mine")
    with pytest.raises(Conflict, match="already holds other bytes"):
        copy(had, store, digest)
    assert file_of(store, digest, "model.onnx").read_bytes() == b"mine"


def test_a_bundle_that_is_not_there_names_the_command(had: ObjectStore, store: ObjectStore) -> None:
    """By its whole digest or the beginning of it, for whoever looks into the new store."""
    digest = store_bundle(had, "sales", 1.0)
    with pytest.raises(NotFound) as caught:
        read_manifest(store, digest)
    assert (
        "modelwire bundle copy DIGEST --from file:///folder/.modelwire/store" in caught.value.hint
    )
    with pytest.raises(NotFound) as caught:
        copy(store, had, digest[7:19])
    assert "modelwire bundle copy DIGEST --from" in caught.value.hint


def test_a_copy_needs_two_stores() -> None:
    """One of them is that of the settings, and the other is named."""
    done = CliRunner().invoke(bundle, ["copy", "abcdef"])
    assert done.exit_code == 2
    assert "Name the other store" in done.stderr


def test_the_probe_of_a_store_is_no_bundle(store: ObjectStore) -> None:
    """It can be repeated, and whoever lists bundles never sees it."""
    check_writable(store)
    check_writable(store)
    assert not list(list_bundles(store))


def test_a_store_that_cannot_be_written_is_found_out_before_training(tmp_path: Path) -> None:
    """One sentence that names the store, before a row of the panel is read."""
    in_the_way = tmp_path / "store"
    in_the_way.write_text("a file")
    words = ["--dataset", "datasets/online_retail.toml", "--preset", "plain"]
    done = CliRunner().invoke(train, [*words, "--out", in_the_way.as_uri()])
    assert isinstance(done.exception, ModelwireError)
    assert f"cannot write bundles/writable in {in_the_way.as_uri()}: " in done.exception.message
    assert "a file stands where the store needs a folder" in done.exception.hint
    assert "reading" not in done.stderr
