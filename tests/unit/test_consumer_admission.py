"""The ladder: a good bundle climbs it, and each kind of bad one falls from its own rung."""

from pathlib import Path

import msgspec
import pytest

from adapters.bundles import write_bundle
from adapters.object_store import ObjectStore, StoreUnavailable, open_store
from adapters.onnx_model import runtime_limits
from consumer.admission import MAY_BE_MENDED, Limits, NotAdmitted, Overtaken, Rung, admit
from schemas.manifest import GOLDEN_NAME, MODEL_NAME, File, digest_of
from tests.bundles import contract, graph, make_bundle, store_bundle, store_corrupt_bundle

LIMITS = Limits(seconds=5.0, batch_size=64)


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    """An empty store."""
    return open_store((tmp_path / "store").as_uri())


def _admit(store: ObjectStore, digest: str, limits: Limits = LIMITS) -> object:
    return admit(store, "m", 1, digest, limits, wanted=lambda: True)


def _with_model(store: ObjectStore, content: bytes) -> str:
    manifest, files = make_bundle("m", 1.0)
    files[MODEL_NAME] = content
    listed = manifest.files | {MODEL_NAME: File(digest_of(content), len(content))}
    return write_bundle(store, msgspec.structs.replace(manifest, files=listed), files)


def test_a_good_bundle_is_admitted(store: ObjectStore) -> None:
    """It comes out loaded under its version and digest, with its contract."""
    digest = store_bundle(store, "m", 2.0)
    admitted = admit(store, "m", 7, digest, LIMITS, wanted=lambda: True)
    assert (admitted.version.version, admitted.version.digest) == (7, digest)
    assert admitted.version.contract == contract()
    assert admitted.size > 0


def test_a_missing_bundle_falls_from_fetch(store: ObjectStore) -> None:
    """What is not in the store cannot be fetched."""
    _falls(store, f"sha256:{'1' * 64}", Rung.FETCH)


def test_a_flipped_bit_falls_from_digest(store: ObjectStore) -> None:
    """Bytes that are not those of the manifest are never loaded."""
    _falls(store, store_corrupt_bundle(store, "m", 1.0), Rung.DIGEST)


def test_a_bundle_of_another_model_falls_from_manifest(store: ObjectStore) -> None:
    """A release names a digest, and a digest may be of anything."""
    _falls(store, store_bundle(store, "another", 1.0), Rung.MANIFEST)


def test_bytes_that_are_no_model_fall_from_load(store: ObjectStore) -> None:
    """A valid digest of nonsense is still nonsense."""
    _falls(store, _with_model(store, b"not an onnx model"), Rung.LOAD)


def test_an_opset_of_the_future_falls_from_runtime(store: ObjectStore) -> None:
    """The reason names the domain, the opset that it needs and the highest one here."""
    limits = runtime_limits()
    fallen = _falls(store, store_bundle(store, "m", 1.0, opset=99), Rung.RUNTIME)
    assert fallen.reason == (
        f"the model needs opset 99 of ai.onnx; onnxruntime {limits.onnxruntime} here runs up to "
        f"{limits.opsets['ai.onnx']}"
    )


def test_the_graph_is_believed_and_not_the_manifest(store: ObjectStore) -> None:
    """An opset of the future falls from runtime also where the manifest says an older one."""
    fallen = _falls(store, _with_model(store, graph(1.0, opset=99)), Rung.RUNTIME)
    assert "opset 99 of ai.onnx" in fallen.reason


def test_a_manifest_that_says_another_graph_falls_from_runtime(store: ObjectStore) -> None:
    """Others decide by the manifest, so it must say what the graph says, harmless or not."""
    fallen = _falls(store, _with_model(store, graph(1.0, opset=16)), Rung.RUNTIME)
    assert fallen.reason == (
        "the manifest says opset 17 of ai.onnx, opset 3 of ai.onnx.ml, IR version 8, and model.onnx "
        "is opset 16 of ai.onnx, opset 3 of ai.onnx.ml, IR version 8"
    )


def test_what_falls_from_runtime_is_never_tried_again() -> None:
    """Neither the bytes nor this process's onnxruntime will change; the store's troubles may pass."""
    assert list(Rung)[: len(MAY_BE_MENDED)] == [Rung.FETCH, Rung.DIGEST, Rung.MANIFEST]
    assert set(MAY_BE_MENDED) == {Rung.FETCH, Rung.DIGEST, Rung.MANIFEST}
    assert list(Rung)[len(MAY_BE_MENDED)] is Rung.RUNTIME


def test_a_graph_that_lacks_the_contracts_output_falls_from_contract(store: ObjectStore) -> None:
    """The graph has to have what the contract promises."""
    other = graph(1.0).replace(b"forecast", b"forecasx")
    _falls(store, _with_model(store, other), Rung.CONTRACT)


def test_answers_that_are_not_the_pipelines_fall_from_golden(store: ObjectStore) -> None:
    """A model that loads and runs and is wrong is refused."""
    _falls(store, store_bundle(store, "m", 1.0, golden_slope=1.5), Rung.GOLDEN)


def test_golden_vectors_that_cannot_be_read_fall_from_golden(store: ObjectStore) -> None:
    """Nothing vouches for a model whose vectors are malformed."""
    manifest, files = make_bundle("m", 1.0)
    files[GOLDEN_NAME] = b"[]\n"
    listed = manifest.files | {GOLDEN_NAME: File(digest_of(b"[]\n"), 3)}
    digest = write_bundle(store, msgspec.structs.replace(manifest, files=listed), files)
    _falls(store, digest, Rung.GOLDEN)


class _Away:
    """A store that cannot be asked the first few times: the world outside, not our code."""

    def __init__(self, store: ObjectStore, failures: int) -> None:
        self.url = store.url
        self.failures = failures
        self._store = store

    def get(self, key: str, *, limit: int) -> bytes:
        """The object, once the store is back."""
        if self.failures > 0:
            self.failures -= 1
            raise StoreUnavailable("the store does not answer")
        return self._store.get(key, limit=limit)


def test_a_store_that_comes_back_in_time_is_asked_again(store: ObjectStore) -> None:
    """A passing failure costs a pause and no refusal."""
    digest = store_bundle(store, "m", 1.0)
    away = _Away(store, failures=2)
    _admit(away, digest)  # type: ignore[arg-type]
    assert away.failures == 0


def test_a_store_that_stays_away_falls_from_fetch(store: ObjectStore) -> None:
    """After the limit the version is refused, and the reason says what the store said."""
    digest = store_bundle(store, "m", 1.0)
    away = _Away(store, failures=1_000)
    with pytest.raises(NotAdmitted, match="does not answer") as fallen:
        _admit(away, digest, Limits(seconds=0.3, batch_size=64))  # type: ignore[arg-type]
    assert fallen.value.rung is Rung.FETCH


def test_a_version_that_is_not_wanted_any_more_is_given_up(store: ObjectStore) -> None:
    """While the store is away, a newer revision need not wait for an older one's version."""
    digest = store_bundle(store, "m", 1.0)
    away = _Away(store, failures=1_000)
    with pytest.raises(Overtaken):
        admit(away, "m", 1, digest, LIMITS, wanted=lambda: False)  # type: ignore[arg-type]


def _falls(store: ObjectStore, digest: str, rung: Rung) -> NotAdmitted:
    with pytest.raises(NotAdmitted) as fallen:
        _admit(store, digest)
    assert fallen.value.rung is rung
    assert fallen.value.reason
    return fallen.value
