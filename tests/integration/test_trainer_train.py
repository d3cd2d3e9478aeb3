"""``modelwire train`` on panels that the project ships or makes, into a store."""

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from adapters.bundles import list_bundles, verify_bundle
from adapters.object_store import open_store
from schemas.errors import ModelwireError, NotFound, UsageProblem
from tests.conftest import RunningStack
from tests.unit.trainer_panels import CONFIG, dataset_in
from trainer.chain import Closed, Design, Layout
from trainer.cli import train
from trainer.dataset import shipped_datasets
from trainer.generator import generate

DATASET = "datasets/online_retail.toml"


def run(*arguments: str | Path, expect: int = 0) -> Result:
    result = CliRunner().invoke(train, [str(each) for each in arguments], catch_exceptions=False)
    assert result.exit_code == expect, result.stderr
    return result


def report_of(result: Result) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(result.stdout)
    return found


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """The configuration of a made-up panel of 100 days."""
    return dataset_in(tmp_path).path


@pytest.mark.parametrize(
    ("preset", "rmsle", "wape", "smallest", "largest"),
    [
        ("plain", 0.87, 0.90, 100_000, 1_000_000),
        pytest.param("full", 0.835, 0.87, 4e5, 5e6, marks=pytest.mark.slow),
    ],
)
def test_train_stores_a_bundle_that_beats_its_baselines(
    tmp_path: Path, preset: str, rmsle: float, wape: float, smallest: float, largest: float
) -> None:
    """Each preset beats mean-28-log on days it never saw, and its bundle can be verified."""
    uri = (tmp_path / "store").as_uri()
    result = run("--dataset", DATASET, "--preset", preset, "--out", uri, "-o", "json")
    assert "training" in result.stderr
    report = report_of(result)
    assert {
        "model",
        "preset",
        "digest",
        "uri",
        "seconds",
        "size_bytes",
        "holdout",
        "parity",
    } <= set(report)
    assert (report["model"], report["preset"]) == ("sales", preset)
    assert report["uri"] == f"{uri}/bundles/{report['digest'].removeprefix('sha256:')}"
    assert smallest <= report["size_bytes"] <= largest

    holdout = report["holdout"]
    assert (holdout["first"], holdout["last"]) == ("2011-11-12", "2011-12-09")
    assert holdout["rows"] == 109_396
    model, baseline = holdout["metrics"]["model"], holdout["metrics"]["mean-28-log"]
    assert baseline["rmsle"] == pytest.approx(0.9246, abs=1e-4)
    assert model["rmsle"] <= rmsle
    assert model["wape"] <= wape
    assert 0 < report["parity"]["max_difference"] <= 1e-7
    assert report["parity"]["rows"] > holdout["rows"]

    manifest = verify_bundle(open_store(uri), report["digest"])
    assert manifest.lineage is not None
    assert manifest.lineage.sources[0].licence == "CC BY 4.0"
    assert "Online Retail" in manifest.lineage.sources[0].attribution


def test_holdout_in_json_has_every_metric_beside_the_baselines(small: Path, tmp_path: Path) -> None:
    """What a script reads: the model's errors and intervals, and what it has to beat."""
    uri = (tmp_path / "store").as_uri()
    report = report_of(run("--dataset", small, "--preset", "plain", "--out", uri, "-o", "json"))
    metrics = report["holdout"]["metrics"]
    assert {"model", "lag-7", "mean-14-log", "mean-28-log"} <= set(metrics)
    assert {"rmsle", "nwrmsle", "wape", "bias", "pinball", "coverage"} <= set(metrics["model"])
    assert {"rmsle", "nwrmsle", "wape", "bias"} <= set(metrics["lag-7"])
    assert metrics["model"]["rmsle"] < metrics["lag-7"]["rmsle"]
    assert sorted(report["parity"]["batches"]) == [1, 7, 64, 256]


def test_cutoff_is_the_last_known_day(small: Path, tmp_path: Path) -> None:
    """The rows after it are the holdout, at most the horizon's; where there are none, none."""
    uri = (tmp_path / "store").as_uri()
    common = ("--dataset", small, "--preset", "plain", "--out", uri, "-o", "json")
    holdout = report_of(run(*common, "--cutoff", "2024-03-01"))["holdout"]
    assert (holdout["first"], holdout["last"]) == ("2024-03-02", "2024-03-15")
    report = report_of(run(*common, "--cutoff", "2024-04-09"))
    assert report["holdout"] is None
    manifest = verify_bundle(open_store(uri), report["digest"])
    assert manifest.lineage is not None
    assert manifest.lineage.cutoff == "2024-04-09"
    assert manifest.contract.horizon is not None
    assert str(manifest.contract.horizon.first) == "2024-04-10"


def test_data_says_where_the_sources_are(small: Path, tmp_path: Path) -> None:
    """The configuration may lie elsewhere; the same data give the same model."""
    uri = (tmp_path / "store").as_uri()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "own.toml").write_text(CONFIG, encoding="utf-8")
    common = ("--preset", "plain", "--out", uri, "-o", "json")
    here = report_of(run("--dataset", small, *common))
    there = report_of(run("--dataset", elsewhere / "own.toml", "--data", tmp_path, *common))
    store = open_store(uri)
    models = [verify_bundle(store, each["digest"]).files["model.onnx"] for each in (here, there)]
    assert models[0] == models[1]
    with pytest.raises(ModelwireError, match=r"panel\.parquet"):
        run("--dataset", elsewhere / "own.toml", *common)


def test_seed_is_recorded(small: Path, tmp_path: Path) -> None:
    """And used: another one draws other golden vectors, the same one the same."""
    uri = (tmp_path / "store").as_uri()
    common = ("--dataset", small, "--preset", "plain", "--out", uri, "-o", "json")
    reports = [report_of(run(*common, "--seed", seed)) for seed in ("0", "5", "5")]
    manifests = [verify_bundle(open_store(uri), each["digest"]) for each in reports]
    assert [each.lineage.seed for each in manifests if each.lineage is not None] == [0, 5, 5]
    ours, other, again = (each.files["golden.jsonl"] for each in manifests)
    assert ours != other
    assert other == again


def test_progress_goes_to_stderr(small: Path, tmp_path: Path) -> None:
    """A line for each step, none of it in what a script reads."""
    uri = (tmp_path / "store").as_uri()
    result = run("--dataset", small, "--preset", "plain", "--out", uri, "-o", "json")
    json.loads(result.stdout)
    steps = ["reading ", "backtest: ", "training ", "exporting", "comparing", "storing"]
    lines = result.stderr.splitlines()
    places = [
        next(place for place, line in enumerate(lines) if line.startswith(step)) for step in steps
    ]
    assert places == sorted(places)
    assert "panel.parquet" in lines[places[0]]


@pytest.mark.parametrize("cutoff", ["30.07.2024", "yesterday", "2024-13-01"])
def test_cutoff_that_is_no_date_is_a_usage_problem(small: Path, cutoff: str) -> None:
    """Exit code 2, and how to write one."""
    result = run("--dataset", small, "--cutoff", cutoff, expect=2)
    assert "is not a date; write it as 2017-07-30" in result.stderr


@pytest.mark.parametrize(
    ("cutoff", "said"),
    [
        ("2023-12-31", "0 of them up to the cutoff"),
        ("2024-01-10", "10 of them up to the cutoff"),
        ("2025-01-01", "cutoff 2025-01-01 lies after the last day 2024-04-09"),
    ],
)
def test_cutoff_outside_the_panel_is_refused(
    small: Path, tmp_path: Path, cutoff: str, said: str
) -> None:
    """Before it, with too few days before it, or after its last day: no bundle."""
    store = tmp_path / "store"
    with pytest.raises(ModelwireError, match=said):
        run("--dataset", small, "--cutoff", cutoff, "--out", store.as_uri())
    assert not list(list_bundles(open_store(store.as_uri())))


def test_missing_dataset_is_not_found(tmp_path: Path) -> None:
    """With the folder of those that are shipped."""
    with pytest.raises(NotFound, match=r"nowhere\.toml") as caught:
        run("--dataset", tmp_path / "nowhere.toml", "--out", tmp_path.as_uri())
    assert str(shipped_datasets()) in str(caught.value.hint)
    assert caught.value.exit_code == 4


def test_misspelt_key_is_a_usage_problem(small: Path, tmp_path: Path) -> None:
    """File, line and key are named, and nothing is trained."""
    small.write_text(CONFIG.replace("horizon =", "horizont ="), encoding="utf-8")
    with pytest.raises(UsageProblem, match=r"panel\.toml:9: horizont is not a key") as caught:
        run("--dataset", small, "--out", tmp_path.as_uri())
    assert caught.value.exit_code == 2


def test_people_read_a_table_and_the_digest(small: Path, tmp_path: Path) -> None:
    """Without -o the scores are a table, and the digest to release stands on a line of its own."""
    uri = (tmp_path / "store").as_uri()
    result = run("--dataset", small, "--preset", "plain", "--out", uri)
    [digest] = list_bundles(open_store(uri))
    assert f"digest  {digest}\n" in result.stdout
    for predictor in ("model", "mean-28-log", "lag-7"):
        assert predictor in result.stdout


def test_nothing_is_stored_when_the_data_is_refused(tmp_path: Path) -> None:
    """A dataset whose source is missing leaves the store without a bundle."""
    dataset = tmp_path / "panel.toml"
    dataset.write_text(CONFIG.replace("panel.parquet", "missing.parquet"), encoding="utf-8")
    store = tmp_path / "store"
    with pytest.raises(ModelwireError, match=r"missing\.parquet"):
        run("--dataset", dataset, "--out", store.as_uri())
    assert not list(list_bundles(open_store(store.as_uri())))


STRANGER = """\
name = "a stranger's panel"
model = "sales"
source = "panel.parquet"
date = "day"
target = "quantity"
horizon = 14
closed = "closed"
keys = { branch = "The branch", article = "The article" }
covariates = { closed = "1 on days on which the shop is closed" }
"""


@pytest.mark.parametrize(
    "seed", [1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 6))]
)
def test_panel_that_nobody_tuned_for_beats_its_baselines(tmp_path: Path, seed: int) -> None:
    """Other keys, no promotions, closed on Sundays and holidays; nine lines of configuration."""
    design = Design(
        series=40,
        days=120,
        seed=seed,
        layout=Layout.PLAIN,
        closed=Closed.WEEKLY,
        start=date(2015, 6, 1),
        horizon=14,
    )
    dataset = generate(design, tmp_path / "panel").dataset
    dataset.write_text(STRANGER, encoding="utf-8")
    uri = (tmp_path / "store").as_uri()
    report = report_of(run("--dataset", dataset, "--out", uri, "-o", "json"))
    metrics = report["holdout"]["metrics"]
    assert metrics["model"]["rmsle"] < 0.9 * metrics["lag-7"]["rmsle"]
    assert metrics["model"]["rmsle"] < 0.9 * metrics["mean-28-log"]["rmsle"]
    assert report["parity"]["max_difference"] <= 2e-6


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
def test_bundle_reaches_the_object_store_of_the_settings(stack: RunningStack, small: Path) -> None:
    """Without --out the bundle goes where the settings say, here the real S3 server."""
    settings = stack.settings("trainer-test")
    arguments = ["--dataset", str(small), "--preset", "plain", "-o", "json"]
    result = CliRunner(env=stack.environment("trainer-test")).invoke(
        train, arguments, catch_exceptions=False
    )
    report = report_of(result)
    store = open_store(settings.store_url, settings.s3_settings)
    assert report["uri"].startswith(f"s3://{stack.bucket}/trainer-test/bundles/")
    assert verify_bundle(store, report["digest"]).model == "sales"
