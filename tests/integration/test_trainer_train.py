"""``modelwire train`` on the panel that the project ships, into a store."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from adapters.bundles import list_bundles, verify_bundle
from adapters.object_store import open_store
from schemas.errors import ModelwireError
from tests.conftest import RunningStack
from trainer.cli import train
from trainer.dataset import shipped_datasets

DATASET = "datasets/online_retail.toml"


@pytest.mark.parametrize(
    ("preset", "rmsle", "wape", "smallest", "largest", "seconds"),
    [("plain", 0.87, 0.90, 100_000, 1_000_000, 15), ("full", 0.835, 0.87, 1e6, 5e6, 30)],
)
def test_train_stores_a_bundle_that_beats_its_baselines(
    tmp_path: Path,
    preset: str,
    rmsle: float,
    wape: float,
    smallest: float,
    largest: float,
    seconds: float,
) -> None:
    """Each preset trains in time, beats mean-28-log on days it never saw, and can be verified."""
    uri = (tmp_path / "store").as_uri()
    arguments = ["--dataset", DATASET, "--preset", preset, "--out", uri, "-o", "json"]
    result = CliRunner().invoke(train, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert "training" in result.stderr
    report = json.loads(result.stdout)
    assert list(report) == [
        "model", "preset", "digest", "uri", "seconds", "size_bytes", "holdout", "parity",
    ]  # fmt: skip
    assert (report["model"], report["preset"]) == ("sales", preset)
    assert report["uri"] == f"{uri}/bundles/{report['digest'].removeprefix('sha256:')}"
    assert report["seconds"] <= seconds
    assert smallest <= report["size_bytes"] <= largest

    holdout = report["holdout"]
    assert (holdout["first"], holdout["last"]) == ("2011-11-12", "2011-12-09")
    assert holdout["rows"] == 109_396
    model, baseline = holdout["metrics"]["model"], holdout["metrics"]["mean-28-log"]
    assert baseline["rmsle"] == pytest.approx(0.9246, abs=1e-4)
    assert model["rmsle"] <= rmsle
    assert model["wape"] <= wape
    assert report["parity"]["max_difference"] <= 2e-6
    assert report["parity"]["rows"] > holdout["rows"]

    manifest = verify_bundle(open_store(uri), report["digest"])
    assert manifest.lineage is not None
    assert manifest.lineage.sources[0].licence == "CC BY 4.0"
    assert "Online Retail" in manifest.lineage.sources[0].attribution


def test_people_read_a_table_and_the_digest(tmp_path: Path) -> None:
    """Without -o the scores are a table, and the digest to release stands on a line of its own."""
    uri = tmp_path.as_uri()
    arguments = ["--dataset", DATASET, "--preset", "plain", "--out", uri]
    result = CliRunner().invoke(train, arguments, catch_exceptions=False)
    [digest] = list_bundles(open_store(uri))
    assert f"digest  {digest}\n" in result.stdout
    for predictor in ("model", "mean-28-log", "lag-7"):
        assert predictor in result.stdout


def test_nothing_is_stored_when_the_data_is_refused(tmp_path: Path) -> None:
    """A dataset whose source is missing leaves the store without a bundle."""
    dataset = tmp_path / "panel.toml"
    text = (
        (shipped_datasets() / "online_retail.toml")
        .read_text(encoding="utf-8")
        .replace("online_retail_daily", "missing")
    )
    dataset.write_text(text, encoding="utf-8")
    store = tmp_path / "store"
    arguments = ["--dataset", str(dataset), "--out", store.as_uri()]
    with pytest.raises(ModelwireError, match=r"missing\.parquet, which does not exist"):
        CliRunner().invoke(train, arguments, catch_exceptions=False)
    assert not list(open_store(store.as_uri()).list("bundles"))


@pytest.mark.stack
def test_missing_bucket_is_found_out_before_training(stack: RunningStack) -> None:
    """A store that cannot be used costs no training: it is asked first."""
    environment = {**stack.environment("unused"), "MODELWIRE_STORE_URL": "s3://no-such-bucket"}
    result = CliRunner(env=environment).invoke(train, ["--dataset", DATASET])
    assert isinstance(result.exception, ModelwireError)
    assert "no-such-bucket" in result.exception.message
    assert result.exception.hint
    assert "training" not in result.stderr


@pytest.mark.stack
def test_bundle_reaches_the_object_store_of_the_settings(stack: RunningStack) -> None:
    """Without --out the bundle goes where the settings say, here the real S3 server."""
    settings = stack.settings("trainer-test")
    arguments = ["--dataset", DATASET, "--preset", "plain", "-o", "json"]
    result = CliRunner(env=stack.environment("trainer-test")).invoke(
        train, arguments, catch_exceptions=False
    )
    report = json.loads(result.stdout)
    store = open_store(settings.store_url, settings.s3_settings)
    assert report["uri"].startswith(f"s3://{stack.bucket}/trainer-test/bundles/")
    assert verify_bundle(store, report["digest"]).model == "sales"
