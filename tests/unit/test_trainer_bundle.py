"""What a bundle holds, that it can be made again, and what stops one that must not be."""

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pyarrow.parquet as pq
import pytest
from onnx import numpy_helper
from sklearn.ensemble import HistGradientBoostingRegressor

from adapters.onnx_model import load_onnx_model
from schemas.errors import RefusedByRule
from schemas.manifest import decode_golden, decode_manifest, digest_of, encode_manifest
from tests.unit.trainer_panels import FIRST_DAY, dataset_in, made_up_columns
from trainer.bundle import Bundle, prove, train_bundle
from trainer.dataset import OUTPUTS, DatasetFile
from trainer.estimator import Forecaster, Preset, train
from trainer.evaluation import HeldOut, Predictor, held_out, scores
from trainer.graph import export
from trainer.panel import read_panel, read_source

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)


def bundle_of(file: DatasetFile, preset: Preset = Preset.FULL, seed: int = 0) -> Bundle:
    return train_bundle(file, preset, created_at=NOON, seed=seed)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return bundle_of(dataset_in(tmp_path_factory.mktemp("panel")))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Forecaster, HeldOut]:
    file = dataset_in(tmp_path_factory.mktemp("panel"))
    panel = read_panel(file, read_source(file))
    return train(panel, Preset.FULL, seed=0), held_out(panel)


def test_manifest_names_every_file_and_reads_back(bundle: Bundle) -> None:
    """Digest and size of each file are the manifest's, and the manifest survives its encoding."""
    manifest = bundle.manifest
    assert set(bundle.files) == {"model.onnx", "golden.jsonl", "holdout.parquet", "card.md"}
    for name, content in bundle.files.items():
        assert (manifest.files[name].digest, manifest.files[name].size) == (
            digest_of(content),
            len(content),
        )
    assert decode_manifest(encode_manifest(manifest)) == manifest


def test_graph_fits_the_contract(bundle: Bundle) -> None:
    """The contract's bindings are the graph's inputs and outputs."""
    contract = bundle.manifest.contract
    load_onnx_model(bundle.files["model.onnx"]).check_contract(contract)
    assert [field.name for field in contract.fields] == ["shop", "product", "day"]
    assert [output.name for output in contract.outputs] == list(OUTPUTS)


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
    assert (source.name, source.digest) == ("panel.parquet", digest_of(read_source(file)))
    assert lineage.config == file.text
    assert lineage.packages["scikit-learn"]
    assert re.fullmatch(r"([0-9a-f]{40}(-dirty)?)?", lineage.git_commit)
    assert b"/" + b"tmp" not in encode_manifest(bundle.manifest)


def test_holdout_rows_are_raw_inputs_in_order(bundle: Bundle) -> None:
    """Columns as the contract names them, by day, then keys; predictions are the graph's answers."""
    table = pq.read_table(BytesIO(bundle.files["holdout.parquet"]))
    assert [(f.name, str(f.type)) for f in table.schema] == [
        ("shop", "string"),
        ("product", "string"),
        ("day", "date32[day]"),
        ("actual", "double"),
        ("prediction", "float"),
    ]
    order = list(
        zip(*(table[name].to_pylist() for name in ("day", "shop", "product")), strict=True)
    )
    assert order == sorted(order)
    feeds: dict[str, Any] = {
        name: np.array(table[name].to_pylist()[:64], dtype=object) for name in ("shop", "product")
    }
    feeds["day"] = np.array(table["day"].to_numpy()[:64], dtype="datetime64[D]").astype(np.int64)
    [sales] = load_onnx_model(bundle.files["model.onnx"]).run(feeds, ["sales"])
    assert np.array_equal(sales, table["prediction"].to_numpy()[:64])


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


def test_golden_vectors_cover_known_unknown_and_edges(bundle: Bundle) -> None:
    """At least 64 vectors: known series, each kind of unknown key, first and last day."""
    vectors = decode_golden(bundle.files["golden.jsonl"])
    assert len(vectors) >= 64
    inputs = [msgspec.json.decode(vector.inputs) for vector in vectors]
    vocabulary = {f"shop-{i}" for i in range(4)}, {f"p{i}" for i in range(6)}
    kinds = {(row["shop"] in vocabulary[0], row["product"] in vocabulary[1]) for row in inputs}
    assert kinds == {(True, True), (True, False), (False, True), (False, False)}
    assert {"2024-03-31", "2024-04-13"} <= {row["day"] for row in inputs}
    assert {vector.outputs["known_series"] for vector in vectors} == {0, 1}
    combination = {(row["shop"], row["product"]): v for row, v in zip(inputs, vectors, strict=True)}
    assert combination["shop-3", "p5"].outputs["known_series"] == 0


def test_graph_answers_golden_vectors_within_the_tolerance(bundle: Bundle) -> None:
    """What a consumer will check at admission holds where the bundle is made."""
    vectors = decode_golden(bundle.files["golden.jsonl"])
    inputs = [msgspec.json.decode(vector.inputs) for vector in vectors]
    feeds: dict[str, Any] = {
        name: np.array([row[name] for row in inputs], dtype=object) for name in ("shop", "product")
    }
    feeds["day"] = np.array([row["day"] for row in inputs], dtype="datetime64[D]").astype(np.int64)
    answers = load_onnx_model(bundle.files["model.onnx"]).run(feeds, OUTPUTS)
    tolerance = bundle.manifest.tolerance
    for name, answer in zip(OUTPUTS, answers, strict=True):
        golden = np.array([vector.outputs[name] for vector in vectors])
        allowed = tolerance.absolute + tolerance.relative * np.abs(golden)
        assert (np.abs(answer - golden) <= allowed).all(), name


def test_card_shows_scores_beside_baselines_licence_and_limits(bundle: Bundle) -> None:
    """A reader of the card meets the data's licence, the baselines and the bias."""
    card, holdout = bundle.files["card.md"].decode(), bundle.manifest.holdout
    assert holdout is not None
    for predictor in Predictor:
        assert f"| {predictor} | {holdout.metrics[predictor]['rmsle']:.4f} |" in card
    assert "Licence: none. made by a test" in card
    assert "## Limits" in card
    assert "{" not in card


@pytest.mark.parametrize("preset", list(Preset))
def test_same_data_gives_the_same_bundle(tmp_path: Path, preset: Preset) -> None:
    """Two trainings give the same bytes throughout when the clock says the same."""
    file = dataset_in(tmp_path)
    assert bundle_of(file, preset) == bundle_of(file, preset)


def test_another_seed_gives_another_model(bundle: Bundle, tmp_path: Path) -> None:
    """The seed is used: without it the test above would prove nothing about sampling."""
    other = bundle_of(dataset_in(tmp_path), seed=1)
    assert other.files["model.onnx"] != bundle.files["model.onnx"]


@pytest.mark.parametrize("preset", list(Preset))
def test_days_after_the_cutoff_change_nothing_in_the_model(tmp_path: Path, preset: Preset) -> None:
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
    true = bundle_of(dataset_in(tmp_path / "true"), preset)
    other = bundle_of(dataset_in(tmp_path / "scrambled", scrambled), preset)
    assert true.files["model.onnx"] == other.files["model.onnx"]
    assert true.manifest.holdout != other.manifest.holdout


def test_days_before_the_cutoff_do_change_the_model(bundle: Bundle, tmp_path: Path) -> None:
    """The last day before the holdout is learned from: the cutoff is not a day early."""
    columns = made_up_columns()
    columns["units"][columns["day"] == FIRST_DAY + 89] += 50
    other = bundle_of(dataset_in(tmp_path, columns))
    assert other.files["model.onnx"] != bundle.files["model.onnx"]


def with_constant(name: str, change: Callable[[Any], Any]) -> Callable[[onnx.ModelProto], None]:
    def tamper(model: onnx.ModelProto) -> None:
        [constant] = [each for each in model.graph.initializer if each.name == name]
        changed = change(numpy_helper.to_array(constant).copy())
        constant.CopyFrom(numpy_helper.from_array(changed, name))

    return tamper


def one_table_value(table: Any) -> Any:
    table[5, 4] += 0.5
    return table


def without_exponential(model: onnx.ModelProto) -> None:
    [node] = [each for each in model.graph.node if each.op_type == "Exp"]
    node.op_type = "Softplus"


def with_one_leaf_moved(model: onnx.ModelProto) -> None:
    [node] = [each for each in model.graph.node if each.op_type == "TreeEnsembleRegressor"]
    [weights] = [each for each in node.attribute if each.name == "target_weights"]
    weights.floats[0] += 0.01


TAMPERED = {
    "one value of a table": (
        with_constant("table/series-weekday/values", one_table_value),
        "on the log scale",
    ),
    "weekday off by one": (with_constant("weekday/shift", lambda _: np.int64(4)), "log scale"),
    "cutoff off by one": (with_constant("step/cutoff", lambda day: day + 1), "log scale|in_hori"),
    "known rows off by one": (
        with_constant("row/known", lambda rows: rows - 1),
        "known_series is 0 where Python says 1",
    ),
    "horizon too short": (
        with_constant("step/last", lambda _: np.int64(13)),
        "log scale|in_horizon is 0 where Python says 1",
    ),
    "another function": (without_exponential, "log scale"),
    "one leaf": (with_one_leaf_moved, "log scale"),
}


@pytest.mark.parametrize("case", TAMPERED)
def test_parity_refuses_a_graph_that_is_not_the_model(
    trained: tuple[Forecaster, HeldOut], case: str
) -> None:
    """A graph that was changed in one place is refused, with the row that shows it."""
    tamper, expected = TAMPERED[case]
    forecaster, held = trained
    model = onnx.load_model_from_string(export(forecaster, "day"))
    tamper(model)
    with pytest.raises(RefusedByRule, match=expected) as caught:
        prove(forecaster, model.SerializeToString(), held, "day", seed=0)
    assert caught.value.exit_code == 3
    assert "the exported graph is not the trained model" in caught.value.message
    assert re.search(r"for shop '.+', product '.+' on 2024-", caught.value.message)


def test_parity_accepts_the_true_graph(trained: tuple[Forecaster, HeldOut]) -> None:
    """The untouched export passes, on every held-out row and on unknown keys of every kind."""
    forecaster, held = trained
    proof = prove(forecaster, export(forecaster, "day"), held, "day", seed=0)
    assert proof.agreement.rows == 230 + 4 * (14 + 2)
    assert proof.agreement.max_difference <= 2e-6


def test_parity_refuses_a_conversion_that_is_silently_wrong(
    trained: tuple[Forecaster, HeldOut],
) -> None:
    """skl2onnx forgets the exponential of a Poisson loss without a word; parity finds it."""
    forecaster, held = trained
    generator = np.random.default_rng(0)
    features = generator.random((500, forecaster.features)).astype(np.float32)
    poisson = HistGradientBoostingRegressor(loss="poisson", max_iter=20)
    wrong = replace(forecaster, regressor=poisson.fit(features, generator.poisson(2.0, 500)))
    with pytest.raises(RefusedByRule, match="not the trained model"):
        prove(wrong, export(wrong, "day"), held, "day", seed=0)


def test_metrics_by_hand() -> None:
    """RMSLE, WAPE and bias of three rows, worked out on paper."""
    actual, predicted = np.array([0.0, 1.0, 3.0]), np.array([1.0, 1.0, 1.0])
    found = scores(actual, predicted)
    assert found["rmsle"] == pytest.approx(np.log(2) * np.sqrt(2 / 3))
    assert found["wape"] == pytest.approx(3 / 4)
    assert found["bias"] == pytest.approx(-1 / 4)


def test_baselines_by_hand(trained: tuple[Forecaster, HeldOut], tmp_path: Path) -> None:
    """lag-7 repeats the last week before the cutoff, mean-28-log its last four weeks."""
    file = dataset_in(tmp_path)
    panel = read_panel(file, read_source(file))
    _, held = trained
    series, start = panel.keys.series, panel.cutoff + 1
    lag, mean = held.baselines[Predictor.LAG_7], held.baselines[Predictor.MEAN_28_LOG]
    for day in (0, 6, 7, 9):
        row = day * series + 4
        assert lag[row] == panel.units[4, start - 7 + day % 7]
        assert mean[row] == pytest.approx(
            np.expm1(np.log1p(panel.units[4, start - 28 : start]).mean())
        )
