"""The service: carries the protocol's instructions out, on the main thread.

``answering`` decides; here a decision meets the broker, the clock, the models and the log lines. Models
are admitted by ``models``, the control log is read by ``control``, the fleet is told by ``status``, each
on its own thread; what they have is one reference, looked at when the protocol asks for a look.

1. An instruction is carried out at once and completely. Only ``Fetch``, ``Leave`` and ``Close`` can let
   steps of the assignment run in between, since the client calls back from within.
2. Of what can go wrong only ``MustAbort`` is the protocol's business; everything else ends the process.
"""

import time
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

import structlog

from adapters.request_stream import Committed, Fetched, MustAbort, RequestStream
from adapters.settings import Consumer
from consumer import instructions as do
from consumer.answering import Answering, Pace
from consumer.control import Follower
from consumer.instructions import Steps, Undone, View
from consumer.isolation import Isolation
from consumer.models import Loader
from consumer.outgoing import rejection_record, too_large
from consumer.rungs import Rung
from consumer.shadow import ShadowScorer
from consumer.status import Reporter
from consumer.tallies import Meters
from scoring.batch import Answer, ForecastAnswer, Incoming, RejectionAnswer, answer
from scoring.snapshot import Snapshot

LEAVE_SECONDS = 5.0

log = structlog.get_logger()

Outcome = TypeVar("Outcome")


class Service:
    """One instance. It is the ``Listener`` of its stream, which is handed in by ``attach``."""

    def __init__(
        self,
        settings: Consumer,
        instance: str,
        runtime: str,
        follower: Follower,
        loader: Loader,
        reporter: Reporter,
        shadows: ShadowScorer,
        isolation: Isolation,
    ) -> None:
        self.answering = Answering(loader.model, _pace(settings))
        self.meters = Meters()
        self.lag: int | None = None
        """Requests of the owned partitions that are not answered yet, None where it is not known."""
        self._instance = instance
        self._runtime = runtime
        self._follower = follower
        self._loader = loader
        self._reporter = reporter
        self._shadows = shadows
        self._isolation = isolation
        self._lag_interval = settings.status_interval_ms / 1_000
        self._lag_due = 0.0

    def attach(self, stream: RequestStream, record_limit: int) -> None:
        """Use this stream, whose records have at most ``record_limit`` bytes."""
        self._stream = stream
        self._record_limit = record_limit

    def may_join(self) -> bool:
        """Whether the next turn would join the group."""
        return self.answering.would_join(self._look())

    def turn(self) -> None:
        """One step. Raises ModelwireError where the process cannot go on."""
        if self._follower.failure is not None:
            raise self._follower.failure
        self._measure_lag()
        self._run(self.answering.turn())

    def stop(self) -> None:
        """Commit what is open, and close the stream."""
        self._run(self.answering.stop())

    # --- the stream's listener

    def assigned(self, found: Mapping[int, Committed]) -> Collection[int]:
        """Take partitions over; the result are those that must not be read yet."""
        self._isolation.committed({partition: place.offset for partition, place in found.items()})
        return self._run(self.answering.assigned(found))

    def revoked(self, partitions: Collection[int]) -> None:
        """Commit what was answered of them, then let them go."""
        self._run(self.answering.revoked(partitions))

    def lost(self, partitions: Collection[int]) -> None:
        """Somebody else has them: nothing that was not committed counts."""
        self._run(self.answering.lost(partitions))

    # --- carrying out

    def _run(self, steps: Steps[Outcome]) -> Outcome:
        try:
            instruction = next(steps)
            while True:
                try:
                    outcome = self._carry_out(instruction)
                except MustAbort as error:
                    instruction = steps.throw(Undone(str(error)))
                else:
                    instruction = steps.send(outcome)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]

    def _carry_out(self, instruction: do.Instruction) -> Any:
        match instruction:
            case do.Look():
                return self._look()
            case do.Clock():
                return time.monotonic()
            case do.Fetch(limit, wait_seconds, fill_seconds):
                return _incoming(self._stream.fetch(limit, wait_seconds, fill_seconds))
            case do.Suspect(snapshot, batch):
                return self._isolation.is_suspect(snapshot, batch)
            case do.Score(snapshot, batch):
                return self._score(snapshot, batch)
            case do.Begin():
                return self._stream.begin()
            case do.Write(answers):
                return self._write(answers)
            case do.Commit(offsets, stamp):
                self._stream.commit(offsets, stamp)
                return self._isolation.committed(offsets)
            case do.Serve():
                return self._stream.serve()
            case do.HandOver(snapshot, batch, is_behind):
                return self._shadows.hand_over(snapshot, batch, is_behind=is_behind)
            case do.Sleep(seconds):
                return time.sleep(seconds)
            case do.Say():
                return self._say(instruction)
        return self._carry_out_rare(instruction)

    def _carry_out_rare(self, instruction: do.Instruction) -> None:
        """What does not belong to a turn that answers."""
        match instruction:
            case do.Join():
                self._stream.join()
            case do.Leave():
                self._stream.leave(LEAVE_SECONDS)
            case do.Close():
                self._stream.close()
            case do.Seek(positions):
                self._stream.seek(positions)
            case do.Pause(partitions):
                self._stream.pause(partitions)
            case do.Resume(partitions):
                self._stream.resume(partitions)
            case do.Abort():
                self._stream.abort()
            case do.TakeApart(snapshot, batch):
                self._isolation.take_apart(snapshot, batch)
            case do.Use(snapshot):
                self._loader.using(snapshot)
            case do.Confirm(stamp):
                self._follower.confirm(stamp)
            case _:
                raise AssertionError(f"nobody carries out {instruction}")

    def _look(self) -> View:
        ready = self._loader.ready  # first: what was read must not be older than what answers
        heard, report = self._follower.heard, self._loader.report
        return View(
            now=time.monotonic(),
            newest=heard.deployment,
            caught_up=heard.caught_up,
            ready=ready,
            prepared=report.prepared,
            refused={
                each.version: f"{each.rung}: {each.reason}"
                for each in report.refused
                if each.rung != Rung.MEMORY  # may fit in a moment: it is still being prepared
            },
            peer_revision=self._reporter.peer_revision,
            judge=self._follower.judge,
        )

    def _score(self, snapshot: Snapshot, batch: Sequence[Incoming]) -> list[Answer]:
        with self._isolation.in_hand(snapshot, batch) as deadly:
            began = time.monotonic()
            answers = answer(
                snapshot,
                batch,
                scored_at=datetime.now(UTC),
                instance=self._instance,
                runtime=self._runtime,
                max_answer_bytes=self._record_limit,
                crashing=deadly,
            )
            self.meters.batch(len(batch), time.monotonic() - began)
        return answers

    def _write(self, answers: Sequence[Answer]) -> Sequence[Answer]:
        forecasts = [each for each in answers if isinstance(each, ForecastAnswer)]
        beyond = self._stream.produce_forecasts(forecasts)
        if not beyond and len(forecasts) == len(answers):
            return answers
        instead = {
            forecasts[place].incoming: too_large(forecasts[place], self._record_limit)
            for place in beyond
        }
        written = [instead.get(each.incoming, each) for each in answers]
        for each in written:
            if isinstance(each, RejectionAnswer):
                self._write_rejection(each)
        return written

    def _write_rejection(self, each: RejectionAnswer) -> None:
        record = rejection_record(each, self._record_limit)
        self._stream.produce_rejection(record.key, record.value, record.headers)

    def _say(self, line: do.Say) -> None:
        fields = dict(line.fields)
        if line.event == "snapshot.applied":
            seconds = time.monotonic() - self._follower.heard.at
            fields["seconds_since_read"] = round(seconds, 4)
            self.meters.swap("apply", seconds)
        getattr(log, line.level)(line.event, **fields)
        if line.announce:
            self._reporter.changed()

    def _measure_lag(self) -> None:
        now = time.monotonic()
        if now < self._lag_due:
            return
        self._lag_due = now + self._lag_interval
        positions = self.answering.holdings.positions()
        self.lag = self._stream.lag(positions) if self.answering.joined else None


def _pace(settings: Consumer) -> Pace:
    return Pace(
        batch_size=settings.batch_size,
        batch_wait=settings.batch_wait_ms / 1_000,
        commit_every=settings.commit_every,
        commit_interval=settings.commit_interval_ms / 1_000,
        stamp_wait=settings.stamp_wait_ms / 1_000,
    )


def _incoming(messages: Sequence[Fetched]) -> list[Incoming]:
    """The records of one topic."""
    topic = messages[0].topic() if messages else ""
    return [
        Incoming(
            topic,
            message.partition(),
            message.offset(),
            message.timestamp()[1],
            message.key(),
            message.value(),
        )
        for message in messages
    ]
