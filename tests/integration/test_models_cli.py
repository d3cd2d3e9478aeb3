"""``modelwire models``: many models on one cluster, one of them with a real consumer."""

import json
import subprocess
import sys
from typing import Any

import pytest
import yaml
from confluent_kafka import Producer
from confluent_kafka.admin import NewTopic  # type: ignore[attr-defined]  # its stubs do not export it

from adapters.kafka import admin, client_config
from adapters.topics import create_topics
from deployment.commands import Start, Strategy
from tests.bundles import store_bundle
from tests.fleet import LIMIT_SECONDS, Harness, environment_of, wait_for

pytestmark = pytest.mark.stack


def run(harness: Harness, *arguments: str, **variables: str) -> str:
    """What ``modelwire models`` prints. It must end well and say nothing on stderr."""
    names = {f"MODELWIRE_{name}": value for name, value in variables.items()}
    done = subprocess.run(
        [sys.executable, "-m", "modelwire", "models", *arguments],
        env=environment_of(harness.settings) | names,
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def listed(harness: Harness) -> dict[str, dict[str, Any]]:
    """Every model of the cluster by its name."""
    models = json.loads(run(harness, "-o", "json"))["models"]
    assert [each["model"] for each in models] == sorted(each["model"] for each in models)
    return {each["model"]: each for each in models}


def test_models_are_listed_with_what_they_serve(harness: Harness) -> None:
    """One that answers, one with a candidate that nobody runs, one that is new."""
    idle, new = f"{harness.model}-idle", f"{harness.model}-new"
    for name in (idle, new):
        create_topics(harness.settings, name)
    harness.release(store_bundle(harness.store, harness.model, 1.0))
    harness.start()
    harness.wait_until_ready()
    other = Harness(harness.settings, environment_of(harness.settings), idle, harness.folder)
    other.release(store_bundle(other.store, idle, 1.0))
    other.release(store_bundle(other.store, idle, 2.0), start=False)
    other.command(Start(2, Strategy.CANARY, "salt", "try it"))

    wait_for("a healthy model", lambda: listed(harness)[harness.model]["phase"] == "Healthy")
    models = listed(harness)
    served = models[harness.model]
    assert (served["champion"], served["candidate"], served["alive"]) == (1, None, 1)
    assert served["why"] == f"{harness.model}:1 answers on 1 live instance"
    waiting = models[idle]
    assert (waiting["phase"], waiting["why"]) == ("Degraded", "no instance lives")
    assert (waiting["champion"], waiting["candidate"], waiting["weight"]) == (1, 2, 0)
    assert (waiting["revision"], waiting["versions"], waiting["last_actor"]) == (5, 2, "test")
    assert waiting["last_what"] == f"started a canary rollout of {idle}:2 (asks no instance)"
    assert (models[new]["phase"], models[new]["champion"]) == ("Progressing", None)
    assert all(models[name]["problem"] is None for name in (harness.model, idle, new))

    table = run(harness)
    assert f"{harness.model}: {served['why']}" in table
    assert "✔ Healthy" in table
    assert yaml.safe_load(run(harness, "-o", "yaml"))["models"] == list(listed(harness).values())


def test_a_topic_that_is_no_control_log_is_a_row_and_hides_no_other(harness: Harness) -> None:
    """Another shape, foreign records, and a log without a fleet topic each say what is wrong."""
    wide, foreign, bare = (f"{harness.model}-{what}" for what in ("wide", "foreign", "bare"))
    with admin(harness.settings) as asked:
        topics = [
            NewTopic(f"{name}.control", partitions, 1)
            for name, partitions in ((wide, 3), (foreign, 1), (bare, 1))
        ]
        created = asked.results(asked.client.create_topics(topics))
        assert set(created.values()) == {None}
    producer = Producer(client_config(harness.settings))
    for _ in range(3):
        producer.produce(f"{foreign}.control", b"a bill", partition=0)
    assert producer.flush(LIMIT_SECONDS) == 0

    models = listed(harness)
    assert "has 3 partitions; a control log has 1" in models[wide]["problem"]
    assert models[foreign]["problem"] == "none of its 3 records is a control event"
    assert f"{bare}.fleet" in models[bare]["problem"]
    assert (models[bare]["revision"], models[bare]["phase"]) == (0, None)
    assert models[harness.model]["problem"] is None
    assert "none of its 3 records is a control event" in run(harness)


def test_without_a_model_the_list_says_how_to_make_one(harness: Harness) -> None:
    """The setting's form decides what a model is; nothing has this one."""
    pattern = {"TOPICS__CONTROL": "nobody.{model}.decides"}
    assert "modelwire topics create MODEL" in run(harness, **pattern)
    assert json.loads(run(harness, "-o", "json", **pattern)) == {"models": []}
