"""How rows become a dense panel: days, series, keys and their cold rows."""

from datetime import date
from pathlib import Path

import numpy as np
import pytest

from schemas.errors import ModelwireError, UsageProblem
from tests.unit.panel_reading import FEW, few_in, panel_of, row, small_columns
from tests.unit.trainer_panels import CONFIG, FIRST_DAY, dataset_in, made_up_columns
from trainer.keys import KeyKind, Keys
from trainer.panel import MIN_HISTORY, Holidays, day_of, number_of, weekday


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
    assert panel.held_out == 10
    assert "1 series and days have several rows, which are added up" in panel.notes


def test_each_cell_holds_the_sum_of_its_rows(tmp_path: Path) -> None:
    """Every number of the source is where its keys and its day say."""
    columns = made_up_columns()
    panel = panel_of(dataset_in(tmp_path, columns))
    expected = np.zeros(panel.units.shape)
    days = (columns["day"] - FIRST_DAY).astype(int)
    for day, shop, product, units in zip(
        days, columns["shop"], columns["product"], columns["units"], strict=True
    ):
        expected[row(panel, str(shop), str(product)), day] += units
    assert (panel.units == expected).all()


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
    known = float(panel.units[:, panel.cutoff + 1 :].sum())
    assert panel.unit_share == pytest.approx(known / (known + 80_000))


def test_with_no_days_asked_for_a_row_makes_a_series_known(tmp_path: Path) -> None:
    """A shop whose rows all say 0 is known with ``min_days = 0`` and unknown with 1."""
    columns = small_columns()
    columns["units"] = [
        0 if shop == "shop-2" else units
        for shop, units in zip(columns["shop"], columns["units"], strict=True)
    ]
    one = few_in(tmp_path, columns)
    assert panel_of(one).keys.series == 2
    none = few_in(tmp_path, columns, one.text.replace("horizon = 5", "horizon = 5\nmin_days = 0"))
    assert panel_of(none).keys.series == 3


def test_a_cutoff_leaves_the_days_after_it_for_the_holdout(tmp_path: Path) -> None:
    """The holdout is what follows, at most the horizon; what follows that is left out, and noted."""
    file = few_in(tmp_path)
    panel = panel_of(file, date(2024, 2, 1))
    assert day_of(panel.cutoff_day) == date(2024, 2, 1)
    assert panel.units.shape == (3, 37)
    assert panel.held_out == 5
    assert panel.notes == (
        "9 rows after 2024-02-06, the last day that the model answers for, are left out",
    )


def test_nothing_may_be_held_out(tmp_path: Path) -> None:
    """With the last day for a cutoff all is trained on, and no share can be told."""
    panel = panel_of(few_in(tmp_path), date(2024, 2, 9))
    assert panel.held_out == 0
    assert np.isnan(panel.unit_share)


def test_a_cutoff_after_the_last_day_is_refused(tmp_path: Path) -> None:
    """Days that nobody has seen are not days without sales."""
    with pytest.raises(UsageProblem, match="cutoff 2024-02-10 lies after the last day 2024-02-09"):
        panel_of(few_in(tmp_path), date(2024, 2, 10))


def test_four_weeks_are_enough_and_a_day_less_is_not(tmp_path: Path) -> None:
    """The shortest history is the documented one."""
    file = few_in(tmp_path, small_columns(days=MIN_HISTORY + 5))
    assert panel_of(file).cutoff == MIN_HISTORY - 1
    file = few_in(tmp_path, small_columns(days=MIN_HISTORY + 4))
    with pytest.raises(
        ModelwireError, match=r"the holdout is too long .* has 32 days .* 27 left"
    ) as caught:
        panel_of(file)
    assert "`holdout = 4` or less (it is the horizon, 5, by default)" in caught.value.hint
    file = few_in(tmp_path, small_columns(days=MIN_HISTORY - 1))
    with pytest.raises(ModelwireError, match=r"the panel is too short: .* has 27 days"):
        panel_of(file)


def test_an_early_cutoff_is_called_early(tmp_path: Path) -> None:
    """The panel is long enough: what is wrong is the day that was asked for."""
    with pytest.raises(
        ModelwireError, match=r"the cutoff 2024-01-20 is too early: .* 40 days .* 20 of them up to"
    ) as caught:
        panel_of(few_in(tmp_path), date(2024, 1, 20))
    assert caught.value.hint == "name 2024-01-28 or a later day"


def test_closed_days_count_for_no_share_of_the_units(tmp_path: Path) -> None:
    """What was rung up on a day that is known to be closed belongs to nobody's share."""
    columns = small_columns()
    columns["shut"] = [0] * 120
    for name, value in {"day": "2024-02-07", "shop": "new", "units": 500, "shut": 1}.items():
        columns[name].append(value)
    config = FEW.replace("horizon", 'closed = "shut"\nhorizon') + '\n[covariates]\nshut = "Shut"\n'
    assert panel_of(few_in(tmp_path, columns, config)).unit_share == 1.0
    columns["shut"][-1] = 0
    assert panel_of(few_in(tmp_path, columns, config)).unit_share < 0.5


def test_one_series_is_a_panel(tmp_path: Path) -> None:
    """Its arrays have one row."""
    columns = small_columns()
    keep = [i for i, shop in enumerate(columns["shop"]) if shop == "shop-1"]
    columns = {name: [values[i] for i in keep] for name, values in columns.items()}
    panel = panel_of(few_in(tmp_path, columns))
    assert panel.units.shape == (1, 40)
    assert panel.units[0].tolist() == [float(units) for units in columns["units"]]


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
    rows = keys.rows_of(codes)
    product = [*keys.vocabulary[1]].index
    shop = [*keys.vocabulary[0]].index
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
    of_shop_2 = values[keys.codes[0] == [*keys.vocabulary[0]].index("shop-2")]
    assert table[keys.cold_rows(0)[2]] == of_shop_2.mean()
    assert table[-1] == values.mean()


def test_whole_numbers_stay_whole_numbers(tmp_path: Path) -> None:
    """A key of numbers is sorted and looked up as numbers, beside one of text."""
    columns = made_up_columns()
    columns["shop"] = np.array([int(shop[-1]) * 7 + 2 for shop in columns["shop"]])
    panel = panel_of(dataset_in(tmp_path, columns))
    assert panel.keys.vocabulary[0] == (2, 9, 16, 23)
    assert panel.keys.kinds == (KeyKind.WHOLE, KeyKind.TEXT)
    assert panel.keys.encode({"shop": [16, 3], "product": ["p1", "p1"]})[0].tolist() == [2, 4]


def test_weekdays_start_on_monday() -> None:
    """2024-01-01 was a Monday, 1970-01-01 a Thursday."""
    days = np.array([(FIRST_DAY - np.datetime64("1970-01-01")).astype(int), 0])
    assert weekday(days).tolist() == [0, 3]
    assert number_of(day_of(20_000)) == 20_000


def test_no_day_outside_the_table_is_a_holiday() -> None:
    """Neither before its first day, nor after its last, whatever the table's ends say."""
    ends = np.array([True, False, True])
    holidays = Holidays(100, ends, "shop", np.array([ends, ~ends]))
    days = np.array([99, 100, 101, 102, 103])
    assert holidays.everywhere_on(days).tolist() == [False, True, False, True, False]
    assert holidays.local_on(days).tolist() == [
        [False, True, False, True, False],
        [False, False, True, False, False],
    ]
    assert holidays.local_on(days[:4].reshape(2, 2)).shape == (2, 2, 2)


def test_panel_without_a_known_series_is_refused(tmp_path: Path) -> None:
    """When nothing sells often enough the limits that decide it are in the message."""
    file = dataset_in(tmp_path, config=CONFIG.replace("min_days = 3", "min_days = 60"))
    with pytest.raises(ModelwireError, match=r"no series to learn from: .* sold on 60 of the 60"):
        panel_of(file)


def test_keys_whose_combinations_cannot_be_numbered_are_refused() -> None:
    """Four keys of 70,000 values: an int64 would wrap, and known series would be told as new."""
    values = tuple(range(70_000))
    with pytest.raises(ModelwireError, match=r"too many values together \(a 70,000, b 70,000"):
        Keys(tuple("abcd"), (values,) * 4, np.zeros((4, 1), dtype=np.int64))
