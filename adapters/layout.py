"""How values look in every table and sentence: times, shares, lists of numbers. How they are shown."""

import sys
from collections.abc import Iterable
from datetime import UTC, datetime

import click
from rich.console import Console, RenderableType
from rich.table import Table

from adapters.output import TABLE, as_text

NOTHING = "–"

PLAIN_WIDTH = 200
"""Columns of a table that goes to a file or a pipe."""

LONG = (
    *("instance", "prepared", "partitions", "digest", "reason"),
    *("what", "why", "who"),
)
"""Columns that fold where the terminal is narrow; the others keep their width."""

_UNITS = ((86_400, "d"), (3_600, "h"), (60, "m"), (1, "s"))


def new_table(*columns: str) -> Table:
    """A plain table: columns by spaces, bold heads."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column not in LONG)
    return table


def utc(moment: datetime) -> str:
    """``2026-03-01 12:00:00Z``."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%SZ}"


def measured(share: float) -> str:
    """``12.3 %`` for a share of 0.1234 that was counted."""
    return f"{share * 100:.1f} %"


def duration(seconds: float) -> str:
    """The two largest units, as plans write them: ``10m``, ``1h 30m``; a fraction only below 1 s."""
    if 0 < seconds < 1:
        return f"{seconds:g}s"
    left = max(int(seconds), 0)
    parts = []
    for size, unit in _UNITS:
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count}{unit}")
    return " ".join(parts[:2]) or "0s"


def ranges(numbers: Iterable[int]) -> str:
    """``0-3,7`` for 0, 1, 2, 3 and 7."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)


def console() -> Console:
    return Console() if sys.stdout.isatty() else Console(width=PLAIN_WIDTH)


def show(output: str, view: RenderableType, value: object) -> None:
    if output == TABLE:
        console().print(view)
    else:
        click.echo(as_text(output, value))
