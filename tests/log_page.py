"""``docs/logs.md`` as data, for the tests that compare it with the code and with what is written."""

import re
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).parent.parent / "docs" / "logs.md"
_EVENT = re.compile(r"\| `([a-z_]+\.[a-z_]+)` \| ([a-z, ]+) \| ([^|]*) \| ")


@dataclass(frozen=True)
class Documented:
    """An event of the page. ``*_seconds`` among its fields stands for every name that ends so."""

    levels: frozenset[str]
    fields: frozenset[str]

    def undocumented(self, fields: set[str]) -> set[str]:
        """Those of ``fields`` that the page does not name."""
        is_open = "*_seconds" in self.fields
        return {
            field for field in fields - self.fields if not (is_open and field.endswith("_seconds"))
        }


def documented_events() -> dict[str, Documented]:
    """The events that the page lists."""
    return {
        event: Documented(
            frozenset(levels.split(", ")), frozenset(re.findall(r"`([a-z_0-9*]+)`", fields))
        )
        for event, levels, fields in _EVENT.findall(PAGE.read_text())
    }
