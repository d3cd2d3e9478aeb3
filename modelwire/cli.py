"""The ``modelwire`` command. Each part's own commands are imported only when one of them is called.

Errors of the world (``schemas.errors``) become one message and an exit code here; a traceback means a
bug in modelwire.
"""

import contextlib
import importlib
import sys

import click

from schemas.errors import ModelwireError

INTERRUPTED = 130

COMMANDS: dict[str, tuple[str, str]] = {
    "up": ("modelwire.localstack.cli:up", "Start a Kafka broker and an S3 server on this machine."),
    "down": ("modelwire.localstack.cli:down", "Stop what `up` started."),
    "doctor": ("modelwire.localstack.cli:doctor", "Check this machine, and say what mends it."),
    "demo": ("modelwire.demo:demo", "Train, release, swap under load, undo, and check."),
    "topics": ("publisher.cli.topics:topics", "Create a model's topics, and grow them."),
    "train": ("trainer.cli:train", "Train a model on a panel of daily sales; store its bundle."),
    "runs": ("trainer.runs_cli:runs", "List trainings and compare two, from the store alone."),
    "reproduce": ("trainer.reproduce_cli:reproduce", "Train a bundle again, and compare."),
    "data": ("trainer.data_cli:data", "Make panels of daily sales to try things on."),
    "bundle": ("modelwire.bundle:bundle", "Make bundles of any ONNX model, copy them, tidy up."),
    "release": (
        "publisher.cli.release:release",
        "Publish, list, show, revoke and retire versions.",
    ),
    "rollout": ("publisher.cli.rollout:rollout", "Move traffic to a version, and back."),
    "models": ("publisher.cli.models:models", "List the models, and where each stands."),
    "consume": ("consumer.cli:consume", "Answer a model's requests."),
    "request": ("modelwire.requests:request", "Send or generate forecast requests."),
    "rejections": (
        "modelwire.rejections:rejections",
        "List what was rejected, and send it again.",
    ),
    "audit": ("audit.cli:audit", "Keep answers, find them, explain them, derive them again."),
    "verify-stream": (
        "modelwire.verify_stream:verify_stream",
        "Count lost, doubled and wrong answers.",
    ),
}
"""Name -> (where the command lives, its line in the help)."""


class LazyGroup(click.Group):
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

    def invoke(self, ctx: click.Context) -> object:
        """Run the command. What is wrong with the world ends it with a message and an exit code."""
        try:
            return super().invoke(ctx)
        except ModelwireError as error:
            # here: no command that goes well needs them
            from adapters.output import CHOSEN, TABLE
            from modelwire.problems import problem_text

            # Whoever cannot be told in words is told by the code.
            with contextlib.suppress(OSError):
                click.echo(problem_text(error, ctx.meta.get(CHOSEN, TABLE)), err=True)
            ctx.exit(error.exit_code)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing one."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="modelwire")
def modelwire() -> None:
    """Train, release and hot-swap forecast models on the consumers of a Kafka stream."""


def main() -> None:
    """Run the command line and exit with its code."""
    try:
        code = modelwire.main(standalone_mode=False)
    except click.exceptions.Abort:
        click.echo("interrupted", err=True)
        sys.exit(INTERRUPTED)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    sys.exit(code if isinstance(code, int) else 0)
