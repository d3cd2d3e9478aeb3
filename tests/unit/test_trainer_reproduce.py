"""A bundle made again from its lineage: the same bytes, or what differs."""

from datetime import UTC, date, datetime
from pathlib import Path

import msgspec
import numpy as np
import pytest

from adapters.bundles import write_bundle
from adapters.object_store import ObjectStore, open_store
from schemas.errors import ModelwireError, NotFound, UsageProblem
from schemas.manifest import Lineage
from tests.bundles import store_bundle
from tests.unit.trainer_panels import CONFIG, dataset_in, made_up_columns
from trainer.bundle import Bundle, Order, train_bundle
from trainer.dataset import shipped_datasets
from trainer.estimator import Preset
from trainer.recorded import recorded_dataset
from trainer.refreshing import read_parent, refresh_bundle
from trainer.reproduction import Change, Reproduction, reproduce

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)
EARLY, LATE = date(2024, 3, 15), date(2024, 3, 26)


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store((tmp_path / "store").as_uri())


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A plain bundle of the made-up panel, with a seed and a cutoff of its own."""
    file = dataset_in(tmp_path_factory.mktemp("panel"))
    return train_bundle(file, Order(Preset.PLAIN, EARLY, seed=5), created_at=NOON)


def stored(store: ObjectStore, bundle: Bundle, **lineage: object) -> str:
    """The digest of a bundle, of whose lineage some is changed first."""
    assert bundle.manifest.lineage is not None
    changed = msgspec.structs.replace(bundle.manifest.lineage, **lineage)
    manifest = msgspec.structs.replace(bundle.manifest, lineage=changed)
    return write_bundle(store, manifest, bundle.files)


def again(store: ObjectStore, digest: str, data: Path | None = None) -> Reproduction:
    return reproduce(store, digest, data=data, memory_mb=512)


def test_the_same_data_and_code_give_the_same_bytes(
    tmp_path: Path, store: ObjectStore, made: Bundle
) -> None:
    """Nothing differs, and nothing is said to."""
    dataset_in(tmp_path)
    found = again(store, stored(store, made), tmp_path)
    assert found.is_same
    assert found.found == made.manifest.files["model.onnx"].digest
    differences = found.differences
    assert not differences.data
    assert not differences.packages
    assert (differences.code, differences.python, differences.numeric_class) == (None, None, None)


def test_other_data_are_named_with_both_digests(
    tmp_path: Path, store: ObjectStore, made: Bundle
) -> None:
    """One more unit on one day is another model, and the file is why."""
    columns = made_up_columns()
    columns["units"][columns["day"] == np.datetime64("2024-03-10")] += 1
    dataset_in(tmp_path, columns)
    found = again(store, stored(store, made), tmp_path)
    assert not found.is_same
    [(name, change)] = found.differences.data.items()
    assert name == "panel.parquet"
    assert made.manifest.lineage is not None
    assert change.had == made.manifest.lineage.sources[0].digest != change.have


def test_what_it_was_made_with_is_compared_too(
    tmp_path: Path, store: ObjectStore, made: Bundle
) -> None:
    """Packages, Python and commit are told where they differ, though the bytes are the same."""
    dataset_in(tmp_path)
    assert made.manifest.lineage is not None
    own = made.manifest.lineage
    packages = {**own.packages, "numpy": "1.0", "gone": "2.0"}
    found = again(
        store,
        stored(store, made, packages=packages, python="2.7.18", git_commit="0" * 40),
        tmp_path,
    )
    assert found.is_same
    assert found.differences.packages == {
        "numpy": Change("1.0", own.packages["numpy"]),
        "gone": Change("2.0", ""),
    }
    assert found.differences.python == Change("2.7.18", own.python)
    assert found.differences.code == Change("0" * 40, own.git_commit)


@pytest.mark.parametrize("change", [{"seed": 6}, {"preset": "full"}, {"cutoff": "2024-03-16"}])
def test_the_lineage_is_what_is_followed(
    tmp_path: Path, store: ObjectStore, made: Bundle, change: dict[str, object]
) -> None:
    """Another preset or cutoff in it gives another model: they are read, not assumed."""
    dataset_in(tmp_path)
    assert not again(store, stored(store, made, **change), tmp_path).is_same


def test_a_refreshed_bundle_is_refreshed_again(tmp_path: Path, store: ObjectStore) -> None:
    """Its regressor is the parent's, from the store; without the parent it cannot be made."""
    file = dataset_in(tmp_path)
    parent = train_bundle(file, Order(cutoff=EARLY), created_at=NOON)
    of_parent = read_parent(store, stored(store, parent))
    child = refresh_bundle(file, of_parent, created_at=NOON, cutoff=LATE)
    assert again(store, stored(store, child), tmp_path).is_same
    alone = open_store((tmp_path / "alone").as_uri())
    digest = stored(alone, child)
    with pytest.raises(NotFound, match=of_parent.digest):
        again(alone, digest, tmp_path)


def test_a_foreign_bundle_is_refused(store: ObjectStore, made: Bundle) -> None:
    """Without a lineage, and with one that has no recipe, the refusal says why and who can."""
    with pytest.raises(UsageProblem, match="has no lineage") as caught:
        again(store, store_bundle(store, "sales", 1.0))
    assert "bundle create" in caught.value.hint
    with pytest.raises(UsageProblem, match="has no recipe in its lineage"):
        again(store, stored(store, made, recipe=None))


def lineage(made: Bundle, **changes: object) -> Lineage:
    assert made.manifest.lineage is not None
    return msgspec.structs.replace(made.manifest.lineage, **changes)


def test_sources_are_looked_for_here_and_among_the_shipped(
    tmp_path: Path, made: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder that is named; else the current one, else the one that comes with the project."""
    digest = "sha256:" + "1" * 64
    monkeypatch.chdir(tmp_path)
    dataset_in(tmp_path)
    shipped = CONFIG.replace("panel.parquet", "online_retail_daily.parquet")
    assert recorded_dataset(digest, lineage(made), Path("there")).root == Path("there")
    assert recorded_dataset(digest, lineage(made), None).root == tmp_path
    assert recorded_dataset(digest, lineage(made, config=shipped), None).root == shipped_datasets()


def test_missing_sources_are_told_with_the_places_and_the_digests(
    store: ObjectStore, made: Bundle
) -> None:
    """Whoever has to find the file learns its name, size and digest, and where it was looked for."""
    with pytest.raises(NotFound) as caught:
        again(store, stored(store, made))
    problem = caught.value
    assert "panel.parquet" in problem.message
    assert str(Path.cwd()) in problem.message
    assert str(shipped_datasets()) in problem.message
    assert "--data" in problem.hint
    [detail] = problem.details
    assert lineage(made).sources[0].digest in str(detail)


def test_a_training_that_fails_tells_what_the_bundle_was_made_of(
    tmp_path: Path, store: ObjectStore, made: Bundle
) -> None:
    """Data that no longer reach the cutoff are an error, beside which stand the true digests."""
    dataset_in(tmp_path, made_up_columns(days=40))
    with pytest.raises(ModelwireError) as caught:
        again(store, stored(store, made), tmp_path)
    assert lineage(made).sources[0].digest in str(caught.value.details)
