"""One answer each, whatever becomes of a commit: put off, lost, impossible, fenced, frozen.

The broker is real; a proxy before it loses, holds and refuses single requests of the producer. The
shipped checker judges what was answered.
"""

import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest
from confluent_kafka import Consumer, TopicPartition

from adapters.settings import load_settings
from tests.broker_proxy import (
    ADD_OFFSETS,
    CONCURRENT_TRANSACTIONS,
    COORDINATOR_LOADING,
    END_TXN,
    ILLEGAL_GENERATION,
    INVALID_PRODUCER_EPOCH,
    INVALID_TXN_STATE,
    NOT_COORDINATOR,
    PRODUCE,
    PRODUCER_FENCED,
    TRANSACTION_ABORTABLE,
    BrokerProxy,
    Fault,
)
from tests.bundles import store_bundle
from tests.conftest import RunningStack
from tests.fleet import PARTITIONS, Harness, Instance, environment_of, wait_for

pytestmark = pytest.mark.stack

BATCH = 50
KINDS = pytest.mark.parametrize("kind", [END_TXN, ADD_OFFSETS], ids=["commit", "offsets"])
SLOW = pytest.mark.chaos
TOOK_OVER = "another process took the place"


@dataclass
class Answering:
    """An instance that reaches its broker through the proxy, started again where a test ended it."""

    harness: Harness
    proxy: BrokerProxy
    sent: int = 0
    instance: Instance = field(init=False)

    def start(self, **settings: str) -> Instance:
        """Start the slot, and wait until it answers."""
        self.instance = self.harness.start(KAFKA__BOOTSTRAP_SERVERS=self.proxy.address, **settings)
        self.instance.wait_for_line("partitions.assigned")
        return self.instance

    def see_to_it(self) -> None:
        """Have an instance, the one of the last test where it still is there."""
        self.proxy.heal()
        if not self.harness.instances or self.instance.process.poll() is not None:
            self.start()
            self.assert_answered()

    def send(self) -> None:
        """Some requests."""
        self.harness.send(BATCH)
        self.sent += BATCH

    def assert_answered(self) -> None:
        """Every request that was sent has its one answer."""
        self.harness.forecasts(self.sent)
        report = self.harness.verify()
        assert report.clean, report.findings
        assert report.requests == report.forecasts == self.sent

    @property
    def aborted(self) -> list[str]:
        """Why the instance's transactions were aborted so far."""
        return [line["why"] for line in self.instance.lines("transaction.aborted")]


@pytest.fixture(scope="module")
def shared(stack: RunningStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Answering]:
    """One model, one instance and one proxy for all tests of commits: a start is most of a test."""
    folder = tmp_path_factory.mktemp("exactly-once")
    settings = load_settings(state_dir=stack.info.state_dir, store_url=(folder / "store").as_uri())
    harness = Harness(settings, environment_of(settings), "m-exactly-once", folder)
    harness.release(store_bundle(harness.store, harness.model, 1.0))
    proxy = BrokerProxy(settings.kafka.bootstrap_servers)
    yield Answering(harness, proxy)
    proxy.close()
    harness.close()


@pytest.fixture
def answering(shared: Answering) -> Answering:
    """The shared instance, at work."""
    shared.see_to_it()
    return shared


@KINDS
def test_a_commit_that_the_broker_puts_off_is_made_again(answering: Answering, kind: int) -> None:
    """While the coordinator loads, moves or is still at the last one, the same call is repeated."""
    before = len(answering.aborted)
    answering.proxy.refuse(kind, COORDINATOR_LOADING, NOT_COORDINATOR, CONCURRENT_TRANSACTIONS)
    answering.send()
    wait_for("the refusals", lambda: answering.proxy.has_refused)
    answering.assert_answered()
    assert len(answering.aborted) == before


@pytest.mark.parametrize(
    "kind", [END_TXN, pytest.param(ADD_OFFSETS, marks=SLOW)], ids=["commit", "offsets"]
)
def test_a_commit_that_takes_longer_than_a_call_is_waited_for(
    answering: Answering, kind: int
) -> None:
    """A broker that is silent for longer than one call may take is asked by the same call again."""
    before = len(answering.instance.lines("stream.retry")), len(answering.aborted)
    answering.proxy.arm(Fault.HOLD_REQUEST, kind)
    answering.send()
    wait_for("a second call", lambda: len(answering.instance.lines("stream.retry")) > before[0])
    answering.proxy.heal()
    answering.assert_answered()
    assert len(answering.aborted) == before[1]


@KINDS
@pytest.mark.parametrize(
    "code", [ILLEGAL_GENERATION, TRANSACTION_ABORTABLE], ids=["generation", "abortable"]
)
def test_an_impossible_commit_is_aborted_and_its_requests_are_answered_again(
    answering: Answering, kind: int, code: int
) -> None:
    """What the broker will not commit is undone and rewound, once a refusal, by the same process."""
    before = len(answering.aborted)
    answering.proxy.refuse(kind, code)
    answering.send()
    answering.assert_answered()
    assert len(answering.aborted) == before + 1
    assert answering.instance.process.poll() is None


@pytest.mark.parametrize(
    ("kind", "code", "said", "exit_code"),
    [
        (END_TXN, PRODUCER_FENCED, TOOK_OVER, 5),
        pytest.param(END_TXN, INVALID_PRODUCER_EPOCH, TOOK_OVER, 5, marks=SLOW),
        pytest.param(END_TXN, INVALID_TXN_STATE, "INVALID_TXN_STATE", 1, marks=SLOW),
        pytest.param(ADD_OFFSETS, PRODUCER_FENCED, TOOK_OVER, 5, marks=SLOW),
        pytest.param(ADD_OFFSETS, INVALID_PRODUCER_EPOCH, TOOK_OVER, 5, marks=SLOW),
        (ADD_OFFSETS, INVALID_TXN_STATE, "INVALID_TXN_STATE", 1),
    ],
)
def test_a_commit_after_which_the_producer_is_dead_ends_the_process(
    answering: Answering, kind: int, code: int, said: str, exit_code: int
) -> None:
    """It rewinds nothing, says why, ends, and the slot's next process answers what was open."""
    answering.proxy.refuse(kind, code)
    answering.send()
    ended = answering.instance
    assert ended.wait_for_exit() == exit_code
    assert said in ended.text
    assert "Traceback" not in ended.text
    answering.start()
    answering.assert_answered()


def test_a_commit_whose_answer_was_lost_is_made_again(answering: Answering) -> None:
    """The broker has committed, the connection breaks before it says so, and nothing is doubled."""
    before = len(answering.aborted)
    answering.proxy.arm(Fault.LOSE_ANSWER)
    answering.send()
    assert answering.proxy.struck.wait(10)
    answering.proxy.heal()
    answering.assert_answered()
    assert len(answering.aborted) == before
    answering.instance.kill()  # so that no later test pays for what librdkafka makes of the loss


@SLOW
@pytest.mark.parametrize("kind", [END_TXN, PRODUCE], ids=["commit", "records"])
def test_a_transaction_that_the_broker_ended_is_answered_again(
    answering: Answering, kind: int
) -> None:
    """Held beyond its limit it is aborted by the broker; this process or the next does it anew."""
    answering.instance.kill()
    answering.start(CONSUMER__TRANSACTION_TIMEOUT_MS="1000")
    answering.proxy.arm(Fault.HOLD_REQUEST, kind)
    answering.send()
    assert answering.proxy.struck.wait(10)
    before = _written(answering.harness)
    # The broker looks for such transactions every 10 s, and writes that it aborted one.
    wait_for("the broker's end of it", lambda: _written(answering.harness) > before)
    answering.proxy.heal()

    def is_over() -> bool:
        ended = answering.instance.process.poll() is not None
        return ended or bool(answering.aborted)

    wait_for("the end of the transaction", is_over)
    answering.see_to_it()
    answering.assert_answered()


def _written(harness: Harness) -> int:
    """How much stands in the results, with markers of transactions and what is not committed."""
    servers = harness.settings.kafka.bootstrap_servers
    reader = Consumer(
        {
            "bootstrap.servers": servers,
            "group.id": "test-reader",
            "isolation.level": "read_uncommitted",
        }
    )
    try:
        places = [TopicPartition(harness.topics.results, number) for number in range(PARTITIONS)]
        return sum(reader.get_watermark_offsets(place, timeout=10)[1] for place in places)
    finally:
        reader.close()


@pytest.mark.parametrize(
    "held", [False, pytest.param(True, marks=SLOW)], ids=["anywhere", "mid-commit"]
)
def test_an_instance_that_was_frozen_beyond_its_session_doubles_nothing(
    harness: Harness, *, held: bool
) -> None:
    """Others take its partitions over; on waking it neither commits what it had nor goes back.

    Both memberships at once, since a session takes its time.
    """
    other = Harness(
        harness.settings,
        environment_of(harness.settings),
        f"{harness.model}-dynamic",
        harness.folder,
    )
    try:
        with ThreadPoolExecutor(2) as both:
            for ended in (
                both.submit(_freeze, harness, "static", held),
                both.submit(_freeze, other, "dynamic", held),
            ):
                ended.result()
    finally:
        other.close()


def _freeze(harness: Harness, membership: str, held: bool) -> None:
    """SIGSTOP for one of two instances under load until the other has all partitions, then SIGCONT."""
    harness.release(store_bundle(harness.store, harness.model, 1.0))
    proxy = BrokerProxy(harness.settings.kafka.bootstrap_servers)
    common = {
        "CONSUMER__MEMBERSHIP": membership,
        "CONSUMER__SESSION_TIMEOUT_MS": "2000",
        "CONSUMER__TRANSACTION_TIMEOUT_MS": "1000",
    }
    frozen = harness.start(0, KAFKA__BOOTSTRAP_SERVERS=proxy.address, **common)
    other = harness.start(1, **common)
    harness.wait_until_ready(2)
    with harness.stream(200) as stream:
        wait_for("some requests", lambda: stream.sent > 100)
        if held:
            proxy.arm(Fault.HOLD_REQUEST)
            assert proxy.struck.wait(10)
        before = len(frozen.lines("partitions.assigned"))
        frozen.process.send_signal(signal.SIGSTOP)
        wait_for("one instance with all partitions", lambda: _owned_by_one(harness), 40)
        if held:
            harness.forecasts(stream.sent, 60)  # by then the broker ended what was open
        proxy.heal()
        frozen.process.send_signal(signal.SIGCONT)

        def is_over_it() -> bool:
            ended = frozen.process.poll() is not None
            return ended or len(frozen.lines("partitions.assigned")) > before

        wait_for("its end or its next assignment", is_over_it)
    report = harness.verify()
    proxy.close()
    assert report.clean, report.findings
    assert "Traceback" not in frozen.text
    assert frozen.process.poll() in (None, 1, 5)
    assert other.process.poll() is None, other.text


def _owned_by_one(harness: Harness) -> bool:
    """Whether one live instance has every partition."""
    everything = tuple(range(PARTITIONS))
    return any(each.alive and each.status.partitions == everything for each in harness.fleet())


def test_two_processes_of_one_slot_end_with_one(harness: Harness) -> None:
    """The younger process of a slot takes over under load; the older one ends and says why."""
    harness.release(store_bundle(harness.store, harness.model, 1.0))
    older = harness.start()
    harness.wait_until_ready()
    with harness.stream(300) as stream:
        wait_for("some requests", lambda: stream.sent > 100)
        younger = harness.start()
        younger.wait_for_line("partitions.assigned")
        assert older.wait_for_exit() == 5
        wait_for("more requests", lambda: stream.sent > 500)
    assert "another process" in older.text
    assert "one process a slot" in older.text
    assert "Traceback" not in older.text
    report = harness.verify()
    assert report.clean, report.findings


def test_partitions_added_while_a_static_member_was_away_are_answered(harness: Harness) -> None:
    """It is handed what it had before; it sees that the rest is nobody's, and has all given out anew."""
    harness.release(store_bundle(harness.store, harness.model, 1.0))
    patient = {"CONSUMER__SESSION_TIMEOUT_MS": "30000"}  # its place is kept, however slow this is
    instance = harness.start(**patient)
    harness.wait_until_ready()
    harness.send(20)
    harness.forecasts(20)
    assert instance.terminate() == 0
    harness.run("topics", "grow", harness.model, "--partitions", str(2 * PARTITIONS), "--yes")
    harness.send(200)
    again = harness.start(**patient)
    assert len(harness.forecasts(220)) == 220
    assert again.wait_for_line("group.uncovered")["partitions"] == [4, 5, 6, 7]
    report = harness.verify()
    assert report.clean, report.findings
