"""The span: which days a panel has, and the cutoff between those to learn from and those held out.

Days run without gaps from the first to the last day of the source. Without a cutoff asked for, the last
``holdout`` days are held out; with one, the days after it, at most ``horizon`` of them.
"""

from dataclasses import dataclass
from datetime import date

from schemas.errors import ModelwireError, UsageProblem
from trainer.dataset import Dataset
from trainer.panel import MIN_HISTORY, day_of, number_of
from trainer.tables import Table, Tables

MAX_DAYS = 11_000
"""Thirty years: a panel that is longer has a mistaken date."""

MAX_GAP_DAYS = 366
"""More days than this without any row are a mistaken date, not a pause of the shop."""


@dataclass(frozen=True)
class Span:
    """The days of a panel: its first, its last, and the cutoff between them (day numbers)."""

    first: int
    cutoff: int
    last: int

    @property
    def days(self) -> int:
        """How many."""
        return self.last - self.first + 1


def read_span(dataset: Dataset, tables: Tables, table: Table, asked: date | None) -> Span:
    """The days of the panel in ``table``; ``asked`` is the cutoff, where one was asked for.

    Raises ModelwireError where they are too few, too many or hardly connected, UsageProblem for a cutoff
    after the last.
    """
    first = tables.number("SELECT min(v0) FROM rows")
    last = tables.number("SELECT max(v0) FROM rows")
    shown = table.shown
    if last - first >= MAX_DAYS:
        places = [_place_of_day(tables, table, day) for day in (first, last)]
        raise ModelwireError(
            f"the panel is too long: {shown} runs from {day_of(first)} "
            f"({places[0]}) to {day_of(last)} ({places[1]}), "
            f"{last - first + 1:,} days, and {MAX_DAYS:,} are the most",
            hint="mend the mistaken date, or cut old rows off",
        )
    _refuse_gap(tables, table)
    cutoff = last - dataset.holdout if asked is None else number_of(asked)
    if cutoff > last:
        raise UsageProblem(
            f"the cutoff {day_of(cutoff)} lies after the last day {day_of(last)} of {shown}",
            hint="the cutoff is the last day whose sales are known",
        )
    if cutoff - first + 1 < MIN_HISTORY:
        raise _too_few_days(dataset, shown, first, last, cutoff, asked)
    return Span(first, cutoff, min(last, cutoff + dataset.horizon))


def _too_few_days(
    dataset: Dataset, shown: str, first: int, last: int, cutoff: int, asked: date | None
) -> ModelwireError:
    """Which of panel, cutoff and holdout leaves too little to learn from."""
    days, known = last - first + 1, max(cutoff - first + 1, 0)
    has = f"{shown} has {days:,} days ({day_of(first)} … {day_of(last)})"
    need = f"a training needs {MIN_HISTORY} days up to its cutoff"
    if days < MIN_HISTORY:
        return ModelwireError(
            f"the panel is too short: {has}, and {need}", hint="add earlier or later days"
        )
    earliest = day_of(first + MIN_HISTORY - 1)
    if asked is not None:
        return ModelwireError(
            f"the cutoff {asked} is too early: {has}, {known} of them up to the cutoff, and {need}",
            hint=f"name {earliest} or a later day",
        )
    held = dataset.holdout
    most = days - MIN_HISTORY
    return ModelwireError(
        f"the holdout is too long for the panel: {has}, {held} of them are held out and {known} "
        f"left, and {need}",
        hint="add days"
        + (f", or say `holdout = {most}` or less" if most else "")
        + f" (it is the horizon, {dataset.horizon}, by default), or name a --cutoff from "
        f"{earliest} on",
    )


def _refuse_gap(tables: Tables, table: Table) -> None:
    gaps = tables.rows(
        "SELECT day, next FROM (SELECT day, lead(day) OVER (ORDER BY day) AS next FROM"
        " (SELECT DISTINCT v0 AS day FROM rows))"
        f" WHERE next - day > {MAX_GAP_DAYS} ORDER BY day LIMIT 1"
    )
    for before, after in gaps:
        places = [_place_of_day(tables, table, day) for day in (before, after)]
        raise ModelwireError(
            f"the panel has a gap: {table.shown} has no row between {day_of(before)} "
            f"({places[0]}) and {day_of(after)} ({places[1]})",
            hint="mend the mistaken date, or cut the rows before the gap off",
        )


def _place_of_day(tables: Tables, table: Table, day: int) -> str:
    row = tables.number(f"SELECT min(rowid) FROM rows WHERE v0 = {day}")
    return table.place(row)
