"""Options that several commands of the trainer have."""

import click

memory_option = click.option(
    "--memory",
    "memory_mb",
    type=click.IntRange(min=256),
    default=1_024,
    show_default=True,
    help="MiB that the preparation of the panel may take before it goes to disk.",
)
