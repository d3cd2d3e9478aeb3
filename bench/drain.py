"""The real consumer as its own process, from outside: what it takes to drain a backlog."""

import time
from dataclasses import dataclass
from pathlib import Path

import psutil
from confluent_kafka import Consumer, TopicPartition

from adapters.kafka import client_config
from adapters.stream_config import group_of
from tests.fleet import Harness, Instance

LOOK_SECONDS = 0.02

WARM_FROM, WARM_TO = 0.2, 0.95
"""The part of the backlog that is measured: before it the process starts, after it batches shrink."""

PATIENCE_SECONDS = 300.0

MEGABYTE = 1024 * 1024


@dataclass(frozen=True)
class Drained:
    """Microseconds a message in the warm part; ``cpu`` of the whole process with its threads."""

    cpu: float
    wall: float
    main: float
    client: float
    """Of ``cpu``, what the Kafka clients' own threads took."""
    resident_mb: float


@dataclass(frozen=True)
class _Look:
    answered: int
    wall: float
    cpu: dict[str, float]
    """Seconds by thread: ``main``, ``client``, ``other``; and ``all``."""


class Progress:
    """How many requests a model's group has answered: the sum of its committed offsets."""

    def __init__(self, harness: Harness) -> None:
        count = harness.settings.topics.partitions
        self._places = [TopicPartition(harness.topics.requests, each) for each in range(count)]
        self._consumer = Consumer(
            client_config(harness.settings, **{"group.id": group_of(harness.model)})
        )

    def answered(self) -> int:
        """As the broker has it now."""
        committed = self._consumer.committed(self._places, timeout=10)
        return sum(max(each.offset, 0) for each in committed)

    def close(self) -> None:
        """Ask no more."""
        self._consumer.close()


def drain(harness: Harness, instance: Instance, first: int, count: int) -> Drained:
    """Watch the instance, just started, answer ``count`` requests after the ``first`` ones."""
    progress = Progress(harness)
    process = psutil.Process(instance.process.pid)
    deadline = time.monotonic() + PATIENCE_SECONDS
    looks: list[_Look] = []
    try:
        while not looks or looks[-1].answered < first + count:
            assert instance.process.poll() is None, instance.text
            assert time.monotonic() < deadline, instance.text
            answered = progress.answered()
            looks.append(_Look(answered, time.monotonic(), _cpu_of(process)))
            time.sleep(LOOK_SECONDS)
    finally:
        progress.close()
    warm = [look for look in looks if WARM_FROM <= (look.answered - first) / count <= WARM_TO]
    assert len(warm) > 1, f"{count} requests are too few to measure"
    begin, end = warm[0], warm[-1]
    messages = end.answered - begin.answered
    spent = {name: seconds - begin.cpu[name] for name, seconds in end.cpu.items()}
    return Drained(
        cpu=spent["all"] / messages * 1e6,
        wall=(end.wall - begin.wall) / messages * 1e6,
        main=spent["main"] / messages * 1e6,
        client=spent["client"] / messages * 1e6,
        resident_mb=process.memory_info().rss / MEGABYTE,
    )


def _cpu_of(process: psutil.Process) -> dict[str, float]:
    """CPU-seconds so far by kind of thread, and of the whole process."""
    whole = process.cpu_times()
    seconds = {"all": whole.user + whole.system, "main": 0.0, "client": 0.0, "other": 0.0}
    for thread in process.threads():
        seconds[_kind_of(process.pid, thread.id)] += thread.user_time + thread.system_time
    return seconds


def _kind_of(process: int, thread: int) -> str:
    if thread == process:
        return "main"
    try:
        name = Path(f"/proc/{process}/task/{thread}/comm").read_text()
    except OSError:
        return "other"
    return "client" if name.startswith("rdk:") else "other"
