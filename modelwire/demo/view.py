"""What the demo shows while it runs: on stderr, live on a terminal, plain lines elsewhere."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.table import Table

from modelwire.demo.figures import in_words, share_words

LINE_SECONDS = 2.0
"""Between two plain lines about the stream."""

FRAMES_A_SECOND = 8
BAR_CELLS = 40


@dataclass(frozen=True)
class Shadow:
    """A shadow at one moment: what it scored, and both WAPEs on the requests that both answered."""

    version: int
    scored: int
    wape: float | None
    champion_wape: float | None


@dataclass(frozen=True)
class Canary:
    """A canary at one moment: the weight asked for (basis points), and what was answered under it.

    The shares (0 … 1) are the candidate's.
    """

    version: int
    weight: int
    requests: int
    request_share: float | None
    keys: int
    key_share: float | None


@dataclass(frozen=True)
class Moment:
    """The stream at one moment. ``versions`` maps a version to its answers so far; ``answering`` are
    those that answer at the highest ``revision`` in any answer."""

    acknowledged: int
    answered: int
    rate: float
    revision: int
    answering: tuple[int, ...]
    versions: Mapping[int, int]
    instances: tuple[str, ...]
    shadow: Shadow | None = None
    canary: Canary | None = None

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
    return "; ".join(
        (
            f"{_who_answers(moment)}, revision {moment.revision}: {moment.answered:,} answers, "
            f"{moment.rate:,.0f}/s, lag {moment.lag:,}, instances {_names(moment)}",
            *(f"{name}: {said}" for name, said in _beside(moment)),
        )
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
        active = version in moment.answering
        bar = "█" * max(1, count * BAR_CELLS // most)
        name = f"version {version}" + (" ◀ answers" if active else "")
        table.add_row(name, f"{bar} {count:,}", style="bold green" if active else "dim")
    for name, said in _beside(moment):
        table.add_row(name, said, style="bold yellow")
    return table


def _who_answers(moment: Moment) -> str:
    if not moment.answering:
        return "no version answers"
    if len(moment.answering) == 1:
        return f"version {moment.answering[0]} answers"
    return f"versions {' and '.join(map(str, moment.answering))} answer"


def _beside(moment: Moment) -> list[tuple[str, str]]:
    """What runs beside the champion, by name."""
    said = []
    if (shadow := moment.shadow) is not None:
        said.append(
            (
                "shadow",
                f"version {shadow.version} scored {shadow.scored:,}, WAPE {in_words(shadow.wape)}, "
                f"champion {in_words(shadow.champion_wape)}",
            )
        )
    if (canary := moment.canary) is not None:
        shares = share_words(canary.requests, canary.request_share, canary.keys, canary.key_share)
        said.append(
            ("canary", f"version {canary.version} at {canary.weight / 100:g}% answered {shares}")
        )
    return said


def _names(moment: Moment) -> str:
    return ", ".join(moment.instances) or "none"
