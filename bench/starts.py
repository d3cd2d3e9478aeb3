"""How long a consumer takes to be ready, and to be back after a kill -9."""

import os
import signal
import time
from pathlib import Path

from confluent_kafka import Producer

from adapters.kafka import client_config
from adapters.settings import Settings
from bench.answers import Answers
from bench.traffic import Steady
from deployment.commands import Abort, Release, Shift, Start, Strategy
from tests.bundles import store_bundle
from tests.control_logs import Writer
from tests.fleet import Harness, Instance, environment_of, wait_for

MODEL_BYTES = 5 * 1024 * 1024
EVENTS = 1_000
SLOTS = 2
VICTIM = 0


def cold_starts(settings: Settings, folder: Path, rounds: int) -> list[float]:
    """Seconds from the spawn to readiness, just before joining: a 5 MB model, a log of 1,000 events.

    Each start has a cache of its own, with nothing in it: the bundle is fetched and tried every time.
    """
    harness = Harness(settings, environment_of(settings), "cold", folder)
    try:
        digests = [
            store_bundle(harness.store, "cold", slope, table_bytes=MODEL_BYTES)
            for slope in (1.0, 2.0)
        ]
        _write_log(settings, harness.topics.control, digests)
        seconds = []
        for number in range(rounds):
            cache = folder / f"cache-{number}"
            began = time.monotonic()
            instance = harness.start(CONSUMER__CACHE_DIR=str(cache))
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


def recoveries(harness: Harness, traffic: Steady, rounds: int) -> list[float]:
    """Seconds from a kill -9 to the first answer of the victim's partitions, scored since; its supervisor
    (``modelwire consume --workers``) starts its slot again."""
    supervisor = harness.start(0, "--workers", str(SLOTS))
    answers = Answers(harness)
    with traffic:
        seconds = [_recovery(harness, supervisor, answers) for _ in range(rounds)]
    answers.close()
    assert supervisor.terminate(30) == 0, supervisor.text
    return seconds


def _recovery(harness: Harness, supervisor: Instance, answers: Answers) -> float:
    harness.wait_until_ready(SLOTS, 60)
    owned = _partitions_of(harness, f"-{VICTIM}")
    answers.take()
    wait_for("answers", lambda: owned <= {each.partition for each in answers.seen}, 60)
    started = [line for line in supervisor.lines("slot.started") if line["slot"] == VICTIM]
    os.kill(int(started[-1]["pid"]), signal.SIGKILL)
    killed = time.time()
    answers.take()

    def since() -> list[float]:
        return [
            each.arrived
            for each in answers.seen
            if each.partition in owned and each.scored > killed
        ]

    return min(wait_for("answers again", since, 60)) - killed


def _partitions_of(harness: Harness, ending: str) -> set[int]:
    [status] = [one.status for one in harness.fleet() if one.status.instance.endswith(ending)]
    return set(status.partitions)
