"""The checker reads real topics as a careful consumer would."""

import hashlib
import json
import re
from collections import UserDict
from collections.abc import Callable, KeysView
from concurrent.futures import ThreadPoolExecutor

import pytest
from click.testing import CliRunner
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from modelwire.checker import Kind, StreamUnreadable, Tally, Topics, check_topics
from modelwire.verify_stream import verify_stream
from schemas.errors import NotFound, UsageProblem
from tests.conftest import RunningStack
from tests.fleet import LIMIT_SECONDS, wait_for

pytestmark = pytest.mark.stack

DIGEST = "sha256:" + "1" * 64


class Stream:
    """A model's topics, written to by hand."""

    def __init__(self, servers: str, model: str) -> None:
        self.config = {"bootstrap.servers": servers}
        self.topics = Topics(
            f"{model}.requests", f"{model}.results", f"{model}.rejections", f"{model}.control"
        )
        shapes = {f"{model}.requests": 2, f"{model}.results": 2}
        names = (f"{model}.{what}" for what in ("requests", "results", "rejections", "control"))
        admin = AdminClient(self.config)
        made = admin.create_topics([NewTopic(name, shapes.get(name, 1), 1) for name in names])
        for future in made.values():
            future.result()
        self._plain = Producer(self.config)
        self._transactional = Producer(self.config | {"transactional.id": model})
        self._transactional.init_transactions()
        self._model = model
        self._sent = [0, 0]
        self._revision = 0
        self._head: str | None = None

    def release(self) -> None:
        """A control log in which version 1 answers from revision 3, and version 2 has come by 4."""
        self.append("model.released", {"version": 1, "digest": DIGEST})
        self.append("rollout.started", {"candidate": 1, "strategy": "blue-green", "salt": "s"})
        self.append("rollout.promoted", {"rollout": 2, "version": 1})
        self.append("model.released", {"version": 2, "digest": DIGEST})

    def append(self, what: str, data: dict[str, object]) -> None:
        """One more event on the control log."""
        self._revision += 1
        event = {
            "specversion": "1.0",
            "type": f"io.modelwire.{what}.v1",
            "subject": self._model,
            "sequence": str(self._revision),
            "data": data,
        }
        if self._head is not None:
            event["previous"] = self._head
        raw = json.dumps(event).encode()
        self._head = f"sha256:{hashlib.sha256(raw).hexdigest()}"
        self._plain.produce(str(self.topics.control), raw)
        assert self._plain.flush(LIMIT_SECONDS) == 0

    def ask(self, partition: int, count: int) -> list[tuple[int, int]]:
        """Write requests; returns where they lie."""
        first = self._sent[partition]
        for offset in range(first, first + count):
            value = _request(partition, offset)
            self._plain.produce(
                self.topics.requests, value, b"key", partition=partition, timestamp=1_000 + offset
            )
        assert self._plain.flush(LIMIT_SECONDS) == 0
        self._sent[partition] += count
        return [(partition, offset) for offset in range(first, first + count)]

    def answer(self, *answers: tuple[str, bytes, int], commit: bool = True) -> None:
        """Write (topic, value, partition) in one transaction, and commit it or abort it."""
        self._transactional.begin_transaction()
        for topic, value, partition in answers:
            self._transactional.produce(topic, value, b"key", partition=partition)
        assert (
            self._transactional.flush(LIMIT_SECONDS) == 0
        )  # the records are on the broker either way
        if commit:
            self._transactional.commit_transaction()
        else:
            self._transactional.abort_transaction()

    def forecast(
        self,
        partition: int,
        offset: int,
        *,
        revision: int = 3,
        version: int = 1,
        item: str = "a",
        variant: str = "champion",
    ) -> tuple[str, bytes, int]:
        """The forecast of a request."""
        value = {
            "request_id": f"{partition}-{offset}",
            "inputs": {"item": item},
            "outputs": {"sales": 1.5},
            "version": version,
            "digest": DIGEST,
            "variant": variant,
            "revision": revision,
            "source": {
                "topic": self.topics.requests,
                "partition": partition,
                "offset": offset,
                "timestamp": 1_000 + offset,
            },
        }
        return self.topics.results, json.dumps(value).encode(), partition


def _request(partition: int, offset: int) -> bytes:
    return json.dumps({"request_id": f"{partition}-{offset}", "inputs": {"item": "a"}}).encode()


@pytest.fixture
def stream(stack: RunningStack, model: str) -> Stream:
    """Empty topics of a new model, with version 1 as its champion."""
    made = Stream(stack.bootstrap_servers, model)
    made.release()
    return made


@pytest.fixture
def run(
    stack: RunningStack, model: str, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str]]:
    """Run ``verify-stream`` for the model; gives the exit code and what it printed."""
    monkeypatch.setenv("MODELWIRE_KAFKA__BOOTSTRAP_SERVERS", stack.bootstrap_servers)

    def call(*arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(
            verify_stream, arguments or ["--model", model], standalone_mode=False
        )
        if result.exception is not None:
            raise result.exception
        return int(result.return_value), result.stdout

    return call


def test_what_a_transaction_aborted_does_not_count(stream: Stream) -> None:
    """Aborted answers are no doubles, and a log that ends in them is read to its end."""
    asked = stream.ask(0, 5) + stream.ask(1, 5)
    stream.answer(*(stream.forecast(*where) for where in asked), commit=False)
    stream.answer(*(stream.forecast(*where) for where in asked))
    stream.answer(*(stream.forecast(*where, item="b") for where in asked), commit=False)
    report = check_topics(stream.config, stream.topics)
    assert report.clean, report
    assert (report.requests, report.forecasts, report.versions) == (10, 10, {1: 10})


def test_each_planted_fault_is_found(stream: Stream) -> None:
    """One loss, one double, one regression, one wrong echo and one wrong version on real topics."""
    asked = stream.ask(0, 10)
    right = [stream.forecast(*where) for where in asked]
    regression = stream.forecast(*asked[7], revision=1)  # version 1 did not answer at revision 1
    stream.answer(*right[:3], stream.forecast(*asked[3], item="b"), *right[4:7], regression)
    stream.answer(right[8], right[0])
    stream.ask(1, 1)
    stream.answer(stream.forecast(1, 0, version=3))
    report = check_topics(stream.config, stream.topics)
    counts = {kind: getattr(report, kind) for kind in Kind}
    assert counts == {
        Kind.LOST: 1,
        Kind.DOUBLED: 1,
        Kind.REVISION_REGRESSION: 1,
        Kind.WRONG_ECHO: 1,
        Kind.WRONG_VERSION: 2,
        Kind.WRONG_VARIANT: 0,
        Kind.WRONG_PARTITION: 0,
        Kind.UNKNOWN: 0,
    }
    named = {finding.kind: finding.sentence for finding in report.findings}
    assert f"{stream.topics.requests}/0/9" in named[Kind.LOST]
    assert f"{stream.topics.requests}/0/0" in named[Kind.DOUBLED]
    assert f"{stream.topics.requests}/0/7" in named[Kind.REVISION_REGRESSION]
    assert f"{stream.topics.requests}/0/3" in named[Kind.WRONG_ECHO]


def start_canary(stream: Stream) -> None:
    """Version 2 is to answer the buckets below 5,000 from revision 6 on."""
    stream.append("rollout.started", {"candidate": 2, "strategy": "canary", "salt": "salt"})
    stream.append("rollout.shifted", {"rollout": 5, "weight": 5_000})


def test_an_answer_by_the_wrong_variant_is_found(
    stream: Stream, run: Callable[..., tuple[int, str]]
) -> None:
    """The bucket of "key" under "salt" is the champion's at half of the traffic: pinned here."""
    start_canary(stream)
    asked = stream.ask(0, 3)
    stream.answer(*(stream.forecast(*where, revision=6) for where in asked[:2]))
    stream.answer(stream.forecast(*asked[2], revision=6, version=2, variant="candidate"))
    report = check_topics(stream.config, stream.topics)
    assert {kind: getattr(report, kind) for kind in Kind if getattr(report, kind)} == {
        Kind.WRONG_VARIANT: 1
    }
    code, said = run()
    assert code == 1
    assert re.search(r"5, version 2 +│ +5,000 +│ +50\.00% +│ +50\.00% of 2 +│ +33\.33% of 3", said)
    assert f"wrong_variant: the answer at {stream.topics.results}/0/" in said


class Connections(UserDict[str, str]):
    """How to connect; ``made`` counts the clients that were made with it: one for each reading of the
    control log, after one for each other topic."""

    made = 0

    def keys(self) -> KeysView[str]:
        """Read once for each client."""
        self.made += 1
        return super().keys()


def test_a_split_that_begins_while_the_check_waits_is_judged(stream: Stream) -> None:
    """Answers at a revision that was not in the log when it was read first are held to it too."""
    asked = stream.ask(0, 3)
    stream.answer(stream.forecast(*asked[0], revision=6))
    stream.answer(stream.forecast(*asked[1], revision=6, version=2, variant="candidate"))
    config = Connections(stream.config)
    with ThreadPoolExecutor(1) as other:
        waiting = other.submit(check_topics, config, stream.topics, wait_seconds=LIMIT_SECONDS)
        wait_for("another look at the control log", lambda: config.made > 3 + 1)
        start_canary(stream)
        stream.answer(stream.forecast(*asked[2], revision=6))
        report = waiting.result()
    assert (report.lost, report.wrong_version, report.wrong_variant) == (0, 0, 1)
    assert (report.shares[0].answers, report.variant_unchecked) == (Tally(2, 1), 0)


def test_the_check_waits_for_answers_that_come(stream: Stream) -> None:
    """Answers of a transaction that commits while the check waits are counted."""
    asked = stream.ask(0, 3)
    assert check_topics(stream.config, stream.topics).lost == 3
    with ThreadPoolExecutor(1) as other:
        waiting = other.submit(
            check_topics, stream.config, stream.topics, wait_seconds=LIMIT_SECONDS
        )
        stream.answer(*(stream.forecast(*where) for where in asked))
        assert waiting.result().clean


def test_an_open_transaction_ends_no_check_and_hides_its_answers(stream: Stream) -> None:
    """The end of a read is the last stable offset: what is not committed is not an answer yet."""
    asked = stream.ask(0, 1)
    stream._transactional.begin_transaction()
    topic, value, partition = stream.forecast(*asked[0])
    stream._transactional.produce(topic, value, b"key", partition=partition)
    assert stream._transactional.flush(LIMIT_SECONDS) == 0
    assert check_topics(stream.config, stream.topics).lost == 1
    stream._transactional.commit_transaction()
    assert check_topics(stream.config, stream.topics, wait_seconds=LIMIT_SECONDS).clean


def test_a_missing_topic_is_an_error(stream: Stream) -> None:
    """A check of nothing is not a clean check."""
    topics = Topics("no.requests", stream.topics.results, stream.topics.rejections)
    with pytest.raises(StreamUnreadable, match=r"no\.requests"):
        check_topics(stream.config, topics)


def test_the_command_exits_0_on_a_clean_stream_and_1_on_another(
    stream: Stream, run: Callable[..., tuple[int, str]]
) -> None:
    """One JSON object on stdout with the counts; the exit code says whether it is clean."""
    asked = stream.ask(0, 2)
    stream.answer(*(stream.forecast(*where) for where in asked))
    topics = stream.topics
    code, said = run(
        *("--requests", topics.requests, "--results", topics.results),
        *("--rejections", topics.rejections, "-o", "json"),
    )
    report = json.loads(said)
    assert code == 0
    assert report["clean"] is True
    assert report["version_checked"] is False
    assert report["versions"] == {"1": 2}
    stream.ask(1, 1)
    code, said = run()
    assert code == 1
    assert f"lost: the request at {topics.requests}/1/0 has no answer" in said


def test_the_command_names_what_is_missing(run: Callable[..., tuple[int, str]]) -> None:
    """An unknown model is not found; no topics at all is a usage error."""
    with pytest.raises(NotFound, match=r"nobody\.requests"):
        run("--model", "nobody")
    with pytest.raises(UsageProblem):
        run("--requests", "only.requests")
