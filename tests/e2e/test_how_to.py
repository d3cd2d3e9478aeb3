"""What the how-to pages say to type works, command by command, while a consumer answers requests.

Where a page takes back or ends something, the reader first waits until it has had its effect on answers.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import astuple
from pathlib import Path

import pytest

from adapters.control_log import read_log
from adapters.fleet_topic import read_fleet
from adapters.kafka import TopicNames, admin, topic_names
from adapters.object_store import open_removable_store, open_store
from adapters.settings import Settings, load_settings
from deployment.commands import Release, Strategy
from deployment.state import Deployment
from modelwire.localstack.stack import Stack
from publisher.commands import give
from schemas.answer_file import FOLDER
from schemas.forecast import Forecast, Variant, decode_forecast
from schemas.rejection import read_rejection
from tests.bundles import store_bundle
from tests.fleet import LIMIT_SECONDS, wait_for
from tests.shell import ROOT, Shell, commands_in
from tests.traffic import Record, Stream, committed_records

pytestmark = [pytest.mark.stack]

MODEL = "sales"
PAGES = ROOT / "docs" / "how-to"
RATE = 100
ENDING = (["rollout", "abort"], ["rollout", "undo"])
"""What a reader types only once they have seen what it ends or takes back."""


class Reader(Shell):
    """A reader with a local stack, on which a model called sales is served."""

    def __init__(self, folder: Path, servers: Path) -> None:
        super().__init__(folder)
        (folder / ".modelwire").symlink_to(servers)
        self.type(["topics", "create", MODEL])

    def forget(self) -> None:
        """Delete the model's topics and kept answers, so that the next reader can begin anew."""
        store = open_removable_store(self.settings.audit_url, self.settings.s3_settings)
        for key in list(store.list(FOLDER)):
            store.remove(key)
        names = list(astuple(self.topics))
        with admin(self.settings) as asked:
            asked.results(asked.client.delete_topics(names))
            wait_for("the topics' end", lambda: not {*names} & {*asked.client.list_topics().topics})

    @property
    def settings(self) -> Settings:
        return load_settings()

    @property
    def topics(self) -> TopicNames:
        return topic_names(self.settings, MODEL)

    @property
    def deployment(self) -> Deployment:
        return read_log(self.settings, MODEL).deployment

    def release(self, versions: int, *, champions: int) -> None:
        """Release that many versions; the first ones become champion, one after the other."""
        settings = self.settings
        store = open_store(settings.store_url, settings.s3_settings)
        for number in range(1, versions + 1):
            digest = store_bundle(store, MODEL, float(number))
            strategy = Strategy.BLUE_GREEN if number <= champions else None
            give(settings, MODEL, Release(digest, strategy, f"salt-{number}", min_ready=0))

    @contextmanager
    def serving(self) -> Iterator[None]:
        """A consumer answers a steady stream of requests; at the end each has its one right answer."""
        with self.terminal(["consume", "--model", MODEL]):
            with self.requests():
                self.wait_for_answers()
                yield
                self.wait_for_answers()
            self.check()

    def requests(self) -> Stream:
        """A steady stream of requests, while its block runs."""
        return Stream(self.settings.kafka.bootstrap_servers, self.topics.requests, RATE)

    def wait_for_answers(self) -> None:
        """Until a request is answered at the newest revision of the log."""
        newest = self.deployment.revision
        wait_for(
            f"an answer at revision {newest}",
            lambda: any(each.revision >= newest for each in self.answers()),
        )

    def check(self) -> None:
        """The shipped checker finds nothing wrong."""
        said = self.type(["verify-stream", "--model", MODEL, "--wait", "60", "-o", "json"])
        report = json.loads(said)
        assert report["clean"]
        assert report["requests"] == report["forecasts"] + report["rejections"] > 0

    def answers(self, topic: str | None = None) -> list[Forecast]:
        """The forecasts of a topic (the results) so far, in their order on each partition."""
        return [decode_forecast(each.value or b"") for each in self.records(topic)]

    def records(self, topic: str | None = None) -> list[Record]:
        """The committed records of a topic (the results) so far."""
        servers = self.settings.kafka.bootstrap_servers
        return committed_records(servers, topic or self.topics.results, 0, LIMIT_SECONDS)

    def working_partitions(self) -> set[int]:
        """The partitions that instances own."""
        return {
            number for each in read_fleet(self.settings, MODEL) for number in each.status.partitions
        }

    def follow(self, page: str, is_seen: Callable[[], bool] = lambda: True) -> None:
        """Type the whole page; what runs on is started in a terminal of its own.

        ``is_seen`` is awaited before each command that ends or takes back a rollout.
        """
        self.write_files_of(PAGES / page)
        with ExitStack() as terminals:
            for arguments in commands_in(PAGES / page):
                if arguments[:2] in ENDING:
                    wait_for(f"the effect of what {arguments} ends", is_seen)
                if "--run" in arguments:
                    terminals.enter_context(self.until_its_end(arguments))
                    wait_for("the pause", self._is_paused)
                elif "-w" in arguments:
                    self.watch(arguments, expected=f"{MODEL}:")
                elif arguments[:2] == ["rollout", "start"] and "--plan" not in arguments:
                    terminals.close()  # the reader lets the plan come to its end first
                    self.type(arguments)
                else:
                    self.type(arguments, code=exit_code_of(arguments))

    def _is_paused(self) -> bool:
        rollout = self.deployment.rollout
        return rollout is not None and rollout.paused


def exit_code_of(arguments: list[str]) -> int:
    """A growth that is only looked at exits with 3, as its page says."""
    return 3 if arguments[:2] == ["topics", "grow"] and "--yes" not in arguments else 0


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a stack that the pages share, one after the other."""
    folder = tmp_path_factory.mktemp("servers")
    try:
        Stack.up(folder, quiet=True)
        yield folder
    finally:
        Stack.down(folder)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def reader(tmp_path: Path, servers: Path) -> Iterator[Reader]:
    """In an empty folder, with the servers running."""
    reader = Reader(tmp_path, servers)
    try:
        yield reader
    finally:
        reader.forget()


def test_release_a_model(reader: Reader) -> None:
    """A trained bundle becomes champion, turns down what it does not know, and is revoked."""
    reader.release(1, champions=1)
    with reader.serving():
        reader.follow("release-a-model.md")
    assert reader.deployment.champion == 1
    assert {each.version for each in reader.answers()} == {1}
    rejections = reader.records(reader.topics.rejections)
    assert {read_rejection(list(r.headers.items())).version for r in rejections} == {2}


def test_keep_answers(reader: Reader) -> None:
    """What was answered is copied and checked; the rest has lines."""
    reader.release(1, champions=1)
    with reader.serving():
        reader.follow("keep-answers.md")


def test_run_a_canary(reader: Reader) -> None:
    """The plan ends in the promotion of version 2; version 3 is moved by hand and given up."""

    def candidates() -> set[int]:
        return {each.version for each in reader.answers() if each.variant is Variant.CANDIDATE}

    reader.release(3, champions=1)
    with reader.serving():
        reader.follow("run-a-canary.md", is_seen=lambda: 3 in candidates())
    assert reader.deployment.champion == 2
    assert reader.deployment.rollout is None
    assert candidates() == {2, 3}
    assert {each.version for each in reader.answers(reader.topics.shadow)} == {2}


def test_undo(reader: Reader) -> None:
    """One step back, and then to a version by its name: each has answered, and 1 goes on."""
    reader.release(3, champions=3)
    with reader.serving():
        reader.follow(
            "undo.md",
            is_seen=lambda: reader.deployment.champion in {a.version for a in reader.answers()},
        )
    assert reader.deployment.champion == 1
    by_partition = {each.source.partition: each.version for each in reader.answers()}
    assert set(by_partition.values()) == {1}
    assert {each.version for each in reader.answers()} == {1, 2, 3}


def test_shadow_a_candidate(reader: Reader) -> None:
    """Started, widened, ended; it scored, and every answer was the champion's."""

    def shadows() -> list[Forecast]:
        return reader.answers(reader.topics.shadow)

    reader.release(2, champions=1)
    with reader.serving():
        reader.follow("shadow-a-candidate.md", is_seen=lambda: len(shadows()) > 0)
    assert reader.deployment.champion == 1
    assert not reader.deployment.shadows
    assert {(each.version, each.variant) for each in shadows()} == {(2, Variant.SHADOW)}
    assert {each.version for each in reader.answers()} == {1}


def test_run_consumers(reader: Reader) -> None:
    """One process, and a supervisor of two: each answers with all of its slots, and stops when asked."""
    reader.release(1, champions=1)
    for arguments in commands_in(PAGES / "run-consumers.md"):
        slots = int(arguments[-1]) if "--workers" in arguments else 1

        def at_work(slots: int = slots) -> bool:
            owned = [len(each.status.partitions) for each in read_fleet(reader.settings, MODEL)]
            return len(owned) == slots and sum(owned) == 8 and min(owned) > 0

        with reader.terminal(arguments):
            wait_for(f"all partitions shared by {slots}", at_work)
            with reader.requests() as stream:
                wait_for("requests", lambda stream=stream: stream.sent > RATE)
            reader.check()
    assert {each.instance for each in reader.answers()} == {
        f"modelwire-{MODEL}-{n}" for n in (0, 1)
    }


def test_refresh_and_reproduce(reader: Reader) -> None:
    """A released version is refreshed, and made again with the same bytes."""
    old = ["--cutoff", "2011-11-04"]
    reader.type(["train", "--dataset", "datasets/online_retail.toml", "--preset", "plain", *old])
    reader.type(["release", "publish", "DIGEST"])
    reader.follow("refresh-and-reproduce.md")


def test_grow_topics(reader: Reader) -> None:
    """Looked at, and done while nothing waits; every partition of the sixteen is then answered."""
    reader.release(1, champions=1)
    with reader.serving():
        pass
    with reader.terminal(["consume", "--model", MODEL]):
        # The page says not to grow while an instance restarts.
        wait_for("the eight at work", lambda: len(reader.working_partitions()) == 8)
        reader.follow("grow-topics.md")
        wait_for("sixteen partitions at work", lambda: len(reader.working_partitions()) == 16)
        with reader.requests() as stream:
            wait_for("requests", lambda: stream.sent > 2 * RATE)
        reader.check()
    assert {each.partition for each in reader.records()} == set(range(16))


def test_prove_an_answer(reader: Reader, tmp_path: Path) -> None:
    """Answers of two versions are kept, then explained and verified, by id, by place and by a draw."""
    reader.release(2, champions=2)
    with reader.terminal(["consume", "--model", MODEL]), reader.requests():
        reader.wait_for_answers()
        wait_for("600 answers", lambda: len(reader.answers()) >= 600, 60)
    lines = reader.type(["audit", "sink", "--model", MODEL, "--once", "--log-lines", "all"])
    (tmp_path / "lines.jsonl").write_text(lines)
    one = next(each for each in reader.answers() if each.request_id == "r-17")
    crowned = read_log(reader.settings, MODEL).events[-1].event.time
    meant = {
        "sales.requests/3/1042": f"{one.source.topic}/{one.source.partition}/{one.source.offset}",
        "2026-11-21T10:00Z": crowned.isoformat(),
        "7": "6",
    }
    said = {
        " ".join(arguments): reader.type([meant.get(each, each) for each in arguments])
        for arguments in commands_in(PAGES / "prove-an-answer.md")
    }
    explained = json.loads(said["audit explain sales.requests/3/1042 --model sales -o json"])
    assert explained["explanation"]["answer"]["outputs"] == one.outputs
    assert (
        "500 of 500 answers"
        in said["audit verify --model sales --sample 500 --seed 7 --control-log store"]
    )
    assert "sales:2" in said["audit state --model sales --at 7"]
