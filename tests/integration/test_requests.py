"""``modelwire request`` on a real broker: what it writes, and how it finds its answer."""

import json
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import msgspec
import pandas as pd
import pytest
from click.testing import CliRunner
from confluent_kafka import Consumer, Message, Producer, TopicPartition

from adapters.bundles import write_bundle
from adapters.control_append import append
from adapters.kafka import topic_names
from adapters.object_store import open_store
from adapters.settings import Settings
from adapters.topics import create_topics
from deployment.commands import Release, Strategy
from modelwire.replay import utc_now
from modelwire.requests import request
from schemas.codec import compile_inputs
from schemas.contract import Binding, Contract, Field, FieldType, Output, TensorType
from schemas.errors import ModelwireError, NotFound, TimedOut, UsageProblem
from schemas.forecast import Forecast, Source, Variant, encode_forecast
from schemas.manifest import File, Graph, Manifest, Tolerance, digest_of
from schemas.rejection import Rejection, rejection_headers
from schemas.request import decode_request
from tests.conftest import RunningStack
from tests.fleet import LIMIT_SECONDS

pytestmark = pytest.mark.stack

DAYS = ("2011-12-01", "2011-12-02")
SHOPS = tuple(f"shop {number}" for number in range(20))

CONTRACT = Contract(
    fields=(
        Field(
            name="shop",
            type=FieldType.STRING,
            binding=Binding(tensor="shop", dtype=TensorType.STRING),
            description="Name of the shop",
        ),
        Field(
            name="day",
            type=FieldType.DATE,
            binding=Binding(tensor="day", dtype=TensorType.INT64),
            description="Day to forecast",
        ),
    ),
    outputs=(Output(name="sales", tensor="sales", type=FieldType.FLOAT32, description="Sales"),),
)


@pytest.fixture
def settings(stack: RunningStack, model: str, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings of this test's own model, in the environment too; its topics exist."""
    for name, value in stack.environment(model).items():
        if name.startswith("MODELWIRE_"):
            monkeypatch.setenv(name, value)
    found = stack.settings(model)
    create_topics(found, model)
    return found


@pytest.fixture
def released(settings: Settings, model: str) -> Settings:
    """The same, with a bundle as the champion. Its graph is no model: nobody runs it here."""
    holdout = BytesIO()
    pd.DataFrame(
        [
            {"shop": shop, "day": datetime.fromisoformat(day).date(), "actual": 1.0}
            for day in DAYS
            for shop in SHOPS
        ]
    ).to_parquet(holdout)
    files = {"model.onnx": b"-", "golden.jsonl": b"-", "holdout.parquet": holdout.getvalue()}
    manifest = Manifest(
        model=model,
        created_at=datetime.now(UTC),
        contract=CONTRACT,
        files={name: File(digest_of(each), len(each)) for name, each in files.items()},
        graph=Graph(ir_version=10, opsets={"": 18}),
        tolerance=Tolerance(absolute=0.0, relative=0.0),
    )
    digest = write_bundle(open_store(settings.store_url, settings.s3_settings), manifest, files)
    command = Release(digest, Strategy.BLUE_GREEN, "salt")
    append(settings, model, command, commandid="c", actor="test", now=utc_now)
    return settings


def run(*arguments: str, stdin: bytes = b"") -> tuple[int, str]:
    """Run ``modelwire request``; gives the exit code and stdout."""
    result = CliRunner().invoke(request, arguments, input=stdin, standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return int(result.return_value or 0), result.stdout


def records(settings: Settings, topic: str, partitions: int, count: int) -> list[Message]:
    """The first ``count`` records of a topic."""
    consumer = Consumer(
        {
            "bootstrap.servers": settings.kafka.bootstrap_servers,
            "group.id": "test",
            "enable.auto.commit": False,
        }
    )
    found: list[Message] = []
    deadline = time.monotonic() + LIMIT_SECONDS
    try:
        consumer.assign([TopicPartition(topic, number, 0) for number in range(partitions)])
        while len(found) < count:
            assert time.monotonic() < deadline, f"{len(found)} of {count} records in {topic}"
            found += [each for each in consumer.consume(500, 0.2) if each.error() is None]
    finally:
        consumer.close()
    return found


def test_generate_replays_the_held_out_days(released: Settings, model: str) -> None:
    """More requests than rows: each is acknowledged, well-formed, and has an id of its own."""
    code, said = run("generate", model, "--rate", "2000", "--count", "100", "-o", "json")
    report = json.loads(said)
    assert (code, report["sent"], report["acknowledged"]) == (0, 100, 100)
    topics = topic_names(released, model)
    found = records(released, topics.requests, released.topics.partitions, 100)
    decode = compile_inputs(CONTRACT)
    asked = [decode_request(each.value(), 65_536) for each in found]
    rows = [decode(bytes(each.inputs)) for each in asked]
    assert len({each.request_id for each in asked}) == 100
    assert all(each.requested_at is not None for each in asked)
    assert {(row.shop, row.day.isoformat()) for row in rows} == {
        (s, d) for s in SHOPS for d in DAYS
    }
    places = defaultdict(set)
    for each, row in zip(found, rows, strict=True):
        assert each.key() == row.shop.encode()
        places[row.shop].add(each.partition())
    assert {len(partitions) for partitions in places.values()} == {1}


def test_generate_keeps_the_rate(released: Settings, model: str) -> None:
    """200 requests at 100 a second take two seconds at least; on a busy machine some more."""
    _, said = run("generate", model, "--rate", "100", "--count", "200", "-o", "json")
    assert json.loads(said)["seconds"] > 1.9


def test_two_runs_never_share_an_id(released: Settings, model: str) -> None:
    """The seed decides the order of the rows, not the ids."""
    for _ in range(2):
        run("generate", model, "--rate", "1000", "--count", "20", "--seed", "1")
    topics = topic_names(released, model)
    found = records(released, topics.requests, released.topics.partitions, 40)
    assert len({decode_request(each.value(), 65_536).request_id for each in found}) == 40


def test_send_says_where_the_request_lies(released: Settings, model: str) -> None:
    """The request is keyed by its series and holds typed inputs."""
    code, said = run("send", model, "--set", "shop=a=b", "--set", f"day={DAYS[0]}", "--id", "mine")
    sent = json.loads(said)
    topics = topic_names(released, model)
    assert (code, sent["request_id"], sent["topic"]) == (0, "mine", topics.requests)
    (found,) = records(released, topics.requests, released.topics.partitions, 1)
    assert (found.partition(), found.offset()) == (sent["partition"], sent["offset"])
    assert found.key() == b"a=b"
    asked = json.loads(found.value() or b"")
    assert asked["inputs"] == {"shop": "a=b", "day": DAYS[0]}


def answering(settings: Settings, model: str, *, rejected: bool) -> None:
    """Answer the first request of a model by hand, after an answer to somebody else's."""
    topics = topic_names(settings, model)
    (asked,) = records(settings, topics.requests, settings.topics.partitions, 1)
    partition, offset = asked.partition(), asked.offset()
    assert partition is not None
    assert offset is not None
    envelope = decode_request(asked.value(), 65_536)
    producer = Producer({"bootstrap.servers": settings.kafka.bootstrap_servers})
    for name, place in (("another", offset + 1), (envelope.request_id, offset)):
        source = Source(topics.requests, partition, place, 0)
        if rejected:
            said = Rejection(
                reason="wrong-type",
                detail=f"about {name}",
                model=model,
                version=1,
                variant="champion",
                digest="",
                revision=3,
                source=source,
                instance="by hand",
            )
            producer.produce(
                topics.rejections, asked.value(), asked.key(), headers=rejection_headers(said)
            )
        else:
            forecast = Forecast(
                request_id=name,
                inputs=envelope.inputs,
                outputs={"sales": 1.5},
                model=model,
                version=1,
                digest="",
                variant=Variant.CHAMPION,
                revision=3,
                source=source,
                scored_at=datetime.now(UTC),
                instance="by hand",
            )
            producer.produce(topics.results, encode_forecast(forecast), partition=partition)
    assert producer.flush(LIMIT_SECONDS) == 0


@contextmanager
def answered(settings: Settings, model: str, *, rejected: bool) -> Iterator[None]:
    """Somebody answers the model's first request meanwhile."""
    other = threading.Thread(
        target=answering, args=(settings, model), kwargs={"rejected": rejected}
    )
    other.start()
    yield
    other.join()


def test_send_waits_for_its_forecast(released: Settings, model: str) -> None:
    """The answer to this very request is printed, not the one that came before it."""
    with answered(released, model, rejected=False):
        code, said = run("send", model, "--set", "shop=a", "--set", "day=2011-12-01", "--wait")
    answer = msgspec.json.decode(said, type=Forecast)
    assert code == 0
    assert answer.request_id != "another"
    assert json.loads(bytes(answer.inputs)) == {"shop": "a", "day": "2011-12-01"}


def test_send_waits_for_its_rejection(released: Settings, model: str, tmp_path: Path) -> None:
    """A request from a file that does not fit the contract is sent all the same, and rejected."""
    file = tmp_path / "inputs.json"
    file.write_text('{"shop": 5}')
    with answered(released, model, rejected=True):
        code, said = run("send", model, "--file", str(file), "--id", "x", "--wait")
    assert code == 3
    assert json.loads(said)["detail"] == "about x"


def test_send_gives_up_in_time(settings: Settings, model: str) -> None:
    """With nobody to answer, the wait ends when its caller wants it to; with a key of its own, a file
    needs no release."""
    with pytest.raises(TimedOut, match=rf"{model}\.requests.* in 0\.5 s"):
        run("send", model, "--file", "-", "--key", "k", "--wait", "--timeout", "0.5", stdin=b"{}")


def test_mistakes_are_told_before_anything_is_sent(released: Settings, model: str) -> None:
    """An unknown model, an unknown field, inputs that are no JSON, both sources at once."""
    for wrong, arguments in (
        (NotFound, ["send", "nobody", "--set", "a=1"]),
        (NotFound, ["generate", "nobody", "--rate", "1", "--count", "1"]),
        (UsageProblem, ["send", model, "--set", "colour=red"]),
        (UsageProblem, ["send", model, "--set", "shop"]),
        (UsageProblem, ["send", model]),
        (UsageProblem, ["send", model, "--set", "shop=a", "--file", "-"]),
        (UsageProblem, ["send", model, "--file", "-"]),
    ):
        with pytest.raises(wrong):
            run(*arguments, stdin=b"{")


@pytest.mark.parametrize(
    ("arguments", "said", "next_"),
    [
        (["--set", "day=2011-12-01", "--set", "day=2011-12-02"], "day was given twice", "once"),
        (["--set", "day=a", "--set", "day=a"], "day was given twice", "once"),
        (["--set", "shop=a", "--set", "day=notadate"], "is not a date", "YYYY-MM-DD"),
        (["--set", "shop=a"], "not given: day", "YYYY-MM-DD"),
        (["--file", "-"], "not JSON", "one JSON object"),
        (["--file", "-", "--key", "k"], "not JSON", "one JSON object"),
        ([], "no inputs were given", "--set FIELD=VALUE"),
        (["--set", "shop=a", "--file", "-"], "both given", "one of the two"),
    ],
)
def test_a_mistake_says_what_to_do_next(
    released: Settings, model: str, arguments: list[str], said: str, next_: str
) -> None:
    """Whoever has never sent a request learns how from the error."""
    with pytest.raises(UsageProblem, match=said) as caught:
        run("send", model, *arguments, stdin=b"no JSON")
    assert next_ in caught.value.hint


def test_nothing_released_is_said(settings: Settings, model: str) -> None:
    """Without a release there is no contract to type the inputs by, and nothing to replay."""
    with pytest.raises(NotFound, match="no released version"):
        run("send", model, "--set", "a=1")
    with pytest.raises(NotFound, match="no released version"):
        run("generate", model, "--rate", "1", "--count", "1")


def test_a_broker_that_is_not_there_is_said(
    settings: Settings, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No hang and no traceback."""
    monkeypatch.setenv("MODELWIRE_KAFKA__BOOTSTRAP_SERVERS", "127.0.0.1:1")
    with pytest.raises(ModelwireError, match=r"127\.0\.0\.1:1"):
        run("generate", model, "--rate", "1", "--count", "1")
