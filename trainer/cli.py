"""``modelwire train``: trains a model and stores its bundle."""

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from adapters.output import TABLE, as_text, output_option

if TYPE_CHECKING:
    from schemas.manifest import Manifest


@click.command()
@click.option(
    "--dataset",
    type=click.Path(path_type=Path),
    required=True,
    help="Dataset configuration (TOML), such as datasets/online_retail.toml.",
)
@click.option(
    "--preset",
    type=click.Choice(["plain", "full"]),
    default="full",
    show_default=True,
    help="plain: means and a ridge regression. full: history tables and boosted trees.",
)
@click.option("--out", metavar="URI", help="Store to write to (file:///folder, s3://bucket).")
@output_option
def train(dataset: Path, preset: str, out: str | None, output: str) -> None:
    """Train a model on a panel of daily sales and store it as a bundle.

    The bundle holds the ONNX model and its evidence; release it with `modelwire release publish`.
    """
    started = time.monotonic()
    # Imported here: `modelwire --help` must not wait for scikit-learn.
    from adapters.bundles import write_bundle
    from adapters.object_store import open_store
    from adapters.settings import load_settings
    from trainer.bundle import train_bundle
    from trainer.dataset import load_dataset
    from trainer.estimator import Preset

    file = load_dataset(dataset)
    settings = load_settings(store_url=out)
    store = open_store(settings.store_url, settings.s3_settings)
    # A store that cannot be reached is found out before the training, not after it.
    next(store.list("bundles"), None)
    bundle = train_bundle(
        file, Preset(preset), created_at=datetime.now(UTC), progress=_say_on_stderr
    )
    _say_on_stderr(f"storing the bundle in {store.url}")
    digest = write_bundle(store, bundle.manifest, bundle.files)
    report = {
        "model": bundle.manifest.model,
        "preset": preset,
        "digest": digest,
        "uri": f"{store.url}/bundles/{digest.removeprefix('sha256:')}",
        "seconds": round(time.monotonic() - started, 2),
        "size_bytes": len(bundle.files["model.onnx"]),
    }
    if output == TABLE:
        _write_table(report, bundle.manifest)
    else:
        figures = {"holdout": bundle.manifest.holdout, "parity": bundle.manifest.parity}
        click.echo(as_text(output, {**report, **figures}))


def _say_on_stderr(line: str) -> None:
    click.echo(line, err=True)


def _write_table(report: dict[str, Any], manifest: "Manifest") -> None:
    from rich.console import Console
    from rich.table import Table

    holdout, parity = manifest.holdout, manifest.parity
    assert holdout is not None
    assert parity is not None
    table = Table(title=f"held out {holdout.first} … {holdout.last}")
    table.add_column("predictor")
    for name in ("RMSLE", "WAPE", "bias"):
        table.add_column(name, justify="right")
    for predictor, metrics in holdout.metrics.items():
        table.add_row(
            predictor,
            f"{metrics['rmsle']:.4f}",
            f"{metrics['wape']:.4f}",
            f"{metrics['bias']:+.1%}",
        )
    Console().print(table)
    click.echo(
        f"graph equals Python to {parity.max_difference:.1e} on {parity.rows:,} rows "
        f"(limit {parity.limit:.0e})\n"
        f"{report['model']} ({report['preset']}), {report['size_bytes'] / 1e6:.1f} MB "
        f"in {report['seconds']} s\n"
        f"digest  {report['digest']}\n"
        f"uri     {report['uri']}"
    )
