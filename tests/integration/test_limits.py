"""Limits: what a slow broker, a long backlog and a slow candidate may cost, and whom."""

import json
import os
from collections import defaultdict
from datetime import datetime

import psutil
import pytest
from confluent_kafka import Producer

from adapters.control_log import read_log
from deployment.commands import Shift, Start, Strategy
from schemas.events import Recorded
from schemas.fleet import InstanceStatus
from schemas.forecast import Forecast, Variant
from tests.broker_proxy import BrokerProxy
from tests.bundles import store_bundle
from tests.fleet import LIMIT_SECONDS, Harness, Instance, wait_for
from tests.traffic import good_request

pytestmark = pytest.mark.stack

MEGABYTE = 1_048_576
QUEUES = {"queued.max.messages.kbytes": "4096", "queue.buffering.max.kbytes": "8192"}
"""Small, so that what waits at the broker is many times what may wait in the process."""
ROOM = (4 + 8 + 48) * MEGABYTE
"""The queues, and room for a batch, the copies of it and what an allocator keeps."""
BACKLOG = 20_000
BATCH = 128


def _send_large(harness: Harness, count: int, size: int) -> None:
    """Requests that no compression makes smaller; their item is so long that they are rejected."""
    producer: Producer = harness.producer(**{"queue.buffering.max.kbytes": 32_768})
    for number in range(count):
        value = good_request(number, os.urandom(size // 2).hex())
        while True:
            try:
                producer.produce(harness.topics.requests, value)
                break
            except BufferError:
                producer.poll(0.05)
    assert producer.flush(LIMIT_SECONDS) == 0


@pytest.mark.parametrize(
    ("count", "size", "answers"),
    [
        (16_000, 8_000, 1_000),
        pytest.param(100_000, 4_000, 20_000, marks=pytest.mark.chaos),
    ],
)
def test_a_slow_broker_does_not_grow_the_process(
    harness: Harness, count: int, size: int, answers: int
) -> None:
    """With far more waiting than its queues hold, and answers that trickle, it stays within them."""
    _send_large(harness, count, size)
    proxy = BrokerProxy(harness.settings.kafka.bootstrap_servers)
    proxy.throttle(4 * MEGABYTE)
    harness.release(store_bundle(harness.store, harness.model, 1.0))
    instance = harness.start(
        KAFKA__BOOTSTRAP_SERVERS=proxy.address, KAFKA__PROPERTIES=json.dumps(QUEUES)
    )
    instance.wait_for_line("group.join")
    process = psutil.Process(instance.process.pid)
    before = process.memory_info().rss
    most = before

    def look() -> bool:
        nonlocal most
        assert instance.process.poll() is None, instance.text
        most = max(most, process.memory_info().rss)
        return _status(harness, instance).rejected >= answers

    wait_for(f"{answers} answers", look)
    print(f"\nresident MB: {before / MEGABYTE:.0f}, at most {most / MEGABYTE:.0f}")
    proxy.close()
    assert size * count > 2 * ROOM, "this could not fail"
    assert most - before <= ROOM


def _status(harness: Harness, instance: Instance) -> InstanceStatus:
    """What the one instance announced last."""
    assert instance.process.poll() is None, instance.text
    return wait_for("a status", lambda: [each.status for each in harness.fleet()])[-1]


def test_a_release_is_heard_far_behind(harness: Harness) -> None:
    """With a long backlog and at full load, new events do not wait for the requests before them."""
    harness.release(store_bundle(harness.store, harness.model, 1.0, layers=200))
    harness.send(BACKLOG)
    digests = [store_bundle(harness.store, harness.model, slope) for slope in (2.0, 3.0, 4.0)]
    instance = harness.start()
    wait_for("answers", lambda: any(each.status.answered for each in harness.fleet()))
    revisions = [harness.release(digest, start=False) for digest in digests]
    wait_for("the releases", lambda: _heard(instance, revisions[-1]))
    answered = len(harness.forecasts(0))
    appended = {each.event.revision: each.event.time for each in _events(harness)}
    seconds = [
        (wait_for("a line", lambda r=revision: _heard(instance, r)) - appended[revision])
        for revision in revisions
    ]
    print(
        f"\nheard after {[f'{each.total_seconds():.3f}' for each in seconds]} s, with {answered:,} of "
        f"{BACKLOG:,} requests answered"
    )
    # Whoever starves the follower lets it read when all is answered.
    assert answered < BACKLOG / 2


def _events(harness: Harness) -> list[Recorded]:
    return read_log(harness.settings, harness.model).events


def _heard(instance: Instance, revision: int) -> datetime | None:
    """When the instance read this revision, by its own clock."""
    lines = instance.lines("control.read")
    times = [each["@timestamp"] for each in lines if each["revision"] >= revision]
    return datetime.fromisoformat(times[0]) if times else None


def test_a_slow_candidate_does_not_starve_the_champion(harness: Harness) -> None:
    """Every batch answers both shares, in the order in which they came: neither waits for another."""
    harness.release(store_bundle(harness.store, harness.model, 1.0))
    instance = harness.start(CONSUMER__BATCH_SIZE=str(BATCH))
    harness.wait_until_ready()
    slow = store_bundle(harness.store, harness.model, 2.0, layers=40)
    harness.release(slow, start=False)
    started = harness.command(Start(2, Strategy.CANARY, "salt", min_ready=0))[-1].event.revision
    shifted = harness.command(Shift(started, 5_000, 0, ()))[-1].event.revision
    harness.wait_for_revision(shifted)
    harness.send(3_000)
    forecasts = harness.forecasts(3_000)
    batches: dict[object, list[Forecast]] = defaultdict(list)
    for forecast in forecasts:
        batches[forecast.scored_at].append(forecast)
    assert max(map(len, batches.values())) <= BATCH
    full = [batch for batch in batches.values() if len(batch) == BATCH]
    assert full, "nothing ever waited"
    for batch in full:
        assert {each.variant for each in batch} == {Variant.CHAMPION, Variant.CANDIDATE}
    last: dict[int, tuple[int, object]] = {}
    for batch in sorted(batches.values(), key=lambda each: each[0].scored_at):
        for each in batch:
            partition, offset = each.source.partition, each.source.offset
            at, of = last.get(partition, (-1, None))
            assert offset > at or of == each.scored_at, "an answer overtook an older request's"
            last[partition] = (max(at, offset), each.scored_at)
    assert instance.process.poll() is None
    report = harness.verify()
    assert report.clean, report.findings
