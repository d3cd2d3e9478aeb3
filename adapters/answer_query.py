"""SQL over the answer files of a model: DuckDB reads what a question needs of them, and no more.

1. The views ``forecasts``, ``rejections``, ``shadow`` and ``control`` have the columns of
   ``answer_rows.columns_of`` and ``file``, the key of the file that a row stands in; a kind without files
   has no rows. ``forecasts`` and ``shadow`` also have a column ``output_<name>`` for each output of their
   files.
2. ``since``, ``until`` (not included) and ``where`` cut all views but ``control``, which is always whole:
   what answered on a day was often released long before.
3. A statement reads: it is a single SELECT, it sees no other file, no variable of the program and no
   setting that it could change.
4. Nothing holds all rows: results stream, and what a statement sorts or groups beyond the memory that it
   may take goes to a folder of its own, which is removed.

Statistics and Bloom filters decide which parts of a file are read (``answer_files`` writes them), so a
question for a request id, a version, a key or a time reads little more than the files' ends.
"""

import contextlib
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from urllib.parse import unquote, urlsplit

import duckdb
import pyarrow as pa

from adapters.answer_files import AnswerStore
from adapters.answer_rows import columns_of
from adapters.object_store import open_store
from adapters.settings import Settings
from schemas.answer_file import FileName, Kind
from schemas.errors import ModelwireError, UsageProblem

MEMORY_MEGABYTES = 1_024
"""What a statement may take, in MiB, unless somebody says otherwise."""

BATCH_ROWS = 20_000
"""Most rows of a batch of a result that streams."""

INPUT_PREFIX = "inputs."
"""Before the name of a request's field in ``where``, in case a column has the same name."""

_TICK = timedelta(microseconds=1)
_EARLIEST = datetime.min.replace(tzinfo=UTC) + _TICK

_WHOLE = (Kind.CONTROL,)
_HAVE_INPUTS = (Kind.FORECASTS, Kind.SHADOW)

_THREADS_REMOTE = 8
"""Threads that read from an S3 server, which mostly wait."""

_GAP_BYTES = 256 * 1024
"""Bytes between two columns that are read with them there: cheaper than another question."""


class AnswerQuery:
    """DuckDB over a model's answer files. Close it, or use it as a context.

    ``where`` maps names to the text of the value that rows must have: a column's name, and of every other
    name (or behind ``inputs.``) the request's field. A view without that column is cut by none of it.
    Raises as the store does.
    """

    def __init__(
        self,
        settings: Settings,
        model: str,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        where: Mapping[str, str] | None = None,
        memory_megabytes: int = MEMORY_MEGABYTES,
    ) -> None:
        _check_is_text(*(part for pair in (where or {}).items() for part in pair))
        store = AnswerStore(open_store(settings.audit_url, settings.s3_settings), model)
        self._cleanup = contextlib.ExitStack()
        spilled = self._cleanup.enter_context(tempfile.TemporaryDirectory(prefix="modelwire-"))
        self.connection = duckdb.connect(
            config={
                "memory_limit": f"{memory_megabytes}MiB",
                "temp_directory": spilled,
                "preserve_insertion_order": False,
                "python_enable_replacements": False,
                "autoload_known_extensions": False,
                "autoinstall_known_extensions": False,
            }
        )
        self._cleanup.callback(self.connection.close)
        self._problem: Callable[[], ModelwireError | None] = lambda: None
        try:
            self.connection.execute("SET TimeZone = 'UTC'")
            self.connection.execute("SET parquet_metadata_cache = true")
            base = self._open_files(settings)
            files = {kind: _names(store, kind, since, until) for kind in Kind}
            self.files = [name for names in files.values() for name in names]
            """The files that the views read."""
            for kind, names in files.items():
                self._create_view(kind, base, names)
            self._cut(since, until, where or {})
            self._lock([base + name.key for name in self.files])
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "AnswerQuery":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the files and remove what was written beside them."""
        self.connection.interrupt()  # or the end waits for what still runs
        self._cleanup.close()

    def fetch(self, sql: str, parameters: Mapping[str, object] | None = None) -> pa.Table:
        """All rows of a SELECT, whose ``$name`` are taken from ``parameters``.

        A column that is called like one of the files' has the unit of time that it has there, so that
        whole rows are what ``answer_rows.records_of`` takes. Raises UsageProblem where the statement is
        none that may run here, or fails for what it says; ModelwireError where files cannot be read.
        """
        reader = self.stream(sql, parameters)
        return pa.Table.from_batches(list(reader), reader.schema)

    def stream(
        self, sql: str, parameters: Mapping[str, object] | None = None
    ) -> pa.RecordBatchReader:
        """The rows of ``fetch`` in batches of ``BATCH_ROWS`` at most. Raises the same, while read."""
        with self._translated():
            self._check_is_select(sql)
            relation = self.connection.sql(sql, params=dict(parameters or {}) or None)
            reader = relation.to_arrow_reader(BATCH_ROWS)
            schema = pa.schema([_as_filed(field) for field in reader.schema])
        return pa.RecordBatchReader.from_batches(schema, self._batches(reader, schema))

    def _batches(self, reader: pa.RecordBatchReader, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        while True:
            with self._translated():
                try:
                    batch = reader.read_next_batch()
                except StopIteration:
                    return
            yield batch.cast(schema, safe=False)

    def _check_is_select(self, sql: str) -> None:
        _check_is_text(sql)
        statements = self.connection.extract_statements(sql)
        if len(statements) != 1:
            raise UsageProblem(
                f"the SQL has {len(statements)} statements"
                if statements
                else "the SQL has no statement",
                hint="write one SELECT, as in: SELECT version, count(*) FROM forecasts GROUP BY 1",
            )
        if statements[0].type != duckdb.StatementType.SELECT:
            raise UsageProblem(
                f"the SQL is a statement of the kind {statements[0].type.name}, and answers are only "
                "read here",
                hint="write one SELECT; -o csv or -o parquet gives its rows to a file",
            )

    def _open_files(self, settings: Settings) -> str:
        """What stands before a key in the address that DuckDB reads it by."""
        url = settings.audit_url
        if urlsplit(url).scheme != "s3":
            return f"{Path(unquote(urlsplit(url).path))}/"
        # Imported here: boto3 alone takes a quarter of a second.
        from adapters.s3_ranges import open_ranged

        files = open_ranged(url, settings.s3_settings)
        self.connection.register_filesystem(files)
        self.connection.execute(f"SET threads = {_THREADS_REMOTE}")
        self.connection.execute(f"SET parquet_prefetch_column_gap = {_GAP_BYTES}")
        self._problem = lambda: files.problem
        return f"{files.protocol}://"

    def _create_view(self, kind: Kind, base: str, names: list[FileName]) -> None:
        if names:
            listed = ", ".join(_quoted(base + name.key) for name in names)
            rows = (
                f"SELECT * REPLACE (substr(file, {len(base) + 1}) AS file) "
                f"FROM read_parquet([{listed}], union_by_name = true, filename = 'file')"
            )
        else:
            types = {**columns_of(kind), "file": pa.string()}
            nothing = ", ".join(
                f'CAST(NULL AS {_sql_type(of)}) AS "{name}"' for name, of in types.items()
            )
            rows = f"SELECT {nothing} WHERE false"
        with self._translated():
            self.connection.execute(f"CREATE VIEW all_{kind} AS {rows}")

    def _cut(
        self, since: datetime | None, until: datetime | None, where: Mapping[str, str]
    ) -> None:
        self.columns = {
            kind: [name for name, *_ in self._described(f"all_{kind}")] for kind in Kind
        }
        """Names of the columns of each view."""
        for kind in Kind:
            conditions = (
                []
                if kind in _WHOLE
                else [
                    *([] if since is None else [f"time >= {_moment(since)}"]),
                    *([] if until is None else [f"time < {_moment(until)}"]),
                    *_conditions(kind, where, self.columns),
                ]
            )
            wanted = " AND ".join(conditions) or "true"
            with self._translated():
                self.connection.execute(
                    f"CREATE VIEW {kind} AS SELECT * FROM all_{kind} WHERE {wanted}"
                )

    def _described(self, view: str) -> list[tuple[str, ...]]:
        with self._translated():
            return self.connection.execute(f"DESCRIBE {view}").fetchall()

    def _lock(self, addresses: list[str]) -> None:
        listed = ", ".join(map(_quoted, addresses))
        self.connection.execute(f"SET allowed_paths = [{listed}]")
        self.connection.execute("SET enable_external_access = false")
        self.connection.execute("SET lock_configuration = true")

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (duckdb.Error, pa.ArrowException, OSError, RuntimeError) as error:
            if _INTERRUPTED.search(str(error)):
                raise KeyboardInterrupt from None  # which DuckDB made this of
            if isinstance(error, RuntimeError):
                raise
            raise self._problem() or _problem_of(str(error), type(error)) from None


def _names(
    store: AnswerStore, kind: Kind, since: datetime | None, until: datetime | None
) -> list[FileName]:
    if kind in _WHOLE:
        return store.names(kind)
    first = None if since is None else since.astimezone(UTC).date()
    last = None if until is None else (max(until.astimezone(UTC), _EARLIEST) - _TICK).date()
    if first is not None and last is None:
        last = datetime.now(UTC).date() + timedelta(days=1)
    return store.names(kind, first, last)


def _conditions(
    kind: Kind, where: Mapping[str, str], columns: Mapping[Kind, list[str]]
) -> Iterator[str]:
    for name, value in where.items():
        if name in columns[kind]:
            yield f'"{name}" = {_quoted(value)}'
        elif not any(name in known for known in columns.values()):
            field = name.removeprefix(INPUT_PREFIX)
            text, path = ("inputs", "$") if kind in _HAVE_INPUTS else ("decode(value)", "$.inputs")
            escaped = field.replace("\\", "\\\\").replace('"', '\\"')
            path = _quoted(f'{path}."{escaped}"')
            yield f"TRY(json_extract_string({text}, {path})) = {_quoted(value)}"


def _as_filed(field: pa.Field) -> pa.Field:
    """The field with the unit of time that a column of its name has in the files."""
    of = _FILED.get(field.name)
    both = of is not None and pa.types.is_timestamp(of) and pa.types.is_timestamp(field.type)
    if both:
        return field.with_type(of)
    if pa.types.is_timestamp(field.type) and field.type.tz is not None:
        return field.with_type(pa.timestamp(field.type.unit, tz="UTC"))
    return field


_FILED = {name: of for kind in Kind for name, of in columns_of(kind).items()}


def _sql_type(of: pa.DataType) -> str:
    if pa.types.is_timestamp(of):
        return "TIMESTAMPTZ"
    return {
        pa.int32(): "INTEGER",
        pa.int64(): "BIGINT",
        pa.binary(): "BLOB",
        pa.bool_(): "BOOLEAN",
    }.get(of, "VARCHAR")


def _moment(moment: datetime) -> str:
    return f"TIMESTAMPTZ '{moment.astimezone(UTC).isoformat()}'"


def _check_is_text(*texts: str) -> None:
    """Raises UsageProblem for bytes of the command line that are no text."""
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError:
            raise UsageProblem(f"{text!r} is no text", hint="write it in UTF-8") from None


def _quoted(text: str) -> str:
    """An SQL literal."""
    return "'" + text.replace("'", "''") + "'"


_SAID_WRONG = (
    duckdb.ProgrammingError,
    duckdb.DataError,
    duckdb.NotSupportedError,
)
_UNREADABLE = ".parquet"
_INTERRUPTED = re.compile("^(Query interrupted|INTERRUPT Error)")


def _problem_of(said: str, error: type[BaseException]) -> ModelwireError:
    sentence = " ".join(said.split("\n\nLINE ")[0].split())
    if issubclass(error, duckdb.OutOfMemoryException):
        return ModelwireError(
            f"the SQL needs more memory than it may take: {sentence}",
            hint="cut it by --since and --until, or allow more with --memory-mb",
        )
    if issubclass(error, duckdb.PermissionException):
        return UsageProblem(
            f"the SQL reads more than answers: {sentence}",
            hint="ask forecasts, rejections, shadow and control; join the rest to -o csv or parquet",
        )
    if issubclass(error, _SAID_WRONG) and _UNREADABLE not in said:
        return UsageProblem(
            f"the SQL cannot be run: {sentence}",
            hint="modelwire audit query --columns shows the views and their columns",
        )
    return ModelwireError(
        f"the answer files cannot be read: {sentence}",
        hint="modelwire audit check says which files are damaged or missing",
    )
