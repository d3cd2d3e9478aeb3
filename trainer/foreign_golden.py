"""Golden vectors of a foreign model: which rows of the golden data a bundle keeps, and what they show.

1. They show every branch of the contract that the data has: nulls, fields left out, allowed values,
   limits, the ends of the horizon, and the least and the greatest value of each field.
2. A row that holds a field's default stands for one that leaves the field out: the graph sees the same.
3. Branches that no row shows are named, so that somebody can give a row for them.
4. Their outputs are the pipeline's predictions where the data has them, else the graph's own answers.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from schemas.contract import Contract, Field, FieldType
from schemas.manifest import GoldenVector
from scoring.arrays import OutputRow
from trainer.golden_data import GoldenData, Inputs

GOLDEN_ROWS = 64
"""Vectors at least, where the data has as many rows: what the branches do not need is spread over it."""

ALLOWED_SHOWN = 32
"""Allowed values of a field, at most, that are branches of their own."""


@dataclass(frozen=True)
class Golden:
    """The vectors of a bundle, and the branches of the contract that the data could not show."""

    vectors: tuple[GoldenVector, ...]
    unexercised: tuple[str, ...]


def choose_golden(contract: Contract, data: GoldenData, answers: Sequence[OutputRow]) -> Golden:
    """Rows that show the branches of the contract, and others spread over the data.

    A row that holds a field's default stands for one that leaves the field out: the graph sees the same.
    """
    chosen: dict[int, None] = {}
    left_out: list[tuple[int, str]] = []
    unexercised = []
    for branch in _branches(contract):
        index = next((i for i, each in enumerate(data.inputs) if branch.is_shown(each)), None)
        if index is not None:
            chosen[index] = None
        elif branch.default_of is not None and (
            (at := _row_with_default(branch.default_of, data.inputs)) is not None
        ):
            left_out.append((at, branch.default_of.name))
        else:
            unexercised.append(branch.name)
    chosen.update(dict.fromkeys(_extremes(contract, data.inputs)))
    for index in evenly(len(data.inputs), GOLDEN_ROWS):
        if len(chosen) >= GOLDEN_ROWS:
            break
        chosen[index] = None
    vectors = [_vector(contract, data, answers, index) for index in sorted(chosen)]
    vectors += [_vector(contract, data, answers, index, without) for index, without in left_out]
    return Golden(tuple(vectors), tuple(unexercised))


@dataclass(frozen=True)
class _Branch:
    """Something that the contract lets a request be; ``default_of`` a field that is left out."""

    name: str
    is_shown: Callable[[Inputs], bool]
    default_of: Field | None = None


def _branches(contract: Contract) -> Iterator[_Branch]:
    for field in contract.fields:
        name = field.name
        if not field.required:
            yield _Branch(f"{name} left out", _lacks(name), field)
        if field.nullable:
            yield _Branch(f"{name} null", _holds(name, None))
        if field.type is FieldType.BOOL:
            yield from (_Branch(f"{name} = {each}", _holds(name, each)) for each in (False, True))
        for each in (field.allowed or ())[:ALLOWED_SHOWN]:
            yield _Branch(f"{name} = {each}", _holds(name, each))
        for word, limit in (("minimum", field.minimum), ("maximum", field.maximum)):
            if limit is not None:
                yield _Branch(f"{name} = {limit} ({word})", _holds(name, limit))
    if contract.horizon is not None:
        name = contract.horizon.field
        for day in (contract.horizon.first, contract.horizon.last):
            yield _Branch(f"{name} = {day}", _holds(name, day.isoformat()))


def _lacks(name: str) -> Callable[[Inputs], bool]:
    return lambda inputs: name not in inputs


def _holds(name: str, value: object) -> Callable[[Inputs], bool]:
    return lambda inputs: name in inputs and inputs[name] == value


def _row_with_default(field: Field, inputs: Sequence[Inputs]) -> int | None:
    """Where the field is what it would be if it were left out: its default, or else null."""
    return next((i for i, each in enumerate(inputs) if each.get(field.name) == field.default), None)


def _extremes(contract: Contract, inputs: Sequence[Inputs]) -> Iterator[int]:
    """For each field that has an order, the rows of its least and its greatest value."""
    for field in contract.fields:
        if field.type not in (FieldType.STRING, FieldType.BOOL):
            held = [i for i, each in enumerate(inputs) if each.get(field.name) is not None]
            if held:
                values = [inputs[i][field.name] for i in held]
                yield held[values.index(min(values))]
                yield held[values.index(max(values))]


def evenly(count: int, most: int) -> list[int]:
    """At most ``most`` places of ``count``, evenly apart, the first and the last among them."""
    return sorted({round(at) for at in np.linspace(0, count - 1, min(count, most)).tolist()})


def _vector(
    contract: Contract,
    data: GoldenData,
    answers: Sequence[OutputRow],
    index: int,
    without: str | None = None,
) -> GoldenVector:
    inputs = {name: value for name, value in data.inputs[index].items() if name != without}
    outputs: dict[str, float | int | bool] = {}
    for output in contract.outputs:
        if data.expected is None or output.type is FieldType.BOOL:
            outputs[output.name] = getattr(answers[index], output.name)
        else:
            outputs[output.name] = float(data.expected[output.name][index])
    return GoldenVector(inputs=msgspec.Raw(msgspec.json.encode(inputs)), outputs=outputs)
