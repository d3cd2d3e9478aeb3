"""2,000 answers of a run with kills, drawn from what the sink kept, all come out again bit for bit."""

import json
import time

import pytest

from adapters.fleet_topic import live_instances
from adapters.onnx_model import runtime_name
from deployment.commands import Promote, Shift, Start, Strategy
from deployment.readiness import Fleet
from schemas.events import RolloutStarted
from tests.bundles import store_bundle
from tests.chaos.consumers import Slots
from tests.chaos.load import Load
from tests.fleet import PARTITIONS, Harness, environment_of, wait_for

pytestmark = [pytest.mark.stack, pytest.mark.chaos]

SEED = 7
RATE = 500.0
REQUESTS = 12_000
SLOTS = 2
KILLS = 6
SAMPLE = 2_000
VERSIONS = 5
CANARY = (1_000, 5_000, 10_000)
AT_EACH = 600
"""Requests, at least, that each step of the rollouts sees."""


@pytest.mark.timeout(900)
def test_2000_answers_of_five_versions_and_kills_are_proven(harness: Harness) -> None:
    """Canaries, blue-green and an undo under load, one request in a hundred bad, slots killed."""
    harness.release(store_bundle(harness.store, harness.model, 1.0))
    environment = environment_of(harness.settings) | {
        "MODELWIRE_TOPICS__PARTITIONS": str(PARTITIONS),
        "MODELWIRE_CONSUMER__SUMMARY_INTERVAL_MS": "1000",
    }
    arguments = ["--model", harness.model, "--workers", str(SLOTS)]
    slots = Slots(arguments, environment, harness.folder / "slots.jsonl")
    servers, topic = harness.settings.kafka.bootstrap_servers, harness.topics.requests
    try:
        _fleet(harness, {1})
        with Load(servers, topic, REQUESTS, RATE, SEED) as load:
            kills = _carry_out(harness, slots, load)
            wait_for("all requests", lambda: load.is_over, 300)
        report = harness.verify(wait_seconds=120)
    finally:
        slots.stop()
    assert report.clean, report.findings
    assert kills == KILLS
    harness.run("audit", "sink", "--model", harness.model, "--once")
    harness.run("audit", "check", "--model", harness.model)
    began = time.monotonic()
    proof = ("audit", "verify", "--model", harness.model, "--sample", str(SAMPLE), "-o", "json")
    proven = json.loads(harness.run(*proof, "--seed", str(SEED)))
    seconds = time.monotonic() - began
    print(f"{proven['outcomes']} of {report.requests:,} in {seconds:.1f} s, kills: {kills}")
    assert proven["checked"] == SAMPLE
    assert proven["outcomes"]["identical"] == SAMPLE, proven["answers"][:3]
    assert proven["runtimes"] == {runtime_name(): SAMPLE}
    everything = ("audit", "verify", "--model", harness.model, "--sample", "1000000", "-o", "json")
    all_of_it = json.loads(harness.run(*everything))
    assert all_of_it["checked"] == report.requests == REQUESTS
    assert all_of_it["outcomes"]["identical"] == REQUESTS, all_of_it["answers"][:3]


def _carry_out(harness: Harness, slots: Slots, load: Load) -> int:
    """Versions 2 to 5 by turns; a slot is killed after every other step. Returns how many were."""
    kills = 0

    def go_on(*, killing: bool) -> None:
        nonlocal kills
        mark = min(load.sent + AT_EACH, REQUESTS)
        wait_for(f"{mark} requests", lambda: load.sent >= mark, 120)
        if killing and kills < KILLS:
            pid = wait_for("a slot that answers", lambda: _answering(slots), 60)
            slots.kill_one(pid)
            kills += 1

    go_on(killing=False)
    for version in range(2, VERSIONS + 1):
        digest = store_bundle(harness.store, harness.model, 1.0 + version / 8)
        if version % 2 == 0:
            harness.release(digest)
            go_on(killing=True)
            continue
        harness.release(digest, start=False)
        events = harness.command(Start(version, Strategy.CANARY, f"salt-{version}", min_ready=0))
        [rollout] = [e.event.revision for e in events if isinstance(e.data, RolloutStarted)]
        for weight in CANARY:
            harness.command(Shift(rollout, weight, None, _fleet(harness, {version})))
            go_on(killing=weight != CANARY[0])
        harness.command(Promote(rollout, _fleet(harness, {version})))
        go_on(killing=False)
    harness.undo()
    return kills


def _answering(slots: Slots) -> int | None:
    """The process of a slot that owns partitions."""
    pids = (slots.pid_of(slot) for slot in range(SLOTS))
    return next((pid for pid in pids if pid is not None and slots.owned_by(pid)), None)


def _fleet(harness: Harness, versions: set[int]) -> Fleet:
    """The live instances, once all of them have these versions."""

    def look() -> Fleet:
        fleet = live_instances(harness.fleet())
        is_ready = len(fleet) == SLOTS and all(versions <= each.prepared for each in fleet)
        return fleet if is_ready else ()

    return wait_for(f"instances with {versions}", look, 120)
