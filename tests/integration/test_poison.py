"""Poison on a real broker: every class in a stream of good requests, each with its own answer."""

import json
import time
from collections import Counter
from collections.abc import Iterable

import pytest
from confluent_kafka import Consumer, TopicPartition

from modelwire.checker import Report
from schemas.rejection import ENVELOPE_HEADER
from tests.fleet import LIMIT_SECONDS, PARTITIONS, Harness
from tests.poison import GOOD, POISON, Poison, request
from tests.poison_bundle import store_poison_bundle

pytestmark = pytest.mark.stack

LARGE = 4_096
"""Bytes above which a class is sent less often in the long form: the log is not what is tested."""

Place = tuple[int, int]
"""Partition and offset of a request."""


def test_each_class_is_rejected_with_its_reason_in_the_same_transaction(harness: Harness) -> None:
    """Between good requests, in one transaction with their forecasts, with its bytes kept."""
    values: list[bytes | None] = []
    sent: dict[Place, tuple[Poison, bytes | None]] = {}
    for number, poison in enumerate(POISON):
        values += [request(number), poison.make(number)]
        sent[0, len(values) - 1] = poison, values[-1]
    values += [good.make(7) for good in GOOD]
    harness.send_raw(values)
    harness.release(store_poison_bundle(harness.store, harness.model))
    # The commit comes after the last of them.
    harness.start(CONSUMER__COMMIT_EVERY=str(len(values)), CONSUMER__COMMIT_INTERVAL_MS="5000")
    check_rejections(harness, sent)
    assert len(harness.forecasts(len(values) - len(sent))) == len(values) - len(sent)
    assert end_of(harness, harness.topics.rejections, 0) == len(sent) + 1, "not one transaction"
    assert end_of(harness, harness.topics.results, 0) == len(values) - len(sent) + 1
    check(harness.verify(), len(values), len(sent))
    said = harness.run("rejections", "list", harness.model, "-o", "json", "--limit", "1")
    assert json.loads(said)["matched"] == len(sent)


@pytest.mark.chaos
@pytest.mark.timeout(900)
def test_a_flood_of_each_class_among_100_000_good_requests(harness: Harness) -> None:
    """500 of each class (50 of the large ones), over all partitions, and nobody is left without."""
    harness.release(store_poison_bundle(harness.store, harness.model))
    harness.start()
    harness.start(1)
    harness.wait_until_ready(2)
    sent: dict[Place, tuple[Poison, bytes | None]] = {}
    total = 0
    producer = harness.producer()
    began = time.monotonic()
    for partition, value, poison in flood(100_000):
        while True:
            try:
                producer.produce(harness.topics.requests, value, b"key", partition)
                break
            except BufferError:
                producer.poll(0.1)
        if poison is not None:
            sent[partition, total // PARTITIONS] = poison, value
        total += 1
    assert producer.flush(LIMIT_SECONDS) == 0
    check_rejections(harness, sent, seconds=300)
    check(harness.verify(), total, len(sent))
    by_reason = Counter(poison.reason.value for poison, _ in sent.values())
    print(
        f"\n{total:,} requests, {len(sent):,} of {len(POISON)} classes of poison among them, each "
        f"answered with its reason, in {time.monotonic() - began:.0f} s: "
        + ", ".join(f"{reason} {count:,}" for reason, count in sorted(by_reason.items()))
    )


def flood(good: int) -> Iterable[tuple[int, bytes | None, Poison | None]]:
    """Partition by partition in turn, good requests with poison spread evenly between them."""
    poison = [
        each
        for number in range(500)
        for each in POISON
        if number < 50 or len(each.make(0) or b"") <= LARGE
    ]
    turn = place = 0
    for number in range(good):
        yield turn % PARTITIONS, request(number), None
        turn += 1
        while place < len(poison) * (number + 1) // good:
            yield turn % PARTITIONS, poison[place].make(place), poison[place]
            place, turn = place + 1, turn + 1


def check_rejections(
    harness: Harness, sent: dict[Place, tuple[Poison, bytes | None]], seconds: float = 30.0
) -> None:
    """Exactly one rejection for each, with its reason, its key, and its bytes where it has any."""
    found = harness.rejections(len(sent), seconds)
    assert len(found) == len(sent)
    by_place = {(r.rejection.source.partition, r.rejection.source.offset): r for r in found}
    assert by_place.keys() == sent.keys()
    for place, (poison, value) in sent.items():
        rejected = by_place[place]
        said = rejected.rejection
        assert said.reason == poison.reason, (poison.name, said.detail)
        assert said.detail
        assert rejected.key == b"key"
        assert (ENVELOPE_HEADER in rejected.headers) == (not value), poison.name
        assert not value or rejected.value == value, poison.name


def check(report: Report, requests: int, rejections: int) -> None:
    """The checker finds one right answer for each."""
    assert report.clean, report.findings
    assert (report.requests, report.rejections) == (requests, rejections)


def end_of(harness: Harness, topic: str, partition: int) -> int:
    """The offset behind the last record of a partition; each transaction there takes one more."""
    consumer = Consumer(
        {"bootstrap.servers": harness.settings.kafka.bootstrap_servers, "group.id": "ends"}
    )
    try:
        return consumer.get_watermark_offsets(
            TopicPartition(topic, partition), timeout=LIMIT_SECONDS
        )[1]
    finally:
        consumer.close()
