"""``modelwire verify-stream``: where the topics are, and how the report is shown."""

from dataclasses import astuple

import click
from rich.console import Console
from rich.table import Table

from adapters.kafka import CLIENT_LOG, client_config, require_topics, topic_names
from adapters.output import TABLE, as_text, output_option
from adapters.settings import load_settings
from modelwire.checker import Kind, Report, Share, StreamUnreadable, Topics, check_topics
from schemas.errors import ModelwireError, UsageProblem

UNCLEAN = 1
BASIS_POINTS = 10_000
BY_CONTROL_LOG = (Kind.WRONG_VERSION, Kind.WRONG_VARIANT)


@click.command("verify-stream")
@click.option("--model", help="The model whose topics are checked.")
@click.option("--requests", help="Topic of the requests.  [default: the model's]")
@click.option("--results", help="Topic of the forecasts.  [default: the model's]")
@click.option("--rejections", help="Topic of the rejections.  [default: the model's]")
@click.option("--control", help="Control log; without one versions and variants are not judged.")
@click.option(
    "--wait",
    type=click.FloatRange(min=0),
    default=0.0,
    metavar="SECONDS",
    help="Await missing answers for up to this long.",
)
@output_option
def verify_stream(
    model: str | None,
    requests: str | None,
    results: str | None,
    rejections: str | None,
    control: str | None,
    wait: float,
    output: str,
) -> int:
    """Count lost, doubled and wrong answers, from the topics alone.

    Exit code 0: every request has exactly one right answer. 1: something is off.
    """
    CLIENT_LOG.disabled = True  # what fails is in the command's own error
    settings = load_settings()
    if model is not None:
        names = topic_names(settings, model)
        topics = Topics(
            requests or names.requests,
            results or names.results,
            rejections or names.rejections,
            control or names.control,
        )
    elif requests and results and rejections:
        topics = Topics(requests, results, rejections, control)
    else:
        raise UsageProblem(
            "which topics to check is not said",
            hint="give --model, or --requests, --results and --rejections",
        )
    require_topics(settings, [name for name in astuple(topics) if name])
    try:
        report = check_topics(client_config(settings), topics, wait_seconds=wait)
    except StreamUnreadable as error:
        raise ModelwireError(str(error), hint="is the broker up? modelwire doctor") from error
    if output == TABLE:
        _show(report)
    else:
        click.echo(as_text(output, report.as_json()))
    return 0 if report.clean else UNCLEAN


def _show(report: Report) -> None:
    table = Table(show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for name in ("requests", "forecasts", "rejections"):
        table.add_row(name, f"{getattr(report, name):,}")
    for kind in Kind:
        count = getattr(report, kind)
        if kind in BY_CONTROL_LOG and not report.version_checked:
            table.add_row(kind, "not checked")
        else:
            table.add_row(kind, f"{count:,}", style="bold red" if count else None)
    if report.variant_unchecked:
        table.add_row("variant_unchecked", f"{report.variant_unchecked:,}")
    for version, count in report.versions.items():
        table.add_row(f"by version {version}", f"{count:,}")
    console = Console()
    console.print(table)
    if report.shares:
        console.print(_shares(report.shares))
    for finding in report.findings:
        console.print(f"{finding.kind}: {finding.sentence}", highlight=False, markup=False)
    if report.control_problem:
        console.print(report.control_problem, highlight=False, markup=False)


def _shares(shares: tuple[Share, ...]) -> Table:
    """A row for each rollout and weight: the candidate's share as it was to be and as it was seen."""
    table = Table("rollout", "weight", "expected", "of keys", "of requests", title="shares")
    for column in table.columns:
        column.justify = "right"
    for share in shares:
        sampled = f" (1 in {share.one_in})" if share.one_in > 1 else ""
        table.add_row(
            f"{share.rollout}, version {share.version}",
            f"{share.weight:,}",
            f"{share.weight / BASIS_POINTS:.2%}",
            f"{share.keys.share:.2%} of {share.keys.total:,}{sampled}",
            f"{share.answers.share:.2%} of {share.answers.total:,}",
        )
    return table
