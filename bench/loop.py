"""Measures the answering loop against what it cannot be faster than.

On a stack of its own a model is trained and released, and then, on the same broker and the same
requests, in turns: ONNX Runtime alone, requests copied exactly once (``bench.limits`` has both), and
the real consumer, which drains them as a backlog (``bench.drain``).

In those turns the servers have one core and what is measured has another, where there are two.

**efficiency = (ONNX Runtime alone + copying) / the consumer**, in CPU time a message, whole processes
with their threads. The stages of answering and of the clients come from the two limits, which run the
loop's own code (``scoring.batch.answer``) and clients in processes of their own. What the whole loop
takes beyond them is its ``rest``, the cold caches of a process that does all in turn included. Only
the clients' threads are read off the loop itself.

Then come the age of an answer at steady rates, from the request's time to the moment when a
read_committed reader has the answer; the resident memory; the seconds from a start to readiness with
nothing in the cache, and from a kill -9 to the first answer of the slot that its supervisor started
again (``bench.starts``).

All figures are the machine's of this run. Only those of one run compare.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.table import Table

from adapters.settings import Settings, load_settings
from adapters.topics import create_topics
from bench.answers import Answers
from bench.cores import Cores
from bench.drain import Drained, drain
from bench.limits import BATCH_SIZES
from bench.starts import cold_starts, recoveries
from bench.traffic import Steady, good_requests, held_out, send_backlog, with_poison
from modelwire.localstack.stack import Stack
from modelwire.replay import HeldOutRow
from tests.fleet import Harness, environment_of, wait_for

MODEL = "sales"
COPIES = "copies"
"""The model whose results are what was copied."""

DATASET = Path(__file__).parent.parent / "datasets" / "online_retail.toml"

RATES = (200, 1_000)
AGE_COMMIT_MS = 10
"""Commits of the consumer whose answers' ages are measured."""

ANSWER_STAGES = ("decode", "gather", "score", "read", "encode")
COPY_STAGES = ("consume", "produce", "commit")


@dataclass(frozen=True)
class Options:
    """How much is measured."""

    messages: int
    rounds: int
    seconds: float
    starts: int
    kills: int
    poison: int
    commit_ms: int
    preset: str


@dataclass(frozen=True)
class Turn:
    """One turn of each: microseconds a message."""

    runtime: dict[str, float]
    copies: dict[str, float]
    loop: Drained

    @property
    def efficiency(self) -> float:
        """The share of the loop's time that nothing could take away."""
        return (self.runtime[f"ort {BATCH_SIZES[0]}"] + self.copies["cpu"]) / self.loop.cpu

    def stages(self) -> dict[str, float]:
        """The loop by stage: those of the main thread, the clients' own threads, and what is left.

        ``rest`` is the loop's bookkeeping, its other threads, and what a stage costs more in company.
        """
        found = {stage: self.copies[stage] for stage in COPY_STAGES}
        found |= {stage: self.runtime[stage] for stage in ANSWER_STAGES}
        found["client threads"] = self.loop.client
        return found | {"rest": self.loop.cpu - sum(found.values())}


@click.command()
@click.option("--messages", default=400_000, show_default=True, help="Requests of each backlog.")
@click.option("--rounds", default=3, show_default=True, help="Turns of the loop and its limits.")
@click.option("--seconds", default=15.0, show_default=True, help="Length of each steady stream.")
@click.option("--starts", default=3, show_default=True, help="Starts that are timed.")
@click.option("--kills", default=3, show_default=True, help="Kills whose recovery is timed.")
@click.option(
    "--poison", default=1_000, show_default=True, help="One bad request in so many; 0: none."
)
@click.option(
    "--commit-ms", default=50, show_default=True, help="Commit interval for the backlogs."
)
@click.option(
    "--preset", type=click.Choice(["plain", "full"]), default="full", show_default=True,
    help="What is trained.",
)  # fmt: skip
@click.option(
    "--json", "file", type=click.Path(path_type=Path), default=Path(".modelwire/bench/loop.json"),
    show_default=True, help="Where the figures go.",
)  # fmt: skip
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table")
def loop(file: Path, output: str, **options: Any) -> None:
    """Measure the answering loop."""
    file = file.resolve()
    with tempfile.TemporaryDirectory() as folder:
        state_dir = Path(folder) / "stack"
        info = Stack.up(state_dir, quiet=output == "json")
        try:
            settings = load_settings(
                state_dir=state_dir, store_url=(Path(folder) / "store").as_uri()
            )
            cores = Cores(list(info.pids.values()))
            report = _Bench(settings, Path(folder), Options(**options), cores).run()
        finally:
            Stack.down(state_dir)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")
    if output == "json":
        click.echo(msgspec.json.encode(report))
    else:
        _show(report)


class _Bench:
    """One run."""

    def __init__(self, settings: Settings, folder: Path, options: Options, cores: Cores) -> None:
        self._harness = Harness(settings, environment_of(settings), MODEL, folder)
        self._settings = self._harness.settings
        self._options = options
        self._cores = cores
        self._folder = folder
        create_topics(self._settings, COPIES)
        self._rows: list[HeldOutRow] = []
        self._digest = ""

    def run(self) -> dict[str, Any]:
        """Everything, one after the other; what was started is ended."""
        harness, options = self._harness, self._options
        try:
            trained = harness.run(
                "train", "--dataset", str(DATASET), "--preset", options.preset, "-o", "json"
            )
            self._digest = json.JSONDecoder().raw_decode(trained)[0]["digest"]
            self._rows = held_out(harness.store, self._digest)
            harness.release(self._digest)
            with self._cores.parted():
                turns = [self._turn(number) for number in range(options.rounds)]
            ages = self._ages()
            recovered = recoveries(harness, self._steady(RATES[0]), options.kills)
            checked = harness.verify(120)
            assert checked.clean, checked.findings
        finally:
            harness.close()
        started = cold_starts(self._settings, self._folder, options.starts)
        return _report(turns, ages, recovered, started)

    def _turn(self, number: int) -> Turn:
        count, before = self._options.messages, number * self._options.messages
        requests = with_poison(good_requests(self._rows), self._options.poison)
        servers = self._settings.kafka.bootstrap_servers
        send_backlog(servers, self._harness.topics.requests, requests, count)
        runtime = self._limit("runtime", "--digest", self._digest)
        copies = self._limit("through", "--model", MODEL, "--into", COPIES)
        with self._cores.measured():
            interval = str(self._options.commit_ms)
            instance = self._harness.start(CONSUMER__COMMIT_INTERVAL_MS=interval)
        drained = drain(self._harness, instance, before, count)
        assert instance.terminate() == 0, instance.text
        return Turn(runtime, copies, drained)

    def _limit(self, *arguments: str) -> dict[str, float]:
        command = [sys.executable, "-m", "bench.limits", *arguments]
        environment = environment_of(self._settings) | {
            "PYTHONPATH": str(Path(__file__).parent.parent),
            "MODELWIRE_CONSUMER__COMMIT_INTERVAL_MS": str(self._options.commit_ms),
        }
        with self._cores.measured():
            done = subprocess.run(
                [*command, "--messages", str(self._options.messages)],
                env=environment, cwd=self._folder, stdout=subprocess.PIPE, check=True,
            )  # fmt: skip
        found: dict[str, float] = json.loads(done.stdout)
        return found

    def _steady(self, rate: int) -> Steady:
        servers = self._settings.kafka.bootstrap_servers
        return Steady(servers, self._harness.topics.requests, good_requests(self._rows), rate)

    def _ages(self) -> dict[int, list[float]]:
        instance = self._harness.start(CONSUMER__COMMIT_INTERVAL_MS=str(AGE_COMMIT_MS))
        self._harness.wait_until_ready()
        found = {rate: self._ages_at(rate) for rate in RATES}
        assert instance.terminate() == 0, instance.text
        return found

    def _ages_at(self, rate: int) -> list[float]:
        answers = Answers(self._harness)
        with self._steady(rate):
            wait_for("answers", lambda: len(answers.seen) > rate // 2)
            time.sleep(self._options.seconds / 5)
            answers.take()
            time.sleep(self._options.seconds)
            taken = answers.take()
        answers.close()
        return [each.age for each in taken]


def _report(
    turns: Sequence[Turn],
    ages: dict[int, list[float]],
    recovered: Sequence[float],
    started: Sequence[float],
) -> dict[str, Any]:
    median = statistics.median
    cuts = {rate: statistics.quantiles(values, n=100) for rate, values in ages.items()}
    return {
        "efficiency": median(turn.efficiency for turn in turns),
        "efficiencies": [turn.efficiency for turn in turns],
        "us_per_message": {
            **{
                f"ort_{size}": median(turn.runtime[f"ort {size}"] for turn in turns)
                for size in BATCH_SIZES
            },
            "copies": median(turn.copies["cpu"] for turn in turns),
            "loop": median(turn.loop.cpu for turn in turns),
            "loop_main_thread": median(turn.loop.main for turn in turns),
            "copies_wall": median(turn.copies["wall"] for turn in turns),
            "loop_wall": median(turn.loop.wall for turn in turns),
        },
        "us_by_stage": {
            stage: median(turn.stages()[stage] for turn in turns) for stage in turns[0].stages()
        },
        "age_ms": {
            str(rate): {"p50": cut[49] * 1e3, "p99": cut[98] * 1e3} for rate, cut in cuts.items()
        },
        "resident_mb": max(turn.loop.resident_mb for turn in turns),
        "ready_seconds": {"median": median(started), "max": max(started)},
        "recovery_seconds": {"median": median(recovered), "max": max(recovered)},
    }


def _show(report: dict[str, Any]) -> None:
    costs, stages = report["us_per_message"], report["us_by_stage"]
    table = Table(title="The answering loop: CPU time a message, in microseconds")
    table.add_column("")
    table.add_column("µs", justify="right")
    for name, figure in costs.items():
        table.add_row(name.replace("_", " "), f"{figure:.2f}")
    table.add_section()
    for name, figure in stages.items():
        table.add_row(f"  {name}", f"{figure:.2f}")
    Console().print(table)
    spread = ", ".join(f"{each:.2f}" for each in report["efficiencies"])
    click.echo(f"efficiency        {report['efficiency']:.2f} ({spread})")
    for rate, age in report["age_ms"].items():
        click.echo(f"age at {rate:>5}/s    p50 {age['p50']:.1f} ms, p99 {age['p99']:.1f} ms")
    click.echo(f"resident          {report['resident_mb']:.0f} MB")
    for name in ("ready", "recovery"):
        seconds = report[f"{name}_seconds"]
        click.echo(f"{name:17} {seconds['median']:.2f} s (most {seconds['max']:.2f} s)")


if __name__ == "__main__":
    loop()
