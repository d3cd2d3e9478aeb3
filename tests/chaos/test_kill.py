"""Kills of consumers and of the broker, under load and during a swap."""

import random
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from adapters.settings import load_settings
from modelwire.localstack.stack import Stack
from tests.bundles import store_bundle
from tests.fleet import Harness, Instance, environment_of, wait_for

pytestmark = pytest.mark.stack

REQUESTS = 20_000
RATE = 1_500
CONSUMER_KILLS = 5
SLOTS = 2


@pytest.fixture
def harness(tmp_path: Path, model: str) -> Iterator[Harness]:
    """A model on a stack of its own, since its broker is killed."""
    state_dir = tmp_path / "stack"
    Stack.up(state_dir, quiet=True)
    try:
        settings = load_settings(
            state_dir=state_dir, store_url=(tmp_path / "store").absolute().as_uri()
        )
        running = Harness(settings, environment_of(settings), model, tmp_path)
        yield running
        running.close()
    finally:
        Stack.down(state_dir)


@pytest.mark.timeout(240)
def test_nothing_is_lost_or_doubled_under_kills_and_a_swap(harness: Harness) -> None:
    """5 SIGKILLs of consumers and one of the broker in 20,000 requests and two swaps harm no answer."""
    dice = random.Random(20_111_209)
    first = store_bundle(harness.store, harness.model, 1.0)
    second = store_bundle(harness.store, harness.model, 2.0)
    harness.release(first)
    slots = [harness.start(slot) for slot in range(SLOTS)]
    harness.wait_until_ready(SLOTS)
    watching = threading.Event()
    keeper = threading.Thread(target=_restart_what_ends, args=(harness, slots, watching))
    keeper.start()
    try:
        with harness.stream(RATE) as stream:
            for kill in range(CONSUMER_KILLS):
                mark = REQUESTS * (kill + 1) // (CONSUMER_KILLS + 2)
                wait_for(f"{mark} requests", lambda mark=mark: stream.sent >= mark, 60)
                _kill_one_that_answers(slots, dice.randrange(SLOTS))
                if kill == 1:
                    harness.release(second)
                if kill == 2:
                    Stack.restart_broker(harness.settings.state_dir)
                if kill == 3:
                    harness.undo()
            wait_for("all requests", lambda: stream.sent >= REQUESTS, 60)
        report = harness.verify(wait_seconds=60)
    finally:
        watching.set()
        keeper.join()
    print(f"kills: {report.as_json()}")
    killed = [one for one in harness.instances if one.process.poll() == -signal.SIGKILL]
    assert len(killed) == CONSUMER_KILLS
    assert report.requests >= REQUESTS
    assert len(report.versions) == 2, "both versions answered"
    assert report.clean, report.findings


def _kill_one_that_answers(slots: list[Instance], slot: int) -> None:
    """SIGKILL for the slot's process, once it owns partitions: anything else proves little."""
    wait_for("partitions", lambda: slots[slot].lines("partitions.assigned"), 60)
    slots[slot].process.kill()


def _restart_what_ends(harness: Harness, slots: list[Instance], stop: threading.Event) -> None:
    """The supervisor: a slot whose process ended is started again at once."""
    while not stop.wait(0.05):
        for slot, instance in enumerate(slots):
            if instance.process.poll() is not None:
                slots[slot] = harness.start(slot)
