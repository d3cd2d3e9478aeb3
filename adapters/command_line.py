"""What the commands of all parts have in common: options that mean the same, and what they say."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from adapters.kafka import CLIENT_LOG
from adapters.logs import configure_logs

Command = TypeVar("Command", bound=Callable[..., Any])


def options(*decorators: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Several decorators as one, the first outermost."""

    def decorate(command: Command) -> Command:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return decorate


servers_option = click.option(
    "--bootstrap-servers", help="The Kafka brokers, host:port[,host:port…]."
)


def kafka_of(bootstrap_servers: str | None) -> dict[str, str] | None:
    """What ``servers_option`` says, as the settings take it."""
    return None if bootstrap_servers is None else {"bootstrap_servers": bootstrap_servers}


def speak_briefly() -> None:
    """A short command writes no log: what fails is in its own error."""
    configure_logs(as_json=False)
    CLIENT_LOG.disabled = True
