"""What `up` says while it works: on stderr, as a live bar on a terminal, as plain lines elsewhere."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

# Lines of a log, not frames of a film: one about every tenth of the work.
PLAIN_LINES = 10


class Reporter(Protocol):
    """Whoever wants to hear how `up` is getting on."""

    def say(self, line: str) -> None:
        """One step began or ended."""

    def downloads(self) -> contextlib.AbstractContextManager[Callable[[int, int], None]]:
        """A context in which jars arrive: call what it yields with (done, total)."""


class Silent:
    """Says nothing: for tests and for callers with a display of their own."""

    def say(self, line: str) -> None:
        """Say nothing."""

    @contextlib.contextmanager
    def downloads(self) -> Iterator[Callable[[int, int], None]]:
        """Say nothing."""
        yield lambda done, total: None


class ToConsole:
    """Speaks on a console; a bar on a terminal, lines elsewhere."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, highlight=False)

    def say(self, line: str) -> None:
        """Print one line."""
        self.console.print(line, markup=False, soft_wrap=True)

    @contextlib.contextmanager
    def downloads(self) -> Iterator[Callable[[int, int], None]]:
        """Show jars as they arrive."""
        if not self.console.is_terminal:
            yield self._plain_line
            return
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, TimeElapsedColumn(), console=self.console) as bar:
            task = bar.add_task("downloading jars", total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)

    def _plain_line(self, done: int, total: int) -> None:
        if done == 0:
            self.say(f"downloading {total} jars, the first time only")
        elif done == total or done % max(1, total // PLAIN_LINES) == 0:
            self.say(f"  {done} of {total} jars")
