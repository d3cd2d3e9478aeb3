"""The fleet: who is alive by the broker's clock, and what the others have applied."""

from datetime import UTC, datetime

import msgspec

from adapters.fleet_topic import Fleet
from schemas.fleet import PROBE_PREFIX, InstanceStatus, Phase, Runtime, encode_status

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


def _say(fleet: Fleet, instance: str, at_ms: int, revision: int = 5) -> None:
    status = msgspec.structs.replace(STATUS, instance=instance, revision=revision)
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
