"""The consumer's threads: each runs beside the answering loop and never keeps the process alive.

None may die unseen: an error that a thread did not expect ends the process.
"""

import contextlib
import contextvars
import os
import threading
from collections.abc import Callable

from adapters.watchdog import end_process

NICENESS = 5
"""A thread that steps back yields to the loop when both want a core; more would starve it of the
interpreter."""


def thread_of(name: str, work: Callable[[], None]) -> threading.Thread:
    """A thread, not started; its log lines carry what is bound here and now (instance, model)."""
    bound = contextvars.copy_context()

    def run() -> None:
        try:
            bound.run(work)
        except Exception:  # noqa: BLE001 - whatever it is, the process must not go on without it
            bound.run(end_process, "thread.died", thread=name, exc_info=True)

    return threading.Thread(target=run, name=name, daemon=True)


def step_back() -> None:
    """Let the calling thread yield to the answering loop."""
    with contextlib.suppress(AttributeError, OSError):  # Linux sets it for one thread
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
