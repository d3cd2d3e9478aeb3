"""Cells: what may stand in a column, by what the column is for.

Each column of a source becomes two: its typed values, and the text of the cells that no type fits.
The SQL here makes them, and the rules here, pandera checks with a sentence each, judge them. A cell
that is empty has no value and no text; one that cannot be read has text, and a value that stands in
for it, so that exactly one rule speaks.

Only one reading of a cell is ever tried: dates are ``2017-08-16``, numbers have a decimal point, no
word stands for a missing value. A guess that is right for one file is silently wrong for the next.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from typing import Any

import pandas as pd
import pandera.pandas as pa

from trainer.panel import MAX_KEY_LENGTH, number_of

FIRST_DATE, LAST_DATE = date(1900, 1, 1), date(2199, 12, 31)
"""Beyond these a date is a mistake, or a mark such as 9999-12-31 for 'never'."""

MAX_UNITS = 1e12
"""Nothing sells more in a day. Above 3.4e38 a number would not fit into the arrays."""

_WHOLE_TYPES = {
    f"{sign}{size}INT" for sign in ("", "U") for size in ("TINY", "SMALL", "", "BIG", "HUGE")
} | {"INTEGER", "UINTEGER"}  # fmt: skip
_NUMBER_TYPES = {*_WHOLE_TYPES, "FLOAT", "DOUBLE", "DECIMAL"}
_DATE_TYPES = {"DATE", "TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS", "VARCHAR"}
_TEXT_TYPES = {*_NUMBER_TYPES, "VARCHAR", "BOOLEAN"}

TRUE_TEXTS = ("1", "true", "t", "yes")
"""What says yes in a column of labels, in small letters."""

UNTYPED = "untyped"
"""The type of a column in a CSV file: text that may stand for anything."""

_IS_DATE = r"\d{4}-\d{2}-\d{2}([ T]00:00(:00(\.0+)?)?)?"
_IS_NUMBER = r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?"
_WITH_ZONE = r"^\d{4}-\d{2}-\d{2}[ T]\d{2}:\d{2}.*(?:Z|[+-]\d{2}(?::?\d{2})?)$"
_WITH_TIME = r"^\d{4}-\d{2}-\d{2}[ T]\d{2}:\d{2}[:.\d]*$"


Keeps = Callable[["pd.Series[Any]"], "pd.Series[bool]"]
"""Which cells of a column keep a rule."""


class Purpose(StrEnum):
    """What a column is for."""

    DATE = "date"
    UNITS = "units"
    RETURNED_UNITS = "units or returns"
    KEY = "key"
    NUMBER = "number"
    LABEL = "label"


@dataclass(frozen=True)
class Column:
    """A column of a source: its name there, its purpose, and the key of the dataset that names it."""

    name: str
    purpose: Purpose
    setting: tuple[str, ...]


@dataclass(frozen=True)
class Rule:
    """What a cell must not be: ``said`` ends the sentence that begins with the cell, ``hint`` helps.

    ``keeps`` is given the values, or the texts where ``of_text``, and says which are as they should.
    """

    said: str
    hint: str
    keeps: Keeps
    of_text: bool = False


def _no_text(series: "pd.Series[Any]") -> "pd.Series[bool]":
    return series.isna()


def _between(low: float, high: float) -> Keeps:
    return lambda series: series.isna() | series.between(low, high)


def _unless(pattern: str) -> Keeps:
    return lambda series: ~series.str.contains(pattern, regex=True, na=False)


def _neither(*patterns: str) -> Keeps:
    return lambda series: series.isna() | series.str.contains("|".join(patterns), na=False)


def _of_texts(keeps: Keeps) -> Keeps:
    """A rule for text in a column that may hold whole numbers as well."""
    return lambda series: (
        keeps(series)
        if pd.api.types.is_string_dtype(series.dtype)
        else pd.Series(True, index=series.index)
    )


MISSING = Rule("is missing", "fill it or drop the row", lambda series: series.notna())
_NUMERIC = Rule(
    "is not a number", "write numbers as 1234.5, and nothing where there is none", _no_text, True
)
_RULES: dict[Purpose, tuple[Rule, ...]] = {
    Purpose.DATE: (
        MISSING,
        Rule("has a time zone", "write plain dates, days of the shop", _unless(_WITH_ZONE), True),
        Rule("has a time of day", "write plain dates", _unless(_WITH_TIME), True),
        Rule("is not a date", "write dates as 2017-08-16", _neither(_WITH_ZONE, _WITH_TIME), True),
        Rule(
            f"lies outside {FIRST_DATE.year} … {LAST_DATE.year}",
            "mend the date or drop the row",
            _between(number_of(FIRST_DATE), number_of(LAST_DATE)),
        ),
    ),
    Purpose.UNITS: (
        MISSING,
        _NUMERIC,
        Rule(
            "is negative",
            'drop the row, or say `negatives = "zero"` where it is a return',
            lambda series: ~(series < 0),
        ),
        Rule(f"is more than {MAX_UNITS:.0e}", "mend it", lambda series: ~(series > MAX_UNITS)),
    ),
    Purpose.KEY: (
        MISSING,
        Rule("is no whole number of 64 bits", "write the key as text", _no_text, True),
        Rule(
            f"is longer than {MAX_KEY_LENGTH} characters",
            "shorten it",
            _of_texts(lambda series: ~(series.str.len() > MAX_KEY_LENGTH)),
        ),
        Rule(
            "holds a NUL character",
            "take it out: it is invisible, and most systems cut text off at it",
            _of_texts(lambda series: ~series.str.contains("\0", regex=False, na=False)),
        ),
    ),
    Purpose.NUMBER: (
        _NUMERIC,
        Rule(
            f"is more than {MAX_UNITS:.0e}", "mend it", lambda series: ~(series.abs() > MAX_UNITS)
        ),
    ),
    Purpose.LABEL: (),
}
_RULES[Purpose.RETURNED_UNITS] = tuple(
    rule for rule in _RULES[Purpose.UNITS] if rule.said != "is negative"
)


def rules_of(purpose: Purpose) -> tuple[Rule, ...]:
    """The rules for the cells of a column, in the order in which they are tried."""
    return _RULES[purpose]


def schema_of(columns: tuple[Column, ...]) -> pa.DataFrameSchema:
    """The rules for a chunk of rows with columns ``v0, t0, v1, t1, …`` (values and texts)."""
    parts = {}
    for position, column in enumerate(columns):
        for prefix, of_text in (("v", False), ("t", True)):
            checks = [
                pa.Check(rule.keeps, error=rule.said, ignore_na=False)
                for rule in rules_of(column.purpose)
                if rule.of_text == of_text
            ]
            if checks:
                parts[f"{prefix}{position}"] = pa.Column(nullable=True, checks=checks)
    return pa.DataFrameSchema(parts)


def type_problem(purpose: Purpose, found: str) -> tuple[str, str]:
    """What is wrong with a column's type, and what to do; empty where it is usable."""
    kind = found.partition("(")[0]
    if kind == UNTYPED:
        return "", ""
    if kind == "ENUM":
        kind = "VARCHAR"
    match purpose:
        case Purpose.DATE if kind == "TIMESTAMP WITH TIME ZONE":
            return "has a time zone", "write plain dates, days of the shop"
        case Purpose.DATE:
            return ("", "") if kind in _DATE_TYPES else (f"is {found}, not a date", "write dates")
        case Purpose.UNITS | Purpose.RETURNED_UNITS:
            usable, wanted = kind in _NUMBER_TYPES, "a number"
        case Purpose.NUMBER:
            usable, wanted = kind in _NUMBER_TYPES or kind == "BOOLEAN", "a number"
        case Purpose.KEY:
            usable, wanted = kind in _WHOLE_TYPES or kind == "VARCHAR", "text or a whole number"
        case Purpose.LABEL:
            usable, wanted = kind in _TEXT_TYPES, "text or a number"
    return ("", "") if usable else (f"is {found}, not {wanted}", f"write it as {wanted}")


def quoted(name: str) -> str:
    """A name as SQL writes it."""
    return '"' + name.replace('"', '""') + '"'


def typed_sql(column: Column, found: str) -> tuple[str, str, str]:
    """SQL type, and SQL of the values and of the texts, of a column whose type is ``found``."""
    cell, is_text = quoted(column.name), found.startswith((UNTYPED, "VARCHAR", "ENUM"))
    match column.purpose:
        case Purpose.DATE:
            kind, instead = "INTEGER", "0"
            if is_text:
                day = (
                    f"CASE WHEN regexp_full_match(trim({cell}), '{_IS_DATE}')"
                    f" THEN TRY_CAST(left(trim({cell}), 10) AS DATE) END"
                )
            else:
                day = (
                    f"CASE WHEN isfinite({cell}) AND {cell} = date_trunc('day', {cell})"
                    f" THEN {cell}::DATE END"
                )
            value = f"({day} - DATE '1970-01-01')::INTEGER"
        case Purpose.UNITS | Purpose.RETURNED_UNITS | Purpose.NUMBER:
            kind, instead = "DOUBLE", "0"
            if is_text:
                number = (
                    f"CASE WHEN regexp_full_match(trim({cell}), '{_IS_NUMBER}')"
                    f" THEN TRY_CAST(trim({cell}) AS DOUBLE) END"
                )
                if column.purpose == Purpose.NUMBER:
                    number = (
                        f"CASE lower(trim({cell})) WHEN 'true' THEN 1.0 WHEN 'false' THEN 0.0"
                        f" ELSE {number} END"
                    )
            else:
                number = f"{cell}::DOUBLE"
            value = f"CASE WHEN isfinite({number}) THEN {number} END"
        case Purpose.KEY if not is_text:
            kind, instead, value = "BIGINT", "0", f"TRY_CAST({cell} AS BIGINT)"
        case _:
            return "VARCHAR", f"{cell}::VARCHAR", "NULL::VARCHAR"
    present = f"{cell} IS NOT NULL" + (f" AND trim({cell}) <> ''" if is_text else "")
    return (
        kind,
        f"CASE WHEN {present} THEN coalesce({value}, {instead}) END",
        f"CASE WHEN {present} AND ({value}) IS NULL THEN left({cell}::VARCHAR, 80) END",
    )


def is_number_like(values: list[str]) -> bool:
    """Whether every text is a whole number as one writes it, without zeros in front."""
    return bool(pd.Series(values).str.fullmatch(r"0|-?[1-9]\d{0,17}").all())
