"""What the audit's commands have in common: their options, settings and moments."""

from datetime import UTC, datetime

import click

from adapters.command_line import kafka_of, options, servers_option
from adapters.output import output_option
from adapters.settings import Settings, load_settings
from deployment.moments import parse_moment
from schemas.errors import UsageProblem

model_option = click.option("--model", required=True, help="The model whose answers are meant.")
store_option = click.option(
    "--store", help="Where answers are kept: s3://bucket/prefix or file:///folder."
)
bundles_option = click.option(
    "--bundles", help="Where bundles are.  [default: where the settings say]"
)
since_option = click.option(
    "--since", metavar="TIME", help="Only answers since then: 10m, 2h, 7d, 2026-11-21T10:00Z."
)
until_option = click.option("--until", metavar="TIME", help="Only answers before then.")
log_option = click.option(
    "--control-log",
    default="kafka",
    show_default=True,
    metavar="kafka|store|FILE",
    help="Where the control log is read: the topic, the answer files, or a file with one event a line.",
)

proving = options(
    model_option,
    since_option,
    until_option,
    log_option,
    servers_option,
    store_option,
    bundles_option,
    output_option,
)
"""What ``explain`` and ``verify`` take."""


def settings_of(
    bootstrap_servers: str | None = None, store: str | None = None, bundles: str | None = None
) -> Settings:
    """What the settings are with these options; None says nothing."""
    audit = None if store is None else {"store_url": store}
    return load_settings(kafka=kafka_of(bootstrap_servers), store_url=bundles, audit=audit)


def time_of(option: str, text: str | None) -> datetime | None:
    """The time that an option names. Raises UsageProblem where it names none."""
    if text is None:
        return None
    hint = "write how long ago (10m, 2h, 7d) or a time (2026-11-21T10:00Z)"
    try:
        moment = parse_moment(text, datetime.now(UTC))
    except UsageProblem as problem:
        raise UsageProblem(f"{option}: {problem.message}", hint=hint) from None
    if not isinstance(moment, datetime):
        raise UsageProblem(f"{option} {text} is no time", hint=hint)
    return moment
