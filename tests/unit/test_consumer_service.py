"""The answering loop's order of looks: what changes inside a fetch counts for the batch it gives."""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from adapters.request_stream import Committed
from adapters.settings import Settings
from adapters.stream_config import consumer_config
from consumer.answering import Serving
from consumer.control import Heard
from consumer.journal import Journal
from consumer.models import Report
from consumer.outgoing import too_large
from consumer.service import Service
from consumer.shadow import ShadowScorer
from deployment.ledger import StampVerdict
from deployment.routing import Routing
from deployment.state import Deployment, Release, Standing
from schemas.fleet import Refused
from schemas.forecast import Forecast, Source, Variant, encode_forecast
from schemas.rejection import Headers, Reason, read_rejection
from scoring.batch import Answer, ForecastAnswer, Incoming
from scoring.snapshot import Shadow, Snapshot, load
from tests.bundles import LAST_DAY, contract

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

    def produce_forecasts(self, forecasts: Sequence[ForecastAnswer]) -> list[int]:
        """Those of odd offsets are too large for this topic."""
        taken = [each.incoming.offset for each in forecasts if each.incoming.offset % 2 == 0]
        if taken:
            self.said.append(("forecasts", taken))
        return [place for place, each in enumerate(forecasts) if each.incoming.offset % 2]

    def produce_rejection(self, key: bytes | None, value: bytes, headers: Headers) -> None:
        rejection = read_rejection(headers)
        self.said.append(("answer", (rejection.source.offset, rejection.revision)))

    def commit(self, offsets: Mapping[int, int], stamp: str) -> None:
        self.said.append(("commit", (dict(offsets), stamp)))

    def seek(self, positions: Mapping[int, int]) -> None:
        """Nothing is fetched twice here."""

    def pause(self, partitions: Collection[int]) -> None:
        """What is held is not fetched."""

    def resume(self, partitions: Collection[int]) -> None:
        """Nothing is paused here."""

    def serve(self) -> None:
        """No delivery reports."""

    def lag(self, positions: Mapping[int, int]) -> int | None:
        """Every partition ends at 10."""
        return sum(10 - position for position in positions.values())


class Scene:
    """A service with partition 0, at revision 1, that commits only when it must."""

    def __init__(self) -> None:
        deployment = Deployment("m", "sha256:a", 1, "sha256:b", {}, 1, None, None)
        self.loader = SimpleNamespace(
            model="m",
            ready=snapshot_at(1),
            report=Report((1,), (), (1,)),
            using=lambda snapshot: None,
        )
        self.follower = SimpleNamespace(
            heard=Heard(deployment, True, time.monotonic()),
            failure=None,
            judge=lambda stamp: StampVerdict.KNOWN,
        )
        reporter = SimpleNamespace(peer_revision=0, changed=lambda: None)
        settings = Settings(consumer={"commit_interval_ms": 5_000})  # type: ignore[arg-type]
        self.stream = ScriptedStream()
        self.shadows = ShadowScorer(settings, "m", "i", "r", Journal(Path("/dev/null"), "nowhere"))
        self.service = Service(
            settings.consumer,
            "i",
            "r",
            self.follower,  # type: ignore[arg-type]
            self.loader,  # type: ignore[arg-type]
            reporter,  # type: ignore[arg-type]
            self.shadows,
            SimpleNamespace(
                is_suspect=lambda snapshot, batch: False,
                in_hand=lambda snapshot, batch: nullcontext(()),
                committed=lambda offsets: None,
            ),  # type: ignore[arg-type]
        )
        self.service.attach(self.stream, LIMIT)  # type: ignore[arg-type]
        self.service.turn()  # joins
        self.service.assigned({0: Committed(0, "")})

    def turn(self, fetch: Callable[[], list[Message]]) -> None:
        self.stream.fetches.append(fetch)
        self.service.turn()

    def swap(self, revision: int) -> None:
        self.loader.ready = snapshot_at(revision)

    def shadow(self, revision: int) -> Snapshot:
        """The snapshot at this revision has version 2 as a shadow."""
        version = replace(snapshot_at(revision).champion, version=2)
        shadows = (Shadow(rollout=1, salt="s", share=10_000, version=version),)
        self.loader.ready = replace(snapshot_at(revision), shadows=shadows)
        return self.loader.ready

    def revoke(self, version: int) -> None:
        """The log said so at revision 2, and nothing newer is ready."""
        when = datetime(2026, 1, 1, tzinfo=UTC)
        revoked = Release(version, "sha256:c", Standing.REVOKED, 1, "test", when, "")
        newest = replace(self.follower.heard.deployment, revision=2, releases={version: revoked})
        self.follower.heard = Heard(newest, True, time.monotonic())


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
    assert scene.service.answering.holdings.partitions == ()


def forecast_at(offset: int) -> ForecastAnswer:
    forecast = Forecast(
        request_id="r",
        inputs=msgspec.Raw(b"{}"),
        outputs={"forecast": 1.0},
        model="m",
        version=1,
        digest="sha256:" + "0" * 64,
        variant=Variant.CHAMPION,
        revision=1,
        source=Source("m.requests", 0, offset, 1_000),
        scored_at=datetime(2026, 1, 1, tzinfo=UTC),
        instance="i",
    )
    incoming = Incoming("m.requests", 0, offset, 1_000, b"key", b"{}")
    return ForecastAnswer(incoming, encode_forecast(forecast), Variant.CHAMPION)


def written(*answers: Answer) -> Scene:
    """A service that wrote these answers and committed."""
    scene = Scene()
    scene.service._run(scene.service.answering.transactions.begin(scene.loader.ready))
    scene.service._run(scene.service.answering.transactions.write(answers))
    scene.service._run(scene.service.answering.transactions.commit())
    return scene


def test_a_forecast_that_the_producer_refuses_becomes_a_rejection() -> None:
    """The request is answered in the same transaction all the same, and counted as what was written."""
    scene = written(forecast_at(7))
    assert scene.stream.said[-2:] == [("answer", (7, 1)), ("commit", ({}, "log:1:head"))]
    assert scene.service.answering.transactions.reasons == {Reason.ANSWER_TOO_LARGE: 1}


def test_every_answer_of_a_mixed_batch_is_written_once() -> None:
    """Forecasts that are taken, those that are not, and rejections: each in one way, and all counted."""
    rejected = too_large(forecast_at(4), LIMIT)
    scene = written(forecast_at(2), forecast_at(3), rejected, forecast_at(5), forecast_at(6))
    assert scene.stream.said[-5:] == [
        ("forecasts", [2, 6]),
        ("answer", (3, 1)),
        ("answer", (4, 1)),
        ("answer", (5, 1)),
        ("commit", ({}, "log:1:head")),
    ]
    transactions = scene.service.answering.transactions
    assert (transactions.answered, transactions.rejected) == (2, 3)


def test_a_version_that_memory_is_short_for_is_not_refused_for_good() -> None:
    """It may fit in a moment, so the loop goes on waiting for it; any other rung is final."""
    scene = Scene()
    short, wrong = Refused(2, "memory", "too little"), Refused(3, "golden", "other numbers")
    scene.loader.report = Report((1,), (short, wrong), (1,))
    assert scene.service._look().refused == {3: "golden: other numbers"}


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


def test_a_batch_goes_to_the_shadows_after_its_answers_were_written() -> None:
    """What waits for a shadow names the snapshot that answered; without shadows nothing waits."""
    scene = Scene()
    scene.turn(lambda: [Message(0)])
    assert scene.shadows.in_use() == ()
    shadowed = scene.shadow(2)
    scene.turn(lambda: [Message(1)])
    assert scene.stream.said[-1] == ("answer", (1, 2))
    assert scene.shadows.in_use() == (shadowed,)


def test_one_more_shadow_at_the_same_revision_begins_a_new_transaction() -> None:
    """The open one is committed under the same stamp, and nothing is answered twice."""
    scene = Scene()
    scene.turn(lambda: [Message(0)])
    scene.shadow(1)
    scene.turn(lambda: [Message(1)])
    assert [said for said in scene.stream.said if said[0] != "begin"] == [
        ("answer", (0, 1)),
        ("commit", ({0: 1}, "log:1:head")),
        ("answer", (1, 1)),
    ]


@pytest.mark.parametrize(("revoked", "answers"), [(2, True), (1, False)])
def test_only_a_revoked_version_that_answers_stops_the_answers(revoked: int, answers: bool) -> None:
    """A shadow's version that was read to be revoked leaves the champion alone."""
    scene = Scene()
    scene.shadow(1)
    scene.revoke(revoked)
    scene.turn(lambda: [Message(0)])
    assert (("answer", (0, 1)) in scene.stream.said) is answers


def test_the_lag_is_what_lies_ahead_of_the_positions(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is measured once an interval, and not known outside the group."""
    scene = Scene()
    assert scene.service.lag is None
    monkeypatch.setattr(scene.service, "_lag_due", 0.0)
    scene.turn(lambda: [Message(0), Message(1)])
    assert scene.service.lag == 10
    scene.turn(list)
    assert scene.service.lag == 10, "not due yet"
    monkeypatch.setattr(scene.service, "_lag_due", 0.0)
    scene.turn(list)
    assert scene.service.lag == 8


def test_others_see_what_is_served_without_its_models() -> None:
    """The revision, the champion and its last day change with the snapshot that answers."""
    scene = Scene()
    assert scene.service.answering.serving == Serving(1, 1, LAST_DAY)
    scene.swap(2)
    scene.turn(lambda: [Message(0)])
    assert scene.service.answering.serving == Serving(2, 1, LAST_DAY)
