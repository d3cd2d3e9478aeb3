"""The queries that are shipped: SQL runs on real files, log queries name what lines have."""

import json
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from adapters.answer_query import AnswerQuery
from adapters.answer_rows import columns_of, rows_of
from adapters.object_store import open_store
from adapters.settings import load_settings
from audit.lines import encode_line, line_of
from audit.query import NamedQuery, fill_in
from audit.query_cli import named_queries
from schemas.answer_file import Kind, Record
from schemas.events import ModelReleased, RolloutStarted
from schemas.forecast import Variant
from tests.answers import (
    NOON,
    RUNTIME,
    digest,
    event_records,
    forecast_record,
    rejection_record,
    store_answers,
)

ROOT = Path(__file__).parents[2]
PACKS = ROOT / "audit" / "queries"
PAGE = (ROOT / "docs" / "audit-queries.md").read_text(encoding="utf-8")
INSIGHTS = sorted((PACKS / "logs-insights").glob("*.txt"))
SEARCHES = sorted((PACKS / "opensearch").glob("*.json"))
MODEL = "sales"


def candidate(offset: int, units: float, key: str = "a") -> Record:
    """A forecast of version 2 while it shares the keys with version 1."""
    return forecast_record(
        MODEL,
        offset,
        NOON + timedelta(hours=1),
        key=key,
        version=2,
        variant=Variant.CANDIDATE,
        revision=3,
        milliseconds=40,
        units=units,
    )


RECORDS = {
    Kind.FORECASTS: [
        forecast_record(MODEL, 0, key="a", request_id="twice", units=10.0),
        forecast_record(MODEL, 1, key="b", request_id="twice", units=10.0),
        forecast_record(MODEL, 2, key="b", revision=3, units=30.0),
        candidate(3, 16.0),
        candidate(4, 21.0, key="b"),
        Record(5, int(NOON.timestamp() * 1_000), b"k", b"noise"),
    ],
    Kind.REJECTIONS: [
        rejection_record(MODEL, 6),
        rejection_record(MODEL, 7, NOON + timedelta(hours=1), detail="the newest"),
    ],
    Kind.SHADOW: [
        forecast_record(MODEL, 1, version=3, variant=Variant.SHADOW, units=14.0),
        forecast_record(MODEL, 2, version=3, variant=Variant.SHADOW, units=30.0),
    ],
    Kind.CONTROL: event_records(
        MODEL,
        ModelReleased(1, digest(1), "the first"),
        RolloutStarted(2, "canary", "salt"),
    ),
}

EXPECTED: dict[str, list[dict[str, Any]]] = {
    "by-instance": [{"instance": "modelwire-sales-0", "runtime": RUNTIME, "forecasts": 5}],
    "by-version": [
        {"version": 1, "forecasts": 3, "rejections": 2, "keys": 2, "mean": 50 / 3},
        {"version": 2, "forecasts": 2, "rejections": 0, "mean": 18.5, "digest": digest(2)},
    ],
    "canary-against-champion": [
        {"version": 1, "variant": "champion", "forecasts": 1, "mean": 30.0, "ms_p99": 20},
        {"version": 2, "variant": "candidate", "forecasts": 2, "mean": 18.5, "ms_median": 40},
    ],
    "find": [
        {"answer": "forecast", "source": "sales.requests/0/0", "place": "sales.results/0/0"},
        {"answer": "forecast", "source": "sales.requests/0/1", "version": 1, "reason": None},
    ],
    "latency": [
        {"period": NOON, "version": 1, "forecasts": 3, "ms_median": 20, "ms_max": 20},
        {"period": NOON + timedelta(hours=1), "version": 2, "forecasts": 2, "ms_p99": 40},
    ],
    "rejections-by-reason": [
        {
            "reason": "wrong-type",
            "version": 1,
            "rejections": 2,
            "percent_of_answers": 28.571,
            "example": "sales.requests/0/7",
            "detail": "the newest",
        }
    ],
    "repeats": [
        {"request_id": "twice", "forecasts": 2, "versions": 1, "different_outputs": 1},
    ],
    "revisions": [
        {"revision": 1, "event": "model.released", "actor": "ann@desk", "reason": "the first"},
        {"revision": 2, "event": "rollout.started", "commandid": "command-2"},
    ],
    "shadow-against-champion": [
        {"shadow": 3, "answered": 1, "requests": 2, "mean_shadow": 22.0, "mean_difference": 2.0}
    ],
    "top-movers": [
        {"key": "a", "before": 1, "after": 2, "mean_before": 10.0, "mean_after": 16.0},
        {"key": "b", "mean_before": 20.0, "mean_after": 21.0, "change": 1.0, "ratio": 1.05},
    ],
    "unreadable": [{"kind": "results", "offset": 5, "bytes": 5}],
    "volume": [
        {"period": NOON, "forecasts": 3, "rejections": 1, "percent_rejected": 25.0},
        {"period": NOON + timedelta(hours=1), "forecasts": 2, "rejections": 1},
    ],
}
"""What each named query says of these records, in the columns that are worth a look."""

GIVEN = {"find": {"id": "twice"}}


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AnswerQuery]:
    """A query over files of these records."""
    settings = load_settings(store_url=tmp_path_factory.mktemp("store").as_uri())
    store = open_store(settings.store_url)
    for kind, records in RECORDS.items():
        store_answers(store, kind, MODEL, records)
    with AnswerQuery(settings, MODEL) as query:
        yield query


@pytest.mark.parametrize("query", named_queries().values(), ids=lambda query: query.name)
def test_a_named_query_says_what_its_title_says(answers: AnswerQuery, query: NamedQuery) -> None:
    """Run on real files: these rows, in this order."""
    statement = fill_in(query, GIVEN.get(query.name, {}), answers.columns[Kind.FORECASTS])
    rows = answers.fetch(statement.sql, statement.values).to_pylist()
    expected = EXPECTED[query.name]
    for row, each in zip(rows, expected, strict=True):
        for name, value in each.items():
            assert row[name] == (pytest.approx(value) if isinstance(value, float) else value), name


@pytest.mark.parametrize("query", named_queries().values(), ids=lambda query: query.name)
def test_every_parameter_is_used(query: NamedQuery) -> None:
    """What can be given stands in the SQL, not in its comments alone."""
    for parameter in query.parameters:
        used = f"${parameter.name}" if parameter.name != "output" else "{output}"
        body = "\n".join(line for line in query.sql.splitlines() if not line.startswith("--"))
        assert used in body


def test_top_movers_compares_the_versions_that_are_named(answers: AnswerQuery) -> None:
    """And leaves keys with too few forecasts out."""
    query = named_queries()["top-movers"]
    given = {"before": "2", "after": "1", "limit": "1", "output": "units"}
    statement = fill_in(query, given, answers.columns[Kind.FORECASTS])
    (row,) = answers.fetch(statement.sql, statement.values).to_pylist()
    assert (row["key"], row["change"]) == ("a", -6.0)
    statement = fill_in(query, given | {"least": "2"}, answers.columns[Kind.FORECASTS])
    assert answers.fetch(statement.sql, statement.values).num_rows == 0


def flattened(value: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The fields of a line as log stores name them."""
    for name, each in value.items():
        if isinstance(each, dict):
            yield from flattened(each, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", each


@pytest.fixture(scope="module")
def fields() -> dict[str, set[Any]]:
    """Field -> the values that it has in lines of these records."""
    found: dict[str, set[Any]] = {}
    for kind, records in RECORDS.items():
        for row in rows_of(kind, f"{MODEL}.{kind}", 0, records).to_pylist():
            line = json.loads(encode_line(line_of(kind, MODEL, row)))
            for name, value in flattened(line):
                found.setdefault(name, set()).add(value)
    return found


@pytest.mark.parametrize("path", INSIGHTS, ids=lambda path: path.stem)
def test_a_logs_insights_query_names_what_lines_have(
    path: Path, fields: dict[str, set[Any]]
) -> None:
    """Its fields, and the values that it filters by."""
    text = "\n".join(line for line in path.read_text().splitlines() if not line.startswith("#"))
    commands = {part.split()[0] for part in text.split("\n| ")}
    assert commands <= {"fields", "filter", "stats", "sort", "limit", "dedup"}
    after_dedup = text.partition("| dedup")[2].split("\n| ")[1:]
    assert {part.split()[0] for part in after_dedup} <= {"limit"}, "nothing else may follow it"
    bare = re.sub(r'"[^"]*"', "", text)
    named = set(re.findall(r"@?\b[a-z_]+(?:\.[a-z_]+)+|@timestamp", bare))
    assert named
    assert named <= set(fields)
    values = set().union(*fields.values())
    quoted = set(re.findall(r'"([^"]*)"', text)) - {"REQUEST_ID"}
    assert quoted <= values


def searched(value: Any, inside: str = "") -> Iterator[tuple[str, Any]]:
    """The fields that a search names, with the value that it looks for, or None."""
    if isinstance(value, list):
        for each in value:
            if inside in ("_source",):
                yield each, None
            else:
                yield from searched(each, inside)
    elif isinstance(value, dict):
        for name, each in value.items():
            if inside in ("term", "sort") or (inside == "terms" and name not in ("field", "size")):
                for looked in each if isinstance(each, list) else [each]:
                    yield name, None if inside == "sort" else looked
            elif name == "field":
                yield each, None
            else:
                yield from searched(each, name)


@pytest.mark.parametrize("path", SEARCHES, ids=lambda path: path.stem)
def test_an_opensearch_query_names_what_lines_have(path: Path, fields: dict[str, set[Any]]) -> None:
    """Its fields, and the values that it filters by; the template's fields too."""
    body = json.loads(path.read_text())
    if path.stem == "index-template":
        mapped = flattened(body["template"]["mappings"]["properties"])
        named = {name.replace("properties.", "").removesuffix(".type") for name, _ in mapped}
        assert named <= set(fields) | {"modelwire.inputs"}
        return
    found = list(searched(body))
    assert found
    assert {name for name, _ in found} <= set(fields)
    for name, value in found:
        assert value in (None, "REQUEST_ID") or value in fields[name]


def test_each_pack_answers_the_same_questions() -> None:
    """Whoever has only the log finds there what SQL would say, as far as lines can."""
    assert [path.stem for path in INSIGHTS] == [
        path.stem for path in SEARCHES if path.stem != "index-template"
    ]
    assert {path.stem for path in INSIGHTS} < set(named_queries())


def test_the_page_names_every_query_column_and_field(fields: dict[str, set[Any]]) -> None:
    """docs/audit-queries.md is what people look into before they write one of their own."""
    for query in named_queries().values():
        assert f"`{query.name}`" in PAGE
        for parameter in query.parameters:
            assert f"`{parameter.name}`" in PAGE
    for kind in Kind:
        for column in columns_of(kind):
            assert f"`{column}`" in PAGE, column
    for field in fields:
        shown = re.sub(r"^modelwire\.(inputs|outputs|data|source)\..*", r"modelwire.\1.*", field)
        assert f"`{shown}`" in PAGE, field
