"""Measures what many swaps do to one consumer under load: its memory, and how long its loop stands still.

One instance answers a steady stream on a stack of its own while a model is swapped again and again, each
from a new bundle of trees that is fetched, tried, loaded and dropped again. The consumer has one core,
for the trials too, and the servers have another, where there are two. In turns come a quiet second and a
swap, from the command to some time after the first answer under it.

Memory: resident MB after each swap, and the growth per hundred swaps, which is the slope of a straight
line through the readings after the first hundred (the first third, where there are fewer swaps). A single
reading depends on the moment.

Stalls: all forecasts of a batch have the time at which it was scored, so those times are the turns of the
loop. For each batch it is taken how long the loop could have scored it and did not: from the later of
its first request's time and the batch before, to its own. Batches fill for some milliseconds and commits
wait for the broker, in quiet seconds too, so what a swap costs is the difference of the two p99.9. Its
interval of 95 % is a bootstrap over the pairs of a swap and the quiet second before it.

A request's time has whole milliseconds, so a wait is up to 1 ms too long, with swaps and without alike.
"""

import itertools
import random
import statistics
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import msgspec
import psutil
from rich.console import Console
from rich.table import Table

from adapters.settings import load_settings
from bench.answers import Answers, Seen
from bench.cores import Cores
from bench.traffic import Steady
from modelwire.localstack.stack import Stack
from tests.bundles import store_bundle
from tests.fleet import Harness, Instance, environment_of, wait_for
from tests.traffic import KEYS, good_request

MODEL = "bench"
MEGABYTE = 1e6

SETTLED = 100
"""Swaps before memory is compared: arenas and caches fill first."""

QUIET_SECONDS = 1.0
AFTERMATH_SECONDS = 0.3
"""After the first answer of a swap, in which the model before is dropped."""

READER_SECONDS = 0.5
"""How long an answer may take to the reader: what was scored in a window is in hand by then."""

COMMIT_MS = 10
RESAMPLES = 500
QUANTILES = (0.5, 0.99, 0.999)


@dataclass(frozen=True)
class Pair:
    """A swap and the quiet second before it: the waits of each one's batches, in seconds."""

    without: list[float]
    during: list[float]
    resident: int
    """Bytes after the swap."""
    swap_seconds: float


class _Bench:
    """One run."""

    def __init__(self, harness: Harness, megabytes: int, cores: Cores) -> None:
        self._harness = harness
        self._cores = cores
        self._trees_bytes = megabytes * 1024 * 1024
        self._answers = Answers(harness)

    def run(self, swaps: int, rate: int) -> list[Pair]:
        """The pairs, in order."""
        harness = self._harness
        harness.release(self._bundle(0))
        with self._cores.measured():
            consumer = harness.start(CONSUMER__COMMIT_INTERVAL_MS=str(COMMIT_MS))
        harness.wait_until_ready()
        requests = ((KEYS[n % len(KEYS)], good_request(n, "a")) for n in itertools.count())
        servers = harness.settings.kafka.bootstrap_servers
        with Steady(servers, harness.topics.requests, requests, rate):
            wait_for("answers", lambda: len(self._answers.seen) > rate)
            pairs = [self._pair(consumer, number) for number in range(1, swaps + 1)]
        self._answers.close()
        report = harness.verify()
        assert report.clean, report.findings
        return pairs

    def _pair(self, consumer: Instance, number: int) -> Pair:
        digest = self._bundle(number)
        begin = time.time()
        time.sleep(QUIET_SECONDS)
        released = time.time()
        revision = self._harness.release(digest)
        answers = self._answers
        wait_for(
            f"an answer at revision {revision}",
            lambda: bool(answers.seen) and answers.seen[-1].revision >= revision,
        )
        answered = time.time()
        time.sleep(AFTERMATH_SECONDS)
        end = time.time()
        time.sleep(READER_SECONDS)
        seen = self._answers.take()
        return Pair(
            without=waits(seen, begin, released),
            during=waits(seen, released, end),
            resident=psutil.Process(consumer.process.pid).memory_info().rss,
            swap_seconds=answered - released,
        )

    def _bundle(self, number: int) -> str:
        return store_bundle(
            self._harness.store, MODEL, float(number), trees_bytes=self._trees_bytes
        )


def waits(seen: Iterable[Seen], begin: float, end: float) -> list[float]:
    """How long each batch that was scored in this time waited for the loop, in seconds."""
    oldest: dict[float, float] = {}
    for each in seen:
        oldest[each.scored] = min(each.asked, oldest.get(each.scored, each.asked))
    scored = sorted(oldest)
    return [
        now - max(before, oldest[now])
        for before, now in itertools.pairwise(scored)
        if begin <= now < end
    ]


def quantile(ordered: Sequence[float], share: float) -> float:
    """The value that this share of them does not exceed."""
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def _difference(pairs: Sequence[Pair]) -> float:
    """By how many seconds the p99.9 with swaps is above the one without."""
    without = sorted(wait for pair in pairs for wait in pair.without)
    during = sorted(wait for pair in pairs for wait in pair.during)
    return quantile(during, 0.999) - quantile(without, 0.999)


def _interval(pairs: Sequence[Pair]) -> tuple[float, float]:
    draw = random.Random(0)
    found = sorted(_difference(draw.choices(pairs, k=len(pairs))) for _ in range(RESAMPLES))
    return quantile(found, 0.025), quantile(found, 0.975)


def growth(resident: Sequence[int]) -> tuple[float, float]:
    """MB for each hundred swaps, and the standard error, of the swaps after the first ones."""
    first = min(SETTLED, len(resident) // 3)
    sizes = [size / MEGABYTE for size in resident[first:]]
    numbers = range(len(sizes))
    slope, start = statistics.linear_regression(numbers, sizes)
    rest = sum((size - start - slope * at) ** 2 for at, size in zip(numbers, sizes, strict=True))
    spread = sum((at - statistics.fmean(numbers)) ** 2 for at in numbers)
    error = (rest / max(len(sizes) - 2, 1) / spread) ** 0.5
    return 100 * slope, 100 * error


@click.command()
@click.option("--swaps", default=300, show_default=True, help="Swaps to measure.")
@click.option("--rate", default=1_000, show_default=True, help="Requests a second.")
@click.option("--megabytes", default=5, show_default=True, help="Size of each model.")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table")
def stalls(swaps: int, rate: int, megabytes: int, output: str) -> None:
    """Measure memory and stalls over many swaps."""
    with tempfile.TemporaryDirectory() as folder:
        state_dir = Path(folder) / "stack"
        info = Stack.up(state_dir, quiet=output == "json")
        harness = None
        try:
            store = (Path(folder) / "store").as_uri()
            settings = load_settings(state_dir=state_dir, store_url=store)
            harness = Harness(settings, environment_of(settings), MODEL, Path(folder))
            cores = Cores(list(info.pids.values()))
            with cores.parted():
                pairs = _Bench(harness, megabytes, cores).run(swaps, rate)
        finally:
            if harness is not None:
                harness.close()
            Stack.down(state_dir)
    report = _report(pairs)
    if output == "json":
        click.echo(msgspec.json.encode(report))
    else:
        _show(report)


def _report(pairs: Sequence[Pair]) -> dict[str, dict[str, float]]:
    resident = [pair.resident for pair in pairs]
    slope, error = growth(resident)
    low, high = _interval(pairs)
    report: dict[str, dict[str, float]] = {
        "resident MB": {
            f"after {at}": resident[at - 1] / MEGABYTE
            for at in dict.fromkeys((1, *range(SETTLED, len(pairs) + 1, SETTLED), len(pairs)))
        },
        "growth MB per 100 swaps": {"slope": slope, "standard error": error},
        "swap s": {"p50": statistics.median(pair.swap_seconds for pair in pairs)},
    }
    for name in ("without", "during"):
        found = sorted(wait for pair in pairs for wait in getattr(pair, name))
        report[f"wait {name} swaps ms"] = {
            "batches": float(len(found)),
            **{f"p{100 * share:g}": 1e3 * quantile(found, share) for share in QUANTILES},
            "most": 1e3 * found[-1],
        }
    report["stall by a swap, p99.9 ms"] = {
        "difference": 1e3 * _difference(pairs),
        "from": 1e3 * low,
        "to": 1e3 * high,
    }
    return report


def _show(report: dict[str, dict[str, float]]) -> None:
    table = Table(
        title="One consumer over many swaps: memory, and how long batches wait for the loop"
    )
    table.add_column("")
    table.add_column("")
    for name, figures in report.items():
        table.add_row(name, "   ".join(f"{key} {value:.4g}" for key, value in figures.items()))
    Console().print(table)


if __name__ == "__main__":
    stalls()
