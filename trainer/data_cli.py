"""``modelwire data generate``: writes a made-up panel of any size, from a seed."""

import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from adapters.output import TABLE, as_text, output_option

if TYPE_CHECKING:
    from click._termui_impl import ProgressBar


@click.group()
def data() -> None:
    """Make panels to try things on."""


@data.command()
@click.option("--series", type=click.IntRange(1), required=True, help="Items times stores.")
@click.option("--days", type=click.IntRange(1), required=True, help="Days of the panel.")
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Same, same bytes."
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Folder to write to; made where it does not exist.",
)
@click.option(
    "--layout",
    type=click.Choice(["favorita", "plain"]),
    default="favorita",
    show_default=True,
    help="favorita: promotions and side tables. plain: one file, other key names, no promotions.",
)
@click.option(
    "--closed",
    type=click.Choice(["never", "weekly"]),
    default="never",
    show_default=True,
    help="weekly: closed on Sundays and holidays, which a covariate says.",
)
@click.option(
    "--start",
    type=click.DateTime(["%Y-%m-%d"]),
    default="2015-01-01",
    show_default=True,
    help="First day.",
)
@click.option("--horizon", type=click.IntRange(1), default=16, show_default=True, help="In days.")
@click.option(
    "--yearly", default=0.4, show_default=True, help="Log amplitude of the year's season."
)
@click.option("--trend", default=0.05, show_default=True, help="Log growth a year.")
@click.option(
    "--noise", default=1.0, show_default=True, help="How far sales stray from their mean."
)
@output_option
def generate(
    series: int,
    days: int,
    seed: int,
    out: Path,
    layout: str,
    closed: str,
    start: datetime,
    horizon: int,
    yearly: float,
    trend: float,
    noise: float,
    output: str,
) -> None:
    """Write a made-up panel, and the configuration to train on it.

    The panel has promotions, holidays, stock-outs, new items, seasons of week and year, and a trend.
    """
    # Imported here: `modelwire data --help` must not wait for numpy and pyarrow.
    from trainer.chain import Closed, Design, Layout
    from trainer.generator import generate as write_panel

    design = Design(
        series=series,
        days=days,
        seed=seed,
        layout=Layout(layout),
        closed=Closed(closed),
        start=start.date(),
        horizon=horizon,
        yearly=yearly,
        trend=trend,
        noise=noise,
    )
    shown: ProgressBar[int] = click.progressbar(
        length=series, label="series", file=sys.stderr, hidden=not sys.stderr.isatty()
    )
    with shown as bar:
        made = write_panel(design, out, progress=lambda done: bar.update(done - bar.pos))
    report = {"dataset": str(made.dataset), "rows": made.rows, "series": series, "days": days}
    if output == TABLE:
        click.echo(
            f"{made.rows:,} rows of {series:,} series and {days:,} days\n"
            f"train on them with: modelwire train --dataset {made.dataset}"
        )
    else:
        click.echo(as_text(output, report))
