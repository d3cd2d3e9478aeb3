"""Stray settings: settings of a dataset that were written after a table, and so belong to that table.

TOML has no sign for the end of a table: ``horizon = 14`` below ``[holidays]`` is ``holidays.horizon``. In
a table with names of its own a setting's name is out of place. In a table whose names are columns, such
as ``[keys]``, it may well be a column; there it has strayed where its value is none of that table's, is
one of the setting's own words, or where the dataset lacks the setting and cannot be without it.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from trainer.toml_lines import Key

TEXTS, NUMBERS = (str,), (int, float)
FREE_TABLES: dict[Key, tuple[type, ...]] = {
    ("keys",): TEXTS,
    ("covariates",): TEXTS,
    ("references",): TEXTS,
    ("weights",): NUMBERS,
    ("holidays", "match"): TEXTS,
}
"""Tables whose names are columns, attributes or locales, and the type of their values."""


@dataclass(frozen=True)
class Settings:
    """The settings that stand before the first table: all, those without a default, words of some."""

    names: Collection[str]
    required: Collection[str]
    words: Mapping[str, Collection[str]]


@dataclass(frozen=True)
class Stray:
    """A setting inside of a table, which is named as its header is."""

    key: Key
    header: str

    @property
    def said(self) -> str:
        """What is wrong, without the place."""
        return (
            f"`{self.key[-1]}` stands under {self.header}; settings of the whole dataset come before "
            "the first table"
        )


def stray_settings(
    tree: Mapping[str, Any], settings: Settings, own: Mapping[str, Collection[str]]
) -> list[Stray]:
    """The stray settings of a dataset's TOML tree; ``own`` are the names of each table that has some."""
    found = []
    for key, header, table in _tables(tree, own):
        for name, value in table.items():
            if name not in settings.names:
                continue
            if key in FREE_TABLES:
                is_stray = (
                    not isinstance(value, FREE_TABLES[key])
                    or (name in settings.required and name not in tree)
                    or (isinstance(value, str) and value in settings.words.get(name, ()))
                )
            else:
                is_stray = name not in own[key[0]]
            if is_stray:
                found.append(Stray((*key, name), header))
    return found


def without(tree: Mapping[str, Any], strays: list[Stray]) -> dict[str, Any]:
    """The tree with each stray where it belongs, so that what else is wrong can be told beside it."""
    moved: dict[str, Any] = _copied(tree)
    for stray in strays:
        table: Any = moved
        for part in stray.key[:-1]:
            table = table[int(part) if isinstance(table, list) else part]
        moved.setdefault(stray.key[-1], table.pop(stray.key[-1]))
    return moved


def _tables(
    tree: Mapping[str, Any], own: Mapping[str, Collection[str]]
) -> Iterator[tuple[Key, str, Mapping[str, Any]]]:
    """Each table that may hold strays, with its key and its header."""
    for name in own:
        value = tree.get(name)
        if isinstance(value, list):
            for position, each in enumerate(value):
                if isinstance(each, dict):
                    yield (name, str(position)), f"[[{name}]]", each
        elif isinstance(value, dict):
            yield (name,), f"[{name}]", value
    for key in FREE_TABLES:
        table: Any = tree
        for part in key:
            table = table.get(part) if isinstance(table, dict) else None
        if isinstance(table, dict):
            yield key, f"[{'.'.join(key)}]", table


def _copied(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _copied(each) for name, each in value.items()}
    return [_copied(each) for each in value] if isinstance(value, list) else value
