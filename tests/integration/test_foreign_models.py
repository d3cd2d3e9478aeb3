"""Models that other tools trained and their converters exported, in service."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from adapters.bundles import verify_bundle
from schemas.errors import RefusedByRule
from schemas.rejection import Reason
from tests.fleet import LIMIT_SECONDS, Harness
from tests.foreign_models import (
    NUMBERS,
    Exported,
    classifier_model,
    lightgbm_model,
    misrounded_model,
    pipeline_model,
    shop,
    torch_model,
    xgboost_model,
)
from tests.shell import ROOT, commands_in
from trainer.contract_file import load_contract_file
from trainer.foreign import ForeignBundle, make_bundle, open_foreign
from trainer.golden_data import read_golden_data

MODELS: dict[str, Callable[[], Exported]] = {
    "lightgbm": lightgbm_model,
    "xgboost": xgboost_model,
    "pipeline": pipeline_model,
    "torch": torch_model,
}

ASKED = 200
"""Requests to each version, so that every batch is a mix of rows."""


def create(harness: Harness, name: str, exported: Exported) -> str:
    """The digest of the bundle that the command makes and stores."""
    folder = harness.folder
    (folder / f"{name}.onnx").write_bytes(exported.content)
    (folder / f"{name}.toml").write_text(exported.contract.format(model=harness.model))
    exported.golden.to_parquet(folder / f"{name}.parquet")
    said = harness.run(
        *("bundle", "create", f"{name}.onnx", "--contract", f"{name}.toml"),
        *("--golden", f"{name}.parquet", "-o", "json"),
    )
    report = json.loads(said[said.index("{") : said.rindex("}") + 1])
    assert report["parity"]["rows"] == len(exported.golden)
    assert report["parity"]["max_difference"] <= 1e-5
    manifest = verify_bundle(harness.store, report["digest"])
    assert manifest.model == harness.model
    return str(report["digest"])


def request(request_id: str, row: "pd.Series[object]") -> bytes:
    """A request for one row of raw inputs; NaN is null, and so JSON has it."""
    inputs = {name: None if pd.isna(value) else value for name, value in row.items()}
    return json.dumps({"request_id": request_id, "inputs": inputs}).encode()


def requests_of(name: str, frame: pd.DataFrame) -> list[bytes | None]:
    """As a caller writes them: promo is a flag, which is 0 or 1 to one contract and a bool to another."""
    promo = bool if frame["promo"].dtype == bool else int
    rows = frame.astype(object).assign(promo=frame["promo"].map(promo).astype(object))
    return [request(f"{name}-{number}", row) for number, (_, row) in enumerate(rows.iterrows())]


@pytest.mark.stack
def test_models_of_four_tools_answer_one_after_the_other(harness: Harness) -> None:
    """A consumer swaps from each tool's model to the next, and answers what that library predicts."""
    started = False
    for version, (name, train) in enumerate(MODELS.items(), start=1):
        exported = train()
        revision = harness.release(create(harness, name, exported))
        if not started:
            harness.start()
            started = True
        harness.wait_until_ready()
        harness.wait_for_revision(revision)
        raw = exported.golden.drop(columns="sales").head(ASKED)
        harness.send_raw(requests_of(name, raw))
        answers = {
            each.request_id: each
            for each in harness.forecasts(version * ASKED)
            if each.version == version
        }
        wanted = exported.predict(exported.golden.head(ASKED))
        found = [answers[f"{name}-{number}"].outputs["sales"] for number in range(ASKED)]
        np.testing.assert_allclose(np.array(found, np.float64), wanted, rtol=1e-5, atol=1e-5)
    assert harness.verify().clean


@pytest.mark.stack
def test_a_foreign_contract_fills_in_and_turns_down(harness: Harness) -> None:
    """A default is filled in and a null is what the tree sees as NaN; beyond its limits is rejected."""
    exported = lightgbm_model()
    harness.release(create(harness, "lightgbm", exported))
    harness.start()
    harness.wait_until_ready()
    whole = {"lag_7": 3.0, "mean_28": None, "price": 2.5, "promo": 0}
    short = {name: value for name, value in whole.items() if name != "promo"}
    asked = {
        "whole": whole,
        "short": short,
        "negative": whole | {"lag_7": -1},
        "not-allowed": whole | {"promo": 2},
        "unknown": whole | {"prise": 2.5},
    }
    harness.send_raw(
        [json.dumps({"request_id": name, "inputs": each}).encode() for name, each in asked.items()]
    )
    answers = {each.request_id: each.outputs["sales"] for each in harness.forecasts(2)}
    frame = pd.DataFrame([whole]).astype(np.float32)
    assert (
        answers["whole"] == answers["short"] == pytest.approx(exported.predict(frame)[0], rel=1e-5)
    )
    reasons = {each.rejection.reason for each in harness.rejections(3)}
    assert reasons == {Reason.OUT_OF_RANGE, Reason.NOT_ALLOWED, Reason.UNKNOWN_FIELD}


def make(folder: Path, exported: Exported) -> ForeignBundle:
    """The bundle, without a store."""
    contract, data = folder / "contract.toml", folder / "data.parquet"
    contract.write_text(exported.contract.format(model="demand"))
    exported.golden.to_parquet(data)
    foreign = open_foreign(exported.content, load_contract_file(contract))
    golden = read_golden_data(data, foreign.contract)
    return make_bundle(foreign, golden, tolerance=1e-5, created_at=datetime(2026, 1, 1, tzinfo=UTC))


@pytest.mark.parametrize("name", MODELS)
def test_each_converter_is_proven_and_another_model_is_not(tmp_path: Path, name: str) -> None:
    """The library's own predictions are met on every row; those of another model are refused."""
    exported = MODELS[name]()
    made = make(tmp_path, exported)
    assert made.manifest.parity is not None
    assert made.golden.unexercised == ()
    others = exported.golden["sales"].sample(frac=1, random_state=0).to_numpy()
    other = replace(exported, golden=exported.golden.assign(sales=others))
    with pytest.raises(RefusedByRule, match="the graph is not the model that made the predictions"):
        make(tmp_path, other)


def test_columns_in_another_order_are_found_out(tmp_path: Path) -> None:
    """The commonest mistake of a hand-written contract fits the graph, and not the predictions."""
    exported = lightgbm_model()
    swapped = exported.contract.replace('"price", "promo"', '"promo", "price"')
    with pytest.raises(RefusedByRule, match="The worst: ") as caught:
        make(tmp_path, replace(exported, contract=swapped))
    assert "in the order of training" in caught.value.hint


def test_a_threshold_that_the_converter_rounds_is_found_out(tmp_path: Path) -> None:
    """LightGBM's float64 thresholds become float32: a row in fifty is silently answered wrong."""
    exported = misrounded_model()
    wrong = int((exported.golden["price"] == np.nextafter(np.float32(1), np.float32(2))).sum())
    with pytest.raises(RefusedByRule, match=f": {wrong} of 400 rows differ") as caught:
        make(tmp_path, exported)
    assert "threshold was rounded to float32" in caught.value.hint


def test_one_column_of_a_classifier_is_read(tmp_path: Path) -> None:
    """Label and probability of one graph: the label is a whole number, and equal."""
    made = make(tmp_path, classifier_model())
    assert made.manifest.parity is not None
    assert {type(each.outputs["busy"]) for each in made.golden.vectors} == {float}
    assert {each.outputs["label"] for each in made.golden.vectors} == {0, 1}


@pytest.mark.stack
def test_the_how_to_page_works_as_it_is_typed(harness: Harness) -> None:
    """Its Python trains and exports, its contract fits, its commands release; a consumer answers."""
    page = ROOT / "docs" / "how-to" / "bring-your-own-model.md"
    text = page.read_text(encoding="utf-8")
    frame, sales = shop(1_500)
    frame[NUMBERS].assign(sales=sales).to_parquet(harness.folder / "train.parquet")
    [script] = re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)
    subprocess.run(
        [sys.executable, "-c", script], cwd=harness.folder, check=True, timeout=LIMIT_SECONDS
    )
    [contract] = re.findall(r"^```toml\n# contract.toml\n(.*?)^```", text, re.M | re.S)
    (harness.folder / "contract.toml").write_text(contract.replace("demand", harness.model))
    digest = ""
    for arguments in commands_in(page):
        if arguments[0] in ("up", "down"):  # the stack runs already
            continue
        if arguments[0] == "consume":
            harness.start()
            harness.wait_until_ready()
            continue
        words = {"DIGEST": digest, "demand": harness.model}
        said = harness.run(*(words.get(each, each) for each in arguments))
        found = re.search(r"^digest +(sha256:[0-9a-f]{64})$", said, re.M)
        digest = found[1] if found else digest
        if arguments[0] == "request":
            assert json.loads(said)["digest"] == digest
    [asked] = harness.forecasts(1)
    assert list(asked.outputs) == ["sales"]
    whole = {"lag_7": 3.0, "mean_28": None, "price": 2.5}
    harness.send_raw([json.dumps({"request_id": "r", "inputs": whole}).encode()])
    [answer] = [each for each in harness.forecasts(2) if each.request_id == "r"]
    assert (answer.digest, answer.version) == (digest, 1)
