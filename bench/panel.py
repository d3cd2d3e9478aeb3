"""How memory and time of reading a panel grow with its rows: ``python -m bench.panel --rows 1,5,20``.

Each panel is generated, read by ``trainer.reading`` in a process of its own, and read once more by the
way that one would write down first: pandas reads the columns, adds up, and pivots to series by day. Both
start from the same file in the same run. Seconds are of the wall, from opening the file to the array;
memory is the largest resident size of the process, the interpreter and its imports included. A map of
a file that has been looked at counts as resident too.

It fails where a panel of 20 million rows took more than ``LIMIT_MB``.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click

LIMIT_MB = 2048
"""Largest resident size that preparing a panel may have, in MiB."""

NEW_SHARE = 0.94
"""Rows of a generated panel for each cell: new items have none before they begin."""


@click.group(invoke_without_command=True)
@click.option("--rows", default="1,5,20", show_default=True, help="Millions of rows, by commas.")
@click.option("--days", default=1_826, show_default=True, help="Days of each panel.")
@click.option("--memory-mb", default=1024, show_default=True, help="What DuckDB may hold, in MiB.")
@click.option("--baseline/--no-baseline", default=True, help="Read with pandas too.")
@click.pass_context
def main(context: click.Context, rows: str, days: int, memory_mb: int, baseline: bool) -> None:
    """Generate panels of these sizes, read each, and print a table and a JSON line a size."""
    if context.invoked_subcommand:
        return
    print(f"{'rows':>12} {'reader':>10} {'seconds':>8} {'MiB':>6} {'s/M rows':>8}", flush=True)
    too_large = False
    for millions in rows.split(","):
        with tempfile.TemporaryDirectory(prefix="bench-panel-") as folder:
            series = max(1, round(float(millions) * 1e6 / days / NEW_SHARE))
            made = _child("make", folder, str(series), str(days))
            ours = _child("ours", folder, str(memory_mb))
            _print_row(made["rows"], "made", made)
            _print_row(made["rows"], "modelwire", ours)
            line = {"rows": made["rows"], "made": made, "modelwire": ours}
            if baseline:
                theirs = _child("pandas", folder)
                _print_row(made["rows"], "pandas", theirs)
                seconds = ours["seconds"] / theirs["seconds"]
                memory = ours["peak_mb"] / theirs["peak_mb"]
                print(f"{'':>12} {'ratio':>10} {seconds:>8.2f} {memory:>6.2f}", flush=True)
                line |= {"pandas": theirs, "ratio": {"seconds": seconds, "memory": memory}}
            too_large = too_large or ours["peak_mb"] > LIMIT_MB
            print(json.dumps(line), flush=True)
    if too_large:
        sys.exit(f"reading took more than {LIMIT_MB} MiB")


@main.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("series", type=int)
@click.argument("days", type=int)
def make(folder: Path, series: int, days: int) -> None:
    """Generate a panel into a folder."""
    from trainer.chain import Design
    from trainer.generator import generate

    started = time.monotonic()
    made = generate(Design(series=series, days=days, seed=1), folder)
    _say(started, rows=made.rows)


@main.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("memory_mb", type=int)
def ours(folder: Path, memory_mb: int) -> None:
    """Read the panel in a folder as the trainer does, its side tables included."""
    from trainer.dataset import load_dataset
    from trainer.reading import read_panel
    from trainer.sources import open_sources

    started = time.monotonic()
    file = load_dataset(folder / "dataset.toml")
    with open_sources(file) as sources:
        panel = read_panel(file, sources, memory_mb=memory_mb)
    _say(started, cells=panel.units.size, megabytes=panel.units.nbytes / 2**20)


@main.command()
@click.argument("folder", type=click.Path(path_type=Path))
def pandas(folder: Path) -> None:
    """Read the panel in a folder with pandas: units and promotions, without any check."""
    import numpy as np
    import pandas as pd

    started = time.monotonic()
    frame = pd.read_parquet(folder / "train.parquet")
    frame["date"] = pd.to_datetime(frame["date"])
    frame["onpromotion"] = frame["onpromotion"].astype(np.float32)
    index = ["store_nbr", "item_nbr"]
    arrays = [
        frame.pivot_table(index=index, columns="date", values=value, aggfunc="sum", fill_value=0)
        .to_numpy()
        .astype(np.float32)
        for value in ("unit_sales", "onpromotion")
    ]
    _say(started, cells=arrays[0].size)


def _child(*arguments: str) -> dict[str, float]:
    """What a step prints in a fresh process."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.panel", *arguments],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _say(started: float, **more: float) -> None:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # KiB on Linux
    print(json.dumps({"seconds": time.monotonic() - started, "peak_mb": peak, **more}))


def _print_row(rows: float, reader: str, found: dict[str, float]) -> None:
    each = found["seconds"] / rows * 1e6
    print(
        f"{rows:>12,.0f} {reader:>10} {found['seconds']:>8.1f} {found['peak_mb']:>6.0f} {each:>8.2f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
