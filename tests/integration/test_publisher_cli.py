"""The publisher's commands as a person or a script calls them: what they print, and how they exit."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from confluent_kafka import Producer

from adapters.control_log import read_log
from adapters.kafka import client_config, topic_names
from tests.bundles import store_bundle, store_corrupt_bundle
from tests.conftest import RunningStack
from tests.fleet import LIMIT_SECONDS
from tests.shop import Shop

pytestmark = pytest.mark.stack


@pytest.fixture
def shop(stack: RunningStack, model: str) -> Shop:
    return Shop.open(stack, model)


def test_a_model_is_released_switched_undone_and_revoked(shop: Shop) -> None:
    """The whole life of two versions, in the words that the commands print."""
    model = shop.model
    first, second = (store_bundle(shop.store, model, slope) for slope in (1.0, 2.0))

    assert shop.ok("release", "publish", first, "--start", "blue-green") == (
        f"{model}:1 released (revision 1), champion since revision 3\n"
    )
    assert shop.ok("release", "publish", second[7:20], "--reason", "better") == (
        f"{model}:2 released (revision 4)\n"
    )
    start = ("rollout", "start", f"{model}:2", "--strategy", "blue-green", "--min-ready", "0")
    assert shop.ok(*start) == (f"{model}:2 rolled out (revision 5), champion since revision 6\n")
    assert shop.ok("rollout", "undo", model, "--actor", "eve", "--reason", "worse") == (
        f"{model}:1 champion again since revision 7, in place of {model}:2\n"
    )
    undone = json.loads(shop.ok("rollout", "undo", model, "--to", "2", "-o", "json"))
    assert (undone["version"], undone["revision"]) == (2, 8)
    assert [each["type"] for each in undone["events"]] == ["io.modelwire.model.restored.v1"]
    assert shop.ok("release", "revoke", f"{model}:2") == (
        f"{model}:1 champion again since revision 9, in place of {model}:2, "
        f"{model}:2 revoked (revision 10)\n"
    )

    history = shop.ok("rollout", "history", model)
    assert len(history.splitlines()) == 1 + 10
    assert re.search(rf"7 .*eve +restored {model}:1 in place of {model}:2 +worse", history)
    listed = json.loads(shop.ok("release", "list", model, "-o", "json"))
    assert [(r["version"], r["standing"], r["role"]) for r in listed["releases"]] == [
        (1, "released", "champion"),
        (2, "revoked", None),
    ]
    shown = shop.ok("release", "show", f"{model}:1")
    assert first in shown
    assert "2000-01-01 … 2099-12-31" in shown
    manifest = json.loads(shop.ok("release", "show", f"{model}:2", "-o", "json"))["manifest"]
    assert manifest["model"] == model


def test_one_command_releases_and_starts_in_one_transaction(shop: Shop) -> None:
    """All events of the first champion's `release publish --start` have the same command id."""
    digest = store_bundle(shop.store, shop.model, 1.0)
    uri = f"{shop.store.url}/bundles/{digest.removeprefix('sha256:')}"
    printed = json.loads(shop.ok("release", "publish", uri, "--start", "blue-green", "-o", "json"))
    events = read_log(shop.settings, shop.model).events
    assert [each.event.commandid for each in events] == [printed["commandid"]] * 3
    assert (printed["version"], printed["digest"], printed["revision"]) == (1, digest, 3)
    assert printed["seconds"] > 0


def test_topics_create_can_be_repeated(shop: Shop) -> None:
    """The second run says that all exist."""
    said = shop.ok("topics", "create", shop.model).splitlines()
    assert len(said) == 7
    assert all(line.endswith(" exists") for line in said)


def test_status_without_instances_says_how_to_start_one(shop: Shop) -> None:
    """Before anything runs, the status is an answer and not an error."""
    assert f"modelwire consume --model {shop.model}" in shop.ok("rollout", "status", shop.model)
    status = json.loads(shop.ok("rollout", "status", shop.model, "-o", "json"))
    assert (status["champion"], status["revision"], status["instances"]) == (None, 0, [])


def test_a_watched_status_prints_a_line_for_each_change(shop: Shop) -> None:
    """Away from a terminal -w prints when something changed, and an interrupt ends it with 130."""
    digest = store_bundle(shop.store, shop.model, 1.0)
    watching = subprocess.Popen(
        [sys.executable, "-m", "modelwire", "rollout", "status", shop.model, "-w"],
        env=shop.stack.environment(shop.model) | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert watching.stdout is not None
        assert "revision 0: no champion yet" in watching.stdout.readline()
        shop.ok("release", "publish", digest, "--start", "blue-green")
        assert f"revision 3: champion {shop.model}:1" in watching.stdout.readline()
        watching.send_signal(signal.SIGINT)
        _, err = watching.communicate(timeout=LIMIT_SECONDS)
        assert watching.returncode == 130
        assert "Traceback" not in err
    finally:
        watching.kill()
        watching.wait()


@pytest.mark.parametrize("output", ["json", "yaml"])
def test_a_watched_status_for_programs_is_an_object_each_second(shop: Shop, output: str) -> None:
    """JSON is an object a line; YAML has documents that begin with ---."""
    watching = subprocess.Popen(
        [sys.executable, "-m", "modelwire", "rollout", "status", shop.model, "-w", "-o", output],
        env=shop.stack.environment(shop.model) | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert watching.stdout is not None
        lines = [watching.stdout.readline()]
        begins = "{" if output == "json" else "---"
        while sum(line.startswith(begins) for line in lines) < 3:
            lines.append(watching.stdout.readline())
    finally:
        watching.kill()
        watching.wait()
    whole = "".join(lines[:-1])
    read = (
        [json.loads(line) for line in whole.splitlines()]
        if output == "json"
        else list(yaml.safe_load_all(whole))
    )
    assert [(each["model"], each["revision"]) for each in read] == [(shop.model, 0)] * 2


def test_every_answer_for_programs_is_there_in_yaml(shop: Shop) -> None:
    """YAML says what JSON says, for what is asked and for what is done."""
    digest = store_bundle(shop.store, shop.model, 1.0)
    done = yaml.safe_load(
        shop.ok("release", "publish", digest, "--start", "blue-green", "-o", "yaml")
    )
    assert (done["version"], done["digest"], done["revision"]) == (1, digest, 3)
    for arguments in (
        ("release", "list", shop.model),
        ("release", "show", f"{shop.model}:1"),
        ("rollout", "history", shop.model),
        ("rollout", "history", shop.model, "--at", "2"),
        ("topics", "create", shop.model),
    ):
        as_yaml = yaml.safe_load(shop.ok(*arguments, "-o", "yaml"))
        assert as_yaml == json.loads(shop.ok(*arguments, "-o", "json"))


def test_the_past_is_shown_by_revision_and_by_time(shop: Shop) -> None:
    """Status, history and the list of releases as they were; the fleet's past is not kept."""
    model = shop.model
    first, second = (store_bundle(shop.store, model, slope) for slope in (1.0, 2.0))
    shop.ok("release", "publish", first, "--start", "blue-green")
    shop.ok("release", "publish", second, "--start", "blue-green", "--min-ready", "0")
    moment = read_log(shop.settings, model).events[2].event.time.isoformat()
    for at in ("3", moment):
        past = json.loads(shop.ok("rollout", "status", model, "--at", at, "-o", "json"))
        assert (past["revision"], past["champion"], past["previous"]) == (3, 1, None)
        assert (past["is_past"], past["phase"], past["instances"]) == (True, None, [])
        history = json.loads(shop.ok("rollout", "history", model, "--at", at, "-o", "json"))
        assert len(history["events"]) == 3
        listed = json.loads(shop.ok("release", "list", model, "--at", at, "-o", "json"))
        assert [each["version"] for each in listed["releases"]] == [1]
    shown = shop.ok("rollout", "status", model, "--at", "3")
    assert "the past of the fleet is not kept" in shown
    now = json.loads(shop.ok("rollout", "status", model, "-o", "json"))
    assert (now["is_past"], now["champion"], now["phase"]) == (False, 2, "Degraded")


@pytest.mark.parametrize(
    ("at", "code", "says"),
    [
        ("9", 4, "has no revision 9"),
        ("0", 4, "has no revision 0"),
        ("2001-01-01", 4, "has no event up to 2001-01-01 00:00:00Z"),
        ("yesterday", 2, "'yesterday' is not a moment"),
        ("2999-01-01", 2, "2999-01-01 is still to come"),
    ],
)
def test_a_moment_that_cannot_be_shown_is_told(shop: Shop, at: str, code: int, says: str) -> None:
    """No such moment is a usage problem; one that the log does not know is not found."""
    shop.ok("release", "publish", store_bundle(shop.store, shop.model, 1.0))
    assert says in shop.fails(code, "rollout", "status", shop.model, "--at", at)


def test_the_past_cannot_be_watched(shop: Shop) -> None:
    """It does not change."""
    shop.fails(2, "rollout", "status", shop.model, "-w", "--at", "1")


def test_a_refusal_prints_its_code_and_exits_with_3(shop: Shop) -> None:
    """The stable code in brackets, the sentence, and the remedy as the next thing to try."""
    digest = store_bundle(shop.store, shop.model, 1.0)
    shop.ok("release", "publish", digest, "--start", "blue-green")
    said = shop.fails(3, "release", "publish", digest)
    assert f"error: [already-released] this bundle is released already as {shop.model}:1" in said
    assert "modelwire rollout start" in said
    assert "[no-previous]" in shop.fails(3, "rollout", "undo", shop.model)
    assert "[in-service]" in shop.fails(3, "release", "retire", f"{shop.model}:1")
    assert "[no-previous]" in shop.fails(3, "release", "revoke", f"{shop.model}:1")
    assert "[already-champion]" in shop.fails(
        3, "rollout", "start", f"{shop.model}:1", "--strategy", "blue-green"
    )
    assert shop.revision == 3


def test_an_unknown_model_is_not_found(shop: Shop) -> None:
    """Each command that names a model without topics exits with 4 and says how to make them."""
    digest = store_bundle(shop.store, "no-such-model", 1.0)
    for arguments in (
        ("release", "list", "no-such-model"),
        ("release", "publish", digest),
        ("rollout", "status", "no-such-model"),
        ("rollout", "undo", "no-such-model"),
    ):
        said = shop.fails(4, *arguments)
        assert "there is no model 'no-such-model'" in said
        assert "modelwire topics create no-such-model" in said


def test_an_unknown_version_is_not_found(shop: Shop) -> None:
    """Each command that names a version that was never released exits with 4."""
    shop.ok("release", "publish", store_bundle(shop.store, shop.model, 1.0))
    unknown = f"{shop.model}:9"
    for arguments in (
        ("release", "show", unknown),
        ("release", "revoke", unknown),
        ("release", "retire", unknown),
        ("rollout", "start", unknown, "--strategy", "blue-green"),
    ):
        assert f"{unknown} was never released" in shop.fails(4, *arguments)
    assert shop.revision == 1


def test_an_unknown_bundle_is_not_found(shop: Shop) -> None:
    """A digest that is not in the store exits with 4 and names the store."""
    for name in (f"sha256:{'0' * 64}", "0" * 6):
        assert shop.store.url in shop.fails(4, "release", "publish", name)


def test_a_corrupt_bundle_is_not_released(shop: Shop) -> None:
    """One flipped bit in the model: the file, both digests, exit 1, and an empty log."""
    digest = store_corrupt_bundle(shop.store, shop.model, 1.0)
    said = shop.fails(1, "release", "publish", digest, "--start", "blue-green")
    assert f"bundle {digest}" in said
    assert "is damaged: model.onnx: expected sha256:" in said
    assert shop.revision == 0


def test_a_bundle_of_another_model_is_turned_down(shop: Shop) -> None:
    """--model is a promise about the bundle, not a way to rename it."""
    digest = store_bundle(shop.store, shop.model, 1.0)
    assert "not of wine" in shop.fails(2, "release", "publish", digest, "--model", "wine")
    assert shop.revision == 0


def test_a_bucket_that_is_not_there_is_named(shop: Shop) -> None:
    """The message names the bucket; exit 1."""
    said = shop.fails(
        1, "release", "publish", f"sha256:{'0' * 64}", "--store", "s3://no-such-bucket"
    )
    assert "no-such-bucket" in said


def test_wrong_credentials_are_told(shop: Shop) -> None:
    """The server's refusal is translated, without the secret in it."""
    digest = store_bundle(shop.store, shop.model, 1.0)
    said = shop.fails(1, "release", "publish", digest, S3__SECRET_KEY="not-the-secret")
    assert "does not accept the access key or its secret" in said
    assert "not-the-secret" not in said


def test_no_broker_is_told_with_the_addresses_that_were_tried(shop: Shop) -> None:
    """Exit 1 within seconds; nothing of librdkafka's own lines."""
    said = shop.fails(1, "release", "list", shop.model, "--bootstrap-servers", "127.0.0.1:1")
    assert "no Kafka broker answered" in said
    assert "127.0.0.1:1" in said
    assert "rdkafka" not in said


def test_no_stack_and_no_address_is_a_usage_problem(shop: Shop, tmp_path: Path) -> None:
    """Where nothing says which broker, the way to start one is the next thing to try."""
    assert "modelwire up" in shop.fails(2, "release", "list", "sales", STATE_DIR=str(tmp_path))


def test_a_topic_with_wrong_settings_is_a_conflict(shop: Shop) -> None:
    """Settings that ask for another shape than exists exit with 5 and name topic and setting."""
    said = shop.fails(5, "topics", "create", shop.model, TOPICS__PARTITIONS="4")
    assert f"the topic {shop.model}.requests has partitions 8, wanted 4" in said


@pytest.mark.parametrize(
    "arguments",
    [
        ("release", "show", "sales"),
        ("release", "list", "Not_A_Name"),
        ("release", "publish", "xyz"),
        ("rollout", "undo", "sales", "--to", "wine:2"),
        ("release", "publish", "abcdef", "--min-ready", "90%"),
        ("release", "publish", "abcdef", "--wait", "5"),
        ("release", "publish", "abcdef", "--start", "canary", "--share", "5%"),
        ("rollout", "undo", "sales", "--min-ready", "50%"),
        ("rollout", "start", "sales:1", "--wait", "5"),
        ("rollout", "start", "sales:1", "--strategy", "canary", "--run"),
    ],
)
def test_what_means_nothing_is_a_usage_problem(shop: Shop, arguments: tuple[str, ...]) -> None:
    """A name that is none, an option that would do nothing: exit 2, before anybody is asked."""
    shop.fails(2, *arguments, KAFKA__BOOTSTRAP_SERVERS="127.0.0.1:1")


@pytest.mark.parametrize("option", ["--reason", "--actor"])
def test_bytes_that_are_no_text_do_not_get_into_the_log(shop: Shop, option: str) -> None:
    """Exit 2 with the option's name and the byte, and no traceback."""
    said = shop.fails(2, "rollout", "undo", shop.model, option, os.fsdecode(b"a\xffb"))
    assert f"{option} is not text in UTF-8: 'a\\udcffb'" in said
    actor = shop.fails(2, "rollout", "undo", shop.model, ACTOR=os.fsdecode(b"\xff"))
    assert "UTF-8" in actor or "actor" in actor


def test_a_refusal_for_programs_is_an_object_on_stderr(shop: Shop) -> None:
    """Code, sentence and remedy apart; stdout stays empty, and the exit code the same."""
    shop.ok(
        "release", "publish", store_bundle(shop.store, shop.model, 1.0), "--start", "blue-green"
    )
    for output, read in (("json", json.loads), ("yaml", yaml.safe_load)):
        ran = shop.run("rollout", "undo", shop.model, "-o", output)
        assert (ran.code, ran.out) == (3, "")
        said = read(ran.err)
        assert (said["code"], said["exit_code"], said["instances"]) == ("no-previous", 3, [])
        assert said["error"].startswith(f"{shop.model} has no previous")
        assert "--to VERSION" in said["hint"]
    wrong = shop.run("rollout", "undo", shop.model, "--actor", os.fsdecode(b"\xff"), "-o", "json")
    assert (wrong.code, json.loads(wrong.err)["exit_code"]) == (2, 2)


def test_a_shadow_is_named_by_its_version_only(shop: Shop) -> None:
    """A model's name means the rollout that moves traffic; the message says what runs."""
    model = shop.model
    shop.ok("release", "publish", store_bundle(shop.store, model, 1.0), "--start", "blue-green")
    shop.ok("release", "publish", store_bundle(shop.store, model, 2.0))
    started = shop.ok("rollout", "start", f"{model}:2", "--strategy", "shadow", "--share", "0")
    assert started == f"{model}:2 shadows 0 % of the requests (rollout 5)\n"
    for command in (("set", "shadow", model, "10%"), ("pause", model), ("abort", model)):
        said = shop.fails(4, "rollout", *command)
        assert f"no rollout of {model} moves traffic" in said
        assert f"{model}:2 (shadow, revision 5)" in said
    assert shop.revision == 6
    shop.ok("rollout", "set", "shadow", f"{model}:2", "10%")
    shop.fails(4, "rollout", "abort", f"{model}:2", "--rollout", "4")
    shop.ok("rollout", "abort", f"{model}:2", "--rollout", "5")


def test_a_plan_that_is_not_carried_out_says_how(shop: Shop) -> None:
    """Without --run a plan moves nothing; a reason for `run` would be nobody's."""
    model = shop.model
    Path("plan.toml").write_text("steps = [{weight = 100}]")
    shop.ok("release", "publish", store_bundle(shop.store, model, 1.0), "--start", "blue-green")
    second = store_bundle(shop.store, model, 2.0)
    how = f"to carry its plan out: modelwire rollout run {model}\n"
    shop.ok("release", "publish", second, "--plan", "plan.toml", says=how)
    shop.ok("rollout", "abort", model)
    shop.ok("rollout", "start", f"{model}:2", "--plan", "plan.toml", says=how)
    ran = shop.run("rollout", "run", model, "--reason", "why")
    assert (ran.code, ran.out) == (2, "")
    assert "--reason" in ran.err


def test_a_record_that_is_no_event_is_warned_of(shop: Shop) -> None:
    """The warning goes to stderr with its offset; the answer on stdout is whole JSON."""
    shop.ok("release", "publish", store_bundle(shop.store, shop.model, 1.0))
    producer = Producer(client_config(shop.settings))
    producer.produce(topic_names(shop.settings, shop.model).control, b"garbage", partition=0)
    assert producer.flush(LIMIT_SECONDS) == 0
    ran = shop.run("rollout", "history", shop.model, "-o", "json")
    assert ran.code == 0
    assert len(json.loads(ran.out)["events"]) == 1
    assert "control_log.not_an_event" in ran.err
    assert f"{shop.model}.control" in ran.err
