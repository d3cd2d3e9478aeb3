"""``modelwire audit query``: SQL over the answers that were kept."""

import sys
from collections.abc import Callable
from importlib import resources
from typing import TYPE_CHECKING, Any

import click

from adapters.command_line import speak_briefly
from adapters.interrupts import interrupting
from adapters.layout import console
from adapters.model_name import parse_model
from adapters.output import CHOSEN, JSON, TABLE
from audit.options import settings_of, since_option, store_option, time_of, until_option
from audit.query import NamedQuery, Statement, choose_query, fill_in, pairs_of, parse_query
from schemas.answer_file import Kind
from schemas.errors import NotFound, UsageProblem

if TYPE_CHECKING:
    import pyarrow as pa

    from adapters.answer_query import AnswerQuery

CSV, PARQUET = "csv", "parquet"


def _remember(context: click.Context, _: click.Parameter, chosen: str) -> str:
    """An error is told as an object where rows are."""
    context.meta[CHOSEN] = chosen if chosen == JSON else TABLE
    return chosen


@click.command()
@click.argument("sql", required=False)
@click.option("--model", help="The model whose answers are meant.  [required, but for --list]")
@click.option("--named", metavar="NAME", help="A question that has a name (--list names all).")
@click.option(
    "--param",
    "params",
    multiple=True,
    metavar="NAME=VALUE",
    help="A parameter of the named question; may be given several times.",
)
@since_option
@until_option
@click.option("--version", type=click.IntRange(1), help="Only answers of this version.")
@click.option(
    "--where",
    "conditions",
    multiple=True,
    metavar="NAME=VALUE",
    help="Only answers whose column, or else whose request's field, has this value.",
)
@click.option("--list", "is_list", is_flag=True, help="List the named questions, and ask none.")
@click.option("--columns", "is_columns", is_flag=True, help="List the views' columns.")
@click.option(
    "--memory-mb",
    type=click.IntRange(128),
    default=1_024,
    show_default=True,
    help="Memory that the question may take, in MiB; beyond it, it sorts and groups on disk.",
)
@store_option
@click.option(
    "-o",
    "--output",
    callback=_remember,
    is_eager=True,
    type=click.Choice([TABLE, JSON, CSV, PARQUET]),
    default=TABLE,
    show_default=True,
    help="A table for people, one object for programs, or a file's content.",
)
def query(
    sql: str | None,
    model: str | None,
    named: str | None,
    params: tuple[str, ...],
    since: str | None,
    until: str | None,
    version: int | None,
    conditions: tuple[str, ...],
    is_list: bool,
    is_columns: bool,
    memory_mb: int,
    store: str | None,
    output: str,
) -> None:
    """Ask the answers of a model that `modelwire audit sink` has kept.

    SQL is one SELECT in DuckDB's dialect over the views forecasts, rejections, shadow and control.
    --since, --until, --version and --where cut the first three. Exit codes: 2: the SQL cannot be run;
    4: there are no answers, or no question of that name.
    """
    queries = named_queries()
    if is_list:
        _print(_list(queries), output)
        return
    asked = [sql is not None, named is not None, is_columns]
    if sum(asked) != 1:
        raise UsageProblem(
            "there is nothing to ask" if not any(asked) else "there are two questions",
            hint="give one of: a SELECT, --named NAME, --columns, --list",
        )
    if model is None:
        raise click.UsageError("Missing option '--model'.")
    if params and named is None:
        raise UsageProblem("--param is for named questions", hint="add --named, or write the value")
    chosen = None if named is None else choose_query(queries, named)
    given = pairs_of("--param", params)
    where = pairs_of("--where", conditions)
    if version is not None:
        if "version" in where:
            raise UsageProblem("--version and --where name the version twice", hint="name it once")
        where["version"] = str(version)
    speak_briefly()
    settings = settings_of(store=store)
    # Imported here: `--list` and `--help` need not wait for DuckDB.
    from adapters.answer_query import AnswerQuery

    with AnswerQuery(
        settings,
        parse_model(model),
        since=time_of("--since", since),
        until=time_of("--until", until),
        where=where,
        memory_megabytes=memory_mb,
    ) as answers:
        if not answers.files:
            raise NotFound(
                f"there are no answer files of {model} in {settings.audit_url}"
                + (" for that time" if since or until else ""),
                hint=f"copy answers there: modelwire audit sink --model {model} --once",
            )
        statement = _statement(answers, sql, chosen, given, is_columns)
        with interrupting(answers.connection.interrupt):
            _print(answers.stream(statement.sql, statement.values), output)


def named_queries() -> dict[str, NamedQuery]:
    """Every named query, by name."""
    folder = resources.files("audit") / "queries" / "sql"
    found = sorted(file.name for file in folder.iterdir() if file.name.endswith(".sql"))
    return {
        name.removesuffix(".sql"): parse_query(
            name.removesuffix(".sql"), (folder / name).read_text(encoding="utf-8")
        )
        for name in found
    }


def _statement(
    answers: "AnswerQuery",
    sql: str | None,
    chosen: NamedQuery | None,
    given: dict[str, str],
    is_columns: bool,
) -> Statement:
    if is_columns:
        return Statement(_COLUMNS, {})
    if chosen is not None:
        return fill_in(chosen, given, answers.columns[Kind.FORECASTS])
    assert sql is not None
    return Statement(sql, {})


_COLUMNS = """
SELECT table_name AS view, column_name AS "column", data_type AS type
FROM duckdb_columns()
WHERE NOT internal AND NOT starts_with(table_name, 'all_')
ORDER BY view, column_index
"""


def _list(queries: dict[str, NamedQuery]) -> "pa.RecordBatchReader":
    import pyarrow as pa

    rows = [
        {
            "name": each.name,
            "parameters": ", ".join(
                name.name if name.default is None else f"{name.name}={name.default}"
                for name in each.parameters
            ),
            "shows": each.title,
        }
        for each in queries.values()
    ]
    return pa.Table.from_pylist(rows).to_reader()


def _print(rows: "pa.RecordBatchReader", output: str) -> None:
    from audit.rows import table_of, write_csv, write_json, write_parquet

    if output == TABLE:
        console().print(table_of(rows))
        return
    writers: dict[str, Callable[[Any, Any], None]] = {
        JSON: write_json,
        CSV: write_csv,
        PARQUET: write_parquet,
    }
    if output == PARQUET and sys.stdout.isatty():
        raise UsageProblem(
            "a Parquet file is nothing for a terminal", hint="add > answers.parquet to the command"
        )
    writers[output](rows, sys.stdout.buffer)
    sys.stdout.buffer.flush()
