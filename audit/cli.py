"""``modelwire audit``: what is asked about answers after they were given.

Each command is imported when it is called: some need a model runtime, others none.
"""

import click

from adapters.lazy_group import Commands, LazyGroup

COMMANDS: Commands = {
    "sink": ("audit.sink_cli:sink", "Copy answers to Parquet files, each exactly once."),
    "check": ("audit.check_cli:check", "Say which answer files are missing, doubled or altered."),
    "query": ("audit.query_cli:query", "Ask SQL of the answers that were kept."),
    "explain": ("audit.explain_cli:explain_command", "Say why a request got its answer."),
    "verify": ("audit.verify_cli:verify_command", "Derive answers again, and compare."),
    "state": ("audit.state_cli:state_command", "Say who answered at a moment, and who made it so."),
}


@click.group(cls=LazyGroup, lazy=COMMANDS)
def audit() -> None:
    """Keep answers, find them, explain them, derive them again."""
