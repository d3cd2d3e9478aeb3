"""Bad data: every kind is refused with its file, place, column and rule, or treated as documented.

Each treatment stands in ``docs/how-to/train-on-your-data.md``.
"""

import re
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from schemas.errors import ModelwireError, NotFound, UsageProblem
from tests.unit.panel_reading import FEW, few_in, panel_of, row, small_columns, write_csv
from tests.unit.trainer_panels import CONFIG, FIRST_DAY, dataset_in, made_up_columns
from trainer.panel import CovariateKind

SIDE = (
    FEW
    + """
[[attributes]]
source = "shops.csv"
key = "shop"
columns = ["city"]

[holidays]
source = "holidays.csv"
match = { Local = "city" }

[traffic]
source = "visits.csv"
key = "shop"
value = "visits"
"""
)
SHOPS = {"shop": ["shop-0", "shop-1", "shop-2"], "city": ["Quito", "Loja", "Loja"]}
HOLIDAYS = {
    "date": ["2024-02-14", "2024-02-15"],
    "type": ["Holiday", "Holiday"],
    "locale": ["National", "Local"],
    "locale_name": ["Ecuador", "Loja"],
    "transferred": ["False", "False"],
}
VISITS = {"date": ["2024-01-01", "2024-01-01"], "shop": ["shop-0", "shop-1"], "visits": [70, 80]}


def with_side_tables(folder: Path, **changes: dict[str, list[Any]]) -> Any:
    """The small panel with three side tables, some of their columns changed."""
    for name, columns in (("shops", SHOPS), ("holidays", HOLIDAYS), ("visits", VISITS)):
        write_csv(folder / f"{name}.csv", columns | changes.get(name, {}))
    return few_in(folder, config=SIDE)


def problem_of(file: Any, kind: type[ModelwireError] = ModelwireError, **asked: Any) -> str:
    """What is said of the data; the error is of exactly this kind and says what to do."""
    with pytest.raises(ModelwireError) as caught:
        panel_of(file, **asked)
    assert type(caught.value) is kind
    assert caught.value.hint
    return caught.value.message


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


IN_PARQUET: dict[str, tuple[dict[str, Any], str]] = {
    "empty": (
        {name: values[:0] for name, values in made_up_columns().items()},
        "panel.parquet has no rows",
    ),
    "too short": (made_up_columns(days=27), "the panel is too short: .* has 27 days .* needs 28"),
    "held out too much": (
        made_up_columns(days=37),
        "the holdout is too long for the panel: .* has 37 days .*10 of them are held out and 27 left",
    ),
    "negative units": (
        changed("units", with_row_9(-2)),
        "panel.parquet: row 9, column 'units' is negative: '-2.0'",
    ),
    "units of NaN": (
        changed("units", lambda u: np.where(np.arange(len(u)) > 20, np.nan, u)),
        r"row 22, column 'units' is not a number: 'nan' \(and [\d,]+ more\)",
    ),
    "units without end": (
        changed("units", with_row_9(float("inf"))),
        "row 9, column 'units' is not a number: 'inf'",
    ),
    "units beyond all measure": (
        changed("units", with_row_9(1e15)),
        r"row 9, column 'units' is more than 1e\+12: '1000000000000000.0'",
    ),
    "units missing": (changed("units", with_row_9(None)), "row 9, column 'units' is missing$"),
    "units as text": (
        changed("units", lambda u: u.astype(str)),
        "panel.parquet: column 'units' is VARCHAR, not a number",
    ),
    "key missing": (changed("shop", with_row_9(None)), "row 9, column 'shop' is missing"),
    "key a fraction": (
        changed("shop", lambda s: np.arange(len(s)) / 2),
        "column 'shop' is DOUBLE, not text or a whole number",
    ),
    "key beyond 64 bits": (
        changed("shop", lambda s: pa.array([2**63 + i for i in range(len(s))], pa.uint64())),
        "row 1, column 'shop' is no whole number of 64 bits: '9223372036854775808' ",
    ),
    "key too long": (
        changed("shop", with_row_9("x" * 300)),
        "row 9, column 'shop' is longer than 256 characters: 'xxx",
    ),
    "key with a NUL": (
        changed("shop", with_row_9("shop\0one")),
        r"row 9, column 'shop' holds a NUL character: 'shop\\x00one'",
    ),
    "date a number": (
        changed("day", lambda d: d.astype(int)),
        "column 'day' is BIGINT, not a date",
    ),
    "date with a zone": (
        changed("day", lambda d: pa.array(d).cast(pa.timestamp("s", "Europe/London"))),
        "panel.parquet: column 'day' has a time zone",
    ),
    "date with a time": (
        changed("day", lambda d: d.astype("datetime64[s]") + np.timedelta64(60, "s")),
        "row 1, column 'day' has a time of day: '2024-01-01 00:01:00' ",
    ),
    "date of year 1": (
        changed("day", with_row_9(date(1, 1, 1))),
        r"row 9, column 'day' lies outside 1900 … 2199: '0001-01-01'",
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


@pytest.mark.parametrize("case", IN_PARQUET)
def test_bad_parquet_is_refused_with_its_place(tmp_path: Path, case: str) -> None:
    """Each panel that cannot be used names its file, and row, column and rule where there are some."""
    columns, expected = IN_PARQUET[case]
    message = problem_of(dataset_in(tmp_path, columns))
    assert re.search(expected, message), message
    assert str(tmp_path / "panel.parquet") in message


def with_cell(name: str, value: object) -> dict[str, Any]:
    """The small panel with another value in the 8th row, which is line 9."""
    columns = small_columns()
    columns[name][7] = value
    return columns


IN_CSV: dict[str, tuple[dict[str, Any], str]] = {
    "text in a number column": (
        with_cell("units", "many"),
        "panel.csv: line 9, column 'units' is not a number: 'many'",
    ),
    "a decimal comma": (with_cell("units", "1,5"), "line 9, column 'units' is not a number: '1,5'"),
    "a word for nothing": (with_cell("units", "NaN"), "line 9, column 'units' is not a number"),
    "an underscore": (with_cell("units", "1_000"), "line 9, column 'units' is not a number"),
    "an empty number": (with_cell("units", ""), "line 9, column 'units' is missing$"),
    "returns": (with_cell("units", -3), "line 9, column 'units' is negative: '-3.0'"),
    "a date as elsewhere": (
        with_cell("day", "03/01/2024"),
        "line 9, column 'day' is not a date: '03/01/2024'",
    ),
    "a day that is none": (with_cell("day", "2023-02-29"), "line 9, column 'day' is not a date"),
    "the end of time": (with_cell("day", "infinity"), "line 9, column 'day' is not a date"),
    "a time of day": (
        with_cell("day", "2024-01-03 13:45"),
        "line 9, column 'day' has a time of day: '2024-01-03 13:45'",
    ),
    "a time zone": (
        with_cell("day", "2024-01-03T00:00:00+02:00"),
        "line 9, column 'day' has a time zone: '2024-01-03T00:00:00",
    ),
    "a mark for never": (with_cell("day", "9999-12-31"), "line 9, column 'day' lies outside 1900"),
    "an empty key": (with_cell("shop", ""), "line 9, column 'shop' is missing$"),
    "a date a century off": (
        with_cell("day", "1924-01-03"),
        r"the panel is too long: .* from 1924-01-03 \(.*line 9\) to 2024-02-09 \(.*\), 36,563 days",
    ),
    "a date years off": (
        with_cell("day", "2034-01-03"),
        r"has a gap: .* no row between 2024-02-09 \(.*line 119\) and 2034-01-03 \(.*line 9\)",
    ),
    "a constant target": (
        small_columns() | {"units": [4] * 120},
        "column 'units' is 4 for every series on every day up to 2024-02-04",
    ),
}


@pytest.mark.parametrize("case", IN_CSV)
def test_bad_csv_is_refused_with_its_line(tmp_path: Path, case: str) -> None:
    """A cell of a CSV file is named by its line, with the value as it stands there."""
    columns, expected = IN_CSV[case]
    message = problem_of(few_in(tmp_path, columns))
    assert re.search(expected, message), message


def test_all_kinds_of_bad_cells_are_told_at_once(tmp_path: Path) -> None:
    """For each rule the first place and the number of others, in the order of the places."""
    columns = small_columns()
    columns["units"][3:6] = ["x", "y", "z"]
    columns["units"][1] = -1
    columns["day"][9] = ""
    lines = problem_of(few_in(tmp_path, columns)).splitlines()
    panel = tmp_path / "panel.csv"
    assert lines == [
        f"{panel}: line 3, column 'units' is negative: '-1.0'",
        f"{panel}: line 5, column 'units' is not a number: 'x' (and 2 more)",
        f"{panel}: line 11, column 'day' is missing",
    ]


def test_lines_are_counted_through_quotes_and_empty_lines(tmp_path: Path) -> None:
    """A cell with a line break in it and lines with nothing on them do not shift the place."""
    file = few_in(tmp_path, with_cell("units", "many"))
    text = (tmp_path / "panel.csv").read_text()
    text = text.replace("shop-1,6\n", '"shop\n-1",6\n\n', 1)
    (tmp_path / "panel.csv").write_text(text)
    assert "panel.csv: line 11, column 'units' is not a number: 'many'" in problem_of(file)


def test_line_with_a_cell_too_many_is_named(tmp_path: Path) -> None:
    """A separator inside of a text without quotes is found by its line."""
    file = few_in(tmp_path)
    path = tmp_path / "panel.csv"
    path.write_text(path.read_text().replace("shop-1,", "shop,1,", 1))
    assert "panel.csv: the row of line 3 has 4 cells and the first line 3" in problem_of(file)


def test_csv_in_another_encoding_is_refused(tmp_path: Path) -> None:
    """Bytes that are no UTF-8 are refused, not replaced, and their line is named."""
    file = few_in(tmp_path, with_cell("shop", "x"))
    path = tmp_path / "panel.csv"
    path.write_bytes(path.read_bytes().replace(b",x,", b",caf\xe9,"))
    found = path.read_bytes()[: path.read_bytes().index(b"caf")].count(b"\n") + 1
    assert f"panel.csv: line {found} is not UTF-8" in problem_of(file)


def test_line_ends_of_two_kinds_are_told_by_line(tmp_path: Path) -> None:
    """As two files written on different systems and put together have them."""
    file = few_in(tmp_path)
    path = tmp_path / "panel.csv"
    unix = path.read_bytes().replace(b"\r\n", b"\n")
    path.write_bytes(unix + unix.splitlines()[1] + b"\r\n")
    assert "ends otherwise than the lines before it" in problem_of(file)


def test_quote_without_an_end_is_told_by_the_line_of_its_row(tmp_path: Path) -> None:
    """However much of the file it swallows: more than Python's reader takes by itself."""
    file = few_in(tmp_path)
    path = tmp_path / "panel.csv"
    header, first, *others = path.read_text().splitlines()
    broken = first.replace("shop-0", '"shop-0')
    assert broken != first
    path.write_text("\n".join([header, first, broken, *others * 4_000]) + "\n")
    assert "panel.csv: the row of line 3 (it ends in line" in problem_of(file)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("panel.csv", b"", "panel.csv is empty"),
        ("panel.csv", b"day,shop,units\n", "panel.csv has no rows"),
        ("panel.csv", "day,shop,units\n".encode("utf-16"), "panel.csv is UTF-16, and a CSV file"),
        ("panel.csv", "day,shop,units\n".encode("utf-16-be"), "panel.csv is UTF-16, and a CSV file"),
        ("panel.csv", b"day,shop,units,Units\n", "panel.csv has 2 columns called 'units'"),
        ("panel.parquet", b"day,shop,units\n", "panel.parquet cannot be read as Parquet"),
        ("panel.csv.gz", b"day,shop,units\n", "panel.csv.gz cannot be read: Not a gzipped file"),
    ],
)  # fmt: skip
def test_wrong_file_is_refused(tmp_path: Path, name: str, content: bytes, expected: str) -> None:
    """An empty file, one without rows, with a name twice, or of another kind than its name says."""
    file = few_in(tmp_path, config=FEW.replace("panel.csv", name))
    (tmp_path / name).write_bytes(content)
    assert expected in problem_of(file)


def test_cut_off_file_is_refused(tmp_path: Path) -> None:
    """Half a Parquet file and half a gzipped file are no smaller panels."""
    file = dataset_in(tmp_path)
    file.source.write_bytes(file.source.read_bytes()[:-100])
    assert "panel.parquet cannot be read as Parquet" in problem_of(file)
    file = few_in(tmp_path, config=FEW.replace("panel.csv", "panel.csv.gz"))
    path = write_csv(tmp_path / "panel.csv.gz", small_columns(400))
    path.write_bytes(path.read_bytes()[:-500])
    assert "panel.csv.gz cannot be read" in problem_of(file)


def test_file_of_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    """The kinds that are read are listed."""
    (tmp_path / "panel.xlsx").write_bytes(b"PK")
    file = few_in(tmp_path, config=FEW.replace("panel.csv", "panel.xlsx"))
    assert "panel.xlsx is no kind of file that is read" in problem_of(file, UsageProblem)


def test_missing_source_names_the_key_that_points_there(tmp_path: Path) -> None:
    """A file that is not there exits with 4 and says which line names it."""
    file = dataset_in(tmp_path)
    file.source.unlink()
    message = problem_of(file, NotFound)
    assert re.search(r"panel\.toml:3: source names .*panel\.parquet, which does", message)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('product = "The', 'article = "The', r"panel\.toml:16: keys\.article names column 'article'"),
        ('target = "units"', 'target = "amount"', r"panel\.toml:7: target names column 'amount'"),
        ('date = "day"', 'date = "Day"', r"panel\.toml:6: date names column 'Day'"),
    ],
)  # fmt: skip
def test_missing_column_names_line_and_key(
    tmp_path: Path, old: str, new: str, expected: str
) -> None:
    """A column that the source lacks is named with the line that asks for it and what there is."""
    with pytest.raises(UsageProblem, match=expected) as caught:
        panel_of(dataset_in(tmp_path, config=CONFIG.replace(old, new)))
    assert caught.value.hint == "its columns are day, shop, product, units"


def test_returns_count_as_no_sales_where_the_dataset_says_so(tmp_path: Path) -> None:
    """With ``negatives = "zero"`` a negative row takes nothing off the others of its day."""
    columns = small_columns()
    for name in ("day", "shop"):
        columns[name].append(columns[name][0])
    before = columns["units"][0]
    columns["units"] = [*columns["units"], -50]
    file = few_in(tmp_path, columns, FEW.replace("horizon", 'negatives = "zero"\nhorizon'))
    panel = panel_of(file)
    assert panel.units[row(panel, "shop-0"), 0] == before
    assert "1 rows with negative units count as no sales" in panel.notes


def test_duplicates_are_refused_where_the_dataset_says_so(tmp_path: Path) -> None:
    """With ``duplicates = "refuse"`` the first repetition and its original are named."""
    columns = {name: [*values, values[4], values[4]] for name, values in small_columns().items()}
    file = few_in(tmp_path, columns, FEW.replace("horizon", 'duplicates = "refuse"\nhorizon'))
    assert re.fullmatch(
        r".*panel.csv: line 122 repeats the series and day of .*panel.csv: line 6 \(and 1 more\)",
        problem_of(file),
    )
    few_in(tmp_path, small_columns())
    assert panel_of(file).keys.series == 3


def test_gaps_are_days_without_sales(tmp_path: Path) -> None:
    """Days on which nobody sold anything are zeros, and noted."""
    columns = small_columns()
    keep = [i for i, day in enumerate(columns["day"]) if not "2024-01-10" <= day <= "2024-01-12"]
    columns = {name: [values[i] for i in keep] for name, values in columns.items()}
    panel = panel_of(few_in(tmp_path, columns))
    assert panel.units.shape == (3, 40)
    assert panel.units[:, 9:12].sum() == 0
    assert (panel.units[:, 8] > 0).all()
    assert "3 days have no row at all and count as days with no sales" in panel.notes


def test_holiday_of_an_unknown_locale_is_refused(tmp_path: Path) -> None:
    """A locale that the dataset does not tie to anything names its line and those it knows."""
    file = with_side_tables(tmp_path, holidays={"locale": ["National", "Regional"]})
    assert (
        "holidays.csv: line 3, column 'locale' is no locale of the dataset (National, Local): "
        "'Regional'"
    ) in problem_of(file)


def test_holiday_of_an_unknown_place_is_noted(tmp_path: Path) -> None:
    """A place that no shop is in touches nobody, and is named."""
    panel = panel_of(with_side_tables(tmp_path, holidays={"locale_name": ["Ecuador", "Atlantis"]}))
    assert panel.holidays is not None
    assert not panel.holidays.local.any()
    assert any("places that no shop has: Atlantis" in note for note in panel.notes)


def test_bad_date_in_a_side_table_names_its_line(tmp_path: Path) -> None:
    """Side tables are judged by the same rules."""
    file = with_side_tables(tmp_path, holidays={"date": ["2024-02-14", "14 February"]})
    assert "holidays.csv: line 3, column 'date' is not a date: '14 February'" in problem_of(file)


def test_value_without_a_row_in_a_side_table_is_unknown(tmp_path: Path) -> None:
    """A shop that the table lacks has an unknown attribute, and one that the panel lacks is nothing."""
    shops = {"shop": ["shop-0", "shop-9"], "city": ["Quito", "Cuenca"]}
    panel = panel_of(with_side_tables(tmp_path, shops=shops))
    [city] = panel.attributes
    assert city.values == ("Quito",)
    assert city.codes.tolist() == [0, -1, -1]
    assert "city is unknown for 2 values of shop" in panel.notes


def test_rows_of_a_side_table_that_contradict_are_refused(tmp_path: Path) -> None:
    """Two cities for one shop name both lines; the same city twice is no problem."""
    shops = {"shop": ["shop-0", "shop-1", "shop-0"], "city": ["Quito", "Loja", "Quito"]}
    assert panel_of(with_side_tables(tmp_path, shops=shops)).attributes[0].codes[0] == 1
    shops["city"][2] = "Cuenca"
    message = problem_of(with_side_tables(tmp_path, shops=shops))
    assert re.search(
        r"shops.csv: line 4 contradicts .*shops.csv: line 2: both are for shop 'shop-0', and city",
        message,
    )


def test_traffic_that_contradicts_itself_is_refused(tmp_path: Path) -> None:
    """Two numbers for one shop and day name the day."""
    visits = {"shop": ["shop-0", "shop-0"]}
    message = problem_of(with_side_tables(tmp_path, visits=visits))
    assert "both are for shop 'shop-0', date 2024-01-01, and visits differs" in message


def test_negative_traffic_is_refused(tmp_path: Path) -> None:
    """Fewer customers than none are a mistake."""
    message = problem_of(with_side_tables(tmp_path, visits={"visits": [70, -8]}))
    assert message.endswith("visits.csv: line 3, column 'visits' is negative: -8")


def test_traffic_with_an_absurd_date_is_refused(tmp_path: Path) -> None:
    """A table of a century is not made."""
    visits = {"date": ["1901-01-01", "2024-01-01"]}
    message = problem_of(with_side_tables(tmp_path, visits=visits))
    assert "visits.csv begins on 1901-01-01, 44,959 days before the cutoff" in message


def test_covariate_without_any_value_is_refused(tmp_path: Path) -> None:
    """A column of nothing is not a promotion that never was."""
    config = FEW + '\n[covariates]\npromotion = "On promotion"\n'
    file = few_in(tmp_path, small_columns() | {"promotion": [None] * 120}, config)
    assert "panel.csv: column 'promotion' has no value in any row" in problem_of(file)


def test_closed_that_is_no_flag_is_refused(tmp_path: Path) -> None:
    """Hours of opening do not say on which days the shop is closed."""
    config = FEW.replace("horizon", 'closed = "hours"\nhorizon')
    config += '\n[covariates]\nhours = "Hours closed"\n'
    file = few_in(tmp_path, small_columns() | {"hours": [8, 0, 24] * 40}, config)
    assert "column 'hours' is named by `closed` and has values other" in problem_of(file)


PROMO = FEW + '\n[covariates]\npromotion = "On promotion"\n'


def test_a_stray_number_in_a_flag_is_noted_with_its_row(tmp_path: Path) -> None:
    """One 2 among noughts and ones makes the column a number; whoever mistyped it learns where."""
    flags = [0, 1, 0] * 40
    flags[10] = 2
    panel = panel_of(few_in(tmp_path, small_columns() | {"promotion": flags}, PROMO))
    assert panel.covariates[0].kind is CovariateKind.NUMBER
    [note] = panel.notes
    assert note.startswith("column 'promotion' is a number and no flag: ")
    assert note.endswith("panel.csv: line 12 has 2, all others have 0 or 1")
    prices = small_columns() | {"promotion": [0, 1, 2.5] * 40}
    assert panel_of(few_in(tmp_path, prices, PROMO)).notes == ()


def test_the_kind_of_a_column_is_decided_up_to_the_cutoff(tmp_path: Path) -> None:
    """What comes later makes no flag a number: it is refused with its row, and so is a late start."""
    flags: list[Any] = [0, 1, 0] * 40
    flags[110] = 7
    file = few_in(tmp_path, small_columns() | {"promotion": flags}, PROMO)
    assert re.search(
        r"panel.csv: line 112, column 'promotion' is 7 after the cutoff 2024-02-04, and 0 or 1 in every",
        problem_of(file),
    )
    assert panel_of(file, date(2024, 1, 30)).covariates[0].kind is CovariateKind.FLAG
    late = [None] * 110 + [1] * 10
    file = few_in(tmp_path, small_columns() | {"promotion": late}, PROMO)
    assert "has no value in any row up to the cutoff 2024-02-04" in problem_of(file)


def test_a_csv_key_with_a_nul_is_told_by_its_line(tmp_path: Path) -> None:
    """As a program in C leaves them in fields of a fixed width."""
    file = few_in(tmp_path, with_cell("shop", "shop-0\0\0"))
    assert re.search(r"panel.csv: line \d+, column 'shop' holds a NUL", problem_of(file))


def test_a_setting_among_the_keys_is_pointed_out(tmp_path: Path) -> None:
    """``licence`` below [keys] is a key, whose column the source does not have."""
    with pytest.raises(UsageProblem, match="names column 'licence', which") as caught:
        panel_of(few_in(tmp_path, config=FEW + 'licence = "none"\n'))
    assert "the setting `licence` comes before the first [table]" in caught.value.hint


def test_parts_of_a_panel_have_the_same_types(tmp_path: Path) -> None:
    """A key that is text in one file and a number in another names both."""
    first = made_up_columns()
    dataset_in(tmp_path, first)
    (tmp_path / "panel.parquet").rename(tmp_path / "a.parquet")
    second = first | {"shop": np.arange(len(first["shop"]))}
    dataset_in(tmp_path, second)
    (tmp_path / "panel.parquet").rename(tmp_path / "b.parquet")
    file = dataset_in(tmp_path, config=CONFIG.replace("panel.parquet", "[ab].parquet"))
    assert re.search(
        r"column 'shop' is VARCHAR in .*a.parquet and BIGINT in .*b.parquet", problem_of(file)
    )
