"""Side tables: attributes of a key's values, and traffic, matched to the panel's vocabularies.

Rules:

1. Values of a key match as text: 5 in a Parquet file is 5 in a CSV file. Rows for values that no
   known series has are passed over; a value without a row has an unknown attribute, and no traffic.
2. Two rows that say the same are one. Two rows that contradict each other are refused.
"""

import numpy as np

from schemas.errors import ModelwireError
from trainer.cells import TRUE_TEXTS, Column, Purpose
from trainer.dataset import Attributes, TrafficTable
from trainer.keys import Floats, Keys
from trainer.panel import Attribute, Traffic, day_of
from trainer.sources import Files
from trainer.tables import Table, Tables

MAX_TRAFFIC_DAYS = 11_000
"""Thirty years: a table that is longer has a mistaken date."""


def positions_of(keys: Keys, key: str) -> dict[str, int]:
    """The code of each value, as text, of a key."""
    return {str(value): code for code, value in enumerate(keys.vocabulary[keys.names.index(key)])}


def inline_attribute(config: Attributes, keys: Keys) -> Attribute:
    """The attribute whose values stand in the dataset itself."""
    assert config.values is not None
    otherwise = None if config.otherwise is None else _text(config.otherwise)
    said = {value: _text(given) for value, given in config.values.items()}
    found = [said.get(value, otherwise) for value in positions_of(keys, config.key)]
    return _attribute(config.columns[0], config.key, found)


def read_attributes(
    tables: Tables, position: int, config: Attributes, files: Files, keys: Keys
) -> list[Attribute]:
    """The attributes in the side table at ``position`` of the dataset."""
    setting = ("attributes", str(position))
    table = tables.load(
        f"attributes{position}",
        files,
        (
            Column(config.key, Purpose.KEY, (*setting, "key")),
            *(Column(name, Purpose.LABEL, (*setting, "columns")) for name in config.columns),
        ),
    )
    codes = positions_of(keys, config.key)
    _refuse_contradictions(tables, table, 1)
    labels = ", ".join(f"nullif(trim(v{i + 1}), '')" for i in range(len(config.columns)))
    rows = tables.rows(f"SELECT v0::VARCHAR, {labels} FROM {table.name}")
    said = {row[0]: row[1:] for row in rows}
    nothing = (None,) * len(config.columns)
    return [
        _attribute(name, config.key, [said.get(value, nothing)[column] for value in codes])
        for column, name in enumerate(config.columns)
    ]


def read_traffic(
    tables: Tables, config: TrafficTable, files: Files, keys: Keys, cutoff_day: int
) -> tuple[Traffic | None, str]:
    """The traffic up to the cutoff, None where none lies there, and a note or an empty text."""
    table = tables.load(
        "traffic",
        files,
        (
            Column(config.key, Purpose.KEY, ("traffic", "key")),
            Column(config.date, Purpose.DATE, ("traffic", "date")),
            Column(config.value, Purpose.NUMBER, ("traffic", "value")),
        ),
    )
    _refuse_contradictions(tables, table, 2)
    negative = tables.rows("SELECT rowid, v2 FROM traffic WHERE v2 < 0 ORDER BY rowid LIMIT 1")
    for row, value in negative:
        raise ModelwireError(
            f"{table.place(row)}, column {config.value!r} is negative: {value:g}",
            hint="mend it, or drop the row: no traffic is 0",
        )
    codes = positions_of(keys, config.key)
    rows = [
        (codes[value], day, number)
        for value, day, number in tables.rows(
            f"SELECT DISTINCT v0::VARCHAR, v1, v2 FROM {table.name}"
            f" WHERE v1 <= {cutoff_day} AND v2 IS NOT NULL ORDER BY ALL"
        )
        if value in codes
    ]
    if not rows:
        return None, f"{table.shown} has no traffic of a known {config.key} up to the cutoff"
    code, day, number = (np.asarray(column) for column in zip(*rows, strict=True))
    first = int(day.min())
    if cutoff_day - first >= MAX_TRAFFIC_DAYS:
        raise ModelwireError(
            f"{table.shown} begins on {day_of(first)}, {cutoff_day - first:,} days before the "
            f"cutoff {day_of(cutoff_day)}; {MAX_TRAFFIC_DAYS:,} are the most that are read",
            hint="mend the date, or drop the rows from before",
        )
    values = np.full((len(codes), cutoff_day - first + 1), np.nan, dtype=np.float32)
    values[code, day - first] = number
    without = [value for value, position in codes.items() if position not in set(code.tolist())]
    note = f"{table.shown} has no traffic of {config.key} {_listed(without)}" if without else ""
    return Traffic(config.value, config.key, first, values), note


def weights_of(factors: dict[str, float], keys: Keys, attributes: list[Attribute]) -> Floats:
    """The factor of each series: that of every attribute of it that is 1 or true."""
    weights = np.ones(keys.series)
    for attribute in attributes:
        if attribute.name in factors:
            is_true = [value.lower() in TRUE_TEXTS for value in attribute.values]
            # The code -1, unknown, is the last of these.
            of_value = np.asarray([*is_true, False])[attribute.codes]
            of_series = of_value[keys.codes[keys.names.index(attribute.key)]]
            weights[of_series] *= factors[attribute.name]
    return weights


def _refuse_contradictions(tables: Tables, table: Table, keyed_by: int) -> None:
    """Raises ModelwireError where two rows with the same first columns differ in the others."""
    by = ", ".join(f"v{i}" for i in range(keyed_by))
    others = ", ".join(f"v{i}" for i in range(keyed_by, len(table.columns)))
    found = tables.rows(
        f"SELECT min(rowid), min(other), {by} FROM (SELECT rowid, {by}, CASE WHEN row({others})"
        f" IS DISTINCT FROM first(row({others})) OVER (PARTITION BY {by} ORDER BY rowid)"
        f" THEN rowid END AS other FROM {table.name})"
        f" GROUP BY {by} HAVING min(other) IS NOT NULL ORDER BY 2 LIMIT 1"
    )
    if not found:
        return
    first, second, *values = found[0]
    names = [column.name for column in table.columns]
    shown = ", ".join(
        f"{column.name} {str(day_of(value)) if column.purpose == Purpose.DATE else repr(value)}"
        for column, value in zip(table.columns, values, strict=False)
    )
    raise ModelwireError(
        f"{table.place(second)} contradicts {table.place(first)}: both are for {shown}, and "
        f"{' or '.join(names[keyed_by:])} differs",
        hint="drop one of the rows",
    )


def _attribute(name: str, key: str, found: list[str | None]) -> Attribute:
    values = tuple(sorted({value for value in found if value is not None}))
    codes = [-1 if value is None else values.index(value) for value in found]
    return Attribute(name, key, values, np.asarray(codes, dtype=np.int64))


def _text(value: str | int | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _listed(values: list[str]) -> str:
    shown = ", ".join(values[:5])
    return f"{shown} and {len(values) - 5} more" if len(values) > 5 else shown
