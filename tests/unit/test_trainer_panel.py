"""How a source becomes a dense panel, and which sources are refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from schemas.errors import ModelwireError, NotFound, UsageProblem
from tests.unit.trainer_panels import CONFIG, FIRST_DAY, dataset_in, made_up_columns
from trainer.dataset import DatasetFile
from trainer.panel import Panel, read_panel, read_source, weekday


def panel_of(file: DatasetFile) -> Panel:
    return read_panel(file, read_source(file))


def row(panel: Panel, *values: str) -> int:
    codes = panel.keys.encode({n: [v] for n, v in zip(panel.keys.names, values, strict=True)})
    return int(panel.keys.row_map[tuple(codes)][0])


def test_panel_is_dense_and_adds_up_a_day(tmp_path: Path) -> None:
    """A day without a row is 0, two rows of a day are one number, and the days have no gaps."""
    columns = made_up_columns()
    total = columns["units"].sum()
    columns = {
        name: np.append(values, [extra, extra])
        for (name, values), extra in zip(
            columns.items(), (FIRST_DAY + 50, "shop-1", "p1", 1000), strict=True
        )
    }
    panel = panel_of(dataset_in(tmp_path, columns))
    assert panel.units.shape == (23, 100)
    assert panel.units.sum() == total + 2000
    assert 2000 <= panel.units[row(panel, "shop-1", "p1"), 50] < 2100
    assert (panel.units == 0).any()
    assert panel.first_day + panel.cutoff == panel.cutoff_day
    assert panel.cutoff == 100 - 10 - 1


def test_series_are_known_by_days_before_the_cutoff_alone(tmp_path: Path) -> None:
    """A series that sells on held-out days only is unknown, and counts against the unit share."""
    columns = made_up_columns()
    late = np.arange(92, 100)
    extra = {
        "day": FIRST_DAY + late,
        "shop": np.full(len(late), "shop-new"),
        "product": np.full(len(late), "p0"),
        "units": np.full(len(late), 10_000),
    }
    columns = {name: np.append(values, extra[name]) for name, values in columns.items()}
    panel = panel_of(dataset_in(tmp_path, columns))
    assert "shop-new" not in panel.keys.vocabulary[0]
    assert panel.unit_share < 0.2


def test_rows_of_unknown_keys_follow_the_documented_order(tmp_path: Path) -> None:
    """A new combination takes its last key's cold row, one unknown key the other's, two the last."""
    keys = panel_of(dataset_in(tmp_path)).keys
    unknown = "never seen"
    codes = keys.encode(
        {
            "shop": ["shop-3", unknown, "shop-2", unknown],
            "product": ["p5", "p4", unknown, unknown],
        }
    )
    rows = keys.row_map[tuple(codes)]
    product, shop = keys.vocabulary[1].index, keys.vocabulary[0].index
    assert rows.tolist() == [
        keys.cold_rows(1)[product("p5")],
        keys.cold_rows(1)[product("p4")],
        keys.cold_rows(0)[shop("shop-2")],
        keys.rows - 1,
    ]


def test_cold_rows_are_means_over_their_series(tmp_path: Path) -> None:
    """The row for a key's value is the mean over its series, the last row that over all."""
    keys = panel_of(dataset_in(tmp_path)).keys
    values = np.arange(keys.series, dtype=np.float64)
    table = keys.with_cold_rows(values)
    assert table.shape == (keys.rows,)
    of_shop_2 = values[keys.codes[0] == keys.vocabulary[0].index("shop-2")]
    assert table[keys.cold_rows(0)[2]] == of_shop_2.mean()
    assert table[-1] == values.mean()


def test_weekdays_start_on_monday() -> None:
    """2024-01-01 was a Monday, 1970-01-01 a Thursday."""
    days = np.array([(FIRST_DAY - np.datetime64("1970-01-01")).astype(int), 0])
    assert weekday(days).tolist() == [0, 3]


def changed(name: str, change: Callable[[Any], Any]) -> dict[str, Any]:
    columns = made_up_columns()
    columns[name] = change(columns[name])
    return columns


def with_row_9(value: object) -> Callable[[Any], Any]:
    def change(values: Any) -> Any:
        listed = values.tolist()
        listed[8] = value
        return listed

    return change


BAD_PANELS = {
    "empty": (
        {name: values[:0] for name, values in made_up_columns().items()},
        "the panel is empty: .*panel.parquet has no rows",
    ),
    "too short": (made_up_columns(days=60), "the panel is too short: .* has 60 days .*50 are not"),
    "negative units": (
        changed("units", with_row_9(-2)),
        "column 'units' is not a number of at least 0 in row 9: -2",
    ),
    "units of NaN": (
        changed("units", lambda u: np.where(np.arange(len(u)) > 20, np.nan, u)),
        r"column 'units' is not a number of at least 0 in row 22 \(and \d+ more\): nan",
    ),
    "units missing": (changed("units", with_row_9(None)), "column 'units' is missing in row 9"),
    "units as text": (changed("units", lambda u: u.astype(str)), "column 'units' is string, not a"),
    "key missing": (changed("shop", with_row_9(None)), "column 'shop' is missing in row 9"),
    "key a number": (
        changed("shop", lambda s: np.arange(len(s))),
        "column 'shop' is int64, not text",
    ),
    "key too long": (
        changed("shop", with_row_9("x" * 300)),
        "column 'shop' is longer than 256 characters in row 9",
    ),
    "date as text": (changed("day", lambda d: d.astype(str)), "column 'day' is string, not a date"),
    "date with a zone": (
        changed("day", lambda d: pa.array(d).cast(pa.timestamp("s", "Europe/London"))),
        r"column 'day' has a time zone \(Europe/London\)",
    ),
    "date with a time": (
        changed("day", lambda d: d.astype("datetime64[s]") + np.timedelta64(60, "s")),
        "column 'day' has a time of day in row 1 ",
    ),
    "nothing sold in the holdout": (
        {
            name: np.append(values[made_up_columns()["day"] < FIRST_DAY + 90], last)
            for (name, values), last in zip(
                made_up_columns().items(), (FIRST_DAY + 99, "shop-0", "p0", 0), strict=True
            )
        },
        "nothing was sold on the held-out days 2024-03-31 … 2024-04-09",
    ),
}


@pytest.mark.parametrize("case", BAD_PANELS)
def test_bad_panel_is_refused_with_its_place(tmp_path: Path, case: str) -> None:
    """Each panel that cannot be used names its file, and column and row where there are some."""
    columns, expected = BAD_PANELS[case]
    file = dataset_in(tmp_path, columns)
    with pytest.raises(ModelwireError, match=expected) as caught:
        panel_of(file)
    assert caught.value.exit_code == 1
    assert str(tmp_path / "panel.parquet") in caught.value.message
    assert caught.value.hint


def test_panel_without_a_known_series_is_refused(tmp_path: Path) -> None:
    """When nothing sells often enough the limits that decide it are in the message."""
    file = dataset_in(tmp_path, config=CONFIG.replace("min_days = 3", "min_days = 60"))
    with pytest.raises(ModelwireError, match=r"no series to learn from: .* sold on 60 of the 60"):
        panel_of(file)


def test_missing_source_names_the_key_that_points_there(tmp_path: Path) -> None:
    """A file that is not there exits with 4 and says which line names it."""
    file = dataset_in(tmp_path)
    file.source.unlink()
    with pytest.raises(NotFound, match=r"panel\.toml:3: source names .*panel\.parquet, which does"):
        panel_of(file)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('product = "The', 'article = "The', r"panel\.toml:16: keys\.article names column 'article'"),
        ('target = "units"', 'target = "amount"', r"panel\.toml:7: target names column 'amount'"),
    ],
)  # fmt: skip
def test_missing_column_names_line_and_key(
    tmp_path: Path, old: str, new: str, expected: str
) -> None:
    """A column that the source lacks is named with the line that asks for it and what there is."""
    with pytest.raises(UsageProblem, match=expected) as caught:
        panel_of(dataset_in(tmp_path, config=CONFIG.replace(old, new)))
    assert caught.value.hint == "its columns are day, shop, product, units"


def test_source_that_is_not_parquet_is_refused(tmp_path: Path) -> None:
    """Damaged bytes are a plain message."""
    file = dataset_in(tmp_path)
    file.source.write_bytes(file.source.read_bytes()[:-100])
    with pytest.raises(ModelwireError, match=r"panel\.parquet cannot be read as Parquet"):
        panel_of(file)
