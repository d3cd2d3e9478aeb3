"""Which core does what, so that the servers' work and what is measured do not disturb one another."""

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager

import psutil


class Cores:
    """One core for the servers and the bench itself, another one for what is measured.

    Nothing is bound where a process cannot be, or where there is only one core.
    """

    def __init__(self, servers: Collection[int]) -> None:
        """``servers`` are process ids."""
        self._servers = servers
        self._all = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_setaffinity") else []

    @contextmanager
    def parted(self) -> Iterator[None]:
        """The servers and this process are on the first core."""
        self._bind([*self._servers, os.getpid()], self._all[:1])
        try:
            yield
        finally:
            self._bind([*self._servers, os.getpid()], self._all)

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Within ``parted``: processes that are started here are on the second core."""
        self._bind([os.getpid()], self._all[1:2])
        try:
            yield
        finally:
            self._bind([os.getpid()], self._all[:1])

    def _bind(self, processes: Collection[int], cores: Collection[int]) -> None:
        if len(self._all) < 2:
            return
        for process in processes:
            for thread in psutil.Process(process).threads():
                os.sched_setaffinity(thread.id, cores)
