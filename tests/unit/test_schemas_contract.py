"""The rules of a contract: each is broken once, and each has a limit that still holds."""

from collections.abc import Callable
from datetime import date
from typing import Any

import msgspec
import pytest
from example_contracts import HORIZON, SALES, field, output

from schemas.contract import Contract, Horizon, decode_contract, numeric_range
from schemas.errors import ModelwireError

DAY = field("day", "date", "int64")
OUTPUTS = (output("y"),)


def contract(*fields: Any, outputs: Any = OUTPUTS, **rest: Any) -> Contract:
    """A contract of these fields."""
    return Contract(fields=fields, outputs=outputs, **rest)


BROKEN: dict[str, tuple[Callable[[], Contract], str]] = {
    "no fields": (lambda: contract(), "at least one field"),
    "no outputs": (lambda: contract(DAY, outputs=()), "at least one output"),
    "a field twice": (lambda: contract(DAY, DAY), "declared twice"),
    "an output twice": (
        lambda: contract(DAY, outputs=(output("y"), output("y"))),
        "declared twice",
    ),
    "a name with a space": (lambda: contract(field("a b", "bool", "bool")), "does not match"),
    "a name with a line end": (lambda: contract(field("a\n", "bool", "bool")), "does not match"),
    "a name of Python's own": (
        lambda: contract(field("__post_init__", "bool", "bool")),
        "does not match",
    ),
    "an output's name": (lambda: contract(DAY, outputs=(output("1"),)), "does not match"),
    "a limit of no bytes": (lambda: contract(DAY, max_request_bytes=0), "no request fits"),
    # the tensor
    "a string in a number": (lambda: contract(field("a", "string", "int64")), "cannot fill"),
    "a float in an integer": (lambda: contract(field("a", "float64", "int64")), "cannot fill"),
    "two fields, no columns": (
        lambda: contract(
            field("a", "bool", "bool", tensor="x"), field("b", "bool", "bool", tensor="x")
        ),
        "each needs a column",
    ),
    "a gap between columns": (
        lambda: contract(
            field("a", "bool", "bool", tensor="x", column=0),
            field("b", "bool", "bool", tensor="x", column=2),
        ),
        "without gaps",
    ),
    "a column twice": (
        lambda: contract(
            field("a", "bool", "bool", tensor="x", column=0),
            field("b", "bool", "bool", tensor="x", column=0),
        ),
        "without gaps",
    ),
    "a column below 0": (
        lambda: contract(field("a", "bool", "bool", column=-1)),
        "without gaps",
    ),
    "two dtypes in a tensor": (
        lambda: contract(
            field("a", "bool", "bool", tensor="x", column=0),
            field("b", "bool", "int64", tensor="x", column=1),
        ),
        "more than one dtype",
    ),
    # null and absent
    "a nullable integer that says nothing of null": (
        lambda: contract(field("a", "int64", "int64", nullable=True)),
        "needs null_as",
    ),
    "null_as without null": (
        lambda: contract(field("a", "int64", "int64", null_as=1)),
        "null_as means nothing",
    ),
    "null_as of another type": (
        lambda: contract(field("a", "int64", "int64", nullable=True, null_as="1")),
        "is not a int64",
    ),
    "null_as that is a bool": (
        lambda: contract(field("a", "int64", "int64", nullable=True, null_as=True)),
        "is not a int64",
    ),
    "null_as that is no date": (
        lambda: contract(field("a", "date", "int64", nullable=True, null_as="today")),
        "not an ISO date",
    ),
    "null_as that the tensor cannot hold": (
        lambda: contract(field("a", "int64", "int32", nullable=True, null_as=2**31)),
        "outside",
    ),
    "optional without default": (
        lambda: contract(field("a", "bool", "bool", required=False)),
        "needs a default",
    ),
    "required with default": (
        lambda: contract(field("a", "bool", "bool", default=True)),
        "cannot have a default",
    ),
    "a default of another type": (
        lambda: contract(field("a", "bool", "bool", required=False, default=1)),
        "is not a bool",
    ),
    "a default that is no date": (
        lambda: contract(field("a", "date", "int64", required=False, default="2017-8-1")),
        "not an ISO date",
    ),
    "a default below the minimum": (
        lambda: contract(field("a", "int64", "int64", required=False, default=0, minimum=1)),
        "outside its own limits",
    ),
    "a default above the maximum": (
        lambda: contract(field("a", "float32", "float32", required=False, default=2.5, maximum=2)),
        "outside its own limits",
    ),
    "a default that is not allowed": (
        lambda: contract(
            field("a", "string", "string", required=False, default="c", allowed=("a", "b"))
        ),
        "outside its own limits",
    ),
    "a default that is too long": (
        lambda: contract(
            field("a", "string", "string", required=False, default="abc", max_length=2)
        ),
        "outside its own limits",
    ),
    # limits
    "limits of a string": (
        lambda: contract(field("a", "string", "string", minimum=1)),
        "cannot have a minimum",
    ),
    "limits crossed": (
        lambda: contract(field("a", "int64", "int64", minimum=2, maximum=1)),
        "minimum above its maximum",
    ),
    "a broken limit of an integer": (
        lambda: contract(field("a", "int64", "int64", maximum=1.5)),
        "not a whole number",
    ),
    "a limit beyond int64": (
        lambda: contract(field("a", "int64", "float32", maximum=2**63)),
        "outside",
    ),
    "a limit beyond the tensor": (
        lambda: contract(field("a", "float64", "float32", minimum=-1e39)),
        "outside",
    ),
    "an endless limit": (
        lambda: contract(field("a", "float64", "float64", maximum=float("inf"))),
        "outside",
    ),
    "limits beside allowed values": (
        lambda: contract(field("a", "int64", "int64", allowed=(1,), minimum=0)),
        "means nothing",
    ),
    "allowed floats": (
        lambda: contract(field("a", "float64", "float64", allowed=(1,))),
        "cannot list allowed",
    ),
    "nothing allowed": (
        lambda: contract(field("a", "string", "string", allowed=())),
        "at least one value",
    ),
    "allowed values of another type": (
        lambda: contract(field("a", "string", "string", allowed=("a", 1))),
        "only values of type",
    ),
    "allowed values that the tensor cannot hold": (
        lambda: contract(field("a", "int64", "int32", allowed=(2**31,))),
        "outside",
    ),
    "strings of no length": (
        lambda: contract(field("a", "string", "string", max_length=0)),
        "max_length",
    ),
    "strings without end": (
        lambda: contract(field("a", "string", "string", max_length=1025)),
        "max_length",
    ),
    # outputs and horizon
    "an output that is a string": (
        lambda: contract(DAY, outputs=(output("y", "string"),)),
        "numbers or bools",
    ),
    "an output's column below 0": (
        lambda: contract(DAY, outputs=(output("y", column=-1),)),
        "count from 0",
    ),
    "a horizon of no field": (
        lambda: contract(field("a", "bool", "bool"), horizon=HORIZON),
        "not a date field",
    ),
    "a horizon of a number": (
        lambda: contract(field("day", "int64", "int64"), horizon=HORIZON),
        "not a date field",
    ),
    "a horizon of an optional day": (
        lambda: contract(
            field("day", "date", "int64", required=False, default="2017-08-01"), horizon=HORIZON
        ),
        "required and not nullable",
    ),
    "a horizon of a day that may be null": (
        lambda: contract(
            field("day", "date", "int64", nullable=True, null_as="2017-08-01"), horizon=HORIZON
        ),
        "required and not nullable",
    ),
    "a horizon that ends before it begins": (
        lambda: contract(
            DAY, horizon=Horizon(field="day", first=date(2017, 1, 2), last=date(2017, 1, 1))
        ),
        "before its first day",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_rule_is_named(case: str) -> None:
    """A contract that breaks a rule raises ValueError, and its message says which."""
    build, said = BROKEN[case]
    with pytest.raises(ValueError, match=said):
        build()


@pytest.mark.parametrize(
    "fields",
    [
        [field("class", "bool", "bool")],
        [field("a", "int64", "int32", minimum=-(2**31), maximum=2**31 - 1)],
        [field("a", "int64", "int64", minimum=-(2**63), maximum=2**63 - 1)],
        [field("a", "int64", "float32", nullable=True)],
        [field("a", "int64", "int64", nullable=True, null_as=-1, minimum=0)],
        [field("a", "float32", "float32", required=False, nullable=True)],
        [field("a", "float64", "float64", required=False, default=2, maximum=2)],
        [field("a", "string", "string", required=False, default="b", allowed=("a", "b"))],
        [field("a", "bool", "bool", column=0)],
        [DAY, field("b", "date", "int64", nullable=True, null_as="1969-12-31")],
    ],
)
def test_what_lies_within_the_rules_is_accepted(fields: list[Any]) -> None:
    """The nearest neighbours of the broken contracts are good ones."""
    assert contract(*fields).fields == tuple(fields)


def test_a_contract_survives_json() -> None:
    """A contract reads back as it was written."""
    assert decode_contract(msgspec.json.encode(SALES)) == SALES


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b'{"fields":[],"outputs":[]}', "at least one field"),
        (b'{"fields":[],"outputs":[],"extra":1}', "extra"),
        (b'{"fields":[]}', "outputs"),
        (b"{", "truncated"),
        (b"\xff", "not valid"),
        (b"[" * 100_000, "not valid"),
    ],
)
def test_a_contract_that_cannot_be_read_is_explained(raw: bytes, said: str) -> None:
    """Whatever is wrong with a contract's bytes ends in one sentence, not in a traceback."""
    with pytest.raises(ModelwireError, match=said):
        decode_contract(raw)


def test_the_range_of_a_number_is_that_of_its_type_and_its_tensor() -> None:
    """The narrower of the wire's type and the tensor's decides."""
    assert numeric_range(field("a", "int64", "int32")) == (-(2**31), 2**31 - 1)
    assert numeric_range(field("a", "int64", "float32")) == (-(2**63), 2**63 - 1)
    assert numeric_range(field("a", "float32", "float64"))[1] == pytest.approx(3.4028234e38)
    assert numeric_range(field("a", "float64", "float32"))[1] == pytest.approx(3.4028234e38)
    assert numeric_range(field("a", "float64", "float64"))[1] > 1e308


def test_tensors_list_their_fields_in_column_order() -> None:
    """The fields of a matrix come in the order of their columns, not of their declaration."""
    mixed = contract(
        field("b", "bool", "bool", tensor="x", column=1),
        field("a", "bool", "bool", tensor="x", column=0),
    )
    assert [member.name for member in mixed.tensors()["x"]] == ["a", "b"]


def test_a_field_is_found_by_name() -> None:
    """``field`` gives the field, or KeyError."""
    assert SALES.field("day").name == "day"
    with pytest.raises(KeyError):
        SALES.field("night")
