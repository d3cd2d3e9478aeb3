"""Measures what poison costs: how many good requests are answered with as much poison among them.

For each class of ``tests.poison``, CPU time of the answering thread: microseconds of a bad request
(answering it, making its record, handing it to the client), the same by its bytes, and the share of the
good requests a second that is left when every second request is poison of this class. Last comes the
share that is left when the poison is of all classes in equal numbers, and which classes alone would
leave less than a half.

The good requests here are scored by a model that costs next to nothing. What a real one costs a row is
added (``--row``; 3.9 µs is the sales model's). The client has no broker: what its own threads do is not
counted, for good requests and bad alike, and neither is fetching, which both need.
"""

import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import click
import msgspec
import onnxruntime as ort
from confluent_kafka import Producer
from rich.console import Console
from rich.table import Table

from consumer.outgoing import rejection_record
from deployment.routing import Routing
from scoring.batch import ForecastAnswer, Incoming, answer
from scoring.model import Array
from scoring.snapshot import Snapshot, load
from tests.poison import POISON, Poison, request
from tests.poison_bundle import contract, graph

BATCH = 256
"""Good requests of a run, and as many bad ones."""

RECORD_LIMIT = 1_000_000
MOST_BYTES = 16 * 1024 * 1024
"""Of a run's poison: a large class has fewer requests."""

HALF = 0.5
"""What a flood of as many bad requests as good ones must leave."""

PLAIN_WIDTH = 110
"""Columns of a table that goes to a file or a pipe."""

NOON = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Cost:
    """What a class of poison costs. ``left`` is the share of the good requests a second."""

    name: str
    reason: str
    size: int
    microseconds: float
    nanoseconds_a_byte: float
    left: float


class Shelves:
    """The bundle's model, on one thread as consumers run it."""

    def __init__(self) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 4
        self._session = ort.InferenceSession(graph(), options)

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        """The outputs for ``feeds``."""
        given: list[Array] = self._session.run(list(outputs), dict(feeds))
        return given


class Loop:
    """The part of the answering loop that costs by the request, without a broker."""

    def __init__(self) -> None:
        version = load(1, f"sha256:{1:064x}", contract(), Shelves())
        self._snapshot = Snapshot("sales", 5, "log:5:head", Routing(1, None, 0, ""), version, None)

    def seconds(self, values: Sequence[bytes | None], rounds: int) -> float:
        """CPU seconds of this thread for these requests as one batch: the best of the rounds."""
        batch = [
            Incoming("sales.requests", 0, place, 1_500_000_000_000, b"key", value)
            for place, value in enumerate(values)
        ]
        return min(self._round(batch) for _ in range(rounds))

    def _round(self, batch: list[Incoming]) -> float:
        producer = Producer({"bootstrap.servers": "127.0.0.1:1", "log_level": 0})
        began = time.thread_time()
        answers = answer(
            self._snapshot,
            batch,
            scored_at=NOON,
            instance="modelwire-sales-0",
            max_answer_bytes=RECORD_LIMIT,
        )
        for each in answers:
            if isinstance(each, ForecastAnswer):
                producer.produce("results", each.value, each.incoming.key, 0)
            else:
                record = rejection_record(each, RECORD_LIMIT)
                headers: list[tuple[str, str | bytes | None]] = [*record.headers]
                producer.produce("rejections", record.value, record.key, headers=headers)
        took = time.thread_time() - began
        producer.purge()
        producer.flush(1)
        return took


def measure(
    loop: Loop, poison: Poison, alone: float, good: list[bytes], rounds: int, row: float
) -> Cost:
    """The cost of a class; ``alone`` are the seconds of the good requests without it, and ``row`` the
    microseconds that a real model takes for one more than this one."""
    size = len(poison.make(0) or b"")
    count = min(len(good), max(MOST_BYTES // max(size, 1), 1))
    mixed: list[bytes | None] = []
    for place in range(count):
        mixed += [good[place], poison.make(place)]
    share = alone * count / len(good)
    each = max(loop.seconds(mixed, rounds) - share, 1e-9) / count
    a_good_one = alone / len(good) + row / 1e6
    return Cost(
        name=poison.name,
        reason=poison.reason.value,
        size=size,
        microseconds=each * 1e6,
        nanoseconds_a_byte=each * 1e9 / max(size, 1),
        left=a_good_one / (a_good_one + each),
    )


@click.command()
@click.option("--rounds", default=20, show_default=True, help="The best of so many counts.")
@click.option("--row", default=3.9, show_default=True, help="Microseconds of a real model's row.")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table")
def poison(rounds: int, row: float, output: str) -> None:
    """Measure what each class of poison costs."""
    loop = Loop()
    good = [request(number) for number in range(BATCH)]
    alone = loop.seconds(good, rounds)
    costs = [measure(loop, each, alone, good, rounds, row) for each in POISON]
    costs.sort(key=lambda cost: -cost.microseconds)
    good_us = alone / BATCH * 1e6 + row
    mean_us = statistics.fmean(cost.microseconds for cost in costs)
    left = good_us / (good_us + mean_us)
    halving = [cost.name for cost in costs if cost.left < HALF]
    if output == "json":
        report = {"good_microseconds": good_us, "left": left, "halving": halving, "poison": costs}
        click.echo(msgspec.json.encode(report))
        return
    table = Table(
        title=f"Poison: CPU of a bad request; a good one of {len(good[0])} bytes takes "
        f"{good_us:.2f} µs ({1e6 / good_us:,.0f} a second)"
    )
    for column in ("class", "reason", "bytes", "µs", "ns a byte", "good requests left"):
        table.add_column(column, justify="left" if column in ("class", "reason") else "right")
    for cost in costs:
        table.add_row(
            cost.name,
            cost.reason,
            f"{cost.size:,}",
            f"{cost.microseconds:.2f}",
            f"{cost.nanoseconds_a_byte:.2f}" if cost.size > 1_000 else "",
            f"{cost.left:.0%}",
        )
    Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH).print(table)
    click.echo(f"all classes in equal numbers: {left:.0%} of the good requests a second are left")
    click.echo(f"below {HALF:.0%} by themselves: {', '.join(halving) or 'none'}")


if __name__ == "__main__":
    poison()
