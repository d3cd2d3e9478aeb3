"""The sink: copies the answers of a model to answer files, each exactly once.

1. The store alone says what was copied: a partition goes on where its last file ends. This is looked up
   at the start, after a lost put, and where the broker no longer has a position (``_resume``).
2. A file is put where none is. Whoever loses the put drops what it holds of that partition, and reads on
   behind the winner's file.
3. Records that the topic no longer has when they are to be copied are made known by a file without rows,
   so that all sinks go on from the same place, and by a log line. Where the group was told that nothing
   but marks of transactions lay there, nothing is lost and none is written.
4. A topic that has another id than its files say, or ends before they do, was made anew: the sink ends
   rather than guess.
5. A store that is away is waited for. Nothing is fetched meanwhile, so memory stays as it is.
6. After a file is stored its log lines are written, and then its end is left with the group. So lines
   that a kill cut off are written at the next start; a line may come twice, and none is left out. Of two
   sinks at once, one goes on behind the other's file without its lines.
"""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Protocol, TypeVar

import psutil
import pyarrow as pa
import structlog

from adapters.answer_files import AnswerStore, check_file, encode_file, read_rows
from adapters.answer_rows import rows_of, unreadable_in
from adapters.answer_source import AnswerSource, Left, Place, silent
from adapters.object_store import StoreUnavailable
from adapters.settings import Audit
from audit.buffers import Buffers, Limits
from schemas.answer_file import NO_DAY, ContentHash, FileName, Footer, Record
from schemas.errors import Conflict, ModelwireError
from schemas.manifest import digest_of

FETCH_RECORDS = 4_000
FETCH_SECONDS = 0.1
LOOK_SECONDS = 20.0
"""Between two looks for partitions that were added."""

SUMMARY_SECONDS = 60.0
SILENCE_SECONDS = 60.0
"""How long a broker may give nothing at all to a sink that is to end at the topics' ends."""

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 15.0
"""Between two tries of a store that is away."""

STOP_LOOK_SECONDS = 0.1
"""How soon a pause notices that the sink was told to stop."""

STOP_SECONDS = 10.0
"""How long a store that is away is waited for once the sink was told to stop."""

MIB = 1024 * 1024

log = structlog.get_logger()
Result = TypeVar("Result")


@dataclass(frozen=True)
class End:
    """Where a chain ends: the position after its last file, and that file's digest and day."""

    next: int = 0
    digest: str = ""
    day: date = NO_DAY


class Lines(Protocol):
    """Where a line for each answer goes."""

    def write(self, place: Place, table: pa.Table) -> None:
        """Write the lines of these rows."""
        ...


@dataclass
class Tally:
    """What was done since the last summary."""

    files: int = 0
    rows: int = 0
    bytes: int = 0
    """Of the files as they were stored."""


class Sink:
    """One run. ``stopping`` is asked all the time; True ends it once what waits is stored.

    Raises ModelwireError where it cannot go on. Nothing is lost by any end: what was not stored is read
    again.
    """

    def __init__(
        self,
        settings: Audit,
        model: str,
        source: AnswerSource,
        store: AnswerStore,
        lines: Lines | None,
        stopping: Callable[[], bool],
    ) -> None:
        self._model = model
        self._source = source
        self._store = store
        self._lines = lines
        self._stopping = stopping
        limits = Limits(
            settings.file_megabytes * MIB, settings.file_seconds, settings.buffer_megabytes * MIB
        )
        self._buffers: Buffers[Place, pa.Table] = Buffers(limits, self._pack)
        self._ends: dict[Place, End] = {}
        self._left: dict[Place, Left] = {}
        """What was left with the group."""
        self._tally, self._rows = Tally(), 0
        self._unread: set[Place] = set()
        """Partitions that were not yet read to the ends that they had once."""
        self._looked = self._summed_up = time.monotonic()

    def run(self, *, once: bool) -> int:
        """Copy until told to stop; with ``once``, up to where the topics end now. Gives the rows."""
        self._open(self._source.places())
        while True:
            self._copy(once)
            self._store_all(self._buffers.holding())
            # A put that was lost here sends a partition back.
            if self._stopping() or not self._unread:
                break
        self._leave_positions()
        self._sum_up()
        return self._rows

    def _copy(self, once: bool) -> None:
        heard = time.monotonic()
        while not self._stopping() and not (once and not self._unread):
            fetched = self._source.fetch(FETCH_RECORDS, FETCH_SECONDS)
            now = time.monotonic()
            for place, records in fetched.records.items():
                self._buffers.add(place, records, now)
            for place, position in fetched.reached.items():
                self._buffers.reached(place, position)
            self._unread -= fetched.reached.keys()
            for place in fetched.gone:
                self._store_all([place])
                self._look_for_partitions()  # a topic that was made anew has not its positions either
                self._resume(place)
            while due := self._buffers.due(time.monotonic()):
                self._store_each(due)
            if fetched.records or fetched.reached:
                heard = now
            elif once and now - heard > SILENCE_SECONDS:
                raise silent(SILENCE_SECONDS)
            if not once and now - self._looked > LOOK_SECONDS:
                self._look_for_partitions()
            if now - self._summed_up > SUMMARY_SECONDS:
                self._left.clear()  # the group forgets what nobody leaves anew for some days
                self._leave_positions()
                self._sum_up()

    # --- where to go on

    def _look_for_partitions(self) -> None:
        self._looked = time.monotonic()
        known = dict(self._source.topic_ids)
        try:
            places = self._source.places()
        except ModelwireError as error:
            log.warning("audit.not_looked", problem=error.message)
            return
        for kind, topic_id in self._source.topic_ids.items():
            if topic_id != known[kind]:
                topic = self._source.topics[kind]
                raise _made_anew(
                    f"{topic} had the id {known[kind]} in its cluster, and has {topic_id}"
                )
        self._open([place for place in places if place not in self._ends])

    def _open(self, places: Sequence[Place]) -> None:
        if not places:
            return
        found = self._last_files(places)
        committed = self._source.committed(places)
        for place in places:
            self._begin(place, found.get(place), committed.get(place))
        self._leave_positions()
        log.info("audit.reading", partitions=len(self._ends))

    def _resume(self, place: Place, winner: FileName | None = None) -> None:
        """Go on behind the last file; ``winner`` is known to be there, whatever the listing says."""
        last = self._last_files([place]).get(place)
        if winner is not None and (last is None or winner.first > last.first):
            last = winner
        self._begin(place, last, None)

    def _begin(self, place: Place, last: FileName | None, left: Left | None) -> None:
        end = End() if last is None else self._read_end(last, None if left is None else left.next)
        low, high = self._source.ends(place)
        if high < end.next:
            topic = self._source.topics[place.kind]
            raise _made_anew(
                f"{topic}, partition {place.partition}, ends at {high}, and its files reach to {end.next}"
            )
        clear = left.clear if left is not None and left.next == end.next else end.next
        if low > max(clear, end.next):
            gap = self._store_gap(place, end, low)
            if gap is None:
                return
            end = gap
        self._ends[place] = end
        self._buffers.open(place, end.next)
        self._buffers.reached(place, clear)
        self._unread.add(place)
        self._source.read_from(place, max(end.next, low))

    def _last_files(self, places: Sequence[Place]) -> dict[Place, FileName]:
        found: dict[Place, FileName] = {}
        today = datetime.now(UTC).date()
        for kind in {place.kind: None for place in places}:
            partitions = [place.partition for place in places if place.kind is kind]
            ends = self._patiently(lambda: self._store.ends(kind, partitions, today))  # noqa: B023
            found |= {Place(kind, number): name for number, name in ends.items()}
        return found

    def _read_end(self, name: FileName, committed: int | None) -> End:
        """The chain's end by its last file; lines that were not written for it are.

        All of that file is checked: the next one vouches for its bytes.
        """
        content = self._patiently(lambda: self._store.read(name))
        footer = check_file(content, name)
        place = Place(name.kind, name.partition)
        topic = self._source.topics[name.kind]
        if footer.topic != topic:
            raise Conflict(
                f"{name.key} is of the topic {footer.topic}, and {topic} is to be copied",
                hint="name another place for its files (audit.store_url), or set the topic's name back",
            )
        topic_id = self._source.topic_ids[name.kind]
        if footer.topic_id not in ("", topic_id):
            raise _made_anew(
                f"{topic} has the id {topic_id} in its cluster, and {name.key} is of one with the id "
                f"{footer.topic_id}"
            )
        if self._lines is not None and committed is not None and committed < footer.next:
            rows = read_rows(content, name)
            offsets = rows["offset"].to_numpy()
            self._lines.write(place, rows.filter(pa.array(offsets >= committed)))
        return End(footer.next, digest_of(content), name.day)

    def _store_gap(self, place: Place, end: End, low: int) -> End | None:
        """Make known that the topic has nothing before ``low`` any more; None where another was first."""
        footer = self._footer(place, end, low, (), ContentHash())
        name = FileName(place.kind, self._model, place.partition, end.next, end.day)
        content = encode_file(footer, ())
        if not self._put(name, content):
            self._resume(place, name)
            return None
        told = {"topic": footer.topic, "partition": place.partition, "first": end.next, "next": low}
        if footer.begins_chain:
            log.info("audit.begins_late", **told)
        else:
            log.error("audit.gap", **told)
        return End(low, digest_of(content), end.day)

    # --- storing

    def _store_all(self, places: Sequence[Place]) -> None:
        """Store all that waits of these places."""
        while left := [place for place in self._buffers.holding() if place in places]:
            self._store_each(left)

    def _store_each(self, places: Sequence[Place]) -> None:
        for place in places:
            self._store_next(place)
        self._leave_positions()

    def _store_next(self, place: Place) -> None:
        began = time.monotonic()
        stretch, end = self._buffers.next_file(place), self._ends[place]
        footer = self._footer(place, end, stretch.next, stretch.chunks, stretch.content)
        name = FileName(place.kind, self._model, place.partition, end.next, stretch.day)
        content = encode_file(footer, stretch.chunks)
        if not self._put(name, content):
            log.warning("audit.put_lost", key=name.key, rows=footer.rows)
            self._resume(place, name)
            return
        self._tally.files += 1
        self._tally.rows += footer.rows
        self._rows += footer.rows
        self._tally.bytes += len(content)
        log.info(
            "audit.stored",
            key=name.key,
            rows=footer.rows,
            bytes=len(content),
            seconds=round(time.monotonic() - began, 3),
        )
        if footer.unreadable:
            log.warning("audit.unreadable", key=name.key, rows=footer.unreadable)
        if self._lines is not None:
            for chunk in stretch.chunks:
                self._lines.write(place, chunk)
        self._buffers.stored(place)
        self._ends[place] = End(footer.next, digest_of(content), name.day)

    def _put(self, name: FileName, content: bytes) -> bool:
        """Whether the file that lies under the name is this one."""
        if self._patiently(lambda: self._store.put(name, content)):
            return True
        # An answer that was lost looks the same as a put that was lost.
        return self._patiently(lambda: self._store.read(name)) == content

    def _footer(
        self,
        place: Place,
        end: End,
        position: int,
        chunks: Sequence[pa.Table],
        content: ContentHash,
    ) -> Footer:
        return Footer(
            kind=place.kind,
            model=self._model,
            topic=self._source.topics[place.kind],
            topic_id=self._source.topic_ids[place.kind],
            partition=place.partition,
            first=end.next,
            next=position,
            rows=sum(chunk.num_rows for chunk in chunks),
            content=content.digest,
            previous=end.digest,
            unreadable=sum(map(unreadable_in, chunks)),
        )

    def _pack(self, place: Place, records: Sequence[Record]) -> pa.Table:
        return rows_of(place.kind, self._source.topics[place.kind], place.partition, records)

    def _patiently(self, call: Callable[[], Result]) -> Result:
        """The result of a call to the store, made again while that is away."""
        pause, told_to_stop = FIRST_PAUSE_SECONDS, 0.0
        while True:
            try:
                return call()
            except StoreUnavailable as error:
                if self._stopping():
                    told_to_stop = told_to_stop or time.monotonic()
                    if time.monotonic() - told_to_stop > STOP_SECONDS:
                        raise
                log.warning("audit.store_away", problem=error.message)
            again = time.monotonic() + random.uniform(0.5, 1) * pause
            while time.monotonic() < again and not (self._stopping() and not told_to_stop):
                time.sleep(STOP_LOOK_SECONDS)
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)

    # --- what is told

    def _leave_positions(self) -> None:
        found = {
            place: Left(end.next, self._buffers.stored_until(place))
            for place, end in self._ends.items()
        }
        changed = {place: left for place, left in found.items() if self._left.get(place) != left}
        if changed:
            self._source.commit(changed)
            self._left |= changed

    def _sum_up(self) -> None:
        now = time.monotonic()
        log.info(
            "audit.summary",
            seconds=round(now - self._summed_up, 1),
            files=self._tally.files,
            rows=self._tally.rows,
            bytes=self._tally.bytes,
            waiting_rows=self._buffers.rows,
            waiting_bytes=self._buffers.bytes,
            lag=self._source.lag(self._buffers.positions),
            resident_mb=psutil.Process().memory_info().rss // MIB,
        )
        self._tally, self._summed_up = Tally(), now


def _made_anew(found: str) -> Conflict:
    return Conflict(
        f"{found}: it was made anew",
        hint="keep its files for themselves: name another place for those to come (audit.store_url), and "
        "start again",
    )
