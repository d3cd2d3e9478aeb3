"""``modelwire audit``: what is asked about answers after they were given.

Each command is imported when it is called: some need a model runtime, others none.
"""

import importlib

import click

COMMANDS: dict[str, tuple[str, str]] = {
    "sink": ("audit.sink_cli:sink", "Copy answers to Parquet files, each exactly once."),
    "check": ("audit.check_cli:check", "Say which answer files are missing, doubled or altered."),
    "query": ("audit.query_cli:query", "Ask SQL of the answers that were kept."),
    "explain": ("audit.explain_cli:explain_command", "Say why a request got its answer."),
    "verify": ("audit.verify_cli:verify_command", "Derive answers again, and compare."),
    "state": ("audit.state_cli:state_command", "Say who answered at a moment, and who made it so."),
}
"""Name -> (where the command lives, its line in the help)."""


class AuditGroup(click.Group):
    """A group whose commands are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order of ``COMMANDS``."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command; None where no such name is known."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing one."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.group(cls=AuditGroup)
def audit() -> None:
    """Keep answers, find them, explain them, derive them again."""
