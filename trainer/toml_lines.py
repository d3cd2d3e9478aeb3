"""Lines of TOML: where in a file a key stands, for messages about what is wrong with it.

A parser of TOML gives values without their places, so the text is looked at once more, line by line. A
value over several lines is told by the line on which it begins.
"""

import re
import tomllib
from pathlib import Path
from typing import Any

from schemas.errors import UsageProblem

Key = tuple[str, ...]
"""The parts of a key. Tables of an array count: the first ``[[attributes]]`` is ``attributes, 0``."""

_HEADER = re.compile(r"\s*(\[\[?)([^\[\]]+)\]")
_SETTING = re.compile(r"""\s*((?:[\w.-]|"[^"]*"|'[^']*')+)\s*=""")


def line_of(text: str, key: Key) -> int:
    """The 1-based line that sets ``key``, else that of the nearest table or setting around it, else 1."""
    table: Key = ()
    seen: dict[Key, int] = {}
    best, depth = 1, 0
    for number, line in enumerate(text.splitlines(), start=1):
        header, setting = _HEADER.match(line), _SETTING.match(line)
        if header:
            table = _key(f"[{header[2]}]")
            if header[1] == "[[":
                seen[table] = seen.get(table, -1) + 1
                table = (*table, str(seen[table]))
            place = table
        elif setting:
            place = (*table, *_key(f"{setting[1]} = 0"))
        else:
            continue
        if place == key[: len(place)] and len(place) > depth:
            best, depth = number, len(place)
    return best


def parse_toml(path: Path, text: str, hint: str) -> dict[str, Any]:
    """What the text says. Raises UsageProblem with its line where it is no TOML; ``path`` names it."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        what, line = _syntax_problem(str(error), text)
        raise UsageProblem(f"{path}:{line}: not valid TOML: {what}", hint=hint) from error


def _syntax_problem(message: str, text: str) -> tuple[str, int]:
    """What tomllib found and in which line; it gives the place only inside its message."""
    found = re.search(r" \(at line (\d+), column \d+\)$", message)
    if found:
        return message[: found.start()], int(found[1])
    return message.removesuffix(" (at end of document)"), text.count("\n") + 1


def _key(line: str) -> Key:
    """The key of a line of TOML that has but one; nothing where it is none."""
    try:
        tree: object = tomllib.loads(line)
    except tomllib.TOMLDecodeError:
        return ()
    found: list[str] = []
    while isinstance(tree, dict) and tree:
        name, tree = next(iter(tree.items()))
        found.append(name)
    return tuple(found)
