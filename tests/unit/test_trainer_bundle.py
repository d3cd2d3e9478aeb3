"""What a bundle holds, that it can be made again, and what stops one that must not be."""

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from adapters.onnx_model import load_onnx_model
from schemas.codec import compile_inputs
from schemas.contract import Contract
from schemas.errors import RefusedByRule
from schemas.manifest import (
    GoldenVector,
    decode_golden,
    decode_manifest,
    digest_of,
    encode_manifest,
)
from scoring.golden import check_golden, check_independence
from scoring.snapshot import load
from tests.unit.trainer_panels import (
    CONFIG,
    FIRST_DAY,
    Facets,
    dataset_in,
    forecaster_of,
    made_up_columns,
    panel_with,
    recipe_of,
)
from trainer.bundle import Bundle, Order, contract_of, prove, train_bundle
from trainer.dataset import OUTPUTS, Dataset, DatasetFile
from trainer.estimator import Preset, fit
from trainer.evaluation import Baseline, held_out
from trainer.golden import TOLERANCE, check_tolerance, golden_lines, golden_requests
from trainer.graph import export
from trainer.parity import LIMIT
from trainer.past import Demand, Past
from trainer.structural import Pace

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)

COVARIATES = """
[covariates]
offer = "Whether it is on offer"
price = "Price of a piece"
shut = "1 where the shop is shut"
"""


def bundle_of(file: DatasetFile, preset: Preset = Preset.PLAIN, **order: Any) -> Bundle:
    return train_bundle(file, Order(preset, **order), created_at=NOON)


def columns_with_covariates() -> dict[str, Any]:
    """The made-up panel with an offer, a price that is often missing, and Sundays that are shut."""
    columns = made_up_columns()
    generator = np.random.default_rng(11)
    rows = len(columns["day"])
    shut = (columns["day"].astype(np.int64) + 3) % 7 == 6
    price = generator.random(rows).round(2) + 1
    columns["offer"] = generator.random(rows) < 0.3
    columns["price"] = pa.array(price, mask=generator.random(rows) < 0.1)
    columns["shut"] = shut.astype(np.int8)
    columns["units"] = np.where(shut, 0, columns["units"])
    return columns


def rich_in(folder: Path) -> DatasetFile:
    config = CONFIG.replace("recent_days = 60\n", 'recent_days = 60\nclosed = "shut"\n')
    return dataset_in(folder, columns_with_covariates(), config + COVARIATES)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return bundle_of(dataset_in(tmp_path_factory.mktemp("panel")), Preset.FULL)


@pytest.fixture(scope="module")
def rich(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return bundle_of(rich_in(tmp_path_factory.mktemp("panel")))


def inputs_of(vectors: Sequence[GoldenVector]) -> list[dict[str, Any]]:
    return [msgspec.json.decode(vector.inputs) for vector in vectors]


def test_manifest_names_every_file_and_reads_back(bundle: Bundle) -> None:
    """Digest and size of each file are the manifest's, and the manifest survives its encoding."""
    manifest = bundle.manifest
    assert {"model.onnx", "golden.jsonl", "holdout.parquet"} <= set(bundle.files)
    assert set(manifest.files) == set(bundle.files)
    for name, content in bundle.files.items():
        assert (manifest.files[name].digest, manifest.files[name].size) == (
            digest_of(content),
            len(content),
        )
    assert decode_manifest(encode_manifest(manifest)) == manifest


def test_graph_fits_the_contract(bundle: Bundle, rich: Bundle) -> None:
    """The contract's bindings are the graph's inputs and outputs."""
    for each, fields in (
        (bundle, ["shop", "product", "day"]),
        (rich, ["shop", "product", "day", "offer", "price", "shut"]),
    ):
        contract = each.manifest.contract
        load_onnx_model(each.files["model.onnx"]).check_contract(contract)
        assert [field.name for field in contract.fields] == fields
        assert [output.name for output in contract.outputs] == list(OUTPUTS)


def test_covariates_may_be_left_out(rich: Bundle) -> None:
    """A flag is false and a number unknown where a request does not say."""
    fields = {field.name: field for field in rich.manifest.contract.fields}
    for name in ("offer", "price", "shut"):
        assert (fields[name].required, fields[name].nullable) == (False, True)
    assert [fields[name].required for name in ("shop", "product", "day")] == [True] * 3
    assert fields["price"].null_as is None
    assert fields["offer"].null_as is False


def test_horizon_begins_after_the_cutoff(bundle: Bundle) -> None:
    """The model answers for the held-out days and on to its horizon's end."""
    horizon, lineage, holdout = (
        bundle.manifest.contract.horizon,
        bundle.manifest.lineage,
        bundle.manifest.holdout,
    )
    assert horizon is not None
    assert lineage is not None
    assert holdout is not None
    assert lineage.cutoff == "2024-03-30"
    assert (str(horizon.first), str(horizon.last)) == ("2024-03-31", "2024-04-13")
    assert (holdout.first, holdout.last, holdout.rows) == ("2024-03-31", "2024-04-09", 230)


def test_lineage_names_files_and_versions_not_places(bundle: Bundle, tmp_path: Path) -> None:
    """Lineage holds the source's digest, the configuration and versions, and no path."""
    lineage = bundle.manifest.lineage
    assert lineage is not None
    [source] = lineage.sources
    file = dataset_in(tmp_path)
    assert (source.name, source.digest) == ("panel.parquet", digest_of(file.source.read_bytes()))
    assert lineage.config == file.text
    assert lineage.packages["scikit-learn"]
    assert re.fullmatch(r"([0-9a-f]{40}(-dirty)?)?", lineage.git_commit)
    assert b"/" + b"tmp" not in encode_manifest(bundle.manifest)


def test_certificate_says_what_was_compared(bundle: Bundle) -> None:
    """Rows of each case, batches, versions and the numeric class are in the manifest."""
    parity, holdout = bundle.manifest.parity, bundle.manifest.holdout
    assert parity is not None
    assert holdout is not None
    assert 0 < parity.max_difference <= 1e-7 < parity.limit == LIMIT == 2e-6
    assert parity.batches == (1, 7, 64, 256)
    assert parity.cases["held-out"] == holdout.rows
    assert set(parity.cases) == {"held-out", "unknown-keys", "nulls", "edge-dates"}
    assert parity.rows == sum(parity.cases.values())
    assert parity.space == "log1p"
    assert parity.numeric_class


def test_holdout_has_metrics_of_all_baselines(bundle: Bundle) -> None:
    """The model's and those of what anybody could answer."""
    holdout = bundle.manifest.holdout
    assert holdout is not None
    assert {"model", *(each.value for each in Baseline)} <= set(holdout.metrics)
    assert {"rmsle", "nwrmsle", "wape", "bias"} <= set(holdout.metrics["lag-7"])
    assert {"pinball", "coverage"} <= set(holdout.metrics["model"])


def test_holdout_rows_are_raw_inputs_in_order(rich: Bundle) -> None:
    """Columns as the contract names them, by day, then keys; predictions are the graph's answers."""
    table = pq.read_table(BytesIO(rich.files["holdout.parquet"]))
    assert [(f.name, str(f.type)) for f in table.schema][:8] == [
        ("shop", "string"),
        ("product", "string"),
        ("day", "date32[day]"),
        ("offer", "bool"),
        ("price", "double"),
        ("shut", "bool"),
        ("actual", "double"),
        ("prediction", "float"),
    ]
    order = list(
        zip(*(table[name].to_pylist() for name in ("day", "shop", "product")), strict=True)
    )
    assert order == sorted(order)
    assert table["price"].null_count > 0
    some = table.slice(0, 64)
    feeds: dict[str, Any] = {
        name: np.array(some[name].to_pylist(), dtype=object) for name in ("shop", "product")
    }
    feeds["day"] = np.array(some["day"].to_numpy(), dtype="datetime64[D]").astype(np.int64)
    for name in ("offer", "shut"):
        feeds[name] = np.array([bool(value) for value in some[name].to_pylist()])
    feeds["price"] = np.array(
        [np.nan if value is None else value for value in some["price"].to_pylist()],
        dtype=np.float32,
    )
    [sales] = load_onnx_model(rich.files["model.onnx"]).run(feeds, ["sales"])
    assert np.array_equal(sales, some["prediction"].to_numpy())


def test_actuals_are_what_the_source_says(bundle: Bundle) -> None:
    """The units of a held-out day are those of its rows in the source."""
    table = pq.read_table(BytesIO(bundle.files["holdout.parquet"])).to_pylist()
    columns = made_up_columns()
    chosen = (columns["day"] == FIRST_DAY + 93) & (columns["shop"] == "shop-2")
    expected = dict(zip(columns["product"][chosen], columns["units"][chosen], strict=True))
    found = {
        row["product"]: row["actual"]
        for row in table
        if row["shop"] == "shop-2" and str(row["day"]) == "2024-04-03" and row["actual"]
    }
    assert found == expected


def test_golden_vectors_cover_every_kind_of_key_and_the_edges(bundle: Bundle) -> None:
    """At least 64 vectors: known series, each kind of unknown key, first and last day."""
    vectors = decode_golden(bundle.files["golden.jsonl"])
    assert len(vectors) >= 64
    inputs = inputs_of(vectors)
    vocabulary = {f"shop-{i}" for i in range(4)}, {f"p{i}" for i in range(6)}
    kinds = {(row["shop"] in vocabulary[0], row["product"] in vocabulary[1]) for row in inputs}
    assert kinds == {(True, True), (True, False), (False, True), (False, False)}
    known = [row for row, v in zip(inputs, vectors, strict=True) if v.outputs["known_series"]]
    for rows in (known, [row for row in inputs if row not in known]):
        assert {"2024-03-31", "2024-04-13"} <= {row["day"] for row in rows}
    combination = {(row["shop"], row["product"]): v for row, v in zip(inputs, vectors, strict=True)}
    assert combination["shop-3", "p5"].outputs["known_series"] == 0


def test_golden_vectors_cover_every_value_of_covariates(rich: Bundle) -> None:
    """True and false, the extremes of a number, null, and absence: of each covariate."""
    inputs = inputs_of(decode_golden(rich.files["golden.jsonl"]))
    table = pq.read_table(BytesIO(rich.files["holdout.parquet"]))
    prices = [np.float32(price) for price in table["price"].to_pylist() if price is not None]
    for name in ("offer", "shut"):
        assert {row[name] for row in inputs if name in row} == {True, False, None}
        assert any(name not in row for row in inputs)
    given = [row["price"] for row in inputs if row.get("price") is not None]
    assert (min(given), max(given)) == (min(prices), max(prices))
    assert any("price" in row and row["price"] is None for row in inputs)
    assert any("price" not in row for row in inputs)


@pytest.mark.parametrize("of", ["bundle", "rich"])
def test_golden_vectors_pass_the_path_of_requests(of: str, request: pytest.FixtureRequest) -> None:
    """They decode by the contract's own decoder, and an admission would let the model in."""
    made: Bundle = request.getfixturevalue(of)
    manifest, vectors = made.manifest, decode_golden(made.files["golden.jsonl"])
    decode = compile_inputs(manifest.contract)
    for vector in vectors:
        decode(bytes(vector.inputs))
    version = load(1, digest_of(b""), manifest.contract, load_onnx_model(made.files["model.onnx"]))
    assert check_golden(version, vectors, manifest.tolerance) is None
    assert check_independence(version, vectors) is None


@pytest.mark.parametrize("whole_keys", [False, True])
def test_golden_vectors_of_every_panel_pass_the_path_of_requests(whole_keys: bool) -> None:
    """Whole-number keys, numbers beyond what float32 holds exactly, nothing held out."""
    facets = Facets(whole_keys=whole_keys, flag=True, number=True, closed=True)
    panel = panel_with(facets)
    forecaster = forecaster_of(fit(panel, recipe_of(corrected=False)))
    requests = golden_requests(forecaster, held_out(panel).requests, seed=3)
    lines = golden_lines(forecaster, requests, forecaster.predict(requests), "day")
    contract = contract_of(_dataset_of(facets), forecaster)
    version = load(1, digest_of(b""), contract, load_onnx_model(export(forecaster, "day")))
    vectors = decode_golden(lines)
    assert len(vectors) == len(requests)
    assert check_golden(version, vectors, TOLERANCE) is None


def _dataset_of(facets: Facets) -> Dataset:
    return Dataset.model_validate(
        {
            "name": "made up",
            "model": "sales",
            "source": "none.parquet",
            "date": "day",
            "target": "units",
            "horizon": facets.horizon,
            "keys": {"shop": "The shop", "product": "The product"},
            "covariates": {"promotion": "Offer", "price": "Price", "shut": "Shut"},
            "closed": "shut",
        }
    )


def test_contract_without_covariates_has_none() -> None:
    """Keys and the date alone."""
    forecaster = forecaster_of(fit(panel_with(Facets()), recipe_of(corrected=False)))
    contract: Contract = contract_of(_dataset_of(Facets()), forecaster)
    assert [field.name for field in contract.fields] == ["shop", "product", "day"]


def test_answers_outside_the_tolerance_are_refused() -> None:
    """The tolerance that the manifest promises is held where the bundle is made."""
    panel = panel_with(Facets())
    forecaster = forecaster_of(fit(panel, recipe_of(corrected=False)))
    python = forecaster.predict(held_out(panel).requests)
    check_tolerance(python, python)
    other = replace(python, sales_p90=python.sales_p90 * 1.001)
    with pytest.raises(RefusedByRule, match="leaves the tolerance"):
        check_tolerance(python, other)


def test_graph_of_another_model_makes_no_bundle() -> None:
    """Everything that a bundle holds is made after the proof."""
    panel = panel_with(Facets())
    forecaster = forecaster_of(fit(panel, recipe_of(corrected=False)))
    other = forecaster_of(fit(panel, recipe_of(Preset.PLAIN)))
    held = held_out(panel)
    with pytest.raises(RefusedByRule, match="not the trained model") as caught:
        prove(forecaster, export(other, "day"), panel, held, "day", seed=0)
    assert caught.value.exit_code == 3
    proof = prove(forecaster, export(forecaster, "day"), panel, held, "day", seed=0)
    assert len(proof.held_out.sales) == len(held)


def test_a_leak_stops_the_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A base that knows tomorrow: the refusal names what changed, and there is nothing to store."""
    honest = Past.of

    def peeking(demand: Demand, origin: int, pace: Pace) -> Past:
        return honest(demand, min(origin + 1, demand.logs.shape[1] - 1), pace)

    monkeypatch.setattr(Past, "of", peeking)
    with pytest.raises(
        RefusedByRule, match=r"saw days that it must not see: tables as of"
    ) as caught:
        bundle_of(dataset_in(tmp_path))
    assert caught.value.exit_code == 3


def test_same_data_gives_the_same_bundle(rich: Bundle, tmp_path: Path) -> None:
    """Two trainings give the same bytes throughout when the clock says the same."""
    assert bundle_of(rich_in(tmp_path)) == rich


def test_another_seed_gives_other_golden_vectors(rich: Bundle, tmp_path: Path) -> None:
    """The seed is used: without it the test above would prove nothing about sampling."""
    other = bundle_of(rich_in(tmp_path), seed=1)
    assert other.files["golden.jsonl"] != rich.files["golden.jsonl"]


def test_another_cutoff_is_another_model(tmp_path: Path) -> None:
    """With nothing held out there is no holdout, and all days teach."""
    file = dataset_in(tmp_path)
    last = FIRST_DAY + 99
    found = bundle_of(file, cutoff=last.astype(object))
    lineage, parity = found.manifest.lineage, found.manifest.parity
    assert lineage is not None
    assert parity is not None
    assert lineage.cutoff == "2024-04-09"
    assert found.manifest.holdout is None
    assert "holdout.parquet" not in found.files
    assert parity.cases["held-out"] == 23 * 14


def test_days_after_the_cutoff_change_nothing_in_the_model(tmp_path: Path) -> None:
    """Scrambled held-out days, with keys never seen before, leave every byte of the model alone."""
    for name in ("true", "scrambled"):
        (tmp_path / name).mkdir()
    columns = made_up_columns()
    late = columns["day"] >= FIRST_DAY + 90
    generator = np.random.default_rng(3)
    future = int(late.sum())
    scrambled = {name: values.copy() for name, values in columns.items()}
    scrambled["units"][late] = generator.integers(1, 5000, future)
    scrambled["shop"] = np.where(
        late & (generator.random(len(late)) < 0.3), "shop-new", columns["shop"]
    )
    scrambled["product"][late] = generator.permutation(columns["product"][late])
    true = bundle_of(dataset_in(tmp_path / "true"))
    other = bundle_of(dataset_in(tmp_path / "scrambled", scrambled))
    assert true.files["model.onnx"] == other.files["model.onnx"]
    assert true.manifest.holdout != other.manifest.holdout


def test_progress_is_told_step_by_step(tmp_path: Path) -> None:
    """Reading, each fold, the training, the export and the comparison."""
    said: list[str] = []
    train_bundle(dataset_in(tmp_path), Order(Preset.PLAIN), created_at=NOON, progress=said.append)
    begun = [line.split()[0].rstrip(":") for line in said if not line.startswith("note")]
    assert begun[0] == "reading"
    assert {"backtest", "training", "exporting", "comparing"} <= set(begun)
