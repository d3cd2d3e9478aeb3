"""A canary and an undo under load, with kills: what the independent checker says of every answer."""

import math
import signal
import threading

import pytest
from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME

from adapters.control_log import read_log
from adapters.fleet_topic import live_instances
from deployment.commands import Shift, Start, Strategy, Undo
from deployment.readiness import Fleet
from schemas.events import ModelRestored, RolloutShifted
from schemas.forecast import Variant, decode_forecast
from tests.bundles import store_bundle
from tests.chaos.load import real_keys
from tests.fleet import Harness, Instance, wait_for

pytestmark = pytest.mark.stack

RATE = 1_500
SLOTS = 2
AT_EACH_WEIGHT = 1_200
"""Requests, at least, with a key of its own each."""

WEIGHTS = (100, 1_000, 5_000, 10_000, 5_000, 1_000, 100, 0)
"""Up to everything, and back, in basis points."""

KILLED_AFTER = (2, 4)
"""After which of these shifts a slot is killed."""

SIGMAS = 5.0
UNDO_LIMIT_SECONDS = 1.0


def test_every_answer_of_a_canary_is_the_routes_while_instances_are_killed(
    harness: Harness,
) -> None:
    """1 → 10 → 50 → 100 % and back under 1,500 requests a second with real keys, and two SIGKILLs."""
    keys = real_keys()
    harness.release(store_bundle(harness.store, harness.model, 1.0))
    slots = [harness.start(slot) for slot in range(SLOTS)]
    harness.wait_until_ready(SLOTS)
    harness.release(store_bundle(harness.store, harness.model, 2.0), start=False)
    started = harness.command(Start(2, Strategy.CANARY, "salt", min_ready=10_000))[
        -1
    ].event.revision
    watching = threading.Event()
    keeper = threading.Thread(target=_restart_what_ends, args=(harness, slots, watching))
    keeper.start()
    kills = 0
    try:
        with harness.stream(RATE, keys) as stream:
            for number, weight in enumerate(WEIGHTS):
                _shift(harness, started, weight)
                if number in KILLED_AFTER:
                    slots[kills].process.kill()
                    kills += 1
                mark = stream.sent + AT_EACH_WEIGHT
                wait_for(f"{mark} requests", lambda mark=mark: stream.sent >= mark)
        report = harness.verify()
    finally:
        watching.set()
        keeper.join()
    print(f"canary: {report.as_json()}")
    assert report.clean, report.findings
    assert report.requests == stream.sent
    killed = [one for one in harness.instances if one.process.poll() == -signal.SIGKILL]
    assert len(killed) == kills == 2
    assert len(keys) > AT_EACH_WEIGHT
    _check_shares(harness, stream.sent)


def _shift(harness: Harness, rollout: int, weight: int) -> None:
    """Set the weight, once the fleet agrees: an instance that was just killed comes back first."""

    def look() -> Fleet:
        fleet = live_instances(harness.fleet())
        is_ready = len(fleet) >= SLOTS and all({1, 2} <= each.prepared for each in fleet)
        return fleet if is_ready else ()

    fleet = wait_for("a fleet that is ready", look)
    harness.command(Shift(rollout, weight, None, fleet))


def _check_shares(harness: Harness, sent: int) -> None:
    """At every weight the share of the *keys* that the candidate answered is within chance of it."""
    shifts = {
        recorded.event.revision: recorded.data.weight
        for recorded in read_log(harness.settings, harness.model).events
        if isinstance(recorded.data, RolloutShifted)
    }
    assert tuple(shifts.values()) == WEIGHTS
    answered = _keys_by_revision(harness, sent)
    for revision, weight in shifts.items():
        candidates, all_keys = answered[revision]
        assert len(all_keys) > 200, f"{len(all_keys)} keys at revision {revision}"
        share, expected = len(candidates) / len(all_keys), weight / 10_000
        bound = SIGMAS * math.sqrt(expected * (1 - expected) / len(all_keys))
        print(f"weight {expected:.0%}: {share:.2%} of {len(all_keys):,} keys")
        assert abs(share - expected) <= bound


def _keys_by_revision(harness: Harness, sent: int) -> dict[int, tuple[set[bytes], set[bytes]]]:
    """Revision -> the keys that the candidate answered, and all keys."""
    found: dict[int, tuple[set[bytes], set[bytes]]] = {}
    for key, forecast in harness.keyed_forecasts(sent):
        candidates, all_keys = found.setdefault(forecast.revision, (set(), set()))
        all_keys.add(key)
        if forecast.variant is Variant.CANDIDATE:
            candidates.add(key)
    return found


def _restart_what_ends(harness: Harness, slots: list[Instance], stop: threading.Event) -> None:
    """The supervisor: a slot whose process ended is started again at once."""
    while not stop.wait(0.05):
        for slot, instance in enumerate(slots):
            if instance.process.poll() is not None:
                slots[slot] = harness.start(slot)


@pytest.mark.chaos
def test_an_undo_takes_the_bad_version_back_within_a_second(harness: Harness) -> None:
    """Under 1,500 requests a second, from the append to the last answer of the bad version anywhere.

    Each of three undos counts, by the instances' clocks and by the broker's, which stamps the records.
    """
    harness.release(store_bundle(harness.store, harness.model, 1.0))
    for slot in range(2):
        harness.start(slot)
    harness.wait_until_ready(2)
    revision = harness.release(store_bundle(harness.store, harness.model, 2.0))
    undone: list[tuple[float, int]] = []
    with harness.stream(RATE) as stream:
        for _ in range(3):
            harness.wait_for_revision(revision, 2)
            mark = stream.sent + RATE
            wait_for("some requests", lambda mark=mark: stream.sent >= mark)
            restored = harness.command(Undo(None))[-1]
            revision = restored.event.revision
            assert isinstance(restored.data, ModelRestored)
            undone.append((restored.event.time.timestamp(), revision))
            harness.wait_for_revision(revision, 2)
            again = Start(restored.data.replaced, Strategy.BLUE_GREEN, f"again-{revision}")
            revision = harness.command(again)[-1].event.revision
    report = harness.verify()
    assert report.clean, report.findings
    answered = _answer_times(harness, stream.sent)
    for clock, times in answered.items():
        seconds = [
            max(at for at, answered_at in times if answered_at < revision) - since
            for since, revision in undone
        ]
        print(f"seconds from an undo to the bad version's last answer, by the {clock}: {seconds}")
        assert max(seconds) <= UNDO_LIMIT_SECONDS


def _answer_times(harness: Harness, count: int) -> dict[str, list[tuple[float, int]]]:
    """For each of the two clocks the time and the revision of every answer."""
    records = harness.records(harness.topics.results, count)
    assert {each.time_type for each in records} == {TIMESTAMP_LOG_APPEND_TIME}
    forecasts = [decode_forecast(each.value or b"") for each in records]
    return {
        "instances": [(each.scored_at.timestamp(), each.revision) for each in forecasts],
        "broker": [
            (record.time, each.revision) for record, each in zip(records, forecasts, strict=True)
        ],
    }
