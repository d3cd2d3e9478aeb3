"""``modelwire audit``: what is asked about answers after they were given."""

import click


@click.group()
def audit() -> None:
    """Keep answers, find them, explain them, derive them again."""
