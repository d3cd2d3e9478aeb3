"""SQL over answer files: the views say what the records said, and a statement reads nothing else."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from adapters.answer_query import AnswerQuery
from adapters.answer_rows import columns_of, records_of
from adapters.object_store import open_store
from adapters.settings import Settings, load_settings
from schemas.answer_file import Kind, Record
from schemas.errors import ModelwireError, UsageProblem
from schemas.events import ModelReleased
from schemas.forecast import Variant
from tests.answers import (
    NOON,
    digest,
    event_records,
    forecast_record,
    rejection_record,
    store_answers,
)

MODEL = "sales"
YESTERDAY = NOON - timedelta(days=1)
GARBAGE = Record(90, int(NOON.timestamp() * 1_000), b"\xff", b"nothing of ours")

OLD = [forecast_record(MODEL, n, YESTERDAY, units=1.0) for n in range(3)]
NEW = [
    forecast_record(MODEL, 3, NOON, version=2, variant=Variant.CANDIDATE, p90=9.0, units=2.0),
    forecast_record(MODEL, 4, NOON, inputs=b'{"country":"Spain","version":"7"}', units=3.0),
    GARBAGE,
]
REJECTED = [
    rejection_record(MODEL, 5),
    rejection_record(MODEL, 6, value=b"\xff no JSON", version=0),
    rejection_record(MODEL, 7, value=None),
]
EVENTS = event_records(MODEL, ModelReleased(1, digest(1)), at=NOON - timedelta(days=40))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """An empty store for answers, beside one for bundles."""
    return load_settings(
        store_url=(tmp_path / "bundles").as_uri(),
        audit={"store_url": (tmp_path / "o'brien's answers").as_uri()},
    )


@pytest.fixture
def stored(settings: Settings) -> Settings:
    """Two days of forecasts, rejections and a control log; no shadow."""
    store = open_store(settings.audit_url)
    for kind, records in (
        (Kind.FORECASTS, OLD),
        (Kind.FORECASTS, NEW),
        (Kind.REJECTIONS, REJECTED),
        (Kind.CONTROL, EVENTS),
    ):
        store_answers(store, kind, MODEL, records)
    return settings


@pytest.fixture
def answers(stored: Settings) -> Iterator[AnswerQuery]:
    """A query over all of them."""
    with AnswerQuery(stored, MODEL) as query:
        yield query


def counted(query: AnswerQuery) -> dict[str, int]:
    """Rows of each view."""
    rows = {kind.value: query.fetch(f"SELECT count(*) AS n FROM {kind}") for kind in Kind}
    return {kind: table["n"][0].as_py() for kind, table in rows.items()}


def test_every_record_has_a_row(answers: AnswerQuery) -> None:
    """Garbage included; a kind without files has no rows and all of its columns."""
    assert counted(answers) == {"forecasts": 6, "rejections": 3, "shadow": 0, "control": 1}
    for kind in Kind:
        names = answers.fetch(f"SELECT * FROM {kind}").column_names
        assert [name for name in names if not name.startswith("output_")] == [
            *columns_of(kind),
            "file",
        ]
    assert {"output_units", "output_p90"} <= set(answers.columns[Kind.FORECASTS])


@pytest.mark.parametrize(
    ("kind", "records"),
    [(Kind.FORECASTS, [*OLD, *NEW]), (Kind.REJECTIONS, REJECTED), (Kind.CONTROL, EVENTS)],
)
def test_whole_rows_give_the_records_back(
    answers: AnswerQuery, kind: Kind, records: list[Record]
) -> None:
    """Byte for byte, so that an answer that was found can be proved."""
    rows = answers.fetch(f'SELECT * FROM {kind} ORDER BY "offset"')
    assert list(records_of(kind, rows)) == records


def test_a_row_names_its_file(answers: AnswerQuery) -> None:
    """By the key in the store."""
    rows = answers.fetch("SELECT file FROM forecasts WHERE request_id = $id", {"id": "r-4"})
    assert rows["file"].to_pylist() == [
        f"audit/forecasts/{MODEL}/2026-11-20/00000-{3:020d}.parquet"
    ]


def test_files_with_other_outputs_go_together(answers: AnswerQuery) -> None:
    """What a version did not give is null."""
    rows = answers.fetch('SELECT output_p90 AS p FROM forecasts ORDER BY "offset"')
    assert rows["p"].to_pylist() == [None, None, None, 9.0, None, None]


@pytest.mark.parametrize(
    ("since", "until", "forecasts", "rejections"),
    [
        (NOON, None, 3, 3),
        (NOON + timedelta(milliseconds=1), None, 0, 0),
        (None, NOON, 3, 0),
        (YESTERDAY, NOON, 3, 0),
        (datetime(2020, 1, 1, tzinfo=UTC), None, 6, 3),
        (datetime(2020, 1, 1, tzinfo=UTC), YESTERDAY, 0, 0),
        (None, datetime.min.replace(tzinfo=UTC), 0, 0),
    ],
)
def test_times_cut_answers_and_never_the_control_log(
    stored: Settings,
    since: datetime | None,
    until: datetime | None,
    forecasts: int,
    rejections: int,
) -> None:
    """From a time on, and to before another; files of other days are not even opened."""
    with AnswerQuery(stored, MODEL, since=since, until=until) as query:
        expected = {"forecasts": forecasts, "rejections": rejections, "shadow": 0, "control": 1}
        assert counted(query) == expected
        days = {name.day for name in query.files if name.kind is Kind.FORECASTS}
        assert not [day for day in days if since is not None and day < since.date()]


@pytest.mark.parametrize(
    ("where", "forecasts", "rejections"),
    [
        ({"version": "2"}, 1, 0),
        ({"version": "1", "country": "France"}, 3, 2),
        ({"country": "Spain"}, 1, 0),
        ({"stockcode": "7"}, 0, 1),
        ({"inputs.version": "7"}, 1, 0),
        ({"reason": "wrong-type"}, 6, 3),
        ({"output_units": "3"}, 1, 3),
        ({"a\"b'c": "x"}, 0, 0),
        ({"key": "o'clock"}, 0, 0),
    ],
)
def test_conditions_name_columns_or_the_fields_of_requests(
    stored: Settings, where: dict[str, str], forecasts: int, rejections: int
) -> None:
    """A view that has not the column is not cut; requests that are no JSON have no fields."""
    with AnswerQuery(stored, MODEL, where=where) as query:
        assert counted(query) == {
            "forecasts": forecasts,
            "rejections": rejections if where != {"version": "1", "country": "France"} else 1,
            "shadow": 0,
            "control": 1,
        }


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("SELEC 1", "syntax error"),
        ("SELECT nope FROM forecasts", '"nope" not found'),
        ("SELECT * FROM nope", "nope does not exist"),
        ("SELECT CAST(request_id AS INTEGER) FROM forecasts", "Could not convert"),
        ("SELECT * FROM forecasts WHERE version = $v", "v"),
        ("", "no statement"),
        ("SELECT 1; SELECT 2", "2 statements"),
        ("CREATE TABLE t AS SELECT 1", "CREATE"),
        ("COPY (SELECT 1) TO 'x.csv'", "COPY"),
        ("SET memory_limit = '90GB'", "SET"),
        ("INSTALL httpfs", "LOAD"),
        ("SELECT * FROM read_csv('{folder}/secret.csv')", "reads more than answers"),
        ("SELECT * FROM '{folder}/secret.csv'", "reads more than answers"),
        ("SELECT * FROM read_text('{folder}/*')", "reads more than answers"),
        ("SELECT * FROM stored", "does not exist"),
    ],
)
def test_what_a_statement_may_not_do_is_said_in_a_sentence(
    answers: AnswerQuery, tmp_path: Path, sql: str, said: str
) -> None:
    """It reads answers and nothing else: no other file, no setting, no variable of this program."""
    (tmp_path / "secret.csv").write_text("a\n1\n")
    stored = pa.table({"a": [1]})
    with pytest.raises(UsageProblem) as problem:
        answers.fetch(sql.replace("{folder}", str(tmp_path)))
    assert said in problem.value.message
    assert "\n" not in problem.value.message
    assert len(stored) == 1
    assert not (tmp_path / "x.csv").exists()


def test_bytes_that_are_no_text_are_said_to_be_none(stored: Settings) -> None:
    """As a shell hands them over: in a statement, in a parameter, in a condition."""
    with AnswerQuery(stored, MODEL) as query:
        for sql, values in (("SELECT '\udcff'", {}), ("SELECT $v", {"v": "\udcff"})):
            with pytest.raises(UsageProblem):
                query.fetch(sql, values)
    for where in ({"a": "\udcff"}, {"\udcff": "a"}):
        with pytest.raises(UsageProblem, match="is no text"):
            AnswerQuery(stored, MODEL, where=where)


@pytest.mark.parametrize("left", [0, 100, -20])
def test_a_damaged_file_is_named(stored: Settings, left: int) -> None:
    """And the world is to blame, not the SQL."""
    (path,) = Path.cwd().glob("o'brien's answers/audit/rejections/**/*.parquet")
    content = path.read_bytes()
    path.write_bytes(content[:left])
    with pytest.raises(ModelwireError) as problem, AnswerQuery(stored, MODEL) as query:
        query.fetch("SELECT * FROM rejections")
    assert not isinstance(problem.value, UsageProblem)
    assert path.name in problem.value.message
    assert "audit check" in problem.value.hint


def test_other_files_beside_the_answers_are_left_out(stored: Settings) -> None:
    """What is no answer file by its name is none."""
    folder = next(Path.cwd().glob("o'brien's answers/audit/forecasts/sales/2026-11-20"))
    (folder / "notes.parquet").write_bytes(b"no")
    (folder / "00000-3.parquet").write_bytes(b"no")
    with AnswerQuery(stored, MODEL) as query:
        assert counted(query)["forecasts"] == 6


def test_results_stream(answers: AnswerQuery) -> None:
    """In batches, as they are read."""
    reader = answers.stream("SELECT * FROM range(100_000)")
    sizes = [len(batch) for batch in reader]
    assert sum(sizes) == 100_000
    assert len(sizes) > 3


def test_a_statement_takes_no_more_memory_than_it_may(stored: Settings) -> None:
    """It says so; the process goes on."""
    with AnswerQuery(stored, MODEL, memory_megabytes=16) as query:
        with pytest.raises(ModelwireError, match="memory"):
            query.fetch("SELECT list(repeat('x', 1000) || i) FROM range(1_000_000) r(i)")
        assert query.fetch("SELECT count(*) AS n FROM forecasts")["n"][0].as_py() == 6


def test_nothing_is_left_behind(stored: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder of what it wrote beside the files goes."""
    folder = Path.cwd() / "tmp"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    with AnswerQuery(stored, MODEL) as query:
        assert len(list(folder.iterdir())) == 1
        counted(query)
    assert list(folder.iterdir()) == []
