"""Two models on one cluster, one name the beginning of the other: what happens to one stays there."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition

from adapters.control_log import read_log
from adapters.fleet_topic import live_instances
from adapters.kafka import client_config, topic_names
from adapters.settings import Settings, Topics, load_settings
from adapters.stream_config import group_of
from deployment.commands import Abort, Revoke, Start, Strategy
from schemas.errors import UsageProblem
from tests.bundles import store_bundle
from tests.conftest import RunningStack
from tests.fleet import LIMIT_SECONDS, PARTITIONS, Harness, environment_of, wait_for

pytestmark = pytest.mark.stack


@pytest.fixture
def apart(stack: RunningStack, model: str, tmp_path: Path) -> Iterator[tuple[Harness, Harness]]:
    """Models ``m`` and ``m-2`` with one store."""
    settings = load_settings(
        state_dir=stack.info.state_dir, store_url=(tmp_path / "store").as_uri()
    )
    environment = environment_of(settings)
    both = tuple(Harness(settings, environment, name, tmp_path) for name in (model, f"{model}-2"))
    yield both[0], both[1]
    for each in both:
        each.close()


def offsets(harness: Harness) -> list[int]:
    """What the model's group has committed."""
    config = {"group.id": group_of(harness.model), "enable.auto.commit": False}
    consumer = Consumer(client_config(harness.settings, **config))
    asked = [TopicPartition(harness.topics.requests, p) for p in range(PARTITIONS)]
    try:
        return [max(each.offset, 0) for each in consumer.committed(asked, timeout=LIMIT_SECONDS)]
    finally:
        consumer.close()


def test_what_happens_to_one_model_leaves_the_other_alone(apart: tuple[Harness, Harness]) -> None:
    """Slot 2 of m and the group of m-2 share a name; logs, offsets, fleets and answers do not meet."""
    busy, quiet = apart
    for harness, slope in ((busy, 2.0), (quiet, 5.0)):
        harness.release(store_bundle(harness.store, harness.model, slope))
    busy.start(2)
    resting = quiet.start(0)
    busy.wait_until_ready()
    quiet.wait_until_ready()
    for harness in apart:
        harness.send(40)
        harness.forecasts(40)
    wait_for("committed offsets", lambda: sum(offsets(quiet)) == 40)
    before = (read_log(quiet.settings, quiet.model).events, offsets(quiet))
    generations = resting.lines("partitions.assigned")

    second = store_bundle(busy.store, busy.model, 3.0)
    busy.release(second, start=False)
    canary = Start(2, Strategy.CANARY, uuid.uuid4().hex, fleet=live_instances(busy.fleet()))
    started = busy.command(canary)[-1].event.revision
    busy.command(Abort(started))
    last = busy.command(Revoke(2))[-1].event.revision
    busy.wait_for_revision(last)
    busy.send(40)
    answered = busy.forecasts(80)

    assert (read_log(quiet.settings, quiet.model).events, offsets(quiet)) == before
    assert [each.status.instance for each in quiet.fleet()] == [f"modelwire-{quiet.model}-0"]
    assert [each.status.instance for each in busy.fleet()] == [f"modelwire-{busy.model}-2"]
    assert resting.lines("partitions.assigned") == generations
    assert resting.lines("snapshot.applied")[-1]["revision"] == 3
    assert {(each.model, each.source.topic) for each in answered} == {
        (busy.model, busy.topics.requests)
    }
    assert {(each.model, each.revision) for each in quiet.forecasts(40)} == {(quiet.model, 3)}
    for harness in apart:
        report = harness.verify()
        assert report.clean, report.findings


@pytest.mark.parametrize(
    ("patterns", "said"),
    [
        ({"control": "decisions"}, r"topics\.control .* does not hold \{model\}"),
        (
            {"requests": "{model}", "results": "{model}-results"},
            r"topics\.requests .*topics\.results",
        ),
        (
            {"requests": "in-{model}", "results": "{model}-out"},
            r"topics\.requests .*topics\.results",
        ),
        ({"shadow": "{model}.results"}, r"topics\.results .*topics\.shadow"),
    ],
)
def test_patterns_that_could_mix_models_are_refused(patterns: dict[str, str], said: str) -> None:
    """No two models, and no two topics of one, can ever have the same topic."""
    settings = Settings(topics=Topics(**patterns))  # type: ignore[arg-type]
    with pytest.raises(UsageProblem, match=said):
        topic_names(settings, "sales")


@pytest.mark.parametrize("requests", ["acme.{model}.in", "{model}_requests", "in.{model}"])
def test_patterns_that_keep_models_apart_are_taken(requests: str) -> None:
    """Whatever no model's name can hold tells topics apart."""
    settings = Settings(topics=Topics(requests=requests))
    assert topic_names(settings, "sales").requests == requests.replace("{model}", "sales")
