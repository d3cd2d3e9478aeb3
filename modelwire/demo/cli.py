"""``modelwire demo``: the servers around the story, its end in every case, and its verdict."""

import contextlib
import os
import re
import shutil
import signal
from pathlib import Path
from typing import NoReturn

import click
from confluent_kafka import KafkaException
from rich.console import Console
from rich.table import Table

from adapters.kafka import ANSWER_LIMIT_SECONDS, CLIENT_LOG, admin, client_config, topic_names
from adapters.logs import configure_logs
from adapters.output import TABLE, as_text, output_option
from adapters.settings import Settings, load_settings
from modelwire.checker import Report, StreamUnreadable, Topics, check_topics
from modelwire.demo.audited import audit
from modelwire.demo.commands import Commands
from modelwire.demo.figures import Audited, Played, lines, summary
from modelwire.demo.script import Script
from modelwire.demo.view import View
from modelwire.localstack.jars import jar_cache_of
from modelwire.localstack.stack import Stack
from modelwire.localstack.stack_info import read_stack
from schemas.errors import ModelwireError
from trainer.dataset import load_dataset

DATASET = Path("datasets/online_retail.toml")
FOLDER = "demo"
"""Under the state folder: the logs of the demo's processes, and the canary's plan."""

CHECK_WAIT_SECONDS = 30.0
UNCLEAN = 1


@click.command()
@output_option
@click.option("--keep", is_flag=True, help="Leave the servers and the consumers running.")
@click.option(
    "--state-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the local stack.  [default: .modelwire]",
)
def demo(output: str, keep: bool, state_dir: Path | None) -> int:
    """Train two models; under load shadow, canary, undo and swap; check every answer, explain one.

    Runs on the local stack and on topics of its own: the model is called sales, or sales-2, sales-3 …
    where those topics exist already. What it started it stops; topics and bundles stay.

    Exit code 0: every request has exactly one right answer, and those that were drawn came out again to
    the bit. 1: something is off, or a step failed.
    """
    console = Console(stderr=True)
    _stop_on_sigterm()
    with View(console) as view, contextlib.ExitStack() as started:
        settings = _start_stack(view, started, state_dir)
        model = _free_name(settings, load_dataset(DATASET).dataset.model)
        folder = settings.state_dir / FOLDER
        commands = Commands(folder)
        started.callback(commands.stop)
        started.callback(_finish_undisturbed)
        dataset = _dataset(model, folder)
        played = Script(settings, model, dataset, folder, commands, view).play()
        if not keep:
            commands.stop()
        view.say(f"$ modelwire verify-stream --model {model}")
        report = _check(settings, model)
        audited = audit(model, commands, view)
        if keep:
            started.pop_all()
    _print(output, played, report, audited)
    for finding in report.findings:
        click.echo(f"{finding.kind}: {finding.sentence}", err=True)
    if keep:
        click.echo(_how_to_go_on(settings, model, commands), err=True)
    return 0 if report.clean and audited.is_proven else UNCLEAN


def _stop_on_sigterm() -> None:
    def interrupt(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


def _finish_undisturbed() -> None:
    """What was started is being stopped, which takes seconds; a second Ctrl-C must not orphan it."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _start_stack(view: View, started: contextlib.ExitStack, state_dir: Path | None) -> Settings:
    """Settings that name the local stack and nothing else, for this process and its children.

    Whatever points modelwire at other brokers or stores is left out: a demo does not touch them.
    """
    configure_logs(as_json=False)
    CLIENT_LOG.disabled = True  # what fails is in the commands' own errors
    settings = load_settings(state_dir=state_dir)
    folder = settings.state_dir.absolute()
    before = read_stack(folder)
    view.say("$ modelwire up")
    info = Stack.up(folder, jars=jar_cache_of(settings))
    if before is None or before.pids != info.pids:
        started.callback(Stack.down, folder)
    for name in list(os.environ):
        foreign = name.startswith(("MODELWIRE_", "AWS_")) or name == "KAFKA_BOOTSTRAP_SERVERS"
        if foreign and not name.startswith("MODELWIRE_STACK__"):
            del os.environ[name]
    os.environ["MODELWIRE_STATE_DIR"] = str(folder)
    no_settings = folder / FOLDER / "modelwire.toml"
    no_settings.parent.mkdir(exist_ok=True)
    no_settings.write_text("", encoding="utf-8")
    os.environ["MODELWIRE_CONFIG"] = str(no_settings)
    return load_settings()


def _free_name(settings: Settings, wanted: str) -> str:
    """``wanted``, or with the first number from 2 that has no control log yet."""
    with admin(settings) as asked:
        try:
            topics = asked.client.list_topics(timeout=ANSWER_LIMIT_SECONDS).topics
        except KafkaException as error:
            raise asked.explain(error.args[0], "list the topics") from error
    name, number = wanted, 1
    while topic_names(settings, name).control in topics:
        number += 1
        name = f"{wanted}-{number}"
    return name


def _dataset(model: str, folder: Path) -> Path:
    """The shipped dataset, or a copy of it that names ``model``."""
    shipped = load_dataset(DATASET)
    if shipped.dataset.model == model:
        return DATASET
    text, count = re.subn(r'(?m)^model = ".*?"', f'model = "{model}"', shipped.text)
    assert count == 1, "the shipped dataset names its model once"
    shutil.copyfile(shipped.source, folder / shipped.source.name)
    copy = folder / f"{model}.toml"
    copy.write_text(text, encoding="utf-8")
    return copy


def _check(settings: Settings, model: str) -> Report:
    names = topic_names(settings, model)
    topics = Topics(names.requests, names.results, names.rejections, names.control)
    try:
        return check_topics(client_config(settings), topics, wait_seconds=CHECK_WAIT_SECONDS)
    except StreamUnreadable as error:
        raise ModelwireError(f"the answers cannot be checked: {error}") from error


def _print(output: str, played: Played, report: Report, audited: Audited) -> None:
    if output != TABLE:
        click.echo(as_text(output, summary(played, report, audited)))
        return
    table = Table(title="every request and its answer", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for name, figure in lines(played, report, audited):
        table.add_row(name, figure)
    Console().print(table)


def _how_to_go_on(settings: Settings, model: str, commands: Commands) -> str:
    pids = " ".join(str(each.process.pid) for each in commands.background)
    return "\n".join(
        (
            "The servers and the consumers run on. Try, for instance:",
            f"  export MODELWIRE_STATE_DIR={settings.state_dir}",
            f"  modelwire rollout status {model}",
            f"  modelwire request generate {model} --rate 500 --count 5000",
            f"  modelwire rollout undo {model}",
            f"  modelwire verify-stream --model {model} --wait 10",
            f"Stop them: kill {pids} && modelwire down",
        )
    )
