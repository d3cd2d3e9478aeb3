"""What is read: kinds of files, kinds of keys and covariates, side tables, a budget of memory."""

import os
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import ModelwireError
from tests.unit.panel_reading import (
    FEW,
    as_csv,
    few_in,
    panel_of,
    row,
    small_columns,
    write_csv,
    write_many_rows,
)
from tests.unit.trainer_panels import CONFIG, dataset_in, made_up_columns
from trainer.dataset import load_dataset, shipped_datasets
from trainer.dense import Combine, Dense
from trainer.keys import KeyKind
from trainer.panel import CovariateKind, Panel, number_of
from trainer.reading import read_panel
from trainer.sources import open_sources

DATA = Path(os.environ.get("FAVORITA_EXCERPT", "no such folder"))
"""The competition's data, which nobody may ship; the variable names the folder where there is one."""


def same(one: Panel, other: Panel) -> bool:
    """Whether two panels hold the same units for the same series and days."""
    return (
        one.keys.vocabulary == other.keys.vocabulary
        and (one.keys.codes == other.keys.codes).all()
        and one.first_day == other.first_day
        and one.cutoff == other.cutoff
        and bool((one.units == other.units).all())
    )


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("name", ["panel.csv", "panel.csv.gz"])
def test_csv_is_read_like_parquet(tmp_path: Path, name: str, separator: str) -> None:
    """The same rows give the same panel, gzipped or not, whatever separates the cells."""
    expected = panel_of(dataset_in(tmp_path))
    write_csv(tmp_path / name, as_csv(), separator)
    assert same(
        panel_of(dataset_in(tmp_path, config=CONFIG.replace("panel.parquet", name))), expected
    )


def test_parts_are_one_panel_whatever_their_kind(tmp_path: Path) -> None:
    """Files that a glob and a list name are rows of one table."""
    expected = panel_of(dataset_in(tmp_path))
    columns, text = made_up_columns(), as_csv()
    third = len(columns["day"]) // 3
    (tmp_path / "parts").mkdir()
    for number in range(2):
        rows = slice(number * third, (number + 1) * third)
        part = {name: values[rows] for name, values in columns.items()}
        pq.write_table(pa.table(part), tmp_path / "parts" / f"{number}.parquet")
    write_csv(tmp_path / "rest.csv", {name: values[2 * third :] for name, values in text.items()})
    config = CONFIG.replace('"panel.parquet"', '["parts/*.parquet", "rest.csv"]')
    assert same(panel_of(dataset_in(tmp_path, config=config)), expected)


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path: Path) -> None:
    """A file as a spreadsheet writes it has the same columns."""
    file = few_in(tmp_path)
    expected = panel_of(file)
    path = tmp_path / "panel.csv"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert same(panel_of(file), expected)


@pytest.mark.parametrize(
    ("shops", "expected", "kind"),
    [
        (["10", "9", "-3"], (-3, 9, 10), KeyKind.WHOLE),
        (["10", "9", "x"], ("10", "9", "x"), KeyKind.TEXT),
        (["010", "9", "3"], ("010", "3", "9"), KeyKind.TEXT),
        (["1.0", "9", "3"], ("1.0", "3", "9"), KeyKind.TEXT),
    ],
)
def test_keys_of_a_csv_file_are_numbers_where_all_are(
    tmp_path: Path, shops: list[str], expected: tuple[Any, ...], kind: KeyKind
) -> None:
    """One cell that is no whole number, or has zeros in front, makes the key text."""
    panel = panel_of(few_in(tmp_path, small_columns() | {"shop": shops * 40}))
    assert panel.keys.vocabulary == (expected,)
    assert panel.keys.kinds == (kind,)
    assert panel.units[row(panel, expected[0])].sum() > 0


def test_categories_are_text_and_dates_may_be_times(tmp_path: Path) -> None:
    """As pandas writes them: a dictionary column, timestamps of midnight, small integers."""
    columns = made_up_columns()
    expected = panel_of(dataset_in(tmp_path, columns))
    columns["shop"] = pa.array(columns["shop"]).dictionary_encode()
    columns["day"] = columns["day"].astype("datetime64[ns]")
    columns["units"] = columns["units"].astype(np.int16)
    assert same(panel_of(dataset_in(tmp_path, columns)), expected)


def test_text_is_sorted_by_code_points(tmp_path: Path) -> None:
    """The order of the vocabulary is Python's, whatever the characters."""
    shops = ["é", "z", "Z"]
    panel = panel_of(few_in(tmp_path, small_columns() | {"shop": shops * 40}))
    assert panel.keys.vocabulary == (("Z", "z", "é"),)


COVARIATES = FEW + '\n[covariates]\npromotion = "On promotion"\nprice = "Price in pounds"\n'


def test_covariates_are_flags_or_numbers(tmp_path: Path) -> None:
    """All 0, 1 or missing is a flag, 0 where nothing is said; else a number, NaN where nothing is."""
    columns = small_columns() | {
        "promotion": ["True", "false", ""] * 40,
        "price": [1.25, None, 2] * 40,
    }
    columns = {name: values[:-1] for name, values in columns.items()}
    panel = panel_of(few_in(tmp_path, columns, COVARIATES))
    promotion, price = panel.covariates
    assert (promotion.kind, price.kind) == (CovariateKind.FLAG, CovariateKind.NUMBER)
    assert promotion.description == "On promotion"
    assert promotion.values[:, 0].tolist() == [1, 0, 0]
    assert price.values[:, 0].tolist()[::2] == [1.25, 2]
    assert np.isnan(price.values[1, 0])
    assert panel.units[2, -1] == 0
    assert np.isnan(price.values[2, -1])


def test_rows_of_a_day_share_a_covariate(tmp_path: Path) -> None:
    """Of several rows of a day the flag is set where any sets it, and the number is their mean."""
    columns = small_columns() | {"promotion": [0, 1, 0] * 40, "price": [2.0, 2, 5] * 40}
    extra = {"day": columns["day"][0], "shop": "shop-0", "units": 1, "promotion": 1, "price": 3.0}
    columns = {name: [*values, extra[name]] for name, values in columns.items()}
    promotion, price = panel_of(few_in(tmp_path, columns, COVARIATES)).covariates
    assert promotion.values[0, :2].tolist() == [1, 0]
    assert price.values[0, :2].tolist() == [2.5, 2]


def test_closed_days_are_what_the_covariate_says(tmp_path: Path) -> None:
    """The covariate that ``closed`` names is also the panel's table of closed days."""
    config = FEW.replace("horizon", 'closed = "shut"\nhorizon') + '\n[covariates]\nshut = "Shut"\n'
    shut = [1 if i % 21 < 3 else 0 for i in range(120)]
    panel = panel_of(few_in(tmp_path, small_columns() | {"shut": shut}, config))
    assert panel.closed is not None
    assert panel.closed[:, :8].tolist() == [[True, *[False] * 6, True]] * 3


def test_held_out_days_that_are_closed_for_all_are_left_out(tmp_path: Path) -> None:
    """There is nothing to measure an error on: the training goes on without, and says so."""
    config = FEW.replace("horizon", 'closed = "shut"\nholdout = 5\nhorizon')
    config += '\n[covariates]\nshut = "Shut"\n'
    columns = small_columns()
    columns["shut"] = [int(day >= "2024-02-05") for day in columns["day"]]
    columns["units"] = [
        0 if shut else units for units, shut in zip(columns["units"], columns["shut"], strict=True)
    ]
    panel = panel_of(few_in(tmp_path, columns, config))
    assert panel.closed is not None
    arrays = (panel.units, panel.closed, panel.covariates[0].values)
    assert [each.shape for each in arrays] == [(3, 35)] * 3
    assert (panel.held_out, panel.cutoff) == (0, 34)
    assert np.isnan(panel.unit_share)
    assert panel.notes[-1] == (
        "all known series are closed on the held-out days 2024-02-05 … 2024-02-09, so nothing is held "
        "out"
    )


def test_holdout_that_only_others_sold_in_is_refused_truly(tmp_path: Path) -> None:
    """Something was sold, by a shop that is new: the message names the series that sold nothing."""
    columns = small_columns()
    late = [day >= "2024-02-05" for day in columns["day"]]
    columns["shop"] = [
        "new" if is_late else shop for shop, is_late in zip(columns["shop"], late, strict=True)
    ]
    config = FEW.replace("horizon", "holdout = 5\nhorizon")
    with pytest.raises(ModelwireError, match="the known series sold nothing on the held-out"):
        panel_of(few_in(tmp_path, columns, config))


def test_references_are_kept_beside_the_panel(tmp_path: Path) -> None:
    """Somebody else's predictions have the panel's shape, and gaps where they say nothing."""
    config = FEW.replace("horizon", 'references = { theirs = "guess" }\nhorizon')
    columns = small_columns() | {"guess": [None] * 117 + [4.5, 5.5, 6.5]}
    theirs = panel_of(few_in(tmp_path, columns, config)).references["theirs"]
    assert theirs[:, -1].tolist() == [4.5, 5.5, 6.5]
    assert np.isnan(theirs[:, :-1]).all()


def test_side_tables_match_keys_as_text(tmp_path: Path) -> None:
    """Numbers of a Parquet panel meet the texts of CSV tables; weights follow the attribute."""
    columns = made_up_columns()
    columns["shop"] = np.array([int(shop[-1]) for shop in columns["shop"]])
    write_csv(
        tmp_path / "shops.csv", {"shop": [3, 1, 0], "city": ["B", "A", "B"], "size": [5, "", 5]}
    )
    holidays = {
        "on": ["2024-02-14", "2024-02-15", "2024-02-16", "2024-02-17", "2024-02-18"],
        "kind": ["Holiday", "Holiday", "Holiday", "Event", "Work Day"],
        "scope": ["National", "Town", "Town", "National", "National"],
        "place": ["", "B", "A", "", ""],
        "moved": ["0", "0", "1", "0", "0"],
    }
    write_csv(tmp_path / "holidays.csv", holidays)
    visits = {
        "on": ["2023-12-30", "2024-03-30", "2024-03-31"],
        "shop": [0, 1, 1],
        "visits": [7, 8, 9],
    }
    write_csv(tmp_path / "visits.csv.gz", visits)
    config = (
        CONFIG.replace("[keys]", "[weights]\nspecial = 2.5\n[keys]")
        + """
[[attributes]]
source = "shops.csv"
key = "shop"
columns = ["city", "size"]
[[attributes]]
key = "product"
columns = ["special"]
values = { p1 = true, p2 = false }
[holidays]
source = "holidays.csv"
date = "on"
type = "kind"
locale = "scope"
locale_name = "place"
transferred = "moved"
match = { Town = "city" }
[traffic]
source = "visits.csv.gz"
key = "shop"
date = "on"
value = "visits"
"""
    )
    panel = panel_of(dataset_in(tmp_path, columns, config))
    city, size, special = panel.attributes
    assert panel.keys.vocabulary[0] == (0, 1, 2, 3)
    assert (city.values, city.codes.tolist()) == (("A", "B"), [1, 0, -1, 1])
    assert (size.values, size.codes.tolist()) == (("5",), [0, -1, -1, 0])
    assert (special.values, special.codes.tolist()) == (
        ("false", "true"),
        [-1, 1, 0, -1, -1, -1],
    )
    assert panel.weights is not None
    assert panel.weights.tolist() == np.where(panel.keys.codes[1] == 1, 2.5, 1).tolist()
    valentine = np.arange(number_of(date(2024, 2, 14)), number_of(date(2024, 2, 19)))
    assert panel.holidays is not None
    assert panel.holidays.everywhere_on(valentine).tolist() == [True, False, False, False, False]
    assert panel.holidays.local_on(valentine)[:, 1].tolist() == [True, False, False, True]
    assert panel.holidays.local.sum() == 2
    traffic = panel.traffic
    assert traffic is not None
    # The cutoff is 2024-03-30: the last row lies after it.
    assert (traffic.first_day, traffic.values.shape) == (number_of(date(2023, 12, 30)), (4, 92))
    assert (traffic.values[0, 0], traffic.values[1, -1]) == (7, 8)
    assert np.isfinite(traffic.values).sum() == 2


def test_holiday_table_may_have_a_date_and_nothing_else(tmp_path: Path) -> None:
    """Columns that the dataset says are not there are not asked for: all days count, everywhere."""
    write_csv(tmp_path / "free.csv", {"date": ["2024-02-14", "2024-02-20"]})
    config = FEW + '\n[holidays]\nsource = "free.csv"\ntype = ""\nlocale = ""\n'
    config += 'locale_name = ""\ntransferred = ""\n'
    holidays = panel_of(few_in(tmp_path, config=config)).holidays
    assert holidays is not None
    assert holidays.everywhere.sum() == 2
    assert holidays.local.shape[0] == 0


def test_inline_attribute_has_a_value_for_all_others(tmp_path: Path) -> None:
    """What is not named is ``otherwise``."""
    config = FEW + '\n[[attributes]]\nkey = "shop"\ncolumns = ["big"]\n'
    config += "values = { shop-1 = 1 }\notherwise = 0\n"
    [big] = panel_of(few_in(tmp_path, config=config)).attributes
    assert (big.values, big.codes.tolist()) == (("0", "1"), [0, 1, 0])


def test_little_memory_gives_the_same_panel(tmp_path: Path) -> None:
    """What does not fit is kept in files: 600,000 rows in 48 MiB, and the last of them is in place."""
    days, series = 1000, 600
    shuffled = np.random.default_rng(5).permutation(days * series)
    day, one = np.divmod(shuffled, series)
    columns = {
        "day": np.datetime64("2020-01-01") + day,
        "shop": one,
        "units": (one * 31 + day * 17) % 101 + 0.25,
    }
    pq.write_table(pa.table(columns), tmp_path / "panel.parquet", row_group_size=50_000)
    file = few_in(tmp_path, config=FEW.replace("panel.csv", "panel.parquet"))
    panel = panel_of(file, memory_mb=48)
    expected = (np.arange(series)[:, None] * 31 + np.arange(days) * 17) % 101 + 0.25
    assert (panel.units == expected).all()
    # A bad cell is found at its row, in the order of the file, not in that of the reading.
    columns["units"][[101, 543_210]] = -1
    pq.write_table(pa.table(columns), tmp_path / "panel.parquet", row_group_size=50_000)
    with pytest.raises(
        ModelwireError, match=r"row 102, column 'units' is negative: .* \(and 1 more\)"
    ):
        panel_of(file, memory_mb=48)


@pytest.mark.parametrize("memory_mb", [1, 4, 8])
def test_too_little_memory_is_a_plain_message(tmp_path: Path, memory_mb: int) -> None:
    """Wherever it runs out, the budget and the temporary folder are named."""
    write_many_rows(tmp_path / "panel.parquet")
    file = few_in(tmp_path, config=FEW.replace("panel.csv", "panel.parquet"))
    with pytest.raises(ModelwireError, match=f"cannot be read within {memory_mb} MiB") as caught:
        panel_of(file, memory_mb=memory_mb)
    assert "TMPDIR" in caught.value.hint


def test_the_layout_of_the_competition_is_read(tmp_path: Path) -> None:
    """Returns are no sales, promotions are words or nothing, and items meet their families."""
    days = [str(np.datetime64("2017-01-01") + day) for day in range(50)]
    units = [[3.5, -1, 2][day % 3] for day in range(50)]
    write_csv(
        tmp_path / "train.csv",
        {
            "id": list(range(100)),
            "date": days * 2,
            "store_nbr": [25] * 50 + [7] * 50,
            "item_nbr": [103665] * 50 + [96995] * 50,
            "unit_sales": units * 2,
            "onpromotion": ["", "True", "False", "False", "True"] * 20,
        },
    )
    items = {"item_nbr": [103665, 96995], "family": ["BREAD/BAKERY", "GROCERY I"]}
    items |= {"class": [2712, 1093], "perishable": [1, 0]}
    write_csv(tmp_path / "items.csv", items)
    stores = {
        "store_nbr": [7, 25],
        "city": ["Quito", "Salinas"],
        "state": ["Pichincha", "Santa Elena"],
    }
    write_csv(tmp_path / "stores.csv", stores | {"type": ["D", "D"], "cluster": [8, 1]})
    (tmp_path / "holidays_events.csv").write_text(
        "date,type,locale,locale_name,description,transferred\n"
        "2017-01-01,Holiday,National,Ecuador,Primer dia del ano,True\n"
        "2017-01-02,Transfer,National,Ecuador,Traslado Primer dia del ano,False\n"
        "2017-01-07,Work Day,National,Ecuador,Recupero,False\n"
        "2017-01-09,Holiday,Regional,Santa Elena,Provincializacion,False\n"
    )
    visits = {"date": ["2016-12-31"], "store_nbr": [25], "transactions": [770]}
    write_csv(tmp_path / "transactions.csv", visits)
    panel = panel_of(load_dataset(shipped_datasets() / "favorita.toml", tmp_path))
    assert panel.keys.vocabulary == ((7, 25), (96995, 103665))
    assert panel.units[0, :4].tolist() == [3.5, 0, 2, 3.5]
    assert panel.covariates[0].values[1, :5].tolist() == [0, 1, 0, 0, 1]
    assert [(each.name, each.values) for each in panel.attributes][4:] == [
        ("family", ("BREAD/BAKERY", "GROCERY I")),
        ("class", ("1093", "2712")),
        ("perishable", ("0", "1")),
    ]
    assert panel.weights is not None
    assert panel.weights.tolist() == [1, 1.25]
    holidays = panel.holidays
    assert holidays is not None
    week = panel.first_day + np.arange(9)
    assert np.flatnonzero(holidays.everywhere_on(week)).tolist() == [1]
    assert holidays.local_on(week)[:, 8].tolist() == [False, True]
    assert panel.notes[0] == "34 rows with negative unit_sales count as no sales"


def test_rows_are_added_in_their_order(tmp_path: Path) -> None:
    """A sum of fractions depends on the order, and no sharing out of the work changes that order.

    numpy adds a run of numbers as the first and the sum of the others. 1 + 2⁻²⁴ lies halfway between two
    float32: 2⁻⁵³ is lost when it is added twice, and decides the rounding when it was doubled before.
    """
    big, little = 1 + 2.0**-24, 2.0**-53
    series, days = 600, 50
    shop, day = (axis.ravel() for axis in np.mgrid[0:series, 0:days])
    is_even = (shop + day) % 2 == 0
    parts = [
        np.where(is_even, big, little),
        np.full(len(shop), little),
        np.where(is_even, little, big),
    ]
    random = np.random.default_rng(3)
    orders = [random.permutation(len(shop)) for _ in parts]
    columns = {
        "day": np.datetime64("2024-01-01") + np.concatenate([day[order] for order in orders]),
        "shop": np.concatenate([shop[order] for order in orders]),
        "units": np.concatenate([part[order] for part, order in zip(parts, orders, strict=True)]),
    }
    pq.write_table(pa.table(columns), tmp_path / "panel.parquet", row_group_size=5_000)
    panel = panel_of(few_in(tmp_path, config=FEW.replace("panel.csv", "panel.parquet")))
    expected = np.where(is_even, 1 + 2.0**-23, 1).reshape(series, days)
    assert (panel.units == expected).all()


def test_source_that_changes_while_it_is_read_is_refused(tmp_path: Path) -> None:
    """What was digested must be what was trained on."""
    file = few_in(tmp_path)
    with open_sources(file) as sources:
        few_in(tmp_path, small_columns(days=60))
        with pytest.raises(ModelwireError, match=r"panel\.csv changed while it was read"):
            read_panel(file, sources)


@settings(max_examples=60, deadline=None)
@given(
    data=st.data(),
    series=st.integers(1, 6),
    days=st.integers(1, 7),
    cuts=st.integers(1, 5),
    block=st.integers(1, 40),
)
def test_arrays_do_not_depend_on_batches_and_blocks(
    data: st.DataObject, series: int, days: int, cuts: int, block: int
) -> None:
    """However sorted rows come, and however little is held, the arrays are those of the whole."""
    cells = sorted(data.draw(st.lists(st.integers(0, series * days - 1), max_size=30)))
    numbers = [data.draw(st.sampled_from([0.0, 1.0, 2.5, float("nan")])) for _ in cells]
    combine = (Combine.SUM, Combine.ANY, Combine.MEAN)
    dense = Dense(series, days, combine, block)
    units = np.nan_to_num(np.asarray(numbers, dtype=np.float64))
    sorted_cells = np.asarray(cells, dtype=np.int64)
    raw = np.asarray(numbers, dtype=np.float64)
    batches = [
        (sorted_cells[part], [units[part], raw[part], raw[part]])
        for part in np.array_split(np.arange(len(cells)), cuts)
    ]
    summed, flags, means = dense.fill(batches)
    for cell in range(series * days):
        at = divmod(cell, days)
        here = [number for number, other in zip(numbers, cells, strict=True) if other == cell]
        known = [number for number in here if number == number]
        assert summed[at] == sum(known)
        assert flags[at] == max(known, default=0)
        expected = np.float32(np.mean(known)) if known else np.float32(np.nan)
        assert np.array_equal(means[at], expected, equal_nan=True)
    assert dense.doubled == sum(cells.count(cell) > 1 for cell in set(cells))


@pytest.mark.skipif(
    not DATA.is_dir(), reason="FAVORITA_EXCERPT names no folder with the competition's data"
)
def test_favorita_excerpt_is_read_whole() -> None:
    """All 1,782 series of 64 days, with two reference predictions and every side table."""
    panel = panel_of(
        load_dataset(shipped_datasets() / "favorita_excerpt.toml", DATA), date(2017, 7, 14)
    )
    assert panel.units.shape == (1782, 48)
    assert panel.held_out == 16
    assert panel.keys.kinds == (KeyKind.WHOLE, KeyKind.TEXT)
    assert [each.name for each in panel.attributes] == [
        "city",
        "state",
        "type",
        "cluster",
        "perishable",
    ]
    assert not any((each.codes < 0).any() for each in panel.attributes)
    assert panel.weights is not None
    assert (panel.weights == 1.25).sum() == 9 * 54
    assert panel.traffic is not None
    assert panel.traffic.values.shape[0] == 54
    assert panel.traffic.first_day == number_of(date(2013, 1, 1))
    assert np.isfinite(panel.references["direct-lgbm"]).all()
    quito_day = np.array([number_of(date(2016, 12, 6)), number_of(date(2016, 12, 25))])
    assert panel.holidays is not None
    assert panel.holidays.local_on(quito_day).sum(axis=0).tolist() == [18, 0]
    assert panel.holidays.everywhere_on(quito_day).tolist() == [False, True]
