"""The journal: which batch was in hand when the process ended, for the next life of its slot.

A model can bring the process down on one row. The next life fetches the same requests and would fall
over the same row, for ever; so the batch in hand stands in a file, which outlives the process:

1. ``note`` before a batch is scored, ``clear`` after it. Both write a few bytes into a mapped file: the
   system keeps them whatever becomes of the process. (They do not survive the machine, nor a container
   whose file system is new after each start.)
2. A journal that still names a batch when it is opened makes its requests suspects, with one strike more
   than before; at the second one they are blamed. An end from outside in the middle of a batch is a
   strike too: it costs a look, no more. A batch that shares a request with an earlier one takes its
   strikes over.
3. What was found out about blamed requests is kept (``judge``), so that a life that ends for another
   reason need not find it out again. A further strike voids it.
4. Suspects are forgotten once their answers are committed (``acquit``): until then they can come again.
5. Ends are counted by the model's digest too, until it is ``cleared``.
6. Without a folder to write to there is no journal, which is said once. The file's space is taken when it
   is made, since a mapped file on a full disk would end the process that writes to it.

Requests are named by partition and offset. What is done about suspects is for ``isolation`` and
``shadow``.
"""

import contextlib
import fcntl
import mmap
import os
import struct
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from itertools import count
from pathlib import Path

import msgspec
import structlog

from scoring.batch import Incoming

MAGIC = b"modelwire journal 1\n"
SIZE = 131_072
_COUNT = struct.Struct("<I")
_RANGE = struct.Struct("<Iqq")
_DIGEST = struct.Struct("<80s")
_HEAD = len(MAGIC)
_NAMED = _HEAD + _COUNT.size
_BATCH = _NAMED + _DIGEST.size
_KEPT = SIZE // 2
"""Where what is kept stands: its length, and JSON."""

MOST_RANGES = (_KEPT - _BATCH) // _RANGE.size
"""Partitions in one batch; a batch of more is not noted."""

STRIKES = 2
"""Ends of a process with the same request in hand before it is blamed."""

MOST_SUSPECTS = 100
"""The oldest are forgotten beyond that."""

log = structlog.get_logger()

Name = tuple[int, int]
"""A request: its partition and offset."""


class Suspects(msgspec.Struct, frozen=True):
    """Requests ``first`` … ``last`` of a partition, in hand at ``strikes`` ends of a process.

    ``judged`` names what they were judged under (empty: not yet), ``deadly`` those that were at fault.
    """

    partition: int
    first: int
    last: int
    strikes: int
    judged: str = ""
    deadly: tuple[int, ...] = ()

    def include(self, name: Name) -> bool:
        """Whether this request is one of them."""
        return name[0] == self.partition and self.first <= name[1] <= self.last

    def meets(self, other: "Suspects") -> bool:
        """Whether a request is among both."""
        return (
            self.partition == other.partition
            and self.first <= other.last
            and other.first <= self.last
        )


class _Kept(msgspec.Struct, frozen=True):
    suspects: tuple[Suspects, ...] = ()
    ends: dict[str, int] = msgspec.field(default_factory=dict)


class Journal:
    """One slot's journal, in a file that no other process has. Not thread-safe."""

    def __init__(self, folder: Path, name: str) -> None:
        """Open ``<folder>/<name>-<number>.journal`` with the first number that is free."""
        self.suspects: tuple[Suspects, ...] = ()
        self.ends: Mapping[str, int] = {}
        """How often the process ended with a batch of this digest in hand."""
        self._map: mmap.mmap | None = None
        try:
            self._file = _open(folder, name)
        except OSError as error:
            problem = error.strerror or str(error)
            log.warning(
                "journal.unavailable",
                folder=str(folder),
                problem=problem,
                meaning="a row that ends the process is not remembered, and may end each next one too",
            )
            return
        self._map = mmap.mmap(self._file, SIZE)
        if self._map[:_HEAD] != MAGIC:
            self._map[:] = bytes(SIZE)
            self._map[:_HEAD] = MAGIC
        self._read()

    def blames(self, name: Name) -> bool:
        """Whether this request was in hand at ``STRIKES`` ends or more."""
        return any(each.strikes >= STRIKES and each.include(name) for each in self.suspects)

    def verdict(self, name: Name, judged: str) -> bool | None:
        """Whether a blamed request is at fault under ``judged``; None where that is not known."""
        for each in self.suspects:
            if each.strikes >= STRIKES and each.judged == judged and each.include(name):
                return name[1] in each.deadly
        return None

    def judge(self, names: Collection[Name], judged: str, deadly: Collection[Name]) -> None:
        """What was found out under ``judged`` about these blamed requests, which come in order."""
        left = []
        for each in self.suspects:
            found = [offset for p, offset in names if each.include((p, offset))]
            if not found or each.strikes < STRIKES:
                left.append(each)
                continue
            at_fault = tuple(offset for p, offset in sorted(deadly) if each.include((p, offset)))
            last = found[-1]
            left.append(Suspects(each.partition, each.first, last, each.strikes, judged, at_fault))
            if last < each.last:
                left.append(Suspects(each.partition, last + 1, each.last, each.strikes))
        self._write(tuple(left), self.ends)

    def note(self, batch: Sequence[Incoming], digest: str = "") -> None:
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
        _DIGEST.pack_into(self._map, _NAMED, digest.encode())
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
            self._write(left, self.ends)

    def cleared(self, digest: str) -> None:
        """This model has done well for long enough: its ends count no more."""
        self._write(self.suspects, {d: ends for d, ends in self.ends.items() if d != digest})

    def close(self) -> None:
        """Let go of the file."""
        if self._map is not None:
            self._map.close()
            self._map = None
            os.close(self._file)

    def _read(self) -> None:
        assert self._map is not None
        kept = self._read_kept()
        known = kept.suspects
        self.suspects, self.ends = known, kept.ends
        (length,) = _COUNT.unpack_from(self._map, _HEAD)
        if not 0 < length <= MOST_RANGES:
            return
        found = []
        for number in range(length):
            at = _BATCH + number * _RANGE.size
            partition, first, last = _RANGE.unpack_from(self._map, at)
            fresh = Suspects(partition, first, last, 1)
            before = [each for each in known if each.meets(fresh)]
            known = tuple(each for each in known if each not in before)
            strikes = max((each.strikes for each in before), default=0) + 1
            found.append(Suspects(partition, first, last, strikes))
        (digest,) = _DIGEST.unpack_from(self._map, _NAMED)
        ends = Counter(kept.ends)
        ends[digest.rstrip(b"\0").decode(errors="replace")] += 1
        self._write((*known, *found)[-MOST_SUSPECTS:], dict(ends.most_common(MOST_SUSPECTS)))
        self.clear()
        log.warning(
            "journal.suspects",
            requests=[f"{s.partition}/{s.first}-{s.last}" for s in found],
            strikes=[each.strikes for each in found],
        )

    def _read_kept(self) -> _Kept:
        assert self._map is not None
        (length,) = _COUNT.unpack_from(self._map, _KEPT)
        text = self._map[_KEPT + _COUNT.size : _KEPT + _COUNT.size + length]
        with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError):
            return msgspec.json.decode(text, type=_Kept)
        return _Kept()

    def _write(self, suspects: tuple[Suspects, ...], ends: Mapping[str, int]) -> None:
        self.suspects, self.ends = suspects, ends
        if self._map is None:
            return
        text = msgspec.json.encode(_Kept(suspects, dict(ends)))
        at = _KEPT + _COUNT.size
        # Without a length in between: a process that ends here leaves nothing, and not half of it.
        _COUNT.pack_into(self._map, _KEPT, 0)
        if len(text) <= SIZE - at:  # else the next life finds it out again
            self._map[at : at + len(text)] = text
            _COUNT.pack_into(self._map, _KEPT, len(text))


def _open(folder: Path, name: str) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    for number in count():
        file = os.open(folder / f"{name}-{number}.journal", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(file).st_size < SIZE and os.pwrite(file, bytes(SIZE), 0) < SIZE:
                raise OSError("there is no room for all of it")
        except BlockingIOError:
            os.close(file)  # another process of this slot has it
        except OSError:
            os.close(file)
            raise
        else:
            return file
    raise AssertionError("the numbers never end")
