"""Bundles on a real store of each kind: written whole, checked at every read, never half-visible."""

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import boto3
import msgspec
import pytest

from adapters.bundles import (
    BundleDamaged,
    list_bundles,
    read_file,
    read_manifest,
    verify_bundle,
    write_bundle,
)
from adapters.object_store import ObjectStore, S3Settings, open_store
from schemas.contract import Binding, Contract, Field, FieldType, Output, TensorType
from schemas.errors import Conflict, ModelwireError, NotFound, UsageProblem
from schemas.manifest import File, Graph, Manifest, Tolerance, digest_of, encode_manifest

FILES = {"model.onnx": b"a graph", "golden.jsonl": b"{}\n", "card.md": b""}


def manifest_for(files: dict[str, bytes]) -> Manifest:
    """A manifest that states what ``files`` are."""
    field = Field(
        name="x",
        type=FieldType.FLOAT32,
        binding=Binding("x", TensorType.FLOAT32),
        description="anything",
    )
    output = Output(name="y", tensor="y", type=FieldType.FLOAT32, description="as much")
    return Manifest(
        model="sales",
        created_at=datetime(2026, 1, 2, tzinfo=UTC),
        contract=Contract(fields=(field,), outputs=(output,)),
        files={name: File(digest_of(content), len(content)) for name, content in files.items()},
        graph=Graph(8, {"ai.onnx": 17}),
        tolerance=Tolerance(1e-5, 1e-5),
    )


@dataclass(frozen=True)
class Place:
    """A store, and the power to put any bytes there, which the store itself does not give."""

    store: ObjectStore
    overwrite: Callable[[str, bytes], object]


@pytest.fixture(params=["file", pytest.param("s3", marks=pytest.mark.stack)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """An empty store of each kind."""
    if request.param == "file":

        def overwrite(key: str, content: bytes) -> None:
            (tmp_path / key).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / key).write_bytes(content)

        return Place(open_store(tmp_path.as_uri()), overwrite)
    stack = request.getfixturevalue("stack")
    s3, prefix = stack.s3, f"test-{uuid.uuid4().hex}"
    client = boto3.client(
        "s3",
        endpoint_url=s3.endpoint,
        region_name=s3.region,
        aws_access_key_id=s3.access_key,
        aws_secret_access_key=s3.secret_key,
    )
    settings = S3Settings(s3.endpoint, s3.region, s3.access_key, s3.secret_key)
    return Place(
        open_store(f"s3://{stack.bucket}/{prefix}", settings),
        lambda key, content: client.put_object(
            Bucket=stack.bucket, Key=f"{prefix}/{key}", Body=content
        ),
    )


def _key(digest: str, name: str) -> str:
    return f"bundles/{digest.removeprefix('sha256:')}/{name}"


def test_a_written_bundle_is_there_and_verifies(place: Place) -> None:
    """What was written is listed, its manifest is equal, and each file comes back."""
    manifest = manifest_for(FILES)
    digest = write_bundle(place.store, manifest, FILES)
    assert list(list_bundles(place.store)) == [digest]
    assert verify_bundle(place.store, digest) == read_manifest(place.store, digest) == manifest
    for name, content in FILES.items():
        assert read_file(place.store, digest, manifest, name) == content


def test_writing_a_bundle_again_changes_nothing(place: Place) -> None:
    """The same bundle twice is one bundle, with the digest of its content."""
    manifest = manifest_for(FILES)
    digests = {write_bundle(place.store, manifest, FILES) for _ in range(2)}
    assert set(list_bundles(place.store)) == digests
    assert len(digests) == 1
    assert len(list(place.store.list())) == len(FILES) + 1


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"a grapf", digest_of(b"a grapf")),
        (b"a grap", "expected 7 bytes, found 6"),
        (b"a graph, and more", "expected 7 bytes, found 17"),
    ],
)
def test_a_damaged_file_is_refused_at_every_read(place: Place, content: bytes, found: str) -> None:
    """Flipped, cut and grown files are refused; bundle, file, expected and found are named."""
    manifest = manifest_for(FILES)
    digest = write_bundle(place.store, manifest, FILES)
    place.overwrite(_key(digest, "model.onnx"), content)
    for read in (
        lambda: read_file(place.store, digest, manifest, "model.onnx"),
        lambda: verify_bundle(place.store, digest),
    ):
        with pytest.raises(BundleDamaged) as caught:
            read()
        for part in (digest, "model.onnx", found):
            assert part in caught.value.message


def test_a_missing_file_of_a_bundle_is_damage(place: Place) -> None:
    """A manifest whose files are gone is a damaged bundle, not one that was never there."""
    raw = msgspec.json.encode(manifest_for(FILES))
    digest = digest_of(raw)
    place.overwrite(_key(digest, "manifest.json"), raw)
    with pytest.raises(BundleDamaged, match=r"card\.md: expected a file, found none"):
        verify_bundle(place.store, digest)


def test_a_manifest_under_another_digest_is_refused(place: Place) -> None:
    """A valid manifest that does not hash to the digest asked for is not that bundle's."""
    digest = write_bundle(place.store, manifest_for(FILES), FILES)
    other = msgspec.structs.replace(manifest_for(FILES), model="costs")
    place.overwrite(_key(digest, "manifest.json"), msgspec.json.encode(other))
    with pytest.raises(BundleDamaged, match=f"expected {digest}, found sha256:"):
        read_manifest(place.store, digest)


def test_a_huge_manifest_is_refused_by_its_size(place: Place) -> None:
    """A manifest over the limit is refused before it is read."""
    raw = b" " * (4 * 1024 * 1024 + 1)
    place.overwrite(_key(digest_of(raw), "manifest.json"), raw)
    with pytest.raises(BundleDamaged, match="it has 4194305 bytes, over 4194304"):
        read_manifest(place.store, digest_of(raw))


@pytest.mark.parametrize("raw", [b"", b"{}", b"\xff", b"[" * 100_000])
def test_a_manifest_that_is_none_is_refused(place: Place, raw: bytes) -> None:
    """Bytes with the right digest that are no manifest are refused, with the bundle's name."""
    place.overwrite(_key(digest_of(raw), "manifest.json"), raw)
    with pytest.raises(ModelwireError, match=f"bundle {digest_of(raw)} .* manifest is not valid"):
        read_manifest(place.store, digest_of(raw))


def test_a_bundle_that_nobody_wrote_is_not_found(place: Place) -> None:
    """A digest without a bundle is named, with the store that was looked into."""
    digest = digest_of(b"nothing")
    with pytest.raises(NotFound, match=f"there is no bundle {digest} in {place.store.url}"):
        read_manifest(place.store, digest)


def test_strays_are_not_bundles(place: Place) -> None:
    """Only a manifest in a folder that is named like a digest is listed as a bundle."""
    digest = write_bundle(place.store, manifest_for(FILES), FILES)
    name = digest.removeprefix("sha256:")
    for stray in (
        f"key-{uuid.uuid4()}",
        f"bundles/key-{uuid.uuid4()}",
        f"bundles/{name[:-1]}/manifest.json",
        f"bundles/{name.upper()}/manifest.json",
        f"bundles/{'0' * 64}/model.onnx",
        f"bundles/{'0' * 64}/manifest.json-{uuid.uuid4()}",
        f"bundles/{'1' * 64}/sub/manifest.json",
        f"elsewhere/{'2' * 64}/manifest.json",
    ):
        place.overwrite(stray, b"stray")
    assert list(list_bundles(place.store)) == [digest]


@pytest.mark.parametrize("name", ["model.onnx", "manifest.json"])
@pytest.mark.parametrize("present", [b"", b"others", b"x" * 100_000])
def test_other_bytes_in_the_way_are_a_conflict(place: Place, name: str, present: bytes) -> None:
    """What already lies under a key of the bundle and differs stops the write, and stays."""
    manifest = manifest_for(FILES)
    digest = digest_of(encode_manifest(manifest))
    place.overwrite(_key(digest, name), present)
    with pytest.raises(Conflict, match=f"{_key(digest, name)} in .* already holds other bytes"):
        write_bundle(place.store, manifest, FILES)
    assert place.store.get(_key(digest, name), limit=100_000) == present


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ({**FILES, "extra.txt": b""}, "the manifest does not list extra.txt"),
        ({"model.onnx": b"a graph", "golden.jsonl": b"{}\n"}, "the manifest lists card.md, but no"),
        ({**FILES, "model.onnx": b"another"}, "model.onnx does not match the manifest"),
        ({**FILES, "model.onnx": b"longer graph"}, "model.onnx does not match the manifest"),
    ],
)
def test_files_that_do_not_match_are_refused_before_anything_is_written(
    place: Place, files: dict[str, bytes], problem: str
) -> None:
    """A file too many, too few or with other bytes stops the write, and the store stays empty."""
    with pytest.raises(ModelwireError, match=problem):
        write_bundle(place.store, manifest_for(FILES), files)
    assert list(place.store.list()) == []


@pytest.mark.parametrize("name", ["manifest.json", "../escape", "sub/file", "UPPER", "a\n", ""])
def test_a_name_that_readers_would_refuse_is_not_written(place: Place, name: str) -> None:
    """A manifest made in Python with an unusable file name is refused, and nothing is written."""
    files = {**FILES, name: b"content"}
    with pytest.raises(ModelwireError):
        write_bundle(place.store, manifest_for(files), files)
    assert list(place.store.list()) == []


def test_an_unlisted_file_is_not_read(place: Place) -> None:
    """A file that the manifest does not name is not found, even where the store has one."""
    manifest = manifest_for(FILES)
    digest = write_bundle(place.store, manifest, FILES)
    place.overwrite(_key(digest, "extra.txt"), b"content")
    with pytest.raises(NotFound, match=r"lists no file 'extra\.txt'"):
        read_file(place.store, digest, manifest, "extra.txt")


@pytest.mark.parametrize(
    "digest", ["", "latest", "sha256:" + "0" * 63, "0" * 64, "sha256:" + "A" * 64]
)
def test_a_digest_has_one_form(place: Place, digest: str) -> None:
    """What is no digest is a usage problem that shows the form."""
    with pytest.raises(UsageProblem, match="is not a bundle's digest"):
        read_manifest(place.store, digest)
