"""The fleet: who is alive by the broker's clock, and what the others have applied."""

from datetime import UTC, datetime

import msgspec

from adapters.fleet_topic import Fleet, count_crashes, live_instances
from deployment.readiness import unjudged
from schemas.fleet import (
    PROBE_PREFIX,
    CrashCount,
    InstanceStatus,
    Phase,
    Refused,
    Runtime,
    encode_status,
)

LONG_AGO = datetime(1999, 1, 1, tzinfo=UTC)
STATUS = InstanceStatus(
    instance="a",
    model="m",
    phase=Phase.READY,
    detail="",
    read_revision=5,
    revision=5,
    champion=1,
    prepared=(1,),
    refused=(),
    runtime=Runtime("1", "x", "0"),
    partitions=(0,),
    answered=0,
    rejected=0,
    rate=0.0,
    horizon_days_left=None,
    interval_seconds=1.0,
    started_at=LONG_AGO,  # an instance's own clock decides nothing
    at=LONG_AGO,
)


def _say(
    fleet: Fleet, instance: str, at_ms: int, revision: int = 5, crashes: tuple[int, ...] = ()
) -> None:
    """An announcement; ``crashes`` is a rollout and its count."""
    status = msgspec.structs.replace(
        STATUS,
        instance=instance,
        revision=revision,
        crashes=(CrashCount(*crashes),) if crashes else (),
    )
    fleet.take(instance.encode(), encode_status(status), at_ms)


def test_an_instance_is_alive_for_three_intervals_of_the_brokers_time() -> None:
    """Age is the distance to the newest record on the topic, a probe included."""
    fleet = Fleet()
    _say(fleet, "a", 10_000)
    assert [(s.alive, s.age_seconds) for s in fleet.sightings()] == [(True, 0.0)]
    fleet.take(f"{PROBE_PREFIX}1".encode(), None, 12_999)
    assert fleet.sightings()[0].alive
    fleet.take(f"{PROBE_PREFIX}1".encode(), None, 13_000)
    assert not fleet.sightings()[0].alive


def test_a_tombstone_takes_the_instance_off_the_fleet() -> None:
    """A clean stop leaves nobody who looks dead."""
    fleet = Fleet()
    _say(fleet, "a", 10_000)
    fleet.take(b"a", None, 10_001)
    assert fleet.sightings() == []


def test_only_live_peers_count_for_what_was_applied() -> None:
    """A dead instance's last word, and one's own, are no reason to leave."""
    fleet = Fleet()
    _say(fleet, "dead", 10_000, revision=9)
    _say(fleet, "me", 20_000, revision=8)
    assert fleet.peer_revision("me") == 0
    _say(fleet, "peer", 20_000, revision=7)
    assert fleet.peer_revision("me") == 7


def test_a_record_that_cannot_be_read_is_passed_over() -> None:
    """Strangers' records count as time and as nothing else."""
    fleet = Fleet()
    _say(fleet, "a", 10_000)
    fleet.take(b"a", b"{}", 10_001)
    fleet.take(None, b"nonsense", 20_000)
    assert [(s.status.instance, s.alive) for s in fleet.sightings()] == [("a", False)]


def test_every_verdict_counts_as_judged() -> None:
    """In memory, passed and let go again, or refused; what has none is not judged."""
    fleet = Fleet()
    refused = (Refused(3, "runtime", "too new"),)
    status = msgspec.structs.replace(STATUS, passed=(1, 2), refused=refused)
    fleet.take(b"a", encode_status(status), 10_000)
    _say(fleet, "b", 10_000)
    first, second = live_instances(fleet.sightings())
    assert first.judged == {1, 2, 3}
    assert first.prepared == {1}
    assert second.judged == {1}, "an instance that does not know of verdicts has those it shows"
    assert unjudged((first, second), 2) == ("b",)


def test_crashes_are_the_counts_of_the_living_and_one_more_of_the_dead() -> None:
    """Only those of the rollout asked for; a tombstone leaves nothing to count."""
    fleet = Fleet()
    _say(fleet, "dead", 10_000, crashes=(7, 0))
    _say(fleet, "dead-again", 10_000, crashes=(7, 3))
    _say(fleet, "dead-before", 10_000, crashes=(5, 9))
    _say(fleet, "dead-without", 10_000)
    _say(fleet, "stopped", 10_000, crashes=(7, 4))
    fleet.take(b"stopped", None, 10_001)
    _say(fleet, "alive", 20_000, crashes=(7, 2))
    _say(fleet, "well", 20_000, crashes=(7, 0))
    assert count_crashes(fleet.sightings(), 7) == 1 + 4 + 2
    assert count_crashes(fleet.sightings(), 5) == 10
    assert count_crashes(fleet.sightings(), 6) == 0


def test_a_start_counts_on_from_an_end_without_a_tombstone() -> None:
    """For the rollout that the last words name; after a clean stop, and for a new name, there is none."""
    fleet = Fleet()
    _say(fleet, "a", 10_000, crashes=(7, 0))
    assert fleet.crashes_before("a") == (CrashCount(7, 1),)
    _say(fleet, "a", 11_000, crashes=(7, 1))
    assert fleet.crashes_before("a") == (CrashCount(7, 2),)
    assert fleet.crashes_before("b") == ()
    _say(fleet, "a", 12_000)
    assert fleet.crashes_before("a") == (), "no rollout moved traffic when it ended"
    _say(fleet, "a", 13_000, crashes=(9, 0))
    fleet.take(b"a", None, 13_001)
    assert fleet.crashes_before("a") == ()
