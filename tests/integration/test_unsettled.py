"""A transaction that nobody ends keeps the offsets of a partition back: the others are answered."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from adapters.stream_config import group_of
from tests.bundles import store_bundle
from tests.fleet import LIMIT_SECONDS, PARTITIONS, Harness, wait_for

pytestmark = pytest.mark.stack

HELD = 1
OTHERS = PARTITIONS - 1


@contextmanager
def _open_transaction(harness: Harness, partition: int) -> Iterator[None]:
    """Somebody has answered requests of this partition, and does not say what becomes of it.

    At the end of the block the transaction is aborted.
    """
    servers = {"bootstrap.servers": harness.settings.kafka.bootstrap_servers}
    consumer = Consumer(servers | {"group.id": group_of(harness.model)})
    producer = Producer(servers | {"transactional.id": f"{harness.model}-dead"})
    producer.init_transactions(30)
    producer.begin_transaction()
    place = TopicPartition(harness.topics.requests, partition, 1_000_000)
    producer.send_offsets_to_transaction([place], consumer.consumer_group_metadata(), LIMIT_SECONDS)
    try:
        yield
    finally:
        producer.abort_transaction(30)
        consumer.close()


@pytest.mark.parametrize("membership", ["static", "dynamic"])
def test_a_partition_that_is_kept_back_stops_no_other(harness: Harness, membership: str) -> None:
    """Its requests wait, in order, and are answered once the transaction has ended."""
    harness.release(store_bundle(harness.store, harness.model, 1.0))
    first = harness.start(CONSUMER__MEMBERSHIP=membership)
    harness.wait_until_ready()
    harness.send(200)
    before = harness.forecasts(200)
    assert first.terminate() == 0
    with _open_transaction(harness, HELD):
        second = harness.start(CONSUMER__MEMBERSHIP=membership)
        harness.send(200)
        expected = len(before) + sum(each.source.partition != HELD for each in before)
        forecasts = harness.forecasts(expected)
        held = [each for each in forecasts if each.source.partition == HELD]
        assert len(held) == len(before) - (expected - len(before))
        [sighting] = [each for each in harness.fleet() if each.alive]
        assert len(sighting.status.partitions) == OTHERS
        wait_for("a complaint", lambda: second.lines("partitions.unsettled"))
        assert second.lines("partitions.unsettled")[0]["partitions"] == [HELD]
    assert len(harness.forecasts(400)) == 400
    assert second.terminate() == 0
    report = harness.verify()
    assert report.clean, report.findings
