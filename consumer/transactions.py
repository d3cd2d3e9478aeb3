"""The open transaction: what was answered since the last commit, and how it ends.

1. A transaction belongs to one snapshot; under another one a new transaction is begun, after this one
   is committed.
2. It is begun by its first answer, and due by its number of answers or its age.
3. ``commit`` stores, with the answers, the next offset of every touched partition under the
   snapshot's stamp. Where the broker made the transaction impossible it is aborted, and every touched
   partition goes back to its committed offset: its requests are answered again.
4. What comes after a failed stream is for a new process.

Answers are counted for the fleet status once they are committed, also for each version under its
rollout (``tallies``). What was rejected before it was routed counts for no version.
"""

import time
from collections import Counter
from collections.abc import Sequence

import structlog

from adapters.request_stream import MustAbort, RequestStream, TooLargeForTopic
from consumer.holdings import Holdings
from consumer.outgoing import rejection_record, too_large
from consumer.tallies import Count, Counts, carried_on, names_of, plus
from scoring.batch import Answer, ForecastAnswer, RejectionAnswer
from scoring.snapshot import Snapshot

log = structlog.get_logger()


class Transactions:
    """The answering loop's transactions, one at a time."""

    def __init__(
        self,
        stream: RequestStream,
        holdings: Holdings,
        *,
        most_answers: int,
        longest_seconds: float,
        record_limit: int,
    ) -> None:
        self.answered = 0
        """Committed forecasts since the start."""
        self.rejected = 0
        """Committed rejections since the start."""
        self.aborted = 0
        """Transactions that had to be done again."""
        self.counts: Counts = {}
        """The committed answers of each version under the rollout of the newest transaction."""
        self._stream = stream
        self._holdings = holdings
        self._most_answers = most_answers
        self._longest_seconds = longest_seconds
        self._record_limit = record_limit
        self._snapshot: Snapshot | None = None
        self._began = 0.0
        self._forecasts: Counter[str] = Counter()
        """Written and not committed, by variant; rejections too, and those not routed under ``""``."""
        self._rejections: Counter[str] = Counter()

    def seconds_left(self, at_most: float) -> float:
        """How long the loop may wait for requests before the open transaction is due."""
        if self._snapshot is None:
            return at_most
        return min(max(self._began + self._longest_seconds - time.monotonic(), 0.0), at_most)

    def is_due(self) -> bool:
        """Whether the open transaction, if there is one, should be committed now."""
        return self._snapshot is not None and (
            self._open_answers() >= self._most_answers
            or time.monotonic() >= self._began + self._longest_seconds
        )

    def is_open_under_another(self, snapshot: Snapshot) -> bool:
        """Whether a transaction is open that belongs to another snapshot than this one."""
        return self._snapshot is not None and self._snapshot is not snapshot

    def begin(self, snapshot: Snapshot) -> None:
        """Open a transaction under the snapshot unless one is open under it."""
        if self._snapshot is snapshot:
            return
        assert self._snapshot is None, "the transaction of the older snapshot was not committed"
        self._stream.begin()
        self._snapshot = snapshot
        self._began = time.monotonic()
        self._forecasts, self._rejections = Counter(), Counter()

    def write(self, answers: Sequence[Answer]) -> None:
        """Produce the answers. After a failure the transaction is aborted, and its requests return."""
        try:
            for answer in answers:
                if isinstance(answer, ForecastAnswer):
                    self._write_forecast(answer)
                else:
                    self._write_rejection(answer)
        except MustAbort as error:
            self._abort_and_rewind(str(error))

    def commit(self) -> None:
        """Commit the open transaction, if there is one; abort and rewind where it is not possible."""
        snapshot = self._snapshot
        if snapshot is None:
            return
        offsets = self._holdings.pending()
        try:
            self._stream.commit(offsets, snapshot.stamp)
        except MustAbort as error:
            self._abort_and_rewind(str(error))
            return
        self._snapshot = None
        self._holdings.note_commit(offsets, snapshot.stamp)
        self.answered += self._forecasts.total()
        self.rejected += self._rejections.total()
        self._count(snapshot)

    def abandon(self) -> None:
        """Abort the open transaction, if there is one, and rewind what is still owned."""
        if self._snapshot is not None:
            self._abort_and_rewind("the partitions were lost")

    def _write_forecast(self, answer: ForecastAnswer) -> None:
        incoming = answer.incoming
        try:
            self._stream.produce_forecast(incoming.partition, incoming.key, answer.value)
        except TooLargeForTopic:
            self._write_rejection(too_large(answer, self._record_limit))
        else:
            self._forecasts[answer.variant] += 1

    def _write_rejection(self, answer: RejectionAnswer) -> None:
        record = rejection_record(answer, self._record_limit)
        self._stream.produce_rejection(record.key, record.value, record.headers)
        self._rejections[answer.rejection.variant] += 1

    def _open_answers(self) -> int:
        return self._forecasts.total() + self._rejections.total()

    def _count(self, snapshot: Snapshot) -> None:
        counts = carried_on(self.counts, snapshot)
        for variant, which in names_of(snapshot).items():
            more = Count(self._forecasts[variant], self._rejections[variant])
            counts[which] = plus(counts.get(which, Count()), more)
        self.counts = counts

    def _abort_and_rewind(self, why: str) -> None:
        log.warning("transaction.aborted", why=why, answers=self._open_answers())
        self._stream.abort()
        self._snapshot = None
        self.aborted += 1
        self._stream.seek(self._holdings.rewind())
