"""`modelwire up`, `down` and `doctor`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from adapters.output import TABLE, as_text, output_option
from adapters.settings import load_settings
from modelwire.localstack.doctor import Check, Verdict, examine
from modelwire.localstack.jars import jar_cache_of
from modelwire.localstack.runtime import INSTALL_HINT
from modelwire.localstack.stack_info import FILE_NAME
from schemas.errors import ModelwireError

if TYPE_CHECKING:
    from modelwire.localstack.stack import Stack

state_dir_option = click.option(
    "--state-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for state, logs, pids and data.  [default: .modelwire]",
)
jar_cache_option = click.option(
    "--jar-cache",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the downloaded jars, shared by all stacks.  [default: ~/.cache/modelwire/jars]",
)


@click.command()
@state_dir_option
@jar_cache_option
@click.option(
    "--maven-repository",
    metavar="URL",
    help="Where missing jars are downloaded from.  [default: Maven Central]",
)
@click.option("--new-ports", is_flag=True, help="Forget the remembered ports of a stopped stack.")
@click.option(
    "--limit",
    type=click.FloatRange(min=1),
    default=90.0,
    show_default=True,
    help="Seconds that each server may take to become ready.",
)
@output_option
def up(
    state_dir: Path | None,
    jar_cache: Path | None,
    maven_repository: str | None,
    new_ports: bool,
    limit: float,
    output: str,
) -> None:
    """Start a Kafka broker and an S3 server on this machine.

    The first start downloads about 70 MB of jars. Both run on until `modelwire down`; their output
    goes to log files in the state folder. What already runs is left alone.
    """
    settings = load_settings(state_dir=state_dir)
    info = _stack().up(
        settings.state_dir,
        jars=jar_cache_of(settings, jar_cache, maven_repository),
        limit_seconds=limit,
        new_ports=new_ports,
    )
    if output != TABLE:
        click.echo(as_text(output, msgspec.json.decode((info.state_dir / FILE_NAME).read_bytes())))
        return
    click.echo(f"Kafka   {info.bootstrap_servers}")
    click.echo(f"S3      {info.s3_endpoint}  bucket {info.s3_bucket}")
    click.echo(f"state   {info.state_dir}  (addresses and S3 keys: {FILE_NAME})")


@click.command()
@state_dir_option
def down(state_dir: Path | None) -> None:
    """Stop what `up` started. Data and ports are kept; removing the state folder removes them."""
    stopped = _stack().down(load_settings(state_dir=state_dir).state_dir)
    click.echo(f"stopped {' and '.join(stopped)}" if stopped else "nothing was running")


@click.command()
@state_dir_option
@jar_cache_option
@output_option
@click.pass_context
def doctor(ctx: click.Context, state_dir: Path | None, jar_cache: Path | None, output: str) -> None:
    """Check this machine, and say what mends it. Exits with 1 if anything fails."""
    settings = load_settings(state_dir=state_dir)
    checks = examine(settings.state_dir, jar_cache_of(settings, jar_cache))
    if output == TABLE:
        _print_table(checks)
    else:
        click.echo(as_text(output, checks))
    ctx.exit(1 if any(check.verdict is Verdict.FAIL for check in checks) else 0)


def _stack() -> type["Stack"]:
    """`Stack`, imported late: it needs the packages of the `local` extra."""
    try:
        from modelwire.localstack.stack import Stack
    except ModuleNotFoundError as problem:
        raise ModelwireError(
            f"the local stack needs {problem.name}, which is not installed", hint=INSTALL_HINT
        ) from problem
    return Stack


def _print_table(checks: list[Check]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    colours = {Verdict.OK: "green", Verdict.WARN: "yellow", Verdict.FAIL: "red"}
    table = Table(box=None, pad_edge=False)
    for title in ("check", "", "found", "mend it with"):
        table.add_column(title, overflow="fold")
    for check in checks:
        colour = colours[check.verdict]
        mend = "" if check.verdict is Verdict.OK else check.mend
        # As Text, since a path may hold brackets that a table would take for markup.
        table.add_row(check.name, Text(check.verdict, colour), Text(check.found), Text(mend))
    Console(highlight=False).print(table)
