"""The options that say how a version is rolled out: of ``rollout start`` and ``release publish``."""

from pathlib import Path

import click

from adapters.command_line import options
from deployment.commands import Strategy
from deployment.plans import parse_plan, parse_share
from publisher.cli.options import report
from publisher.launches import Launch, Launched
from schemas.errors import UsageProblem
from schemas.events import Plan

STRATEGIES = click.Choice([strategy.value for strategy in Strategy])

WAIT_SECONDS = 60.0

waiting = click.option(
    "--wait",
    "wait_seconds",
    type=click.FloatRange(min=0),
    default=WAIT_SECONDS,
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
        help="Share of the live instances that must be ready before traffic moves. The others leave "
        "the group instead of answering. 0: wait for nobody.  [default: 100%]",
    ),
    click.option(
        "--share",
        metavar="SHARE",
        help="What a shadow scores.  [default: 100%]",
    ),
    click.option(
        "--wait",
        "wait_seconds",
        type=click.FloatRange(min=0),
        metavar="SECONDS",
        help="How long to wait until every live instance has judged the version, and for blue-green "
        f"until it is ready.  [default: {WAIT_SECONDS:g}]",
    ),
)


def launch_of(
    strategy: str | None,
    plan: Path | None,
    min_ready: str | None,
    share: str | None,
    wait_seconds: float | None,
) -> Launch | None:
    """What the options say together; None where they start nothing.

    Raises UsageProblem where one of them would do nothing.
    """
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
        for option, value in {"--min-ready": min_ready, "--wait": wait_seconds}.items():
            if value is not None:
                raise UsageProblem(
                    f"{option} is said of a rollout, and none is started",
                    hint=f"leave {option} out, or say how it starts",
                )
        return None
    return Launch(
        Strategy(chosen),
        steps,
        parse_share(min_ready or "100%"),
        parse_share(share or "100%"),
        WAIT_SECONDS if wait_seconds is None else wait_seconds,
    )


def conclude(output: str, launched: Launched, *, runs: bool = False) -> None:
    """Say what a launch came to; raises its problem. ``runs``: this command carries its plan out next."""
    report(output, launched.appended, one_of_many=runs)
    if launched.note:
        click.echo(launched.note, err=True)
    if launched.problem is not None:
        raise launched.problem


def say_how_it_runs(model: str, launch: Launch | None) -> None:
    """A plan that nobody carries out moves nothing."""
    if launch is not None and launch.plan is not None:
        click.echo(f"to carry its plan out: modelwire rollout run {model}", err=True)


def _read(path: Path) -> Plan:
    try:
        return parse_plan(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageProblem(f"{path} cannot be read: {error}") from error
