"""Starts and undos beside what others do at the same time, and while nobody or somebody cannot serve."""

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from adapters.control_log import read_log
from adapters.kafka import topic_names
from deployment.commands import Abort, Pause, Promote, Start, Strategy
from deployment.readiness import Instance
from publisher.commands import give
from schemas.events import RolloutAborted, RolloutStarted
from tests.broker_proxy import BrokerProxy, Fault
from tests.bundles import store_bundle
from tests.conftest import RunningStack
from tests.fleet import LIMIT_SECONDS, Harness, wait_for
from tests.shop import Shop, ended

pytestmark = pytest.mark.stack

BLUE_GREEN = ("--strategy", "blue-green")


@pytest.fixture
def shop(stack: RunningStack, model: str) -> Shop:
    """Version 1 is champion, versions 2 and 3 are released; revision 5. Nobody lives."""
    opened = Shop.open(stack, model)
    first, *others = (store_bundle(opened.store, model, slope) for slope in (1.0, 2.0, 3.0))
    opened.ok("release", "publish", first, "--start", "blue-green")
    for digest in others:
        opened.ok("release", "publish", digest)
    return opened


@pytest.fixture
def proxy(stack: RunningStack) -> Iterator[BrokerProxy]:
    opened = BrokerProxy(stack.bootstrap_servers)
    yield opened
    opened.close()


def is_waiting(shop: Shop) -> int:
    """The revision of the rollout that runs, 0 where none does."""
    rollout = read_log(shop.settings, shop.model).deployment.rollout
    return 0 if rollout is None else rollout.revision


# --- a fleet that is not there


def test_a_blue_green_start_takes_itself_back(shop: Shop) -> None:
    """Nobody lives: nothing is left running, stdout has what was appended, stderr why; exit 3."""
    version = f"{shop.model}:2"
    ran = shop.run("rollout", "start", version, *BLUE_GREEN, "--wait", "0.5")
    assert (ran.code, ran.out) == (3, f"{version} started (rollout 6), taken back (revision 7)\n")
    assert f"[nobody-lives] {version} got no traffic" in ran.err
    ran = shop.run("rollout", "start", version, *BLUE_GREEN, "--wait", "0.5", "-o", "json")
    assert ran.code == 3
    assert [each["revision"] for each in json.loads(ran.out)["events"]] == [8, 9]
    assert json.loads(ran.err)["code"] == "nobody-lives"
    last = shop.events[-1].data
    assert isinstance(last, RolloutAborted)
    assert last.reason
    assert (is_waiting(shop), shop.champion) == (0, 1)


def test_a_release_stands_whatever_becomes_of_its_start(shop: Shop) -> None:
    """It is reported first, also for programs; then the start's refusal ends the command with 3."""
    model = shop.model
    digest = store_bundle(shop.store, model, 4.0)
    ran = shop.run("release", "publish", digest, "--start", "blue-green", "--wait", "0")
    assert ran.code == 3
    assert ran.out == (
        f"{model}:4 released (revision 6), {model}:4 started (rollout 7), taken back (revision 8)\n"
    )
    shop.ok("rollout", "start", f"{model}:2", "--strategy", "canary")
    digest = store_bundle(shop.store, model, 5.0)
    ran = shop.run("release", "publish", digest, "--start", "canary", "-o", "json")
    assert (ran.code, json.loads(ran.err)["code"]) == (3, "rollout-running")
    released = json.loads(ran.out)
    assert (released["version"], released["digest"], len(released["events"])) == (5, digest, 1)
    assert shop.revision == 10


def test_a_release_beside_a_champion_is_reported_with_its_start(shop: Shop) -> None:
    """One line, though they are two commands: the fleet judges the version in between."""
    digest = store_bundle(shop.store, shop.model, 4.0)
    said = shop.ok("release", "publish", digest, "--start", "blue-green", "--min-ready", "0")
    assert said == f"{shop.model}:4 released (revision 6), champion since revision 8\n"
    assert len({each.event.commandid for each in shop.events[5:]}) == 2


# --- somebody else was faster


def begun(shop: Shop) -> tuple[subprocess.Popen[str], int]:
    """A blue-green start of version 2 that waits for its fleet, and its rollout."""
    process = shop.start("rollout", "start", f"{shop.model}:2", *BLUE_GREEN)
    return process, wait_for("the start", lambda: is_waiting(shop))


def test_a_start_that_somebody_else_promotes_has_come_to_its_end(shop: Shop) -> None:
    """Exit 0, and a note that it was somebody else."""
    process, rollout = begun(shop)
    give(shop.settings, shop.model, Promote(rollout, (Instance("a", frozenset({2})),)))
    ran = ended(process)
    assert (ran.code, shop.champion) == (0, 2)
    assert "somebody else promoted it" in ran.err
    assert f"(rollout {rollout})" in ran.out


def test_a_start_that_somebody_else_ends_says_who_and_why(shop: Shop) -> None:
    """Exit 3 at once, not when the time is over."""
    process, rollout = begun(shop)
    give(
        shop.settings.model_copy(update={"actor": "eve"}),
        shop.model,
        Abort(rollout, "second thoughts"),
    )
    ran = ended(process)
    assert ran.code == 3
    assert f"[rollout-ended] rollout {rollout} of {shop.model}:2 is over: " in ran.err
    assert "eve ended it (second thoughts)" in ran.err


def test_a_start_that_somebody_pauses_is_theirs(shop: Shop) -> None:
    """It is neither promoted nor taken back: exit 3, and what they can do."""
    process, rollout = begun(shop)
    give(shop.settings, shop.model, Pause(rollout))
    ran = ended(process)
    assert (ran.code, is_waiting(shop), shop.champion) == (3, rollout, 1)
    assert "[rollout-paused]" in ran.err
    assert f"modelwire rollout abort {shop.model}" in ran.err


def test_an_interrupted_start_takes_itself_back(shop: Shop) -> None:
    """Nothing is left behind that waits for somebody."""
    process, rollout = begun(shop)
    process.send_signal(signal.SIGINT)
    assert ended(process).code == 130
    last = shop.events[-1].data
    assert isinstance(last, RolloutAborted)
    assert last.rollout == rollout


def test_an_undo_holds_only_for_what_its_giver_saw(shop: Shop, proxy: BrokerProxy) -> None:
    """One that is overtaken by a promotion does not take that back instead."""
    model = shop.model
    shop.ok("rollout", "start", f"{model}:2", *BLUE_GREEN, "--min-ready", "0")
    proxy.arm(Fault.HOLD_REQUEST)
    undo = shop.start("rollout", "undo", model, KAFKA__BOOTSTRAP_SERVERS=proxy.address)
    assert proxy.struck.wait(LIMIT_SECONDS)
    shop.ok("rollout", "start", f"{model}:3", *BLUE_GREEN, "--min-ready", "0")
    proxy.heal()
    ran = ended(undo)
    assert (ran.code, shop.champion) == (3, 3)
    assert "[changed-meanwhile]" in ran.err


def test_an_undo_stands_where_the_fleet_cannot_be_seen(shop: Shop, proxy: BrokerProxy) -> None:
    """It is done, so its exit code is 0; a note says that nobody knows who loads the version first."""
    shop.ok("rollout", "start", f"{shop.model}:2", *BLUE_GREEN, "--min-ready", "0")
    proxy.deny(topic_names(shop.settings, shop.model).fleet)
    ran = shop.run("rollout", "undo", shop.model, KAFKA__BOOTSTRAP_SERVERS=proxy.address)
    assert (ran.code, shop.champion) == (0, 1)
    assert ran.out.startswith(f"{shop.model}:1 champion again since revision 8")
    [note] = ran.err.splitlines()
    assert note.startswith("who has it loaded already could not be seen: ")


def test_a_watched_status_survives_a_broker_that_denies_its_topics(
    shop: Shop, proxy: BrokerProxy
) -> None:
    """It says that what it shows is not of now, and goes on when the broker does."""
    watching = shop.start(
        "rollout", "status", shop.model, "-w", KAFKA__BOOTSTRAP_SERVERS=proxy.address
    )
    assert watching.stdout is not None
    assert watching.stderr is not None
    try:
        assert f"champion {shop.model}:1" in watching.stdout.readline()
        proxy.deny(topic_names(shop.settings, shop.model).fleet)
        assert "what is shown is not of now: " in watching.stderr.readline()
        proxy.heal()
        shop.ok("rollout", "start", f"{shop.model}:2", *BLUE_GREEN, "--min-ready", "0")
        lines = iter(watching.stdout.readline, "")
        assert any(f"champion {shop.model}:2" in line for line in lines)
    finally:
        watching.send_signal(signal.SIGINT)
        assert ended(watching).code == 130


# --- a fleet that cannot run it

FUTURE = 99
"""An operator set that no runtime here has."""


def test_a_start_waits_for_every_verdict(harness: Harness) -> None:
    """An instance that hangs while the version is released is waited for; its refusal is a refusal."""
    model = harness.model
    harness.release(store_bundle(harness.store, model, 1.0))
    consumer = harness.start(CONSUMER__STATUS_INTERVAL_MS="5000")
    harness.wait_until_ready()
    consumer.process.send_signal(signal.SIGSTOP)
    try:
        digest = store_bundle(harness.store, model, 2.0, opset=FUTURE)
        publish = harness.background("release", "publish", digest, "--start", "canary")
        wait_for("the release", lambda: len(read_log(harness.settings, model).events) > 3)
        with pytest.raises(subprocess.TimeoutExpired):
            publish.process.wait(3)  # far longer than the start would take
    finally:
        consumer.process.send_signal(signal.SIGCONT)
    assert publish.wait_for_exit() == 3
    assert "[fleet-refused]" in publish.text
    assert f"{harness.fleet()[0].status.instance}  2        refused (runtime: " in publish.text
    assert len(read_log(harness.settings, model).events) == 4


def test_what_the_fleet_refuses_is_not_waited_for(harness: Harness) -> None:
    """A start whose fleet turns the version down meanwhile is taken back, with the instance's name."""
    model = harness.model
    harness.release(store_bundle(harness.store, model, 1.0))
    harness.release(store_bundle(harness.store, model, 2.0, opset=FUTURE), start=False)
    start = harness.background("rollout", "start", f"{model}:2", *BLUE_GREEN, "--wait", "300")
    wait_for("the start", lambda: read_log(harness.settings, model).deployment.rollout)
    harness.start()
    assert start.wait_for_exit() == 3
    [sighting] = harness.fleet()
    assert f"[fleet-not-ready] {model}:2 got no traffic" in start.text
    assert f"  {sighting.status.instance}  2        refused (runtime: " in start.text
    assert isinstance(read_log(harness.settings, model).events[-1].data, RolloutAborted)


def test_traffic_by_hand_does_not_wait_for_what_was_refused(harness: Harness) -> None:
    """`set weight` and `promote` say at once who cannot run it, and leave the rollout as it was."""
    model = harness.model
    harness.release(store_bundle(harness.store, model, 1.0))
    harness.release(store_bundle(harness.store, model, 2.0, opset=FUTURE), start=False)
    harness.command(Start(2, Strategy.CANARY, "salt", min_ready=10_000))
    harness.start()
    harness.wait_until_ready()
    wait_for("the refusal", lambda: harness.fleet()[0].status.refused)
    name = harness.fleet()[0].status.instance
    for command in (("set", "weight", model, "10%"), ("promote", model)):
        said = harness.run("rollout", *command, "--wait", "300", code=3)
        assert "[fleet-not-ready]" in said
        assert f"  {name}  2        refused (runtime: " in said
    assert isinstance(read_log(harness.settings, model).events[-1].data, RolloutStarted)


def test_an_instance_without_the_bundle_is_named(harness: Harness, tmp_path: Path) -> None:
    """It reads another store, so it never has the candidate: no traffic, and the table says who."""
    model = harness.model
    first = store_bundle(harness.store, model, 1.0)
    harness.release(first)
    other = tmp_path / "other"
    subprocess.run(["cp", "-r", str(tmp_path / "store"), str(other)], check=True)
    harness.start(STORE_URL=other.as_uri())
    harness.wait_until_ready()
    harness.release(store_bundle(harness.store, model, 2.0), start=False)
    harness.command(Start(2, Strategy.CANARY, "salt", min_ready=10_000))
    said = harness.run("rollout", "set", "weight", model, "10%", "--wait", "1", code=3)
    assert "[fleet-not-ready]" in said
    assert f"  {harness.fleet()[0].status.instance}  2        " in said
