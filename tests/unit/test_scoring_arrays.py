"""Between rows and arrays: shapes, padding, null, absent and dates; and outputs back to values."""

from typing import Any

import msgspec
import numpy as np
import pytest
from example_contracts import SALES, field, output
from hypothesis import given
from hypothesis import strategies as st

from schemas.codec import compile_inputs
from schemas.contract import Contract, TensorType
from schemas.rejection import Reason, Rejected
from scoring.arrays import BATCH_MULTIPLE, WrongOutput, compile_gather, compile_outputs, padded

OUTPUTS = (output("y"),)


def gathered(*fields: Any, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The feeds for ``rows`` under a contract of these fields."""
    contract = Contract(fields=fields, outputs=OUTPUTS)
    decode = compile_inputs(contract)
    return compile_gather(contract)([decode(msgspec.json.encode(row)) for row in rows])


@pytest.mark.parametrize(
    ("count", "expected"), [(1, 64), (63, 64), (64, 64), (65, 128), (512, 512), (513, 576)]
)
def test_a_batch_is_padded_to_a_multiple_of_64(count: int, expected: int) -> None:
    """The padding is the smallest that reaches a multiple, and it repeats the last row."""
    rows = [{"a": number, "b": number} for number in range(count)]
    feeds = gathered(
        field("a", "int64", "int64"), field("b", "int64", "float32", column=0), rows=rows
    )
    assert padded(count) == expected
    assert feeds["a"].shape == (expected,)
    assert feeds["b"].shape == (expected, 1)
    want = list(range(count)) + [count - 1] * (expected - count)
    assert feeds["a"].tolist() == want
    assert feeds["b"][:, 0].tolist() == want


@pytest.mark.parametrize(
    ("kind", "dtype", "value", "expected"),
    [
        ("string", "string", "ü", "ü"),
        ("int64", "int64", 2**63 - 1, 2**63 - 1),
        ("int64", "int32", -(2**31), -(2**31)),
        ("int64", "float32", 3, 3.0),
        ("int64", "float64", 2**53, 2.0**53),
        ("float64", "float64", 0.1, 0.1),
        ("float64", "float32", 0.1, float(np.float32(0.1))),
        ("float32", "float32", 3.4028234663852886e38, 3.4028234663852886e38),
        ("float32", "float64", 0.1, 0.1),
        ("bool", "bool", True, True),
        ("bool", "int64", True, 1),
        ("bool", "int32", False, 0),
        ("bool", "float32", True, 1.0),
        ("date", "int64", "1970-01-01", 0),
        ("date", "int32", "2017-08-16", 17394),
        ("date", "float32", "1969-12-31", -1.0),
    ],
)
@pytest.mark.parametrize("column", [None, 0])
def test_each_type_fills_each_tensor(
    kind: str, dtype: str, value: Any, expected: Any, column: int | None
) -> None:
    """A wire type arrives in the tensor's own element type, in a vector and in a matrix alike."""
    array = gathered(field("a", kind, dtype, column=column), rows=[{"a": value}])["a"]
    numpy_names = {TensorType.STRING: "object"}
    assert array.dtype == numpy_names.get(TensorType(dtype), dtype)
    assert array.reshape(-1).tolist() == [expected] * BATCH_MULTIPLE


def test_columns_of_a_matrix_come_from_their_fields() -> None:
    """Fields fill the columns that they name, whatever the order of declaration and of the row."""
    feeds = gathered(
        field("c", "int64", "float32", tensor="x", column=2, required=False, default=30),
        field("a", "int64", "float32", tensor="x", column=0),
        field("b", "bool", "float32", tensor="x", column=1),
        rows=[{"a": 1, "b": True}, {"c": 3, "b": False, "a": 2}],
    )
    assert feeds["x"][:2].tolist() == [[1, 1, 30], [2, 0, 3]]
    assert feeds["x"].dtype == np.float32


@pytest.mark.parametrize(
    ("rest", "absent", "null"),
    [
        ({"required": False, "default": 7}, 7.0, "refused"),
        ({"required": False, "default": 7, "nullable": True}, 7.0, "nan"),
        ({"required": False, "default": 7, "nullable": True, "null_as": -1}, 7.0, -1.0),
        ({"required": False, "nullable": True}, "nan", "nan"),
        ({"required": False, "nullable": True, "null_as": -1}, -1.0, -1.0),
        ({"nullable": True}, "refused", "nan"),
        ({"nullable": True, "null_as": -1}, "refused", -1.0),
        ({}, "refused", "refused"),
    ],
)
def test_optional_and_nullable_play_together(
    rest: dict[str, Any], absent: float | str, null: float | str
) -> None:
    """Absent becomes the default (else null), and null becomes ``null_as`` (else NaN)."""
    for row, expected in (({}, absent), ({"a": None}, null)):
        try:
            value = gathered(field("a", "float32", "float32", **rest), rows=[row])["a"][0]
        except Rejected:
            assert expected == "refused"
        else:
            assert np.isnan(value) if expected == "nan" else value == expected


def test_defaults_and_nulls_of_a_date_are_days() -> None:
    """What a contract says as an ISO date reaches the graph as days, like a date of the caller's."""
    rest: dict[str, Any] = {"required": False, "default": "1970-01-02", "nullable": True}
    as_date = gathered(
        field("a", "date", "int64", null_as="1969-12-31", **rest),
        rows=[{}, {"a": None}, {"a": "1970-01-03"}],
    )
    assert as_date["a"][:3].tolist() == [1, -1, 2]
    as_nan = gathered(field("a", "date", "float32", **rest), rows=[{"a": None}])
    assert np.isnan(as_nan["a"]).all()


@given(st.lists(st.text(max_size=16).filter(str.isprintable), min_size=1, max_size=130))
def test_strings_arrive_whole(names: list[str]) -> None:
    """Strings of any length and script stand in an object array as they came."""
    rows = [{"a": name} for name in names]
    feeds = gathered(field("a", "string", "string"), rows=rows)
    assert feeds["a"].dtype == object
    assert feeds["a"][: len(names)].tolist() == names


def contract_of(*outputs: Any) -> Contract:
    """A contract with these outputs."""
    return Contract(fields=(field("a", "int64", "int64"),), outputs=outputs)


def test_outputs_are_read_from_vectors_and_columns() -> None:
    """[N], [N, 1] and a column of [N, k] all give one Python value a row; padding is cut off."""
    read = compile_outputs(
        contract_of(
            output("plain", "float64"),
            output("single", "int64"),
            output("second", "float32", tensor="m", column=1),
            output("first", "float32", tensor="m", column=0),
            output("flag", "bool"),
        )
    )
    tenth = np.float32(0.1)
    rows = read(
        [
            np.full(64, 0.1),
            np.full((64, 1), 2**62),
            np.full((64, 3), [1, tenth, 2], dtype=np.float32),
            np.ones(64, dtype=bool),
        ],
        2,
    )
    assert len(rows) == 2
    assert not isinstance(rows[1], Rejected)
    values = msgspec.structs.asdict(rows[1])
    assert values == {
        "plain": 0.1,
        "single": 2**62,
        "second": float(tenth),
        "first": 1.0,
        "flag": True,
    }
    assert [type(value) for value in values.values()] == [float, int, float, float, bool]


@pytest.mark.parametrize(
    ("declared", "arrays", "said"),
    [
        (output("y"), [np.zeros(63, np.float32)], "shape"),
        (output("y"), [np.zeros((64, 2), np.float32)], "shape"),
        (output("y"), [np.zeros((64, 1, 1), np.float32)], "shape"),
        (output("y"), [np.zeros((1, 64), np.float32)], "shape"),
        (output("y"), [np.float32(0)], "not a tensor"),
        (output("y"), [np.array(0, np.float32)], "shape"),
        (output("y", column=2), [np.zeros((64, 2), np.float32)], "shape"),
        (output("y", column=0), [np.zeros(64, np.float32)], "shape"),
        (output("y"), [np.zeros(64)], "float64; the contract says float32"),
        (output("y", "int64"), [np.zeros(64, np.int32)], "int32; the contract says int64"),
        (output("y", "bool"), [np.zeros(64, np.int64)], "int64; the contract says bool"),
        (output("y"), [[{"y": 1.0}]], "list, not a tensor"),
        (output("y"), [], "0 outputs, not 1"),
        (output("y"), [np.zeros(64, np.float32)] * 2, "2 outputs, not 1"),
    ],
)
def test_a_tensor_that_breaks_the_contract_is_named(
    declared: Any, arrays: list[Any], said: str
) -> None:
    """Another shape, element type or number of tensors is never cast or cut silently."""
    with pytest.raises(WrongOutput, match=said):
        compile_outputs(contract_of(declared))(arrays, 1)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_rejects_its_row_only(bad: float) -> None:
    """The rows beside it are read as ever, and what lies in the padding counts for nothing."""
    values = np.arange(64, dtype=np.float32)
    values[1] = values[5] = bad
    first, second, third = compile_outputs(contract_of(output("y")))([values], 3)
    assert [getattr(row, "y", None) for row in (first, third)] == [0.0, 2.0]
    assert isinstance(second, Rejected)
    assert second.reason is Reason.NOT_FINITE
    assert "y" in second.detail


def test_the_contract_of_these_tests_gathers() -> None:
    """The shared example contract gives the feeds that its model expects."""
    rows = [compile_inputs(SALES)(b'{"store":"s","day":"2017-08-03","promo":true,"price":null}')]
    feeds = compile_gather(SALES)(rows)
    assert set(feeds) == {"store", "day", "x"}
    assert feeds["x"].shape == (64, 3)
