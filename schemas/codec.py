"""Compiles a contract into a decoder of raw inputs.

``compile_inputs`` builds one struct class whose fields carry the contract's types and limits, so
that a request is decoded and checked in one pass of C code. What the decoder cannot say is checked
after it: duplicate keys (see ``schemas.request``) and the horizon.

An absent optional field is left ``UNSET`` and null is left ``None``: ``scoring.arrays`` fills in
what the contract says, and the raw inputs stay what the caller wrote.
"""

from collections.abc import Callable, Sequence
from datetime import date
from functools import lru_cache
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from schemas.contract import Beyond, Contract, Field, FieldType, numeric_range
from schemas.rejection import Reason, Rejected
from schemas.request import UNREADABLE, diagnose, refuse_duplicate_keys

Row = Any
"""An instance of the compiled struct: one attribute a contract field."""

DecodeInputs = Callable[[bytes], Row]

Explain = Callable[[bytes, Exception], Rejected]
"""From raw inputs and the decoder's error to why there is no row."""


def compile_inputs(contract: Contract) -> DecodeInputs:
    """A function from raw ``inputs`` JSON to a row. It raises Rejected with the field at fault."""
    decoder = msgspec.json.Decoder(inputs_struct(contract))
    count_quotes = quote_counter(contract)
    check_horizon = horizon_check(contract)
    explain = compile_explanation(contract)

    def decode_inputs(raw: bytes) -> Row:
        try:
            row = decoder.decode(raw)
        except UNREADABLE as error:
            raise explain(raw, error) from None
        if [raw.count(b'"')] != count_quotes([row]):
            refuse_duplicate_keys(raw)
        outside = check_horizon(row)
        if outside is not None:
            raise outside
        return row

    return decode_inputs


def inputs_struct(contract: Contract) -> type[msgspec.Struct]:
    """The class of the contract's rows: what it cannot say of them is checked after decoding.

    Versions with the same fields share it: a class costs kilobytes, and only the collector frees it.
    """
    return _struct_of(tuple(row_fields(contract)))


@lru_cache(maxsize=64)
def _struct_of(fields: tuple[Field, ...]) -> type[msgspec.Struct]:
    return msgspec.defstruct(
        "Inputs",
        [_declare(field) for field in fields],
        frozen=True,
        forbid_unknown_fields=True,
        gc=False,
    )


def row_fields(contract: Contract) -> list[Field]:
    """The contract's fields in the order in which a row holds them: the required ones first."""
    return sorted(contract.fields, key=lambda field: not field.required)


def _declare(field: Field) -> tuple[str, Any] | tuple[str, Any, Any]:
    annotation = _annotation(field)
    if field.nullable:
        annotation = annotation | None
    if field.required:
        return field.name, annotation
    return field.name, annotation | UnsetType, UNSET


def _annotation(field: Field) -> Any:
    if field.allowed is not None:
        return Literal[field.allowed]
    match field.type:
        case FieldType.STRING:
            return Annotated[str, Meta(max_length=field.max_length)]
        case FieldType.INT64:
            return Annotated[int, _limits(field)]
        case FieldType.FLOAT32 | FieldType.FLOAT64:
            return Annotated[float, _limits(field)]
        case FieldType.BOOL:
            return bool
        case FieldType.DATE:
            return date


def _limits(field: Field) -> Meta:
    """The field's own limits, and where it has none those of its type and its tensor."""
    number = int if field.type is FieldType.INT64 else float
    low, high = numeric_range(field)
    return Meta(
        ge=number(low if field.minimum is None else field.minimum),
        le=number(high if field.maximum is None else field.maximum),
    )


def quote_counter(contract: Contract) -> Callable[[Sequence[Row]], list[int]]:
    """How many quotes the raw JSON of each of some rows has when no key stands twice in it."""
    quoted = {FieldType.STRING, FieldType.DATE}
    plain = sum(4 if field.type in quoted else 2 for field in contract.fields)
    loose = [field for field in contract.fields if not field.required or field.nullable]

    def count(row: Row) -> int:
        quotes = plain
        for field in loose:
            value = getattr(row, field.name)
            is_quoted = field.type in quoted
            if value is UNSET:
                quotes -= 4 if is_quoted else 2
            elif value is None and is_quoted:
                quotes -= 2
        return quotes

    if not loose:
        return lambda rows: [plain] * len(rows)
    return lambda rows: list(map(count, rows))


def horizon_check(contract: Contract) -> Callable[[Row], Rejected | None]:
    """What says why a row is rejected whose date the version does not answer for."""
    horizon = contract.horizon
    if horizon is None:
        return lambda row: None
    name, first, last = horizon.field, horizon.first, horizon.last
    reject_after = horizon.beyond is Beyond.REJECT
    days = f"this version answers for {first} to {last}"

    def check(row: Row) -> Rejected | None:
        day = getattr(row, name)
        if isinstance(day, date) and (day < first or (reject_after and day > last)):
            return Rejected(Reason.OUTSIDE_HORIZON, f"{name} is {day}; {days}")
        return None

    return check


def compile_explanation(contract: Contract) -> Explain:
    """What says why inputs could not be decoded, from one of ``schemas.request.UNREADABLE``.

    It tells a number beyond its type apart from one beyond the contract's own limit.
    """
    beyond = {
        (field.name, sign): f"{field.name} is beyond what {field.type} in a tensor of "
        f"{field.binding.dtype} can hold"
        for field in contract.fields
        for sign, bound in (("<=", field.maximum), (">=", field.minimum))
        if bound is None
    }

    def explain(raw: bytes, error: Exception) -> Rejected:
        rejected = diagnose(raw, error)
        if rejected.reason is not Reason.OUT_OF_RANGE:
            return rejected
        said, _, name = rejected.detail.rpartition("`$.")
        why = beyond.get((name.rstrip("`"), "<=" if "<=" in said else ">="))
        return rejected if why is None else Rejected(Reason.NUMBER_TOO_LARGE, why)

    return explain
