"""One answer each, whatever becomes of the topics: missing, too small, not allowed.

What cannot pass by itself ends the process with a message that says what to do, and once that is done
the next process of the slot answers what was open.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # its stubs do not export them
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourcePatternType,
    ResourceType,
)

from adapters.kafka import Admin, admin
from adapters.settings import load_settings
from adapters.stream_config import group_of
from adapters.topics import create_topics
from modelwire.localstack import broker
from modelwire.localstack.stack import Stack
from schemas.rejection import ENVELOPE_HEADER, Reason
from tests.bundles import store_bundle
from tests.fleet import LIMIT_SECONDS, Harness, Instance, environment_of
from tests.traffic import good_request

pytestmark = pytest.mark.stack

OF_ITS_OWN = {
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "allow.everyone.if.no.acl.found": "true",
    "group.min.session.timeout.ms": 2_000,
}


def _answering(harness: Harness, **settings: str) -> Instance:
    """An instance that answers by version 1."""
    harness.release(store_bundle(harness.store, harness.model, 1.0))
    instance = harness.start(**settings)
    harness.wait_until_ready()
    return instance


def _assert_clean(harness: Harness) -> None:
    report = harness.verify()
    assert report.clean, report.findings


def _limit_records(harness: Harness, topic: str, size: int) -> None:
    """Set the topic's ``max.message.bytes``."""
    entry = ConfigEntry("max.message.bytes", str(size), incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource("topic", topic, incremental_configs=[entry])
    with admin(harness.settings) as opened:
        done = opened.results(opened.client.incremental_alter_configs([resource]))
    assert set(done.values()) == {None}


def test_an_answer_beyond_the_producers_limit_is_rejected(harness: Harness) -> None:
    """A key too large for the answers' topics costs its own request the forecast, and no other."""
    _limit_records(harness, harness.topics.requests, 4_000_000)
    _answering(harness)
    producer = harness.producer(**{"message.max.bytes": 4_000_000})
    producer.produce(harness.topics.requests, good_request(1, "a"), b"k" * 1_500_000, 0)
    producer.produce(harness.topics.requests, good_request(2, "a"), b"key", 0)
    assert producer.flush(LIMIT_SECONDS) == 0
    [rejected] = harness.rejections(1)
    assert rejected.rejection.reason == Reason.ANSWER_TOO_LARGE
    assert rejected.rejection.source.offset == 0
    assert ENVELOPE_HEADER in rejected.headers
    assert [f.request_id for f in harness.forecasts(1)] == ["r-2"]


def test_a_limit_that_was_lowered_under_way_is_read_at_the_next_start(harness: Harness) -> None:
    """The batch fails at the broker, the process says so and ends, the next rejects what is large."""
    instance = _answering(harness)
    harness.send(20)
    harness.forecasts(20)
    _limit_records(harness, harness.topics.results, 10_000)
    producer = harness.producer()
    producer.produce(harness.topics.requests, good_request(1, "a"), os.urandom(20_000), 0)
    assert producer.flush(LIMIT_SECONDS) == 0
    harness.send(20)
    assert instance.wait_for_exit() == 1
    assert f"{harness.topics.results} does not take answers of" in instance.text
    assert "the limit is read at the start" in instance.text
    assert "Traceback" not in instance.text
    harness.start()
    [rejected] = harness.rejections(1)
    assert rejected.rejection.reason == Reason.ANSWER_TOO_LARGE
    assert len(harness.forecasts(40)) == 40
    _assert_clean(harness)


def test_a_limit_too_small_for_any_answer_is_refused_at_the_start(harness: Harness) -> None:
    """Where not even a rejection is sure to fit, it says what to set and exits with 5."""
    _limit_records(harness, harness.topics.rejections, 2_000)
    instance = harness.start()
    assert instance.wait_for_exit() == 5
    assert f"{harness.topics.rejections} takes batches of at most 2000 bytes" in instance.text
    assert "set its max.message.bytes to" in instance.text


def test_results_that_are_deleted_under_way_are_missed_by_name(harness: Harness) -> None:
    """It ends with exit code 4 and the command that makes the topic; then all is answered."""
    instance = _answering(harness)
    results = harness.topics.results
    with admin(harness.settings) as opened:
        done = opened.results(opened.client.delete_topics([results]))
    assert done == {results: None}
    harness.send(50)
    assert instance.wait_for_exit() == 4
    assert f"modelwire topics create {harness.model}" in instance.text
    assert "Traceback" not in instance.text
    create_topics(harness.settings, harness.model)
    harness.start()
    assert len(harness.forecasts(50)) == 50
    _assert_clean(harness)


def test_rejections_that_are_deleted_are_missed_by_name(harness: Harness) -> None:
    """Under way and at the start it ends with exit code 4 and the command that makes the topic."""
    instance = _answering(harness)
    rejections = harness.topics.rejections
    with admin(harness.settings) as opened:
        done = opened.results(opened.client.delete_topics([rejections]))
    assert done == {rejections: None}
    harness.send(50)
    harness.send_raw([b"no request"])
    _assert_missed(harness, instance)
    _assert_missed(harness, harness.start())
    create_topics(harness.settings, harness.model)
    harness.start()
    assert len(harness.forecasts(50)) == 50
    [rejected] = harness.rejections(1)
    assert rejected.value == b"no request"
    _assert_clean(harness)


def _assert_missed(harness: Harness, instance: Instance) -> None:
    """It ends and names the topic of rejections, and what makes it."""
    assert instance.wait_for_exit() == 4
    assert harness.topics.rejections in instance.text
    assert f"modelwire topics create {harness.model}" in instance.text
    assert "Traceback" not in instance.text


@pytest.fixture(scope="module")
def guarding(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The state folder of a broker that looks at permissions; what none is about is allowed."""
    ours = broker.server_properties

    def with_authorizer(*ports: int, data: str = "data") -> str:
        return ours(*ports, data=data) + "".join(f"{k}={v}\n" for k, v in OF_ITS_OWN.items())

    state_dir = tmp_path_factory.mktemp("guarded") / "stack"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(broker, "server_properties", with_authorizer)
        Stack.up(state_dir, quiet=True)
    yield state_dir
    Stack.down(state_dir)


@pytest.fixture
def guarded(guarding: Path, tmp_path: Path, model: str) -> Iterator[Harness]:
    """A model on that broker."""
    settings = load_settings(state_dir=guarding, store_url=(tmp_path / "store").as_uri())
    harness = Harness(settings, environment_of(settings), model, tmp_path)
    yield harness
    harness.close()


def test_a_session_that_the_broker_does_not_take_is_said_so(guarded: Harness) -> None:
    """Below the broker's own minimum nobody joins: it ends with the names of the settings."""
    guarded.release(store_bundle(guarded.store, guarded.model, 1.0))
    instance = guarded.start(CONSUMER__SESSION_TIMEOUT_MS="1000")
    assert instance.wait_for_exit() == 1
    assert "does not take a session of 1000 ms" in instance.text
    assert "group.min.session.timeout.ms" in instance.text


def _forbid(opened: Admin, kind: ResourceType, name: str, operation: AclOperation) -> None:
    """Deny everybody this operation on the resource, and no other.

    A resource that any rule is about is closed but for what a rule allows.
    """
    rules = [
        AclBinding(kind, name, ResourcePatternType.LITERAL, "User:*", "*", what, verdict)
        for what, verdict in (
            (AclOperation.ALL, AclPermissionType.ALLOW),
            (operation, AclPermissionType.DENY),
        )
    ]
    assert set(opened.results(opened.client.create_acls(rules)).values()) == {None}


def _allow_all(opened: Admin) -> None:
    """Take every rule back."""
    everything = AclBindingFilter(
        ResourceType.ANY,
        None,
        ResourcePatternType.ANY,
        None,
        None,
        AclOperation.ANY,
        AclPermissionType.ANY,
    )
    with suppress(KafkaException):
        opened.results(opened.client.delete_acls([everything]))


def test_a_permission_that_is_lacking_ends_the_process_until_it_is_given(guarded: Harness) -> None:
    """Taken under way or lacking at the start: it says what is lacking; once given, all is answered."""
    instance = _answering(guarded)
    group, topics = group_of(guarded.model), guarded.topics
    sent = rejected = 0
    with admin(guarded.settings) as opened:
        for kind, name, operation in (
            (ResourceType.TOPIC, topics.requests, AclOperation.READ),
            (ResourceType.TOPIC, topics.results, AclOperation.WRITE),
            (ResourceType.TOPIC, topics.rejections, AclOperation.WRITE),
            (ResourceType.GROUP, group, AclOperation.READ),
            (ResourceType.TRANSACTIONAL_ID, f"{group}-0", AclOperation.WRITE),
        ):
            _forbid(opened, kind, name, operation)
            if name == topics.rejections:
                guarded.send_raw([b"no request"])
                rejected += 1
            else:
                guarded.send(20)
                sent += 20
            _assert_not_permitted(instance)
            if kind is not ResourceType.GROUP:  # which is asked for later than the others
                _assert_not_permitted(guarded.start())
            _allow_all(opened)
            instance = guarded.start()
            guarded.forecasts(sent)
            guarded.rejections(rejected)
    assert instance.terminate() == 0
    _assert_clean(guarded)


def _assert_not_permitted(instance: Instance) -> None:
    """It ends with the sentence about permissions."""
    assert instance.wait_for_exit() == 1
    assert "does not allow this user to" in instance.text
    assert "ask for the permission (ACL)" in instance.text
    assert "Traceback" not in instance.text
