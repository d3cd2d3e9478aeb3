"""Text becomes typed inputs, and held-out rows become requests."""

from datetime import date
from io import BytesIO
from itertools import islice
from typing import Any

import msgspec
import pandas as pd
import pytest

from modelwire.ask import request_of, typed_inputs
from modelwire.replay import HeldOutRow, endless, held_out_rows, series_key, utc_now
from schemas.codec import compile_inputs
from schemas.contract import (
    Binding,
    Contract,
    Field,
    FieldType,
    Horizon,
    Output,
    TensorType,
)
from schemas.errors import UsageProblem

DTYPES = {
    FieldType.STRING: TensorType.STRING,
    FieldType.DATE: TensorType.INT64,
    FieldType.INT64: TensorType.INT64,
    FieldType.FLOAT64: TensorType.FLOAT64,
    FieldType.BOOL: TensorType.BOOL,
}


def contract_of(**types: FieldType) -> Contract:
    """A contract with these fields; one called ``maybe`` may be null or absent."""
    return Contract(
        fields=tuple(
            Field(
                name=name,
                type=kind,
                binding=Binding(tensor=name, dtype=DTYPES[kind]),
                description="a field",
                required=name != "maybe",
                nullable=name == "maybe",
            )
            for name, kind in types.items()
        ),
        outputs=(Output(name="sales", tensor="sales", type=FieldType.FLOAT32, description="…"),),
    )


SHOP = contract_of(store=FieldType.STRING, item=FieldType.STRING, day=FieldType.DATE)
MIXED = contract_of(
    n=FieldType.INT64, x=FieldType.FLOAT64, open=FieldType.BOOL, maybe=FieldType.FLOAT64
)


def test_text_becomes_what_the_contract_says() -> None:
    """Each type is parsed, and null where it is allowed; the decoder of the contract agrees."""
    given = {"n": "7", "x": "1e3", "open": "False", "maybe": "null"}
    inputs = typed_inputs(MIXED, given)
    assert inputs == {"n": 7, "x": 1000.0, "open": False, "maybe": None}
    compile_inputs(MIXED)(msgspec.json.encode(inputs))
    assert typed_inputs(SHOP, {"store": "7", "item": "a b", "day": "2011-12-01"}) == {
        "store": "7",
        "item": "a b",
        "day": "2011-12-01",
    }


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"colour": "red"}, "no field 'colour'"),
        ({"n": None}, "required and not given: n"),
        ({"n": "7.5"}, "n=7.5 is not a int64"),
        ({"n": "null"}, "n=null is not a int64"),
        ({"x": "nan"}, "x=nan is not a float64"),
        ({"open": "perhaps"}, "open=perhaps is not a bool"),
    ],
)
def test_a_mistake_names_the_field(change: dict[str, str | None], said: str) -> None:
    """The caller learns which field is wrong before anything is sent."""
    given = {"n": "7", "x": "1", "open": "true", "maybe": "2"} | change
    with pytest.raises(UsageProblem, match=said):
        typed_inputs(MIXED, {name: text for name, text in given.items() if text is not None})


def test_a_day_that_does_not_exist_is_a_mistake() -> None:
    """Dates are checked against the calendar."""
    with pytest.raises(UsageProblem, match="is not a date"):
        typed_inputs(SHOP, {"store": "1", "item": "a", "day": "2011-02-30"})


@pytest.mark.parametrize("raw", [b"[1]", b"{", b"\xff", b'"text"'])
def test_inputs_from_a_file_must_be_an_object(raw: bytes) -> None:
    """What is no JSON object cannot be inputs."""
    with pytest.raises(UsageProblem):
        request_of("id", raw, utc_now())


def test_inputs_from_a_file_are_sent_as_they_are() -> None:
    """Even inputs that will be rejected: the bytes are the caller's."""
    raw = b'{ "n": "seven",  "colour": 1.50 }'
    assert bytes(request_of("id", raw + b"\n", utc_now()).inputs) == raw


def test_the_key_is_the_series() -> None:
    """The text fields in the contract's order; a date is no part of it, nor is a number of any model."""
    assert series_key(SHOP, {"day": "2011-12-01", "item": "a", "store": "UK"}) == b"UK|a"
    assert series_key(SHOP, {"item": 5, "store": "UK"}) is None
    assert series_key(MIXED, {"n": 7}) is None


def test_a_numbered_key_of_a_panel_is_part_of_the_series() -> None:
    """Where days are asked for, a required whole number is a key; a text in its place is none."""
    contract = msgspec.structs.replace(
        contract_of(store=FieldType.INT64, family=FieldType.STRING, day=FieldType.DATE),
        horizon=Horizon(field="day", first=date(2011, 12, 1), last=date(2011, 12, 9)),
    )
    assert series_key(contract, {"store": 7, "family": "EGGS", "day": "2011-12-01"}) == b"7|EGGS"
    assert series_key(contract, {"store": "7", "family": "EGGS"}) is None


def parquet(**columns: Any) -> bytes:
    """A Parquet file."""
    buffer = BytesIO()
    pd.DataFrame(columns).to_parquet(buffer)
    return buffer.getvalue()


def test_held_out_rows_become_inputs_that_the_contract_reads() -> None:
    """Dates are written as ISO days, extra columns are left out, and the actual is kept."""
    days = pd.to_datetime(["2011-12-01", "2011-12-02"]).date
    rows = held_out_rows(
        parquet(
            store=["UK", "FR"], item=["a", "b"], day=days, actual=[2, 0], prediction=[1.5, 0.1]
        ),
        SHOP,
    )
    assert rows[0] == HeldOutRow(b"UK|a", b'{"store":"UK","item":"a","day":"2011-12-01"}', 2.0)
    decode = compile_inputs(SHOP)
    assert [decode(row.inputs).item for row in rows] == ["a", "b"]


def test_a_holdout_that_lacks_a_field_is_refused() -> None:
    """The file must fit the contract of its own bundle."""
    with pytest.raises(KeyError):
        held_out_rows(parquet(store=["UK"], actual=[1.0]), SHOP)


def test_the_replay_passes_over_every_row_before_it_repeats_one() -> None:
    """Passes are complete, shuffled, not all alike, and the seed decides them."""
    rows = [HeldOutRow(b"k", str(number).encode(), 0.0) for number in range(50)]
    first, second = (list(islice(endless(rows, seed=7), 100)) for _ in range(2))
    assert first == second
    assert sorted(first[:50], key=lambda row: int(row.inputs)) == rows
    assert sorted(first[50:], key=lambda row: int(row.inputs)) == rows
    assert first[:50] != first[50:]
    assert first != list(islice(endless(rows, seed=8), 100))
