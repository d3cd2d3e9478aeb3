"""What the demo shows while it runs: on stderr, live on a terminal, plain lines elsewhere."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.table import Table

LINE_SECONDS = 2.0
"""Between two plain lines about the stream."""

FRAMES_A_SECOND = 8
BAR_CELLS = 40


@dataclass(frozen=True)
class Moment:
    """The stream at one moment. ``versions`` maps a version to its answers so far; ``answering`` is
    the version of the newest answer, ``revision`` the highest in any."""

    acknowledged: int
    answered: int
    rate: float
    revision: int
    answering: int | None
    versions: Mapping[int, int]
    instances: tuple[str, ...]

    @property
    def lag(self) -> int:
        """Requests on their way."""
        return max(0, self.acknowledged - self.answered)


class View:
    """Lines about what happens, and below them, on a terminal, the stream as it stands."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._started = time.monotonic()
        self._shown = 0.0
        self._live: Live | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, line: str) -> None:
        """Something happened, or begins."""
        seconds = time.monotonic() - self._started
        text = f"{seconds:6.1f} s  {line}"
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def show(self, moment: Moment) -> None:
        """The stream stands like this now."""
        if self._console.is_terminal:
            self._draw(picture(moment))
        elif time.monotonic() - self._shown >= LINE_SECONDS:
            self._shown = time.monotonic()
            self.say(sentence(moment))

    def _draw(self, table: Table) -> None:
        if self._live is None:  # not before: others write to the terminal until the stream begins
            self._live = Live(console=self._console, refresh_per_second=FRAMES_A_SECOND)
            self._live.start()
        self._live.update(table)


def sentence(moment: Moment) -> str:
    """The moment in one line."""
    version = "no version" if moment.answering is None else f"version {moment.answering}"
    return (
        f"{version} answers, revision {moment.revision}: {moment.answered:,} answers, "
        f"{moment.rate:,.0f}/s, lag {moment.lag:,}, instances {_names(moment)}"
    )


def picture(moment: Moment) -> Table:
    """The moment as a table with a bar for each version."""
    table = Table.grid(padding=(0, 2))
    table.add_row("answers", f"{moment.answered:,} of {moment.acknowledged:,} requests")
    table.add_row("rate", f"{moment.rate:,.0f}/s, lag {moment.lag:,}")
    table.add_row("revision", str(moment.revision))
    table.add_row("instances", _names(moment))
    most = max(moment.versions.values(), default=1)
    for version, count in sorted(moment.versions.items()):
        active = version == moment.answering
        bar = "█" * max(1, count * BAR_CELLS // most)
        name = f"version {version}" + (" ◀ answers" if active else "")
        table.add_row(name, f"{bar} {count:,}", style="bold green" if active else "dim")
    return table


def _names(moment: Moment) -> str:
    return ", ".join(moment.instances) or "none"
