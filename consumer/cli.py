"""``modelwire consume``: runs one instance until it is told to stop, or a supervisor of several."""

import os
import time
from collections.abc import Mapping
from functools import partial

import click
import structlog

from adapters.command_line import kafka_of, servers_option
from adapters.failure_line import failure_as_a_line
from adapters.group_offsets import Start
from adapters.logs import configure_logs
from adapters.model_name import parse_model
from adapters.settings import Settings, load_settings
from consumer.slot_health import LOOPBACK, SlotsHealth
from consumer.slots import AtWork, end_with, supervise
from consumer.supervisor import Supervisor
from schemas.errors import UsageProblem

LAST_SLOT = 9_999
LAST_PORT = 65_535


@click.command()
@click.option("--model", required=True, help="The model whose requests are answered.")
@click.option(
    "--slot",
    default=0,
    show_default=True,
    type=click.IntRange(0, LAST_SLOT),
    help="The place of this process among those that share the work; one process a slot. "
    "With --workers, that of the first. Not used with dynamic membership.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 1_000),
    help="Run so many slots, each in a process of its own that is started again when it ends; "
    "one a core. Without it, this process is the slot.",
)
@click.option(
    "--from",
    "start",
    type=click.Choice([each.value for each in Start]),
    help="Where a group without committed offsets starts; needed where answers stand already.",
)
@servers_option
@click.option("--store", help="Where bundles are: s3://bucket/prefix or file:///folder.")
@click.option("--supervisor", type=int, hidden=True, help="The process to end with.")
@click.option("--at-work", type=int, hidden=True, help="The descriptor to tell it on.")
def consume(
    model: str,
    slot: int,
    workers: int | None,
    start: str | None,
    bootstrap_servers: str | None,
    store: str | None,
    supervisor: int | None,
    at_work: int | None,
) -> None:
    """Answer a model's requests, exactly once, with the version that its control log asks for.

    Runs until SIGTERM or SIGINT. Says what it does as JSON lines on stderr.
    """
    configure_logs(as_json=True)
    with failure_as_a_line("consumer.failed", {} if workers else {"slot": slot}):
        parse_model(model)
        structlog.contextvars.bind_contextvars(model=model)
        if supervisor is not None:
            end_with(supervisor)
        settings = load_settings(kafka=kafka_of(bootstrap_servers), store_url=store)
        if workers is None:
            from consumer.instance import run  # here: a supervisor needs no model runtime

            tell = None if at_work is None else partial(AtWork.say, at_work)
            run(settings, model, slot, None if start is None else Start(start), tell)
            return
        given = {
            "--model": model,
            "--from": start,
            "--bootstrap-servers": bootstrap_servers,
            "--store": store,
        }
        arguments = [each for name, value in given.items() if value for each in (name, value)]
        code = _supervise(settings, model, slot, workers, arguments)
    click.get_current_context().exit(code)


def _supervise(
    settings: Settings, model: str, first: int, workers: int, arguments: list[str]
) -> int:
    """Run the slots ``first`` … with ``arguments``; returns the exit code."""
    if first + workers - 1 > LAST_SLOT:
        raise UsageProblem(
            f"--slot {first} with --workers {workers} goes beyond the last slot, {LAST_SLOT}",
            hint="number the slots of all machines from 0",
        )
    supervisor = Supervisor(first, workers, time.monotonic())
    ports = _ports(settings.consumer.health_port, supervisor)
    own = dict(os.environ)

    def command(slot: int, at_work: int) -> list[str]:
        ours = ["--slot", str(slot), "--supervisor", str(os.getpid()), "--at-work", str(at_work)]
        return ["consume", *arguments, *ours]

    def variables(slot: int) -> Mapping[str, str]:
        if slot not in ports:
            return own
        return own | {
            "MODELWIRE_CONSUMER__HEALTH_PORT": str(ports[slot]),
            "MODELWIRE_CONSUMER__HEALTH_HOST": LOOPBACK,
        }

    health = SlotsHealth(model, lambda: supervisor.slots, ports)
    try:
        if ports:
            health.open(settings.consumer.health_host, settings.consumer.health_port)
            health.require_ports()
        return supervise(supervisor, command, variables)
    finally:
        health.close()


def _ports(health_port: int, supervisor: Supervisor) -> dict[int, int]:
    """Each slot's own health port, above the supervisor's; none where that is 0."""
    if not health_port:
        return {}
    last = health_port + len(supervisor.slots)
    if last > LAST_PORT:
        raise UsageProblem(
            f"consumer.health_port is {health_port}, and its slots need the ports above it, "
            f"up to {last}",
            hint=f"set a port of at most {LAST_PORT - len(supervisor.slots)}",
        )
    return {slot.number: health_port + 1 + i for i, slot in enumerate(supervisor.slots)}
