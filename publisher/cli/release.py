"""``modelwire release``."""

from pathlib import Path

import click

from adapters.layout import show
from adapters.model_name import parse_model
from adapters.naming import parse_version
from publisher import releases, screens
from publisher.cli.launch import (
    STRATEGIES,
    conclude,
    launch_of,
    launching,
    say_how_it_runs,
)
from publisher.cli.options import asking, at_option, giving, report, settings_of, store_option
from publisher.status import read_history


@click.group()
def release() -> None:
    """Publish, list, show, revoke and retire versions."""


@release.command("publish")
@click.argument("bundle")
@click.option(
    "--start",
    type=STRATEGIES,
    help="Also start its rollout; see `rollout start`.",
)
@launching
@click.option("--model", help="The model that the bundle must be of.")
@store_option
@giving
def release_publish(
    bundle: str,
    start: str | None,
    plan: Path | None,
    min_ready: str | None,
    share: str | None,
    wait_seconds: float | None,
    model: str | None,
    store: str | None,
    reason: str,
    actor: str | None,
    bootstrap_servers: str | None,
    output: str,
) -> None:
    """Release BUNDLE as the next version of its model.

    BUNDLE is a digest (sha256:…), the first six or more of its hexadecimal digits, or the address that
    `modelwire train` printed. Every byte of it is verified first. Where --start is refused (exit code
    3), the release stands all the same.
    """
    settings = settings_of(bootstrap_servers, store, actor)
    launch = launch_of(start, plan, min_ready, share, wait_seconds)
    launched = releases.publish(settings, bundle, model, launch, reason)
    conclude(output, launched)
    say_how_it_runs(launched.appended.model, launch)


@release.command("list")
@click.argument("model")
@at_option
@asking
def release_list(model: str, at: str | None, bootstrap_servers: str | None, output: str) -> None:
    """List MODEL's versions."""
    settings = settings_of(bootstrap_servers)
    deployment = read_history(settings, parse_model(model), at).deployment
    show(output, screens.releases_table(deployment), screens.releases_object(deployment))


@release.command("show")
@click.argument("version", metavar="MODEL:VERSION")
@store_option
@asking
def release_show(
    version: str, store: str | None, bootstrap_servers: str | None, output: str
) -> None:
    """Show a version: its scores, its horizon, and what it was made from."""
    shown = releases.show(settings_of(bootstrap_servers, store), parse_version(version))
    show(output, screens.version_table(shown), screens.version_object(shown))


@release.command("revoke")
@click.argument("version", metavar="MODEL:VERSION")
@giving
def release_revoke(
    version: str, reason: str, actor: str | None, bootstrap_servers: str | None, output: str
) -> None:
    """Take a version out of service for ever; a champion is replaced by the previous one."""
    settings = settings_of(bootstrap_servers, actor=actor)
    report(output, releases.revoke(settings, parse_version(version), reason))


@release.command("retire")
@click.argument("version", metavar="MODEL:VERSION")
@giving
def release_retire(
    version: str, reason: str, actor: str | None, bootstrap_servers: str | None, output: str
) -> None:
    """Let consumers drop a version that serves no more."""
    settings = settings_of(bootstrap_servers, actor=actor)
    report(output, releases.retire(settings, parse_version(version), reason))
