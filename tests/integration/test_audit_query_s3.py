"""Answers on a real S3 server: found, counted, and what is said when they cannot be read."""

import json
import subprocess
import sys
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from adapters.answer_files import AnswerStore
from adapters.answer_query import AnswerQuery
from adapters.answer_rows import records_of
from adapters.object_store import StoreUnavailable, open_store
from adapters.s3_ranges import TAIL_BYTES
from adapters.settings import load_settings
from schemas.answer_file import Kind, Record
from schemas.errors import ModelwireError
from tests.answers import NOON, answer_file, forecast_record, store_answers
from tests.s3_faults import Down, S3Faults

if TYPE_CHECKING:
    from tests.conftest import RunningStack

pytestmark = pytest.mark.stack

LARGE = 30_000
"""Answers of a file of which the end is a part only."""


def store_days(stack: "RunningStack", prefix: str, model: str, days: int) -> list[Record]:
    """A large file of forecasts for each day; gives those of the last."""
    settings = stack.settings(prefix)
    store = open_store(settings.audit_url, settings.s3_settings)
    records: list[Record] = []
    for day in range(days):
        at = NOON + timedelta(days=day)
        first = day * LARGE
        records = [
            forecast_record(model, first + n, at, key=f"k-{n % 97}", version=day + 1)
            for n in range(LARGE)
        ]
        name, content = answer_file(Kind.FORECASTS, model, records)
        assert len(content) > TAIL_BYTES
        assert AnswerStore(store, model).put(name, content)
    return records


def test_answers_are_found_and_counted(stack: "RunningStack", model: str) -> None:
    """As in a folder: the same rows, give the same records back."""
    prefix = f"answers-{model}/below"
    last = store_days(stack, prefix, model, 2)
    with AnswerQuery(stack.settings(prefix), model) as answers:
        wanted = last[LARGE // 2]
        rows = answers.fetch(
            "SELECT * FROM forecasts WHERE request_id = $id", {"id": f"r-{wanted.offset}"}
        )
        assert list(records_of(Kind.FORECASTS, rows)) == [wanted]
        assert rows["file"][0].as_py().startswith(f"audit/forecasts/{model}/2026-11-21/")
        counted = answers.fetch(
            "SELECT version, count(*) AS n, count(DISTINCT inputs) AS i, sum(output_units) AS s "
            "FROM forecasts GROUP BY ALL ORDER BY version"
        )
        assert counted["n"].to_pylist() == [LARGE, LARGE]
        assert counted["i"].to_pylist() == [1, 1]
        assert counted["s"].to_pylist() == [
            float(sum(range(LARGE))),
            float(sum(range(LARGE, 2 * LARGE))),
        ]
        whole = answers.fetch('SELECT * FROM forecasts WHERE version = 2 ORDER BY "offset"')
        assert list(records_of(Kind.FORECASTS, whole)) == last


def test_the_command_reads_a_bucket(stack: "RunningStack", model: str) -> None:
    """A process of its own, settings from the environment; nothing but the rows is printed."""
    prefix = f"answers-{model}"
    settings = stack.settings(prefix)
    store = open_store(settings.audit_url, settings.s3_settings)
    store_answers(store, Kind.FORECASTS, model, [forecast_record(model, 7)])
    done = subprocess.run(
        [
            *(sys.executable, "-m", "modelwire", "audit", "query", "--model", model),
            *("SELECT request_id FROM forecasts", "-o", "json"),
        ],
        env=stack.environment(prefix),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == {"rows": [{"request_id": "r-7"}]}


def test_a_statement_reads_no_other_object(stack: "RunningStack", model: str) -> None:
    """Nor through the file system that reads the answers."""
    prefix = f"answers-{model}"
    settings = stack.settings(prefix)
    store = open_store(settings.audit_url, settings.s3_settings)
    store.put_if_absent("secret.csv", b"a\n1\n")
    store_answers(store, Kind.FORECASTS, model, [forecast_record(model, 7)])
    with AnswerQuery(settings, model) as answers, pytest.raises(ModelwireError) as problem:
        answers.fetch("SELECT * FROM read_csv('ranged://secret.csv')")
    assert "reads more than answers" in problem.value.message


def test_a_server_that_goes_away_is_said(
    stack: "RunningStack", faults: S3Faults, model: str
) -> None:
    """In one sentence with the file's name, not as a traceback of Python within a message of DuckDB."""
    prefix = f"answers-{model}"
    store_days(stack, prefix, model, 1)
    s3 = stack.s3.model_copy(update={"endpoint": faults.endpoint})
    settings = load_settings(store_url=stack.settings(prefix).store_url, s3=s3)
    with AnswerQuery(settings, model) as answers:
        faults.fault = Down()
        with pytest.raises(StoreUnavailable) as problem:
            answers.fetch("SELECT count(DISTINCT request_id) FROM forecasts")
    assert f"audit/forecasts/{model}/2026-11-20/" in problem.value.message
    assert "Traceback" not in problem.value.message
    assert "\n" not in problem.value.message
