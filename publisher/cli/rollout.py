"""``modelwire rollout``: moving traffic, and back."""

from collections.abc import Callable
from pathlib import Path

import click

from adapters.command_line import options
from adapters.model_name import parse_model
from adapters.naming import parse_target, parse_version, parse_version_of
from adapters.settings import Settings
from deployment.plans import parse_share
from publisher import launches, rollouts
from publisher.cli.launch import (
    STRATEGIES,
    conclude,
    launch_of,
    launching,
    say_how_it_runs,
    waiting,
)
from publisher.cli.looking import history, status
from publisher.cli.options import acting, giving, report, settings_of
from publisher.cli.running import carry_out
from publisher.commands import Appended
from publisher.rollouts import Target
from schemas.errors import UsageProblem

_targeted = options(
    click.argument("target", metavar="MODEL[:VERSION]"),
    click.option(
        "--rollout",
        "revision",
        type=click.IntRange(min=1),
        help="Only if the rollout is the one that this revision started.",
    ),
)


@click.group()
def rollout() -> None:
    """Move traffic to a version, and back."""


@rollout.command("start")
@click.argument("version", metavar="MODEL:VERSION")
@click.option(
    "--strategy",
    type=STRATEGIES,
    help="blue-green: all traffic at once, when every live instance is ready. canary: a share of the "
    "keys, by --plan or by hand. shadow: no traffic; its answers go to a topic of their own.",
)
@click.option("--run", is_flag=True, help="Then carry the plan out, as `rollout run` does.")
@launching
@giving
def rollout_start(
    version: str,
    strategy: str | None,
    run: bool,
    plan: Path | None,
    min_ready: str | None,
    share: str | None,
    wait_seconds: float | None,
    reason: str,
    actor: str | None,
    bootstrap_servers: str | None,
    output: str,
) -> int:
    """Roll out a released version.

    Waits until every live instance has judged the version. Exit code 3 where too many cannot run it, or
    are not ready for a blue-green rollout in time, with a row for each; such a rollout is taken back.
    """
    named = parse_version(version)
    launch = launch_of(strategy, plan, min_ready, share, wait_seconds)
    if launch is None:
        raise UsageProblem(
            "say how traffic moves", hint="--plan FILE, or --strategy blue-green, canary or shadow"
        )
    if run and launch.plan is None:
        raise UsageProblem("--run carries out a plan, and there is none", hint="add --plan FILE")
    settings = settings_of(bootstrap_servers, actor=actor)
    launched = launches.start(settings, named, launch, reason)
    conclude(output, launched, runs=run)
    if run:
        rollout = launches.rollout_of(launched.appended.events)
        return carry_out(settings, named.model, rollout, output)
    say_how_it_runs(named.model, launch)
    return 0


@rollout.command("run")
@_targeted
@acting
def rollout_run(
    target: str,
    revision: int | None,
    actor: str | None,
    bootstrap_servers: str | None,
    output: str,
) -> int:
    """Carry out a rollout's plan, step by step, until it is promoted or ended.

    May be stopped and started again at any point, on any machine; two at once are safe. Exit code 0:
    promoted, or the plan is at its end. 3: the rollout was ended before.
    """
    settings = settings_of(bootstrap_servers, actor=actor)
    named = _target(target, revision)
    return carry_out(settings, named.model, rollouts.find_rollout(settings, named), output)


@rollout.group("set")
def rollout_set() -> None:
    """Set a rollout's shares by hand."""


@rollout_set.command("weight")
@_targeted
@click.argument("share")
@waiting
@giving
def set_weight(
    target: str,
    share: str,
    revision: int | None,
    wait_seconds: float,
    reason: str,
    actor: str | None,
    bootstrap_servers: str | None,
    output: str,
) -> None:
    """Let the candidate answer SHARE of the keys, such as 10%.

    More traffic is refused (exit code 3) where the fleet is not ready for it.
    """
    settings = settings_of(bootstrap_servers, actor=actor)
    named = _target(target, revision)
    report(output, rollouts.set_weight(settings, named, parse_share(share), reason, wait_seconds))


@rollout_set.command("shadow")
@_targeted
@click.argument("share")
@giving
def set_shadow(
    target: str,
    share: str,
    revision: int | None,
    reason: str,
    actor: str | None,
    bootstrap_servers: str | None,
    output: str,
) -> None:
    """Let the candidate score SHARE of the keys, for nobody to see."""
    settings = settings_of(bootstrap_servers, actor=actor)
    named = _target(target, revision)
    report(output, rollouts.set_shadow(settings, named, parse_share(share), reason))


def _add(name: str, does: str, give: Callable[[Settings, Target, str], Appended]) -> None:
    """One of the commands that take nothing but the rollout."""

    @_targeted
    @giving
    def command(
        target: str,
        revision: int | None,
        reason: str,
        actor: str | None,
        bootstrap_servers: str | None,
        output: str,
    ) -> None:
        settings = settings_of(bootstrap_servers, actor=actor)
        report(output, give(settings, _target(target, revision), reason))

    rollout.add_command(click.command(name, help=does)(command))


_add("pause", "Let the plan wait; the shares stay as they are.", rollouts.pause)
_add("resume", "Let a paused plan go on with its next step.", rollouts.resume)
_add("abort", "End the rollout: the champion answers everything again.", rollouts.abort)


@rollout.command("promote")
@_targeted
@waiting
@giving
def rollout_promote(
    target: str,
    revision: int | None,
    wait_seconds: float,
    reason: str,
    actor: str | None,
    bootstrap_servers: str | None,
    output: str,
) -> None:
    """Make the candidate champion.

    Refused (exit code 3) where the fleet is not ready, with a line for each instance that is not.
    """
    settings = settings_of(bootstrap_servers, actor=actor)
    named = _target(target, revision)
    report(output, rollouts.promote(settings, named, reason, wait_seconds))


@rollout.command("undo")
@click.argument("model")
@click.option("--to", metavar="VERSION", help="The version to bring back.  [default: the previous]")
@click.option(
    "--min-ready",
    metavar="SHARE",
    help="With --to: share of the live instances that must not have refused the version.  "
    "[default: 100%]",
)
@giving
def rollout_undo(
    model: str,
    to: str | None,
    min_ready: str | None,
    reason: str,
    actor: str | None,
    bootstrap_servers: str | None,
    output: str,
) -> None:
    """Take back the latest change of who answers MODEL's requests.

    A rollout with traffic is aborted. Where none runs, the previous champion comes back. With --to that
    version, a former champion, becomes champion, and a rollout that runs is aborted.
    """
    version = None if to is None else parse_version_of(parse_model(model), to)
    if version is None and min_ready is not None:
        raise UsageProblem(
            "--min-ready is said of the version that comes back",
            hint="name it with --to, or leave --min-ready out",
        )
    least = parse_share(min_ready or "100%")
    settings = settings_of(bootstrap_servers, actor=actor)
    undone = rollouts.undo(settings, parse_model(model), version, least, reason)
    report(output, undone.appended)
    if undone.unknown:
        click.echo(f"who has it loaded already could not be seen: {undone.unknown}", err=True)
    if undone.cold:
        click.echo(
            "it is not loaded everywhere: these instances load it first, and answer as before "
            "until they have",
            err=True,
        )
        for lack in undone.cold:
            click.echo(f"  {lack}", err=True)


def _target(text: str, revision: int | None) -> Target:
    model, version = parse_target(text)
    return Target(model, version, revision)


rollout.add_command(history)
rollout.add_command(status)
