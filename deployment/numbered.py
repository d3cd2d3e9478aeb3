"""An immutable mapping from 1, 2, 3 … n, of which the next one is made without copying it all.

A state keeps every release, and each event makes a new state. As a plain dict, 10,000 releases would be
copied 10,000 times, which takes three times as long as all the rest of the fold. Here the values lie in
runs of 64; what follows shares every run but the one that differs.
"""

from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar

Value = TypeVar("Value")

RUN = 64


class Numbered(Mapping[int, Value], Generic[Value]):
    """``Numbered()`` is empty; ``append`` and ``put`` give another one."""

    __slots__ = ("_length", "_runs")

    def __init__(self, runs: tuple[tuple[Value, ...], ...] = (), length: int = 0) -> None:
        self._runs = runs
        self._length = length

    @classmethod
    def of(cls, values: Mapping[int, Value]) -> "Numbered[Value]":
        """The same values, numbered 1 … n; what is Numbered already is not copied."""
        if isinstance(values, Numbered):
            return values
        made = cls()
        for number in range(1, len(values) + 1):
            made = made.append(values[number])
        return made

    def append(self, value: Value) -> "Numbered[Value]":
        """With this value at the next number."""
        if self._length % RUN == 0:
            return Numbered((*self._runs, (value,)), self._length + 1)
        return Numbered((*self._runs[:-1], (*self._runs[-1], value)), self._length + 1)

    def put(self, number: int, value: Value) -> "Numbered[Value]":
        """With this value at a number that there is. Raises KeyError."""
        place, within = self._find(number)
        run = self._runs[place]
        changed = (*run[:within], value, *run[within + 1 :])
        return Numbered((*self._runs[:place], changed, *self._runs[place + 1 :]), self._length)

    def __getitem__(self, number: int) -> Value:
        place, within = self._find(number)
        return self._runs[place][within]

    def __iter__(self) -> Iterator[int]:
        return iter(range(1, self._length + 1))

    def __len__(self) -> int:
        return self._length

    def __repr__(self) -> str:
        return f"Numbered({dict(self)!r})"

    def _find(self, number: int) -> tuple[int, int]:
        if not 1 <= number <= self._length:
            raise KeyError(number)
        return divmod(number - 1, RUN)
