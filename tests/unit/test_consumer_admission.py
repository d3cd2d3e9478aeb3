"""The ladder: a good bundle climbs it, and each kind of bad one falls from its own rung."""

import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from adapters.bundles import StoredBundles, write_bundle
from adapters.object_store import ObjectStore, StoreUnavailable, open_store
from adapters.onnx_model import runtime_limits
from consumer.admission import Admission, Admitted, Limits
from consumer.memory import MIB, Budget
from consumer.rungs import MAY_BE_MENDED, Again, NotAdmitted, Rung
from consumer.turns import Turns
from consumer.vetting import Overtaken
from schemas.errors import ModelwireError
from schemas.manifest import GOLDEN_NAME, MODEL_NAME, File, Manifest, digest_of
from tests.bundles import contract, graph, make_bundle, store_bundle, store_corrupt_bundle
from tests.fleet import LIMIT_SECONDS, wait_for

LIMITS = Limits(seconds=5.0, batch_size=64)


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    """An empty store."""
    return open_store((tmp_path / "store").as_uri())


def _admit(store: ObjectStore, digest: str, limits: Limits = LIMITS, version: int = 1) -> Admitted:
    return Admission(StoredBundles(store), "m", limits).admit(version, digest, lambda: True)


def _with_model(store: ObjectStore, content: bytes) -> str:
    manifest, files = make_bundle("m", 1.0)
    files[MODEL_NAME] = content
    listed = manifest.files | {MODEL_NAME: File(digest_of(content), len(content))}
    return write_bundle(store, msgspec.structs.replace(manifest, files=listed), files)


def test_a_good_bundle_is_admitted(store: ObjectStore) -> None:
    """It comes out loaded under its version and digest, with its contract."""
    digest = store_bundle(store, "m", 2.0)
    admitted = _admit(store, digest, version=7)
    assert (admitted.version.version, admitted.version.digest) == (7, digest)
    assert admitted.version.contract == contract()
    assert admitted.size > 0


def test_a_model_of_trees_is_admitted(store: ObjectStore) -> None:
    """It answers as its golden vectors say, and is about as large as it was asked to be."""
    digest = store_bundle(store, "m", 2.0, trees_bytes=MIB)
    assert digest != store_bundle(store, "m", 3.0, trees_bytes=MIB)
    assert _admit(store, digest).size == pytest.approx(MIB, rel=0.05)


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


def test_what_its_bytes_decide_is_never_tried_again() -> None:
    """Neither the bytes nor this process's onnxruntime will change; store and memory may be mended."""
    assert {Rung.FETCH, Rung.DIGEST, Rung.MANIFEST, Rung.MEMORY} == MAY_BE_MENDED
    for rung in Rung:
        may_pass = NotAdmitted(rung, "why").again is Again.MENDED
        assert may_pass == (rung in MAY_BE_MENDED)


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
    ladder = Admission(StoredBundles(away), "m", LIMITS)  # type: ignore[arg-type]
    with pytest.raises(Overtaken):
        ladder.admit(1, digest, lambda: False)


class _Denied:
    """A store that does not let us in: the world outside, not our code."""

    url = "s3://denied"

    def get(self, key: str, *, limit: int) -> bytes:
        """Never."""
        raise ModelwireError("s3://denied: the credentials are wrong")


def test_wrong_credentials_fall_from_fetch() -> None:
    """Nobody could look at a manifest, so it is not the manifest that is wrong."""
    denied: ObjectStore = _Denied()  # type: ignore[assignment]
    _falls(denied, f"sha256:{'1' * 64}", Rung.FETCH)


def test_bytes_that_are_no_manifest_fall_from_manifest(store: ObjectStore) -> None:
    """Also where their digest is the one that was released."""
    digest = digest_of(b"{}")
    store.put_if_absent(f"bundles/{digest.removeprefix('sha256:')}/manifest.json", b"{}")
    _falls(store, digest, Rung.MANIFEST)


class _Counting(StoredBundles):
    """Counts the files that are read."""

    def __init__(self, store: ObjectStore) -> None:
        super().__init__(store)
        self.files = 0

    def read_file(self, digest: str, manifest: Manifest, name: str) -> bytes:
        """As the store has it."""
        self.files += 1
        return super().read_file(digest, manifest, name)


def test_what_cannot_fit_is_not_downloaded(store: ObjectStore) -> None:
    """The size in the manifest alone says that there is no room; the reason has both figures."""
    digest = store_bundle(store, "m", 1.0, table_bytes=8 * MIB)
    bundles = _Counting(store)
    budget = Budget(100 * MIB, lambda: 90 * MIB, "consumer.memory_megabytes")
    with pytest.raises(NotAdmitted) as fallen:
        Admission(bundles, "m", LIMITS, budget).admit(1, digest, lambda: True)
    assert (fallen.value.rung, fallen.value.again) == (Rung.MEMORY, Again.MENDED)
    assert fallen.value.reason == (
        "it needs 17 MiB, and 90 of the 100 MiB of consumer.memory_megabytes are taken"
    )
    assert bundles.files == 0


@pytest.mark.skipif(sys.platform != "linux", reason="nothing measures the growth elsewhere")
def test_what_took_too_much_where_it_was_tried_is_not_loaded(store: ObjectStore) -> None:
    """Its file would fit, what it really takes does not: known after the trial, and kept."""
    digest = store_bundle(store, "m", 1.0, table_bytes=8 * MIB)
    bundles = _Counting(store)
    taken = [60 * MIB]
    budget = Budget(200 * MIB, lambda: taken[-1], "consumer.memory_megabytes")
    ladder = Admission(bundles, "m", LIMITS, budget)
    ladder.admit(1, digest, lambda: True)
    taken.append(200 * MIB - 17 * MIB)  # twice the file, and less than the session takes
    with pytest.raises(NotAdmitted, match=r"it needs \d+ MiB, and 183 of the 200 MiB") as fallen:
        ladder.admit(2, digest, lambda: True)
    assert fallen.value.rung is Rung.MEMORY
    assert bundles.files == 2


def test_what_breaks_the_limit_once_loaded_is_let_go_of(store: ObjectStore) -> None:
    """What was measured decides, whatever was estimated."""
    digest = store_bundle(store, "m", 1.0)
    readings = [50 * MIB] * 3
    budget = Budget(
        100 * MIB, lambda: readings.pop() if readings else 101 * MIB, "the container's memory limit"
    )
    with pytest.raises(NotAdmitted, match="with it loaded 101 MiB are taken") as fallen:
        Admission(StoredBundles(store), "m", LIMITS, budget).admit(1, digest, lambda: True)
    assert fallen.value.rung is Rung.MEMORY


def test_the_trial_of_another_instance_is_no_lack_of_memory(
    store: ObjectStore, tmp_path: Path
) -> None:
    """What finds no room beside it waits until it is over; who shares with nobody is refused at once."""
    digest = store_bundle(store, "m", 1.0, table_bytes=8 * MIB)
    limits = replace(LIMITS, folder=tmp_path)
    looks: list[int] = []

    def used() -> int:
        return 1_990 * MIB if trying.is_set() else 50 * MIB

    def wanted() -> bool:
        looks.append(1)
        return True

    trying, waited = threading.Event(), threading.Event()

    def try_another() -> None:
        with Turns(tmp_path).beside_others(lambda: None):
            trying.set()
            waited.wait(LIMIT_SECONDS)
            trying.clear()

    thread = threading.Thread(target=try_another)
    thread.start()
    wait_for("the other one", trying.is_set)
    bundles = StoredBundles(store)
    mine = Budget(2_000 * MIB, used, "consumer.memory_megabytes", is_shared=False)
    with pytest.raises(NotAdmitted):
        Admission(bundles, "m", limits, mine).admit(1, digest, wanted)
    assert not looks
    threading.Thread(target=lambda: wait_for("a wait", lambda: looks) and waited.set()).start()
    ours = Budget(2_000 * MIB, used, "the container's memory limit")
    Admission(bundles, "m", limits, ours).admit(1, digest, wanted)
    thread.join(LIMIT_SECONDS)


def test_a_lack_of_memory_that_nobody_else_causes_is_one(
    store: ObjectStore, tmp_path: Path
) -> None:
    """It is looked at alone, and refused."""
    digest = store_bundle(store, "m", 1.0, table_bytes=8 * MIB)
    budget = Budget(2_000 * MIB, lambda: 1_990 * MIB, "the container's memory limit")
    ladder = Admission(StoredBundles(store), "m", replace(LIMITS, folder=tmp_path), budget)
    with pytest.raises(NotAdmitted, match="and 1990 of the 2000 MiB") as fallen:
        ladder.admit(1, digest, lambda: True)
    assert fallen.value.rung is Rung.MEMORY


def test_a_bundle_that_passed_is_not_tried_again(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Released again as another version it is loaded at once; what was not tried still has to be."""
    digest, other = store_bundle(store, "m", 1.0), store_bundle(store, "m", 2.0)
    ladder = Admission(StoredBundles(store), "m", LIMITS)
    ladder.admit(1, digest, lambda: True)
    monkeypatch.setattr(sys, "executable", "/nowhere/python")  # no process can be started
    assert ladder.admit(2, digest, lambda: True).version.version == 2
    with pytest.raises(NotAdmitted, match="no process could be started"):
        ladder.admit(3, other, lambda: True)


def test_the_stages_of_an_admission_are_timed(store: ObjectStore) -> None:
    """Each has its seconds, in order."""
    admitted = _admit(store, store_bundle(store, "m", 1.0))
    assert list(admitted.seconds) == ["fetch", "vet", "load", "check", "warm-up"]
    assert all(seconds > 0 for seconds in admitted.seconds.values())


def _falls(store: ObjectStore, digest: str, rung: Rung) -> NotAdmitted:
    with pytest.raises(NotAdmitted) as fallen:
        _admit(store, digest)
    assert fallen.value.rung is rung
    assert fallen.value.reason
    return fallen.value


def test_a_load_that_brought_this_slot_down_twice_is_not_made_at_once(
    store: ObjectStore, tmp_path: Path
) -> None:
    """It passes where it is tried and ends the process that loads it: refused at load, for a while."""
    digest, other = store_bundle(store, "m", 1.0), store_bundle(store, "m", 2.0)
    root = str(Path(__file__).parents[2])
    script = (
        "import os, sys\n"
        "from tests.unit import test_consumer_admission as here\n"
        "import consumer.admission\n"
        "consumer.admission.open_version = lambda *_: os._exit(9)\n"
        "store = here.open_store(sys.argv[1])\n"
        "limits = here.replace(here.LIMITS, folder=here.Path(sys.argv[2]))\n"
        "here._admit(store, sys.argv[3], limits)\n"
    )
    arguments = [sys.executable, "-c", script, store.url, str(tmp_path / "cache"), digest]
    for _ in range(2):
        ended = subprocess.run(arguments, check=False, cwd=root)
        assert ended.returncode == 9
    ladder = Admission(StoredBundles(store), "m", replace(LIMITS, folder=tmp_path / "cache"))
    with pytest.raises(NotAdmitted, match="2 times in a row") as fallen:
        ladder.admit(1, digest, lambda: True)
    assert (fallen.value.rung, fallen.value.again) == (Rung.LOAD, Again.MENDED)
    assert ladder.admit(2, other, lambda: True)
    ladder.close()
