"""``modelwire topics``, ``release`` and ``rollout``."""

import sys
import time
from collections.abc import Callable
from typing import Any, TypeVar

import click
from rich.console import Console, RenderableType
from rich.live import Live

from adapters.kafka import CLIENT_LOG
from adapters.logs import configure_logs
from adapters.settings import Settings, load_settings
from adapters.topics import create_topics
from deployment.decisions import Strategy
from publisher import releases, rollouts, screens
from publisher.commands import Appended
from publisher.naming import parse_model, parse_version, parse_version_of

REFRESH_SECONDS = 1.0
"""Time between two looks of ``rollout status -w``: instances announce themselves this often."""

PLAIN_WIDTH = 200
"""Columns of a table that goes to a file or a pipe."""

Command = TypeVar("Command", bound=Callable[..., Any])


def _options(*decorators: Callable[[Command], Command]) -> Callable[[Command], Command]:
    def decorate(command: Command) -> Command:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return decorate


_output = click.option(
    "-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True
)
_servers = click.option("--bootstrap-servers", help="The Kafka brokers, host:port[,host:port…].")
_store = click.option("--store", help="Where bundles are: s3://bucket/prefix or file:///folder.")
_actor = click.option("--actor", help="Who gives the command.  [default: user@host]")
_reason = click.option("--reason", default="", help="Why, for the history.")

asking = _options(_servers, _output)
giving = _options(_reason, _actor, _servers, _output)


def _settings(
    bootstrap_servers: str | None, store: str | None = None, actor: str | None = None
) -> Settings:
    configure_logs(as_json=False)
    CLIENT_LOG.disabled = True  # what fails is in the command's own error
    kafka = None if bootstrap_servers is None else {"bootstrap_servers": bootstrap_servers}
    return load_settings(kafka=kafka, store_url=store, actor=actor)


def _console() -> Console:
    return Console() if sys.stdout.isatty() else Console(width=PLAIN_WIDTH)


def _show(output: str, view: RenderableType, value: object) -> None:
    if output == "json":
        click.echo(screens.as_json(value))
    else:
        _console().print(view)


def _report(output: str, appended: Appended) -> None:
    if output == "json":
        click.echo(screens.as_json(screens.appended_object(appended)))
    else:
        click.echo(screens.appended_line(appended))


@click.group()
def topics() -> None:
    """Create a model's topics."""


@topics.command("create")
@click.argument("model")
@asking
def topics_create(model: str, bootstrap_servers: str | None, output: str) -> None:
    """Create MODEL's topics; those that exist stay as they are.

    Refuses, with nothing created, where one exists with other settings than it needs.
    """
    outcomes = create_topics(_settings(bootstrap_servers), parse_model(model))
    if output == "json":
        rows = [{"topic": name, "outcome": outcome} for name, outcome in outcomes]
        click.echo(screens.as_json({"model": model, "topics": rows}))
    else:
        for name, outcome in outcomes:
            click.echo(f"{name} {outcome}")


@click.group()
def release() -> None:
    """Publish, list, show, revoke and retire versions."""


@release.command("publish")
@click.argument("bundle")
@click.option(
    "--start",
    type=click.Choice([strategy.value for strategy in Strategy]),
    help="Also roll the version out, in the same transaction.",
)
@click.option("--model", help="The model that the bundle must be of.")
@_store
@giving
def release_publish(
    bundle: str,
    start: str | None,
    model: str | None,
    store: str | None,
    reason: str,
    actor: str | None,
    bootstrap_servers: str | None,
    output: str,
) -> None:
    """Release BUNDLE as the next version of its model.

    BUNDLE is a digest (sha256:…), the first six or more of its hexadecimal digits, or the address that
    `modelwire train` printed. Every byte of it is verified first.
    """
    settings = _settings(bootstrap_servers, store, actor)
    strategy = None if start is None else Strategy(start)
    _report(output, releases.publish(settings, bundle, model, strategy, reason))


@release.command("list")
@click.argument("model")
@asking
def release_list(model: str, bootstrap_servers: str | None, output: str) -> None:
    """List MODEL's versions."""
    deployment = releases.list_releases(_settings(bootstrap_servers), parse_model(model))
    _show(output, screens.releases_table(deployment), screens.releases_object(deployment))


@release.command("show")
@click.argument("version", metavar="MODEL:VERSION")
@_store
@asking
def release_show(
    version: str, store: str | None, bootstrap_servers: str | None, output: str
) -> None:
    """Show a version: its scores, its horizon, and what it was made from."""
    shown = releases.show(_settings(bootstrap_servers, store), parse_version(version))
    _show(output, screens.version_table(shown), screens.version_object(shown))


@release.command("revoke")
@click.argument("version", metavar="MODEL:VERSION")
@giving
def release_revoke(
    version: str, reason: str, actor: str | None, bootstrap_servers: str | None, output: str
) -> None:
    """Take a version out of service for ever; a champion is replaced by the previous one."""
    settings = _settings(bootstrap_servers, actor=actor)
    _report(output, releases.revoke(settings, parse_version(version), reason))


@release.command("retire")
@click.argument("version", metavar="MODEL:VERSION")
@giving
def release_retire(
    version: str, reason: str, actor: str | None, bootstrap_servers: str | None, output: str
) -> None:
    """Let consumers drop a version that serves no more."""
    settings = _settings(bootstrap_servers, actor=actor)
    _report(output, releases.retire(settings, parse_version(version), reason))


@click.group()
def rollout() -> None:
    """Move traffic to a version, and back."""


@rollout.command("start")
@click.argument("version", metavar="MODEL:VERSION")
@click.option(
    "--strategy",
    type=click.Choice([strategy.value for strategy in Strategy]),
    required=True,
    help="How traffic moves. blue-green: all at once, on each instance when it is ready.",
)
@giving
def rollout_start(
    version: str,
    strategy: str,
    reason: str,
    actor: str | None,
    bootstrap_servers: str | None,
    output: str,
) -> None:
    """Roll out a released version."""
    settings = _settings(bootstrap_servers, actor=actor)
    _report(output, rollouts.start(settings, parse_version(version), Strategy(strategy), reason))


@rollout.command("undo")
@click.argument("model")
@click.option("--to", metavar="VERSION", help="The version to bring back.  [default: the previous]")
@giving
def rollout_undo(
    model: str,
    to: str | None,
    reason: str,
    actor: str | None,
    bootstrap_servers: str | None,
    output: str,
) -> None:
    """Bring back MODEL's previous champion, or any version that may serve."""
    version = None if to is None else parse_version_of(parse_model(model), to)
    settings = _settings(bootstrap_servers, actor=actor)
    _report(output, rollouts.undo(settings, parse_model(model), version, reason))


@rollout.command("history")
@click.argument("model")
@asking
def rollout_history(model: str, bootstrap_servers: str | None, output: str) -> None:
    """Say who did what to MODEL, when and why."""
    events = rollouts.history(_settings(bootstrap_servers), parse_model(model)).events
    _show(output, screens.history_table(model, events), screens.history_object(model, events))


@rollout.command("status")
@click.argument("model")
@click.option("-w", "--watch", is_flag=True, help="Go on until interrupted.")
@asking
def rollout_status(model: str, watch: bool, bootstrap_servers: str | None, output: str) -> None:
    """Show MODEL's champion and what each live instance serves."""
    settings = _settings(bootstrap_servers)
    status = rollouts.status(settings, parse_model(model))
    if watch:
        _watch(settings, status, output)
    else:
        _show(output, screens.status_view(status), screens.status_object(status))


def _watch(settings: Settings, status: rollouts.Status, output: str) -> None:
    """Shows the status anew each second; away from a terminal, a line when something changed."""
    model = status.deployment.model
    if output == "table" and sys.stdout.isatty():
        with Live(screens.status_view(status), console=_console(), auto_refresh=False) as live:
            while True:
                time.sleep(REFRESH_SECONDS)
                live.update(screens.status_view(rollouts.status(settings, model)), refresh=True)
    shown = ""
    while True:
        if output == "json":
            click.echo(screens.as_json(screens.status_object(status), one_line=True))
        elif (line := screens.status_line(status)) != shown:
            shown = line
            click.echo(line)
        time.sleep(REFRESH_SECONDS)
        status = rollouts.status(settings, model)
