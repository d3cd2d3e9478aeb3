"""``modelwire runs``: past trainings, from the object store alone."""

import sys
from collections.abc import Sequence
from datetime import UTC
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from adapters.bundle_names import SHOWN_DIGITS
from adapters.output import TABLE, as_text, output_option
from schemas.evidence import MODEL
from trainer.runs import Comparison, Difference, MetricPair, Run, compare_runs, list_runs

NOTHING = "–"
PLAIN_WIDTH = 200
"""Columns of a table that goes to a file or a pipe."""

_SHOWN = 90
"""Characters of a value that a table shows."""

store_option = click.option(
    "--store", help="Where bundles are: s3://bucket/prefix or file:///folder."
)


@click.group()
def runs() -> None:
    """List trainings and compare two, from the object store alone."""


@runs.command("list")
@click.option("--model", help="Only bundles of this model.")
@store_option
@output_option
def list_command(model: str | None, store: str | None, output: str) -> None:
    """List the bundles of the store, the newest first, with their scores on the days held out.

    Scores of different days cannot be compared: the column cutoff says where each holdout begins.
    """
    found = list_runs(_opened(store), model)
    if output != TABLE:
        click.echo(as_text(output, {"runs": found}))
        return
    if not found:
        click.echo("there are no bundles; make one with `modelwire train`")
        return
    _console().print(_runs_table(found))


@runs.command("compare")
@click.argument("a")
@click.argument("b")
@store_option
@output_option
def compare_command(a: str, b: str, store: str | None, output: str) -> None:
    """Compare bundles A and B: metrics side by side, and what differs in data and making.

    The difference of a metric is told where both were scored on the same sales of the same days; else the
    reason why not.
    A bundle is named by its digest, by at least six of its hexadecimal digits, or by its address.
    """
    from adapters.bundle_names import find_bundle

    opened = _opened(store)
    found = compare_runs(opened, find_bundle(opened, a), find_bundle(opened, b))
    if output != TABLE:
        click.echo(as_text(output, found))
        return
    _print_comparison(found)


def _opened(store: str | None) -> Any:
    # here: the help must not wait for boto3
    from adapters.object_store import open_store
    from adapters.settings import load_settings

    settings = load_settings(store_url=store)
    return open_store(settings.store_url, settings.s3_settings)


def _console() -> Console:
    return Console() if sys.stdout.isatty() else Console(width=PLAIN_WIDTH)


def _new_table(*columns: str, right: tuple[str, ...] = ()) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return table


def _runs_table(found: list[Run]) -> Table:
    figures = ("RMSLE", "WAPE", "bias", "coverage", "MB")
    table = _new_table(
        *("digest", "model", "created", "preset", "loss", "cutoff", *figures, "parent"),
        right=figures,
    )
    for run in found:
        if run.problem is not None:
            table.add_row(_short(run.digest), Text(run.problem, style="red"))
            continue
        table.add_row(
            _short(run.digest),
            Text(run.model or NOTHING),
            NOTHING
            if run.created_at is None
            else f"{run.created_at.astimezone(UTC):%Y-%m-%d %H:%M}Z",
            Text(run.preset or NOTHING),
            Text(run.loss or NOTHING),
            Text(run.cutoff or NOTHING),
            _figure(run.metrics.get("rmsle")),
            _figure(run.metrics.get("wape")),
            _signed(run.metrics.get("bias")),
            _figure(run.metrics.get("coverage")),
            NOTHING if run.size is None else f"{run.size / 1e6:.2f}",
            NOTHING if run.parent is None else _short(run.parent),
        )
    return table


def _print_comparison(found: Comparison) -> None:
    console = _console()
    for name, run in (("A", found.a), ("B", found.b)):
        held = "nothing held out" if run.holdout is None else f"held out {' … '.join(run.holdout)}"
        console.print(
            Text(f"{name}  {run.digest}  {run.model}, {run.preset or NOTHING}, {held}"),
            soft_wrap=True,
        )
    if found.same_model_bytes:
        console.print("\nboth have the same model.onnx")
    for why in found.incomparable:
        console.print(Text(f"\nthe scores do not compare: {why}"), soft_wrap=True)
    if found.metrics:
        console.print()
        console.print(_metrics_table(found.metrics, compared=not found.incomparable))
    for title, differences in (
        ("data", found.data),
        ("recipe", found.recipe),
        ("packages", found.packages),
        ("contract", found.contract),
    ):
        console.print()
        if not differences:
            console.print(f"{title}: the same")
            continue
        console.print(_differences_table(title, differences))
    console.print()
    if not found.config:
        console.print("configuration: the same")
        return
    console.print(Text("configuration", style="bold"))
    for line in found.config:
        console.print(Text(f"  {line}"), soft_wrap=True)


def _metrics_table(metrics: tuple[MetricPair, ...], *, compared: bool) -> Table:
    figures = ("A", "B", "B - A") if compared else ("A", "B")
    table = _new_table("predictor", "metric", *figures, right=figures)
    for pair in metrics:
        told = [_figure(pair.a), _figure(pair.b), _signed(pair.difference)]
        style = "bold" if pair.predictor == MODEL else ""
        table.add_row(Text(pair.predictor, style=style), Text(pair.metric), *told[: len(figures)])
    return table


def _differences_table(title: str, differences: tuple[Difference, ...]) -> Table:
    table = _new_table(title, "A", "B")
    for each in differences:
        if isinstance(each.a, list | tuple):
            table.add_row(Text(each.name), *map(Text, _only(each.a, each.b or ())))
        else:
            table.add_row(Text(each.name), Text(_cut(each.a)), Text(_cut(each.b)))
    return table


def _only(a: Sequence[object], b: Sequence[object]) -> tuple[str, str]:
    """What a list has that another does not, and the other way round."""
    alone = [", ".join(str(each) for each in x if each not in y) for x, y in ((a, b), (b, a))]
    if not any(alone):
        return "the same", "in another order"
    return alone[0] and f"only: {alone[0]}", alone[1] and f"only: {alone[1]}"


def _cut(value: object) -> str:
    if value is None:
        return NOTHING
    text = str(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


def _short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:SHOWN_DIGITS]


def _figure(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.4f}"


def _signed(value: float | None) -> str:
    return NOTHING if value is None else f"{value:+.4f}"
