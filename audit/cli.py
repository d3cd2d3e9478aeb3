"""``modelwire audit``: what is asked about answers after they were given."""

import click

from audit.check_cli import check
from audit.sink_cli import sink


@click.group()
def audit() -> None:
    """Keep answers, find them, explain them, derive them again."""


audit.add_command(sink)
audit.add_command(check)
