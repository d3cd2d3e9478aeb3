"""One writer at a time: how a command is appended to a model's control log.

The append is compare-and-set. The ``transactional.id`` of every writer is the control topic's name, so
that opening a transaction shuts out (fences) every older writer. In this order, also after each
failure:

1. ``init_transactions``: older writers are fenced; a commit of theirs, or of an earlier try of this
   very append, has landed or is aborted when the call returns.
2. Read the whole log.
3. Look for the command's id: where it is found, an earlier try has landed, and that is the answer. A
   look before step 1 would miss a commit that is still in flight.
4. ``decide``: a refusal ends the append.
5. Write the events in one transaction and commit. A commit without an answer is repeated with the same
   call; where that does not help, all starts over from step 1 with a new producer.

A commit without an answer is in doubt until step 2 has succeeded after it. Whatever ends the append
before that, the doubt is what it reports (``TimedOut``): the events may have landed.

A writer that lost the race starts over after a random pause, for a bounded time, and then reports a
conflict. What a command means is for ``deployment.decisions``.
"""

import random
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from confluent_kafka import (
    KafkaError,
    KafkaException,
    Producer,
)

from adapters.control_log import LogReader, require_log
from adapters.kafka import FENCED, HOPELESS, control_config, explain, open_client
from adapters.settings import Settings
from adapters.topics import require_kept
from deployment.commands import Command, Refusal
from deployment.decisions import decide
from deployment.ledger import Ledger, Unaccepted
from schemas.errors import Conflict, ModelwireError, NotFound, RefusedByRule, TimedOut, UsageProblem
from schemas.events import EventData, Recorded, encode_event, new_event

PATIENCE_SECONDS = 30.0
"""How long an append tries. One that meets nobody takes a tenth of a second; eight writers that
append without a pause get through within a few seconds each."""

CALL_SECONDS = 10.0
"""Limit of one call (init, commit) that waits for the transaction coordinator."""

SHORTEST_CALL_SECONDS = 2.0
"""What each call gets although patience ends. An init takes half a second where librdkafka's first
connection to the coordinator comes a moment too late: it looks again only then."""

TRANSACTION_TIMEOUT_MS = 5_000
"""Age at which the broker aborts a dead writer's transaction. Readers wait that long, unless another
writer comes first: its init aborts it at once."""

SHORTEST_PAUSE_SECONDS = 0.02
LONGEST_PAUSE_SECONDS = 1.0
"""Bounds of the pause after a lost race: the upper one doubles with every try, from the lower one."""


def append(
    settings: Settings,
    model: str,
    command: Command,
    *,
    commandid: str,
    actor: str,
    now: Callable[[], datetime],
    seen: int | None = None,
    patience_s: float = PATIENCE_SECONDS,
) -> tuple[Recorded, ...]:
    """Appends what the command amounts to, once, and returns its events.

    ``commandid`` names the command: repeated with the same one, an append that has landed is only
    found. ``seen`` is the revision that the giver of the command looked at, for a command that means
    something else at another one; None where it always means the same. ``now`` gives the events' time,
    with its zone.

    Raises RefusedByRule, or NotFound for a version that was never released; Conflict where the log
    went beyond ``seen``, its topic would lose events, or other writers were faster for all of
    ``patience_s``; TimedOut where it is unknown whether the events landed; BrokenLog and
    ModelwireError as reading does.
    """
    topic = require_log(settings, model)
    require_kept(settings, model)
    attempt = _Append(settings, model, topic, command, commandid, actor, now, seen)
    deadline = time.monotonic() + patience_s
    tries = 0
    while True:
        try:
            return attempt.run(deadline)
        except _StartOver as failure:
            tries += 1
            ceiling = min(LONGEST_PAUSE_SECONDS, SHORTEST_PAUSE_SECONDS * 2**tries)
            pause = random.uniform(SHORTEST_PAUSE_SECONDS, ceiling)
            if time.monotonic() + pause > deadline:
                raise _give_up(failure, attempt, tries) from failure
            time.sleep(pause)


class _StartOver(Exception):
    """This try is over and another one makes sense. ``in_doubt``: its events may have landed."""

    def __init__(self, reason: ModelwireError, *, in_doubt: bool = False) -> None:
        super().__init__(reason.message)
        self.reason = reason
        self.in_doubt = in_doubt


def _give_up(failure: _StartOver, attempt: "_Append", tries: int) -> ModelwireError:
    reason = failure.reason
    if failure.in_doubt:
        return TimedOut(
            f"it is not known whether the command {attempt.commandid} is in {attempt.topic}: "
            f"{reason.message}",
            hint="look for it before you repeat it: "
            f"modelwire rollout history {attempt.model} -o json",
        )
    if isinstance(reason, Conflict):
        return Conflict(f"{reason.message} ({tries} tries)", hint=reason.hint)
    return reason


@dataclass
class _Append:
    """One append with everything that its tries share."""

    settings: Settings
    model: str
    topic: str
    command: Command
    commandid: str
    actor: str
    now: Callable[[], datetime]
    seen: int | None
    in_doubt: bool = False
    """A commit got no answer, and the log was not read since."""

    def run(self, deadline: float) -> tuple[Recorded, ...]:
        """One try, from the fence to the commit."""
        producer = open_client(Producer, self._producer_config())
        try:
            producer.init_transactions(_seconds(deadline))
            ledger = self._read_anew()
            self.in_doubt = False
            landed = ledger.find_command(self.commandid)
            if landed:
                return tuple(landed)
            events = self._decide(ledger)
            self._write(producer, events, deadline)
        except KafkaException as error:
            raise self._judge(producer, error.args[0]) from error
        # The producer is dropped, never closed: close() aborts, and a commit in doubt may have landed;
        # and where another writer came meanwhile, it raises after a success.
        return events

    def _producer_config(self) -> dict[str, object]:
        return control_config(
            self.settings,
            **{
                "transactional.id": self.topic,
                "transaction.timeout.ms": TRANSACTION_TIMEOUT_MS,
                "message.timeout.ms": TRANSACTION_TIMEOUT_MS,
                "acks": "all",
                "linger.ms": 0,
                "retry.backoff.ms": 10,
                "topic.metadata.propagation.max.ms": 3_000,
            },
        )

    def _read_anew(self) -> Ledger:
        """The log; what keeps it from being read counts for less than a doubt that stands."""
        try:
            return self._read()
        except ModelwireError as error:
            if self.in_doubt:
                raise _StartOver(error, in_doubt=True) from error
            raise

    def _read(self) -> Ledger:
        with LogReader(self.settings, self.model) as reader:
            reader.read_to_end()
            ledger, hidden = reader.ledger, reader.hides_records()
        # After the fence nobody may have a transaction open here. Somebody with another
        # transactional.id who has one hides from us what follows, and we would append over it.
        if hidden:
            raise _StartOver(
                Conflict(
                    f"another writer is at work on {self.topic}",
                    hint="run the command again; if this stays, find who writes to that topic",
                ),
                in_doubt=self.in_doubt,
            )
        return ledger

    def _decide(self, ledger: Ledger) -> tuple[Recorded, ...]:
        deployment = ledger.deployment
        if self.seen is not None and deployment.revision != self.seen:
            raise Conflict(
                f"{self.model} went from revision {self.seen} to {deployment.revision} while this "
                "command was on its way; nothing was appended",
                hint=f"look what changed (modelwire rollout history {self.model}), then decide anew",
            )
        outcome = decide(deployment, self.command)
        if isinstance(outcome, Refusal):
            kind = NotFound if outcome.code == "unknown-version" else RefusedByRule
            raise kind(
                f"[{outcome.code}] {outcome.sentence}",
                hint=outcome.remedy,
                details=outcome.lacks,
            )
        return tuple(self._event(ledger, data) for data in outcome)

    def _event(self, ledger: Ledger, data: EventData) -> Recorded:
        """The next event; the ledger takes it as every reader will, so nothing else is written."""
        event = new_event(
            data,
            model=self.model,
            revision=ledger.deployment.revision + 1,
            previous=ledger.deployment.head,
            commandid=self.commandid,
            actor=self.actor,
            time=self.now(),
        )
        taken = ledger.take(encode_event(event))
        if isinstance(taken, Unaccepted):
            raise UsageProblem(f"the command makes no valid control event: {taken.reason}")
        return taken

    def _write(self, producer: Producer, events: tuple[Recorded, ...], deadline: float) -> None:
        producer.begin_transaction()
        for recorded in events:
            producer.produce(self.topic, encode_event(recorded.event), partition=0)
        self.in_doubt = True
        while True:
            try:
                producer.commit_transaction(_seconds(deadline))
            except KafkaException as error:
                if error.args[0].retriable() and time.monotonic() < deadline:
                    continue
                raise
            self.in_doubt = False
            return

    def _judge(self, producer: Producer, error: KafkaError) -> Exception:
        """What a failed call means for this try."""
        if error.txn_requires_abort():
            with suppress(KafkaException):  # the next init aborts it otherwise
                producer.abort_transaction(CALL_SECONDS)
                self.in_doubt = False
        servers = self.settings.kafka.bootstrap_servers
        reason = explain(error, f"append to {self.topic}", servers, model=self.model)
        if error.code() in HOPELESS and not self.in_doubt:
            return reason
        if error.code() in FENCED:
            reason = Conflict(
                f"other commands to {self.model} were faster", hint="run the command again"
            )
        return _StartOver(reason, in_doubt=self.in_doubt)


def _seconds(deadline: float) -> float:
    """How long one call may wait. The last one of a try gets its time as well."""
    return min(CALL_SECONDS, max(SHORTEST_CALL_SECONDS, deadline - time.monotonic()))
