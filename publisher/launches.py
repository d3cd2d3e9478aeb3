"""Launches: a released version is rolled out, and the command stays until it knows how that began.

1. A start waits until every live instance has judged the version, where all of them do so without
   being asked (``deployment.readiness``). What the rules refuse anyway is refused at once.
2. A blue-green start then stays until its rollout is promoted, by it or by somebody else. Where that does
   not come about in time, or cannot any more, it takes its own rollout back: it leaves none behind that
   waits for somebody. One that a person has paused meanwhile is that person's.
3. What was appended is reported in any case; why it did not come to its end stands beside it.
"""

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from adapters.control_log import read_log
from adapters.naming import VersionName
from adapters.settings import Settings
from deployment.commands import Abort, Refusal, Start, Strategy
from deployment.controller import Outcome
from deployment.decisions import decide
from deployment.readiness import Fleet, is_hopeless, judged_releases, lacks, unjudged
from deployment.state import Rollout, rollout_begun
from publisher.commands import Appended, fresh_salt, give
from publisher.controller import Controller, quietly
from publisher.fleets import live_fleet, wait_for_fleet
from schemas.errors import ModelwireError, RefusedByRule
from schemas.events import Plan, Recorded, RolloutAborted, RolloutPromoted, RolloutStarted


@dataclass(frozen=True)
class Launch:
    """How a version is rolled out; see ``deployment.commands.Start``. ``wait_seconds`` is how long the
    start waits for the fleet, all in all."""

    strategy: Strategy
    plan: Plan | None = None
    min_ready: int = 10_000
    share: int = 10_000
    wait_seconds: float = 60.0


@dataclass(frozen=True)
class Launched:
    """What a launch added to the log; why it did not come to its end, and what else there is to say."""

    appended: Appended
    problem: ModelwireError | None = None
    note: str = ""


def start(settings: Settings, named: VersionName, launch: Launch, reason: str) -> Launched:
    """Rolls out a released version.

    Raises RefusedByRule, and whatever else went wrong, where nothing was appended.
    """
    deadline = time.monotonic() + launch.wait_seconds
    command = Start(
        named.version,
        launch.strategy,
        fresh_salt(),
        reason,
        launch.plan,
        launch.min_ready,
        launch.share,
    )
    fleet = _judged_fleet(settings, named.model, command, deadline)
    started = give(settings, named.model, replace(command, fleet=fleet))
    return finish(settings, started, launch, deadline)


def finish(settings: Settings, started: Appended, launch: Launch, deadline: float) -> Launched:
    """What a start still has to do: a blue-green one is promoted as soon as the fleet is ready, by
    ``deadline`` (of ``time.monotonic()``), or taken back."""
    is_promoted = any(isinstance(each.data, RolloutPromoted) for each in started.events)
    if launch.strategy is not Strategy.BLUE_GREEN or is_promoted:
        return Launched(started)
    parts = [started]
    try:
        note = _bring_to_its_end(settings, parts, launch, deadline)
    except ModelwireError as problem:
        return Launched(join(parts), problem)
    return Launched(join(parts), note=note)


def join(parts: Sequence[Appended]) -> Appended:
    """What several commands added, one after the other, as one."""
    return Appended(
        parts[0].model,
        tuple(event for part in parts for event in part.events),
        sum(part.seconds for part in parts),
    )


def _judged_fleet(settings: Settings, model: str, command: Start, deadline: float) -> Fleet:
    """The live instances, once all have judged the version, or enough have refused it."""
    deployment = read_log(settings, model).deployment

    def has_judged(fleet: Fleet) -> bool:
        hopeless = is_hopeless(fleet, command.version, command.min_ready)
        return hopeless or not unjudged(fleet, command.version)

    is_awaited = (
        command.min_ready > 0
        and command.version in judged_releases(deployment)
        and not isinstance(decide(deployment, command), Refusal)
    )
    return wait_for_fleet(settings, model, has_judged, deadline if is_awaited else 0.0)


def _bring_to_its_end(
    settings: Settings, parts: list[Appended], launch: Launch, deadline: float
) -> str:
    """Promotes the rollout that ``parts`` has started, and adds what that appends; returns a note for
    people. Raises RefusedByRule where it got no traffic."""
    model, rollout = parts[0].model, rollout_of(parts[0].events)
    controller = Controller(settings, model, rollout, quietly)
    try:
        over = controller.run(
            max(deadline - time.monotonic(), 0.0),
            is_hopeless=lambda fleet: is_hopeless(fleet, rollout.candidate, rollout.min_ready),
        )
        unready = None if over else _not_ready(settings, model, rollout, launch.wait_seconds)
    except (KeyboardInterrupt, ModelwireError):
        with suppress(ModelwireError):  # it is over already, or cannot be ended either
            parts.append(give(settings, model, Abort(rollout.revision, "its start was cut short")))
        raise
    finally:
        parts += controller.appended
    if over is None:
        assert unready is not None
        return _take_back(settings, parts, rollout, unready)
    if over.outcome is Outcome.PROMOTED:
        return "" if controller.appended else f"somebody else promoted it: {over.why}"
    if over.outcome is Outcome.ABORTED:
        raise _ended(settings, model, rollout)
    raise RefusedByRule(
        f"[rollout-paused] somebody paused rollout {rollout.revision} of {model}:{rollout.candidate}, "
        "and has it in hand now",
        hint=f"modelwire rollout promote {model}; or give it up: modelwire rollout abort {model}",
    )


def _take_back(
    settings: Settings, parts: list[Appended], rollout: Rollout, unready: RefusedByRule
) -> str:
    model = parts[0].model
    try:
        parts.append(
            give(settings, model, Abort(rollout.revision, "not enough live instances were ready"))
        )
    except RefusedByRule as refused:  # somebody has ended it in this moment
        if read_log(settings, model).deployment.champion == rollout.candidate:
            return f"somebody else promoted it: {model}:{rollout.candidate} is the champion"
        raise _ended(settings, model, rollout) from refused
    raise unready


def _not_ready(settings: Settings, model: str, rollout: Rollout, waited: float) -> RefusedByRule:
    deployment, fleet = read_log(settings, model).deployment, live_fleet(settings, model)
    asked = [version for version in (deployment.champion, rollout.candidate) if version is not None]
    name = f"{model}:{rollout.candidate}"
    if not fleet:
        return RefusedByRule(
            f"[nobody-lives] {name} got no traffic, and its rollout was taken back: no instance of "
            f"{model} announced itself for {waited:g} s",
            hint=f"start one: modelwire consume --model {model}; or start the rollout with --min-ready 0",
        )
    return RefusedByRule(
        f"[fleet-not-ready] {name} got no traffic, and its rollout was taken back: not enough live "
        f"instances have it prepared (waited up to {waited:g} s)",
        hint=f"mend what they say, then start it again: modelwire rollout start {name} "
        f"--strategy {rollout.strategy}",
        details=lacks(fleet, asked),
    )


def _ended(settings: Settings, model: str, rollout: Rollout) -> RefusedByRule:
    """Somebody, or a guard, has ended the rollout."""
    how = "it was promoted, and another version was made champion since"
    for recorded in read_log(settings, model).events:
        data = recorded.data
        if isinstance(data, RolloutAborted) and data.rollout == rollout.revision:
            how = f"{recorded.event.actor} ended it" + (f" ({data.reason})" if data.reason else "")
    return RefusedByRule(
        f"[rollout-ended] rollout {rollout.revision} of {model}:{rollout.candidate} is over: {how}",
        hint=f"see what happened: modelwire rollout history {model}",
    )


def rollout_of(events: Sequence[Recorded]) -> Rollout:
    """The rollout that these events start, as it was then."""
    for recorded in events:
        if isinstance(recorded.data, RolloutStarted):
            return rollout_begun(recorded.event, recorded.data)
    raise ValueError("none of the events starts a rollout")
