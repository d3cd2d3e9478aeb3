"""A bundle's writer may die after any put: until the last one there is no bundle."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.bundles import list_bundles, read_manifest, verify_bundle, write_bundle
from adapters.object_store import ObjectStore, open_store
from schemas.contract import Binding, Contract, Field, FieldType, Output, TensorType
from schemas.errors import NotFound
from schemas.manifest import (
    File,
    Graph,
    Manifest,
    Tolerance,
    digest_of,
    encode_manifest,
)


class Killed(Exception):
    """The writer is gone."""


class DyingStore:
    """A store whose writer dies at its put number ``survives``, before or after it is stored."""

    def __init__(self, store: ObjectStore, survives: int, *, lands: bool) -> None:
        self._store = store
        self._left = survives
        self._lands = lands
        self.url = store.url

    def put_if_absent(self, key: str, content: bytes) -> bool:
        """Stores, or dies."""
        if self._left == 0:
            if self._lands:
                self._store.put_if_absent(key, content)
            raise Killed
        self._left -= 1
        return self._store.put_if_absent(key, content)

    def get(self, key: str, *, limit: int) -> bytes:
        """Reads."""
        return self._store.get(key, limit=limit)

    def list(self, folder: str = "") -> Iterator[str]:
        """Lists."""
        return self._store.list(folder)

    def exists(self, key: str) -> bool:
        """Looks."""
        return self._store.exists(key)


def _manifest(files: dict[str, bytes]) -> Manifest:
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


others = st.dictionaries(
    st.from_regex(r"[a-z0-9][a-z0-9._-]{0,10}", fullmatch=True), st.binary(max_size=50), max_size=4
)


@given(
    others=others,
    model=st.binary(max_size=50),
    deaths=st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=4),
)
def test_a_bundle_is_visible_when_its_manifest_landed_and_never_before(
    others: dict[str, bytes], model: bytes, deaths: list[tuple[int, bool]]
) -> None:
    """However often the writer dies, nothing half-written is a bundle, and a later run completes it."""
    files = {**others, "model.onnx": model, "golden.jsonl": b"{}\n"}
    files.pop("manifest.json", None)
    manifest = _manifest(files)
    digest = digest_of(encode_manifest(manifest))
    with TemporaryDirectory() as folder:
        store = open_store(Path(folder).as_uri())
        for survives, lands in deaths:
            try:
                write_bundle(DyingStore(store, survives, lands=lands), manifest, files)
            except Killed:
                complete = len(list(store.list())) == len(files) + 1
            else:
                complete = True
            assert list(list_bundles(store)) == ([digest] if complete else [])
            if not complete:
                with pytest.raises(NotFound):
                    read_manifest(store, digest)
            else:
                assert verify_bundle(store, digest) == manifest
        assert write_bundle(store, manifest, files) == digest
        assert verify_bundle(store, digest) == manifest
        assert list(list_bundles(store)) == [digest]
