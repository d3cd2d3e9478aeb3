"""One answer each, whatever becomes of a commit: put off, lost, impossible, refused, fenced.

The broker is real; a proxy before it loses, holds and refuses single requests of the producer. The
shipped checker judges what was answered. What depends on the membership runs with both.
"""

import struct
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaError, TopicPartition

from adapters.settings import Membership, load_settings
from tests.broker_proxy import (
    ADD_OFFSETS,
    CONCURRENT_TRANSACTIONS,
    COORDINATOR_LOADING,
    END_TXN,
    ILLEGAL_GENERATION,
    INVALID_PRODUCER_EPOCH,
    INVALID_TXN_STATE,
    NOT_AUTHORIZED,
    NOT_COORDINATOR,
    PRODUCE,
    PRODUCER_FENCED,
    TRANSACTION_ABORTABLE,
    TXN_OFFSETS,
    UNKNOWN_TOPIC,
    BrokerProxy,
    Denial,
    Fault,
)
from tests.bundles import store_bundle
from tests.conftest import RunningStack
from tests.fleet import LIMIT_SECONDS, PARTITIONS, Harness, Instance, environment_of, wait_for

pytestmark = pytest.mark.stack

BATCH = 50
KINDS = pytest.mark.parametrize("kind", [END_TXN, ADD_OFFSETS], ids=["commit", "offsets"])
SLOW = pytest.mark.chaos
TOOK_OVER = "another process took the place"
STATIC, DYNAMIC = Membership


@dataclass(frozen=True)
class RefusedOnce(Denial):
    """The next records of the topic, or offsets of it, are refused, and then no more.

    The broker is told of a topic that it does not have, so it never hears of them. Requests of the same
    kind that are for other topics, such as what an instance announces to the fleet, pass.
    """

    asked: threading.Event = field(default_factory=threading.Event)

    def misled(self, frame: bytes) -> bytes:
        """The request; the first one that has the topic in it is for nowhere."""
        if self.asked.is_set() or self.topic not in frame:
            return frame
        self.asked.set()
        return frame.replace(self.topic, self.nowhere)

    def answered(self, frame: bytes, version: int) -> bytes:
        """The response, with the error for every partition of that topic."""
        if self.kind == PRODUCE:
            return super().answered(frame, version)
        assert version == 3, "the only one that librdkafka sends with what the group knows it by"
        before, found, after = frame.partition(self.nowhere)
        if not found:
            return frame
        # Behind the name: one more than how many partitions; for each its number, the code, no tags.
        end = 1 + 7 * (after[0] - 1)
        told = [after[at : at + 7] for at in range(1, end, 7)]
        assert {each[4:6] for each in told} == {struct.pack(">h", UNKNOWN_TOPIC)}
        refused = b"".join(each[:4] + self.code + each[6:] for each in told)
        return before + self.topic + after[:1] + refused + after[end:]


@dataclass
class Answering:
    """An instance that reaches its broker through the proxy, started again where a test ended it."""

    harness: Harness
    proxy: BrokerProxy
    membership: Membership
    sent: int = 0
    instance: Instance = field(init=False)

    def start(self, **settings: str) -> Instance:
        """Start the slot, and wait until it answers."""
        self.instance = self.harness.start(
            KAFKA__BOOTSTRAP_SERVERS=self.proxy.address,
            CONSUMER__MEMBERSHIP=self.membership,
            **settings,
        )
        self.instance.wait_for_line("partitions.assigned")
        return self.instance

    def see_to_it(self) -> None:
        """Have an instance, the one of the last test where it still is there."""
        self.proxy.heal()
        if not self.harness.instances or self.instance.process.poll() is not None:
            self.start()
            self.assert_answered()

    def send(self, count: int = BATCH) -> None:
        """Some requests."""
        self.harness.send(count)
        self.sent += count

    def refuse_once(self, topic: str, kind: int, code: int) -> None:
        """Have the next request of this kind for the topic refused."""
        self.proxy.struck.clear()
        self.proxy.denied = RefusedOnce(topic.encode(), kind, struct.pack(">h", code))

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
def shared(
    stack: RunningStack, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mapping[Membership, Answering]]:
    """One model, one instance and one proxy for all tests of commits: a start is most of a test."""
    folder = tmp_path_factory.mktemp("exactly-once")
    both = {each: _behind_a_proxy(stack, folder, each) for each in Membership}
    yield both
    for each in both.values():
        each.proxy.close()
        each.harness.close()


def _behind_a_proxy(stack: RunningStack, folder: Path, membership: Membership) -> Answering:
    settings = load_settings(state_dir=stack.info.state_dir, store_url=(folder / "store").as_uri())
    model = f"m-exactly-once-{membership}"
    harness = Harness(settings, environment_of(settings), model, folder)
    harness.release(store_bundle(harness.store, harness.model, 1.0))
    return Answering(harness, BrokerProxy(settings.kafka.bootstrap_servers), membership)


@pytest.fixture
def membership() -> Membership:
    """Of the instance; a test names others where they differ."""
    return STATIC


@pytest.fixture
def answering(shared: Mapping[Membership, Answering], membership: Membership) -> Answering:
    """The shared instance of this membership, at work."""
    shared[membership].see_to_it()
    return shared[membership]


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
    ("membership", "code"),
    [
        (STATIC, KafkaError.UNKNOWN_MEMBER_ID),
        (STATIC, KafkaError.FENCED_INSTANCE_ID),
        (STATIC, KafkaError.ILLEGAL_GENERATION),
        (STATIC, KafkaError.REBALANCE_IN_PROGRESS),
        (DYNAMIC, KafkaError.UNKNOWN_MEMBER_ID),
        (DYNAMIC, KafkaError.ILLEGAL_GENERATION),
        (DYNAMIC, KafkaError.REBALANCE_IN_PROGRESS),
    ],
)
def test_offsets_that_the_group_does_not_take_are_aborted_with_their_answers(
    answering: Answering, code: int
) -> None:
    """One refusal is one abort; the member goes on, since the group did not tell it to end."""
    before = len(answering.aborted)
    answering.refuse_once(answering.harness.topics.requests, TXN_OFFSETS, code)
    answering.send()
    assert answering.proxy.struck.wait(LIMIT_SECONDS)
    answering.assert_answered()
    [why] = answering.aborted[before:]
    assert KafkaError(code).name() in why
    assert answering.instance.process.poll() is None


@pytest.mark.parametrize(
    ("membership", "kind", "code", "said", "exit_code"),
    [
        (STATIC, END_TXN, PRODUCER_FENCED, TOOK_OVER, 5),
        pytest.param(STATIC, END_TXN, INVALID_PRODUCER_EPOCH, TOOK_OVER, 5, marks=SLOW),
        pytest.param(STATIC, END_TXN, INVALID_TXN_STATE, "INVALID_TXN_STATE", 1, marks=SLOW),
        pytest.param(STATIC, ADD_OFFSETS, PRODUCER_FENCED, TOOK_OVER, 5, marks=SLOW),
        pytest.param(STATIC, ADD_OFFSETS, INVALID_PRODUCER_EPOCH, TOOK_OVER, 5, marks=SLOW),
        (STATIC, ADD_OFFSETS, INVALID_TXN_STATE, "INVALID_TXN_STATE", 1),
        (DYNAMIC, END_TXN, PRODUCER_FENCED, TOOK_OVER, 5),
        (DYNAMIC, ADD_OFFSETS, INVALID_TXN_STATE, "INVALID_TXN_STATE", 1),
    ],
)
def test_a_commit_after_which_the_producer_is_dead_ends_the_process(
    answering: Answering, kind: int, code: int, said: str, exit_code: int
) -> None:
    """It rewinds nothing, says why, ends, and the next process answers what was open.

    A static one fences what was left open. A dynamic one has another name: it waits until the broker
    has ended that, after ``consumer.transaction_timeout_ms``.
    """
    answering.proxy.refuse(kind, code)
    answering.send()
    ended = answering.instance
    assert ended.wait_for_exit() == exit_code
    assert said in ended.text
    assert "Traceback" not in ended.text
    answering.start()
    answering.assert_answered()


@pytest.mark.parametrize(
    ("code", "aborts", "said"),
    [
        (KafkaError.INVALID_RECORD, 1, "OUT_OF_ORDER_SEQUENCE_NUMBER"),
        (NOT_AUTHORIZED, 0, "does not allow this user to"),
    ],
    ids=["record", "permission"],
)
def test_no_answer_is_taken_after_one_that_the_broker_refused(
    answering: Answering, code: int, aborts: int, said: str
) -> None:
    """Why, is what the broker said of that one; the transaction ends with what it had before.

    A permission ends the process at once. Otherwise the requests are answered again, by the slot's next
    process: what was refused is missing in the sequence of its partition, as this producer counts.
    """
    answering.instance.terminate()
    # What it announces every so often is among what it writes, and is not what is refused.
    ended = answering.start(CONSUMER__COMMIT_INTERVAL_MS="5000", CONSUMER__STATUS_INTERVAL_MS="100")
    answering.refuse_once(answering.harness.topics.results, PRODUCE, code)
    answering.send(1)
    wait_for("the refusal", lambda: KafkaError(code).name() in ended.text)
    answering.send()
    assert ended.wait_for_exit() == 1
    lines = ended.lines("transaction.aborted")
    assert [line["answers"] for line in lines] == [1] * aborts
    assert all(KafkaError(code).name() in line["why"] for line in lines)
    assert said in ended.text
    assert "Traceback" not in ended.text
    answering.start()
    answering.assert_answered()


def test_a_commit_whose_answer_was_lost_is_made_again(answering: Answering) -> None:
    """The broker has committed, the connection breaks before it says so, and nothing is doubled."""
    before = len(answering.aborted)
    answering.proxy.arm(Fault.LOSE_ANSWER)
    answering.send()
    assert answering.proxy.struck.wait(LIMIT_SECONDS)
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
    assert answering.proxy.struck.wait(LIMIT_SECONDS)
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
        return sum(
            reader.get_watermark_offsets(place, timeout=LIMIT_SECONDS)[1] for place in places
        )
    finally:
        reader.close()
