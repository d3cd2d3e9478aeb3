"""``modelwire request``: send one request, or replay held-out days as many."""

import signal
import time
import uuid
from types import FrameType
from typing import BinaryIO

import click
import msgspec
from rich.console import Console
from rich.table import Table

from adapters.command_line import speak_briefly
from adapters.control_log import read_log
from adapters.kafka import require_topics, topic_names
from adapters.output import TABLE, as_text, output_option
from adapters.settings import load_settings
from modelwire.ask import Answered, Caller, Sent, request_of, typed_inputs
from modelwire.replay import (
    Replay,
    bundle_to_imitate,
    endless,
    read_holdout,
    series_key,
    utc_now,
)
from schemas.contract import Contract, FieldType
from schemas.errors import UsageProblem
from schemas.request import Request

REJECTED = 3


@click.group()
def request() -> None:
    """Send or generate forecast requests."""
    speak_briefly()


@request.command()
@click.argument("model")
@click.option(
    "--set",
    "pairs",
    multiple=True,
    metavar="FIELD=VALUE",
    help="One raw input; a date as YYYY-MM-DD.",
)
@click.option("--file", type=click.File("rb"), help="Raw inputs as one JSON object; - is stdin.")
@click.option("--key", help="Key of the record.  [default: the text fields joined with |]")
@click.option("--id", "request_id", help="Id of the request.  [default: a new one]")
@click.option("--wait", is_flag=True, help="Await the answer and print it.")
@click.option(
    "--timeout", type=click.FloatRange(min=0), default=30.0, show_default=True, metavar="SECONDS"
)
def send(
    model: str,
    pairs: tuple[str, ...],
    file: BinaryIO | None,
    key: str | None,
    request_id: str | None,
    wait: bool,
    timeout: float,
) -> int:
    """Send one request; print where it lies, or its answer.

    Exit code 0: sent, or with --wait forecast. 3: rejected. 124: no answer in time.
    """
    texts = _texts(pairs)
    if texts and file is not None:
        raise UsageProblem(
            "--set and --file were both given", hint="give the inputs in one of the two ways"
        )
    if not texts and file is None:
        raise UsageProblem(
            "no inputs were given",
            hint=f"modelwire request send {model} --set FIELD=VALUE, once for each field, or "
            "--file FILE with one JSON object (- is stdin)",
        )
    settings = load_settings()
    caller = Caller(settings, model)
    request_id = request_id or uuid.uuid4().hex
    record_key: bytes | None
    if file is not None and key is not None:
        asked, record_key = _request_in(file, request_id), key.encode()
    else:
        _, manifest = bundle_to_imitate(settings, read_log(settings, model).deployment)
        contract = manifest.contract
        if file is not None:
            asked = _request_in(file, request_id)
        else:
            asked = request_of(request_id, _typed(contract, texts), utc_now())
        series = series_key(contract, msgspec.json.decode(asked.inputs))
        record_key = series if key is None else key.encode()
    try:
        if wait:
            caller.listen()
        sent = caller.send(asked, record_key)
        answer = caller.answer_to(sent, timeout) if wait else None
    finally:
        caller.close()
    click.echo(_text(sent, answer))
    return REJECTED if answer is not None and answer.rejected else 0


def _text(sent: Sent, answer: Answered | None) -> bytes:
    return msgspec.json.encode(sent) if answer is None else answer.text


def _texts(pairs: tuple[str, ...]) -> dict[str, str]:
    """What each --set says. Raises UsageProblem for one without a value, and for a field named twice."""
    texts: dict[str, str] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise UsageProblem(f"--set {pair} has no value", hint="write --set FIELD=VALUE")
        if name in texts:
            raise UsageProblem(
                f"{name} was given twice: {texts[name]} and {text}",
                hint=f"give --set {name}=… once; each further request is a command of its own",
            )
        texts[name] = text
    return texts


def _typed(contract: Contract, texts: dict[str, str]) -> bytes:
    """The inputs of --set as JSON; what is wrong with them comes with how to write a date."""
    try:
        return msgspec.json.encode(typed_inputs(contract, texts))
    except UsageProblem as problem:
        if any(field.type is FieldType.DATE for field in contract.fields):
            problem.hint += "; a date is written YYYY-MM-DD"
        raise


def _request_in(file: BinaryIO, request_id: str) -> Request:
    """The request with the file's inputs. Raises UsageProblem where they are no JSON object."""
    try:
        return request_of(request_id, file.read(), utc_now())
    except UsageProblem as problem:
        problem.hint = (
            "give --file one JSON object that has the model's fields, "
            'such as {"store": "7", "date": "2011-11-20"}'
        )
        raise


@request.command()
@click.argument("model")
@click.option(
    "--rate", type=click.FloatRange(min=0, min_open=True), required=True, help="Requests a second."
)
@click.option("--count", type=click.IntRange(min=1), required=True, help="How many.")
@click.option("--seed", type=int, default=0, show_default=True, help="Decides their order.")
@output_option
def generate(model: str, rate: float, count: int, seed: int, output: str) -> None:
    """Replay the held-out days of the champion's bundle as requests, keyed by series.

    Without a champion, those of the newest released version.
    """
    settings = load_settings()
    require_topics(settings, [topic_names(settings, model).requests])
    digest, manifest = bundle_to_imitate(settings, read_log(settings, model).deployment)
    rows = endless(read_holdout(settings, digest, manifest), seed)
    replay = Replay(settings, model, rows, run_id=uuid.uuid4().hex[:12])
    started = time.monotonic()
    asked: list[int] = []

    def stop(number: int, _frame: FrameType | None) -> None:
        # An exception here could be raised in the middle of the client's callback, which loses count.
        asked.append(number)
        replay.stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    try:
        replay.run(rate, count, utc_now)
    finally:
        _show(replay, time.monotonic() - started, output)
    if asked:
        raise KeyboardInterrupt


def _show(replay: Replay, seconds: float, output: str) -> None:
    done = {
        "sent": replay.sent,
        "acknowledged": replay.acknowledged,
        "seconds": round(seconds, 3),
        "rate": round(replay.acknowledged / seconds, 1),
    }
    if output != TABLE:
        click.echo(as_text(output, done))
        return
    table = Table(show_header=False)
    for name, value in done.items():
        table.add_row(name, f"{value:,}")
    Console().print(table)
