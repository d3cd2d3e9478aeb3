"""Instances that end without saying goodbye: counted for the rollout under which they did."""

import pytest

from adapters.fleet_topic import count_crashes
from deployment.commands import Shift, Start, Strategy
from tests.bundles import store_bundle
from tests.fleet import Harness, wait_for

pytestmark = pytest.mark.stack


def test_unclean_ends_under_a_canary_are_counted_and_clean_ones_are_not(harness: Harness) -> None:
    """Killed twice, it says so in its third life; before, a restart in order counted nothing."""
    harness.release(store_bundle(harness.store, harness.model, 1.0))
    instance = harness.start()
    harness.wait_until_ready()
    instance.kill()  # no rollout runs yet
    instance = harness.start()
    harness.wait_until_ready()
    harness.release(store_bundle(harness.store, harness.model, 2.0), start=False)
    started = harness.command(Start(2, Strategy.CANARY, "salt", min_ready=0))[-1].event.revision
    shifted = harness.command(Shift(started, 5_000, 0, ()))[-1].event.revision
    harness.wait_for_revision(shifted)
    assert instance.terminate() == 0
    assert harness.fleet() == []
    harness.start()
    _wait_for_life(harness, started, crashes=0)
    for crashes in (1, 2):
        harness.instances[-1].kill()
        harness.start(CONSUMER__STATUS_INTERVAL_MS="400")  # whose silence is noticed soon
        _wait_for_life(harness, started, crashes)
    assert count_crashes(harness.fleet(), started) == 2
    assert count_crashes(harness.fleet(), started + 1) == 0
    harness.instances[-1].kill()
    wait_for("its last words are old", lambda: not harness.fleet()[0].alive)
    assert count_crashes(harness.fleet(), started) == 3


def _wait_for_life(harness: Harness, rollout: int, crashes: int) -> None:
    """Until the instance that was started last has read the log, and said how often it ended before."""
    harness.instances[-1].wait_for_line("control.read")

    def look() -> bool:
        said = [each.status.crashes for each in harness.fleet() if each.alive]
        return [(each.rollout, each.count) for each in sum(said, ())] == [(rollout, crashes)]

    wait_for(f"an instance that ended {crashes} times", look)
