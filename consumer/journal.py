"""The journal: which batch was in hand when the process ended, for the next life of its slot.

A model can bring the process down on one row. The next life fetches the same requests and would fall
over the same row, for ever; so the batch in hand stands in a file, which outlives the process:

1. ``note`` before a batch is scored, ``clear`` after it. Both write a few bytes into a mapped file: the
   system keeps them whatever becomes of the process. (They do not survive the machine; nor does the
   slot.)
2. A journal that still names a batch when it is opened makes its requests suspects, with one strike more
   than before; at the second one they are blamed. An end from outside in the middle of a batch is a
   strike too: it costs a look, no more.
3. Suspects are forgotten once their answers are committed (``acquit``): until then they can come again.
4. Without a folder to write to there is no journal, which is said once. The file's space is taken when it
   is made, since a mapped file on a full disk would end the process that writes to it.

Requests are named by partition and offset. What is done about suspects is for ``isolation``.
"""

import contextlib
import fcntl
import mmap
import os
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import msgspec
import structlog

from scoring.batch import Incoming

MAGIC = b"modelwire journal 1\n"
SIZE = 65_536
_COUNT = struct.Struct("<I")
_RANGE = struct.Struct("<Iqq")
_HEAD = len(MAGIC)
_BATCH = _HEAD + _COUNT.size
_SUSPECTS = SIZE // 2
"""Where the suspects stand: their length, and JSON."""

MOST_RANGES = (_SUSPECTS - _BATCH) // _RANGE.size
"""Partitions in one batch; a batch of more is not noted."""

STRIKES = 2
"""Ends of a process with the same request in hand before it is blamed."""

MOST_SUSPECTS = 200
"""The oldest are forgotten beyond that."""

log = structlog.get_logger()


@dataclass(frozen=True)
class Suspects:
    """Requests ``first`` … ``last`` of a partition, in hand at ``strikes`` ends of a process."""

    partition: int
    first: int
    last: int
    strikes: int

    def include(self, incoming: Incoming) -> bool:
        """Whether this request is one of them."""
        return incoming.partition == self.partition and self.first <= incoming.offset <= self.last

    def meets(self, other: "Suspects") -> bool:
        """Whether a request is among both."""
        return (
            self.partition == other.partition
            and self.first <= other.last
            and other.first <= self.last
        )


class Journal:
    """One slot's journal, in a file that no other process has. Not thread-safe."""

    def __init__(self, folder: Path, name: str) -> None:
        """Open ``<folder>/<name>-<number>.journal`` with the first number that is free."""
        self.suspects: tuple[Suspects, ...] = ()
        self._map: mmap.mmap | None = None
        try:
            self._file = _open(folder, name)
            self._map = mmap.mmap(self._file, SIZE)
        except OSError as error:
            log.warning("journal.unavailable", folder=str(folder), problem=str(error))
            return
        if self._map[:_HEAD] != MAGIC:
            self._map[:] = bytes(SIZE)
            self._map[:_HEAD] = MAGIC
        self._read()

    def blames(self, incoming: Incoming) -> bool:
        """Whether this request was in hand at ``STRIKES`` ends or more."""
        return any(each.strikes >= STRIKES and each.include(incoming) for each in self.suspects)

    def note(self, batch: Sequence[Incoming]) -> None:
        """This batch is in hand now. Offsets of a partition come in order."""
        if self._map is None:
            return
        last = {each.partition: each.offset for each in batch}
        if len(last) > MOST_RANGES:
            return
        first = {each.partition: each.offset for each in reversed(batch)}
        at = _BATCH
        for partition, offset in first.items():
            _RANGE.pack_into(self._map, at, partition, offset, last[partition])
            at += _RANGE.size
        _COUNT.pack_into(self._map, _HEAD, len(first))

    def clear(self) -> None:
        """No batch is in hand."""
        if self._map is not None:
            _COUNT.pack_into(self._map, _HEAD, 0)

    def acquit(self, committed: Mapping[int, int]) -> None:
        """Up to these offsets of each partition the requests are answered, and will not come again."""
        left = tuple(
            each for each in self.suspects if committed.get(each.partition, 0) <= each.last
        )
        if left != self.suspects:
            self._write(left)

    def close(self) -> None:
        """Let go of the file."""
        if self._map is not None:
            self._map.close()
            self._map = None
            os.close(self._file)

    def _read(self) -> None:
        assert self._map is not None
        known = self._read_suspects()
        (length,) = _COUNT.unpack_from(self._map, _HEAD)
        if not 0 < length <= MOST_RANGES:
            self.suspects = known
            return
        found = []
        for number in range(length):
            at = _BATCH + number * _RANGE.size
            partition, first, last = _RANGE.unpack_from(self._map, at)
            fresh = Suspects(partition, first, last, 1)
            before = [each for each in known if each.meets(fresh)]
            known = tuple(each for each in known if each not in before)
            found.append(_struck(fresh, before))
        self._write((*known, *found)[-MOST_SUSPECTS:])
        self.clear()
        log.warning(
            "journal.suspects",
            requests=[f"{s.partition}/{s.first}-{s.last}" for s in found],
            strikes=[each.strikes for each in found],
        )

    def _read_suspects(self) -> tuple[Suspects, ...]:
        assert self._map is not None
        (length,) = _COUNT.unpack_from(self._map, _SUSPECTS)
        text = self._map[_SUSPECTS + _COUNT.size : _SUSPECTS + _COUNT.size + length]
        with contextlib.suppress(msgspec.MsgspecError):
            return msgspec.json.decode(text, type=tuple[Suspects, ...])
        return ()

    def _write(self, suspects: tuple[Suspects, ...]) -> None:
        self.suspects = suspects
        if self._map is None:
            return
        text = msgspec.json.encode(suspects)
        at = _SUSPECTS + _COUNT.size
        # Without a length in between: a process that ends here leaves none, and not half of them.
        _COUNT.pack_into(self._map, _SUSPECTS, 0)
        self._map[at : at + len(text)] = text
        _COUNT.pack_into(self._map, _SUSPECTS, len(text))


def _struck(fresh: Suspects, before: Sequence[Suspects]) -> Suspects:
    """A batch that was in hand once more; what an earlier one had beyond it was not this time."""
    strikes = max((each.strikes for each in before), default=0) + 1
    return Suspects(fresh.partition, fresh.first, fresh.last, strikes)


def _open(folder: Path, name: str) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    for number in count():
        file = os.open(folder / f"{name}-{number}.journal", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.posix_fallocate(file, 0, SIZE)
        except BlockingIOError:
            os.close(file)  # another process of this slot has it
        except OSError:
            os.close(file)
            raise
        else:
            return file
    raise AssertionError("the numbers never end")
