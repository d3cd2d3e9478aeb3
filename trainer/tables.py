"""Tables: the rows of sources in DuckDB, typed and judged, within a budget of memory.

Rules:

1. Parquet, CSV and gzipped CSV are read, by the end of the file's name. A CSV file is UTF-8 with one
   line of names; its separator is the one of ``, ; tab |`` that its first line has most of, and an
   empty cell is a missing one. UTF-16 is refused by its name.
2. Every row of every file is judged (``trainer.cells``). What is wrong is told at once: for each rule
   the first place, and how many more there are. A row of a CSV file is named by its line.
3. Rows keep their order: ``rowid`` of a table counts them from 0 over all files.
4. What is read is the file that was named and digested, and what stands in it: DuckDB would take a name
   with ``*``, ``?`` or ``[`` for a glob, and folders such as ``shop=north`` for columns.

DuckDB keeps what does not fit into its budget in a temporary folder (``TMPDIR`` chooses where).
"""

import re
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import duckdb
import pandas as pd
import pandera.pandas as pa
import pyarrow as arrow
import pyarrow.parquet as pq

from schemas.errors import ModelwireError, UsageProblem
from trainer.cells import UNTYPED, Column, Purpose, rules_of, schema_of, type_problem, typed_sql
from trainer.csv_files import (
    CSV_ENDINGS,
    MAX_ROW_BYTES,
    fault_of,
    header_of,
    is_csv,
    line_of_row,
)
from trainer.dataset import Dataset, DatasetFile
from trainer.sources import Files, SourceFile

CHUNK_ROWS = 250_000
"""Rows that are in Python's hands at a time: tens of megabytes."""

_PARQUET_ENDINGS = (".parquet", ".pq")
_SHOWN_PROBLEMS = 20


@dataclass(frozen=True)
class _Part:
    """The rows ``start`` … of a table, which came from ``file``."""

    file: SourceFile
    start: int


@dataclass(frozen=True)
class Table:
    """A judged table. Column ``i`` of ``columns`` is ``v{i}`` in SQL, of the type ``types[i]``."""

    name: str
    columns: tuple[Column, ...]
    types: tuple[str, ...]
    rows: int
    parts: tuple[_Part, ...]

    @property
    def shown(self) -> str:
        """What messages call the table: its file, or the first of them."""
        more = f" (and {len(self.parts) - 1} more)" if len(self.parts) > 1 else ""
        return f"{self.parts[0].file.shown}{more}"

    @property
    def is_csv(self) -> bool:
        """Whether all of it came from CSV files, which know no types."""
        return all(is_csv(part.file) for part in self.parts)

    def place(self, row: int) -> str:
        """``file: row 9``, or ``file: line 10`` of a CSV file, for the row with this ``rowid``."""
        part = [part for part in self.parts if part.start <= row][-1]
        number = row - part.start + 1
        if is_csv(part.file):
            return f"{part.file.shown}: line {line_of_row(part.file, number)}"
        return f"{part.file.shown}: row {number}"


class Tables:
    """A DuckDB database in a temporary folder, gone when the block ends."""

    def __init__(self, file: DatasetFile, memory_mb: int) -> None:
        self._file = file
        self._memory_mb = memory_mb
        self._folder = tempfile.TemporaryDirectory(prefix="modelwire-")
        folder = Path(self._folder.name)
        with self._room():
            self._sql = duckdb.connect(
                str(folder / "panel.duckdb"),
                config={
                    "memory_limit": f"{memory_mb}MiB",
                    "temp_directory": str(folder / "spill"),
                    "autoinstall_known_extensions": False,
                    "autoload_known_extensions": False,
                },
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with suppress(duckdb.Error):  # what it could not write says nothing new
            self._sql.close()
        self._folder.cleanup()

    def load(self, name: str, files: Files, columns: tuple[Column, ...]) -> Table:
        """Reads files, which are parts of one table, and judges every row.

        Raises UsageProblem where a column is missing, ModelwireError for what is wrong in the files.
        """
        types: tuple[str, ...] = ()
        parts: list[_Part] = []
        rows = 0
        for file in files:
            found = self._load_part(name, file, columns, first=not parts)
            if types and found != types:
                self._refuse_other_types(columns, files[0], types, file, found)
            types = found
            parts.append(_Part(file, rows))
            rows = self.number(f"SELECT count(*) FROM {name}")
        table = Table(name, columns, types, rows, tuple(parts))
        if not rows:
            raise ModelwireError(
                f"{table.shown} has no rows", hint="name a file with at least one row"
            )
        self._judge(table)
        return table

    def do(self, statement: str) -> None:
        """Runs a statement that gives nothing."""
        # The connection takes no further statement before all of an answer was fetched.
        self.rows(statement)

    def store(self, name: str, table: arrow.Table) -> None:
        """Makes an SQL table of an Arrow table."""
        self._sql.register("arriving", table)
        self.do(f"CREATE TABLE {name} AS SELECT * FROM arriving")
        self._sql.unregister("arriving")

    def rows(self, question: str) -> list[tuple[Any, ...]]:
        """All rows that a query gives."""
        with self._room():
            return self._sql.execute(question).fetchall()

    def number(self, question: str) -> int:
        """The one whole number that a query gives; 0 for null."""
        return int(self.rows(question)[0][0] or 0)

    def chunks(self, question: str) -> Iterator[arrow.RecordBatch]:
        """What a query gives, a batch at a time."""
        with self._room(), self._sql.sql(question).to_arrow_reader(CHUNK_ROWS) as reader:
            yield from reader

    @contextmanager
    def _room(self) -> Iterator[None]:
        """For a block that may need more memory, or more of the temporary folder, than there is."""
        try:
            yield
        except (duckdb.OutOfMemoryException, duckdb.IOException) as error:
            folder = self._folder.name
            if isinstance(error, duckdb.IOException) and folder not in str(error):
                raise  # of a source
            raise ModelwireError(
                f"the panel cannot be read within {self._memory_mb} MiB and what its temporary folder "
                f"{folder} holds",
                hint="allow more memory (--memory), or name a larger temporary folder by TMPDIR; DuckDB "
                f"says of it: {_first_line(error)}",
            ) from error

    def _load_part(
        self, name: str, file: SourceFile, columns: tuple[Column, ...], *, first: bool
    ) -> tuple[str, ...]:
        """Appends a file to the table and returns the SQL type of each column."""
        reader, found = self._reader(file)
        self._check_columns(file, columns, list(found))
        selected, types = [], []
        for position, column in enumerate(columns):
            said, hint = type_problem(column.purpose, found[column.name])
            if said:
                raise ModelwireError(f"{file.shown}: column {column.name!r} {said}", hint=hint)
            kind, value, text = typed_sql(column, found[column.name])
            types.append(kind)
            selected += [f"({value})::{kind} AS v{position}", f"({text})::VARCHAR AS t{position}"]
        begin = f"CREATE TABLE {name} AS" if first else f"INSERT INTO {name}"
        try:
            self.do(f"{begin} SELECT {', '.join(selected)} FROM {reader}")
        except duckdb.Error as error:
            raise self._unreadable(file, _first_line(error)) from error
        return tuple(types)

    def _reader(self, file: SourceFile) -> tuple[str, dict[str, str]]:
        """SQL that reads a file, and the types of its columns by name."""
        source = f"{_file_sql(file)}, hive_partitioning=false"
        if file.path.name.endswith(_PARQUET_ENDINGS):
            try:
                names = pq.read_schema(file.path).names
                described = self.rows(f"DESCRIBE SELECT * FROM read_parquet({source})")
                types = [str(row[1]) for row in described]
            except (arrow.ArrowInvalid, OSError, duckdb.Error) as error:
                raise ModelwireError(
                    f"{file.shown} cannot be read as Parquet: {_first_line(error)}",
                    hint="write it again, for instance with pandas' to_parquet",
                ) from error
            self._refuse_twice(file, names)
            return f"read_parquet({source})", dict(zip(names, types, strict=True))
        if is_csv(file):
            names, separator = header_of(file)
            self._refuse_twice(file, names)
            columns = ", ".join(
                f"'{name.replace(chr(39), chr(39) * 2)}': 'VARCHAR'" for name in names
            )
            return (
                f"read_csv({source}, columns={{{columns}}}, header=true, auto_detect=false,"
                f" delim='{separator}', quote='\"', escape='\"', max_line_size={MAX_ROW_BYTES})",
                dict.fromkeys(names, UNTYPED),
            )
        raise UsageProblem(
            f"{file.shown} is no kind of file that is read here",
            hint=f"its name must end with {', '.join((*_PARQUET_ENDINGS, *CSV_ENDINGS))}",
        )

    def _refuse_twice(self, file: SourceFile, names: list[str]) -> None:
        """Two names that differ in case alone are one name in SQL, and could be mistaken."""
        for name, count in Counter(name.casefold() for name in names).items():
            if count == 1:
                continue
            raise ModelwireError(
                f"{file.shown} has {count} columns called {name!r}", hint="rename all but one"
            )

    def _check_columns(
        self, file: SourceFile, columns: tuple[Column, ...], found: list[str]
    ) -> None:
        for column in columns:
            if column.name not in found:
                strayed = (
                    f"; the setting `{column.name}` comes before the first [table]"
                    if len(column.setting) > 1 and column.name in Dataset.model_fields
                    else ""
                )
                raise UsageProblem(
                    f"{self._file.where(*column.setting)} names column {column.name!r}, "
                    f"which {file.shown} does not have",
                    hint=f"its columns are {', '.join(found)}{strayed}",
                )

    def _refuse_other_types(
        self,
        columns: tuple[Column, ...],
        one: SourceFile,
        types: tuple[str, ...],
        other: SourceFile,
        found: tuple[str, ...],
    ) -> None:
        for column, first, second in zip(columns, types, found, strict=True):
            if first != second:
                raise ModelwireError(
                    f"column {column.name!r} is {first} in {one.shown} and {second} in "
                    f"{other.shown}",
                    hint="write it in both as the same type",
                )

    def _unreadable(self, file: SourceFile, said: str) -> ModelwireError:
        """The problem of a file that DuckDB could not read, with its line where that can be found."""
        if is_csv(file):
            found = fault_of(file)
            if found is not None:
                return found
        return ModelwireError(
            f"{file.shown} cannot be read", hint=f"write the file again; DuckDB says of it: {said}"
        )

    def _judge(self, table: Table) -> None:
        """Raises ModelwireError that names, for each rule broken, the first place and the count."""
        columns = ", ".join(f"v{i}, t{i}" for i in range(len(table.columns)))
        schema = schema_of(table.columns)
        first: dict[tuple[int, str], int] = {}
        count: Counter[tuple[int, str]] = Counter()
        for chunk in self.chunks(f"SELECT rowid, {columns} FROM {table.name}"):
            frame = chunk.to_pandas().set_index("rowid")
            try:
                schema.validate(frame, lazy=True)
            except pa.errors.SchemaErrors as problems:
                for (name, said), rows in _broken(problems.failure_cases):
                    key = (int(name[1:]), said)
                    first[key] = min(first.get(key, rows[0]), rows[0])
                    count[key] += len(rows)
        if not first:
            return
        lines, hints = [], []
        for (position, said), row in sorted(first.items(), key=lambda each: (each[1], each[0])):
            column = table.columns[position]
            [[value]] = self.rows(
                f"SELECT coalesce(t{position}, {_text_sql(position, column)}) FROM {table.name}"
                f" WHERE rowid = {row}"
            )
            found = "" if value is None else f": {value[:80]!r}"
            also = count[position, said] - 1
            more = f" (and {also:,} more)" if also else ""
            lines.append(f"{table.place(row)}, column {column.name!r} {said}{found}{more}")
            hints += [rule.hint for rule in rules_of(column.purpose) if rule.said == said]
        raise ModelwireError(
            "\n".join(lines[:_SHOWN_PROBLEMS]), hint="; ".join(dict.fromkeys(hints))
        )


def _file_sql(file: SourceFile) -> str:
    """SQL of the path of one file, whatever it is called."""
    path = re.sub(r"([*?\[])", r"[\1]", str(file.path))
    return "'" + path.replace("'", "''") + "'"


def _text_sql(position: int, column: Column) -> str:
    """SQL of a typed value as one writes it."""
    value = f"v{position}"
    return (
        f"(DATE '1970-01-01' + {value})::VARCHAR"
        if column.purpose == Purpose.DATE
        else f"{value}::VARCHAR"
    )


def _broken(cases: pd.DataFrame) -> Iterator[tuple[tuple[str, str], list[int]]]:
    """The rows that break a rule, ascending, by column of the chunk and sentence of the rule."""
    for key, rows in cases.groupby(["column", "check"], sort=False)["index"]:
        name, said = key
        yield (str(name), str(said)), sorted(int(row) for row in rows)


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
