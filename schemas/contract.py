"""The contract: the raw request fields a model reads, and the outputs it gives.

A contract travels inside the bundle's manifest. It is all that a consumer knows of a model: from it
the request decoder is compiled (``schemas.codec``) and the arrays for the graph are gathered
(``scoring.arrays``). Rules:

1. A field names its type on the wire and the place in the graph that it fills: an ONNX input
   ``tensor`` and, where several fields share a matrix, a ``column``. An input without a column has
   shape ``[N]``; with columns ``[N, 1 + highest column]``. N is dynamic.
2. The columns of one tensor are dense from 0 and have one dtype.
3. A nullable field says what the graph sees in place of null; a float that does not say sees NaN.
4. An optional field has a default, and the default keeps the field's own limits; an optional field
   that is nullable and has no default counts as null where it is absent. ``null_as`` may lie outside
   the limits, so that the graph can tell it from a value, but not outside the tensor's range.
5. A ``date`` is ISO 8601 (``2017-08-16``) on the wire and days since 1970-01-01 in the graph.
6. An output is a tensor of shape ``[N]`` or ``[N, 1]``, or one column of ``[N, k]``.
7. The horizon names the date field and the first and last day that the model can answer for, and
   what happens after the last day. Days before the first are always refused. Every request names
   its day: the horizon's field is required and not nullable.
8. A number that its field's type or its tensor cannot hold is refused (``numeric_range``), and so is
   a limit, a default or an allowed value that no request could meet.
"""

import re
from collections import defaultdict
from collections.abc import Iterator
from datetime import date
from enum import StrEnum

import msgspec

from schemas.errors import ModelwireError

NAME_PATTERN = r"^[A-Za-z][A-Za-z0-9_]{0,63}$"
"""Names of fields and outputs: they become JSON keys and attribute names.

None begins with an underscore: a row with an attribute ``__post_init__`` could not be made.
"""

MAX_STRING_LENGTH = 1024
"""Longest string, in characters, that a field may allow."""


class FieldType(StrEnum):
    """A field's type on the wire (JSON)."""

    STRING = "string"
    INT64 = "int64"
    FLOAT64 = "float64"
    FLOAT32 = "float32"
    BOOL = "bool"
    DATE = "date"


class TensorType(StrEnum):
    """An element type of an ONNX tensor."""

    STRING = "string"
    INT64 = "int64"
    INT32 = "int32"
    FLOAT64 = "float64"
    FLOAT32 = "float32"
    BOOL = "bool"


class Beyond(StrEnum):
    """What happens to a request for a day after the horizon's last."""

    REJECT = "reject"
    LAST_DAY = "last-day"
    """The graph answers with its last day's row; one of its outputs should flag that."""


_PYTHON_TYPES: dict[FieldType, tuple[type, ...]] = {
    FieldType.STRING: (str,),
    FieldType.INT64: (int,),
    FieldType.FLOAT64: (int, float),
    FieldType.FLOAT32: (int, float),
    FieldType.BOOL: (bool,),
    FieldType.DATE: (str,),
}

TENSORS_FOR: dict[FieldType, frozenset[TensorType]] = {
    FieldType.STRING: frozenset({TensorType.STRING}),
    FieldType.INT64: frozenset(
        {TensorType.INT64, TensorType.INT32, TensorType.FLOAT32, TensorType.FLOAT64}
    ),
    FieldType.FLOAT64: frozenset({TensorType.FLOAT64, TensorType.FLOAT32}),
    FieldType.FLOAT32: frozenset({TensorType.FLOAT32, TensorType.FLOAT64}),
    FieldType.BOOL: frozenset(
        {TensorType.BOOL, TensorType.INT64, TensorType.INT32, TensorType.FLOAT32}
    ),
    FieldType.DATE: frozenset({TensorType.INT64, TensorType.INT32, TensorType.FLOAT32}),
}
"""Which tensors a field of a type can fill without losing what it means."""

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
FLOAT32_MAX = 3.4028234663852886e38
FLOAT64_MAX = 1.7976931348623157e308

_TENSOR_RANGES: dict[TensorType, tuple[int, int] | tuple[float, float]] = {
    TensorType.INT64: (INT64_MIN, INT64_MAX),
    TensorType.INT32: (-(2**31), 2**31 - 1),
    TensorType.FLOAT64: (-FLOAT64_MAX, FLOAT64_MAX),
    TensorType.FLOAT32: (-FLOAT32_MAX, FLOAT32_MAX),
}

Scalar = str | int | float | bool


class Binding(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where in the graph a field goes: ``tensor`` of ``dtype``, and its column in a matrix."""

    tensor: str
    dtype: TensorType
    column: int | None = None


class Field(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One raw request field.

    ``minimum`` and ``maximum`` are inclusive and for numbers only; ``allowed`` lists the admissible
    strings or integers; ``max_length`` counts characters of a string. ``description`` is one line
    and ``unit`` its unit (``units sold``, ``days``), empty where there is none.
    """

    name: str
    type: FieldType
    binding: Binding
    description: str
    unit: str = ""
    required: bool = True
    default: Scalar | None = None
    nullable: bool = False
    null_as: Scalar | None = None
    minimum: float | int | None = None
    maximum: float | int | None = None
    allowed: tuple[str | int, ...] | None = None
    max_length: int = 256


class Output(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One value of an answer, read from a tensor that the graph gives."""

    name: str
    tensor: str
    type: FieldType
    description: str
    unit: str = ""
    column: int | None = None


class Horizon(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The days a model can answer for: ``first`` … ``last``, both included."""

    field: str
    first: date
    last: date
    beyond: Beyond = Beyond.REJECT


class Contract(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a model reads and gives. Raises ValueError where the rules above are broken."""

    fields: tuple[Field, ...]
    outputs: tuple[Output, ...]
    horizon: Horizon | None = None
    max_request_bytes: int = 65_536
    """Largest whole request value, in bytes, that is decoded at all."""

    def __post_init__(self) -> None:
        problem = next(_problems(self), None)
        if problem is not None:
            raise ValueError(problem)

    def field(self, name: str) -> Field:
        """The field called ``name``; KeyError where there is none."""
        for each in self.fields:
            if each.name == name:
                return each
        raise KeyError(name)

    def tensors(self) -> dict[str, tuple[Field, ...]]:
        """ONNX input name -> the fields that fill it, in column order."""
        grouped: dict[str, list[Field]] = defaultdict(list)
        for each in self.fields:
            grouped[each.binding.tensor].append(each)
        return {
            name: tuple(sorted(members, key=lambda f: f.binding.column or 0))
            for name, members in grouped.items()
        }


def decode_contract(raw: bytes) -> Contract:
    """A contract from its JSON. Raises ModelwireError with the key that is wrong."""
    try:
        return msgspec.json.decode(raw, type=Contract)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ModelwireError(
            f"the contract is not valid: {error}",
            hint="compare it with schemas/published/contract.schema.json",
        ) from error


def _problems(contract: Contract) -> Iterator[str]:
    names = [field.name for field in contract.fields]
    outputs = [output.name for output in contract.outputs]
    if not names:
        yield "a contract needs at least one field"
    if not outputs:
        yield "a contract needs at least one output"
    if contract.max_request_bytes < 1:
        yield f"max_request_bytes is {contract.max_request_bytes}; no request fits"
    for kind, listed in (("field", names), ("output", outputs)):
        for name in listed:
            if not re.fullmatch(NAME_PATTERN, name):
                yield f"{kind} name {name!r} does not match {NAME_PATTERN}"
            if listed.count(name) > 1:
                yield f"{kind} {name!r} is declared twice"
    for field in contract.fields:
        yield from _problems_of_field(field)
    for output in contract.outputs:
        if output.column is not None and output.column < 0:
            yield f"output {output.name!r} has column {output.column}; columns count from 0"
        if output.type in (FieldType.STRING, FieldType.DATE):
            yield f"output {output.name!r} has type {output.type}; outputs are numbers or bools"
    for tensor, members in contract.tensors().items():
        yield from _problems_of_tensor(tensor, members)
    if contract.horizon is not None:
        yield from _problems_of_horizon(contract.horizon, contract)


def _problems_of_field(field: Field) -> Iterator[str]:
    where = f"field {field.name!r}"
    kinds = _PYTHON_TYPES[field.type]
    numeric = field.type in (FieldType.INT64, FieldType.FLOAT64, FieldType.FLOAT32)
    if field.binding.dtype not in TENSORS_FOR[field.type]:
        yield f"{where} of type {field.type} cannot fill a tensor of {field.binding.dtype}"
    if (field.minimum is not None or field.maximum is not None) and not numeric:
        yield f"{where} of type {field.type} cannot have a minimum or a maximum"
    if field.minimum is not None and field.maximum is not None and field.minimum > field.maximum:
        yield f"{where} has a minimum above its maximum"
    if field.allowed is not None and (field.minimum is not None or field.maximum is not None):
        yield f"{where} lists allowed values, so a minimum or a maximum means nothing"
    if field.type is FieldType.INT64:
        for bound in (field.minimum, field.maximum):
            if bound is not None and not isinstance(bound, int):
                yield f"{where} is an int64 but its bound {bound} is not a whole number"
    if field.allowed is not None:
        if field.type not in (FieldType.STRING, FieldType.INT64):
            yield f"{where} of type {field.type} cannot list allowed values"
        elif not field.allowed or any(type(value) not in kinds for value in field.allowed):
            yield f"{where} must allow at least one value, and only values of type {field.type}"
    if not 1 <= field.max_length <= MAX_STRING_LENGTH:
        yield f"{where} has max_length {field.max_length}, outside 1 … {MAX_STRING_LENGTH}"
    if field.required and field.default is not None:
        yield f"{where} is required, so it cannot have a default"
    if not field.required and field.default is None and not field.nullable:
        yield f"{where} is optional, so it needs a default (or must be nullable)"
    if field.default is not None and type(field.default) not in kinds:
        yield f"{where} has a default {field.default!r} that is not a {field.type}"
    if field.null_as is not None and not field.nullable:
        yield f"{where} is not nullable, so null_as means nothing"
    if field.null_as is not None and type(field.null_as) not in kinds:
        yield f"{where} has null_as {field.null_as!r}, which is not a {field.type}"
    floating = field.binding.dtype in (TensorType.FLOAT32, TensorType.FLOAT64)
    if field.nullable and field.null_as is None and not floating:
        yield f"{where} is nullable and fills a tensor of {field.binding.dtype}: it needs null_as"
    for value in (field.default, field.null_as):
        if field.type is FieldType.DATE and isinstance(value, str) and not _is_iso_date(value):
            yield f"{where} holds {value!r}, which is not an ISO date"
    if field.default is not None and not _keeps_limits(field, field.default):
        yield f"{where} has a default {field.default!r} outside its own limits"
    if numeric:
        yield from _problems_of_numbers(field, where)


def _problems_of_numbers(field: Field, where: str) -> Iterator[str]:
    low, high = numeric_range(field)
    stated = (field.minimum, field.maximum, field.default, field.null_as, *(field.allowed or ()))
    for value in stated:
        if isinstance(value, (int, float)) and not low <= value <= high:
            yield f"{where} states {value}, which is outside {low} … {high}"


def numeric_range(field: Field) -> tuple[int, int] | tuple[float, float]:
    """The smallest and largest number that both a numeric field's type and its tensor can hold."""
    if field.type is FieldType.INT64 and field.binding.dtype is not TensorType.INT32:
        return _TENSOR_RANGES[TensorType.INT64]
    if field.type is FieldType.FLOAT32:
        return _TENSOR_RANGES[TensorType.FLOAT32]
    return _TENSOR_RANGES[field.binding.dtype]


def _keeps_limits(field: Field, value: Scalar) -> bool:
    if field.allowed is not None:
        return value in field.allowed
    if isinstance(value, str):
        return len(value) <= field.max_length
    return (field.minimum is None or value >= field.minimum) and (
        field.maximum is None or value <= field.maximum
    )


def _problems_of_tensor(tensor: str, members: tuple[Field, ...]) -> Iterator[str]:
    columns = [member.binding.column for member in members]
    if len(members) > 1 and None in columns:
        yield f"tensor {tensor!r} is filled by several fields, so each needs a column"
    elif columns != [None] and columns != list(range(len(members))):
        yield f"tensor {tensor!r} has columns {columns}; they must run from 0 without gaps"
    if len({member.binding.dtype for member in members}) > 1:
        yield f"tensor {tensor!r} is filled with more than one dtype"


def _problems_of_horizon(horizon: Horizon, contract: Contract) -> Iterator[str]:
    field = next((field for field in contract.fields if field.name == horizon.field), None)
    if field is None or field.type is not FieldType.DATE:
        yield f"the horizon names {horizon.field!r}, which is not a date field of the contract"
    elif not field.required or field.nullable:
        yield f"the horizon's field {horizon.field!r} must be required and not nullable"
    if horizon.first > horizon.last:
        yield f"the horizon ends on {horizon.last}, before its first day {horizon.first}"


def _is_iso_date(value: str) -> bool:
    try:
        return date.fromisoformat(value).isoformat() == value
    except ValueError:
        return False
