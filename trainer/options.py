"""Options that several commands of the trainer have."""

import click

MEMORY_MB = 1_024
"""What DuckDB may hold by default, in MiB. Python, and the panel, come on top."""

memory_option = click.option(
    "--memory",
    "memory_mb",
    type=click.IntRange(min=256),
    default=MEMORY_MB,
    show_default=True,
    help="MiB that the preparation of the panel may take before it goes to disk.",
)
