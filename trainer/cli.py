"""``modelwire train``: trains a model and stores its bundle."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from adapters.output import TABLE, as_text, output_option
from trainer.options import memory_option

if TYPE_CHECKING:
    from adapters.object_store import ObjectStore
    from adapters.settings import Settings
    from schemas.manifest import Manifest
    from trainer.bundle import Bundle
    from trainer.dataset import DatasetFile

_METRICS = {
    "rmsle": ("RMSLE", "{:.4f}"),
    "nwrmsle": ("NWRMSLE", "{:.4f}"),
    "wape": ("WAPE", "{:.4f}"),
    "bias": ("bias", "{:+.1%}"),
    "pinball": ("pinball", "{:.4g}"),
    "coverage": ("p10–p90", "{:.1%}"),
}


class _Day(click.ParamType[date]):
    """A date as people write it in a command: 2017-07-30."""

    name = "date"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> date:
        if isinstance(value, date):
            return value
        try:
            return date.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is not a date; write it as 2017-07-30", param, ctx)


@click.command()
@click.option(
    "--dataset",
    type=click.Path(path_type=Path),
    help="Dataset configuration (TOML), such as datasets/online_retail.toml.  [required, but for "
    "--refresh, which takes the bundle's own]",
)
@click.option(
    "--refresh",
    metavar="MODEL:VERSION|DIGEST",
    help="Fit no regressor: put this bundle's regressor on tables as of a later cutoff.",
)
@click.option(
    "--data",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the dataset's sources.  [default: the folder of the configuration; with a "
    "bundle's own, the current one, or the datasets shipped]",
)
@click.option(
    "--cutoff",
    metavar="DATE",
    type=_Day(),
    help="Last known day; the days after it are held out.  [default: by the dataset's `holdout`]",
)
@click.option(
    "--preset",
    type=click.Choice(["plain", "full"]),
    default="full",
    show_default=True,
    help="plain: means and a ridge regression. full: history tables and boosted trees.",
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**32 - 1),
    default=0,
    show_default=True,
    help="Of everything that is drawn.",
)
@memory_option
@click.option(
    "--out",
    metavar="URI",
    help="Store to write to, and where the parent of a --refresh is looked up (file:///folder, "
    "s3://bucket).  [default: that of the settings]",
)
@output_option
@click.pass_context
def train(
    context: click.Context,
    dataset: Path | None,
    refresh: str | None,
    data: Path | None,
    cutoff: date | None,
    preset: str,
    seed: int,
    memory_mb: int,
    out: str | None,
    output: str,
) -> None:
    """Train a model on a panel of daily sales and store it as a bundle.

    The bundle holds the ONNX model and its evidence; release it with `modelwire release publish`.
    """
    started = time.monotonic()
    if refresh is not None:
        _refuse_options_of_the_parent(context)
    elif dataset is None:
        raise click.UsageError("Missing option '--dataset'.", context)
    # Imported here: `modelwire --help` must not wait for scikit-learn.
    from adapters.bundles import check_writable, write_bundle
    from adapters.object_store import open_store
    from adapters.settings import load_settings
    from trainer.bundle import Order, train_bundle
    from trainer.dataset import load_dataset
    from trainer.estimator import Preset

    file = None if dataset is None else load_dataset(dataset, data)
    settings = load_settings(store_url=out)
    store = open_store(settings.store_url, settings.s3_settings)
    # A store that cannot be written is found out now, not after minutes.
    check_writable(store)
    with progress_on_stderr() as say:
        if refresh is not None:
            bundle = _refreshed(settings, store, refresh, file, data, cutoff, memory_mb, say)
        else:
            assert file is not None
            bundle = train_bundle(
                file,
                Order(Preset(preset), cutoff, seed, memory_mb),
                created_at=datetime.now(UTC),
                s3=settings.s3_settings,
                progress=say,
            )
        say(f"storing the bundle in {store.url}")
        digest = write_bundle(store, bundle.manifest, bundle.files)
    lineage = bundle.manifest.lineage
    assert lineage is not None
    report = {
        "model": bundle.manifest.model,
        "preset": lineage.preset,
        "parent": lineage.parent or None,
        "digest": digest,
        "uri": f"{store.url}/bundles/{digest.removeprefix('sha256:')}",
        "seconds": round(time.monotonic() - started, 2),
        "size_bytes": len(bundle.files["model.onnx"]),
    }
    if output == TABLE:
        write_table(report, bundle.manifest)
    else:
        figures = {"holdout": bundle.manifest.holdout, "parity": bundle.manifest.parity}
        click.echo(as_text(output, {**report, **figures}))


def _refuse_options_of_the_parent(context: click.Context) -> None:
    """A refresh fits nothing that they could change."""
    for name in ("preset", "seed"):
        if context.get_parameter_source(name) is not ParameterSource.DEFAULT:
            raise click.UsageError(
                f"--{name} is the parent's; leave it out with --refresh.", context
            )


def _refreshed(
    settings: "Settings",
    store: "ObjectStore",
    named: str,
    file: "DatasetFile | None",
    data: Path | None,
    cutoff: date | None,
    memory_mb: int,
    say: Callable[[str], None],
) -> "Bundle":
    from adapters.naming import find_version_or_bundle
    from trainer.recorded import recorded_dataset
    from trainer.refreshing import read_parent, refresh_bundle

    parent = read_parent(store, find_version_or_bundle(settings, store, named))
    return refresh_bundle(
        file or recorded_dataset(parent.digest, parent.lineage, data),
        parent,
        created_at=datetime.now(UTC),
        cutoff=cutoff,
        memory_mb=memory_mb,
        s3=settings.s3_settings,
        progress=say,
    )


@contextmanager
def progress_on_stderr() -> Iterator[Callable[[str], None]]:
    """What tells of a step: a spinner with the step's name on a terminal, else a line for each."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda line: click.echo(line, err=True)
        return
    with console.status("starting") as status:

        def say(line: str) -> None:
            if line.startswith("note: "):
                console.print(line, highlight=False, markup=False)
            else:
                status.update(line.replace("[", r"\["))

        yield say


def write_table(report: dict[str, Any], manifest: "Manifest") -> None:
    """The metrics on the holdout beside the baselines', then what was made."""
    from rich.console import Console
    from rich.table import Table

    holdout, parity, lineage = manifest.holdout, manifest.parity, manifest.lineage
    assert parity is not None
    assert lineage is not None
    assert lineage.recipe is not None
    if holdout is None:
        measured = (
            "the scores are its parent's" if lineage.parent else "see the backtest in the card"
        )
        click.echo(f"nothing is held out after {lineage.cutoff}: {measured}")
    else:
        table = Table(title=f"held out {holdout.first} … {holdout.last}")
        table.add_column("predictor")
        for name, _ in _METRICS.values():
            table.add_column(name, justify="right")
        for predictor, metrics in holdout.metrics.items():
            cells = [
                layout.format(metrics[name]) if name in metrics else ""
                for name, (_, layout) in _METRICS.items()
            ]
            table.add_row(predictor, *cells)
        Console().print(table)
    click.echo(
        f"graph equals Python to {parity.max_difference:.1e} on {parity.rows:,} rows in batches of "
        f"{', '.join(map(str, parity.batches))} (limit {parity.limit:.0e})\n"
        f"{report['model']} ({report['preset']}: {lineage.recipe.chosen}), "
        f"{report['size_bytes'] / 1e6:.1f} MB in {report['seconds']} s\n"
        f"digest  {report['digest']}\n"
        f"uri     {report['uri']}"
    )
