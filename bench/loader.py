"""Measures what swaps leave behind: resident memory over many swaps through the loader alone.

One loader takes champions in turn, as a consumer's does: each is fetched, loaded and checked, a
snapshot takes the place of the one before, and the old model is dropped. Beside it a thread scores
batches with the newest snapshot all the time. The models are trees, which the runtime allocates and
frees as it does those of real ones. A bundle is tried in a process of its own the first time it comes
(``--bundles`` of them, in turn). Printed is the growth of resident memory for each hundred swaps after
the first hundred, in MB, and the milliseconds of each stage.
"""

import itertools
import logging
import tempfile
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.table import Table

from adapters.bundles import StoredBundles
from adapters.logs import configure_logs
from adapters.object_store import open_store
from consumer.admission import Limits
from consumer.memory import resident_bytes
from consumer.models import Loader
from deployment.state import Deployment, Release, Standing, empty
from scoring.snapshot import Snapshot
from tests.bundles import store_bundle

MODEL = "m"
BATCH = 512
MEGABYTE = 1e6


class Scorer:
    """A thread that scores with the loader's newest snapshot, and tells the loader which it is."""

    def __init__(self, loader: Loader) -> None:
        self.batches = 0
        self.applied = 0
        self._loader = loader
        self._stopping = False
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Start to score."""
        self._thread.start()

    def stop(self) -> None:
        """Score no more."""
        self._stopping = True
        self._thread.join()

    def _run(self) -> None:
        row = b'{"item":"a","units":3.0,"date":"2011-12-09"}'
        snapshot: Snapshot | None = None
        while not self._stopping:
            newest = self._loader.ready
            if newest is None:
                time.sleep(0.001)
                continue
            if newest is not snapshot:
                snapshot = newest
                self._loader.using(snapshot)
                self.applied = snapshot.revision
            champion = newest.champion
            rows = [champion.decode(row)] * BATCH
            champion.model.run(champion.gather(rows), champion.output_tensors)
            self.batches += 1
            del newest, champion


@click.command()
@click.option("--swaps", default=1_000, show_default=True, help="Swaps to measure.")
@click.option("--bundles", default=10, show_default=True, help="Different models, in turn.")
@click.option("--megabytes", default=5, show_default=True, help="Size of each model.")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table")
def loader(swaps: int, bundles: int, megabytes: int, output: str) -> None:
    """Measure what swaps leave behind."""
    configure_logs(as_json=False, level=logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(Path(folder).as_uri())
        digests = [
            store_bundle(store, MODEL, float(slope), trees_bytes=megabytes * 1024 * 1024)
            for slope in range(bundles)
        ]
        running = Loader(StoredBundles(store), MODEL, Limits(60.0, BATCH), lambda: None)
        scorer = Scorer(running)
        running.start()
        scorer.start()
        began = time.monotonic()
        resident = _swap(running, scorer, digests, swaps)
        seconds = time.monotonic() - began
        scorer.stop()
        running.stop()
    report = {
        "swaps": swaps,
        "seconds": seconds,
        "batches": scorer.batches,
        "resident_mb": [size / MEGABYTE for size in resident],
        "growth_mb_per_100": [
            (after - before) / MEGABYTE for before, after in itertools.pairwise(resident[1:])
        ],
        "stage_ms": {
            stage: 1e3 * total / times for stage, (times, total) in running.stage_seconds.items()
        },
    }
    if output == "json":
        click.echo(msgspec.json.encode(report))
    else:
        _show(report)


def _swap(running: Loader, scorer: Scorer, digests: list[str], swaps: int) -> list[int]:
    """Resident bytes at the start and after each hundred swaps."""
    deployment = replace(empty(MODEL), log_id="sha256:aa", head="sha256:bb")
    resident = []
    for number in range(swaps + 1):
        if number % 100 == 0:
            resident.append(resident_bytes())
        deployment = _next(deployment, digests[number % len(digests)])
        running.consider([deployment])
        # The one before stays in memory as the previous champion, and what was before that goes.
        while scorer.applied < deployment.revision or running.loaded > 2:
            time.sleep(0.0005)
    return resident


def _next(now: Deployment, digest: str) -> Deployment:
    """A release that is the champion at once; of all others only the previous one may serve."""
    version = len(now.releases) + 1
    when = datetime(2026, 1, 1, tzinfo=UTC)
    release = Release(version, digest, Standing.RELEASED, now.revision + 1, "bench", when, "")
    kept = {
        number: each if number == now.champion else replace(each, standing=Standing.RETIRED)
        for number, each in now.releases.items()
    }
    return replace(
        now,
        releases={**kept, version: release},
        champion=version,
        previous=now.champion,
        revision=now.revision + 1,
    )


def _show(report: dict[str, object]) -> None:
    table = Table(title="Resident memory over swaps through the loader alone")
    for column in ("", "figures"):
        table.add_column(column)
    for name, figures in report.items():
        if isinstance(figures, dict):
            told = ", ".join(f"{key} {value:.3g}" for key, value in figures.items())
        elif isinstance(figures, list):
            told = " ".join(f"{value:.2f}" for value in figures)
        else:
            told = f"{figures:g}" if isinstance(figures, float) else str(figures)
        table.add_row(name.replace("_", " "), told)
    Console().print(table)


if __name__ == "__main__":
    loader()
