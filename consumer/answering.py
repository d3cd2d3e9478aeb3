"""The protocol of answering: what one consumer instance does, turn by turn. What happened goes in, what
to do comes out; ``instructions`` is the language between the two, and no clock or broker is in here.

A turn looks at the situation, asks ``membership`` for the step, and takes it. Answering is, in this
order, and the order is the guarantee:

1. Partitions whose stamp the newest snapshot has reached are opened (``gate``).
2. A batch is fetched. Assignments change in here; a revocation commits what is open.
3. The snapshot is taken, once, after the last fetch of the batch. A transaction that is open under an
   older one is committed first.
4. The records that count (``holdings``) are answered under that snapshot and written; then, where the
   snapshot has shadows, they are handed over to them, which never makes the loop wait.
5. The transaction is committed when it is due, with the offsets and the snapshot's stamp.

    turn:      Look → Fetch → Look → [Commit] → Score → Begin → Write → HandOver → [Commit]
    revoked:   Commit           lost:  Abort → Seek

Each step runs to its end before the next one begins, except that ``assigned``, ``revoked`` and ``lost``
run while a ``Fetch``, ``Leave`` or ``Close`` is being carried out.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from consumer import plan
from consumer.gate import Gate, gate_of
from consumer.holdings import Holdings
from consumer.instructions import (
    Clock,
    Close,
    Confirm,
    Fetch,
    HandOver,
    Join,
    Leave,
    Look,
    Pause,
    Place,
    Resume,
    Say,
    Score,
    Seek,
    Serve,
    Sleep,
    Steps,
    Suspect,
    TakeApart,
    Use,
    View,
)
from consumer.membership import Decision, Situation, Step, may_leave_behind, next_step
from consumer.transactions import Transactions
from schemas.errors import ModelwireError
from schemas.fleet import Phase
from scoring.batch import Answer, Incoming
from scoring.snapshot import Snapshot

IDLE_SECONDS = 0.1
"""How long a turn waits for a request; also how soon a signal or a new snapshot is noticed."""

OUTSIDE_SECONDS = 0.02
"""Between two looks while the instance is outside the group."""

CONFIRM_SECONDS = 2.0
"""A stamp that is ahead for this long is looked for in a fresh reading of the log. A log whose leader
moved can end a little earlier for a moment, and that must not pass for a truncated one."""

REMINDER_SECONDS = 10.0
"""Between two log lines that say the same about waiting."""


@dataclass(frozen=True)
class Pace:
    """How many requests at once, and how long anything may take: seconds, as in the settings."""

    batch_size: int
    batch_wait: float
    commit_every: int
    commit_interval: float
    stamp_wait: float


@dataclass(frozen=True)
class Serving:
    """What others may know of the snapshot without holding its models."""

    revision: int
    champion: int
    last_day: date | None
    """The last day that the champion can answer for, None where its contract has no horizon."""


class Answering:
    """One instance's protocol, for the requests of ``model``. Not thread-safe; what has no underscore
    and is no step may be read from other threads."""

    def __init__(self, model: str, pace: Pace) -> None:
        self.snapshot: Snapshot | None = None
        """What the loop answers with; beside the loader only what waits for a shadow refers to it."""
        self.serving: Serving | None = None
        """Of ``snapshot``, for other threads."""
        self.joined = False
        self.phase = Phase.STARTING
        self.detail = ""
        self.holdings = Holdings()
        self.transactions = Transactions(
            self.holdings,
            most_answers=pace.commit_every,
            longest_seconds=pace.commit_interval,
        )
        self._model = model
        self._pace = pace
        self._held = False
        self._revoked_since: float | None = None
        self._unprepared: tuple[int, ...] = ()
        self._unprepared_since: float | None = None
        self._reminded = 0.0

    def would_join(self, view: View) -> bool:
        """Whether a turn would join the group now."""
        return not self.joined and self._decide(view).step is Step.JOIN

    def turn(self) -> Steps[None]:
        """One step of the loop. Raises ModelwireError where the process cannot go on."""
        view: View = yield Look()
        decision = self._decide(view)
        if decision.step is not Step.HOLD and self._held:
            yield from self._release()
        match decision.step:
            case Step.WAIT:
                yield from self._stand(Phase.WAITING, decision.reason, view.now)
                yield Sleep(OUTSIDE_SECONDS)
            case Step.JOIN:
                yield from self._join(view)
            case Step.ANSWER:
                yield from self._answer(view)
            case Step.HOLD:
                yield from self._hold(decision.reason, view.now)
            case Step.LEAVE:
                yield from self._leave(decision.reason, view.now)

    def stop(self) -> Steps[None]:
        """Commit what is open, and close the stream."""
        yield from self.transactions.commit()
        view: View = yield Look()
        yield from self._stand(Phase.LEAVING, "asked to stop", view.now)
        yield Close()

    # --- how the assignment changes, while a Fetch, Leave or Close is carried out

    def assigned(self, found: Mapping[int, Place]) -> Steps[Collection[int]]:
        """Take partitions over; the outcome are those not to be fetched yet: their stamp is ahead, or
        we hold. Raises ModelwireError for a stamp that the log does not hold."""
        view: View = yield Look()
        waiting = []
        for partition, place in found.items():
            gate = self._gate(view, place.stamp)
            if gate is Gate.FOREIGN:
                raise foreign_stamp(self._model, place.stamp, partition)
            if gate is Gate.WAIT:
                waiting.append(partition)
            since = view.now if gate is Gate.WAIT else None
            self.holdings.take_over(partition, place.offset, place.stamp, since)
        fields = {"partitions": sorted(found), "waiting": waiting}
        yield Say("partitions.assigned", fields, announce=True)
        return list(found) if self._held else waiting

    def revoked(self, partitions: Collection[int]) -> Steps[None]:
        """Commit what was answered of them, then let them go."""
        yield from self.transactions.commit()
        self.holdings.forget(partitions)
        if partitions:
            yield Say("partitions.revoked", {"partitions": sorted(partitions)}, announce=True)

    def lost(self, partitions: Collection[int]) -> Steps[None]:
        """Somebody else has them: nothing that was not committed counts."""
        self.holdings.forget(partitions)
        yield from self.transactions.abandon()
        fields = {"partitions": sorted(partitions)}
        yield Say("partitions.lost", fields, level="warning", announce=True)

    # --- steps

    def _join(self, view: View) -> Steps[None]:
        assert view.ready is not None, "an instance that joins has a snapshot"
        yield Say("group.join", {"revision": view.ready.revision})
        yield from self._apply(view.ready)
        yield Join()
        self.joined = True
        yield from self._stand(Phase.READY, "", view.now)

    def _answer(self, view: View) -> Steps[None]:
        yield from self._stand(Phase.READY, "", view.now)
        yield from self._open_gates(view)
        self.holdings.begin_fetch()
        fetched: Sequence[Incoming] = yield Fetch(
            self._pace.batch_size,
            self.transactions.seconds_left(view.now, IDLE_SECONDS),
            self.transactions.seconds_left(view.now, self._pace.batch_wait),
        )
        # The one look at the snapshot: all that follows in this turn is under it.
        view = yield Look()
        snapshot = view.ready
        assert snapshot is not None, "an instance that joined has a snapshot"
        if plan.revoked_among(plan.answering(snapshot), view.newest):
            yield from self.transactions.commit()
            yield from self._put_back(fetched)
            return
        if self.transactions.is_open_under_another(snapshot):
            yield from self.transactions.commit()
        if (yield Suspect(snapshot, fetched)):
            yield from self.transactions.commit()  # it would grow too old meanwhile
            yield TakeApart(snapshot, fetched)
            yield from self._put_back(fetched)  # so would the snapshot
            return
        yield from self._apply(snapshot)
        yield from self._answer_batch(snapshot, fetched)
        now: float = yield Clock()
        if self.transactions.is_due(now):
            yield from self.transactions.commit()
        yield Serve()

    def _answer_batch(self, snapshot: Snapshot, fetched: Sequence[Incoming]) -> Steps[None]:
        batch = self.holdings.accept(fetched)
        if len(batch) != len(fetched):
            yield Seek(self.holdings.to_refetch())
        if not batch:
            return
        answers: Sequence[Answer] = yield Score(snapshot, batch)
        yield from self.transactions.begin(snapshot)
        if not (yield from self.transactions.write(answers)):
            return
        is_behind = len(fetched) >= self._pace.batch_size
        yield HandOver(snapshot, batch, is_behind)

    def _hold(self, reason: str, now: float) -> Steps[None]:
        if not self._held:
            self._held = True
            yield from self.transactions.commit()
            yield Pause(self.holdings.partitions)
        yield from self._stand(Phase.READY, f"answers nothing: {reason}", now)
        fetched: Sequence[Incoming] = yield Fetch(1, IDLE_SECONDS, 0.0)
        yield from self._put_back(fetched)

    def _release(self) -> Steps[None]:
        """Fetch again what ``_hold`` paused, unless it waits for a revision of its own."""
        self._held = False
        waiting = self.holdings.waiting()
        positions = self.holdings.positions()
        going_on = {p: offset for p, offset in positions.items() if p not in waiting}
        yield Seek(going_on)
        yield Resume(tuple(going_on))

    def _leave(self, reason: str, now: float) -> Steps[None]:
        yield Say("group.leave", {"reason": reason}, level="error")
        yield from self._stand(Phase.LEAVING, reason, now)
        yield from self.transactions.commit()
        yield Leave()
        self.holdings.forget(self.holdings.partitions)
        self.joined = False

    # --- what the steps share

    def _decide(self, view: View) -> Decision:
        newest, ready, now = view.newest, view.ready, view.now
        revoked = plan.revoked_among(plan.answering(ready), newest)
        if not revoked:
            self._revoked_since = None
        elif self._revoked_since is None:
            self._revoked_since = now
        waiting = self.holdings.waiting()
        unprepared = tuple(version for version in newest.required() if version not in view.prepared)
        if unprepared != self._unprepared:
            self._unprepared = unprepared
            self._unprepared_since = now if unprepared else None
        return next_step(
            Situation(
                joined=self.joined,
                caught_up=view.caught_up,
                read_revision=newest.revision,
                champion=newest.champion,
                snapshot_revision=0 if ready is None else ready.revision,
                unprepared=unprepared,
                unprepared_ms=_since(self._unprepared_since, now),
                refused={v: view.refused[v] for v in unprepared if v in view.refused},
                revoked=revoked,
                revoked_ms=_since(self._revoked_since, now),
                blocked=tuple(sorted(waiting)),
                blocked_ms=max((_since(h.waiting_since, now) for h in waiting.values()), default=0),
                peer_revision=view.peer_revision,
                may_leave_behind=may_leave_behind(newest),
                stamp_wait_ms=int(self._pace.stamp_wait * 1_000),
            )
        )

    def _gate(self, view: View, stamp: str) -> Gate:
        revision = 0 if view.ready is None else view.ready.revision
        return gate_of(stamp, view.judge(stamp), revision)

    def _open_gates(self, view: View) -> Steps[None]:
        for partition, held in self.holdings.waiting().items():
            match self._gate(view, held.stamp):
                case Gate.FOREIGN:
                    raise foreign_stamp(self._model, held.stamp, partition)
                case Gate.OPEN:
                    offset = self.holdings.open(partition)
                    yield Seek({partition: offset})
                    yield Resume((partition,))
                    yield Say("partition.opened", {"partition": partition})
                case Gate.WAIT:
                    if _since(held.waiting_since, view.now) >= CONFIRM_SECONDS * 1_000:
                        yield Confirm(held.stamp)

    def _put_back(self, fetched: Sequence[Incoming]) -> Steps[None]:
        """Records that were fetched and must not be answered now: fetch them again later."""
        positions = self.holdings.positions()
        partitions = {each.partition for each in fetched}
        yield Seek({p: offset for p, offset in positions.items() if p in partitions})

    def _apply(self, snapshot: Snapshot) -> Steps[None]:
        if snapshot is self.snapshot:
            return
        before = plan.versions_of(self.snapshot)
        self.snapshot = snapshot
        horizon = snapshot.champion.contract.horizon
        self.serving = Serving(
            snapshot.revision,
            snapshot.champion.version,
            None if horizon is None else horizon.last,
        )
        yield Use(snapshot)
        fields = {
            "revision": snapshot.revision,
            "champion": snapshot.champion.version,
            "shadows": [shadow.version.version for shadow in snapshot.shadows],
            "replaced": before,
        }
        yield Say("snapshot.applied", fields, announce=True)

    def _stand(self, phase: Phase, detail: str, now: float) -> Steps[None]:
        is_news = (phase, detail) != (self.phase, self.detail)
        if is_news:
            self.phase, self.detail = phase, detail
        elif phase is not Phase.WAITING or now < self._reminded + REMINDER_SECONDS:
            return
        self._reminded = now
        yield Say("consumer.phase", {"phase": phase.value, "detail": detail}, announce=is_news)


def foreign_stamp(model: str, stamp: str, partition: int | None = None) -> ModelwireError:
    """The error for an offset whose stamp the control log does not hold."""
    where = "" if partition is None else f" of partition {partition}"
    return ModelwireError(
        f"the committed offset{where} carries the stamp {stamp}, which the control log of {model} does "
        "not hold: that log was truncated, or made anew",
        hint="restore the control log from its backup; to go on with this one, delete the group's "
        "offsets and start with --from",
    )


def _since(then: float | None, now: float) -> int:
    return 0 if then is None else int((now - then) * 1_000)
