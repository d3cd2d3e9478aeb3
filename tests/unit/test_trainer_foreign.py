"""Bundles of foreign models: what is proven of a graph, what is refused, and which rows are kept."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pandas as pd
import pytest
from click.testing import CliRunner, Result
from onnx import TensorProto, helper

from adapters.bundles import list_bundles, read_file, verify_bundle
from adapters.object_store import open_store
from modelwire.cli import modelwire
from schemas.errors import ModelwireError, RefusedByRule
from schemas.evidence import Accuracy, ForeignEvidence
from schemas.manifest import (
    CARD_NAME,
    CARD_PAGE_NAME,
    EVIDENCE_NAME,
    GOLDEN_NAME,
    decode_golden,
    digest_of,
)
from scoring.golden import check_golden
from tests.foreign_models import linear_graph
from trainer.contract_file import load_contract_file
from trainer.foreign import ForeignBundle, make_bundle, open_foreign
from trainer.foreign_evidence import METRICS, accuracy
from trainer.golden_data import read_golden_data

CONTRACT = """\
model = "demand"

[matrix.x]
columns = ["lag", "price"]

[outputs.sales]
"""

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def frame(rows: int = 100, **more: Any) -> pd.DataFrame:
    """Inputs of ``linear_graph``, and what it should give: ``lag + 2 × price``."""
    lag, price = np.arange(rows, dtype=np.float64), np.linspace(1, 2, rows).astype(np.float32)
    return pd.DataFrame({"lag": lag, "price": price, "sales": lag + 2 * price} | more)


def bundle_of(
    folder: Path,
    data: pd.DataFrame,
    graph: bytes | None = None,
    contract: str = CONTRACT,
    tolerance: float = 1e-5,
) -> ForeignBundle:
    (folder / "contract.toml").write_text(contract, encoding="utf-8")
    data.to_parquet(folder / "data.parquet")
    foreign = open_foreign(graph or linear_graph(), load_contract_file(folder / "contract.toml"))
    golden = read_golden_data(folder / "data.parquet", foreign.contract, foreign.written.actuals)
    return make_bundle(foreign, golden, tolerance=tolerance, created_at=NOW)


def test_predictions_prove_the_graph_and_become_its_golden_vectors(tmp_path: Path) -> None:
    """Parity is over every row, and golden outputs are what the pipeline said, not the graph."""
    data = frame(1_000)
    data["sales"] *= 1 + 2e-6
    made = bundle_of(tmp_path, data)
    parity = made.manifest.parity
    assert parity is not None
    assert (parity.rows, parity.space, parity.limit) == (1_000, "identity", 1e-5)
    assert 1e-6 < parity.max_difference < 3e-6
    vectors = decode_golden(made.files[GOLDEN_NAME])
    said = {json.loads(bytes(each.inputs))["lag"]: each.outputs["sales"] for each in vectors}
    assert len(said) == len(vectors) == 64
    assert all(data["sales"][int(lag)] == sales for lag, sales in said.items())
    assert made.manifest.created_at == NOW
    assert made.manifest.model == "demand"


def test_without_predictions_nothing_is_claimed(tmp_path: Path) -> None:
    """The manifest has no parity, the card says so, and the golden vectors are the graph's answers."""
    made = bundle_of(tmp_path, frame().drop(columns="sales"))
    assert made.manifest.parity is None
    assert "**Not proven.**" in made.files[CARD_NAME].decode()
    assert "<strong>Not proven.</strong>" in made.files[CARD_PAGE_NAME].decode()
    vectors = decode_golden(made.files[GOLDEN_NAME])
    assert {each.outputs["sales"] for each in vectors} <= {*np.float32(frame()["sales"]).tolist()}


def test_one_wrong_prediction_of_many_refuses_the_bundle(tmp_path: Path) -> None:
    """The refusal names the worst row, what each side says, the inputs, and how many differ."""
    data = frame(700)
    data.loc[[11, 613], "sales"] += [0.1, 0.5]
    with pytest.raises(RefusedByRule) as caught:
        bundle_of(tmp_path, data)
    said = caught.value.message
    assert "2 of 700 rows differ by more than 1e-05" in said
    assert "data.parquet: row 12, sales: the pipeline says" in said
    assert '"lag":11.0' in said
    assert "--tolerance" in caught.value.hint
    parity = bundle_of(tmp_path, data, tolerance=0.01).manifest.parity
    assert parity is not None
    assert parity.max_difference > 5e-4


def test_what_a_float32_tensor_cannot_hold_is_found(tmp_path: Path) -> None:
    """A pipeline in float64 tells 16,777,217 from 16,777,216; the graph's tensor does not."""
    data = pd.DataFrame({"lag": [16_777_217.0, 5.0], "price": [16_777_216.0, 2.0]})
    data["sales"] = data["lag"] - data["price"]
    with pytest.raises(RefusedByRule, match="1 of 2 rows differ") as caught:
        bundle_of(tmp_path, data, linear_graph((1.0, -1.0)))
    assert "the pipeline says 1, the graph 0" in caught.value.message


def test_an_answer_that_depends_on_its_batch_is_refused(tmp_path: Path) -> None:
    """A graph that subtracts its batch's mean, as one exported in training mode does."""
    data = frame(300).drop(columns="sales")
    with pytest.raises(RefusedByRule, match="an answer must not depend on its batch") as caught:
        bundle_of(tmp_path, data, linear_graph(of_the_batch=True))
    assert "in a batch of 256 and" in caught.value.message
    assert "in one of 1;" in caught.value.message


def test_weights_that_stand_among_the_inputs_are_none(tmp_path: Path) -> None:
    """Older exporters list each weight as an input too; nobody has to fill it."""
    model = onnx.load_model_from_string(linear_graph())
    weights = helper.make_tensor_value_info("w", TensorProto.FLOAT, [2, 1])
    model.graph.input.append(weights)
    assert bundle_of(tmp_path, frame(), model.SerializeToString()).manifest.parity is not None


def test_golden_vectors_show_every_branch_that_the_data_has(tmp_path: Path) -> None:
    """Nulls, allowed values, limits, fields left out: rows are picked, made from defaults, or named."""
    contract = (
        CONTRACT
        + """
[fields.lag]
minimum = 0
maximum = 5000
[fields.price]
default = 1.5
nullable = true
null_as = 3
"""
    )
    data = frame(1_000)
    data.loc[977, "price"] = np.nan
    data.loc[977, "sales"] = 977 + 2 * 3
    data.loc[501, "price"] = 1.5
    data.loc[501, "sales"] = 501 + 2 * 1.5
    made = bundle_of(tmp_path, data, contract=contract)
    inputs = [json.loads(bytes(each.inputs)) for each in made.golden.vectors]
    assert {"lag": 977.0, "price": None} in inputs
    assert {"lag": 501.0} in inputs, "what leaves the price out is a row that holds its default"
    assert {"lag": 0.0, "price": 1.0} in inputs
    assert max(each["lag"] for each in inputs) == 999.0
    assert made.golden.unexercised == ("lag = 5000 (maximum)",)


def test_a_golden_vector_for_each_allowed_value(tmp_path: Path) -> None:
    """A value that one row in a thousand has is kept; one that no row has is named."""
    contract = CONTRACT + '[fields.lag]\ntype = "int64"\nallowed = [0, 1, 2]\n'
    data = frame(1_000).assign(lag=0, sales=lambda each: 2 * each["price"].astype(np.float64))
    data.loc[987, ["lag", "sales"]] = [1, 1 + 2 * data["price"][987]]
    made = bundle_of(tmp_path, data, contract=contract)
    lags = {json.loads(bytes(each.inputs))["lag"] for each in made.golden.vectors}
    assert lags == {0, 1}
    assert made.golden.unexercised == ("lag = 2",)


def test_the_vectors_hold_in_the_tolerance_that_the_manifest_states(tmp_path: Path) -> None:
    """What a consumer will check passes here; the tolerance is twice that of the proof."""
    made = bundle_of(tmp_path, frame(), tolerance=1e-4)
    assert made.manifest.tolerance.absolute == made.manifest.tolerance.relative == 2e-4
    foreign = open_foreign(linear_graph(), load_contract_file(tmp_path / "contract.toml"))
    assert check_golden(foreign.version, made.golden.vectors, made.manifest.tolerance) is None
    worse = bundle_of(tmp_path, frame(), linear_graph((1.0, 2.00001)), tolerance=1e-4)
    assert check_golden(foreign.version, worse.golden.vectors, made.manifest.tolerance) is None


MEASURED = CONTRACT + 'actual = "sold"\n'


def test_actuals_become_evidence_and_a_section_of_the_card(tmp_path: Path) -> None:
    """On paper: errors of 2 and 1 where 10 and 5 came, and a row of which nobody knows what came."""
    data = pd.DataFrame({"lag": [10.0, 2.0, 3.0], "price": [1.0, 1.0, 1.0]})
    data["sold"] = [10.0, 5.0, np.nan]
    made = bundle_of(tmp_path, data, contract=MEASURED)
    raw = made.files[EVIDENCE_NAME]
    assert made.manifest.files[EVIDENCE_NAME].digest == digest_of(raw)
    evidence = msgspec.json.decode(raw, type=ForeignEvidence)
    assert evidence == made.evidence
    assert (evidence.rows, list(evidence.outputs)) == (3, ["sales"])
    found = evidence.outputs["sales"]
    logs = np.array([np.log(13 / 11), np.log(5 / 6)])
    assert found["model"] == Accuracy(
        rows=2,
        rmse=pytest.approx(np.sqrt(2.5), rel=1e-5),
        mae=1.5,
        wape=0.2,
        bias=pytest.approx(1 / 15, rel=1e-5),
        rmsle=pytest.approx(np.sqrt((logs**2).mean()), rel=1e-5),
    )
    assert found["mean of the actuals"] == accuracy(np.array([10.0, 5.0]), np.full(2, 7.5))
    card = made.files[CARD_NAME].decode()
    assert "| sales | model | 1.581 | 1.5 | 0.2 | 0.06667 | 0.1749 | 2 |" in card
    assert "<td>mean of the actuals</td>" in made.files[CARD_PAGE_NAME].decode()
    assert "no actuals" not in card


def test_without_actuals_the_card_says_so(tmp_path: Path) -> None:
    """There is no evidence, and no figure is made up."""
    made = bundle_of(tmp_path, frame())
    assert made.evidence is None
    assert EVIDENCE_NAME not in made.files
    assert "The golden data holds no actuals" in made.files[CARD_NAME].decode()


@pytest.mark.parametrize(
    ("actual", "predicted", "absent"),
    [
        ([-1.0, 4.0], [1.0, 1.0], {"wape", "bias", "rmsle"}),
        ([0.0, 0.0], [1.0, 1.0], {"wape", "bias"}),
        ([1.0, 4.0], [-1.0, 1.0], {"rmsle"}),
        ([1.0, 4.0], [0.0, 1.0], set()),
    ],
)
def test_what_cannot_be_computed_is_absent(
    actual: list[float], predicted: list[float], absent: set[str]
) -> None:
    """Shares of nothing, and logs of what lies below 0."""
    found = accuracy(np.array(actual), np.array(predicted))
    assert {name for name in METRICS if getattr(found, name) is None} == absent


@pytest.mark.parametrize(
    ("column", "values", "said"),
    [
        ("lag", [1.0, 2.0], "which is a field or an output"),
        ("sales", [1.0, 2.0], "which is a field or an output"),
        ("other", [1.0, 2.0], "has no column 'sold' with the actuals of sales"),
        ("sold", [None, None], "has no actual in any row"),
        ("sold", ["a", "b"], "actuals are numbers"),
        ("sold", [1.0, float("inf")], "row 2, sold: the actual is infinite"),
    ],
)
def test_actuals_that_cannot_be_used_are_refused(
    tmp_path: Path, column: str, values: list[Any], said: str
) -> None:
    """With the column, or the row."""
    named = column if column in ("lag", "sales") else "sold"
    data = pd.DataFrame({"lag": [1.0, 2.0], "price": [1.0, 1.0]})
    data[column] = values
    with pytest.raises(ModelwireError, match=said) as caught:
        bundle_of(tmp_path, data, contract=CONTRACT + f'actual = "{named}"\n')
    assert caught.value.hint


class Folder:
    """A folder with a model, a contract and golden data, and the command on them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.store = open_store((path / "store").as_uri())
        self.write("m.onnx", linear_graph())
        self.write("contract.toml", CONTRACT.encode())
        frame().to_parquet(path / "data.parquet")

    def write(self, name: str, content: bytes) -> None:
        (self.path / name).write_bytes(content)

    def create(self, *more: str, model: str = "m.onnx") -> Result:
        out = ["--out", (self.path / "store").as_uri()]
        given = ["--contract", "contract.toml", "--golden", "data.parquet", *out, *more]
        return CliRunner().invoke(modelwire, ["bundle", "create", model, *given])


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """Where the test runs."""
    return Folder(tmp_path)


def test_the_command_stores_a_bundle_that_can_be_verified(folder: Folder) -> None:
    """Digest and URI are those of a stored bundle; sources and licence are in its lineage."""
    folder.write("train.csv", b"a,b\n")
    folder.write("card.md", b"# Ours\n")
    result = folder.create(
        "--source", "train.csv", "--licence", "CC0-1.0", "--card", "card.md", "-o", "json"
    )
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert list(report) == [
        "model", "digest", "uri", "seconds", "size_bytes", "rows", "golden_vectors", "not_exercised",
        "parity", "actuals",
    ]  # fmt: skip
    assert (report["model"], report["rows"]) == ("demand", 100)
    assert report["parity"]["max_difference"] <= 1e-5
    assert report["actuals"] is None
    assert report["uri"].endswith(report["digest"].removeprefix("sha256:"))
    manifest = verify_bundle(folder.store, report["digest"])
    assert manifest.lineage is not None
    [source] = manifest.lineage.sources
    assert (source.name, source.digest, source.size) == ("train.csv", digest_of(b"a,b\n"), 4)
    assert source.licence == "CC0-1.0"
    assert read_file(folder.store, report["digest"], manifest, CARD_NAME) == b"# Ours\n"
    contract = read_file(folder.store, report["digest"], manifest, "contract.toml")
    assert contract.decode() == CONTRACT


def test_people_read_what_was_proven_and_the_digest(folder: Folder) -> None:
    """With predictions and without them; no lineage is made up."""
    said = folder.create()
    [digest] = list_bundles(folder.store)
    assert f"digest  {digest}\n" in said.stdout
    assert "graph equals the pipeline to" in said.stdout
    folder.write("contract.toml", MEASURED.encode())
    frame(sold=frame()["sales"] + 1).to_parquet(folder.path / "data.parquet")
    assert "sales on 100 actuals: rmse 1, mae 1\n" in folder.create().stdout
    folder.write("contract.toml", CONTRACT.encode())
    frame().drop(columns="sales").to_parquet(folder.path / "data.parquet")
    said = folder.create()
    assert "parity not proven: the golden data has no predictions (sales)" in said.stdout
    assert verify_bundle(folder.store, digest).lineage is None


@pytest.mark.parametrize(
    ("name", "content", "more", "code", "said"),
    [
        ("m.onnx", b"no model", (), 1, "not an ONNX model"),
        ("m.onnx", linear_graph(rows=64), (), 2, "'x' (float32 [64, 2]), whose number of rows is fixed"),
        ("m.onnx", linear_graph((1.0, 2.0, 3.0)), (), 2, "has 2 columns, and 'x' (float32 [N, 3]) has 3"),
        ("m.onnx", linear_graph(dtype=TensorProto.FLOAT16), (), 2, "'x' (float16 [N, 2]), and no field"),
        ("m.onnx", linear_graph((1.0, 3e38)), (), 1, "has no answer: the model gave sales = inf"),
        ("m.onnx", linear_graph((1.0, 3.0)), (), 3, "the graph is not the model that made"),
        ("contract.toml", CONTRACT.encode() + b"colum = 1\n", (), 2, ":7: outputs.sales.colum is no key"),
        ("data.parquet", b"", (), 1, "data.parquet cannot be read as Parquet"),
        ("c.md", b"\xff", ("--card", "c.md"), 2, "c.md is not UTF-8"),
        ("x", b"", ("--card", "none.md"), 4, "no model card at none.md"),
        ("x", b"", ("--source", "none.csv"), 4, "no source at none.csv"),
        ("x", b"", ("--licence", "MIT"), 2, "no --source was given"),
        ("x", b"", ("--contract", "none.toml"), 4, "no contract file at none.toml"),
        ("x", b"", ("--golden", "none.csv"), 4, "no golden data at none.csv"),
        ("x", b"", ("--tolerance", "nan"), 2, ""),
        ("x", b"", ("--tolerance", "1"), 2, ""),
    ],
)  # fmt: skip
def test_what_is_wrong_ends_in_a_message_and_a_code(
    folder: Folder, name: str, content: bytes, more: tuple[str, ...], code: int, said: str
) -> None:
    """No traceback, nothing stored, and a next step."""
    folder.write(name, content)
    result = folder.create(*more)
    assert result.exit_code == code, result.output
    assert said in result.stderr
    assert not said or "next: " in result.stderr
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert not list(list_bundles(folder.store))


def test_no_model_there(folder: Folder) -> None:
    """A path without a file is not found; a folder is no file."""
    result = folder.create(model="other.onnx")
    assert (result.exit_code, "no model at other.onnx" in result.stderr) == (4, True)
    result = folder.create(model=".")
    assert (result.exit_code, "cannot be read: Is a directory" in result.stderr) == (1, True)
