"""``modelwire consume``: starts one instance, runs it until it is told to stop, and stops it."""

import click

from adapters.group_offsets import Start
from adapters.logs import configure_logs
from adapters.settings import load_settings
from consumer.instance import run


@click.command()
@click.option("--model", required=True, help="The model whose requests are answered.")
@click.option(
    "--slot",
    default=0,
    show_default=True,
    type=click.IntRange(0, 9_999),
    help="The place of this process among those that share the work; one process a slot. "
    "Not used with dynamic membership.",
)
@click.option(
    "--from",
    "start",
    type=click.Choice([each.value for each in Start]),
    help="Where a group without committed offsets starts; needed where answers stand already.",
)
@click.option("--bootstrap-servers", help="The Kafka brokers, host:port[,host:port…].")
@click.option("--store", help="Where bundles are: s3://bucket/prefix or file:///folder.")
def consume(
    model: str,
    slot: int,
    start: str | None,
    bootstrap_servers: str | None,
    store: str | None,
) -> None:
    """Answer a model's requests, exactly once, with the version that its control log asks for.

    Runs until SIGTERM or SIGINT. Says what it does as JSON lines on stderr.
    """
    kafka = None if bootstrap_servers is None else {"bootstrap_servers": bootstrap_servers}
    settings = load_settings(kafka=kafka, store_url=store)
    configure_logs(as_json=True)
    run(settings, model, slot, None if start is None else Start(start))
