"""The answering loop: what one consumer instance does, turn by turn, on the main thread.

A turn looks at the situation, asks ``membership`` for the step, and takes it. Answering is, in this
order, and the order is the guarantee:

1. Partitions whose stamp the newest snapshot has reached are opened (``gate``).
2. A batch is fetched. Assignments change in here; a revocation commits what is open.
3. The snapshot is taken, once, after the last fetch of the batch. A transaction that is open under an
   older one is committed first.
4. The records that count (``holdings``) are answered under that snapshot and written; then, where the
   snapshot has shadows, they are handed over to ``shadow``, which never makes the loop wait.
5. The transaction is committed when it is due, with the offsets and the snapshot's stamp.

Models are admitted by ``models``, the control log is read by ``control``, the fleet is told by
``status``, each on its own thread; what they have is one reference, looked at once a turn.
"""

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime

import structlog

from adapters.request_stream import Committed, Fetched, RequestStream
from adapters.settings import Consumer
from consumer import plan
from consumer.control import Follower, foreign_stamp
from consumer.gate import Gate, gate_of
from consumer.holdings import Holdings
from consumer.membership import Decision, Situation, Step, may_leave_behind, next_step
from consumer.models import Loader
from consumer.shadow import ShadowScorer
from consumer.status import Reporter
from consumer.transactions import Transactions
from schemas.fleet import Phase
from scoring.batch import Incoming, answer
from scoring.snapshot import Snapshot

IDLE_SECONDS = 0.1
"""How long a turn waits for a request; also how soon a signal or a new snapshot is noticed."""

OUTSIDE_SECONDS = 0.02
"""Between two looks while the instance is outside the group."""

CONFIRM_SECONDS = 2.0
"""A stamp that is ahead for this long is looked for in a fresh reading of the log. A log whose leader
moved can end a little earlier for a moment, and that must not pass for a truncated one."""

LEAVE_SECONDS = 5.0
REMINDER_SECONDS = 10.0
"""Between two log lines that say the same about waiting."""

log = structlog.get_logger()


@dataclass(frozen=True)
class Serving:
    """What others may know of the snapshot without holding its models."""

    revision: int
    champion: int
    last_day: date | None
    """The last day that the champion can answer for, None where its contract has no horizon."""


class Service:
    """One instance. It is the ``Listener`` of its stream, which is handed in by ``attach``."""

    def __init__(
        self,
        settings: Consumer,
        instance: str,
        follower: Follower,
        loader: Loader,
        reporter: Reporter,
        shadows: ShadowScorer,
    ) -> None:
        self.snapshot: Snapshot | None = None
        """What the loop answers with; beside the loader only what waits for a shadow refers to it."""
        self.serving: Serving | None = None
        """Of ``snapshot``, for other threads."""
        self.lag: int | None = None
        """Requests of the owned partitions that are not answered yet, None where it is not known."""
        self.phase = Phase.STARTING
        self.detail = ""
        self.holdings = Holdings()
        self._settings = settings
        self._instance = instance
        self._follower = follower
        self._loader = loader
        self._reporter = reporter
        self._shadows = shadows
        self._lag_due = 0.0
        self._joined = False
        self._held = False
        self._revoked_since: float | None = None
        self._unprepared: tuple[int, ...] = ()
        self._unprepared_since: float | None = None
        self._reminded = 0.0

    def attach(self, stream: RequestStream, record_limit: int) -> None:
        """Use this stream, whose records have at most ``record_limit`` bytes."""
        self._stream = stream
        self._record_limit = record_limit
        self.transactions = Transactions(
            stream,
            self.holdings,
            most_answers=self._settings.commit_every,
            longest_seconds=self._settings.commit_interval_ms / 1_000,
            record_limit=record_limit,
        )

    def may_join(self) -> bool:
        """Whether the next turn would join the group."""
        return not self._joined and self._decide().step is Step.JOIN

    def turn(self) -> None:
        """One step. Raises ModelwireError where the process cannot go on."""
        if self._follower.failure is not None:
            raise self._follower.failure
        decision = self._decide()
        if decision.step is not Step.HOLD and self._held:
            self._release()
        self._measure_lag()
        match decision.step:
            case Step.WAIT:
                self._stand(Phase.WAITING, decision.reason)
                time.sleep(OUTSIDE_SECONDS)
            case Step.JOIN:
                self._join()
            case Step.ANSWER:
                self._answer()
            case Step.HOLD:
                self._hold(decision.reason)
            case Step.LEAVE:
                self._leave(decision.reason)

    def stop(self) -> None:
        """Commit what is open, and close the stream."""
        self.transactions.commit()
        self._stand(Phase.LEAVING, "asked to stop")
        self._stream.close()

    # --- the stream's listener

    def assigned(self, found: Mapping[int, Committed]) -> Collection[int]:
        """Take partitions over; those whose stamp is ahead wait, and so do all while we hold."""
        now = time.monotonic()
        waiting = []
        for partition, held in found.items():
            gate = self._gate(held.stamp)
            if gate is Gate.FOREIGN:
                raise foreign_stamp(self._loader.model, held.stamp, partition)
            if gate is Gate.WAIT:
                waiting.append(partition)
            since = now if gate is Gate.WAIT else None
            self.holdings.take_over(partition, held.offset, held.stamp, since)
        log.info("partitions.assigned", partitions=sorted(found), waiting=waiting)
        self._reporter.changed()
        return list(found) if self._held else waiting

    def revoked(self, partitions: Collection[int]) -> None:
        """Commit what was answered of them, then let them go."""
        self.transactions.commit()
        self.holdings.forget(partitions)
        log.info("partitions.revoked", partitions=sorted(partitions))
        self._reporter.changed()

    def lost(self, partitions: Collection[int]) -> None:
        """Somebody else has them: nothing that was not committed counts."""
        self.holdings.forget(partitions)
        self.transactions.abandon()
        log.warning("partitions.lost", partitions=sorted(partitions))
        self._reporter.changed()

    # --- steps

    def _join(self) -> None:
        log.info("group.join", revision=self._loader.ready and self._loader.ready.revision)
        self._apply(self._loader.ready)
        self._stream.join()
        self._joined = True
        self._stand(Phase.READY, "")

    def _answer(self) -> None:
        self._stand(Phase.READY, "")
        self._open_gates()
        settings = self._settings
        self.holdings.begin_fetch()
        messages = self._stream.fetch(
            settings.batch_size,
            self.transactions.seconds_left(IDLE_SECONDS),
            settings.batch_wait_ms / 1_000,
        )
        # The one look at the snapshot: all that follows in this turn is under it.
        snapshot = self._loader.ready
        assert snapshot is not None, "an instance that joined has a snapshot"
        if plan.revoked_among(plan.answering(snapshot), self._follower.heard.deployment):
            self.transactions.commit()
            self._put_back(messages)
            return
        if self.transactions.is_open_under_another(snapshot):
            self.transactions.commit()
        self._apply(snapshot)
        self._answer_batch(snapshot, messages)
        if self.transactions.is_due():
            self.transactions.commit()
        self._stream.serve()

    def _answer_batch(self, snapshot: Snapshot, messages: list[Fetched]) -> None:
        accept = self.holdings.accept
        batch = [
            Incoming(
                message.topic(),
                message.partition(),
                message.offset(),
                message.timestamp()[1],
                message.key(),
                message.value(),
            )
            for message in messages
            if accept(message.partition(), message.offset())
        ]
        if len(batch) != len(messages):
            self._stream.seek(self.holdings.to_refetch())
        if not batch:
            return
        self.transactions.begin(snapshot)
        self.transactions.write(
            answer(
                snapshot,
                batch,
                scored_at=datetime.now(UTC),
                instance=self._instance,
                max_answer_bytes=self._record_limit,
            )
        )
        is_behind = len(messages) >= self._settings.batch_size
        self._shadows.hand_over(snapshot, batch, is_behind=is_behind)

    def _hold(self, reason: str) -> None:
        if not self._held:
            self._held = True
            self.transactions.commit()
            self._stream.pause(self.holdings.partitions)
        self._stand(Phase.READY, f"answers nothing: {reason}")
        self._put_back(self._stream.fetch(1, IDLE_SECONDS, 0.0))

    def _release(self) -> None:
        """Fetch again what ``_hold`` paused, unless it waits for a revision of its own."""
        self._held = False
        waiting = self.holdings.waiting()
        positions = self.holdings.positions()
        going_on = [partition for partition in positions if partition not in waiting]
        self._stream.seek({partition: positions[partition] for partition in going_on})
        self._stream.resume(going_on)

    def _leave(self, reason: str) -> None:
        log.error("group.leave", reason=reason)
        self._stand(Phase.LEAVING, reason)
        self.transactions.commit()
        self._stream.leave(LEAVE_SECONDS)
        self.holdings.forget(self.holdings.partitions)
        self._joined = False

    # --- what the steps share

    def _decide(self) -> Decision:
        heard, ready = self._follower.heard, self._loader.ready
        now = time.monotonic()
        newest = heard.deployment
        revoked = plan.revoked_among(plan.answering(ready), newest)
        if not revoked:
            self._revoked_since = None
        elif self._revoked_since is None:
            self._revoked_since = now
        waiting = self.holdings.waiting()
        report = self._loader.report
        unprepared = tuple(
            version for version in newest.required() if version not in report.prepared
        )
        if unprepared != self._unprepared:
            self._unprepared = unprepared
            self._unprepared_since = now if unprepared else None
        return next_step(
            Situation(
                joined=self._joined,
                caught_up=heard.caught_up,
                read_revision=newest.revision,
                champion=newest.champion,
                snapshot_revision=0 if ready is None else ready.revision,
                unprepared=unprepared,
                unprepared_ms=_since(self._unprepared_since, now),
                refused={
                    fallen.version: f"{fallen.rung}: {fallen.reason}"
                    for fallen in report.refused
                    if fallen.version in unprepared
                },
                revoked=revoked,
                revoked_ms=_since(self._revoked_since, now),
                blocked=tuple(sorted(waiting)),
                blocked_ms=max((_since(h.waiting_since, now) for h in waiting.values()), default=0),
                peer_revision=self._reporter.peer_revision,
                may_leave_behind=may_leave_behind(newest),
                stamp_wait_ms=self._settings.stamp_wait_ms,
            )
        )

    def _gate(self, stamp: str) -> Gate:
        ready = self._loader.ready
        revision = 0 if ready is None else ready.revision
        return gate_of(stamp, self._follower.judge(stamp), revision)

    def _open_gates(self) -> None:
        now = time.monotonic()
        for partition, held in self.holdings.waiting().items():
            match self._gate(held.stamp):
                case Gate.FOREIGN:
                    raise foreign_stamp(self._loader.model, held.stamp, partition)
                case Gate.OPEN:
                    offset = self.holdings.open(partition)
                    self._stream.seek({partition: offset})
                    self._stream.resume([partition])
                    log.info("partition.opened", partition=partition)
                case Gate.WAIT:
                    if _since(held.waiting_since, now) >= CONFIRM_SECONDS * 1_000:
                        self._follower.confirm(held.stamp)

    def _put_back(self, messages: list[Fetched]) -> None:
        """Records that were fetched and must not be answered now: fetch them again later."""
        positions = self.holdings.positions()
        fetched = {message.partition() for message in messages}
        self._stream.seek({p: offset for p, offset in positions.items() if p in fetched})

    def _measure_lag(self) -> None:
        now = time.monotonic()
        if now < self._lag_due:
            return
        self._lag_due = now + self._settings.status_interval_ms / 1_000
        self.lag = self._stream.lag(self.holdings.positions()) if self._joined else None

    def _apply(self, snapshot: Snapshot | None) -> None:
        if snapshot is None or snapshot is self.snapshot:
            return
        before = plan.versions_of(self.snapshot)
        self.snapshot = snapshot
        horizon = snapshot.champion.contract.horizon
        self.serving = Serving(
            snapshot.revision,
            snapshot.champion.version,
            None if horizon is None else horizon.last,
        )
        self._loader.using(snapshot)
        heard = self._follower.heard
        log.info(
            "snapshot.applied",
            revision=snapshot.revision,
            champion=snapshot.champion.version,
            shadows=[shadow.version.version for shadow in snapshot.shadows],
            replaced=before,
            seconds_since_read=round(time.monotonic() - heard.at, 4),
        )
        self._reporter.changed()

    def _stand(self, phase: Phase, detail: str) -> None:
        if (phase, detail) != (self.phase, self.detail):
            self.phase, self.detail = phase, detail
            self._reporter.changed()
        elif phase is not Phase.WAITING or time.monotonic() < self._reminded + REMINDER_SECONDS:
            return
        self._reminded = time.monotonic()
        log.info("consumer.phase", phase=phase.value, detail=detail)


def _since(then: float | None, now: float) -> int:
    return 0 if then is None else int((now - then) * 1_000)
