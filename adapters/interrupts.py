"""Ctrl-C for calls that do not come back to Python while they run.

Python looks at signals between its own instructions, so a long call into a library hears of none. The
signal itself writes a byte to a socket (``signal.set_wakeup_fd``), and a thread that reads it tells the
library to give up.
"""

import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def interrupting(give_up: Callable[[], None]) -> Iterator[None]:
    """In the block, a signal that Python handles also calls ``give_up``, on another thread.

    For the main thread only.
    """
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)

    def watch() -> None:
        while ours.recv(1):
            give_up()

    watcher = threading.Thread(target=watch, name="interrupts", daemon=True)
    watcher.start()
    before = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        theirs.close()
        watcher.join()
        ours.close()
