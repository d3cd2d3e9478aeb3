"""Ends a chaos run in order when it is asked to end: SIGTERM does what SIGINT does.

1. The first of the signals raises ``Aborted`` in the main thread, so that every block is left through its
   ``finally`` and stops what it started.
2. Those after it do nothing: a half torn down run would leave servers behind. ``timeout`` and a terminal
   send theirs to everybody in the group, so that some come twice.
3. The handlers stay handlers, and are never SIG_IGN: what a run starts would inherit that, and a broker
   that ignores SIGTERM is stopped by nobody.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Aborted(BaseException):
    """Somebody asked for the end. No ``Exception``: nothing that deals with failures may swallow it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.signal = signal.Signals(number)

    @property
    def exit_code(self) -> int:
        """The one that shells give to a process which such a signal ended."""
        return 128 + self.signal


@contextmanager
def abort_by_signal() -> Iterator[None]:
    """Raise ``Aborted`` in the block, once; only in the main thread."""
    asked = False

    def end(number: int, _: FrameType | None) -> None:
        nonlocal asked
        if not asked:
            asked = True
            raise Aborted(number)

    before = {each: signal.signal(each, end) for each in SIGNALS}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
