"""Golden data: which cells become which requests, and what is said of those that cannot."""

from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.contract import (
    Binding,
    Contract,
    Field,
    FieldType,
    Horizon,
    Output,
    TensorType,
)
from schemas.errors import ModelwireError, NotFound
from trainer.golden_data import GoldenData, read_golden_data

NAN = float("nan")


def field(name: str, kind: FieldType, dtype: TensorType, **more: Any) -> Field:
    return Field(name=name, type=kind, binding=Binding(name, dtype), description="", **more)


CONTRACT = Contract(
    fields=(
        field("store", FieldType.STRING, TensorType.STRING, max_length=4),
        field("price", FieldType.FLOAT64, TensorType.FLOAT32, nullable=True, minimum=0),
        field("promo", FieldType.BOOL, TensorType.BOOL, required=False, default=False),
        field("units", FieldType.INT64, TensorType.INT64),
        field("day", FieldType.DATE, TensorType.INT64),
    ),
    outputs=(
        Output(name="sales", tensor="sales", type=FieldType.FLOAT32, description=""),
        Output(name="known", tensor="known", type=FieldType.INT64, description=""),
    ),
    horizon=Horizon(field="day", first=date(2017, 8, 1), last=date(2017, 8, 16)),
)

ROW = {"store": "007", "price": 1.5, "promo": True, "units": 3, "day": date(2017, 8, 1)}


def write(folder: Path, **columns: Any) -> Path:
    """A Parquet file of one good row or more, with other or further columns; None drops one."""
    rows = max((len(each) for each in columns.values() if each is not None), default=1)
    whole = {name: [value] * rows for name, value in ROW.items()} | columns
    path = folder / "data.parquet"
    pq.write_table(pa.table({name: v for name, v in whole.items() if v is not None}), path)
    return path


def read(folder: Path, **columns: Any) -> GoldenData:
    return read_golden_data(write(folder, **columns), CONTRACT)


def problem(folder: Path, **columns: Any) -> str:
    with pytest.raises(ModelwireError) as caught:
        read(folder, **columns)
    assert caught.value.hint
    assert caught.value.exit_code == 1
    return caught.value.message


def test_a_row_is_what_a_request_would_be(tmp_path: Path) -> None:
    """Each cell is written as JSON wants it, and decoded as a request's inputs are."""
    data = read(tmp_path)
    assert data.inputs == [ROW | {"day": "2017-08-01"}]
    assert data.rows[0].day == date(2017, 8, 1)
    assert data.expected is None


@pytest.mark.parametrize(
    ("column", "values", "seen"),
    [
        ("store", pa.array(["a"]).dictionary_encode(), "a"),
        ("store", pa.array(["a"], pa.large_string()), "a"),
        ("price", pa.array([2], pa.int32()), 2),
        ("price", pa.array([0.1], pa.float32()), 0.10000000149011612),
        ("price", pa.array([Decimal("1.25")]), 1.25),
        ("units", pa.array([3.0]), 3),
        ("units", pa.array([3], pa.uint8()), 3),
        ("promo", pa.array([1], pa.int64()), True),
        ("day", pa.array(["2017-08-02"]), "2017-08-02"),
        ("day", pa.array([datetime(2017, 8, 3)], pa.timestamp("ns")), "2017-08-03"),
    ],
)
def test_columns_as_tools_write_them(tmp_path: Path, column: str, values: Any, seen: Any) -> None:
    """Categories, whole numbers as floats (pandas with gaps), flags as 0 and 1, days as timestamps."""
    found = read(tmp_path, **{column: values}).inputs[0][column]
    assert found == seen
    assert type(found) is type(seen)


def test_nulls_are_sent_left_out_or_refused(tmp_path: Path) -> None:
    """A nullable field is null, an optional one is left out, any other is refused by its first row."""
    data = read(tmp_path, price=[None, NAN, 1.0], promo=[None, True, False])
    assert [each["price"] for each in data.inputs] == [None, None, 1.0]
    assert ["promo" in each for each in data.inputs] == [False, True, True]
    assert "units is null in 2 of 3 rows, first in row 2," in problem(
        tmp_path, units=[1.0, None, NAN]
    )


def test_an_optional_column_may_be_missing(tmp_path: Path) -> None:
    """Then every row leaves the field out."""
    assert "promo" not in read(tmp_path, promo=None).inputs[0]


def test_predictions_stand_under_the_names_of_outputs(tmp_path: Path) -> None:
    """For every output or for none."""
    data = read(tmp_path, sales=[1.5, 2.0], known=[1, 0])
    assert data.expected is not None
    assert {name: each.tolist() for name, each in data.expected.items()} == {
        "sales": [1.5, 2.0],
        "known": [1.0, 0.0],
    }
    assert "the predictions of some outputs and none of known" in problem(tmp_path, sales=[1.5])
    assert "the predictions of some outputs and none of sales" in problem(tmp_path, known=[1])


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"price": None, "units": None}, "has no column for price, units; it has store, promo, day"),
        ({"prediction": [1.0]}, "columns that are neither fields nor outputs: prediction"),
        ({"store": [7]}, "column store is of int64, and the field of type string wants text"),
        ({"price": ["1"]}, "column price is of string, and the field of type float64 wants numbers"),
        ({"promo": ["yes"]}, "column promo is of string, and the field of type bool wants true and"),
        ({"promo": [2]}, "column promo is of int64, and the field of type bool wants true and"),
        ({"day": [20170801]}, "column day is of int64, and the field of type date wants days"),
        ({"units": [1.0, 2.5]}, "row 2, units: 2.5 is not a whole number"),
        ({"price": [1.0, float("inf")]}, "row 2, price: it is infinite"),
        ({"day": [datetime(2017, 8, 1, 13)]}, "row 1, day: 2017-08-01 13:00:00 is not a day"),
        ({"day": [datetime(2017, 8, 1, tzinfo=UTC)]}, "is not a day: it has a time or a zone"),
        ({"price": [1.0, -1.0]}, "row 2 is no request of the contract: price is -1.0, outside of"),
        ({"store": ["a", "b", "abcde"]}, "of the contract: store is \"abcde\", of more than 4 char"),
        ({"price": [1e300]}, "price is beyond what float64 in a tensor of float32 can"),
        ({"day": ["17.08.2017"]}, "of the contract: day is \"17.08.2017\", no date"),
        ({"units": pa.array([2**63], pa.uint64())}, "units is beyond what int64 in a tensor"),
        ({"day": ["2017-08-17"]}, "row 1 is no request of the contract: day is 2017-08-17; this"),
        ({"sales": [1.0, NAN], "known": [1, 1]}, "row 2, sales: the prediction is nan or missing"),
        ({"sales": ["1"], "known": [1]}, "column sales is of string, and predictions are numbers"),
        ({name: [] for name in ROW}, "has no rows"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_told_by_column_and_row(
    tmp_path: Path, columns: dict[str, Any], said: str
) -> None:
    """Never as a traceback, and never by leaving the row out."""
    assert said in problem(tmp_path, **columns)


def test_a_value_that_is_not_allowed_is_told_with_those_that_are(tmp_path: Path) -> None:
    """As a person says it: no types of Python, and no paths of JSON."""
    allowed = field("units", FieldType.INT64, TensorType.INT64, allowed=(1, 2))
    fields = tuple(allowed if each.name == "units" else each for each in CONTRACT.fields)
    contract = msgspec.structs.replace(CONTRACT, fields=fields)
    with pytest.raises(ModelwireError, match=r"of the contract: units is 3, none of 1, 2$"):
        read_golden_data(write(tmp_path), contract)


def test_a_csv_file_is_read_by_the_contract(tmp_path: Path) -> None:
    """007 stays text, an empty cell is null, a quoted empty cell is an empty text."""
    path = tmp_path / "data.csv"
    path.write_text(
        "store,price,promo,units,day,sales,known\n"
        "007,,true,3,2017-08-01,1.5,1\n"
        '"",2,,4,2017-08-16,2,0\n',
        encoding="utf-8",
    )
    data = read_golden_data(path, CONTRACT)
    assert data.inputs == [
        {"store": "007", "price": None, "promo": True, "units": 3, "day": "2017-08-01"},
        {"store": "", "price": 2, "units": 4, "day": "2017-08-16"},
    ]
    assert data.expected is not None


def test_text_of_digits_stays_text(tmp_path: Path) -> None:
    """A CSV file does not say which of its columns are numbers; the contract does."""
    path = tmp_path / "data.csv"
    path.write_text("store,price,units,day\n007,1,3,2017-08-01\n", encoding="utf-8")
    assert read_golden_data(path, CONTRACT).inputs[0]["store"] == "007"


def test_files_that_are_none(tmp_path: Path) -> None:
    """A missing file is not found; other bytes are no Parquet; a column stands once."""
    with pytest.raises(NotFound, match="no golden data at"):
        read_golden_data(tmp_path / "data.parquet", CONTRACT)
    (tmp_path / "bad.parquet").write_bytes(b"no")
    with pytest.raises(ModelwireError, match="cannot be read as Parquet"):
        read_golden_data(tmp_path / "bad.parquet", CONTRACT)
    (tmp_path / "two.csv").write_text("store,store\na,b\n")
    with pytest.raises(ModelwireError, match="has the column 'store' twice"):
        read_golden_data(tmp_path / "two.csv", CONTRACT)
