"""``modelwire audit check``: whether all answers that were kept are there, and as they were."""

from datetime import UTC, date, datetime
from typing import Any

import click
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from adapters.command_line import servers_option, speak_briefly
from adapters.layout import show
from adapters.model_name import parse_model
from adapters.output import output_option
from audit.options import model_option, settings_of, store_option

_DAY = click.DateTime(["%Y-%m-%d"])


@click.command()
@model_option
@click.option("--since", type=_DAY, metavar="DAY", help="Only files from this day on (UTC).")
@click.option("--until", type=_DAY, metavar="DAY", help="Only files up to this day (UTC).")
@click.option(
    "--no-broker",
    is_flag=True,
    help="Do not ask Kafka up to where the sink stored; the end of a chain may then be missing unseen.",
)
@servers_option
@store_option
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
    speak_briefly()
    parse_model(model)
    settings = settings_of(bootstrap_servers, store)

    # here: what is wrong with the command line is told without waiting for boto3 and Arrow
    from adapters.answer_files import AnswerStore
    from adapters.object_store import open_store
    from audit import check as checking

    files = AnswerStore(open_store(settings.audit_url, settings.s3_settings), model)
    committed = {} if no_broker else checking.committed_positions(settings, model)
    found = checking.check(files, _day(since), _day(until), committed, datetime.now(UTC).date())
    show(output, _view(found), _object(model, files.url, found))
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
