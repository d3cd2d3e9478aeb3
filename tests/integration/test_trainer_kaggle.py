"""``datasets/favorita.toml`` on made-up files in the layout of the Favorita competition."""

import json
from dataclasses import dataclass
from datetime import date
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from adapters.bundles import verify_bundle
from adapters.object_store import open_store
from adapters.onnx_model import load_onnx_model
from schemas.manifest import Manifest
from tests.kaggle_layout import FILES, PERISHABLE_WEIGHT, write_kaggle_layout
from tests.shell import ROOT
from trainer.chain import Design
from trainer.cli import train

SHORT = Design(series=36, days=420, seed=4, start=date(2016, 6, 1), noise=0.5)
LONG = Design(series=240, days=1_100, seed=5, start=date(2014, 6, 1))

pytestmark = pytest.mark.timeout(900)

KEYS = ["store_nbr", "item_nbr"]


@dataclass(frozen=True)
class Made:
    """What a training stored, and the folder of the data."""

    data: Path
    report: dict[str, Any]
    manifest: Manifest
    files: dict[str, bytes]

    @property
    def held_out(self) -> pd.DataFrame:
        """The rows of the holdout, with what ``items.csv`` says of each item."""
        rows = pd.read_parquet(BytesIO(self.files["holdout.parquet"]))
        return rows.merge(pd.read_csv(self.data / "items.csv"), on="item_nbr", validate="m:1")


@pytest.fixture(
    scope="module",
    params=[SHORT, pytest.param(LONG, marks=pytest.mark.slow)],
    ids=["short", "long"],
)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The shipped dataset, trained by the command on a made-up panel that ``--data`` names."""
    design: Design = request.param
    folder = tmp_path_factory.mktemp("kaggle")
    data = folder / "data"
    write_kaggle_layout(design, data, promotions_from=date(design.start.year + 1, 1, 1))
    assert sorted(each.name for each in data.iterdir()) == sorted(FILES)
    uri = (folder / "store").as_uri()
    arguments = ["--dataset", ROOT / "datasets" / "favorita.toml", "--data", data, "--out", uri]
    result = CliRunner().invoke(train, [*map(str, arguments), "-o", "json"], catch_exceptions=False)
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    store = open_store(uri)
    manifest = verify_bundle(store, report["digest"])
    name = report["digest"].removeprefix("sha256:")
    files = {each: store.get(f"bundles/{name}/{each}", limit=10**8) for each in manifest.files}
    return Made(data, report, manifest, files)


def test_the_competition_layout_trains_and_beats_last_week(made: Made) -> None:
    """Every metric is there, and the model is better than lag-7 and the mean of 28 days."""
    metrics = made.report["holdout"]["metrics"]
    assert {"rmsle", "nwrmsle", "wape", "bias", "pinball", "coverage"} <= set(metrics["model"])
    for baseline in ("lag-7", "mean-28-log"):
        assert metrics["model"]["nwrmsle"] < 0.9 * metrics[baseline]["nwrmsle"]
    assert metrics["model"]["coverage"] > 0.7
    assert made.report["parity"]["max_difference"] <= 2e-6


def test_every_file_that_was_read_is_recorded(made: Made) -> None:
    """All but the price of oil, which no request could carry."""
    assert made.manifest.lineage is not None
    recorded = [each.name for each in made.manifest.lineage.sources]
    assert recorded == [each for each in FILES if each != "oil.csv"]
    assert {each.licence for each in made.manifest.lineage.sources} == {"Kaggle competition terms"}


def test_returns_count_as_nothing_sold(made: Made) -> None:
    """What the holdout calls actual is what the file says was sold, row by row."""
    rows = pd.read_csv(made.data / "train.csv")
    assert (rows["unit_sales"] < 0).sum() > 50
    rows = rows.assign(sold=rows["unit_sales"].clip(lower=0))[["date", *KEYS, "sold"]]
    held = made.held_out.assign(date=made.held_out["date"].astype(str))
    both = held.merge(rows, on=["date", *KEYS], how="left", validate="1:1")
    np.testing.assert_allclose(both["actual"], both["sold"].fillna(0), rtol=1e-6)


def test_perishable_items_weigh_more(made: Made) -> None:
    """The reported NWRMSLE is that of the competition, and not the RMSLE."""
    held = made.held_out
    squares = (np.log1p(held["prediction"]) - np.log1p(held["actual"])) ** 2
    weights = np.where(held["perishable"] == 1, PERISHABLE_WEIGHT, 1.0)
    assert len(set(weights)) == 2
    ours = made.report["holdout"]["metrics"]["model"]
    assert ours["nwrmsle"] == pytest.approx(np.sqrt(np.average(squares, weights=weights)), rel=1e-5)
    assert ours["rmsle"] == pytest.approx(np.sqrt(squares.mean()), rel=1e-5)
    assert ours["nwrmsle"] != pytest.approx(ours["rmsle"], rel=1e-5)


def test_promotions_holidays_and_traffic_are_features(made: Made) -> None:
    """They are read, and a promotion raises the forecast though the first year says nothing of any."""
    assert made.manifest.lineage is not None
    assert made.manifest.lineage.recipe is not None
    features = set(made.manifest.lineage.recipe.features)
    assert {"flag:onpromotion", "flag:onpromotion:lift", "holiday", "from_holiday"} <= features
    assert {"key:store_nbr:holiday", "traffic:transactions"} <= features
    held = made.held_out
    model = load_onnx_model(made.files["model.onnx"])
    days = held["date"].to_numpy().astype("datetime64[D]").astype(np.int64)
    keys = {name: held[name].to_numpy(np.int64) for name in KEYS}
    without, promoted = (
        model.run({**keys, "date": days, "onpromotion": np.full(len(held), flag)}, ["sales"])[0]
        for flag in (False, True)
    )
    assert (np.log1p(promoted) - np.log1p(without)).mean() > 0.15
