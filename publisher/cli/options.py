"""What the publisher's commands have in common: their options, settings and output."""

import click

from adapters.command_line import kafka_of, options, servers_option, speak_briefly
from adapters.output import TABLE, as_text, output_option
from adapters.settings import Settings, load_settings
from publisher import screens
from publisher.commands import Appended
from schemas.errors import UsageProblem

store_option = click.option(
    "--store", help="Where bundles are: s3://bucket/prefix or file:///folder."
)


def _check_text(_: click.Context, option: click.Parameter, value: str | None) -> str | None:
    """What goes into the log is Unicode text; bytes of an argument that are none arrive as surrogates."""
    if value is not None:
        require_text(f"--{option.name}", value)
    return value


def require_text(name: str, value: str) -> None:
    """Raises UsageProblem where ``value`` has bytes in it that are not UTF-8."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise UsageProblem(
            f"{name} is not text in UTF-8: {value!a}", hint="write it in UTF-8"
        ) from None


actor_option = click.option(
    "--actor", callback=_check_text, help="Who gives the command.  [default: user@host]"
)
reason_option = click.option(
    "--reason", default="", callback=_check_text, help="Why, for the history."
)

at_option = click.option(
    "--at",
    metavar="TIME|REVISION",
    help="As of then: a revision (7), a time (2026-11-21T10:00Z; UTC without a zone), or how long ago "
    "(10m, 2h).",
)

asking = options(servers_option, output_option)
acting = options(actor_option, servers_option, output_option)
giving = options(reason_option, acting)


def settings_of(
    bootstrap_servers: str | None, store: str | None = None, actor: str | None = None
) -> Settings:
    speak_briefly()
    settings = load_settings(kafka=kafka_of(bootstrap_servers), store_url=store, actor=actor)
    require_text("the actor", settings.actor)
    return settings


def report(output: str, appended: Appended, *, one_of_many: bool = False) -> None:
    """``one_of_many``: what the same command does next follows in the same output."""
    if output == TABLE:
        click.echo(screens.appended_line(appended))
    else:
        value = screens.appended_object(appended)
        click.echo(as_text(output, value, one_of_many=one_of_many))
