"""``modelwire topics grow`` on a real broker: what it says, what it refuses, and who answers on."""

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest
from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    NewPartitions,
)

from adapters.group_offsets import waiting_requests
from adapters.kafka import client_config, require_topics
from adapters.stream_config import group_of
from schemas.forecast import Forecast, decode_forecast
from tests.bundles import store_bundle
from tests.conftest import RunningStack
from tests.fleet import LIMIT_SECONDS, PARTITIONS, Harness, wait_for
from tests.traffic import good_request

pytestmark = pytest.mark.stack

MORE = 2 * PARTITIONS


class Shell:
    """The command line of one model."""

    def __init__(self, stack: RunningStack, harness: Harness) -> None:
        self.harness = harness
        self._environment = stack.environment(
            harness.model, TOPICS__PARTITIONS=str(PARTITIONS), STORE_URL=harness.settings.store_url
        )

    def grow(self, code: int, *arguments: str, model: str = "") -> subprocess.CompletedProcess[str]:
        """``modelwire topics grow``, which must exit with ``code``."""
        given = ("topics", "grow", model or self.harness.model, *arguments)
        done = subprocess.run(
            [sys.executable, "-m", "modelwire", *given],
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=LIMIT_SECONDS,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done

    @property
    def counts(self) -> list[int]:
        """The partitions of requests, results, shadow and actuals."""
        names = self.harness.topics
        growing = [names.requests, names.results, names.shadow, names.actuals]
        found = require_topics(self.harness.settings, growing)
        return [found[name] for name in growing]

    def grow_by_hand(self, topic: str, partitions: int) -> None:
        """What an interrupted run, or somebody with Kafka's own tools, does."""
        admin = AdminClient(client_config(self.harness.settings))
        for future in admin.create_partitions([NewPartitions(topic, partitions)]).values():
            future.result()
        wait_for(
            f"{partitions} partitions of {topic}",
            lambda: require_topics(self.harness.settings, [topic])[topic] == partitions,
        )


@pytest.fixture
def shell(stack: RunningStack, harness: Harness) -> Iterator[Shell]:
    """The command line of the test's model, whose topics have ``PARTITIONS`` partitions."""
    return Shell(stack, harness)


def send_to(harness: Harness, partition: int, count: int) -> None:
    """Good requests for one partition."""
    producer = harness.producer()
    for number in range(count):
        producer.produce(harness.topics.requests, good_request(number, "a"), b"k", partition)
    assert producer.flush(LIMIT_SECONDS) == 0


def answers_in(harness: Harness, partitions: range, count: int) -> list[Forecast]:
    """At least ``count`` committed forecasts of these partitions."""
    consumer = Consumer(
        client_config(
            harness.settings,
            **{"group.id": "test-reader", "enable.auto.commit": False, "log_level": 0},
        )
    )
    consumer.assign([TopicPartition(harness.topics.results, p, 0) for p in partitions])
    found: list[Forecast] = []

    def look() -> bool:
        for message in consumer.consume(1_000, 0.1):
            assert message.error() is None, message.error()
            found.append(decode_forecast(message.value() or b""))
        return len(found) >= count

    try:
        wait_for(f"{count} answers", look)
    except AssertionError as error:
        raise AssertionError("\n".join(each.text for each in harness.instances)) from error
    finally:
        consumer.close()
    return found


def test_without_yes_it_only_explains(shell: Shell) -> None:
    """The model's own numbers are named, nothing is changed, and the exit code is 3."""
    send_to(shell.harness, 1, 5)
    said = shell.grow(3, "--partitions", "6")
    assert "from 4 to 6" in said.stdout
    assert "2/3 (66.7%) of all keys move" in said.stdout
    assert "33.3% from one old partition to another" in said.stdout
    assert "Now 5 wait, by partition: 5 in 1." in said.stdout
    assert "partitions = 6 under [topics]" in said.stdout
    assert f"topics grow {shell.harness.model} --partitions 6 --yes" in said.stderr
    told = json.loads(shell.grow(3, "--partitions", "8", "-o", "json").stdout)
    assert (told["grown"], told["moved"], told["moved_among_old"]) == (False, 0.5, 0.0)
    assert told["waiting"] == {"0": 0, "1": 5, "2": 0, "3": 0}
    assert shell.counts == [PARTITIONS] * 4


def test_it_grows_once(shell: Shell) -> None:
    """With --yes all four topics grow; the same again, or fewer, is a usage problem."""
    assert "grown from 4 to 8" in shell.grow(0, "--partitions", "8", "--yes").stdout
    assert shell.counts == [8] * 4
    assert "has 8 partitions already" in shell.grow(2, "--partitions", "8", "--yes").stderr
    assert "never takes one away" in shell.grow(2, "--partitions", "4", "--yes").stderr
    assert shell.counts == [8] * 4


def test_while_requests_wait_it_is_refused(shell: Shell) -> None:
    """Lag is a refusal unless the giver of the command says otherwise."""
    send_to(shell.harness, 2, 3)
    assert (
        f"3 requests of {shell.harness.model} wait"
        in shell.grow(3, "--partitions", "8", "--yes").stderr
    )
    assert shell.counts == [PARTITIONS] * 4
    shell.grow(0, "--partitions", "8", "--yes", "--despite-lag")
    assert shell.counts == [8] * 4


def test_what_is_no_model_is_not_found(shell: Shell) -> None:
    """A model without topics, and topics that are not a model's, are left alone."""
    assert "there is no model" in shell.grow(4, "--partitions", "8", "--yes", model="nobody").stderr
    shell.grow_by_hand(shell.harness.topics.rejections, 2)
    assert "is no topic of a model" in shell.grow(4, "--partitions", "8", "--yes").stderr
    assert shell.counts == [PARTITIONS] * 4


def test_an_interrupted_growing_is_completed(shell: Shell) -> None:
    """Results and shadow are ahead: a smaller number is refused, the same one completes it."""
    names = shell.harness.topics
    shell.grow_by_hand(names.results, 8)
    shell.grow_by_hand(names.shadow, 8)
    assert "growing to 8 partitions was begun" in shell.grow(2, "--partitions", "6", "--yes").stderr
    assert "An earlier run was interrupted" in shell.grow(3, "--partitions", "8").stdout
    shell.grow(0, "--partitions", "8", "--yes")
    assert shell.counts == [8] * 4


def test_partitions_that_no_growing_leaves_are_a_conflict(shell: Shell) -> None:
    """Requests ahead of their results were grown by somebody else; that is not built upon."""
    shell.grow_by_hand(shell.harness.topics.requests, 6)
    said = shell.grow(5, "--partitions", "8", "--yes").stderr
    assert f"{shell.harness.topics.requests} 6" in said
    assert shell.counts == [6, PARTITIONS, PARTITIONS, PARTITIONS]


def test_running_consumers_take_new_partitions_up(shell: Shell) -> None:
    """Two instances go on under load and answer what lands in the new partitions, once each."""
    harness = shell.harness
    harness.release(store_bundle(harness.store, harness.model, 2.0))
    first, second = harness.start(0), harness.start(1)
    harness.wait_until_ready(2)
    with harness.stream(200):
        wait_for("answers", lambda: sum(each.status.answered for each in harness.fleet()) > 100)
        shell.grow(0, "--partitions", "8", "--yes", "--despite-lag")
        send_to(harness, 5, 50)
        send_to(harness, 7, 50)
        found = answers_in(harness, range(PARTITIONS, MORE), 100)
    assert {forecast.source.partition for forecast in found} >= {5, 7}
    wait_for("every partition owned", lambda: owned(harness) == list(range(MORE)))
    report = harness.verify()
    assert report.clean, report.findings
    assert first.process.poll() is None
    assert second.process.poll() is None


def owned(harness: Harness) -> list[int]:
    """The partitions that live instances announce as theirs."""
    return sorted(p for s in harness.fleet() if s.alive for p in s.status.partitions)


def test_what_came_into_new_partitions_while_nobody_answered_is_answered(shell: Shell) -> None:
    """A group that has offsets reads a partition without answers from its beginning."""
    harness = shell.harness
    harness.release(store_bundle(harness.store, harness.model, 2.0))
    instance = harness.start(CONSUMER__MEMBERSHIP="dynamic")  # which keeps no place when it ends
    harness.wait_until_ready()
    harness.send(20)
    harness.forecasts(20)
    assert instance.terminate() == 0
    wait_for("the group to be empty", lambda: not members(harness))
    shell.grow(0, "--partitions", "8", "--yes")
    send_to(harness, 6, 10)
    harness.start(0, "--from", "latest")  # for what has answers and no offset, which nothing has
    assert len(answers_in(harness, range(PARTITIONS, MORE), 10)) == 10
    report = harness.verify()
    assert report.clean, report.findings


def members(harness: Harness) -> int:
    """How many the group has."""
    admin = AdminClient(client_config(harness.settings))
    group = group_of(harness.model)
    return len(admin.describe_consumer_groups([group])[group].result().members)


def test_a_partition_that_lost_its_offset_is_not_guessed(shell: Shell) -> None:
    """With answers in it, and no offset, the start is refused for that partition alone."""
    harness = shell.harness
    harness.release(store_bundle(harness.store, harness.model, 2.0))
    instance = harness.start(CONSUMER__MEMBERSHIP="dynamic")  # which keeps no place when it ends
    harness.wait_until_ready()
    for partition in (1, 2):
        send_to(harness, partition, 10)
    harness.forecasts(20)
    assert instance.terminate() == 0
    forget_offset(harness, 2)
    refused = harness.start()
    assert refused.wait_for_exit() == 3
    assert f"of the partitions 2 of {harness.topics.requests}" in refused.text
    started = harness.start(0, "--from", "latest")
    started.wait_for_line("group.started")
    send_to(harness, 2, 1)
    harness.forecasts(21)
    assert waiting_requests(harness.settings, harness.model) == dict.fromkeys(range(PARTITIONS), 0)
    assert len(answers_in(harness, range(2, 3), 11)) == 11


def forget_offset(harness: Harness, partition: int) -> None:
    """Delete the group's offsets and put all back but one, as an expiry of that one would leave it."""
    group = group_of(harness.model)
    admin = AdminClient(client_config(harness.settings))
    listed = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)])
    held = listed[group].result().topic_partitions
    kept = [each for each in held if each.partition != partition]

    def look() -> bool:
        try:
            admin.delete_consumer_groups([group])[group].result()
        except Exception:  # noqa: BLE001  (not empty yet)
            return False
        return True

    wait_for("the group to be empty", look)
    request = [ConsumerGroupTopicPartitions(group, kept)]
    admin.alter_consumer_group_offsets(request)[group].result()


def test_a_callers_transaction_is_no_request_that_waits(harness: Harness) -> None:
    """What waits are requests: a commit's or an abort's own mark at the end is none."""
    producer = harness.producer(
        **{"transactional.id": f"{harness.model}-caller", "message.timeout.ms": 30_000}
    )
    producer.init_transactions(30)
    for partition, ending in ((0, producer.commit_transaction), (1, producer.abort_transaction)):
        producer.begin_transaction()
        producer.produce(harness.topics.requests, good_request(1, "a"), b"k", partition)
        assert producer.flush(LIMIT_SECONDS) == 0
        ending(30)
    assert waiting_requests(harness.settings, harness.model) == {0: 2, 1: 0, 2: 0, 3: 0}
