"""Generated panels: the same for the same seed, of the shape asked for, and such as one sells by."""

import hashlib
import json
import re
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from modelwire.cli import modelwire
from schemas.errors import ModelwireError, UsageProblem
from tests.shell import ROOT, commands_in
from tests.unit.panel_reading import panel_of
from trainer.chain import Closed, Design, Layout, World
from trainer.data_cli import data
from trainer.dataset import load_dataset
from trainer.generator import generate
from trainer.keys import Floats, KeyKind
from trainer.panel import CovariateKind, Panel, weekday

YEARS = Design(series=90, days=3 * 365, seed=11, yearly=0.6, trend=0.1)


@pytest.fixture(scope="module")
def years(tmp_path_factory: pytest.TempPathFactory) -> Panel:
    """Three years of a Favorita-shaped panel."""
    made = generate(YEARS, tmp_path_factory.mktemp("years"))
    return panel_of(load_dataset(made.dataset))


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def logs_of(panel: Panel) -> Floats:
    return np.log1p(panel.units.astype(np.float64))


@pytest.mark.parametrize("layout", Layout)
def test_a_seed_gives_the_same_bytes(tmp_path: Path, layout: Layout) -> None:
    """Every file is the same again, and with another seed the panel is another."""
    design = Design(series=300, days=1000, seed=5, layout=layout, closed=Closed.WEEKLY)
    other = Design(series=300, days=1000, seed=6, layout=layout, closed=Closed.WEEKLY)
    for name, each in (("a", design), ("b", design), ("c", other)):
        generate(each, tmp_path / name)
    first, second, third = (digests(tmp_path / name) for name in "abc")
    assert first == second
    assert first.keys() == third.keys()
    panel = {"favorita": "train.parquet", "plain": "panel.parquet"}[layout]
    assert first[panel] != third[panel]


def test_favorita_shape(years: Panel) -> None:
    """Numbered stores and items, promotions, attributes, holidays, traffic and weights."""
    assert years.units.shape == (90, 1095)
    assert years.keys.names == ("store_nbr", "item_nbr")
    assert years.keys.kinds == (KeyKind.WHOLE, KeyKind.WHOLE)
    [promotion] = years.covariates
    assert promotion.kind == CovariateKind.FLAG
    assert 0.02 < promotion.values.mean() < 0.15
    assert [each.name for each in years.attributes] == [
        "city",
        "state",
        "type",
        "cluster",
        "family",
        "perishable",
    ]
    assert not any((each.codes < 0).any() for each in years.attributes)
    assert years.holidays is not None
    assert years.holidays.everywhere.sum() > 20
    assert years.holidays.local.any(axis=1).all()
    assert years.traffic is not None
    assert years.traffic.values.shape == (len(years.keys.vocabulary[0]), 1095 - 16)
    assert years.weights is not None
    assert set(years.weights.tolist()) == {1, 1.25}
    assert years.notes == ()


def test_sales_follow_week_promotion_season_and_trend(years: Panel) -> None:
    """What the design puts in can be found in the panel."""
    logs = logs_of(years)
    days = years.first_day + np.arange(years.units.shape[1])
    by_weekday = [float(logs[:, weekday(days) == day].mean()) for day in range(7)]
    assert by_weekday[6] > by_weekday[3] + 0.2
    promoted = years.covariates[0].values == 1
    sold = years.units > 0
    levels = logs - logs.mean(axis=1, keepdims=True)
    assert levels[promoted & sold].mean() > levels[~promoted & sold].mean() + 0.3
    old = sold[:, :60].any(axis=1)
    first, last = (logs[old][:, part].mean() for part in (slice(0, 365), slice(730, 1095)))
    assert 0.1 < last - first < 0.3
    monthly = logs[old, :1080].reshape(old.sum(), 36, 30).mean(axis=2)
    swing = monthly[:, :12].max(axis=1) - monthly[:, :12].min(axis=1)
    assert np.median(swing) > 0.6


def test_some_items_are_new_and_some_days_out_of_stock(years: Panel) -> None:
    """New items have no sales for a third of the days or more; runs of zeros break what sells."""
    sold = years.units > 0
    first = sold.argmax(axis=1)
    assert 0.02 < (first > 1095 // 3).mean() < 0.3
    well = years.units[first < 10].mean(axis=1) > 20
    zeros = (years.units[first < 10][well][:, 30:] == 0).mean()
    assert 0.003 < zeros < 0.05


def test_levels_are_spread_and_counts_overdispersed(years: Panel) -> None:
    """The best sellers sell many times what the middle does, and days differ more than by chance."""
    level = np.median(years.units, axis=1)
    assert np.quantile(level, 0.95) > 4 * np.median(level)
    weekly = years.units[level > 30, :1092].astype(np.float64).reshape((level > 30).sum(), -1, 7)
    before, after = weekly[:, :-1], weekly[:, 1:]
    steps = np.abs(after - before) / np.sqrt(np.maximum(after + before, 1))
    # By chance alone the middle of these is 0.67.
    assert np.median(steps) > 1.05


def test_plain_layout_is_a_ten_line_dataset(tmp_path: Path) -> None:
    """One file, text keys of other names, and closed days that sell nothing, in advance known."""
    design = Design(
        series=40,
        days=120,
        seed=2,
        layout=Layout.PLAIN,
        closed=Closed.WEEKLY,
        start=date(2023, 4, 1),
    )
    made = generate(design, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dataset.toml", "panel.parquet"]
    file = load_dataset(made.dataset)
    assert len(file.text.splitlines()) <= 10
    panel = panel_of(file)
    assert panel.keys.names == ("branch", "article")
    assert panel.keys.kinds == (KeyKind.TEXT, KeyKind.TEXT)
    assert panel.closed is not None
    assert panel.units[panel.closed].sum() == 0
    days = panel.first_day + np.arange(panel.units.shape[1])
    labour_day = (date(2023, 5, 1) - date(1970, 1, 1)).days - panel.first_day
    assert panel.closed[0, weekday(days) == 6].all()
    assert panel.closed[0, labour_day]
    assert panel.closed[0].sum() < 25
    assert (panel.units[:, ~panel.closed[0]] > 0).mean() > 0.7


def test_less_noise_is_less_spread(tmp_path: Path, years: Panel) -> None:
    """With half of it sales stay nearer to their mean, and run out less often."""
    design = replace(YEARS, noise=0.5)
    quiet = panel_of(load_dataset(generate(design, tmp_path).dataset))
    spreads = []
    for panel in (quiet, years):
        level = np.median(panel.units, axis=1)
        units = panel.units[level > 30, :1092].astype(np.float64).reshape((level > 30).sum(), -1, 7)
        spreads.append(np.median(np.abs(np.diff(np.log1p(units), axis=1))))
    assert spreads[0] < 0.85 * spreads[1]
    assert ((quiet.units == 0).mean()) < ((years.units == 0).mean())


@pytest.mark.parametrize("series", [1, 2, 7])
def test_few_series_are_as_many_as_asked_for(tmp_path: Path, series: int) -> None:
    """Also where they fill no rectangle of stores and items."""
    made = generate(Design(series=series, days=60, seed=1), tmp_path)
    assert panel_of(load_dataset(made.dataset)).keys.series == series


@pytest.mark.parametrize(
    ("series", "days", "horizon", "said"),
    [
        (0, 100, 16, "0 series and a horizon of 16 days make no panel"),
        (1, 43, 16, "43 days are too few for 16 held out"),
        (1, 100, 0, "1 series and a horizon of 0 days make no panel"),
    ],
)
def test_design_for_no_panel_is_refused(series: int, days: int, horizon: int, said: str) -> None:
    """Too short for a training, or empty."""
    with pytest.raises(UsageProblem, match=said):
        Design(series=series, days=days, seed=1, horizon=horizon)


@pytest.mark.parametrize(
    ("start", "days", "hint"),
    [
        ("2015-01-01", 11_001, "ask for at most 11,000 days"),
        ("2199-01-01", 365, "ask for at most 349 days"),
        ("2015-01-01", 10_000_000_000, "ask for at most 11,000 days"),
        ("1850-01-01", 100, "start within 1900 … 2199"),
        ("9999-12-01", 100, "start within 1900 … 2199"),
    ],
)
def test_days_beyond_the_calendar_are_refused(
    tmp_path: Path, start: str, days: int, hint: str
) -> None:
    """What no training would take is not written; no date overflows."""
    arguments = ["generate", "--series", "2", "--days", str(days), "--start", start]
    done = CliRunner().invoke(data, [*arguments, "--out", str(tmp_path / "new")])
    assert isinstance(done.exception, UsageProblem)
    assert done.exception.hint == hint
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--yearly", "50", "the yearly amplitude 50.0 lies outside -3 … 3"),
        ("--yearly", "nan", "the yearly amplitude nan lies outside"),
        ("--trend", "300", "a trend of 300.0 a year grows over 5,000 days"),
        ("--trend", "-inf", "a trend of -inf a year"),
        ("--horizon", "4000", "no model is trained for a horizon of 4,000 days"),
    ],
)
def test_sales_beyond_all_measure_are_refused(
    tmp_path: Path, option: str, value: str, said: str
) -> None:
    """A mean that no count can be drawn around, and a horizon that no dataset may have."""
    arguments = ["generate", "--series", "2", "--days", "5000", option, value]
    done = CliRunner().invoke(data, [*arguments, "--out", str(tmp_path / "new")])
    assert isinstance(done.exception, UsageProblem)
    assert said in done.exception.message
    assert not (tmp_path / "new").exists()


def test_the_steepest_season_and_trend_are_drawn(tmp_path: Path) -> None:
    """At the limits units are counts still: none has run over the end of its column."""
    design = Design(series=60, days=400, seed=1, yearly=3.0, trend=5.4)
    panel = panel_of(load_dataset(generate(design, tmp_path).dataset))
    assert 1e4 < panel.units.max() < 2**31


def test_command_writes_a_panel_and_says_where(tmp_path: Path) -> None:
    """The JSON has the configuration and the rows; a folder that holds a dataset is left alone."""
    arguments = ["generate", "--series", "6", "--days", "50", "--seed", "4", "-o", "json"]
    arguments += ["--out", str(tmp_path / "new"), "--layout", "plain", "--horizon", "7"]
    done = CliRunner().invoke(data, arguments, catch_exceptions=False)
    said = json.loads(done.stdout)
    assert said["dataset"] == str(tmp_path / "new" / "dataset.toml")
    panel = panel_of(load_dataset(Path(said["dataset"])))
    assert panel.horizon == 7
    assert (said["series"], said["days"]) == (6, 50)
    assert said["rows"] <= 300
    again = CliRunner().invoke(data, arguments)
    assert isinstance(again.exception, ModelwireError)
    assert "dataset.toml is already there" in again.exception.message


def test_how_to_page_says_what_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its dataset is one, with the further tables below it too, and its command makes a panel."""
    page = ROOT / "docs" / "how-to" / "train-on-your-data.md"
    least, more = re.findall(r"^```toml\n(.*?)^```", page.read_text("utf-8"), re.M | re.S)
    for text in (least, least + more):
        (tmp_path / "north.toml").write_text(text, encoding="utf-8")
        assert tuple(load_dataset(tmp_path / "north.toml").dataset.keys) == ("shop", "article")
    monkeypatch.chdir(tmp_path)
    [arguments] = [each for each in commands_in(page) if each[:2] == ["data", "generate"]]
    CliRunner().invoke(modelwire, arguments, catch_exceptions=False)
    trained = [each[2] for each in commands_in(page) if each[0] == "train"]
    assert trained == ["north.toml", "shops/dataset.toml"]
    assert panel_of(load_dataset(Path(trained[1]))).keys.series > 450


def test_a_long_horizon_leaves_days_for_new_items() -> None:
    """They are new before the days that are held out, however few these leave."""
    world = World(Design(series=200, days=88, seed=1, horizon=60))
    assert 0 < world.begins.max() < 28
