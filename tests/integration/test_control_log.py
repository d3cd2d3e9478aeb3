"""The control log on a real broker: one writer at a time, each command once, whatever dies."""

import multiprocessing
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from multiprocessing.queues import Queue

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
)

from adapters import control_append
from adapters.control_append import append
from adapters.control_log import LogReader, read_log
from adapters.kafka import client_config, topic_names
from adapters.settings import Settings
from adapters.topics import create_topics
from deployment.commands import Command, Release, Retire, Strategy, Undo
from deployment.ledger import Ledger
from deployment.state import BrokenLog
from schemas.errors import Conflict, ModelwireError, NotFound, RefusedByRule, TimedOut, UsageProblem
from schemas.events import (
    EventData,
    ModelReleased,
    ModelRestored,
    Recorded,
    RolloutPromoted,
    encode_event,
    new_event,
)
from tests.broker_proxy import BrokerProxy, Fault
from tests.conftest import RunningStack
from tests.fleet import LIMIT_SECONDS, wait_for

pytestmark = pytest.mark.stack

WRITERS = 8
COMMANDS_EACH = 4
LONG_LOG = 2_000

_SPAWN = multiprocessing.get_context("spawn")


def now() -> datetime:
    """The time of day, as a command gives it."""
    return datetime.now(UTC)


def release(digit: int, start: Strategy | None = None) -> Release:
    """The release of a bundle whose digest ``digit`` tells apart."""
    return Release(f"sha256:{digit:064x}", start, salt="salt")


@dataclass(frozen=True)
class Log:
    """One model's control log, and how a test writes to it."""

    settings: Settings
    model: str

    @property
    def topic(self) -> str:
        return topic_names(self.settings, self.model).control

    def append(
        self,
        command: Command,
        commandid: str = "",
        *,
        seen: int | None = None,
        patience_s: float = LIMIT_SECONDS,
        through: str = "",
    ) -> tuple[Recorded, ...]:
        """Append as modelwire does; ``through`` is another address of the broker."""
        settings = self.settings
        if through:
            kafka = settings.kafka.model_copy(update={"bootstrap_servers": through})
            settings = settings.model_copy(update={"kafka": kafka})
        return append(
            settings,
            self.model,
            command,
            commandid=commandid or str(uuid.uuid4()),
            actor="tester",
            now=now,
            seen=seen,
            patience_s=patience_s,
        )

    def read(self) -> Ledger:
        return read_log(self.settings, self.model)

    def put(self, *values: bytes | None) -> None:
        """Write records as anybody could, past every rule."""
        producer = Producer(client_config(self.settings))
        for value in values:
            producer.produce(self.topic, value, partition=0)
        assert producer.flush(LIMIT_SECONDS) == 0

    def event(self, ledger: Ledger, data: EventData, *, skip: int = 0) -> bytes:
        """The event that would follow; ``skip`` leaves out so many revisions."""
        return encode_event(
            new_event(
                data,
                model=self.model,
                revision=ledger.deployment.revision + 1 + skip,
                previous=ledger.deployment.head,
                commandid="by-hand",
                actor="tester",
                time=now(),
            )
        )


@pytest.fixture
def log(stack: RunningStack, model: str) -> Log:
    settings = stack.settings(model)
    create_topics(settings, model)
    return Log(settings, model)


@pytest.fixture
def proxy(stack: RunningStack) -> Iterator[BrokerProxy]:
    opened = BrokerProxy(stack.bootstrap_servers)
    yield opened
    opened.close()


def revisions(events: tuple[Recorded, ...] | list[Recorded]) -> list[int]:
    return [recorded.event.revision for recorded in events]


def test_a_command_is_read_back_as_it_was_appended(log: Log) -> None:
    """What append returns is what every reader finds, in one chain from revision 1."""
    first = log.append(release(1, Strategy.BLUE_GREEN))
    second = log.append(release(2))
    ledger = log.read()
    assert ledger.events == [*first, *second]
    assert revisions(ledger.events) == [1, 2, 3, 4]
    assert ledger.deployment.champion == 1
    assert {recorded.event.actor for recorded in first} == {"tester"}


def test_a_reader_that_follows_gets_each_event_once(log: Log) -> None:
    """poll() hands out what was appended after the first end, and nothing again."""
    log.append(release(1))
    with LogReader(log.settings, log.model) as reader:
        assert revisions(reader.read_to_end()) == [1]
        assert reader.poll(0.0) == []
        log.append(release(2, Strategy.BLUE_GREEN))
        followed = wait_for("an event", lambda: reader.poll(0.1))
        while len(followed) < 3:
            followed += reader.poll(0.1)
        assert revisions(followed) == [2, 3, 4]
        assert reader.ledger.deployment.champion == 2


def test_a_repeated_command_is_found_not_appended(log: Log) -> None:
    """An append with a command id that is in the log returns those events and adds none."""
    first = log.append(release(1, Strategy.BLUE_GREEN), "the-command")
    again = log.append(release(1, Strategy.BLUE_GREEN), "the-command")
    assert again == first
    assert revisions(log.read().events) == [1, 2, 3]


def test_a_refused_command_appends_nothing(log: Log) -> None:
    """A rule's refusal carries its code, and the log stays as it was."""
    with pytest.raises(RefusedByRule, match=r"^\[no-champion\]"):
        log.append(Undo(None))
    with pytest.raises(NotFound, match="was never released"):
        log.append(Retire(7))
    assert log.read().events == []


def test_a_command_that_makes_no_valid_event_is_not_written(log: Log) -> None:
    """A reason over the wire's limit is refused before a record exists."""
    with pytest.raises(UsageProblem, match="reason"):
        log.append(Release(f"sha256:{1:064x}", None, "salt", reason="x" * 2_001))
    assert log.read().events == []


def test_a_command_for_an_older_revision_is_a_conflict(log: Log) -> None:
    """A command that was given for revision 1 does not happen at revision 4."""
    log.append(release(1))
    log.append(release(2, Strategy.BLUE_GREEN))
    with pytest.raises(Conflict, match="from revision 1 to 4"):
        log.append(Retire(1), seen=1)
    assert revisions(log.append(Retire(1), seen=4)) == [5]


def test_a_model_without_a_log_is_not_found(stack: RunningStack, model: str) -> None:
    """Reading and appending name the model and the missing topic."""
    missing = Log(stack.settings(model), model)
    with pytest.raises(NotFound, match=f"no model '{model}'"):
        missing.read()
    with pytest.raises(NotFound, match=f"{model}.control"):
        missing.append(release(1))


def _write_commands(log: Log, writer: int, results: "Queue[tuple[str, str, list[int]]]") -> None:
    """One of the writer processes: releases, and in between rolls out and undoes."""
    for number in range(COMMANDS_EACH):
        commandid = f"{writer}-{number}"
        bundle = 1 + writer * COMMANDS_EACH + number
        command: Command = Undo(None) if number % 2 else release(bundle, Strategy.BLUE_GREEN)
        try:
            results.put((commandid, "appended", revisions(log.append(command, commandid))))
        except ModelwireError as error:
            results.put((commandid, type(error).__name__, []))


def test_eight_writers_at_once_give_a_linear_history(log: Log) -> None:
    """Of 8 processes' commands each is in the log exactly once, or was reported as turned down."""
    results: Queue[tuple[str, str, list[int]]] = _SPAWN.Queue()
    processes = [
        _SPAWN.Process(target=_write_commands, args=(log, writer, results))
        for writer in range(WRITERS)
    ]
    for process in processes:
        process.start()
    outcomes = [results.get(timeout=LIMIT_SECONDS) for _ in range(WRITERS * COMMANDS_EACH)]
    for process in processes:
        process.join(LIMIT_SECONDS)
        assert process.exitcode == 0

    ledger = log.read()  # raises where the revisions are not dense or the chain is broken
    for commandid, outcome, its_revisions in outcomes:
        assert revisions(ledger.find_command(commandid)) == its_revisions
        assert outcome in ("appended", "Conflict", "RefusedByRule")
    appended = [its for _, outcome, its in outcomes if outcome == "appended"]
    assert sorted(chain.from_iterable(appended)) == list(range(1, ledger.deployment.revision + 1))
    assert len(appended) >= WRITERS * COMMANDS_EACH // 2


def test_a_commit_whose_answer_is_lost_counts_once(log: Log, proxy: BrokerProxy) -> None:
    """The broker commits, the answer never comes, the network heals: the command is there once."""
    proxy.arm(Fault.LOSE_ANSWER)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(log.append, release(1), "the-command", through=proxy.address)
        assert proxy.struck.wait(LIMIT_SECONDS)
        proxy.heal()
        events = running.result(LIMIT_SECONDS)
    assert revisions(events) == [1]
    assert log.read().events == list(events)


def test_a_commit_in_doubt_is_reported_and_found_by_its_id(log: Log, proxy: BrokerProxy) -> None:
    """No answer until patience ends is 'unknown', and the same command later finds what landed."""
    proxy.arm(Fault.LOSE_ANSWER)
    with pytest.raises(TimedOut, match="not known whether the command the-command"):
        log.append(release(1), "the-command", through=proxy.address, patience_s=4.0)
    assert proxy.struck.is_set()
    assert revisions(log.append(release(1), "the-command")) == [1]
    assert revisions(log.read().events) == [1]


def test_a_doubt_is_reported_whatever_the_log_says_then(log: Log, proxy: BrokerProxy) -> None:
    """A commit without an answer, and a log that cannot be read after it: 'unknown', not 'broken'."""
    proxy.arm(Fault.LOSE_ANSWER)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(
            log.append, release(1), "the-command", through=proxy.address, patience_s=4.0
        )
        assert proxy.struck.wait(LIMIT_SECONDS)
        log.append(release(2), "another")  # fences the producer that waits for its answer
        log.put(log.event(log.read(), ModelReleased(3, f"sha256:{3:064x}"), skip=1))
        proxy.heal()
        with pytest.raises(TimedOut, match="not known whether the command the-command") as doubt:
            running.result(LIMIT_SECONDS)
    assert f"rollout history {log.model}" in doubt.value.hint


def test_a_commit_that_landed_while_the_network_was_down_is_found(
    log: Log, proxy: BrokerProxy
) -> None:
    """An append that lost the answer of its commit goes on past others' commands without doubling."""
    proxy.arm(Fault.LOSE_ANSWER)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(log.append, release(1), "the-command", through=proxy.address)
        assert proxy.struck.wait(LIMIT_SECONDS)
        log.append(release(2), "another")  # fences the producer that waits for its answer
        proxy.heal()
        events = running.result(LIMIT_SECONDS)
    assert revisions(events) == [1]
    assert [e.event.commandid for e in log.read().events] == ["the-command", "another"]


def _append_one(log: Log, address: str) -> None:
    # Longer than the test waits for anything, so that the broker does not end it by itself meanwhile.
    control_append.TRANSACTION_TIMEOUT_MS = 600_000
    log.append(release(1), "the-dead-command", through=address)


def test_a_killed_writers_transaction_neither_lands_nor_blocks(
    log: Log, proxy: BrokerProxy
) -> None:
    """After SIGKILL between produce and commit, the next writer ends it, and does not wait for the
    broker to do so."""
    proxy.arm(Fault.HOLD_REQUEST)
    writer = _SPAWN.Process(target=_append_one, args=(log, proxy.address))
    writer.start()
    assert proxy.struck.wait(LIMIT_SECONDS)  # its event is in the topic, its commit is not
    with LogReader(log.settings, log.model) as reader:
        assert reader.read_to_end() == []
        assert reader.hides_records()
    writer.kill()
    writer.join(LIMIT_SECONDS)

    events = log.append(release(2), "the-next-command")
    assert revisions(events) == [1]
    proxy.heal()
    assert [e.event.commandid for e in log.read().events] == ["the-next-command"]


def test_a_writer_that_was_overtaken_starts_over(log: Log, proxy: BrokerProxy) -> None:
    """Fenced between produce and commit, an append reads anew and lands behind the other."""
    proxy.arm(Fault.HOLD_REQUEST)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(log.append, release(1), "overtaken", through=proxy.address)
        assert proxy.struck.wait(LIMIT_SECONDS)
        assert revisions(log.append(release(2), "faster")) == [1]
        proxy.heal()
        assert revisions(running.result(LIMIT_SECONDS)) == [2]
    assert [e.event.commandid for e in log.read().events] == ["faster", "overtaken"]


def test_two_undos_at_once_do_not_cancel_each_other(log: Log, proxy: BrokerProxy) -> None:
    """Of two undos that looked at the same revision, the overtaken one is a conflict."""
    log.append(release(1, Strategy.BLUE_GREEN))
    log.append(release(2, Strategy.BLUE_GREEN))
    proxy.arm(Fault.HOLD_REQUEST)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(log.append, Undo(None), "slow", seen=6, through=proxy.address)
        assert proxy.struck.wait(LIMIT_SECONDS)
        log.append(Undo(None), "fast", seen=6)
        proxy.heal()
        with pytest.raises(Conflict, match="from revision 6 to 7"):
            running.result(LIMIT_SECONDS)
    assert log.read().deployment.champion == 1


def test_a_strangers_open_transaction_is_not_written_over(log: Log) -> None:
    """Records that another transactional id hides make an append wait, then conflict, never fork."""
    ledger = log.read()
    stranger = Producer(client_config(log.settings, **{"transactional.id": f"not-{log.topic}"}))
    stranger.init_transactions(LIMIT_SECONDS)
    stranger.begin_transaction()
    first = log.event(ledger, ModelReleased(1, f"sha256:{9:064x}"))
    stranger.produce(log.topic, first, partition=0)
    assert stranger.flush(LIMIT_SECONDS) == 0
    with pytest.raises(Conflict, match="another writer is at work"):
        log.append(release(1), patience_s=3.0)
    stranger.commit_transaction(LIMIT_SECONDS)
    assert revisions(log.append(release(1))) == [2]


def test_what_is_no_event_counts_for_nothing(log: Log) -> None:
    """Garbage, a tombstone and half an event lie in the topic; revisions stay dense around them."""
    log.append(release(1))
    log.put(b"\x00garbage", None, b"{}", b'{"specversion": "1.0"}')
    log.append(release(2))
    assert revisions(log.read().events) == [1, 2]


@pytest.mark.parametrize("skip", [-1, 1], ids=["repeated", "left out"])
def test_a_revision_that_does_not_follow_stops_the_reader(log: Log, skip: int) -> None:
    """A repeat or a gap among events is loud, for readers and writers alike."""
    log.append(release(1))
    log.put(log.event(log.read(), ModelReleased(2, f"sha256:{2:064x}"), skip=skip))
    with pytest.raises(BrokenLog, match=f"goes on with revision {2 + skip}"):
        log.read()
    with pytest.raises(BrokenLog):
        log.append(release(3))


def test_an_event_with_another_predecessor_stops_a_reader_that_follows(log: Log) -> None:
    """The right revision behind a wrong hash is a broken chain, also in the middle of following."""
    log.append(release(1))
    forked = log.read()
    log.append(release(2))
    with LogReader(log.settings, log.model) as reader:
        reader.read_to_end()
        log.put(log.event(forked, ModelReleased(2, f"sha256:{3:064x}"), skip=1))
        with pytest.raises(BrokenLog, match="goes on with an event that follows"):
            wait_for("an event", lambda: reader.poll(0.1))


def test_a_log_without_its_beginning_is_loud(log: Log) -> None:
    """Records deleted from the front stop every reader and writer; nothing starts over from 1."""
    log.append(release(1))
    log.append(release(2))
    admin = AdminClient(client_config(log.settings))
    for future in admin.delete_records([TopicPartition(log.topic, 0, 2)]).values():
        future.result()
    with pytest.raises(BrokenLog, match="does not reach back to its beginning"):
        log.read()
    with pytest.raises(BrokenLog):
        log.append(release(3))


def _setting(admin: AdminClient, topic: str, name: str) -> str | None:
    """What the broker says of a topic; it takes a moment until it says what it was told."""
    (found,) = admin.describe_configs([ConfigResource(ConfigResource.Type.TOPIC, topic)]).values()
    return found.result()[name].value


@pytest.mark.parametrize(
    ("setting", "text"),
    [("retention.ms", "604800000"), ("retention.bytes", "1000000"), ("cleanup.policy", "compact")],
)
def test_a_topic_that_would_lose_events_is_not_appended_to(
    log: Log, setting: str, text: str
) -> None:
    """The setting is named with what mends it; reading goes on."""
    log.append(release(1))
    resource = ConfigResource(
        ConfigResource.Type.TOPIC,
        log.topic,
        incremental_configs=[
            ConfigEntry(setting, text, incremental_operation=AlterConfigOpType.SET)
        ],
    )
    admin = AdminClient(client_config(log.settings))
    for future in admin.incremental_alter_configs([resource]).values():
        future.result()
    wait_for("the setting", lambda: _setting(admin, log.topic, setting) == text)
    with pytest.raises(Conflict, match=f"would lose events.*{setting} {text}") as refused:
        log.append(release(2))
    assert f"--topic {log.topic}" in refused.value.hint
    assert revisions(log.read().events) == [1]


def test_a_log_that_is_denied_for_a_moment_is_followed_on(log: Log, proxy: BrokerProxy) -> None:
    """A broker that does not know the topic for a while ends no reader, and nothing is missed."""
    log.append(release(1))
    with LogReader(impatient(log.settings, proxy.address), log.model) as reader:
        assert revisions(reader.read_to_end()) == [1]
        proxy.deny(log.topic)
        deadline = time.monotonic() + LIMIT_SECONDS
        while not proxy.struck.is_set():
            assert reader.poll(0.1) == []
            assert time.monotonic() < deadline
        log.append(release(2))
        assert reader.poll(1.0) == []  # it is denied, so it cannot be read
        proxy.heal()
        assert revisions(wait_for("an event", lambda: reader.poll(0.1))) == [2]


def impatient(settings: Settings, servers: str) -> Settings:
    """Settings by which librdkafka asks often for a topic, and believes a denial at once."""
    changes = {
        "bootstrap_servers": servers,
        "properties": {
            "topic.metadata.refresh.interval.ms": "300",
            "topic.metadata.propagation.max.ms": "100",
        },
    }
    return settings.model_copy(update={"kafka": settings.kafka.model_copy(update=changes)})


def test_a_long_log_is_read_whole(log: Log) -> None:
    """A log of 2,000 events folds to its last revision."""
    writing = Ledger(log.model)
    values = []
    for revision in range(1, LONG_LOG + 1):
        data: EventData = (
            ModelReleased(revision, f"sha256:{revision:064x}")
            if revision <= 2
            else ModelRestored(1 + revision % 2, 2 - revision % 2)
        )
        values.append(log.event(writing, data))
        writing.take(values[-1])
    log.put(*values)
    ledger = log.read()
    assert ledger.deployment.revision == LONG_LOG
    assert ledger.deployment == writing.deployment
    assert log.append(release(3, Strategy.BLUE_GREEN))[-1].data == RolloutPromoted(LONG_LOG + 2, 3)


def test_threads_of_one_process_do_not_share_a_producer(log: Log) -> None:
    """Appends from several threads of one process are separate writers, and all land."""
    barrier = threading.Barrier(3)

    def one(number: int) -> list[int]:
        barrier.wait()
        return revisions(log.append(release(number)))

    with ThreadPoolExecutor(3) as pool:
        landed = chain.from_iterable(pool.map(one, (1, 2, 3)))
        assert sorted(landed) == [1, 2, 3]
