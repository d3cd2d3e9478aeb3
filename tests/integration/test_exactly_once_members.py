"""One answer each, whatever becomes of the members: frozen, taken over, handed more.

They are real processes on a real broker. The shipped checker judges what was answered.
"""

import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from adapters.stream_config import group_of
from tests.broker_proxy import BrokerProxy, Fault
from tests.bundles import store_bundle
from tests.fleet import LIMIT_SECONDS, PARTITIONS, Harness, environment_of, wait_for

pytestmark = pytest.mark.stack

SLOW = pytest.mark.chaos


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
            assert proxy.struck.wait(LIMIT_SECONDS)
        before = len(frozen.lines("partitions.assigned"))
        frozen.process.send_signal(signal.SIGSTOP)
        wait_for("one instance with all partitions", lambda: _owned_by_one(harness))
        if held:
            harness.forecasts(stream.sent)  # by then the broker ended what was open
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


def test_a_transaction_outlives_an_assignment_whose_offsets_are_kept_back(
    harness: Harness,
) -> None:
    """What is committed of new partitions is asked for in its midst; nothing has to end for that."""
    patient = {
        "CONSUMER__MEMBERSHIP": "dynamic",
        "CONSUMER__COMMIT_INTERVAL_MS": "5000",  # so that one is open whenever requests come
        "CONSUMER__COMMIT_EVERY": "100000",
    }
    harness.release(store_bundle(harness.store, harness.model, 1.0))
    staying, leaving = harness.start(0, **patient), harness.start(1, **patient)
    wait_for("partitions for both", lambda: _shares(harness) == [2, 2])
    before = len(staying.lines("partitions.assigned"))
    with harness.stream(200) as stream:
        wait_for("some requests", lambda: stream.sent > 100)
        with _offsets_kept_back(harness):
            assert leaving.terminate() == 0
            wait_for("more partitions", lambda: len(staying.lines("partitions.assigned")) > before)
    report = harness.verify()
    assert report.clean, report.findings
    assert not staying.lines("transaction.aborted")
    assert staying.process.poll() is None, staying.text


def _shares(harness: Harness) -> list[int]:
    """How many partitions each live instance has."""
    return [len(each.status.partitions) for each in harness.fleet() if each.alive]


@contextmanager
def _offsets_kept_back(harness: Harness) -> Iterator[None]:
    """For the time of the block a stranger's transaction is open that has offsets of all partitions."""
    servers = {"bootstrap.servers": harness.settings.kafka.bootstrap_servers}
    consumer = Consumer(servers | {"group.id": group_of(harness.model)})
    producer = Producer(servers | {"transactional.id": f"{harness.model}-stranger"})
    producer.init_transactions(LIMIT_SECONDS)
    producer.begin_transaction()
    places = [
        TopicPartition(harness.topics.requests, each, 1_000_000) for each in range(PARTITIONS)
    ]
    producer.send_offsets_to_transaction(places, consumer.consumer_group_metadata(), LIMIT_SECONDS)
    try:
        yield
    finally:
        producer.abort_transaction(LIMIT_SECONDS)
        consumer.close()
