"""``modelwire audit sink``: runs the sink until it is told to stop, or once."""

import gc
import signal
import sys
from collections.abc import Callable
from types import FrameType

import click
import structlog

from adapters.command_line import servers_option
from adapters.failure_line import failure_as_a_line
from adapters.logs import configure_logs
from adapters.model_name import parse_model
from adapters.object_store import open_store
from adapters.settings import Settings
from audit.options import model_option, settings_of, store_option

log = structlog.get_logger()


@click.command()
@model_option
@click.option("--once", is_flag=True, help="Copy what is there now, and end.")
@click.option(
    "--log-lines",
    "which",
    type=click.Choice(["all", "rejections", "none"]),
    default="none",
    show_default=True,
    help="Write a JSON line for each answer to stdout, once it is stored.",
)
@click.option(
    "--sample",
    type=click.FloatRange(0, 1),
    default=1.0,
    show_default=True,
    metavar="SHARE",
    help="The share of the answers that have lines, 0 … 1; rejections always have theirs.",
)
@servers_option
@store_option
def sink(
    model: str,
    once: bool,
    which: str,
    sample: float,
    bootstrap_servers: str | None,
    store: str | None,
) -> None:
    """Copy a model's answers from Kafka to Parquet files, each exactly once.

    Runs until SIGTERM or SIGINT, which has it store what it holds. Says what it does as JSON lines on
    stderr. A second sink of the same model does no harm, and no good.
    """
    configure_logs(as_json=True)
    with failure_as_a_line("audit.failed", {}):
        parse_model(model)
        structlog.contextvars.bind_contextvars(model=model)
        _run(settings_of(bootstrap_servers, store), model, once, which, sample)


def _run(settings: Settings, model: str, once: bool, which: str, sample: float) -> None:
    # here: an error in the settings is told without waiting for boto3 and Arrow
    from adapters.answer_files import AnswerStore
    from adapters.answer_source import AnswerSource
    from audit.line_writer import LineWriter, Which
    from audit.sink import Sink

    stopping = _listen()
    store = AnswerStore(open_store(settings.audit_url, settings.s3_settings), model)
    wanted = Which(which)
    lines = None if wanted is Which.NONE else LineWriter(model, wanted, sample, sys.stdout.buffer)
    log.info("audit.start", store=store.url, once=once, log_lines=which)
    source = AnswerSource(settings, model)
    gc.freeze()
    try:
        rows = Sink(settings.audit, model, source, store, lines, stopping).run(once=once)
    finally:
        source.close()
    log.info("audit.stop", rows=rows)


def _listen() -> Callable[[], bool]:
    """Take SIGTERM and SIGINT for the wish to stop; the result says whether one came."""
    came: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        came.append(number)

    signal.signal(signal.SIGTERM, note)
    signal.signal(signal.SIGINT, note)
    return lambda: bool(came)
