"""Ctrl-C reaches a call that never looks for it."""

import os
import signal
import threading

import pytest

from adapters.interrupts import interrupting
from tests.fleet import LIMIT_SECONDS


def test_a_signal_tells_a_call_that_runs_to_give_up() -> None:
    """While the main thread is away, another one hears of it; Python's own handler runs after."""
    gave_up = threading.Event()

    def call() -> None:
        with interrupting(gave_up.set):
            os.kill(os.getpid(), signal.SIGINT)
            gave_up.wait(LIMIT_SECONDS)

    with pytest.raises(KeyboardInterrupt):
        call()
    assert gave_up.wait(LIMIT_SECONDS)


def test_behind_the_block_nothing_is_told() -> None:
    """And what listened before listens again."""
    told = threading.Event()
    before = signal.set_wakeup_fd(-1)
    with interrupting(told.set):
        pass
    assert signal.set_wakeup_fd(before) == -1
    assert not told.is_set()
