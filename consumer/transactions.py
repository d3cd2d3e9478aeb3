"""The open transaction: what was answered since the last commit, and how it ends.

1. A transaction belongs to one snapshot; under another one a new transaction is begun, after this one
   is committed.
2. It is begun by its first answer, and due by its number of answers or its age.
3. ``commit`` stores, with the answers, the next offset of every touched partition under the
   snapshot's stamp. Where the broker made the transaction impossible it is aborted, and every touched
   partition goes back to its committed offset: its requests are answered again.

Answers are counted for the fleet status once they are committed, also for each version under its
rollout (``tallies``). What was rejected before it was routed counts for no version. Here it is only
decided: the methods that take time are steps (``instructions``).
"""

from collections import Counter
from collections.abc import Sequence

from consumer.holdings import Holdings
from consumer.instructions import Abort, Begin, Clock, Commit, Say, Seek, Steps, Undone, Write
from consumer.tallies import Count, Counts, carried_on, names_of, plus
from schemas.forecast import Variant
from scoring.batch import Answer, ForecastAnswer, RejectionAnswer
from scoring.snapshot import Snapshot


class Transactions:
    """The answering loop's transactions, one at a time."""

    def __init__(self, holdings: Holdings, *, most_answers: int, longest_seconds: float) -> None:
        self.answered = 0
        """Committed forecasts since the start."""
        self.rejected = 0
        """Committed rejections since the start."""
        self.aborted = 0
        """Transactions that had to be done again."""
        self.counts: Counts = {}
        """The committed answers of each version under the rollout of the newest transaction."""
        self.forecasts: Counter[tuple[int, Variant]] = Counter()
        """Committed forecasts since the start, by the version and the variant that gave them."""
        self.reasons: Counter[str] = Counter()
        """Committed rejections since the start, by reason."""
        self._holdings = holdings
        self._most_answers = most_answers
        self._longest_seconds = longest_seconds
        self._snapshot: Snapshot | None = None
        self._began = 0.0
        # Written and not committed: by variant, rejections too, and those not routed under "".
        self._forecasts: Counter[str] = Counter()
        self._rejections: Counter[str] = Counter()
        self._reasons: Counter[str] = Counter()

    def seconds_left(self, now: float, at_most: float) -> float:
        """How long the loop may wait for requests before the open transaction is due."""
        if self._snapshot is None:
            return at_most
        return min(max(self._began + self._longest_seconds - now, 0.0), at_most)

    def is_due(self, now: float) -> bool:
        """Whether the open transaction, if there is one, should be committed now."""
        return self._snapshot is not None and (
            self._open_answers() >= self._most_answers or now >= self._began + self._longest_seconds
        )

    def is_open_under_another(self, snapshot: Snapshot) -> bool:
        """Whether a transaction is open that belongs to another snapshot than this one."""
        return self._snapshot is not None and self._snapshot is not snapshot

    def begin(self, snapshot: Snapshot) -> Steps[None]:
        """Open a transaction under the snapshot unless one is open under it."""
        if self._snapshot is snapshot:
            return
        assert self._snapshot is None, "the transaction of the older snapshot was not committed"
        yield Begin()
        self._snapshot = snapshot
        self._began = yield Clock()
        self._forecasts, self._rejections, self._reasons = Counter(), Counter(), Counter()

    def write(self, answers: Sequence[Answer]) -> Steps[bool]:
        """Produce the answers. After a failure (False) the transaction is aborted: they come again."""
        try:
            written: Sequence[Answer] = yield Write(answers)
        except Undone as error:
            yield from self._abort_and_rewind(str(error))
            return False
        # Counted in one go: an addition for each answer took a tenth of a microsecond more.
        variants = [each.variant for each in written if isinstance(each, ForecastAnswer)]
        self._forecasts.update(variants)
        if len(variants) < len(written):
            rejections = [each.rejection for each in written if isinstance(each, RejectionAnswer)]
            self._rejections.update([each.variant for each in rejections])
            self._reasons.update([each.reason for each in rejections])
        return True

    def commit(self) -> Steps[None]:
        """Commit the open transaction, if there is one; abort and rewind where it is not possible."""
        snapshot = self._snapshot
        if snapshot is None:
            return
        offsets = self._holdings.pending()
        try:
            yield Commit(offsets, snapshot.stamp)
        except Undone as error:
            yield from self._abort_and_rewind(str(error))
            return
        self._snapshot = None
        self._holdings.note_commit(offsets, snapshot.stamp)
        self._count(snapshot)

    def abandon(self) -> Steps[None]:
        """Abort the open transaction, if there is one, and rewind what is still owned."""
        if self._snapshot is not None:
            yield from self._abort_and_rewind("the partitions were lost")

    def _open_answers(self) -> int:
        return self._forecasts.total() + self._rejections.total()

    def _count(self, snapshot: Snapshot) -> None:
        self.answered += self._forecasts.total()
        self.rejected += self._rejections.total()
        self.reasons.update(self._reasons)
        counts = carried_on(self.counts, snapshot)
        for variant, which in names_of(snapshot).items():
            more = Count(self._forecasts[variant], self._rejections[variant])
            counts[which] = plus(counts.get(which, Count()), more)
            if more.answered:
                self.forecasts[which.version, variant] += more.answered
        self.counts = counts

    def _abort_and_rewind(self, why: str) -> Steps[None]:
        fields = {"why": why, "answers": self._open_answers()}
        yield Say("transaction.aborted", fields, level="warning")
        yield Abort()
        self._snapshot = None
        self.aborted += 1
        yield Seek(self._holdings.rewind())
