"""The consumer's threads: each runs beside the answering loop and never keeps the process alive."""

import contextvars
import threading
from collections.abc import Callable


def thread_of(name: str, work: Callable[[], None]) -> threading.Thread:
    """A thread, not started; its log lines carry what is bound here and now (instance, model)."""
    bound = contextvars.copy_context()
    return threading.Thread(target=bound.run, args=(work,), name=name, daemon=True)
