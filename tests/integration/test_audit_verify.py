"""Answers of a real run derived again: all of them, and each thing that was tampered with by its name."""

import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from adapters.answer_files import read_footer
from adapters.onnx_model import runtime_name
from audit.lines import encode_line, line_of
from schemas.answer_file import Kind, Record
from schemas.events import ModelReleased, Recorded, encode_event, new_event
from tests.audited import GOOD, SENDINGS, AuditedRun
from tests.keeping import file_of

pytestmark = pytest.mark.stack


def test_every_answer_of_a_run_comes_out_again_bit_for_bit(audited: AuditedRun) -> None:
    """Forecasts of four versions, a canary, an undo; and rejections, also of bytes not kept."""
    report = audited.verify("--sample", "100000")
    answered = audited.answered()
    assert report["checked"] == answered
    assert report["outcomes"] == {
        "identical": answered,
        "within-tolerance": 0,
        "differs": 0,
        "not-derivable": 0,
    }
    assert report["runtimes"] == {runtime_name(): answered}
    assert report["answers"] == []
    assert report["revisions"] >= 5


@pytest.fixture
def restored(audited: AuditedRun) -> Iterator[AuditedRun]:
    """The run, whose stores are as they were again afterwards."""
    with audited.restoring():
        yield audited


def _set(column: str, offset: int, value: object) -> Callable[[pa.Table], pa.Table]:
    """The change of one cell."""

    def change(table: pa.Table) -> pa.Table:
        place = table["offset"].to_pylist().index(offset)
        cells = table[column].to_pylist()
        assert cells[place] != value
        cells[place] = value
        of = table.schema.field(column)
        return table.set_column(table.schema.names.index(column), of, pa.array(cells, of.type))

    return change


def _target(row: dict[str, Any]) -> str:
    return f"{row['topic']}/{row['partition']}/{row['offset']}"


def _whats(report: dict[str, Any]) -> list[list[str]]:
    return [[fault["what"] for fault in each["faults"]] for each in report["answers"]]


@pytest.mark.parametrize(
    ("column", "value", "whats"),
    [
        ("outputs", '{"forecast":1.5}', ["row", "row", "row", "outputs"]),
        ("revision", 3, ["row", "row", "routing"]),
        ("version", 3, ["row", "row", "routing"]),
        ("key", "somebody-else", ["row", "row"]),
    ],
)
def test_an_edited_row_is_told_by_its_file_the_next_file_and_what_comes_out(
    restored: AuditedRun, column: str, value: object, whats: list[str]
) -> None:
    """The digest of the records, that of the bytes, the row's other columns, and the answer itself."""
    name, row = restored.an_answer()
    restored.edit(name, _set(column, row["offset"], value))
    report = restored.verify(_target(row), code=1)
    assert _whats(report) == [whats]
    assert name.key in report["answers"][0]["faults"][0]["why"]


def test_the_neighbours_of_an_edited_row_come_out_again_and_their_file_is_at_fault(
    restored: AuditedRun,
) -> None:
    """So that it is plain which row was edited."""
    name, row = restored.an_answer()
    restored.edit(name, _set("outputs", row["offset"], '{"forecast":1.5}'))
    report = restored.verify("--sample", "100000", code=1)
    touched = [each for each in report["answers"] if each["file"] == name.key]
    assert len(touched) == len(report["answers"]) == pq.read_metadata(restored.path(name)).num_rows
    by_what = Counter(tuple(dict.fromkeys(each)) for each in _whats(report))
    assert by_what == {("row",): len(touched) - 1, ("row", "outputs"): 1}


def test_an_edit_that_mends_the_footer_is_told_by_the_file_after(restored: AuditedRun) -> None:
    """Whoever writes a whole new file cannot write the digest that stands in the next one."""
    name, row = restored.an_answer()
    records = restored.records(name)
    place = [record.offset for record in records].index(row["offset"])
    value = (records[place].value or b"").replace(row["outputs"].encode(), b'{"forecast":9.25}')
    records[place] = msgspec.structs.replace(records[place], value=value)
    footer = read_footer(restored.path(name).read_bytes(), name)
    topic = restored.harness.topics.results
    path = restored.path(name)
    path.chmod(0o644)
    path.write_bytes(
        file_of(
            name.kind,
            name.model,
            topic,
            name.partition,
            records,
            name.day,
            previous=footer.previous,
            first=footer.first,
        )[1]
    )
    report = restored.verify(_target(row), code=1)
    assert _whats(report) == [["row", "outputs"]]
    assert "says that its bytes had the digest" in report["answers"][0]["faults"][0]["why"]
    [neighbour] = [record.offset for record in records[place + 1 : place + 2]] or [
        records[0].offset
    ]
    other = restored.verify(f"{topic}/{name.partition}/{neighbour}", code=1)
    assert _whats(other) == [["row"]]


@pytest.mark.parametrize("file", ["model.onnx", "manifest.json"])
def test_a_tampered_bundle_is_named_and_answers_of_the_others_are_not(
    restored: AuditedRun, file: str
) -> None:
    """One bit of the model, or one of its manifest; also for what the champion beside it answered."""
    [digest] = {each.data.digest for each in restored.events() if _releases(each, 3)}
    path = restored.store / "bundles" / digest.removeprefix("sha256:") / file
    spoiled = bytearray(path.read_bytes())
    spoiled[len(spoiled) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(spoiled)
    report = restored.verify("--sample", "100000", code=1)
    assert {each["version"] for each in report["answers"]} == {3}
    assert {tuple(each) for each in _whats(report)} == {("bundle",)}
    assert report["outcomes"]["identical"] == restored.answered() - len(report["answers"])
    assert digest in report["answers"][0]["faults"][0]["why"]
    shutil.rmtree(path.parent)
    gone = restored.verify("--sample", "100000", code=1)
    assert {tuple(each) for each in _whats(gone)} == {("bundle",)}


def test_a_tampered_control_log_is_told_by_its_hashes(restored: AuditedRun, tmp_path: Path) -> None:
    """What is before it still counts; from there on nothing does, though routing comes out otherwise."""
    lines = [encode_event(each.event) for each in restored.events()]
    at = next(n for n, line in enumerate(lines) if b'"weight":2500' in line)
    lines[at] = lines[at].replace(b'"weight":2500', b'"weight":2600')
    log = tmp_path / "control.jsonl"
    log.write_bytes(b"\n".join(lines) + b"\n")
    report = restored.verify("--sample", "100000", "--control-log", str(log), code=1)
    assert report["control_log"]["what"] == "control-log"
    assert f"revision {at + 1}" in report["control_log"]["why"]
    whats = Counter(each["revision"] for each in report["answers"])
    assert min(whats) == at + 1
    assert all("control-log" in each for each in _whats(report))
    fine = report["outcomes"]["identical"]
    assert fine == report["checked"] - len(report["answers"]) > GOOD


def test_a_tampered_copy_of_the_log_in_the_store_is_told_too(restored: AuditedRun) -> None:
    """The last event has no hash after it; the log on Kafka shows that it is another."""
    [name] = [name for name in restored.names if name.kind is Kind.CONTROL]
    events = [encode_event(each.event) for each in restored.events()]
    records = restored.records(name)
    last = records[-1]
    assert last.value == events[-1]
    records[-1] = msgspec.structs.replace(last, value=events[-1].replace(b'"test"', b'"eve"'))
    path = restored.path(name)
    path.chmod(0o644)
    topic = restored.harness.topics.control
    path.write_bytes(file_of(name.kind, name.model, topic, 0, records, name.day)[1])
    report = restored.verify("--sample", "10", "--seed", "1", code=1)
    assert f"from revision {len(events)} on" in report["control_log"]["why"]
    assert "Kafka" in report["control_log"]["why"]
    assert restored.verify("--sample", "10", "--control-log", "store")["control_log"] is None


def test_a_log_that_was_cut_short_is_told_by_its_copy(restored: AuditedRun) -> None:
    """What it still has counts; that something is missing is said all the same."""
    [name] = [name for name in restored.names if name.kind is Kind.CONTROL]
    events, records = restored.events(), restored.records(name)
    versions = [each.data.version for each in events if isinstance(each.data, ModelReleased)]
    another = new_event(
        ModelReleased(max(versions) + 1, f"sha256:{'e' * 64}"),
        model=name.model,
        revision=len(events) + 1,
        previous=events[-1].hash,
        commandid="cut-off",
        actor="ann@desk",
        time=datetime.now(UTC),
    )
    last = records[-1]
    records.append(Record(last.offset + 9, last.time_ms, None, encode_event(another)))
    path = restored.path(name)
    path.chmod(0o644)
    topic = restored.harness.topics.control
    path.write_bytes(file_of(name.kind, name.model, topic, 0, records, name.day)[1])
    report = restored.verify("--sample", "10", "--seed", "1", code=1)
    assert report["outcomes"]["identical"] == 10
    assert f"it ends at revision {len(events)} in Kafka" in report["control_log"]["why"]
    model = restored.harness.model
    restored.audit("state", "--model", model, code=5)
    restored.audit("state", "--model", model, "--at", str(len(events)))


def test_log_lines_are_held_against_their_answers(audited: AuditedRun, tmp_path: Path) -> None:
    """A line as it was written is right; one of which a value was changed is named with it."""
    lines = []
    for kind in (Kind.FORECASTS, Kind.REJECTIONS):
        name, row = (
            audited.an_answer(kind, version=2) if kind is Kind.FORECASTS else audited.a_rejection()
        )
        lines.append(encode_line(line_of(kind, audited.harness.model, row)))
        assert name.kind is kind
    path = tmp_path / "lines.jsonl"
    path.write_bytes(b"\n".join([*lines, b"not a line", b'{"event":{}}']))
    report = audited.verify("--lines", str(path))
    assert report["lines"] == {"checked": 2, "passed_over": 2, "faults": []}
    assert report["outcomes"]["identical"] == 2
    altered = lines[0].replace(b'"version":2', b'"version":1')
    stranger = re.sub(rb'/\d+","outcome"', b'/99999999","outcome"', lines[0])
    path.write_bytes(b"\n".join([altered, lines[1], stranger]))
    report = audited.verify("--lines", str(path), code=1)
    first, second = report["lines"]["faults"]
    assert (first["what"], second["what"]) == ("log-line", "log-line")
    assert "line 1 says modelwire.version = 1; the answer says 2" in first["why"]
    assert "line 3 is of" in second["why"]
    assert report["outcomes"]["identical"] == 2


def test_it_needs_no_broker_where_the_log_is_kept_too(audited: AuditedRun) -> None:
    """The object store alone proves an answer, by the log's own copy or by a file of it."""
    report = audited.verify(
        *("--sample", "500", "--seed", "7", "--control-log", "store"),
        *("--bootstrap-servers", "127.0.0.1:1"),
    )
    assert report["outcomes"]["identical"] == 500
    again = audited.verify("--sample", "500", "--seed", "7")
    assert (again["revisions"], again["outcomes"]) == (report["revisions"], report["outcomes"])


def test_answers_are_found_by_id_and_by_both_places(audited: AuditedRun) -> None:
    """An id that repeats stands for all its answers; one that there is not is not found."""
    _, row = audited.an_answer()
    source = f"{row['source_topic']}/{row['source_partition']}/{row['source_offset']}"
    for target in (source, _target(row)):
        [only] = audited.verify(target)["answers"]
        assert (only["request_id"], only["offset"]) == (row["request_id"], row["offset"])
    repeated = audited.verify(row["request_id"])["answers"]
    assert len(repeated) == SENDINGS  # each of the six times that requests were sent
    assert {each["request_id"] for each in repeated} == {row["request_id"]}
    text = audited.audit("verify", "--model", audited.harness.model, source)
    assert "1 of 1 answers" in text
    assert "identical" in text
    model = audited.harness.model
    audited.audit("verify", "--model", model, "nobody", code=4)
    audited.audit("verify", "--model", model, code=2)
    audited.audit("verify", "--model", model, "--sample", "2", "--since", "whenever", code=2)


def _releases(recorded: Recorded, version: int) -> bool:
    return isinstance(recorded.data, ModelReleased) and recorded.data.version == version
