"""A consumer that starts late: years of decisions lie in the control log, and it answers soon."""

from datetime import datetime

import pytest

from adapters.control_log import read_log
from deployment.commands import Release, Strategy
from tests.bundles import store_bundle
from tests.control_logs import write_log
from tests.fleet import Harness, Instance

pytestmark = pytest.mark.stack

EVENTS = 10_000
LONGEST_SECONDS = 60.0
"""What the start may take, from its first line to the snapshot that answers, however busy the machine is.
About 1.5 s is usual; ``bench.fold`` measures."""


def test_a_consumer_bootstraps_from_ten_thousand_events(harness: Harness) -> None:
    """It loads what the newest revision asks for and none of the versions before, and it answers."""
    revision = fill_control_log(harness)
    ledger = read_log(harness.settings, harness.model)
    assert ledger.deployment.revision == revision >= EVENTS
    instance = harness.start()
    harness.wait_until_ready()
    applied = instance.wait_for_line("snapshot.applied")
    assert applied["revision"] == revision
    seconds = at(instance, "snapshot.applied") - at(instance, "consumer.start")
    print(f"bootstrapped from {revision:,} events in {seconds:.2f} s")
    assert seconds <= LONGEST_SECONDS
    champion = ledger.deployment.champion
    assert champion is not None
    prepared = [line["version"] for line in instance.lines("model.prepared")]
    assert prepared == [champion]
    harness.send(100)
    assert {each.revision for each in harness.forecasts(100)} == {revision}


def fill_control_log(harness: Harness) -> int:
    """Write a long log whose last events make a stored bundle champion; returns its last revision."""
    written = write_log(harness.model, EVENTS, seed=1)
    digest = store_bundle(harness.store, harness.model, 2.0)
    assert written.give(Release(digest, Strategy.BLUE_GREEN, "salt", "the one that answers"))
    own = {"transactional.id": harness.topics.control, "message.timeout.ms": 30_000}
    producer = harness.producer(**own)
    producer.init_transactions(30)
    producer.begin_transaction()
    for raw in written.records:
        producer.produce(harness.topics.control, raw, partition=0)
        producer.poll(0)
    producer.commit_transaction(30)
    return len(written.records)


def at(instance: Instance, event: str) -> float:
    """The time of the first line of this event, in seconds."""
    return datetime.fromisoformat(instance.wait_for_line(event)["@timestamp"]).timestamp()
