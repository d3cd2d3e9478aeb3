"""``modelwire audit check``: whether all answers that were kept are there, and as they were."""

import sys
from datetime import UTC, date, datetime
from typing import Any

import click
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from adapters.kafka import CLIENT_LOG
from adapters.logs import configure_logs
from adapters.model_name import parse_model
from adapters.output import TABLE, as_text, output_option
from adapters.settings import load_settings

PLAIN_WIDTH = 200
"""Columns of a table that goes to a file or a pipe."""

_DAY = click.DateTime(["%Y-%m-%d"])


@click.command()
@click.option("--model", required=True, help="The model whose answers were kept.")
@click.option("--since", type=_DAY, metavar="DAY", help="Only files from this day on (UTC).")
@click.option("--until", type=_DAY, metavar="DAY", help="Only files up to this day (UTC).")
@click.option(
    "--no-broker",
    is_flag=True,
    help="Do not ask Kafka up to where the sink stored; the end of a chain may then be missing unseen.",
)
@click.option("--bootstrap-servers", help="The Kafka brokers, host:port[,host:port…].")
@click.option("--store", help="Where answers are kept: s3://bucket/prefix or file:///folder.")
@output_option
def check(
    model: str,
    since: datetime | None,
    until: datetime | None,
    no_broker: bool,
    bootstrap_servers: str | None,
    store: str | None,
    output: str,
) -> None:
    """Read every file of a model's audit; name those that are missing, doubled, overlapping or altered.

    Exit code 1: something was found. 4: there are no files.
    """
    configure_logs(as_json=False)
    CLIENT_LOG.disabled = True  # what fails is in the command's own error
    parse_model(model)
    kafka = None if bootstrap_servers is None else {"bootstrap_servers": bootstrap_servers}
    settings = load_settings(kafka=kafka, audit=None if store is None else {"store_url": store})

    # here: what is wrong with the command line is told without Kafka, boto3 and Arrow
    from adapters.answer_files import AnswerStore
    from adapters.object_store import open_store
    from audit import check as checking

    files = AnswerStore(open_store(settings.audit_url, settings.s3_settings), model)
    committed = {} if no_broker else checking.committed_positions(settings, model)
    found = checking.check(files, _day(since), _day(until), committed, datetime.now(UTC).date())
    if output == TABLE:
        wide = None if sys.stdout.isatty() else PLAIN_WIDTH
        Console(width=wide).print(_view(found))
    else:
        click.echo(as_text(output, _object(model, files.url, found)))
    if found.findings:
        click.get_current_context().exit(1)


def _day(given: datetime | None) -> date | None:
    return None if given is None else given.date()


def _object(model: str, store: str, report: Any) -> dict[str, Any]:
    return {
        "model": model,
        "store": store,
        "clean": not report.findings,
        "kinds": [
            {
                "kind": each.kind.value,
                "partitions": each.partitions,
                "files": each.files,
                "rows": each.rows,
                "bytes": each.bytes,
                "unreadable": each.unreadable,
            }
            for each in report.counts
        ],
        "findings": [
            {"what": each.what.value, "key": each.key, "detail": each.detail}
            for each in report.findings
        ],
    }


def _view(report: Any) -> RenderableType:
    table = Table("KIND", "PARTITIONS", "FILES", "ROWS", "BYTES", "UNREADABLE", box=None)
    for each in report.counts:
        numbers = (each.partitions, each.files, each.rows, each.bytes, each.unreadable)
        table.add_row(each.kind.value, *(f"{number:,}" for number in numbers))
    lines = [
        Text(f"{each.what.value}: {each.key}\n  {each.detail}", overflow="fold")
        for each in report.findings
    ]
    count = len(report.findings)
    end = Text(f"{count} finding{'s' if count > 1 else ''}" if count else "clean")
    return Group(table, Text(), *lines, end)
