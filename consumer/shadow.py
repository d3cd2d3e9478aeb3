"""The shadow scorer: one thread that scores what was answered with the shadows of its snapshot.

The champion comes first, in everything:

1. The answering loop hands a batch over after its answers were written, by one call that never waits.
   What waits for the thread is bounded in bytes; beyond that the batch is shed, and counted.
2. The thread has a low priority, and scores nothing while the loop is behind: while every fetch gives
   it a full batch, what the thread took of the interpreter would delay an answer.
3. Whatever goes wrong in here is counted and logged once in a while, and ends neither this thread nor
   the process. A shadow whose model hangs keeps this thread for ever: everything is shed then, that of
   other shadows too.
4. A shadow that the newest state read does not run any more is not scored, whatever still waits.
5. A batch stands in a journal while it is scored. What was in hand at two ends of a process is left out,
   and so, for a while, is a shadow that was scoring at three of them, on whatever: a shadow that crashes
   must not bring the champion down all the time. Both count as failed. Well scored for a minute, it is
   clear.
6. What waits keeps its snapshot, and so its models: ``in_use`` tells the loader, which drops none of
   them, and ``let_go`` wakes it. No session dies on this thread.

Small batches that wait are scored as one: a run of a few rows costs as much as one of many.
"""

import contextlib
import queue
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

import structlog

from adapters.settings import Settings
from adapters.shadow_stream import Handed, ShadowStream
from adapters.stream_config import record_limit
from consumer import plan
from consumer.journal import Journal
from consumer.tallies import Count, Counts, TallyName, plus
from consumer.threads import step_back, thread_of
from deployment.routing import BUCKETS
from deployment.state import Deployment
from schemas.forecast import Variant
from scoring.batch import Answer, ForecastAnswer, Incoming, shadow_answers
from scoring.snapshot import Shadow, Snapshot

ROW_BYTES = 300
"""What a waiting request takes beside its value."""

LINGER_SECONDS = 0.02
"""How long the first batch waits for more; nobody waits for a shadow."""

BEHIND_SECONDS = 0.1
"""For so long after a full batch the loop is taken to be behind."""

IDLE_SECONDS = 0.5
"""How soon failures of the last answers are noticed when nothing more comes."""

STOP_SECONDS = 0.5
"""At a stop, for the thread to end, and again for its answers to leave."""

MOST_ENDS = 3
"""Of processes in which a shadow's model was scoring."""

AGAIN_SECONDS = 600.0
"""For so long such a shadow is left out; twice as long after each further end."""

WELL_SECONDS = 60.0
COMPLAINT_SECONDS = 30.0
"""Between two log lines that say that scoring failed."""

log = structlog.get_logger()

Each = TypeVar("Each")


@dataclass(frozen=True)
class _Item:
    """A batch that waits; ``size`` is what it counts for the bound."""

    snapshot: Snapshot
    batch: Sequence[Incoming]
    size: int


class ShadowScorer:
    """Starts with ``start``; ``hand_over`` is for the answering loop, the rest for any thread."""

    def __init__(
        self, settings: Settings, model: str, instance: str, runtime: str, journal: Journal
    ) -> None:
        self._settings = settings
        self._journal = journal
        self._model = model
        self._instance = instance
        self._runtime = runtime
        self._limit = record_limit(settings)
        self._room = settings.consumer.shadow_queue_kilobytes * 1_024
        # Lists and numbers that one thread writes and others read, instead of a lock that the loop
        # might wait for while this thread, of low priority, holds it.
        self._queue: deque[_Item] = deque()
        self._news: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._bytes_in = 0
        self._bytes_out = 0
        self._behind_until = 0.0
        self._shed: dict[TallyName, int] = {}
        self._counts: Counts = {}
        self._stream: ShadowStream | None = None
        self._complained = -COMPLAINT_SECONDS
        self._well_since: dict[str, float] = {}
        self._stopping = False
        self._newest: Callable[[], Deployment] | None = None
        self._let_go: Callable[[], None] | None = None
        self._thread = thread_of("shadow", self._run)

    def start(self, newest: Callable[[], Deployment], let_go: Callable[[], None]) -> None:
        """Start the thread. ``newest`` gives the newest state read; ``let_go`` wakes the loader."""
        self._newest = newest
        self._let_go = let_go
        self._thread.start()

    def stop(self) -> None:
        """End the thread; takes a second at most, however the shadow fares."""
        self._stopping = True
        self._news.put(None)
        if self._thread.is_alive():
            self._thread.join(STOP_SECONDS)
        if self._stream is not None and not self._thread.is_alive():
            self._stream.close(STOP_SECONDS)

    def hand_over(self, snapshot: Snapshot, batch: Sequence[Incoming], *, is_behind: bool) -> None:
        """``batch`` was answered under ``snapshot``, and its answers are written. Never waits.

        ``is_behind`` says that more requests wait for the loop.
        """
        if is_behind:
            self._behind_until = time.monotonic() + BEHIND_SECONDS
        if not snapshot.shadows:
            return
        size = sum(len(each.value or b"") + ROW_BYTES for each in batch)
        waiting = self._bytes_in - self._bytes_out
        if waiting and waiting + size > self._room:
            shed = self._of_running(self._shed)
            for name, shadow in _named(snapshot):
                shed[name] = shed.get(name, 0) + len(batch) * shadow.share
            self._shed = shed
            return
        self._bytes_in += size
        self._queue.append(_Item(snapshot, batch, size))
        self._news.put(None)

    def in_use(self) -> tuple[Snapshot, ...]:
        """The snapshots of what waits or is being scored."""
        return tuple({id(item.snapshot): item.snapshot for item in tuple(self._queue)}.values())

    def counts(self) -> Counts:
        """What was scored under each rollout that runs. Shed batches count with the shadow's share.

        A canary's shadow is still counted when its share is 0 again.
        """
        counts = dict(self._counts)
        for name, weighed in self._shed.items():
            counts[name] = plus(counts.get(name, Count()), Count(shed=weighed // BUCKETS))
        return self._of_running(counts)

    def _of_running(self, counts: Mapping[TallyName, Each]) -> dict[TallyName, Each]:
        """Without those whose rollout is over, so that they do not add up for ever."""
        if self._newest is None:
            return dict(counts)
        newest = self._newest()
        return {name: count for name, count in counts.items() if newest.running(name.rollout)}

    # --- the thread

    def _run(self) -> None:
        step_back()
        while not self._stopping:
            try:
                if not self._queue:
                    self._wait()
                elif time.monotonic() < self._behind_until:
                    time.sleep(LINGER_SECONDS)
                else:
                    self._turn()
            except Exception:  # noqa: BLE001 - whatever it is, the answers go on
                self._complain()

    def _wait(self) -> None:
        try:
            self._news.get(timeout=IDLE_SECONDS)
            time.sleep(LINGER_SECONDS)
        except queue.Empty:
            self._serve()

    def _turn(self) -> None:
        """Score the batches at the head of the queue. They leave it afterwards: see ``in_use``."""
        with contextlib.suppress(queue.Empty):
            while True:  # before the look at the queue, so that what comes after it wakes us
                self._news.get_nowait()
        count = 1
        try:
            count = self._score_head()
        except Exception:  # noqa: BLE001 - the batch is lost, and the answers must not be
            self._complain()
            self._note_loss(self._queue[0])
        finally:
            for _ in range(count):
                self._bytes_out += self._queue.popleft().size
        assert self._let_go is not None
        self._let_go()
        self._serve()

    def _note_loss(self, item: _Item) -> None:
        for name, shadow in _named(item.snapshot):
            lost = Count(failed=len(item.batch) * shadow.share // BUCKETS)
            self._counts = {**self._counts, name: plus(self._counts.get(name, Count()), lost)}

    def _score_head(self) -> int:
        """Score as many of the waiting batches as make one; returns how many."""
        first = self._queue[0]
        batch = list(first.batch)
        count = 1
        while count < len(self._queue) and self._queue[count].snapshot is first.snapshot:
            more = self._queue[count].batch
            if len(batch) + len(more) > self._settings.consumer.batch_size:
                break
            batch += more
            count += 1
        named = _named(first.snapshot)
        self._counts = {name: Count() for name, _ in named} | self._of_running(self._counts)
        assert self._newest is not None
        newest = self._newest()
        safe = [each for each in batch if not self._journal.blames((each.partition, each.offset))]
        for name, shadow in named:
            if plan.is_wanted(shadow, newest):
                scored = [] if self._is_dangerous(shadow) else safe
                lost = (len(batch) - len(scored)) * shadow.share // BUCKETS
                self._note(name, Count(failed=lost))
                self._journal.note(scored, shadow.version.digest)
                self._score(first.snapshot, name, shadow, scored)
                self._journal.clear()
        return count

    def _is_dangerous(self, shadow: Shadow) -> bool:
        """Whether too many ends met this shadow's model, and it has not done well since."""
        digest, now = shadow.version.digest, time.monotonic()
        ends = self._journal.ends.get(digest, 0)
        since = self._well_since.setdefault(digest, now)
        if ends >= MOST_ENDS and now < since + AGAIN_SECONDS * 2 ** (ends - MOST_ENDS):
            if self._complains():
                log.error("shadow.dangerous", version=shadow.version.version, ends=ends)
            return True
        if 0 < ends < MOST_ENDS and now > since + WELL_SECONDS:
            self._journal.cleared(digest)
        return False

    def _score(
        self, snapshot: Snapshot, name: TallyName, shadow: Shadow, batch: Sequence[Incoming]
    ) -> None:
        try:
            answers = shadow_answers(
                snapshot,
                shadow,
                batch,
                scored_at=datetime.now(UTC),
                instance=self._instance,
                runtime=self._runtime,
                max_answer_bytes=self._limit,
            )
            if self._stream is None:
                self._stream = ShadowStream(self._settings, self._model, self._instance)
            self._note(name, self._send(self._stream, name, answers))
        except Exception:  # noqa: BLE001 - of memory, too: it must not end the answers
            self._note(name, Count(failed=len(batch) * shadow.share // BUCKETS))
            self._complain(rollout=name.rollout, version=name.version)

    def _send(self, stream: ShadowStream, name: TallyName, answers: Sequence[Answer]) -> Count:
        answered = rejected = shed = failed = 0

        def not_taken() -> None:
            self._note(name, Count(answered=-1, failed=1))

        for answer in answers:
            if not isinstance(answer, ForecastAnswer):
                rejected += 1
                continue
            place = answer.incoming
            key = f"{place.partition}/{place.offset}/{name.version}"
            match stream.send(place.partition, key, answer.value, not_taken):
                case Handed.TAKEN:
                    answered += 1
                case Handed.FULL:
                    shed += 1
                case Handed.FAILED:
                    failed += 1
        return Count(answered, rejected, shed, failed)

    def _serve(self) -> None:
        if self._stream is not None:
            self._stream.serve()

    def _complain(self, **of: int) -> None:
        """Called while the exception is handled."""
        if self._complains():
            log.exception("shadow.failed", **of)

    def _complains(self) -> bool:
        """Whether it is time for another complaint."""
        now = time.monotonic()
        is_time = now >= self._complained + COMPLAINT_SECONDS
        if is_time:
            self._complained = now
        return is_time

    def _note(self, name: TallyName, more: Count) -> None:
        if name in self._counts:
            self._counts = {**self._counts, name: plus(self._counts[name], more)}


def _named(snapshot: Snapshot) -> list[tuple[TallyName, Shadow]]:
    return [
        (TallyName(shadow.rollout, shadow.version.version, Variant.SHADOW), shadow)
        for shadow in snapshot.shadows
    ]
