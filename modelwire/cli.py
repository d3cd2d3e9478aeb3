"""The ``modelwire`` command. Each part's own commands are imported only when one of them is called.

Errors of the world (``schemas.errors``) become one message and an exit code here; a traceback means a
bug in modelwire.
"""

import contextlib
import sys

import click

from adapters.lazy_group import Commands, LazyGroup
from schemas.errors import ModelwireError

INTERRUPTED = 130

COMMANDS: Commands = {
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


class Modelwire(LazyGroup):
    """The command line as a whole: what is wrong with the world is told here."""

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


@click.group(cls=Modelwire, lazy=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
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
