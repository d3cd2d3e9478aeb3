"""What waits to be stored: records by partition, and when they become a file.

1. What waits of a partition is a line of stretches, each of one day (UTC, the broker's time), in the
   order of the offsets. The first one is the next file.
2. A file is due once its stretch is as large or as old as the limits allow, once another day has begun
   behind it, or while all that waits is more than the limit in all: then the largest go first.
3. Sizes are those of the records' keys, values and headers, and ``RECORD_BYTES`` for each.
4. Records are packed (made columns) many at a time. What was packed is handed out as it is.

No I/O and no clock: moments are the caller's, in seconds.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from itertools import groupby
from typing import Generic, TypeVar

from schemas.answer_file import ContentHash, Record, day_of

PACK_RECORDS = 2_000
"""Records that are packed at a time."""

RECORD_BYTES = 100
"""What a record takes beside its bytes: a hundred small ones are no nothing."""

Place = TypeVar("Place")
Chunk = TypeVar("Chunk")


@dataclass(frozen=True)
class Limits:
    """Of one file: bytes and seconds since its first record came; of all that waits: bytes."""

    file_bytes: int
    file_seconds: float
    total_bytes: int


@dataclass
class Stretch(Generic[Chunk]):
    """Records of one day that follow each other; ``next`` is the position after the last.

    ``since`` is when the first of them came.
    """

    day: date
    since: float
    next: int = 0
    rows: int = 0
    bytes: int = 0
    chunks: list[Chunk] = field(default_factory=list)
    content: ContentHash = field(default_factory=ContentHash)
    loose: list[Record] = field(default_factory=list)
    """Records that are not packed yet."""


class Buffers(Generic[Place, Chunk]):
    """What waits. ``pack`` makes a chunk of records of a place."""

    def __init__(self, limits: Limits, pack: Callable[[Place, Sequence[Record]], Chunk]) -> None:
        self._limits = limits
        self._pack = pack
        self._first: dict[Place, int] = {}
        self._reached: dict[Place, int] = {}
        self._waiting: dict[Place, list[Stretch[Chunk]]] = {}
        self.bytes = 0
        """Of all that waits."""

    @property
    def rows(self) -> int:
        """Of all that waits."""
        return sum(stretch.rows for line in self._waiting.values() for stretch in line)

    @property
    def positions(self) -> dict[Place, int]:
        """Up to where each partition is stored or waits, or has nothing."""
        return {
            place: line[-1].next if line else self.stored_until(place)
            for place, line in self._waiting.items()
        }

    def stored_until(self, place: Place) -> int:
        """Up to where nothing is left to be stored: behind the last file, and what has no records."""
        first = self._first[place]
        return first if self._waiting[place] else max(first, self._reached[place])

    def open(self, place: Place, first: int) -> None:
        """From now on records of this place wait, from ``first`` on; what waited is dropped."""
        self.bytes -= sum(stretch.bytes for stretch in self._waiting.get(place, ()))
        self._first[place] = self._reached[place] = first
        self._waiting[place] = []

    def add(self, place: Place, records: Sequence[Record], now: float) -> None:
        """Records that follow those that wait. Those that are stored or wait already are passed over."""
        line = self._waiting[place]
        first = line[-1].next if line else self._first[place]
        if records[0].offset < first:
            records = [record for record in records if record.offset >= first]
        for day, part in _by_day(records):
            if not line or line[-1].day != day:
                line.append(Stretch(day, now))
            stretch = line[-1]
            size = _size(part)
            stretch.loose += part
            stretch.next = part[-1].offset + 1
            stretch.rows += len(part)
            stretch.bytes += size
            self.bytes += size
            while len(stretch.loose) >= PACK_RECORDS:
                self._pack_some(place, stretch)

    def reached(self, place: Place, position: int) -> None:
        """Nothing committed lies between what waits of this place and ``position``."""
        line = self._waiting[place]
        if line:
            line[-1].next = max(line[-1].next, position)
        self._reached[place] = max(self._reached[place], position)

    def due(self, now: float) -> list[Place]:
        """The places whose next file is to be stored now."""
        limits = self._limits
        due, left = [], self.bytes
        for place, line in self._waiting.items():
            if line and (
                len(line) > 1
                or line[0].bytes >= limits.file_bytes
                or now - line[0].since >= limits.file_seconds
            ):
                due.append(place)
                left -= line[0].bytes
        others = [place for place in self.holding() if place not in due]
        others.sort(key=lambda place: self._waiting[place][0].bytes)
        while others and left > limits.total_bytes:
            place = others.pop()
            due.append(place)
            left -= self._waiting[place][0].bytes
        return due

    def holding(self) -> list[Place]:
        """The places of which something waits."""
        return [place for place, line in self._waiting.items() if line]

    def next_file(self, place: Place) -> Stretch[Chunk]:
        """The stretch of a place that becomes its next file, packed."""
        stretch = self._waiting[place][0]
        while stretch.loose:
            self._pack_some(place, stretch)
        return stretch

    def stored(self, place: Place) -> None:
        """The next file of this place was stored."""
        stretch = self._waiting[place].pop(0)
        self._first[place] = stretch.next
        self.bytes -= stretch.bytes

    def _pack_some(self, place: Place, stretch: Stretch[Chunk]) -> None:
        part, stretch.loose = stretch.loose[:PACK_RECORDS], stretch.loose[PACK_RECORDS:]
        stretch.content.take(part)
        stretch.chunks.append(self._pack(place, part))


def _by_day(records: Sequence[Record]) -> Iterable[tuple[date, Sequence[Record]]]:
    if not records:
        return ()
    times = [record.time_ms for record in records]
    day = day_of(min(times))
    if day == day_of(max(times)):
        return ((day, records),)
    return _split_by_day(records)


def _split_by_day(records: Sequence[Record]) -> Iterator[tuple[date, Sequence[Record]]]:
    for day, part in groupby(records, key=lambda record: day_of(record.time_ms)):
        yield day, list(part)


def _size(records: Sequence[Record]) -> int:
    parts = [record.value for record in records] + [record.key for record in records]
    size = RECORD_BYTES * len(records) + sum(map(len, filter(None, parts)))
    for record in records:
        if record.headers:
            size += sum(len(name) + len(content or b"") for name, content in record.headers)
    return size
