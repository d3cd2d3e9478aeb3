"""`modelwire audit query`: what it prints, and what it says where a question cannot be asked."""

import contextlib
import csv
import io
import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from adapters.object_store import open_store
from audit.query import parse_query
from audit.rows import MOST_SHOWN, table_of, write_csv, write_json, write_parquet
from modelwire.cli import modelwire
from schemas.answer_file import Kind
from schemas.events import ModelReleased
from tests.answers import (
    NOON,
    digest,
    event_records,
    forecast_record,
    rejection_record,
    store_answers,
)
from tests.fleet import wait_for
from tests.shell import ROOT, commands_in

ODD = pa.table(
    {
        "n": pa.array([1, None]),
        "t": pa.array([datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC), None]),
        "b": pa.array([b"\xff", None]),
        "l": pa.array([[1, 2], None]),
        "s": pa.array(['a,\n\x1b[31m"', None]),
        "f": pa.array([float("nan"), 0.1]),
    }
).append_column("n", pa.array([2**70, None], pa.decimal128(38, 0)))


@pytest.fixture
def store(tmp_path: Path) -> str:
    """Files of three forecasts and a rejection."""
    url = (tmp_path / "store").as_uri()
    records = [forecast_record("sales", n, version=1 + n // 2, units=n / 4) for n in range(3)]
    store_answers(open_store(url), Kind.FORECASTS, "sales", records)
    store_answers(open_store(url), Kind.REJECTIONS, "sales", [rejection_record("sales", 3)])
    return url


def ask(store: str, *arguments: str, model: str = "sales") -> Result:
    """Run the command as its user would."""
    line = ["audit", "query", "--store", store, "--model", model, *arguments]
    return CliRunner().invoke(modelwire, line, standalone_mode=False)


def test_json_has_every_value() -> None:
    """One object, whatever the columns hold; of two columns of one name neither is lost."""
    out = io.BytesIO()
    write_json(ODD.to_reader(), out)
    assert json.loads(out.getvalue()) == {
        "rows": [
            {
                "n": 1,
                "t": "2026-01-02T03:04:05.000006Z",
                "b": "/w==",
                "l": [1, 2],
                "s": 'a,\n\x1b[31m"',
                "f": None,
                "n_2": 2**70,
            },
            {"n": None, "t": None, "b": None, "l": None, "s": None, "f": 0.1, "n_2": None},
        ]
    }


def test_csv_reads_back() -> None:
    """Quoted where it must be; what is missing is empty."""
    out = io.BytesIO()
    write_csv(ODD.to_reader(), out)
    head, first, second = csv.reader(io.StringIO(out.getvalue().decode(), newline=""))
    assert head == ["n", "t", "b", "l", "s", "f", "n_2"]
    assert first == [
        *("1", "2026-01-02T03:04:05.000006Z", "/w==", "[1,2]"),
        *('a,\n\x1b[31m"', "nan", str(2**70)),
    ]
    assert second == ["", "", "", "", "", "0.1", ""]


def test_parquet_keeps_the_types() -> None:
    """And all rows."""
    out = io.BytesIO()
    write_parquet(ODD.to_reader(), out)
    read = pq.read_table(io.BytesIO(out.getvalue()))
    assert read.column_names == ["n", "t", "b", "l", "s", "f", "n_2"]
    assert list(read.schema.types) == list(ODD.schema.types)
    assert read["s"].to_pylist() == ODD["s"].to_pylist()


def test_nothing_is_valid_in_every_form() -> None:
    """No rows are an empty list, a line of names, a file without rows, and a sentence."""
    nothing = ODD.slice(0, 0)
    written = {}
    for write in (write_json, write_csv, write_parquet):
        out = io.BytesIO()
        write(nothing.to_reader(), out)
        written[write] = out.getvalue()
    assert json.loads(written[write_json]) == {"rows": []}
    assert written[write_csv] == b"n,t,b,l,s,f,n_2\n"
    assert pq.read_table(io.BytesIO(written[write_parquet])).num_rows == 0
    assert str(table_of(nothing.to_reader())) == "no rows"


def test_a_table_shows_the_first_rows_and_steers_no_terminal() -> None:
    """What callers wrote is escaped; how many rows there are is not known, but that there are more is."""
    out = io.StringIO()
    many = pa.table({"n": range(MOST_SHOWN + 1), "s": ["\x1b[31mred"] * (MOST_SHOWN + 1)})
    Console(file=out, width=120, force_terminal=True).print(table_of(many.to_reader()))
    shown = out.getvalue()
    assert "\\x1b[31mred" in shown
    assert "\x1b[31m" not in shown
    assert f"the first {MOST_SHOWN} rows" in shown
    assert shown.count("red") == MOST_SHOWN


def test_a_question_in_sql(store: str) -> None:
    """Cut by the options, as an object for programs."""
    done = ask(store, "SELECT version, count(*) AS n FROM forecasts GROUP BY ALL", "-o", "json")
    assert done.exit_code == 0
    rows = json.loads(done.stdout)["rows"]
    assert sorted((row["version"], row["n"]) for row in rows) == [(1, 2), (2, 1)]
    for options in (
        ["--version", "2"],
        ["--where", "request_id=r-2"],
        ["--version", "2", "--where", "country=France"],
    ):
        done = ask(store, "SELECT request_id FROM forecasts", "-o", "csv", *options)
        assert done.stdout == "request_id\nr-2\n"
    done = ask(store, "SELECT * FROM forecasts", "--until", "2026-11-20T12:00", "-o", "csv")
    assert (done.exit_code, done.stdout.count("\n")) == (0, 1)


def test_a_question_with_a_name(store: str) -> None:
    """Its parameters are given by name."""
    done = ask(store, "--named", "find", "--param", "id=r-1", "-o", "json")
    (row,) = json.loads(done.stdout)["rows"]
    assert (row["answer"], row["outputs"]) == ("forecast", '{"units":0.25}')
    done = ask(store, "--named", "by-version")
    assert done.exit_code == 0
    assert "2026-11-20 12:00:00.000Z" in done.stdout


def test_what_can_be_asked_is_listed(store: str) -> None:
    """The questions without a model, the columns of this one's answers with their types."""
    listed = CliRunner().invoke(modelwire, ["audit", "query", "--list", "-o", "json"])
    rows = {row["name"]: row for row in json.loads(listed.stdout)["rows"]}
    assert rows["top-movers"]["parameters"] == "before=0, after=0, least=1, limit=20, output"
    assert rows["find"]["parameters"] == "id"
    done = ask(store, "--columns", "-o", "json")
    columns = {(row["view"], row["column"]): row["type"] for row in json.loads(done.stdout)["rows"]}
    assert columns[("forecasts", "output_units")] == "DOUBLE"
    assert columns[("shadow", "time")] == "TIMESTAMP WITH TIME ZONE"
    assert {view for view, _ in columns} == {kind.value for kind in Kind}


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["SELEC 1"], 2, 'syntax error at or near "SELEC"'),
        (["SELECT nope FROM forecasts"], 2, '"nope" not found'),
        (["SELECT 1 FROM forecasts", "--where", "version=x"], 2, "Could not convert string 'x'"),
        ([], 2, "there is nothing to ask"),
        (["SELECT 1", "--named", "find"], 2, "there are two questions"),
        (["SELECT 1", "--param", "a=1"], 2, "--param is for named questions"),
        (["--named", "find"], 2, "find needs id: the request id"),
        (["--named", "find", "--param", "id=1", "--param", "x=1"], 2, "find has no parameter x"),
        (["--named", "repeats", "--param", "limit=ten"], 2, "limit must be a whole number"),
        (["--named", "latency", "--param", "period=soon"], 2, "Could not convert string 'soon'"),
        (["--named", "by-versions"], 4, "there is no named query by-versions"),
        (["--named", "by-version", "--param", "output=nope"], 4, "has an output nope"),
        (["--named", "by-version", "--until", "2026-11-20"], 4, "there are no answer files"),
        (["SELECT 1", "--where", "France"], 2, "--where France is no pair"),
        (["SELECT 1", "--where", "a=1", "--where", "a=2"], 2, "--where names a twice"),
        (["SELECT 1", "--where", "version=1", "--version", "2"], 2, "name the version twice"),
        (["SELECT 1", "--since", "soon"], 2, "--since: 'soon' is not a moment"),
    ],
)
def test_what_cannot_be_asked_is_said_in_a_sentence(
    store: str, arguments: Sequence[str], code: int, said: str
) -> None:
    """Found, where, what next; no traceback and no half of a result."""
    done = ask(store, *arguments)
    assert done.return_value == code, done.output
    assert said in done.stderr
    assert "next: " in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT sum(hash(a.range * b.range)) FROM range(10_000_000) a, range(1_000_000) b",
        "SELECT a.range, b.range FROM range(10_000_000) a, range(1_000_000) b",
    ],
)
def test_an_interrupted_question_ends_as_every_command_does(store: str, sql: str) -> None:
    """While DuckDB thinks, and while rows are printed: one word, exit code 130."""
    line = ["audit", "query", "--store", store, "--model", "sales", sql, "-o", "csv"]
    with subprocess.Popen(
        [sys.executable, "-m", "modelwire", *line],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as process:
        try:
            wait_for("the question to be asked", lambda: _cpu_seconds(process.pid) > 4)
            # Again and again, as people do: on a busy machine the first may come before the question.
            while process.poll() is None:
                process.send_signal(signal.SIGINT)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(5)
            said = process.stderr.read() if process.stderr is not None else ""
        finally:
            process.kill()
    assert (process.returncode, said.strip()) == (130, "interrupted")


def _cpu_seconds(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user)


def test_a_model_without_answers_is_not_found(store: str) -> None:
    """And what would copy some is said."""
    done = ask(store, "SELECT 1", model="other")
    assert done.return_value == 4
    assert "there are no answer files of other" in done.stderr
    assert "modelwire audit sink --model other" in done.stderr


def test_a_folder_of_rejections_alone_has_no_outputs(tmp_path: Path) -> None:
    """A question about an output says so; others are answered."""
    url = (tmp_path / "store").as_uri()
    store_answers(open_store(url), Kind.REJECTIONS, "sales", [rejection_record("sales", 3, NOON)])
    done = ask(url, "--named", "by-version")
    assert done.return_value == 4
    assert "there are no forecasts" in done.stderr
    done = ask(url, "--named", "volume", "-o", "json")
    assert json.loads(done.stdout)["rows"][0]["rejections"] == 1


@pytest.mark.parametrize(
    "text", ["SELECT 1", "-- $id: a parameter\nSELECT $id", "-- what\n-- not one\nSELECT 1"]
)
def test_a_file_without_its_comments_is_no_named_query(text: str) -> None:
    """Whoever adds one is told."""
    with pytest.raises(ValueError, match="mine"):
        parse_query("mine", text)


@pytest.mark.parametrize("page", ["find-an-answer.md", "ask-the-log.md"])
def test_what_the_pages_say_to_type_works(store: str, page: str) -> None:
    """Command by command, on answers of today."""
    now = datetime.now(UTC) - timedelta(minutes=5)
    records = [forecast_record("sales", 10, now)]
    events = event_records("sales", ModelReleased(1, digest(1)))
    store_answers(open_store(store), Kind.FORECASTS, "sales", records, partition=1)
    store_answers(open_store(store), Kind.CONTROL, "sales", events)
    commands = commands_in(ROOT / "docs" / "how-to" / page)
    assert len(commands) >= 3
    for command in commands:
        arguments = command[: command.index(">")] if ">" in command else command
        done = ask(store, *(each for each in arguments[2:] if each not in ("--model", "sales")))
        assert not done.return_value, (command, done.stderr)
        assert done.stdout_bytes
