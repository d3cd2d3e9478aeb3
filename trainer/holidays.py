"""Holidays: which days are holidays for which value of which key, from a side table.

Rules:

1. A row counts when its type is one of the dataset's ``types`` and it was not transferred to another
   day (``transferred`` is 1 or true). Events and made-up working days are no holidays.
2. A row whose locale is ``everywhere`` holds for all. Another locale must be one that ``match`` ties
   to an attribute or a key; the row then holds for each value of that key whose attribute is the
   row's ``locale_name``. A name that nobody has touches nobody, and is noted.
3. Days long before the panel are kept, for traffic that begins there. Days more than a year after the
   last that can be asked for are left out.
"""

from typing import Any

import numpy as np

from schemas.errors import ModelwireError
from trainer.cells import FIRST_DATE, TRUE_TEXTS, Column, Purpose
from trainer.dataset import HolidayTable
from trainer.keys import Keys
from trainer.panel import Attribute, Holidays, number_of
from trainer.side_tables import positions_of
from trainer.sources import Files
from trainer.tables import Table, Tables

_DAYS_BEYOND = 366
"""How far after the last day of the horizon the table reaches, for the distance to a holiday."""


def read_holidays(
    tables: Tables,
    config: HolidayTable,
    files: Files,
    keys: Keys,
    attributes: tuple[Attribute, ...],
    first_day: int,
    last_day: int,
) -> tuple[Holidays, str]:
    """The holidays around ``first_day`` … ``last_day``, and a note or an empty text.

    ``first_day`` is the first of the panel or of its traffic, ``last_day`` the last of the horizon.
    """
    table, columns = _load(tables, config, files)
    # Rows from before the first day are as good as absent, but for the distance to a holiday.
    first = max(first_day - _DAYS_BEYOND, number_of(FIRST_DATE))
    last = last_day + _DAYS_BEYOND
    places = _Places(config, keys, attributes)
    everywhere = np.zeros(last - first + 1, dtype=np.bool_)
    local = np.zeros((places.count, last - first + 1), dtype=np.bool_)
    nobodys: set[str] = set()
    names = list(columns)
    rows = tables.rows(
        f"SELECT rowid, {', '.join(columns.values())} FROM {table.name} ORDER BY rowid"
    )
    for rowid, *cells in rows:
        said = dict(zip(names, cells, strict=True))
        found = places.of(said, table, int(rowid))
        if not _counts(config, said):
            continue
        if found is not None and not found:
            nobodys.add(str(said.get("locale_name")))
        if not first <= said["date"] <= last:
            continue
        if found is None:
            everywhere[said["date"] - first] = True
        else:
            local[found, said["date"] - first] = True
    note = ""
    if nobodys:
        note = f"{table.shown} has holidays of places that no {places.key} has: "
        note += ", ".join(sorted(nobodys))
    return Holidays(first, everywhere, places.key, local), note


def _load(tables: Tables, config: HolidayTable, files: Files) -> tuple[Table, dict[str, str]]:
    """The table, and SQL of each of its columns that the dataset names, by the dataset's key."""
    wanted = {
        setting: name
        for setting in ("date", "type", "locale", "locale_name", "transferred")
        if (name := getattr(config, setting))
    }
    table = tables.load(
        "holidays",
        files,
        tuple(
            Column(name, Purpose.DATE if key == "date" else Purpose.LABEL, ("holidays", key))
            for key, name in wanted.items()
        ),
    )
    return table, {
        key: f"v{position}" if key == "date" else f"coalesce(trim(v{position}), '')"
        for position, key in enumerate(wanted)
    }


def _counts(config: HolidayTable, said: dict[str, Any]) -> bool:
    is_holiday = not config.type or said["type"] in config.types
    return is_holiday and said.get("transferred", "").lower() not in TRUE_TEXTS


class _Places:
    """Which values of which key a row of the table is for."""

    def __init__(self, config: HolidayTable, keys: Keys, attributes: tuple[Attribute, ...]) -> None:
        self._config = config
        self._codes: dict[str, dict[str, list[int]]] = {}
        self.key = ""
        self.count = 0
        for locale, name in config.match.items():
            attribute = next((each for each in attributes if each.name == name), None)
            self.key = attribute.key if attribute else name
            positions = positions_of(keys, self.key)
            self.count = len(positions)
            if attribute:
                self._codes[locale] = {
                    value: np.flatnonzero(attribute.codes == code).tolist()
                    for code, value in enumerate(attribute.values)
                }
            else:
                self._codes[locale] = {value: [code] for value, code in positions.items()}

    def of(self, said: dict[str, Any], table: Table, row: int) -> list[int] | None:
        """The codes of a row's values, or None where it is for all. Raises for an unknown locale."""
        locale = said.get("locale", self._config.everywhere)
        if locale == self._config.everywhere:
            return None
        if locale not in self._codes:
            known = ", ".join([self._config.everywhere, *self._codes])
            raise ModelwireError(
                f"{table.place(row)}, column {self._config.locale!r} is no locale of the dataset "
                f"({known}): {locale!r}",
                hint="tie it to an attribute with `match`, or mend the cell",
            )
        return self._codes[locale].get(said.get("locale_name", ""), [])
