"""Measures hot swaps: how long each stage takes, and what the stream notices.

Consumers answer a steady stream on a stack of its own. Quiet seconds, which are the baseline, take
turns with seconds in which a model is released blue-green: a new bundle on the S3 server each time,
which every instance must fetch and admit before it switches. Printed are the seconds of each stage of a
swap, from the command to the last instance, how long its slowest instance took to fetch, to try and to
load it, and the age of answers (from the request's time to the
moment when a read_committed reader has the answer) with swaps and without, and their ratio.
"""

import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.table import Table

from adapters.settings import S3, load_settings
from bench.answers import Answers
from modelwire.localstack.stack import Stack
from tests.bundles import store_bundle
from tests.fleet import Harness, Instance, environment_of, wait_for

MODEL = "bench"
STAGES = ("append", "read", "admitted", "applied", "everywhere")
PARTS = ("fetch", "vet", "load", "check", "warm_up")
"""Of admission: how long each took, by the instances' own log lines."""


@dataclass(frozen=True)
class Swap:
    """Seconds from the command to each stage's end.

    The slowest instance counts, but for ``applied``: the first one that answers with the version.
    """

    append: float
    read: float
    admitted: float
    applied: float
    everywhere: float
    parts: dict[str, float]
    """Seconds of the parts of admission, of the slowest instance each."""


@click.command()
@click.option("--swaps", default=12, show_default=True, help="Swaps to measure.")
@click.option("--rate", default=1_000, show_default=True, help="Requests a second.")
@click.option("--instances", default=2, show_default=True, help="Consumer processes.")
@click.option("--megabytes", default=5, show_default=True, help="Size of each model.")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table")
def swaps(swaps: int, rate: int, instances: int, megabytes: int, output: str) -> None:
    """Measure hot swaps under load."""
    with tempfile.TemporaryDirectory() as folder:
        state_dir = Path(folder) / "stack"
        info = Stack.up(state_dir, quiet=output == "json")
        harness = None
        try:
            settings = load_settings(
                state_dir=state_dir,
                store_url=f"s3://{info.s3_bucket}/bench",
                s3=S3(
                    endpoint=info.s3_endpoint,
                    region=info.s3_region,
                    access_key=info.s3_access_key,
                    secret_key=info.s3_secret_key,
                ),
            )
            harness = Harness(settings, environment_of(settings), MODEL, Path(folder))
            measured, without, during = _measure(harness, swaps, rate, instances, megabytes)
        finally:
            if harness is not None:
                harness.close()
            Stack.down(state_dir)
    report = _report(measured, without, during)
    if output == "json":
        click.echo(msgspec.json.encode(report))
    else:
        _show(report)


def _measure(
    harness: Harness, swaps: int, rate: int, instances: int, megabytes: int
) -> tuple[list[Swap], list[float], list[float]]:
    digests = [
        store_bundle(harness.store, MODEL, float(slope), table_bytes=megabytes * 1024 * 1024)
        for slope in range(swaps + 1)
    ]
    harness.release(digests[0])
    running = [harness.start(slot) for slot in range(instances)]
    harness.wait_until_ready(instances)
    answers = Answers(harness)
    with harness.stream(rate) as stream:
        wait_for("answers", lambda: len(answers.seen) > rate)
        measured, without, during = [], [], []

        def until(mark: int) -> list[float]:
            wait_for("the next turn", lambda: stream.sent >= mark)
            return [each.age for each in answers.take()]

        until(stream.sent + rate)
        for number, digest in enumerate(digests[1:], start=1):
            turn = stream.sent
            without += until(turn + rate)
            began = time.time()
            revision = harness.release(digest)
            appended = time.time() - began
            measured.append(_stages(running, revision, number + 1, began, appended))
            during += until(turn + 2 * rate)
    answers.close()
    report = harness.verify()
    assert report.clean, report.findings
    return measured, without, during


def _stages(
    running: Sequence[Instance], revision: int, version: int, began: float, appended: float
) -> Swap:
    def line(instance: Instance, event: str, key: str, value: int) -> dict[str, object]:
        return wait_for(
            f"{event} of {key} {value}",
            lambda: next((one for one in instance.lines(event) if one[key] == value), None),
        )

    applied = [line(one, "snapshot.applied", "revision", revision) for one in running]
    prepared = [line(one, "model.prepared", "version", version) for one in running]
    read = [line(one, "control.read", "revision", revision) for one in running]
    admitted = [_at(each) - began for each in prepared]
    return Swap(
        append=appended,
        read=max(_at(each) for each in read) - began,
        admitted=max(admitted),
        applied=min(_at(each) for each in applied) - began,
        everywhere=max(_at(each) for each in applied) - began,
        parts={
            part: max(float(str(each[f"{part}_seconds"])) for each in prepared) for part in PARTS
        },
    )


def _at(line: dict[str, object]) -> float:
    return datetime.fromisoformat(str(line["@timestamp"])).timestamp()


def _report(
    measured: list[Swap], without: list[float], during: list[float]
) -> dict[str, dict[str, float]]:
    stages = {stage: [getattr(swap, stage) for swap in measured] for stage in STAGES}
    stages |= {f"  {part}": [swap.parts[part] for swap in measured] for part in PARTS}
    ages = {"without swaps": without, "with swaps": during}
    report = {
        f"{stage} s": {"p50": statistics.median(values), "max": max(values)}
        for stage, values in stages.items()
    }
    for name, values in ages.items():
        cuts = statistics.quantiles(values, n=100)
        report[f"age {name} ms"] = {"p50": cuts[49] * 1e3, "p99": cuts[98] * 1e3}
    with_, without_ = report["age with swaps ms"], report["age without swaps ms"]
    report["age with / without"] = {name: with_[name] / without_[name] for name in ("p50", "p99")}
    return report


def _show(report: dict[str, dict[str, float]]) -> None:
    table = Table(
        title="Hot swaps: seconds from the command to each stage, and what callers notice"
    )
    for column in ("", "p50", "p99", "max"):
        table.add_column(column, justify="left" if not column else "right")
    for name, figures in report.items():
        cells = (f"{figures[key]:.3g}" if key in figures else "" for key in ("p50", "p99", "max"))
        table.add_row(name, *cells)
    Console().print(table)


if __name__ == "__main__":
    swaps()
