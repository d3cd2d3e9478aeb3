"""How values look in every table and sentence: times, shares, lists of numbers."""

from collections.abc import Iterable
from datetime import UTC, datetime

from rich.table import Table

NOTHING = "–"

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


def percent(basis_points: int) -> str:
    """``12.5 %`` for 1,250."""
    return f"{basis_points / 100:g} %"


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
