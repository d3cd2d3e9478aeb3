"""The answering loop's order of looks: what changes inside a fetch counts for the batch it gives."""

import time
from collections.abc import Callable, Collection, Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from adapters.request_stream import Committed
from adapters.settings import Settings
from adapters.stream_config import consumer_config
from consumer.control import Heard
from consumer.models import Report
from consumer.service import Service
from deployment.ledger import StampVerdict
from deployment.routing import Routing
from deployment.state import Deployment
from schemas.rejection import Headers, read_rejection
from scoring.snapshot import Snapshot, load
from tests.bundles import contract

LIMIT = 100_000


def snapshot_at(revision: int) -> Snapshot:
    loaded = load(1, "sha256:" + "0" * 64, contract(), model=None)  # type: ignore[arg-type]
    return Snapshot("m", revision, f"log:{revision}:head", Routing(1, None, 0, ""), loaded, None)


class Message:
    """A request that is no JSON: it is answered by a rejection, and needs no model."""

    def __init__(self, offset: int) -> None:
        self._offset = offset

    def topic(self) -> str:
        return "m.requests"

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return self._offset

    def timestamp(self) -> tuple[int, int]:
        return (1, 1_000)

    def key(self) -> bytes | None:
        return None

    def value(self) -> bytes | None:
        return b"poison"


class ScriptedStream:
    """A stream whose fetches do what the test says. ``said`` is what reached the broker, in order."""

    def __init__(self) -> None:
        self.fetches: list[Callable[[], list[Message]]] = []
        self.said: list[tuple[str, Any]] = []

    def join(self) -> None:
        """The partition comes by the listener."""

    def fetch(self, limit: int, wait_seconds: float, fill_seconds: float) -> list[Message]:
        return self.fetches.pop(0)() if self.fetches else []

    def begin(self) -> None:
        self.said.append(("begin", None))

    def produce_rejection(self, key: bytes | None, value: bytes, headers: Headers) -> None:
        rejection = read_rejection(headers)
        self.said.append(("answer", (rejection.source.offset, rejection.revision)))

    def commit(self, offsets: Mapping[int, int], stamp: str) -> None:
        self.said.append(("commit", (dict(offsets), stamp)))

    def seek(self, positions: Mapping[int, int]) -> None:
        """Nothing is fetched twice here."""

    def resume(self, partitions: Collection[int]) -> None:
        """Nothing is paused here."""

    def serve(self) -> None:
        """No delivery reports."""


class Scene:
    """A service with partition 0, at revision 1, that commits only when it must."""

    def __init__(self) -> None:
        deployment = Deployment("m", "sha256:a", 1, "sha256:b", {}, 1, None, None)
        self.loader = SimpleNamespace(
            model="m", ready=snapshot_at(1), report=Report((1,), ()), using=lambda snapshot: None
        )
        follower = SimpleNamespace(
            heard=Heard(deployment, True, time.monotonic()),
            failure=None,
            judge=lambda stamp: StampVerdict.KNOWN,
        )
        reporter = SimpleNamespace(peer_revision=0, changed=lambda: None)
        settings = Settings(consumer={"commit_interval_ms": 5_000})  # type: ignore[arg-type]
        self.stream = ScriptedStream()
        self.service = Service(
            settings.consumer,
            "i",
            follower,  # type: ignore[arg-type]
            self.loader,  # type: ignore[arg-type]
            reporter,  # type: ignore[arg-type]
        )
        self.service.attach(self.stream, LIMIT)  # type: ignore[arg-type]
        self.service.turn()  # joins
        self.service.assigned({0: Committed(0, "")})

    def turn(self, fetch: Callable[[], list[Message]]) -> None:
        self.stream.fetches.append(fetch)
        self.service.turn()

    def swap(self, revision: int) -> None:
        self.loader.ready = snapshot_at(revision)


def test_a_snapshot_that_comes_during_the_fetch_answers_its_batch() -> None:
    """The snapshot is taken after the last fetch: a partition that came in it may ask for it."""
    scene = Scene()

    def swap_and_give() -> list[Message]:
        scene.swap(2)
        return [Message(0)]

    scene.turn(swap_and_give)
    assert ("answer", (0, 2)) in scene.stream.said


def test_no_transaction_spans_two_snapshots() -> None:
    """What was answered under the older snapshot is committed under its stamp, before the rest."""
    scene = Scene()
    scene.turn(lambda: [Message(0)])
    scene.swap(2)
    scene.turn(lambda: [Message(1)])
    assert scene.stream.said == [
        ("begin", None),
        ("answer", (0, 1)),
        ("commit", ({0: 1}, "log:1:head")),
        ("begin", None),
        ("answer", (1, 2)),
    ]


def test_a_partition_is_given_back_only_after_its_answers_are_committed() -> None:
    """A revocation inside a fetch commits; the next owner starts behind what was answered."""
    scene = Scene()
    scene.turn(lambda: [Message(0)])

    def take_away() -> list[Message]:
        scene.service.revoked([0])
        return []

    scene.turn(take_away)
    assert scene.stream.said[-1] == ("commit", ({0: 1}, "log:1:head"))
    assert scene.service.holdings.partitions == ()


@pytest.mark.parametrize("membership", ["static", "dynamic"])
def test_requests_are_read_committed_and_nothing_is_committed_by_itself(membership: str) -> None:
    """With read_uncommitted an owner that froze before its commit doubled 5 of 5 answers."""
    settings = Settings(
        kafka={"bootstrap_servers": "h:1", "properties": {"isolation.level": "read_uncommitted"}},  # type: ignore[arg-type]
        consumer={"membership": membership},  # type: ignore[arg-type]
    )
    config = consumer_config(settings, "m", "i")
    assert config["isolation.level"] == "read_committed"
    assert config["enable.auto.commit"] is False
    assert config["enable.auto.offset.store"] is False
