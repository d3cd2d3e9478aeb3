"""The options that say how a version is rolled out: of ``rollout start`` and ``release publish``."""

from pathlib import Path

import click

from deployment.commands import Strategy
from deployment.plans import parse_plan, parse_share
from publisher.cli.options import options
from publisher.rollouts import Launch
from schemas.errors import UsageProblem
from schemas.events import Plan

STRATEGIES = click.Choice([strategy.value for strategy in Strategy])

waiting = click.option(
    "--wait",
    "wait_seconds",
    type=click.FloatRange(min=0),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for instances that are not ready yet, where traffic is to move.",
)

launching = options(
    click.option(
        "--plan",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="A canary's steps, as a TOML file; see docs/how-to/run-a-canary.md.",
    ),
    click.option(
        "--min-ready",
        metavar="SHARE",
        default="100%",
        show_default=True,
        help="Share of the live instances that must be ready before traffic moves. The others leave "
        "the group instead of answering. 0: wait for nobody.",
    ),
    click.option(
        "--share",
        metavar="SHARE",
        help="What a shadow scores.  [default: 100%]",
    ),
    waiting,
)


def launch_of(
    strategy: str | None,
    plan: Path | None,
    min_ready: str,
    share: str | None,
    wait_seconds: float,
) -> Launch | None:
    """What the options say together; None where they start nothing."""
    if plan is not None and strategy not in (None, Strategy.CANARY):
        raise UsageProblem(
            f"a {strategy} rollout has no plan", hint="leave out --plan, or the strategy"
        )
    if share is not None and strategy != Strategy.SHADOW:
        raise UsageProblem(
            "--share is what a shadow scores",
            hint="a canary's shares are set by its plan, or by modelwire rollout set weight",
        )
    steps = None if plan is None else _read(plan)
    chosen = Strategy.CANARY.value if steps is not None else strategy
    if chosen is None:
        return None
    return Launch(
        Strategy(chosen),
        steps,
        parse_share(min_ready),
        10_000 if share is None else parse_share(share),
        wait_seconds,
    )


def _read(path: Path) -> Plan:
    try:
        return parse_plan(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageProblem(f"{path} cannot be read: {error}") from error
