"""Measures the sink: what it takes to bring an answer from Kafka to a Parquet file, by stage.

On a stack of its own a model's result topic is filled with forecasts, in transactions as consumers write
them. Then, in CPU time an answer, clients' threads included:

- ``kafka``: fetch what is committed, and make records of it;
- ``rows``: records to columns;
- ``digest``: the hash of the records;
- ``file``: sort, encode and compress columns to the bytes of a file;
- ``whole``: a process of ``modelwire audit sink --once`` that copies all of it, less what such a process
  takes that has nothing to copy. It also keeps the shadows' answers and rejections that go with them.

The largest resident memory is that process's too. All figures are the machine's of this run; the store is
a folder of it.
"""

import gc
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from adapters.answer_files import encode_file
from adapters.answer_rows import rows_of, unreadable_in
from adapters.answer_source import AnswerSource, Place
from adapters.settings import load_settings
from audit.buffers import PACK_RECORDS
from modelwire.localstack.stack import Stack
from schemas.answer_file import ContentHash, Footer, Kind, Record
from tests.fleet import Harness, environment_of
from tests.kept_answers import files_of
from tests.written_answers import Scribe

MODEL = "sales"
WANTED = 50_000
"""Answers a second on a core, at least."""

PLAIN_WIDTH = 110


@dataclass(frozen=True)
class Run:
    """A process of the sink: CPU and wall seconds, and the largest resident memory in bytes."""

    cpu: float
    wall: float
    resident: int


@click.command()
@click.option("--answers", default=400_000, show_default=True, help="Forecasts that are copied.")
@click.option("--rounds", default=3, show_default=True, help="Turns of which the best counts.")
def main(answers: int, rounds: int) -> None:
    """Measure the sink."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        state = folder / "stack"
        Stack.up(state, quiet=True)
        try:
            _measure(folder, state, answers, rounds)
        finally:
            Stack.down(state)


def _measure(folder: Path, state: Path, answers: int, rounds: int) -> None:
    settings = load_settings(state_dir=state, store_url=(folder / "store").as_uri())
    harness = Harness(settings, environment_of(settings), MODEL, folder)
    idle = min((_run(harness, folder / "idle") for _ in range(rounds)), key=lambda run: run.cpu)
    Scribe(harness).write(answers, batch=5_000)
    stages: dict[str, float] = {}
    for _ in range(rounds):
        for stage, seconds in _stages(harness, answers).items():
            stages[stage] = min(seconds, stages.get(stage, seconds))
    runs = [_run(harness, folder / f"store-{number}") for number in range(rounds)]
    best = min(runs, key=lambda run: run.cpu)
    first = load_settings(state_dir=state, store_url=(folder / "store-0").as_uri())
    kept = Harness(first, environment_of(first), MODEL, folder)
    sizes = [(folder / "store-0" / file.key).stat().st_size for file in files_of(kept)]
    _print(answers, stages, best, idle, sizes)


def _stages(harness: Harness, answers: int) -> dict[str, float]:
    """CPU-seconds of each stage."""
    held: dict[Place, list[Record]] = {}
    place = Place(Kind.FORECASTS, 0)

    def fetch() -> None:
        source = AnswerSource(harness.settings, harness.model)
        try:
            places = [each for each in source.places() if each.kind is Kind.FORECASTS]
            for each in places:
                source.read_from(each, 0)
            unread = set(places)
            while unread:
                fetched = source.fetch(4_000, 0.1)
                for where, records in fetched.records.items():
                    held.setdefault(where, []).extend(records)
                unread -= fetched.reached.keys()
        finally:
            source.close()

    seconds = {"kafka": _cpu(fetch)}
    gc.freeze()
    assert sum(map(len, held.values())) == answers
    place, records = max(held.items(), key=lambda each: len(each[1]))
    share = answers / len(records)
    topic = harness.topics.results
    parts = [records[at : at + PACK_RECORDS] for at in range(0, len(records), PACK_RECORDS)]
    tables = []
    content = ContentHash()
    seconds["rows"] = share * _cpu(
        lambda: tables.extend(rows_of(place.kind, topic, place.partition, part) for part in parts)
    )
    seconds["digest"] = share * _cpu(lambda: content.take(records))
    footer = Footer(
        kind=place.kind,
        model=harness.model,
        topic=topic,
        partition=place.partition,
        first=0,
        next=records[-1].offset + 1,
        rows=len(records),
        content=content.digest,
        unreadable=sum(map(unreadable_in, tables)),
    )
    seconds["file"] = share * _cpu(lambda: encode_file(footer, tables))
    gc.unfreeze()
    return seconds


def _cpu(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def _run(harness: Harness, store: Path) -> Run:
    environment = environment_of(harness.settings) | {"MODELWIRE_AUDIT__STORE_URL": store.as_uri()}
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "modelwire", "audit", "sink", "--model", MODEL, "--once"],
        env=environment,
        cwd=harness.folder,
        stderr=subprocess.DEVNULL,
    )
    _, status, used = os.wait4(process.pid, 0)
    assert status == 0
    wall = time.monotonic() - began
    return Run(used.ru_utime + used.ru_stime, wall, used.ru_maxrss * 1024)


def _print(answers: int, stages: dict[str, float], best: Run, idle: Run, sizes: list[int]) -> None:
    table = Table("STAGE", "µs OF CPU AN ANSWER", box=None)
    for stage, seconds in stages.items():
        table.add_row(stage, f"{seconds / answers * 1e6:.2f}")
    copied = answers * 1.2  # with the shadows' answers and rejections
    cpu, wall = best.cpu - idle.cpu, best.wall - idle.wall
    table.add_row("whole", f"{cpu / copied * 1e6:.2f}")
    rate = copied / cpu
    console = Console() if sys.stdout.isatty() else Console(width=PLAIN_WIDTH)
    console.print(f"{datetime.now(UTC):%Y-%m-%d}: {answers:,} forecasts, {os.cpu_count()} CPUs")
    console.print(table)
    console.print(
        f"{rate:,.0f} answers a second on a core ({'' if rate >= WANTED else 'fewer than '}"
        f"{WANTED:,} are wanted), {copied / wall:,.0f} a second of wall time; start and end: "
        f"{idle.wall:.1f} s, {idle.cpu:.1f} s of CPU"
    )
    console.print(
        f"{len(sizes)} files, {sum(sizes) / copied:.0f} bytes an answer; resident at most "
        f"{best.resident / 2**20:.0f} MiB, {idle.resident / 2**20:.0f} MiB with nothing to do"
    )


if __name__ == "__main__":
    main()
