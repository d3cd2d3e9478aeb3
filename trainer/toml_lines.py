"""Lines of TOML: where in a file a key stands, for messages about what is wrong with it.

A parser of TOML gives values without their places, so the text is looked at once more, line by line. A
value over several lines is told by the line on which it begins.
"""

import re
import tomllib

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


def syntax_problem(error: tomllib.TOMLDecodeError, text: str) -> tuple[str, int]:
    """What tomllib found and in which line; it gives the place only inside its message."""
    message = str(error)
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
