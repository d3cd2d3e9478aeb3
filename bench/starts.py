"""How long a consumer takes to be ready, and to be back after a kill -9."""

import threading
import time
from datetime import UTC, datetime
from pathlib import Path

from confluent_kafka import Consumer, Producer

from adapters.kafka import client_config
from adapters.settings import Settings
from bench.traffic import Steady
from deployment.commands import Abort, Release, Shift, Start, Strategy
from schemas.forecast import decode_forecast
from tests.bundles import store_bundle
from tests.control_logs import Writer
from tests.fleet import Harness, Instance, environment_of, wait_for

MODEL_BYTES = 5 * 1024 * 1024
EVENTS = 1_000
SLOTS = 2


def cold_starts(settings: Settings, folder: Path, rounds: int) -> list[float]:
    """Seconds from the spawn to readiness, just before joining: a 5 MB model, a log of 1,000 events."""
    harness = Harness(settings, environment_of(settings), "cold", folder)
    try:
        digests = [
            store_bundle(harness.store, "cold", slope, table_bytes=MODEL_BYTES)
            for slope in (1.0, 2.0)
        ]
        _write_log(settings, harness.topics.control, digests)
        seconds = []
        for _ in range(rounds):
            began = time.monotonic()
            instance = harness.start()
            instance.wait_for_line("group.join")
            seconds.append(time.monotonic() - began)
            assert instance.terminate() == 0, instance.text
        return seconds
    finally:
        harness.close()


def _write_log(settings: Settings, topic: str, digests: list[str]) -> None:
    """A champion, and a candidate that is tried and aborted again and again."""
    writer = Writer("cold")
    assert writer.give(Release(digests[0], Strategy.BLUE_GREEN, "salt", min_ready=0))
    assert writer.give(Release(digests[1], None, "salt"))
    while len(writer.records) < EVENTS:
        assert writer.give(Start(2, Strategy.CANARY, "salt", min_ready=0))
        started = writer.deployment.revision
        assert writer.give(Shift(started, 100, None, ()))
        assert writer.give(Abort(started))
    producer = Producer(client_config(settings, **{"enable.idempotence": True}))
    for record in writer.records:
        producer.produce(topic, record, partition=0)
    assert producer.flush(30) == 0


class Arrivals:
    """A thread that reads the results as a caller does, and notes the first answers since a time."""

    def __init__(self, harness: Harness) -> None:
        self.first: dict[int, float] = {}
        """By partition, when the first answer came that was scored since then."""
        self._since = datetime.max.replace(tzinfo=UTC)
        self._stopping = False
        self._consumer = Consumer(
            client_config(
                harness.settings,
                **{
                    "group.id": "bench-arrivals",
                    "enable.auto.commit": False,
                    "isolation.level": "read_committed",
                    "auto.offset.reset": "latest",
                    "fetch.wait.max.ms": 5,
                },
            )
        )
        self._consumer.subscribe([harness.topics.results])
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def look_from(self, since: datetime) -> None:
        """Note the first answers that are scored after this."""
        self.first = {}
        self._since = since

    def close(self) -> None:
        """Read no more."""
        self._stopping = True
        self._thread.join()
        self._consumer.close()

    def _run(self) -> None:
        while not self._stopping:
            for message in self._consumer.consume(500, 0.005):
                value, partition = message.value(), message.partition()
                if message.error() is not None or value is None or partition is None:
                    continue
                if decode_forecast(value).scored_at > self._since:
                    self.first.setdefault(partition, time.monotonic())


def recoveries(harness: Harness, traffic: Steady, rounds: int) -> list[float]:
    """Seconds from a kill -9 to the first answer of the victim's partitions; its slot starts at once."""
    instances = [harness.start(slot) for slot in range(SLOTS)]
    arrivals = Arrivals(harness)
    with traffic:
        seconds = [_recovery(harness, instances, arrivals) for _ in range(rounds)]
    arrivals.close()
    for instance in instances:
        assert instance.terminate() == 0, instance.text
    return seconds


def _recovery(harness: Harness, instances: list[Instance], arrivals: Arrivals) -> float:
    harness.wait_until_ready(SLOTS, 60)
    owned = _partitions_of(harness, "-0")
    arrivals.look_from(datetime.now(UTC))
    wait_for("answers", lambda: owned <= arrivals.first.keys(), 60)
    began = time.monotonic()
    instances[0].kill()
    arrivals.look_from(datetime.now(UTC))
    instances[0] = harness.start(0)
    wait_for("answers again", lambda: owned & arrivals.first.keys(), 60)
    return min(at for partition, at in arrivals.first.items() if partition in owned) - began


def _partitions_of(harness: Harness, ending: str) -> set[int]:
    [status] = [one.status for one in harness.fleet() if one.status.instance.endswith(ending)]
    return set(status.partitions)
