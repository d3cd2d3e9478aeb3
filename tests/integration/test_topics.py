"""A model's topics on a real broker: made once, in the shape that the guarantees rest on."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from adapters.kafka import client_config, require_topics, topic_names
from adapters.settings import Settings, Topics
from adapters.topics import Outcome, answer_limit, create_topics, request_limit
from schemas.errors import Conflict, ModelwireError, NotFound, UsageProblem
from tests.conftest import RunningStack
from tests.fleet import LIMIT_SECONDS

pytestmark = pytest.mark.stack


def make(settings: Settings, name: str, partitions: int, **config: str) -> None:
    """Make a topic by hand; ``config`` has underscores for dots."""
    topic = NewTopic(
        name, partitions, 1, config={key.replace("_", "."): text for key, text in config.items()}
    )
    admin = AdminClient(client_config(settings))
    for future in admin.create_topics([topic]).values():
        future.result()
    while name not in admin.list_topics(timeout=LIMIT_SECONDS).topics:
        pass  # the broker hears of it a moment after the controller


def settings_of(settings: Settings, name: str) -> dict[str, str]:
    """A topic's settings as the broker tells them."""
    resource = ConfigResource(ResourceType.TOPIC, name)
    admin = AdminClient(client_config(settings))
    futures = admin.describe_configs([resource])
    return {key: entry.value for key, entry in futures[resource].result().items()}


def test_all_topics_are_made_once(stack: RunningStack, model: str) -> None:
    """The first call creates seven topics, the second finds them and changes nothing."""
    settings = stack.settings(model)
    first = create_topics(settings, model)
    assert [outcome for _, outcome in first] == [Outcome.CREATED] * 7
    assert create_topics(settings, model) == [(name, Outcome.EXISTS) for name, _ in first]
    names = topic_names(settings, model)
    assert require_topics(settings, [name for name, _ in first]) == {
        names.control: 1,
        names.requests: 8,
        names.results: 8,
        names.shadow: 8,
        names.rejections: 1,
        names.fleet: 1,
        names.actuals: 8,
    }


def test_the_control_log_is_kept_for_ever(stack: RunningStack, model: str) -> None:
    """Neither age nor size ever deletes a decision."""
    settings = stack.settings(model)
    create_topics(settings, model)
    control = settings_of(settings, topic_names(settings, model).control)
    assert control["cleanup.policy"] == "delete"
    assert (control["retention.ms"], control["retention.bytes"]) == ("-1", "-1")


def test_the_fleet_has_the_brokers_time(stack: RunningStack, model: str) -> None:
    """The fleet topic is compacted and stamped by the broker."""
    settings = stack.settings(model)
    create_topics(settings, model)
    fleet = settings_of(settings, topic_names(settings, model).fleet)
    assert set(fleet["cleanup.policy"].split(",")) == {"compact", "delete"}
    assert fleet["message.timestamp.type"] == "LogAppendTime"


def test_an_answer_has_room_for_the_request_that_it_echoes(stack: RunningStack, model: str) -> None:
    """Whatever the requests topic lets in, results and rejections let in with 64 KiB more."""
    topics = Topics(max_request_bytes=4_000_000)
    settings = stack.settings(model, topics=topics)
    create_topics(settings, model)
    names = topic_names(settings, model)
    taken = int(settings_of(settings, names.requests)["max.message.bytes"])
    assert taken == request_limit(settings) > 4_000_000
    for echo in (names.results, names.rejections, names.shadow):
        assert int(settings_of(settings, echo)["max.message.bytes"]) == answer_limit(settings)
    assert answer_limit(settings) - taken == 65_536


@pytest.mark.parametrize(
    ("which", "partitions", "config", "said"),
    [
        ("control", 1, {}, "retention.ms 604800000, wanted at least -1"),
        ("control", 3, {"retention_ms": "-1"}, "partitions 3, wanted 1"),
        (
            "control",
            1,
            {"retention_ms": "-1", "cleanup_policy": "compact"},
            "cleanup.policy compact, wanted delete",
        ),
        (
            "control",
            1,
            {"retention_ms": "-1", "retention_bytes": "1000000"},
            "retention.bytes 1000000, wanted -1",
        ),
        ("requests", 4, {}, "partitions 4, wanted 8"),
        ("results", 8, {}, "message.timestamp.type CreateTime, wanted LogAppendTime"),
        ("results", 8, {"max_message_bytes": "2000"}, "max.message.bytes 2000, wanted at least"),
        ("rejections", 1, {"retention_ms": "60000"}, "retention.ms 60000, wanted at least"),
        (
            "fleet",
            1,
            {"cleanup_policy": "compact,delete", "segment_ms": "300000"},
            "message.timestamp.type CreateTime, wanted LogAppendTime",
        ),
    ],
)
def test_a_topic_with_wrong_settings_is_refused(
    stack: RunningStack,
    model: str,
    which: str,
    partitions: int,
    config: dict[str, str],
    said: str,
) -> None:
    """The refusal names topic, setting, what was found and wanted; nothing is created."""
    settings = stack.settings(model)
    name = getattr(topic_names(settings, model), which)
    make(settings, name, partitions, **config)
    with pytest.raises(Conflict) as refused:
        create_topics(settings, model)
    assert f"the topic {name} has {said}" in refused.value.message
    others = {"control", "requests"} - {which}
    with pytest.raises(NotFound):
        require_topics(settings, [getattr(topic_names(settings, model), o) for o in others])


def test_more_generous_limits_are_accepted(stack: RunningStack, model: str) -> None:
    """A topic that keeps more, or for ever, is as good."""
    settings = stack.settings(model)
    names = topic_names(settings, model)
    make(settings, names.requests, 8, retention_ms="-1")
    generous = {
        "retention_ms": "999999999",
        "max_message_bytes": "9000000",
        "message_timestamp_type": "LogAppendTime",
    }
    make(settings, names.results, 8, **generous)
    outcomes = dict(create_topics(settings, model))
    assert outcomes[names.requests] == outcomes[names.results] == Outcome.EXISTS
    assert outcomes[names.control] == Outcome.CREATED


def test_more_copies_than_brokers_are_refused(stack: RunningStack, model: str) -> None:
    """The message says the setting to change."""
    settings = stack.settings(model, topics=Topics(replication=3))
    with pytest.raises(ModelwireError, match="cannot keep 3 copies") as refused:
        create_topics(settings, model)
    assert "topics.replication" in refused.value.hint


def test_missing_topics_are_all_named(stack: RunningStack, model: str) -> None:
    """require_topics names each missing topic and the command that makes them."""
    with pytest.raises(NotFound, match=f"{model}.a, {model}.b") as missing:
        require_topics(stack.settings(model), [f"{model}.b", f"{model}.a"])
    assert "modelwire topics create" in missing.value.hint


@pytest.mark.parametrize(
    ("kafka", "said"),
    [
        ({"bootstrap_servers": "127.0.0.1:1"}, r"no Kafka broker answered.*tried 127\.0\.0\.1:1"),
        ({"bootstrap_servers": "no-such-host.invalid:9092"}, "host name is not known"),
        ({"properties": {"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "PLAIN",
                         "sasl.username": "u", "sasl.password": "p"}}, "did not let this client in"),
    ],
    ids=["nobody listens", "unknown host", "not let in"],
)  # fmt: skip
def test_a_broker_that_cannot_be_used_is_told_plainly(
    stack: RunningStack,
    model: str,
    kafka: dict[str, object],
    said: str,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Who was tried and why it failed; librdkafka itself writes nothing."""
    monkeypatch.setattr("adapters.topics.ANSWER_LIMIT_SECONDS", 2.0)
    given = {"bootstrap_servers": stack.bootstrap_servers} | kafka
    with pytest.raises(ModelwireError, match=said):
        create_topics(stack.settings(model, kafka=given), model)
    assert capfd.readouterr().err == ""


def test_a_property_that_librdkafka_does_not_know_is_a_usage_problem(
    stack: RunningStack, model: str
) -> None:
    """A misspelt pass-through property is named."""
    settings = stack.settings(model, kafka={"properties": {"sasl.usrname": "x"}})
    with pytest.raises(UsageProblem, match=r"sasl\.usrname"):
        create_topics(settings, model)


def test_of_two_that_create_at_once_one_creates_each_topic(stack: RunningStack, model: str) -> None:
    """The other finds the topic there, checks it, and is content."""
    settings = stack.settings(model)
    with ThreadPoolExecutor(2) as pool:
        runs = list(pool.map(lambda _: dict(create_topics(settings, model)), range(2)))
    for name in runs[0]:
        assert sorted(run[name] for run in runs) == [Outcome.CREATED, Outcome.EXISTS]
