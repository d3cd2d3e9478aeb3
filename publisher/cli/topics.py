"""``modelwire topics``."""

import click
from rich.table import Table
from rich.text import Text

from adapters.layout import show
from adapters.model_name import parse_model
from adapters.settings import Settings
from adapters.topic_growth import Growth, grow_topics, plan_growth
from adapters.topics import create_topics
from publisher.cli.options import asking, settings_of
from schemas.errors import RefusedByRule

MOST_SHOWN = 16
"""Partitions with waiting requests that are named one by one."""


@click.group()
def topics() -> None:
    """Create a model's topics, and give them more partitions."""


@topics.command("create")
@click.argument("model")
@asking
def topics_create(model: str, bootstrap_servers: str | None, output: str) -> None:
    """Create MODEL's topics; those that exist stay as they are.

    Refuses, with nothing created, where one exists with other settings than it needs.
    """
    outcomes = create_topics(settings_of(bootstrap_servers), parse_model(model))
    rows = [{"topic": name, "outcome": outcome} for name, outcome in outcomes]
    lines = Text("\n".join(f"{name} {outcome}" for name, outcome in outcomes))
    show(output, lines, {"model": model, "topics": rows})


@topics.command("grow")
@click.argument("model")
@click.option(
    "--partitions",
    required=True,
    type=click.IntRange(1, 10_000),
    help="How many the requests and their answers shall have.",
)
@click.option("--yes", is_flag=True, help="Do it. Without this, only say what it would do.")
@click.option("--despite-lag", is_flag=True, help="Also while requests wait for their answers.")
@asking
def topics_grow(
    model: str,
    partitions: int,
    yes: bool,
    despite_lag: bool,
    bootstrap_servers: str | None,
    output: str,
) -> None:
    """Give MODEL's requests and answers more partitions, which can never be taken away.

    Without --yes it changes nothing, says what growing does to MODEL's keys and order, and exits
    with 3. Running consumers take the new partitions up within seconds.
    """
    settings = settings_of(bootstrap_servers)
    growth = plan_growth(settings, parse_model(model), partitions)
    if yes:
        grow_topics(settings, growth, despite_lag=despite_lag)
    view = grown_view(settings, growth) if yes else growth_view(settings, growth)
    show(output, view, growth_object(growth, grown=yes))
    if not yes:
        raise RefusedByRule(
            f"nothing was changed: {model} still has {growth.before} partitions",
            hint=f"to do it: modelwire topics grow {model} --partitions {partitions} --yes",
        )


def growth_view(settings: Settings, growth: Growth) -> Table:
    """What growing would do, with the model's own numbers."""
    model, before, after = growth.model, growth.before, growth.after
    rows = {
        "partitions": f"from {before} to {after}. None can ever be taken away again.",
        "keys": _keys(growth),
        "order": "A key that moves can have newer requests answered before older ones, as long as "
        f"those wait in its old partition. {_waiting(growth)}",
        "routing": "Which version answers a key goes by the key, not by its partition: growing moves "
        "no key between champion and candidate.",
        "revisions": "In answers they never decrease on a partition. A key that moves has this in "
        "its old partition and in its new one, not from one to the other.",
        "settings": _settings(settings, growth),
        "topics": ", ".join(f"{name} {count}" for name, count in growth.counts.items())
        + "; they grow in this order, so that every request's answer has a place.",
    }
    if growth.was_begun:
        rows["interrupted"] = (
            "An earlier run was interrupted: some topics have more partitions than the requests. "
            "Growing completes it."
        )
    table = Table.grid(padding=(0, 2))
    table.add_row(Text(model, "bold"))
    for name, text in rows.items():
        table.add_row(name, Text(text))
    return table


def grown_view(settings: Settings, growth: Growth) -> Text:
    """What growing has done, and what is left to do."""
    return Text(
        f"{growth.model} grown from {growth.before} to {growth.after} partitions; {_moved(growth)} "
        f"of its keys moved\n{_settings(settings, growth)}"
    )


def growth_object(growth: Growth, *, grown: bool) -> dict[str, object]:
    """The same for programs. Shares are of all keys; ``waiting`` is by partition of the requests."""
    return {
        "model": growth.model,
        "grown": grown,
        "before": growth.before,
        "after": growth.after,
        "moved": float(growth.moved),
        "moved_among_old": float(growth.moved_among_old),
        "waiting": {str(partition): count for partition, count in growth.waiting.items()},
        "topics": dict(growth.counts),
        "interrupted": growth.was_begun,
    }


def _moved(growth: Growth) -> str:
    return f"{growth.moved} ({float(growth.moved):.1%})"


def _keys(growth: Growth) -> str:
    said = f"{_moved(growth)} of all keys move to another partition"
    if not growth.moved_among_old:
        return f"{said}, all of them to new ones."
    multiple = growth.before * (growth.after // growth.before + 1)
    return (
        f"{said}, {float(growth.moved_among_old):.1%} from one old partition to another. With a "
        f"multiple of {growth.before}, such as {multiple}, keys would move to new ones only."
    )


def _waiting(growth: Growth) -> str:
    if not growth.waits:
        return "No request waits now."
    behind = [f"{count} in {number}" for number, count in growth.waiting.items() if count]
    more = f" and {len(behind) - MOST_SHOWN} partitions more" if len(behind) > MOST_SHOWN else ""
    return f"Now {growth.waits} wait, by partition: {', '.join(behind[:MOST_SHOWN])}{more}."


def _settings(settings: Settings, growth: Growth) -> str:
    if settings.topics.partitions == growth.after:
        return f"topics.partitions is {growth.after} already."
    return (
        f"topics.partitions is {settings.topics.partitions}: set it to {growth.after} in modelwire.toml "
        f"(partitions = {growth.after} under [topics]), since `modelwire topics create` compares with it."
    )
