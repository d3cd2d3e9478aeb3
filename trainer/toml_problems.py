"""What is wrong with the values in a TOML file, in words: what was found, where, and what it must be.

pydantic judges; this says it. No phrase of pydantic's reaches a reader: a kind of problem that is not
listed here is told as a value that cannot be used.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import date
from pathlib import Path
from typing import Any

from pydantic_core import ErrorDetails

from schemas.errors import UsageProblem
from trainer.toml_lines import Key

NAME_RULE = "is of a-z, A-Z, 0-9 and _, begins with a letter, and has at most 64 characters"
"""``schemas.contract.NAME_PATTERN`` in words."""

_MODEL = "a name of a-z, 0-9 and -, of at most 63 characters, that begins with a letter"
_TEXT, _WHOLE, _NUMBER, _BOOL = "text in quotes", "a whole number", "a number", "true or false"
_LIST, _TABLE, _DATE = "a list, such as [1, 2]", "a table", "a date, such as 2017-08-16"

_WANTED: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "string_type": lambda _: _TEXT,
    "string_too_short": lambda _: "text that is not empty",
    "string_pattern_mismatch": lambda _: _MODEL,
    "int_type": lambda _: _WHOLE,
    "int_parsing": lambda _: _WHOLE,
    "int_from_float": lambda _: _WHOLE,
    "int_parsing_size": lambda _: "a whole number of 64 bits",
    "float_type": lambda _: _NUMBER,
    "float_parsing": lambda _: _NUMBER,
    "finite_number": lambda _: "a number that is not infinite",
    "bool_type": lambda _: _BOOL,
    "bool_parsing": lambda _: _BOOL,
    "greater_than": lambda told: f"more than {told['gt']:g}",
    "greater_than_equal": lambda told: f"at least {told['ge']:g}",
    "less_than": lambda told: f"less than {told['lt']:g}",
    "less_than_equal": lambda told: f"at most {told['le']:g}",
    "enum": lambda told: str(told["expected"]).replace("'", '"'),
    "tuple_type": lambda _: _LIST,
    "list_type": lambda _: _LIST,
    "dict_type": lambda _: _TABLE,
    "model_type": lambda _: _TABLE,
    "model_attributes_type": lambda _: _TABLE,
    "too_short": lambda told: f"of {told['min_length']} or more entries",
    "too_long": lambda told: f"of {told['max_length']} entries or fewer",
    "date_type": lambda _: _DATE,
    "date_parsing": lambda _: _DATE,
    "date_from_datetime_parsing": lambda _: _DATE,
    "date_from_datetime_inexact": lambda _: _DATE,
    "datetime_type": lambda _: _DATE,
}


class AtKey(ValueError):
    """A rule that several settings break together, told at the one that is at fault."""

    def __init__(self, said: str, *key: str) -> None:
        super().__init__(said)
        self.key = key


def problems_by_key(
    tree: Mapping[str, Any], problems: Iterable[ErrorDetails]
) -> dict[Key, list[ErrorDetails]]:
    """The problems of each key of a TOML tree, in their order.

    pydantic's places go further than the file does: into the members of a union.
    """
    found: dict[Key, list[ErrorDetails]] = {}
    for problem in problems:
        place = tuple(part for part in problem["loc"] if part != "[key]")
        key = place if problem["type"] == "missing" else _in_file(tree, place)
        key = (*key, *_key_at_fault(problem))
        found.setdefault(tuple(map(str, key)), []).append(problem)
    return found


def said_of(problems: list[ErrorDetails]) -> str:
    """The end of a sentence that begins with the key; ``problems`` are all of that one key."""
    first = problems[0]
    if first["type"] == "missing":
        return "is missing"
    if first["type"] == "value_error":
        return str(first["ctx"]["error"])
    wanted = [
        _WANTED[each["type"]](each.get("ctx", {})) for each in problems if each["type"] in _WANTED
    ]
    found = f"is {shown(first['input'])}"
    if not wanted:
        return f"{found}, which cannot be used here"
    return f"{found}; it must be {' or '.join(dict.fromkeys(wanted))}"


def shown(value: object) -> str:
    """A value as TOML writes it; a large one by its kind."""
    match value:
        case bool():
            return str(value).lower()
        case str():
            return f'"{value}"' if len(value) <= 60 else f'"{value[:59]}…"'
        case date():
            return value.isoformat()
        case list() | tuple():
            return f"a list of {len(value)}" if value else "an empty list"
        case dict():
            return "a table" if value else "an empty table"
        case _:
            return str(value)


def read_toml_text(path: Path, kind: str) -> str:
    """The text of a TOML file of this ``kind``. Raises OSError, and UsageProblem for what is no UTF-8."""
    raw = path.read_bytes()
    hint = f"save it as UTF-8; {kind} is a TOML file in UTF-8"
    if is_utf16(raw):
        raise UsageProblem(f"{path} cannot be read as text: it is UTF-16", hint=hint)
    try:
        return raw.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise UsageProblem(
            f"{path} cannot be read as text: it is not UTF-8 (line {line})", hint=hint
        ) from error


def is_utf16(raw: bytes) -> bool:
    """Whether bytes are the begin of a text in UTF-16, by its mark or by the zeros of Latin letters."""
    begin = raw[:512]
    return begin[:2] in (b"\xff\xfe", b"\xfe\xff") or (
        len(begin) >= 4 and (not any(begin[1::2]) or not any(begin[0::2]))
    )


def _in_file(tree: object, place: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """As much of a place as the tree has."""
    for depth, part in enumerate(place):
        inside = (
            part in tree
            if isinstance(tree, Mapping)
            else isinstance(tree, list) and isinstance(part, int) and part < len(tree)
        )
        if not inside:
            return place[:depth]
        tree = tree[part]  # type: ignore[index]
    return place


def _key_at_fault(problem: ErrorDetails) -> tuple[str, ...]:
    error = problem.get("ctx", {}).get("error")
    return error.key if isinstance(error, AtKey) else ()
