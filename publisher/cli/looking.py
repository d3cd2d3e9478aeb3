"""``modelwire rollout status`` and ``history``: what the log and the fleet say, now and in the past."""

import sys
import time
from typing import NoReturn

import click
from rich.console import Group
from rich.live import Live
from rich.text import Text

from adapters.layout import console, show
from adapters.model_name import parse_model
from adapters.output import TABLE, as_text
from adapters.settings import Settings
from deployment.state import BrokenLog
from publisher import screens
from publisher.cli.options import asking, at_option, settings_of
from publisher.status import Status, read_history, read_status
from schemas.errors import ModelwireError, UsageProblem

REFRESH_SECONDS = 1.0
"""Time between two looks of ``rollout status -w``: instances announce themselves this often."""


@click.command()
@click.argument("model")
@at_option
@asking
def history(model: str, at: str | None, bootstrap_servers: str | None, output: str) -> None:
    """Say who did what to MODEL, when and why; the newest last."""
    events = read_history(settings_of(bootstrap_servers), parse_model(model), at).events
    show(output, screens.history_table(model, events), screens.history_object(model, events))


@click.command()
@click.argument("model")
@click.option("-w", "--watch", is_flag=True, help="Go on until interrupted.")
@at_option
@asking
def status(
    model: str, watch: bool, at: str | None, bootstrap_servers: str | None, output: str
) -> None:
    """Show MODEL's rollout, what each live instance serves, and the steps of the plan.

    Of the past (--at) only the log's part is known: the fleet's is not kept.
    """
    if watch and at is not None:
        raise UsageProblem("-w and --at exclude each other", hint="the past does not change")
    settings = settings_of(bootstrap_servers)
    found = read_status(settings, parse_model(model), at)
    if watch:
        _watch(settings, found, output)
    else:
        show(output, screens.status_view(found), screens.status_object(found))


def _watch(settings: Settings, status: Status, output: str) -> None:
    """Shows the status anew each second; away from a terminal, a line when something changed."""
    if output == TABLE and sys.stdout.isatty():
        _watch_on_terminal(settings, status)
    shown = trouble = ""
    while True:
        if output != TABLE and not trouble:
            click.echo(as_text(output, screens.status_object(status), one_of_many=True))
        elif output == TABLE and (line := screens.status_line(status)) != shown and not trouble:
            shown = line
            click.echo(line)
        time.sleep(REFRESH_SECONDS)
        before = trouble
        status, trouble = _look_again(settings, status)
        if trouble != before:
            shown = ""
            click.echo(trouble or "it can be seen again", err=True)


def _watch_on_terminal(settings: Settings, status: Status) -> NoReturn:
    with Live(screens.status_view(status), console=console(), auto_refresh=False) as live:
        while True:
            time.sleep(REFRESH_SECONDS)
            status, trouble = _look_again(settings, status)
            view = screens.status_view(status)
            live.update(Group(view, Text(trouble, "red")) if trouble else view, refresh=True)


def _look_again(settings: Settings, status: Status) -> tuple[Status, str]:
    """The status as it is now; where it cannot be seen, the one before, and why. A broker that is away
    comes back, and one that restarts denies topics that exist."""
    try:
        return read_status(settings, status.deployment.model), ""
    except (UsageProblem, BrokenLog):
        raise
    except ModelwireError as problem:
        return status, f"what is shown is not of now: {problem.message}"
