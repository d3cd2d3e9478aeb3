"""Plans as real processes carry them out: kills at every point, two at once, refusals by the fleet."""

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from adapters.control_log import read_log
from deployment.commands import Pause, Start, Strategy
from deployment.controller import Outcome
from deployment.state import Rollout
from publisher.controller import Controller, quietly
from schemas.events import (
    Recorded,
    RolloutAborted,
    RolloutPaused,
    RolloutPromoted,
    RolloutResumed,
    RolloutShifted,
    RolloutStarted,
)
from tests.broker_proxy import BrokerProxy, Fault
from tests.bundles import store_bundle
from tests.conftest import RunningStack
from tests.fleet import LIMIT_SECONDS, Harness, Instance, environment_of, wait_for
from tests.shop import ended

pytestmark = pytest.mark.stack

PLAN = """
steps = [
    {shadow = 100, hold = "1s"},
    {weight = 1, hold = "1s"},
    {weight = 10},
    {pause = true},
    {weight = 50, hold = "1s"},
    {weight = 100},
]
"""


@pytest.fixture
def canary(harness: Harness) -> Harness:
    """Version 1 serves on one instance, version 2 is released, and its plan lies in plan.toml."""
    harness.release(store_bundle(harness.store, harness.model, 1.0))
    harness.start()
    harness.wait_until_ready()
    harness.release(store_bundle(harness.store, harness.model, 2.0), start=False)
    Path(harness.folder / "plan.toml").write_text(PLAN)
    return harness


@pytest.fixture
def proxy(stack: RunningStack) -> Iterator[BrokerProxy]:
    opened = BrokerProxy(stack.bootstrap_servers)
    yield opened
    opened.close()


def events_of(harness: Harness) -> list[Recorded]:
    return read_log(harness.settings, harness.model).events


def what_happened(harness: Harness) -> list[object]:
    """The rollout's events without what differs from run to run."""
    said: list[object] = []
    for recorded in events_of(harness):
        match recorded.data:
            case RolloutShifted(weight=weight, shadow=shadow, step=step):
                said.append((weight, shadow, step))
            case RolloutPaused(step=step):
                said.append(("paused", step))
            case RolloutStarted() | RolloutResumed() | RolloutPromoted() | RolloutAborted():
                said.append(type(recorded.data).__name__)
    return said


UNDISTURBED = [
    "RolloutStarted",
    "RolloutPromoted",
    "RolloutStarted",
    (0, 10_000, 0),
    (100, 0, 1),
    (1_000, 0, 2),
    ("paused", 3),
    "RolloutResumed",
    (5_000, 0, 4),
    (10_000, 0, 5),
    "RolloutPromoted",
]


def is_paused(harness: Harness) -> bool:
    rollout = read_log(harness.settings, harness.model).deployment.rollout
    return rollout is not None and rollout.paused


def test_a_plan_runs_from_its_start_to_the_promotion(canary: Harness) -> None:
    """`rollout start --run` does all of it, and waits for a person at the pause."""
    version = f"{canary.model}:2"
    run = canary.background("rollout", "start", version, "--plan", "plan.toml", "--run")
    wait_for("the pause", lambda: is_paused(canary))
    canary.run("rollout", "resume", canary.model, "--reason", "looks good")
    assert run.wait_for_exit() == 0
    assert what_happened(canary) == UNDISTURBED
    assert read_log(canary.settings, canary.model).deployment.champion == 2


def test_a_controller_that_is_killed_after_each_step_ends_in_the_same_state(
    canary: Harness,
) -> None:
    """SIGKILL as soon as each event of the plan is in the log, once each; a new one goes on."""
    canary.run("rollout", "start", f"{canary.model}:2", "--plan", "plan.toml")
    kills = 0
    while read_log(canary.settings, canary.model).deployment.rollout is not None:
        before = len(events_of(canary))
        if is_paused(canary):
            canary.run("rollout", "resume", canary.model)
            continue
        controller = canary.background("rollout", "run", canary.model)
        wait_for("the next event", lambda before=before: len(events_of(canary)) > before)
        controller.kill()
        kills += 1
    assert kills >= 6
    assert what_happened(canary) == UNDISTURBED


def test_two_controllers_at_once_take_each_step_once(canary: Harness) -> None:
    """Whoever is slower is refused and looks again; both see the same end."""
    canary.run("rollout", "start", f"{canary.model}:2", "--plan", "plan.toml")
    both: list[Instance] = [
        canary.background("rollout", "run", canary.model, "-o", "json") for _ in range(2)
    ]
    wait_for("the pause", lambda: is_paused(canary))
    canary.run("rollout", "resume", canary.model)
    assert [each.wait_for_exit() for each in both] == [0, 0]
    assert what_happened(canary) == UNDISTURBED


def test_a_rollout_that_is_ended_by_a_person_ends_the_controller(canary: Harness) -> None:
    """It says so with exit code 3, since the plan did not come to its end."""
    canary.run("rollout", "start", f"{canary.model}:2", "--plan", "plan.toml")
    controller = canary.background("rollout", "run", canary.model)
    wait_for("the pause", lambda: is_paused(canary))
    canary.run("rollout", "abort", canary.model, "--reason", "second thoughts")
    assert controller.wait_for_exit() == 3
    assert str(Outcome.ABORTED) in what_happened(canary)[-1].lower()  # type: ignore[attr-defined]


def test_traffic_is_refused_until_every_live_instance_is_ready(canary: Harness) -> None:
    """Exit code 3 with a line for each instance, and not a single event more; blue-green waits."""
    missing = store_bundle(canary.store, canary.model, 3.0)
    canary.run("rollout", "start", f"{canary.model}:2", "--strategy", "canary")
    canary.run("rollout", "set", "weight", canary.model, "10%")
    said = canary.run("rollout", "set", "weight", canary.model, "10", code=3)
    assert "[already-there]" in said
    canary.run("rollout", "abort", canary.model)
    digits = missing.removeprefix("sha256:")
    for path in (canary.folder / "store").rglob("*"):
        if digits in str(path) and path.name == "model.onnx":
            path.rename(path.with_name("hidden"))
    canary.release(missing, start=False)
    wait_for("a refusal", lambda: canary.instances[0].lines("model.refused"))
    before = len(events_of(canary))
    said = canary.run("rollout", "start", f"{canary.model}:3", "--strategy", "blue-green", code=3)
    assert "[fleet-refused]" in said
    assert canary.fleet()[0].status.instance in said
    assert "model.onnx" in said
    assert len(events_of(canary)) == before
    report = json.loads(canary.run("rollout", "status", canary.model, "-o", "json"))
    assert report["champion"] == 1


def background(harness: Harness, *arguments: str, **variables: str) -> Instance:
    """A ``modelwire`` command that goes on, with settings of its own (``CONSUMER__BATCH_SIZE``)."""
    ours = {f"MODELWIRE_{name}": value for name, value in variables.items()}
    process = Instance(list(arguments), environment_of(harness.settings) | ours, harness.folder)
    harness.commands.append(process)
    return process


def through(proxy: BrokerProxy, harness: Harness, *arguments: str) -> Instance:
    """A ``modelwire`` command that reaches the broker by the proxy."""
    return background(harness, *arguments, KAFKA__BOOTSTRAP_SERVERS=proxy.address)


def test_a_controller_gives_only_what_it_saw_the_reason_for(
    canary: Harness, proxy: BrokerProxy
) -> None:
    """A person pauses while its promotion is on the way: it looks again, and leaves it to the person."""
    model = canary.model
    wait_for("version 2", lambda: 2 in canary.fleet()[0].status.prepared)
    canary.command(Start(2, Strategy.BLUE_GREEN, "salt", min_ready=10_000))
    rollout = read_log(canary.settings, model).deployment.rollout
    assert rollout is not None
    proxy.arm(Fault.HOLD_REQUEST)
    controller = through(proxy, canary, "rollout", "run", model, "-o", "json")
    assert proxy.struck.wait(LIMIT_SECONDS)
    canary.command(Pause(rollout.revision, "wait"))
    proxy.heal()
    assert controller.wait_for_exit() == 0
    assert is_paused(canary)
    assert read_log(canary.settings, model).deployment.champion == 1


def test_a_controller_outlives_topics_that_are_denied_for_a_moment(
    canary: Harness, proxy: BrokerProxy
) -> None:
    """As a broker does that restarts: it says so, tries again, and carries the plan to its end."""
    model = canary.model
    canary.run("rollout", "start", f"{model}:2", "--plan", "plan.toml")
    controller = through(proxy, canary, "rollout", "run", model, "-o", "json")
    wait_for("the pause", lambda: is_paused(canary))
    proxy.deny(canary.topics.fleet)
    missing = f"trying again: the topic is missing: {canary.topics.fleet}"
    wait_for("the denial", lambda: missing in controller.text)
    proxy.heal()
    canary.run("rollout", "resume", model)
    assert controller.wait_for_exit() == 0
    assert what_happened(canary) == UNDISTURBED


def test_a_start_that_cannot_be_read_yet_has_not_ended(canary: Harness) -> None:
    """The broker acknowledges a commit before its events can be read: a rollout that the log does not
    hold yet is waited for, and carried out."""
    now = read_log(canary.settings, canary.model).deployment.revision
    start = Start(2, Strategy.BLUE_GREEN, "salt", min_ready=10_000)
    soon = Rollout(now + 1, 2, start.strategy, start.salt, 0, datetime.now(UTC), now + 1)
    controller = Controller(canary.settings, canary.model, soon, quietly)
    with ThreadPoolExecutor(1) as other:
        running = other.submit(controller.run, LIMIT_SECONDS)
        with pytest.raises(TimeoutError):
            running.result(2)
        assert canary.command(start)[0].event.revision == soon.revision
        over = running.result()
    assert over is not None
    assert over.outcome is Outcome.PROMOTED


def test_a_topic_that_is_missing_from_the_start_is_told_at_once(
    canary: Harness, proxy: BrokerProxy
) -> None:
    """There is nothing to wait for where nothing was ever seen."""
    canary.run("rollout", "start", f"{canary.model}:2", "--plan", "plan.toml")
    proxy.deny(canary.topics.fleet)
    controller = through(proxy, canary, "rollout", "run", canary.model)
    assert controller.wait_for_exit() == 4
    assert canary.topics.fleet in controller.text


def test_a_start_that_runs_its_plan_ends_as_the_plan_does(canary: Harness) -> None:
    """Exit 3 where a person ends it; for programs stdout is an object a line, the start's first."""
    model = canary.model
    arguments = ("rollout", "start", f"{model}:2", "--plan", "plan.toml", "--run", "-o", "json")
    process = subprocess.Popen(
        [sys.executable, "-m", "modelwire", *arguments],
        env=environment_of(canary.settings),
        cwd=canary.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for("the pause", lambda: is_paused(canary))
    canary.run("rollout", "abort", model, "--reason", "second thoughts")
    ran = ended(process)
    assert ran.code == 3
    objects = [json.loads(line) for line in ran.out.splitlines()]
    assert objects[0]["events"][0]["type"].endswith("rollout.started.v1")
    revisions = [event["revision"] for each in objects for event in each["events"]]
    started = objects[0]["revision"]
    assert revisions == list(range(started, started + 5))


def test_a_controller_whose_guard_is_off_never_aborts_for_a_shortage(canary: Harness) -> None:
    """A guard_wait_ms of 0 switches it off: it says who is missing, and no countdown."""
    model = canary.model
    canary.run("rollout", "start", f"{model}:2", "--plan", "plan.toml")
    controller = background(
        canary, "rollout", "run", model, "-o", "json", CONSUMER__GUARD_WAIT_MS="0"
    )
    wait_for("the pause", lambda: is_paused(canary))
    assert canary.instances[0].terminate() == 0
    wait_for("the shortage", lambda: "0 of 0 live instances are ready" in controller.text)
    assert "aborting" not in controller.text
    assert is_paused(canary)
