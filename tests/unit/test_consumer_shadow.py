"""The shadow scorer: the champion first, a bound on what waits, and every loss counted.

The topic is a broker that is not there: answers are taken by the producer and never delivered.
"""

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from example_contracts import Arithmetic, incoming, loaded, request, snapshot_of
from structlog.testing import capture_logs

from adapters.settings import Settings
from adapters.shadow_stream import Handed, ShadowStream
from consumer import shadow as module
from consumer.journal import Journal
from consumer.shadow import MOST_ENDS, ROW_BYTES, ShadowScorer
from consumer.tallies import Count, Meter, TallyName
from deployment.state import Deployment, Rollout, empty
from schemas.forecast import Variant
from scoring.batch import Incoming
from scoring.model import Array, Model
from scoring.snapshot import Shadow, Snapshot
from tests.fleet import LIMIT_SECONDS, wait_for

NAME = TallyName(4, 2, Variant.SHADOW)
NOBODY = "127.0.0.1:1"


class Gated:
    """A model that runs only while its gate is open."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.runs = 0
        self.thread = ""
        self._model = Arithmetic()

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        """What ``Arithmetic`` gives, once the gate is open."""
        self.runs += 1
        self.thread = threading.current_thread().name
        assert self.gate.wait(LIMIT_SECONDS)
        return self._model.run(feeds, outputs)


class OutOfMemory:
    """A model that cannot have the memory that it wants."""

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        """Never anything."""
        raise MemoryError


def shadowed(model: Model, share: int = 10_000, revision: int = 5) -> Snapshot:
    """A snapshot whose shadow, of rollout 4, is version 2 with this model."""
    shadow = Shadow(4, "dark", share, loaded(model, version=2))
    return replace(snapshot_of(loaded(Arithmetic())), revision=revision, shadows=(shadow,))


def running(*rollouts: int) -> Deployment:
    """The state in which these shadows run."""
    when = datetime(2026, 1, 1, tzinfo=UTC)
    shadows = {name: Rollout(name, 2, "shadow", "dark", 0, when, name, 10_000) for name in rollouts}
    return replace(empty("sales"), shadows=shadows)


def batch(count: int, first: int = 0, store: str = "s1") -> list[Incoming]:
    """Requests that are answered, or fail in the model where the store is bad."""
    inputs = {"store": store, "day": "2017-08-03", "promo": True, "price": 2.5}
    value = request(inputs)
    offsets = range(first, first + count)
    return [incoming(value, offset=offset, key=b"k%d" % offset) for offset in offsets]


NO_JOURNAL = Journal(Path("/dev/null"), "nowhere")


class Scene:
    """A scorer with a broker that is not there; ``newest`` may be replaced."""

    def __init__(self, kilobytes: int = 8_192, journal: Journal = NO_JOURNAL) -> None:
        settings = Settings(
            kafka={"bootstrap_servers": NOBODY},  # type: ignore[arg-type]
            consumer={"shadow_queue_kilobytes": kilobytes},  # type: ignore[arg-type]
        )
        self.newest = running(4)
        self.in_use_when_let_go: list[tuple[Snapshot, ...]] = []
        self.scorer = ShadowScorer(settings, "sales", "sales-0", "r", journal)

    def start(self) -> None:
        """Start the thread."""
        self.scorer.start(lambda: self.newest, self._let_go)

    def _let_go(self) -> None:
        self.in_use_when_let_go.append(self.scorer.in_use())

    def count(self) -> Count:
        """The shadow's tally."""
        return self.scorer.counts().get(NAME, Count())

    def wait_until_scored(self, rows: int) -> None:
        """Until so many rows were answered or rejected."""
        wait_for(f"{rows} rows", lambda: self.count().answered + self.count().rejected >= rows)


@pytest.fixture
def scene() -> Iterator[Scene]:
    """A scorer that runs."""
    made = Scene()
    made.start()
    yield made
    made.scorer.stop()


def test_what_was_handed_over_is_scored_on_the_shadows_thread(scene: Scene) -> None:
    """Answers and rejections are counted; what is no request is not."""
    model = Gated()
    model.gate.set()
    rows = [*batch(20), *batch(2, first=20, store="bad"), incoming(b"poison", offset=22)]
    scene.scorer.hand_over(shadowed(model), rows, is_behind=False)
    scene.wait_until_scored(22)
    assert scene.count() == Count(answered=20, rejected=2)
    assert model.thread == "shadow"


def test_handing_over_never_waits_and_sheds_beyond_the_bound() -> None:
    """A shadow that hangs holds up nobody; what does not fit is counted with the shadow's share."""
    scene = Scene(kilobytes=64)
    scene.start()
    model = Gated()
    snapshot = shadowed(model, share=5_000)
    size = 64 * 1_024 // (len(batch(1)[0].value or b"") + ROW_BYTES)
    scene.scorer.hand_over(snapshot, batch(size), is_behind=False)
    wait_for("a model that hangs", lambda: model.runs)
    for each in range(1, 4):
        scene.scorer.hand_over(snapshot, batch(10, first=1_000 * each), is_behind=False)
    assert scene.count().shed == 15
    assert model.runs == 1
    model.gate.set()
    wait_for("an empty queue", lambda: not scene.scorer.in_use())
    assert scene.count().shed == 15
    scene.scorer.stop()


def test_a_batch_larger_than_the_bound_is_taken_when_nothing_waits() -> None:
    """Otherwise no large request would ever be scored."""
    scene = Scene(kilobytes=64)
    scene.scorer.hand_over(shadowed(Arithmetic()), batch(500), is_behind=False)
    scene.scorer.hand_over(shadowed(Arithmetic()), batch(1), is_behind=False)
    scene.start()
    scene.wait_until_scored(500)
    assert scene.count() == Count(answered=500, shed=1)
    scene.scorer.stop()


def test_nothing_is_scored_while_the_loop_is_behind(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits is scored once the loop has caught up."""
    looks: list[float] = []
    sleep = time.sleep

    def look(seconds: float) -> None:
        if threading.current_thread().name == "shadow":
            looks.append(seconds)
        sleep(seconds)

    monkeypatch.setattr("consumer.shadow.time.sleep", look)
    monkeypatch.setattr(module, "BEHIND_SECONDS", 1_000.0)
    scene.scorer.hand_over(shadowed(Arithmetic()), batch(10), is_behind=True)
    wait_for("the thread to look, and look again", lambda: len(looks) >= 4)
    assert (len(scene.scorer.in_use()), scene.count()) == (1, Count())
    monkeypatch.setattr(module, "BEHIND_SECONDS", 0.0)
    scene.scorer.hand_over(shadowed(Arithmetic()), batch(10), is_behind=True)
    scene.wait_until_scored(20)


def test_small_batches_that_wait_are_scored_as_one() -> None:
    """A run of a few rows costs as much as one of many; two snapshots never share one."""
    scene = Scene()
    model = Arithmetic()
    for revision in (5, 6):
        snapshot = shadowed(model, revision=revision)
        for each in range(10):
            scene.scorer.hand_over(snapshot, batch(3, first=3 * each), is_behind=False)
    scene.start()
    scene.wait_until_scored(60)
    assert model.sizes == [64, 64]
    scene.scorer.stop()


def test_what_was_in_hand_at_two_ends_is_left_out(tmp_path: Path) -> None:
    """A row that crashes a shadow's model brings the champion down twice, and then no more."""
    for _ in range(2):
        ended = Journal(tmp_path, "sales-0-shadow")
        ended.note(batch(2, first=5))
        ended.close()
    scene = Scene(journal=Journal(tmp_path, "sales-0-shadow"))
    scene.start()
    scene.scorer.hand_over(shadowed(Arithmetic()), batch(10), is_behind=False)
    scene.wait_until_scored(8)
    assert scene.count() == Count(answered=8, failed=2)
    scene.scorer.stop()


def test_a_shadow_that_was_scoring_at_three_ends_is_left_out(tmp_path: Path) -> None:
    """Whichever rows it were: what crashes on one row in a hundred must not go on ending the process."""
    shadow = shadowed(Arithmetic()).shadows[0]
    for number in range(MOST_ENDS):
        ended = Journal(tmp_path, "sales-0-shadow")
        ended.note(batch(2, first=1_000 * number), shadow.version.digest)
        ended.close()
    scene = Scene(journal=Journal(tmp_path, "sales-0-shadow"))
    scene.start()
    scene.scorer.hand_over(shadowed(Arithmetic()), batch(10, first=50_000), is_behind=False)
    wait_for("an empty queue", lambda: scene.in_use_when_let_go)
    assert scene.count() == Count(failed=10)
    scene.scorer.stop()


def test_a_shadow_that_does_well_is_clear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ends that had other reasons do not add up over the years."""
    monkeypatch.setattr(module, "WELL_SECONDS", 0.0)
    digest = shadowed(Arithmetic()).shadows[0].version.digest
    ended = Journal(tmp_path, "sales-0-shadow")
    ended.note(batch(2, first=1_000), digest)
    ended.close()
    journal = Journal(tmp_path, "sales-0-shadow")
    scene = Scene(journal=journal)
    scene.start()
    for number in range(2):
        scene.scorer.hand_over(shadowed(Arithmetic()), batch(5, first=5 * number), is_behind=False)
        scene.wait_until_scored(5 * number + 5)
    assert digest not in journal.ends
    scene.scorer.stop()


def test_a_shadow_that_ended_is_not_scored(scene: Scene) -> None:
    """However much waits: a version that was revoked gives nothing more, and is not counted."""
    scene.newest = running(9)
    model = Arithmetic()
    scene.scorer.hand_over(shadowed(model), batch(10), is_behind=False)
    wait_for("an empty queue", lambda: scene.in_use_when_let_go)
    assert model.sizes == []
    assert scene.scorer.counts() == {}


def test_a_canarys_shadow_counts_on_when_its_share_is_0_again(scene: Scene) -> None:
    """The screen and the guard see what it did, until the rollout is over."""
    scene.scorer.hand_over(shadowed(Arithmetic()), batch(10), is_behind=False)
    scene.wait_until_scored(10)
    (rollout,) = scene.newest.shadows.values()
    canary = replace(rollout, strategy="canary", shadow=0, weight=100)
    scene.newest = replace(scene.newest, rollout=canary, shadows={})
    assert scene.count().answered + scene.count().failed == 10
    scene.newest = replace(scene.newest, rollout=None)
    assert scene.scorer.counts() == {}


def test_trouble_in_scoring_is_counted_and_the_thread_lives_on(scene: Scene) -> None:
    """Also trouble of the process, such as memory."""
    scene.scorer.hand_over(shadowed(OutOfMemory()), batch(10), is_behind=False)
    wait_for("the failure", lambda: scene.count() == Count(failed=10))
    scene.scorer.hand_over(shadowed(Arithmetic()), batch(10), is_behind=False)
    scene.wait_until_scored(10)


def test_trouble_outside_of_scoring_does_not_end_the_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In merging, waking the loader, or the broker's reports: the batch counts as failed, no more."""
    scene = Scene()
    trouble = [True]

    def newest() -> Deployment:
        if threading.current_thread().name == "shadow" and trouble:
            raise MemoryError
        return scene.newest

    def let_go() -> None:
        scene._let_go()
        raise MemoryError

    def serve(stream: ShadowStream) -> None:
        served.append(stream)
        raise MemoryError

    served: list[ShadowStream] = []
    monkeypatch.setattr(ShadowStream, "serve", serve)
    scene.scorer.start(newest, let_go)
    with capture_logs() as lines:
        scene.scorer.hand_over(shadowed(Arithmetic(), share=5_000), batch(10), is_behind=False)
        wait_for("the failure", lambda: scene.count() == Count(failed=5))
        trouble.clear()
        for rows in (10, 20):
            scene.scorer.hand_over(shadowed(Arithmetic()), batch(10), is_behind=False)
            scene.wait_until_scored(rows)
        wait_for("an idle look at the broker's reports", lambda: served)
    assert [line["event"] for line in lines] == ["shadow.failed"]
    assert scene.in_use_when_let_go == [(), (), ()]
    scene.scorer.stop()


def test_what_was_shed_is_forgotten_with_its_rollout() -> None:
    """And not before: what another rollout sheds meanwhile does not take its count away."""
    scene = Scene(kilobytes=64)
    scene.newest = running(4, 9)
    scene.start()
    model = Gated()
    scene.scorer.hand_over(shadowed(model), batch(500), is_behind=False)
    wait_for("a model that hangs", lambda: model.runs)
    other = shadowed(model)
    other = replace(other, shadows=(replace(other.shadows[0], rollout=9),))
    for snapshot in (shadowed(model), other):
        scene.scorer.hand_over(snapshot, batch(10), is_behind=False)
    counts = scene.scorer.counts()
    assert (counts[NAME].shed, counts[NAME._replace(rollout=9)].shed) == (10, 10)
    scene.newest = running(9)
    scene.scorer.hand_over(other, batch(10), is_behind=False)
    assert list(scene.scorer._shed) == [NAME._replace(rollout=9)]
    model.gate.set()
    scene.scorer.stop()


def test_what_waits_or_runs_is_in_use_until_the_shadow_says_so(scene: Scene) -> None:
    """The loader is woken after the last reference of the thread is gone."""
    model = Gated()
    first, second = shadowed(model), shadowed(Arithmetic(), revision=6)
    scene.scorer.hand_over(first, batch(10), is_behind=False)
    wait_for("the first", lambda: model.runs)
    scene.scorer.hand_over(second, batch(10), is_behind=False)
    assert scene.scorer.in_use() == (first, second)
    model.gate.set()
    wait_for("both", lambda: len(scene.in_use_when_let_go) == 2)
    assert scene.in_use_when_let_go == [(second,), ()]


def test_a_stop_does_not_wait_for_a_shadow_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread is left behind; the process goes."""
    monkeypatch.setattr(module, "STOP_SECONDS", 0.05)
    scene = Scene()
    scene.start()
    model = Gated()
    scene.scorer.hand_over(shadowed(model), batch(10), is_behind=False)
    wait_for("a model that hangs", lambda: model.runs)
    scene.scorer.stop()
    assert scene.scorer.in_use() != ()
    model.gate.set()
    wait_for("the thread's end", lambda: not any(t.name == "shadow" for t in threading.enumerate()))


def test_an_answer_that_finds_no_room_is_turned_down_at_once() -> None:
    """The queue of the producer is bounded, and a full one is no error."""
    settings = Settings(
        kafka={
            "bootstrap_servers": NOBODY,
            "properties": {"topic.metadata.propagation.max.ms": "60000"},
        }  # type: ignore[arg-type]
    )
    stream = ShadowStream(settings, "sales", "sales-0")
    value = np.random.default_rng(1).bytes(1_000_000)
    taken = [stream.send(0, "0/1/2", value, lambda: None) for _ in range(20)]
    assert set(taken) == {Handed.TAKEN, Handed.FULL}
    assert taken.index(Handed.FULL) == 16
    stream.close(0.0)


def test_an_answer_that_is_given_up_is_told() -> None:
    """At the latest when the stream is closed."""
    stream = ShadowStream(
        Settings(kafka={"bootstrap_servers": NOBODY}),  # type: ignore[arg-type]
        "sales",
        "sales-0",
    )
    failed: list[int] = []
    for each in range(3):
        stream.send(0, f"0/{each}/2", b"{}", lambda each=each: failed.append(each))  # type: ignore[misc]
    stream.close(0.0)
    assert sorted(failed) == [0, 1, 2]


def test_a_rate_is_that_of_its_own_tally() -> None:
    """Measured over most of an interval; in between, that of before is told again."""
    meter: Meter[str] = Meter(1.0, 100.0)
    assert meter.measure({"a": 10}, 100.5) == {"a": 0.0}
    assert meter.measure({"a": 100, "b": 50}, 102.0) == {"a": 50.0, "b": 25.0}
    assert meter.measure({"a": 200, "b": 50, "c": 9}, 102.1) == {"a": 50.0, "b": 25.0, "c": 0.0}
    assert meter.measure({"b": 60}, 104.0) == {"b": 5.0}
