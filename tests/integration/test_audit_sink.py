"""The sink on a real broker: what is committed is in the files once, whatever happens to either."""

import io
import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import NewPartitions  # type: ignore[attr-defined]

from adapters.answer_files import AnswerStore
from adapters.answer_source import AnswerSource, Left, Place
from adapters.file_store import FileStore
from adapters.kafka import admin
from adapters.object_store import StoreUnavailable
from audit.line_writer import LineWriter, Which
from audit.sink import Sink
from schemas.answer_file import Kind
from tests.fleet import Harness, environment_of, wait_for
from tests.kept_answers import (
    QUICK,
    checked,
    files_hold,
    files_of,
    run_once,
    start_sink,
    store_of,
)
from tests.s3_faults import Down, S3Faults
from tests.written_answers import Scribe, counts, topics_hold

pytestmark = pytest.mark.stack


def test_everything_that_is_committed_is_kept_once(harness: Harness) -> None:
    """Of all topics, in one go or in two; what was aborted is not there, and a third run adds nothing."""
    scribe = Scribe(harness)
    scribe.write(2_000)
    run_once(harness)
    scribe.write(500)
    run_once(harness)
    kept = files_hold(harness)
    assert kept == topics_hold(harness)
    assert counts(kept)[Kind.FORECASTS] == 2_500
    assert all(counts(kept)[kind] for kind in (Kind.SHADOW, Kind.REJECTIONS))
    files = files_of(harness)
    run_once(harness)
    assert files_of(harness) == files
    assert checked(harness)["clean"]


def test_a_running_sink_stores_what_is_old(harness: Harness) -> None:
    """Nobody waits longer than the setting says."""
    sink = start_sink(harness, **QUICK)
    Scribe(harness).write(1_000)
    wait_for("files of all partitions", lambda: len(sink.lines("audit.stored")) >= 9, 60)
    assert sink.terminate(30) == 0


def test_a_sink_that_is_stopped_stores_what_it_holds(harness: Harness) -> None:
    """SIGTERM is no reason to leave with an error, or to have read in vain."""
    sink = start_sink(harness, AUDIT__FILE_MEGABYTES="1")
    Scribe(harness).write(12_000)
    partitions = harness.settings.topics.partitions

    def topics() -> set[str]:
        return {line["key"].split("/")[1] for line in sink.lines("audit.stored")}

    # By then it has read of all topics, however busy the machine is.
    wait_for("a large file of each", lambda: len(sink.lines("audit.stored")) >= partitions, 60)
    assert topics() == {"forecasts"}
    assert sink.terminate(30) == 0
    assert topics() == {"forecasts", "shadow", "rejections"}
    assert sink.lines("audit.summary")[-1]["waiting_rows"] == 0
    assert sink.lines("audit.stop")
    run_once(harness)
    assert files_hold(harness) == topics_hold(harness)


def write_control(harness: Harness, *records: tuple[bytes | None, datetime]) -> None:
    """Write records to the control topic that are no events, at these times."""
    producer = Producer({"bootstrap.servers": harness.settings.kafka.bootstrap_servers})
    for value, at in records:
        producer.produce(
            harness.topics.control,
            value,
            b"\xff",
            timestamp=int(at.timestamp() * 1_000),
            headers=[("h", None), ("h", b"\x00")],
        )
    assert producer.flush(30) == 0


def test_a_file_holds_one_day_and_whatever_was_written(harness: Harness) -> None:
    """Records that are nothing are kept, and told; the next day begins the next file."""
    late = datetime(2026, 3, 1, 23, 59, 59, tzinfo=UTC)
    early = late + timedelta(seconds=2)
    write_control(harness, (b"no event", late), (None, late), (b"\xff", early), (b"{}", late))
    sink = start_sink(harness, "--once")
    assert sink.wait_for_exit() == 0
    days = [name.day.day for name in store_of(harness).names(Kind.CONTROL)]
    assert days == [1, 2, 1]
    assert files_hold(harness) == topics_hold(harness)
    assert sum(line["rows"] for line in sink.lines("audit.unreadable")) == 4
    assert checked(harness)["kinds"][3]["unreadable"] == 4


def test_a_sink_vouches_for_no_file_that_was_altered(harness: Harness) -> None:
    """Behind the next file nobody would look into it again: the sink ends, and copies nothing more."""
    scribe = Scribe(harness)
    scribe.write(600)
    run_once(harness)
    names = store_of(harness).names(Kind.FORECASTS)
    last = max((name for name in names if name.partition == 1), key=lambda name: name.first)
    path = Path(unquote(urlsplit(harness.settings.audit_url).path)) / last.key
    content = path.read_bytes()
    table = pq.read_table(path)
    prices = pa.array([7.5] * len(table))
    path.chmod(0o644)
    pq.write_table(
        table.set_column(table.column_names.index("output_units"), "output_units", prices), path
    )
    scribe.write(600)
    files = files_of(harness)
    said = harness.run("audit", "sink", "--model", harness.model, "--once", code=1)
    assert last.key in said
    assert "output_units" in said
    assert files_of(harness) == files
    path.write_bytes(content)
    run_once(harness)
    assert checked(harness)["clean"]
    assert files_hold(harness) == topics_hold(harness)


def test_a_topic_that_was_made_anew_is_refused(harness: Harness) -> None:
    """Its positions mean other records now."""
    scribe = Scribe(harness)
    scribe.write(300)
    run_once(harness)
    (files := files_of(harness)).sort()
    with admin(harness.settings) as asked:
        asked.results(asked.client.delete_topics([harness.topics.results]))
        wait_for(
            "the topic's end",
            lambda: harness.topics.results not in asked.client.list_topics().topics,
        )
    harness.run("topics", "create", harness.model)
    Scribe(harness).write(900)  # it is longer than it was
    said = harness.run("audit", "sink", "--model", harness.model, "--once", code=5)
    assert "has the id" in said
    assert "it was made anew" in said
    assert "audit.store_url" in said
    assert sorted(files_of(harness)) == files


def test_a_missing_model_is_not_found(harness: Harness) -> None:
    """Of the sink and of the check."""
    said = harness.run("audit", "sink", "--model", "nobody", "--once", code=4)
    assert "modelwire topics create nobody" in said
    said = harness.run("audit", "check", "--model", "nobody", "--no-broker", code=4)
    assert "there are no answer files" in said


def test_a_partition_that_was_added_is_copied_too(harness: Harness) -> None:
    """By a sink that runs already."""
    sink = start_sink(harness, **QUICK)
    sink.wait_for_line("audit.reading")
    with admin(harness.settings) as asked:
        more = NewPartitions(harness.topics.results, harness.settings.topics.partitions + 1)
        asked.results(asked.client.create_partitions([more]))
    fresh = harness.settings.topics.partitions
    producer = Producer({"bootstrap.servers": harness.settings.kafka.bootstrap_servers})

    def is_written() -> bool:
        said: list[object] = []
        producer.produce(
            harness.topics.results, b"?", partition=fresh, on_delivery=lambda e, _: said.append(e)
        )
        assert producer.flush(30) == 0
        return said == [None]  # until then the broker does not know of it

    wait_for("a record in the partition", is_written)
    sink.wait_for_line("audit.stored", 60)
    assert sink.terminate(30) == 0
    assert files_hold(harness) == topics_hold(harness)


def test_a_store_that_is_away_loses_nothing(
    harness_behind: Harness, faults: S3Faults, heal: Callable[[], None]
) -> None:
    """The sink waits, with what it holds and no more, and stores it once the store is back."""
    harness = harness_behind
    scribe = Scribe(harness)
    environment = {"S3__ENDPOINT": faults.endpoint}
    sink = start_sink(harness, **QUICK, **environment)
    scribe.write(500)
    wait_for("a file", lambda: sink.lines("audit.stored"), 60)
    faults.fault = Down()
    scribe.write(2_000)
    sink.wait_for_line("audit.store_away", 60)
    heal()
    scribe.write(100)
    committed = counts(topics_hold(harness))
    wait_for(
        "all answers",
        lambda: sum(each["rows"] for each in sink.lines("audit.stored")) == sum(committed.values()),
        90,
    )
    assert sink.terminate(30) == 0
    assert files_hold(harness) == topics_hold(harness)
    assert checked(harness)["clean"]


class Forgetful(FileStore):
    """Stores what it is given, and the answer that says so is lost each time."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.lost: set[str] = set()

    def put_if_absent(self, key: str, content: bytes) -> bool:
        """As of the store, but for the first answer."""
        was_first = super().put_if_absent(key, content)
        if key not in self.lost:
            self.lost.add(key)
            raise StoreUnavailable(f"the answer to the put of {key} was lost")
        return was_first


def test_a_put_whose_answer_was_lost_is_no_lost_put(harness: Harness) -> None:
    """What lies there is what was put: the sink goes on behind it, and writes its lines."""
    Scribe(harness).write(600)
    folder = Path(unquote(urlsplit(harness.settings.audit_url).path))
    store = Forgetful(folder)
    source = AnswerSource(harness.settings, harness.model)
    written = io.BytesIO()
    lines = LineWriter(harness.model, Which.ALL, 1.0, written)
    answers = AnswerStore(store, harness.model)
    try:
        rows = Sink(
            harness.settings.audit, harness.model, source, answers, lines, lambda: False
        ).run(once=True)
    finally:
        source.close()
    assert {name.key for name in files_of(harness)} == store.lost
    assert files_hold(harness) == topics_hold(harness)
    assert rows == sum(counts(topics_hold(harness)).values()) == written.getvalue().count(b"\n")
    assert checked(harness)["clean"]


@pytest.fixture
def heal(faults: S3Faults) -> Callable[[], None]:
    """What ends the fault."""

    def end() -> None:
        faults.fault = None

    return end


def lines_of(harness: Harness, *options: str) -> list[str]:
    """The ids of the answers' lines that one run writes to stdout."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "modelwire",
            "audit",
            "sink",
            "--once",
            "--model",
            harness.model,
            *options,
        ],
        env=environment_of(harness.settings),
        cwd=harness.folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return [json.loads(line)["event"]["id"] for line in done.stdout.splitlines()]


def ids(harness: Harness, *kinds: Kind) -> list[str]:
    """Where the committed records of these kinds lie."""
    topics = {
        Kind.FORECASTS: harness.topics.results,
        Kind.SHADOW: harness.topics.shadow,
        Kind.REJECTIONS: harness.topics.rejections,
    }
    held = topics_hold(harness)
    return sorted(
        f"{topics[kind]}/{partition}/{offset}" for kind in kinds for partition, offset in held[kind]
    )


def test_each_answer_has_its_line_once_it_is_stored(harness: Harness) -> None:
    """Once, over two runs; and again from where a kill cut them off, of the last file."""
    scribe = Scribe(harness)
    scribe.write(400)
    everything = (Kind.FORECASTS, Kind.SHADOW, Kind.REJECTIONS)
    first = lines_of(harness, "--log-lines", "all")
    assert sorted(first) == ids(harness, *everything)
    scribe.write(100)
    second = lines_of(harness, "--log-lines", "all")
    assert sorted(first + second) == ids(harness, *everything)
    source = AnswerSource(harness.settings, harness.model)
    place = Place(Kind.REJECTIONS, 0)
    held = [offset for _, offset in topics_hold(harness)[Kind.REJECTIONS]]
    source.commit({place: Left(sorted(held)[-3], sorted(held)[-3])})
    source.close()
    again = lines_of(harness, "--log-lines", "all")
    assert again == [f"{harness.topics.rejections}/0/{at}" for at in sorted(held)[-3:]]


def test_lines_can_be_of_rejections_alone_or_of_a_share(harness: Harness) -> None:
    """Rejections are always told."""
    scribe = Scribe(harness)
    scribe.write(300)
    first = lines_of(harness, "--log-lines", "rejections")
    assert sorted(first) == ids(harness, Kind.REJECTIONS)
    scribe.write(1_000)
    some = lines_of(harness, "--log-lines", "all", "--sample", "0.2")
    rejections = [each for each in some if each.startswith(harness.topics.rejections)]
    assert sorted(first + rejections) == ids(harness, Kind.REJECTIONS)
    assert 120 < len(some) - len(rejections) < 340  # of 1,100
