"""What the answering loop cannot be faster than, each measured in a process of its own.

``runtime``: ONNX Runtime alone. The released model runs on the rows of its own holdout, batched and
padded as the loop does it. The same process then takes requests through ``scoring.batch.answer`` and
notes where the time goes.

``through``: the same requests consumed and produced again byte for byte, exactly once, with the loop's
clients, batches and commits, and nothing in between.

Each prints one JSON object of microseconds a message. They are CPU time of the whole process, its
threads included, but for the stages, which are what the main thread spent. ``bench.loop`` starts both.
"""

import dataclasses
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import click
import msgspec
from confluent_kafka import Consumer, Message, Producer, TopicPartition

from adapters.bundles import read_file, read_manifest
from adapters.kafka import topic_names
from adapters.object_store import open_store
from adapters.onnx_model import load_onnx_model
from adapters.settings import Settings, load_settings
from adapters.stream_config import consumer_config, producer_config, record_limit
from bench.traffic import good_requests, held_out
from deployment.routing import Routing
from schemas.manifest import MODEL_NAME
from schemas.request import decode_request
from scoring.batch import Incoming, answer
from scoring.model import Array
from scoring.snapshot import LoadedVersion, Snapshot, load

BATCH_SIZES = (512, 256)

ROWS = 20_480
"""Distinct requests that are scored again and again."""

WARM_SHARE = 0.2
"""The part of the messages at the beginning that is not measured."""

ANY_SIZE = 1_000_000
"""A limit that no request here comes to, in bytes."""

MICRO = 1e6


@dataclass
class Clock:
    """Adds up the time between marks by stage. A stage is what ends at its mark."""

    now: Callable[[], float]
    seconds: dict[str, float] = field(default_factory=dict)
    at: float = 0.0

    def begin(self) -> None:
        """What comes next is timed."""
        self.at = self.now()

    def mark(self, stage: str) -> None:
        """What came since the last mark was this stage."""
        now = self.now()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self.at
        self.at = now

    def around(self, before: str, after: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """``call``, timed: what came before it counts for one stage, it for the other."""

        def timed(*arguments: Any) -> Any:
            self.mark(before)
            result = call(*arguments)
            self.mark(after)
            return result

        return timed

    def per_message(self, count: int) -> dict[str, float]:
        """Microseconds a message by stage."""
        return {stage: seconds / count * MICRO for stage, seconds in self.seconds.items()}


@dataclass(frozen=True)
class Timed:
    """A model with runs that are timed."""

    run: Callable[[Mapping[str, Array], Sequence[str]], list[Array]]


@click.group()
def limits() -> None:
    """Measure one limit."""


@limits.command()
@click.option("--digest", required=True)
@click.option("--messages", type=int, required=True)
def runtime(digest: str, messages: int) -> None:
    """ONNX Runtime alone, and the stages of an answer."""
    settings = load_settings()
    store = open_store(settings.store_url, settings.s3_settings)
    manifest = read_manifest(store, digest)
    model = load_onnx_model(read_file(store, digest, manifest, MODEL_NAME))
    version = load(1, digest, manifest.contract, model)
    requests = itertools.islice(good_requests(held_out(store, digest)), ROWS)
    incoming = [
        Incoming("requests", number % 8, number, 1_700_000_000_000, key, value)
        for number, (key, value) in enumerate(requests)
    ]
    # In the order in which they are asked for: it decides what the CPU's caches hold.
    rows = [version.decode(bytes(decode_request(each.value, ANY_SIZE).inputs)) for each in incoming]
    alone = {f"ort {size}": _run_alone(version, rows, size, messages) for size in BATCH_SIZES}
    snapshot = Snapshot(
        manifest.model, 1, "", Routing(champion=1, candidate=None, weight=0, salt=""), version, None
    )
    click.echo(msgspec.json.encode(alone | _stages(snapshot, incoming, messages)))


def _run_alone(version: LoadedVersion, rows: Sequence[Any], size: int, messages: int) -> float:
    feeds = [version.gather(batch) for batch in _batches(rows, size)]
    rounds = max(messages // (len(feeds) * size), 1)
    began = 0.0
    for number in range(rounds + 1):
        if number == 1:
            began = time.process_time()
        for each in feeds:
            version.model.run(each, version.output_tensors)
    return (time.process_time() - began) / (rounds * len(feeds) * size) * MICRO


def _batches(things: Sequence[Any], size: int) -> list[Sequence[Any]]:
    """Whole batches; what is left over is left out."""
    return [things[at : at + size] for at in range(0, len(things) - size + 1, size)]


def _stages(snapshot: Snapshot, incoming: Sequence[Incoming], messages: int) -> dict[str, float]:
    """Where the time of an answer goes: decode, gather, score, read, encode."""
    clock = Clock(time.thread_time)
    version = snapshot.champion
    timed = dataclasses.replace(
        version,
        gather=clock.around("decode", "gather", version.gather),
        model=Timed(clock.around("gather", "score", version.model.run)),
        read_outputs=clock.around("score", "read", version.read_outputs),
    )
    watched = dataclasses.replace(snapshot, champion=timed)
    batches = _batches(incoming, BATCH_SIZES[0])
    rounds = max(messages // (len(batches) * BATCH_SIZES[0]), 1)
    for number in range(rounds + 1):
        if number == 1:
            clock.seconds.clear()
        for batch in batches:
            clock.begin()
            answer(
                watched,
                batch,
                scored_at=datetime.now(UTC),
                instance="modelwire-bench-0",
                max_answer_bytes=ANY_SIZE,
            )
            clock.mark("encode")
    return clock.per_message(rounds * len(batches) * BATCH_SIZES[0])


@limits.command()
@click.option("--model", required=True, help="Whose requests are read.")
@click.option("--into", required=True, help="The model whose results the copies are.")
@click.option("--messages", type=int, required=True, help="How many to copy.")
def through(model: str, into: str, messages: int) -> None:
    """Requests copied to another topic, exactly once."""
    click.echo(msgspec.json.encode(Copier(load_settings(), model, into).run(messages)))


class Copier:
    """The loop without its middle: what is in hand is one batch, and one transaction is open."""

    def __init__(self, settings: Settings, model: str, into: str) -> None:
        self._settings = settings.consumer
        self._requests = topic_names(settings, model).requests
        self._results = topic_names(settings, into).results
        self._next: dict[int, int] = {}
        self._clock = Clock(time.thread_time)
        config = consumer_config(settings, into, into) | {"auto.offset.reset": "earliest"}
        self._consumer = Consumer(config)
        self._consumer.subscribe([self._requests])
        self._producer = Producer(producer_config(settings, into, record_limit(settings)))
        self._producer.init_transactions()

    def run(self, messages: int) -> dict[str, float]:
        """Copy so many requests; the figures are those of all but the first ones."""
        skipped = self._copy(int(messages * WARM_SHARE))
        self._clock.seconds.clear()
        cpu, wall = time.process_time(), time.perf_counter()
        count = self._copy(messages - skipped)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        self._consumer.close()
        stages = self._clock.per_message(count)
        return {"cpu": cpu / count * MICRO, "wall": wall / count * MICRO, **stages}

    def _copy(self, messages: int) -> int:
        """Copy so many requests or up to a transaction more, and commit; returns how many."""
        settings = self._settings
        copied = 0
        while copied < messages:
            self._producer.begin_transaction()
            began = time.monotonic()
            written = 0
            while written < settings.commit_every and (
                not written or time.monotonic() < began + settings.commit_interval_ms / 1_000
            ):
                self._clock.begin()
                found = self._consumer.consume(1, 0.1)
                wait = settings.batch_wait_ms / 1_000
                found += self._consumer.consume(settings.batch_size - 1, wait) if found else []
                self._clock.mark("consume")
                self._write(found)
                self._clock.mark("produce")
                written += len(found)
            self._commit()
            self._clock.mark("commit")
            copied += written
        return copied

    def _write(self, found: list[Message]) -> None:
        for message in found:
            partition, offset = message.partition() or 0, message.offset() or 0
            self._producer.produce(self._results, message.value(), message.key(), partition)
            self._next[partition] = offset + 1
        self._producer.poll(0)

    def _commit(self) -> None:
        offsets = [TopicPartition(self._requests, p, at) for p, at in self._next.items()]
        member = self._consumer.consumer_group_metadata()
        self._producer.send_offsets_to_transaction(offsets, member, 30)
        self._producer.commit_transaction(30)
        self._next.clear()


if __name__ == "__main__":
    limits()
