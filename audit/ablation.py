"""Local explanation by ablation: what each raw field does to one answer.

1. A field's effect is the answer as it was given, less the answer with that field at its typical value,
   through the same graph: decode, gather, pad, run, as any request.
2. Typical is the lower median of what has an order (numbers, days) and the commonest of what has none,
   over rows that the bundle holds; null where most rows have none. It is a value that was there.
3. Effects are of one field at a time. They do not add up where fields act together; so the answer with
   all fields typical is given too.
4. A value that the contract does not take at this place (a day beyond the horizon) has no effect that
   could be told, and the reason is kept.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from schemas.contract import Contract, Field, FieldType
from schemas.rejection import Rejected
from scoring.runs import Outcome, run_rows
from scoring.snapshot import LoadedVersion

Columns = Mapping[str, Sequence[Any]]
"""Field -> its values in many requests, as JSON has them (days are ISO text); None where none is."""

Outputs = dict[str, float | int | bool]

_ORDERED = (FieldType.INT64, FieldType.FLOAT32, FieldType.FLOAT64, FieldType.DATE)


class Effect(msgspec.Struct, frozen=True, kw_only=True):
    """One field's. ``outputs`` are those with the typical value, ``effects`` given less those.

    Both are None where ``note`` says why they are not known.
    """

    field: str
    value: Any
    typical: Any
    unit: str = ""
    outputs: Outputs | None = None
    effects: dict[str, float] | None = None
    note: str = ""


class Ablation(msgspec.Struct, frozen=True, kw_only=True):
    """The effects, the largest on the first output first.

    ``outputs`` are what the graph gives here for the request as it was, ``typical`` with every field
    typical, None where the model does not answer that. ``rows`` were looked at for what is typical, in
    the bundle's file ``source``.
    """

    outputs: Outputs
    typical: Outputs | None
    fields: tuple[Effect, ...]
    source: str
    rows: int


class CannotExplain(Exception):
    """The version does not answer the request here; the sentence says why."""


def typical_values(contract: Contract, columns: Columns) -> dict[str, Any]:
    """Field -> its typical value (rule 2); a field without a column is left out."""
    return {
        field.name: _typical(field, columns[field.name])
        for field in contract.fields
        if field.name in columns and len(columns[field.name])
    }


def _typical(field: Field, values: Sequence[Any]) -> Any:
    there = [value for value in values if value is not None]
    if 2 * len(there) < len(values):
        return None
    if field.type in _ORDERED:
        return sorted(there)[(len(there) - 1) // 2]
    counts = Counter(there)
    most = max(counts.values())
    return min(value for value, count in counts.items() if count == most)


def ablate(
    version: LoadedVersion, inputs: bytes, typical: Mapping[str, Any], source: str, rows: int
) -> Ablation:
    """The effects of the fields in ``inputs``, the raw JSON of a request that was answered.

    Raises CannotExplain where the version does not answer it here.
    """
    given = msgspec.json.decode(inputs)
    fields = [field for field in version.contract.fields if field.name in typical]
    varied = [msgspec.json.encode(_with(given, {f.name: typical[f.name]}, [f])) for f in fields]
    everything = msgspec.json.encode(_with(given, typical, fields))
    first, *outcomes, last = _scored(version, [inputs, *varied, everything])
    if isinstance(first, Rejected):
        raise CannotExplain(first.detail)
    outputs = msgspec.structs.asdict(first)
    effects = [
        _effect(field, given.get(field.name), typical[field.name], outputs, outcome)
        for field, outcome in zip(fields, outcomes, strict=True)
    ]
    main = version.contract.outputs[0].name
    effects.sort(key=lambda each: -abs((each.effects or {}).get(main, 0.0)))
    return Ablation(
        outputs=outputs,
        typical=None if isinstance(last, Rejected) else msgspec.structs.asdict(last),
        fields=tuple(effects),
        source=source,
        rows=rows,
    )


def _with(
    given: Mapping[str, Any], typical: Mapping[str, Any], fields: Sequence[Field]
) -> dict[str, Any]:
    """The inputs with these fields at their typical values; null is left out where it may not be sent."""
    inputs = dict(given)
    for field in fields:
        value = typical[field.name]
        if value is None and not field.nullable:
            inputs.pop(field.name, None)
        else:
            inputs[field.name] = value
    return inputs


def _scored(version: LoadedVersion, requests: Sequence[bytes]) -> list[Outcome]:
    outcomes: list[Outcome | None] = []
    rows = []
    for raw in requests:
        try:
            rows.append(version.decode(raw))
            outcomes.append(None)
        except Rejected as rejected:
            outcomes.append(rejected)
    scored = iter(run_rows(version, rows) if rows else ())
    return [next(scored) if outcome is None else outcome for outcome in outcomes]


def _effect(field: Field, value: Any, typical: Any, given: Outputs, outcome: Outcome) -> Effect:
    if isinstance(outcome, Rejected):
        return Effect(
            field=field.name, value=value, typical=typical, unit=field.unit, note=outcome.detail
        )
    outputs = msgspec.structs.asdict(outcome)
    effects = {name: float(given[name]) - float(outputs[name]) for name in given}
    return Effect(
        field=field.name,
        value=value,
        typical=typical,
        unit=field.unit,
        outputs=outputs,
        effects=effects,
    )
