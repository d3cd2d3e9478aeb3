"""Processes, as the system sees them: one that dies with its parent, and the signal that ended one."""

import contextlib
import ctypes
import os
import signal

PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int) -> bool:
    """Let the kernel kill this process when ``parent``, its parent, is gone; False where it is already.

    Only Linux can do that; elsewhere the process lives on.
    """
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    return os.getppid() == parent


def signal_name(number: int) -> str:
    """Such as ``SIGKILL``; ``signal 34`` for one without a name."""
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"
