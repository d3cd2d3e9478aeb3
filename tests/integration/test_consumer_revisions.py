"""Revisions across processes: stamps, lagging instances, revocations, groups without offsets."""

import shutil

import pytest
from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from adapters.control_log import read_log
from adapters.object_store import open_store
from adapters.stream_config import group_of
from deployment.commands import Revoke
from deployment.state import short_hash
from schemas.fleet import InstanceStatus, Phase
from tests.bundles import store_bundle
from tests.fleet import LIMIT_SECONDS, PARTITIONS, Harness, Instance, wait_for

pytestmark = pytest.mark.stack


def test_a_group_with_answers_but_no_offsets_is_told_where_to_start(harness: Harness) -> None:
    """Without --from it refuses with exit code 3; with --from latest it answers only what comes."""
    harness.release(store_bundle(harness.store, harness.model, 1.0))
    instance = harness.start(CONSUMER__MEMBERSHIP="dynamic")  # which keeps no place when it ends
    harness.wait_until_ready()
    harness.send(50)
    harness.forecasts(50)
    instance.terminate()
    _forget_group(harness)
    refused = harness.start()
    assert refused.wait_for_exit() == 3
    assert "--from earliest" in refused.text
    assert "Traceback" not in refused.text
    harness.instances.remove(refused)
    harness.start(0, "--from", "latest")
    harness.wait_until_ready()
    harness.send(50)
    assert len(harness.forecasts(100)) == 100
    report = harness.verify()
    assert report.clean, report.findings


def test_a_new_group_starts_at_the_earliest_request(harness: Harness) -> None:
    """Requests that came before the first consumer are answered: with no answers nothing is doubled."""
    harness.send(50)
    harness.release(store_bundle(harness.store, harness.model, 1.0))
    harness.start()
    harness.wait_until_ready()
    report = harness.verify()
    assert (report.clean, report.requests, report.forecasts) == (True, 50, 50)


def test_the_stamp_of_the_snapshot_stands_beside_the_offsets(harness: Harness) -> None:
    """Committed offsets carry the log's id, the revision that answered, and that event's hash."""
    harness.release(store_bundle(harness.store, harness.model, 1.0))
    harness.start()
    harness.wait_until_ready()
    harness.send(200)
    harness.forecasts(200)
    stamp = read_log(harness.settings, harness.model).deployment.stamp
    committed = wait_for("committed offsets", lambda: _committed(harness, 200))
    assert {each.metadata for each in committed} == {stamp}


@pytest.mark.parametrize("kind", ["another log", "rewritten", "truncated"])
def test_a_stamp_that_the_log_does_not_hold_is_refused(harness: Harness, kind: str) -> None:
    """An instance that finds a foreign stamp ends with exit code 1 and says what happened to the log."""
    harness.release(store_bundle(harness.store, harness.model, 1.0))
    deployment = read_log(harness.settings, harness.model).deployment
    assert deployment.log_id is not None
    log_id, nobody = short_hash(deployment.log_id), "0" * 16
    stamp = {
        "another log": f"{nobody}:{deployment.revision}:{nobody}",
        "rewritten": f"{log_id}:{deployment.revision}:{nobody}",
        "truncated": f"{log_id}:{deployment.revision + 5}:{nobody}",
    }[kind]
    _commit(harness, stamp, range(PARTITIONS))
    instance = harness.start()
    assert instance.wait_for_exit() == 1
    assert stamp in instance.text
    assert "truncated, or made anew" in instance.text
    assert "Traceback" not in instance.text


def test_a_partition_waits_for_the_revision_that_its_last_owner_answered_with(
    harness: Harness,
) -> None:
    """Partitions that come with a later stamp are answered only once that revision is applied here."""
    harness.release(store_bundle(harness.store, harness.model, 1.0))
    lagging = harness.start()
    harness.wait_until_ready()
    elsewhere = open_store((harness.folder / "elsewhere").as_uri())
    second = harness.release(store_bundle(elsewhere, harness.model, 2.0))
    moved = _be_a_member_that_answers_at(
        harness, read_log(harness.settings, harness.model).deployment.stamp
    )
    wait_for("a partition that waits", lambda: _waiting(lagging) or None)
    assert _waiting(lagging) == moved
    harness.send(200)
    kept = wait_for(
        "answers on the partitions that were kept",
        lambda: (
            len(found := harness.forecasts(1)) >= 200 * (PARTITIONS - len(moved)) // 8 and found
        ),
    )
    assert not {f.source.partition for f in kept} & moved
    assert {f.version for f in kept} == {1}
    store_bundle(harness.store, harness.model, 2.0)
    answered = harness.forecasts(200)
    assert {f.revision for f in answered if f.source.partition in moved} == {second}
    assert {line["partition"] for line in lagging.lines("partition.opened")} == moved


def test_a_partition_that_waited_too_long_is_given_up(harness: Harness) -> None:
    """After the stamp's wait the instance leaves the group, says why, and lives on outside."""
    harness.release(store_bundle(harness.store, harness.model, 1.0))
    lagging = harness.start(CONSUMER__STAMP_WAIT_MS="1500")
    harness.wait_until_ready()
    elsewhere = open_store((harness.folder / "elsewhere").as_uri())
    harness.release(store_bundle(elsewhere, harness.model, 2.0))
    _be_a_member_that_answers_at(
        harness, read_log(harness.settings, harness.model).deployment.stamp
    )
    line = lagging.wait_for_line("group.leave")
    assert "answered at a later revision" in line["reason"]
    status = wait_for("it waits outside", lambda: _status(harness, 0, Phase.WAITING))
    assert status.partitions == ()
    assert _members(harness) == 0


def test_an_instance_that_cannot_follow_leaves_once_another_one_does(harness: Harness) -> None:
    """It serves on alone; it leaves when a peer has applied the revision, and comes back when it can."""
    store_bundle(harness.store, harness.model, 1.0)
    both = harness.folder / "both"
    shutil.copytree(harness.folder / "store", both)
    harness.release(store_bundle(harness.store, harness.model, 1.0))
    lagging = harness.start(0, CONSUMER__CACHE_MEGABYTES="0")  # or it had it from the other one
    harness.wait_until_ready()
    with harness.stream(300):
        second = harness.release(store_bundle(open_store(both.as_uri()), harness.model, 2.0))
        refused = wait_for("a refusal", lambda: lagging.lines("model.refused") or None)
        assert refused[0]["rung"] == "fetch"
        harness.wait_for_revision(second - 1)
        status = wait_for("it goes on", lambda: _status(harness, 0, Phase.READY))
        assert (status.revision, len(status.partitions)) == (second - 1, PARTITIONS)
        assert not lagging.lines("group.leave")
        harness.start(1, STORE_URL=both.as_uri())
        wait_for("it waits outside", lambda: _status(harness, 0, Phase.WAITING))
        assert "another instance answers at revision" in lagging.lines("group.leave")[0]["reason"]
        wait_for(
            "the other one owns everything",
            lambda: (s := _status(harness, 1, Phase.READY)) and len(s.partitions) == PARTITIONS,
        )
        store_bundle(harness.store, harness.model, 2.0)
        harness.wait_until_ready(2)
        harness.wait_for_revision(second, 2)
    report = harness.verify()
    assert report.clean, report.findings
    assert len(report.versions) == 2


def test_nothing_is_answered_by_a_version_that_was_read_to_be_revoked(harness: Harness) -> None:
    """A revoked champion without a usable replacement here stops answering and leaves at once."""
    keeper = open_store((harness.folder / "both").as_uri())
    digest = store_bundle(keeper, harness.model, 1.0)
    harness.release(digest)
    second = store_bundle(harness.store, harness.model, 2.0)
    store_bundle(keeper, harness.model, 2.0)
    harness.release(second)
    lagging = harness.start(0)
    harness.wait_until_ready()
    harness.send(20)
    assert {f.version for f in harness.forecasts(20)} == {2}
    revoked = harness.command(Revoke(2))[-1].event.revision
    wait_for("it leaves", lambda: lagging.lines("group.leave") or None)
    assert "was revoked" in lagging.lines("group.leave")[0]["reason"]
    harness.send(20)
    harness.start(1, STORE_URL=keeper.url)
    answered = harness.forecasts(40)
    assert {f.version for f in answered if f.revision >= revoked} == {1}
    report = harness.verify()
    assert (report.clean, report.versions) == (True, {1: 20, 2: 20}), report.findings


# --- what the tests do to the group from outside


def _admin_consumer(harness: Harness, **properties: object) -> Consumer:
    return Consumer(
        {
            "bootstrap.servers": harness.settings.kafka.bootstrap_servers,
            "group.id": group_of(harness.model),
            "enable.auto.commit": False,
            "log_level": 0,
            **properties,
        }
    )


def _commit(harness: Harness, stamp: str, partitions: range) -> None:
    """Commit offset 0 with a stamp, as a group that has no members."""
    consumer = _admin_consumer(harness)
    consumer.commit(
        offsets=[TopicPartition(harness.topics.requests, p, 0, stamp) for p in partitions],
        asynchronous=False,
    )
    consumer.close()


def _committed(harness: Harness, total: int) -> list[TopicPartition] | None:
    consumer = _admin_consumer(harness)
    try:
        found = consumer.committed(
            [TopicPartition(harness.topics.requests, p) for p in range(PARTITIONS)],
            timeout=LIMIT_SECONDS,
        )
    finally:
        consumer.close()
    return found if sum(max(each.offset, 0) for each in found) == total else None


def _be_a_member_that_answers_at(harness: Harness, stamp: str) -> set[int]:
    """Join the group for a moment, commit where the group is under ``stamp``, leave; the partitions."""
    taken: set[int] = set()

    def take(consumer: Consumer, partitions: list[TopicPartition]) -> None:
        consumer.incremental_assign(partitions)
        consumer.pause(partitions)
        taken.update(each.partition for each in partitions)

    consumer = _admin_consumer(harness, **{"partition.assignment.strategy": "cooperative-sticky"})
    consumer.subscribe([harness.topics.requests], on_assign=take)
    wait_for("partitions", lambda: consumer.consume(1, 0.1) == [] and bool(taken))
    places = [TopicPartition(harness.topics.requests, p) for p in sorted(taken)]
    stamped = [
        TopicPartition(each.topic, each.partition, max(each.offset, 0), stamp)
        for each in consumer.committed(places, timeout=LIMIT_SECONDS)
    ]
    consumer.commit(offsets=stamped, asynchronous=False)
    consumer.close()
    return taken


def _forget_group(harness: Harness) -> None:
    """Delete the group with its offsets, once it has no members."""
    admin = AdminClient({"bootstrap.servers": harness.settings.kafka.bootstrap_servers})
    group = group_of(harness.model)

    def delete() -> bool:
        try:
            admin.delete_consumer_groups([group])[group].result()
        except KafkaException:
            return False
        return True

    wait_for("the group deleted", delete)


def _members(harness: Harness) -> int:
    admin = AdminClient({"bootstrap.servers": harness.settings.kafka.bootstrap_servers})
    group = group_of(harness.model)
    return len(admin.describe_consumer_groups([group])[group].result().members)


def _status(harness: Harness, slot: int, phase: Phase) -> InstanceStatus | None:
    name = f"{group_of(harness.model)}-{slot}"
    for sighting in harness.fleet():
        status = sighting.status
        if sighting.alive and status.instance == name and status.phase is phase:
            return status
    return None


def _waiting(instance: Instance) -> set[int]:
    lines = instance.lines("partitions.assigned")
    return {partition for line in lines for partition in line["waiting"]}
