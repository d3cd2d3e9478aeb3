"""``modelwire rejections`` on a real broker: what it lists, and that nothing is sent again twice."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from confluent_kafka import OFFSET_END, Producer, TopicPartition

from adapters import kafka
from adapters.kafka import TopicNames, admin, topic_names
from adapters.settings import Settings
from adapters.topics import create_topics
from modelwire import rejections as rejections_module
from modelwire import resend
from modelwire.rejected import Choice
from modelwire.rejections import rejections
from schemas.errors import Conflict, ModelwireError, NotFound, RefusedByRule, UsageProblem
from schemas.forecast import Source
from schemas.rejection import ENVELOPE_HEADER, REPLAY_HEADER, Reason, Rejection, rejection_headers
from tests.conftest import RunningStack
from tests.fleet import LIMIT_SECONDS, wait_for
from tests.shell import ROOT, commands_in
from tests.traffic import Record, committed_records

pytestmark = pytest.mark.stack

PAGE = ROOT / "docs" / "how-to" / "replay-rejections.md"


@dataclass
class Shop:
    """A model whose topics hold what the test puts there; no consumer runs."""

    settings: Settings
    model: str
    environment: dict[str, str]
    next_offset: int = 0
    bytes_sent: dict[str, bytes] = field(default_factory=dict)

    @property
    def names(self) -> TopicNames:
        return topic_names(self.settings, self.model)

    def reject(
        self,
        count: int,
        reason: Reason = Reason.WRONG_TYPE,
        *,
        detail: str = "no",
        kept: bool = True,
    ) -> None:
        """Write rejections of requests at the next offsets of partition 1."""
        producer = self.producer()
        for _ in range(count):
            offset, self.next_offset = self.next_offset, self.next_offset + 1
            value = b'{"request_id":"r-%d","inputs":\xff}' % offset
            said = Rejection(
                reason=reason,
                detail=detail,
                model=self.model,
                version=3,
                variant="champion",
                digest="sha256:" + "0" * 64,
                revision=9,
                source=Source(self.names.requests, 1, offset, 1_500_000_000_000),
                instance="somebody",
            )
            headers = rejection_headers(said)
            if kept:
                self.bytes_sent[f"{self.names.requests}/1/{offset}"] = value
            else:
                headers.append((ENVELOPE_HEADER, b"1"))
                value = b'{"size":70000}'
            key = b"key-%d" % offset if offset else None
            producer.produce(self.names.rejections, value, key, headers=headers)
        assert producer.flush(LIMIT_SECONDS) == 0

    def producer(self) -> Producer:
        return Producer({"bootstrap.servers": self.settings.kafka.bootstrap_servers})

    def requests(self) -> list[Record]:
        """The committed records of the request topic."""
        servers = self.settings.kafka.bootstrap_servers
        return committed_records(servers, self.names.requests, 0, LIMIT_SECONDS)

    def replayed(self) -> dict[str, bytes]:
        """Where each replayed request lay -> its bytes; fails where one was sent twice."""
        found = [(r.headers[REPLAY_HEADER].decode(), r.value or b"") for r in self.requests()]
        assert len(dict(found)) == len(found), "something was sent twice"
        return dict(found)

    def forget(self) -> None:
        """Delete the request topic's records, as retention does."""
        places = [TopicPartition(self.names.requests, number, OFFSET_END) for number in range(2)]
        with admin(self.settings) as asked:
            asked.results(asked.client.delete_records(places))

    def request_at(self, seconds: float) -> None:
        """Write a request of this time (since 1970) to each partition."""
        producer = self.producer()
        for number in range(2):
            producer.produce(
                self.names.requests, b"{}", partition=number, timestamp=int(seconds * 1_000)
            )
        assert producer.flush(LIMIT_SECONDS) == 0


@pytest.fixture
def shop(stack: RunningStack, model: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    """A model with topics, which the environment's settings name."""
    environment = stack.environment(model, TOPICS__PARTITIONS="2")
    for name, value in environment.items():
        if name.startswith("MODELWIRE_"):
            monkeypatch.setenv(name, value)
    settings = stack.settings(model)
    topics = settings.topics.model_copy(update={"partitions": 2})
    settings = settings.model_copy(update={"topics": topics})
    create_topics(settings, model)
    return Shop(settings, model, environment)


def run(*arguments: str) -> str:
    """The command's output. Raises what it raises."""
    done = CliRunner().invoke(rejections, list(arguments), standalone_mode=False)
    if done.exception is not None:
        raise done.exception
    return done.output


def replay(shop: Shop, *arguments: str) -> dict[str, object]:
    """What a replay says for programs."""
    said: dict[str, object] = json.loads(
        run("replay", shop.model, "--yes", "-o", "json", *arguments)
    )
    return said


def skipped(**counts: int) -> dict[str, int]:
    """The counts that are not 0."""
    return {"not-kept": 0, "replayed": 0, "forgotten": 0} | {
        name.replace("_", "-"): count for name, count in counts.items()
    }


def test_list_says_what_was_rejected_where_and_why(shop: Shop) -> None:
    """Each rejection with all that is known of it, chosen by reason, partition, time and number."""
    shop.reject(3)
    shop.reject(1, Reason.TOO_LARGE, kept=False, detail="clears \x1b[2J the screen")
    listed = json.loads(run("list", shop.model, "-o", "json"))
    assert (listed["model"], listed["matched"]) == (shop.model, 4)
    first, *_, last = listed["rejections"]
    assert (first["source"]["partition"], first["source"]["offset"]) == (1, 0)
    assert (first["reason"], first["version"], first["revision"]) == ("wrong-type", 3, 9)
    assert (first["key"], first["kept"], first["detail"]) == (None, True, "no")
    assert first["size"] == len(shop.bytes_sent[f"{shop.names.requests}/1/0"])
    assert (last["key"], last["kept"], last["size"]) == ("key-3", False, 70_000)
    newest = json.loads(run("list", shop.model, "-o", "json", "--limit", "1"))
    assert (newest["matched"], newest["rejections"]) == (4, [last])
    chosen = ["--reason", "too-large", "--reason", "empty", "--partition", "1", "--since", "5m"]
    assert json.loads(run("list", shop.model, *chosen, "-o", "json"))["rejections"] == [last]
    table = run("list", shop.model)
    assert "1/3" in table
    assert "\\x1b[2J" in table
    assert "\x1b" not in table


def test_replay_sends_the_original_bytes_once(shop: Shop) -> None:
    """Bytes, key and place are those of the request; a second run sends nothing, --again does."""
    shop.reject(5)
    shop.reject(2, Reason.EMPTY, kept=False)
    with pytest.raises(RefusedByRule, match="nothing was sent"):
        run("replay", shop.model)
    assert "5 of 7" in run("replay", shop.model, "--dry-run")
    assert shop.requests() == []
    assert replay(shop) == {
        "model": shop.model,
        "matched": 7,
        "to_send": 5,
        "sent": 5,
        "skipped": skipped(not_kept=2),
    }
    assert shop.replayed() == shop.bytes_sent
    assert {r.key for r in shop.requests()} == {None, *(b"key-%d" % n for n in range(1, 5))}
    shop.reject(1)
    assert replay(shop)["sent"] == 1
    assert replay(shop)["skipped"] == skipped(not_kept=2, replayed=6)
    assert shop.replayed() == shop.bytes_sent
    assert replay(shop, "--again", "--source", "1/2")["sent"] == 1
    assert len(shop.requests()) == 7


def test_only_what_is_chosen_is_sent(shop: Shop) -> None:
    """A reason, a source and a time choose; a source that was not rejected sends nothing at all."""
    shop.reject(2)
    shop.reject(2, Reason.OUTSIDE_HORIZON)
    with pytest.raises(NotFound, match="--source 1/99 --reason wrong-type") as caught:
        replay(shop, "--source", "1/1", "--source", "1/99", "--reason", "wrong-type")
    assert "1/1" not in caught.value.message
    assert replay(shop, "--source", f"{shop.names.requests}/1/1", "--since", "1h")["sent"] == 1
    assert replay(shop, "--reason", "outside-horizon", "--partition", "1")["sent"] == 2
    assert {place.rpartition("/")[2] for place in shop.replayed()} == {"1", "2", "3"}


def test_nothing_is_sent_of_what_cannot_be_known(shop: Shop) -> None:
    """Where the request topic has lost what was written since, a replay may be among it."""
    shop.reject(3)
    assert replay(shop)["sent"] == 3
    shop.forget()
    with pytest.raises(RefusedByRule, match="none of them"):
        replay(shop)
    shop.request_at(time.time())
    with pytest.raises(RefusedByRule, match="none of them"):
        replay(shop)
    assert replay(shop, "--again", "--source", "1/0")["sent"] == 1
    shop.forget()
    shop.request_at(time.time() - 2 * 3_600)  # a topic that still holds older ones has lost none
    assert replay(shop)["sent"] == 3


def test_a_replay_that_was_killed_is_completed_by_the_next(shop: Shop) -> None:
    """After a kill -9 in the middle, the same command sends exactly what is missing."""
    count = 4_000
    shop.reject(count)
    process = subprocess.Popen(
        [sys.executable, "-m", "modelwire", "rejections", "replay", shop.model, "--yes"],
        env=shop.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for("a committed transaction", shop.requests)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    already = len(shop.requests())
    print(f"\n{already} of {count} were sent before the kill")
    second = replay(shop)
    assert second["skipped"] == skipped(replayed=count - int(str(second["sent"])))
    assert shop.replayed() == shop.bytes_sent


def test_what_an_interrupted_replay_left_open_is_undone(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A younger replay aborts the open transaction of an older one, which can send no more."""
    monkeypatch.setattr(resend, "MOST_REQUESTS", 2)
    shop.reject(6)
    topics = resend.Topics(shop.names, 2, 1)
    older = resend.Resender(shop.settings, topics)
    sending = older.send(resend.make_plan(shop.settings, topics, Choice(), again=False))
    assert next(sending) == 2
    assert replay(shop)["sent"] == 4
    with pytest.raises(Conflict):
        list(sending)
    assert shop.replayed() == shop.bytes_sent


def test_the_loser_of_two_replays_is_advised_once(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To let the other one end first, which it would end itself otherwise."""
    shop.reject(2)
    made = resend.make_plan

    def plan_too_late(*arguments: Any, **named: Any) -> resend.Plan:
        plan = made(*arguments, **named)
        resend.Resender(shop.settings, resend.Topics(shop.names, 2, 1))
        return plan

    monkeypatch.setattr(rejections_module, "make_plan", plan_too_late)
    with pytest.raises(Conflict) as caught:
        replay(shop)
    assert caught.value.hint.count("again") == 1
    assert caught.value.hint.startswith("once the other replay has ended")


def test_a_dry_run_says_which_requests_would_be_sent(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that would be, in a table and for programs; not those that are skipped."""
    shop.reject(2)
    shop.reject(1, Reason.EMPTY, kept=False)
    planned = json.loads(run("replay", shop.model, "--dry-run", "-o", "json"))
    listed = json.loads(run("list", shop.model, "-o", "json"))["rejections"]
    assert [each["source"] for each in planned["requests"]] == [
        {"partition": 1, "offset": 0},
        {"partition": 1, "offset": 1},
    ]
    for each, the_same in zip(planned["requests"], listed[:2], strict=True):
        names = ("time", "reason", "key", "size")
        assert [each[name] for name in names] == [the_same[name] for name in names]
    table = run("replay", shop.model, "--dry-run")
    assert "1/0" in table
    assert "key-1" in table
    assert "1/2" not in table
    assert "2 of 3" in table
    monkeypatch.setattr(rejections_module, "MOST_SHOWN", 1)
    table = run("replay", shop.model, "--dry-run")
    assert "1/0" not in table
    assert "the newest 1 of 2" in table


def test_a_model_without_rejections_has_an_empty_list(shop: Shop) -> None:
    """That is no error; a filter that finds nothing is one, and so is a partition that is not there."""
    assert json.loads(run("list", shop.model, "-o", "json")) == {
        "model": shop.model,
        "matched": 0,
        "rejections": [],
    }
    assert run("list", shop.model) == f"{shop.model} has no rejections\n"
    with pytest.raises(NotFound, match="has no rejections") as caught:
        run("replay", shop.model, "--dry-run")
    assert "rejections list" not in caught.value.hint
    asked = ["--reason", "empty", "--reason", "too-large", "--since", "2h", "--partition", "1"]
    with pytest.raises(NotFound, match=" ".join(asked)) as caught:
        run("list", shop.model, *asked)
    assert caught.value.hint.endswith(f"rejections list {shop.model}")
    for arguments in (["list", "--partition", "2"], ["replay", "--source", "2/0"]):
        with pytest.raises(NotFound, match=rf"{shop.names.requests} has no partition 2") as caught:
            run(arguments[0], shop.model, *arguments[1:])
        assert "0 to 1" in caught.value.hint


def test_mistakes_are_told(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """No topic, nothing there, a source or a time that is none, and no broker: each says so."""
    for wrong, arguments in (
        (NotFound, ["list", "nobody"]),
        (NotFound, ["replay", "nobody", "--yes"]),
        (NotFound, ["replay", shop.model, "--yes"]),
        (UsageProblem, ["list", "No Model"]),
        (UsageProblem, ["list", shop.model, "--since", "yesterday"]),
        (UsageProblem, ["list", shop.model, "--since", "7"]),
        (UsageProblem, ["list", shop.model, "--since", "2099-01-01"]),
        (UsageProblem, ["replay", shop.model, "--source", "7"]),
    ):
        with pytest.raises(wrong):
            run(*arguments)
    monkeypatch.setattr(kafka, "ANSWER_LIMIT_SECONDS", 0.5)
    monkeypatch.setenv("MODELWIRE_KAFKA__BOOTSTRAP_SERVERS", "127.0.0.1:1")
    with pytest.raises(ModelwireError, match=r"127\.0\.0\.1:1"):
        run("list", shop.model)


def test_the_how_to_page_works(shop: Shop, tmp_path: Path) -> None:
    """What the page says to type lists the rejections and sends them again."""
    shop.reject(2, Reason.OUTSIDE_HORIZON)
    shop.reject(1)
    commands = commands_in(PAGE)
    assert len(commands) >= 4
    for arguments in commands:
        assert arguments[0] == "rejections"
        run(*[shop.model if each == "sales" else each for each in arguments[1:]])
    assert {place.rpartition("/")[2] for place in shop.replayed()} == {"0", "1"}
