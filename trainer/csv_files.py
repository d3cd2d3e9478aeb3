"""CSV files: their first line, the lines in which rows stand, and what is wrong with one.

A file is UTF-8 with one line of names; its separator is the one of ``, ; tab |`` that its first line has
most of. A column without a name, such as the index that pandas writes, is passed over. DuckDB reads the
rows (``trainer.tables``); here is what it does not say.
"""

import csv
import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from typing import BinaryIO, TextIO, cast

from schemas.errors import ModelwireError
from trainer.sources import SourceFile
from trainer.toml_problems import is_utf16

# Python's own limit of 128 KiB would end the search for a bad line at a cell that is far too long.
csv.field_size_limit(2**31 - 1)

CSV_ENDINGS = (".csv", ".csv.gz")

MAX_ROW_BYTES = 1_000_000
"""Longest row, in bytes: a longer one is a quote without an end, or no table."""

_SEPARATORS = ",;\t|"


def is_csv(file: SourceFile) -> bool:
    """Whether a file is one, by the end of its name."""
    return file.path.name.endswith(CSV_ENDINGS)


def header_of(file: SourceFile) -> tuple[list[str], str]:
    """The names in the first line of a CSV file, and what separates them.

    A column without one is called by its number in brackets.
    """
    with _bytes_of(file) as raw:
        begin = raw.read(512)
    if is_utf16(begin):
        raise ModelwireError(
            f"{file.shown} is UTF-16, and a CSV file is read as UTF-8",
            hint="save it as UTF-8 (Excel: 'CSV UTF-8'), or convert it: "
            f"iconv -f UTF-16 -t UTF-8 {file.path.name.removesuffix('.gz')}",
        )
    with _text_of(file) as stream:
        line = stream.readline(MAX_ROW_BYTES)
    if not line.strip():
        raise ModelwireError(
            f"{file.shown} is empty", hint="name a file with a line of column names"
        )
    separator = max(_SEPARATORS, key=line.count)
    names = next(csv.reader([line.rstrip("\r\n")], delimiter=separator))
    return [name or f"(column {number})" for number, name in enumerate(names, start=1)], separator


def line_of_row(file: SourceFile, number: int) -> int:
    """The line in which row ``number``, from 1, begins; empty lines are no rows."""
    with _text_of(file) as stream:
        return _line_of_row(stream, number)


def fault_of(file: SourceFile) -> ModelwireError | None:
    """What is wrong with a file that could not be read, with its line; None where nothing is found."""
    return _fault_of_lines(file) or _fault_of_cells(file) or _fault_of_quotes(file)


def _fault_of_cells(file: SourceFile) -> ModelwireError | None:
    with _text_of(file) as stream:
        reader = csv.reader(stream, delimiter=header_of(file)[1])
        width = len(next(reader))
        begin = reader.line_num
        for row in reader:
            begin, first = reader.line_num, begin + 1
            if row and len(row) != width:
                many = f" (it ends in line {begin})" if begin > first else ""
                return ModelwireError(
                    f"{file.shown}: the row of line {first}{many} has {len(row)} cells and the "
                    f"first line {width}",
                    hint="mend the line; text with a separator in it needs quotes, and a quote an "
                    "end",
                )
    return None


def _fault_of_quotes(file: SourceFile) -> ModelwireError | None:
    """Text behind the quote that ends a cell."""
    with _text_of(file) as stream:
        reader = csv.reader(stream, delimiter=header_of(file)[1], strict=True)
        try:
            for _ in reader:
                pass
        except csv.Error:
            return ModelwireError(
                f"{file.shown}: line {reader.line_num} has text behind the quote that ends a cell",
                hint='mend the line; a quote inside of a quoted cell is written twice: ""',
            )
    return None


def _fault_of_lines(file: SourceFile) -> ModelwireError | None:
    """Bytes that are no UTF-8, lines that are too long, and line ends of two kinds, in a CSV file."""
    ends: bytes | None = None
    with _bytes_of(file) as stream:
        for number, line in enumerate(stream, start=1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return ModelwireError(
                    f"{file.shown}: line {number} is not UTF-8", hint="save the file as UTF-8"
                )
            if len(line) > MAX_ROW_BYTES:
                return ModelwireError(
                    f"{file.shown}: line {number} has {len(line):,} bytes, and {MAX_ROW_BYTES:,} are the "
                    "most",
                    hint="mend the line, or leave columns with long texts out",
                )
            end = line[len(line.rstrip(b"\r\n")) :]
            if end and ends and end != ends:
                return ModelwireError(
                    f"{file.shown}: line {number} ends otherwise than the lines before it (CR LF is "
                    "Windows', LF is Unix')",
                    hint="write all lines with the same end",
                )
            ends = ends or end
    return None


@contextmanager
def _text_of(file: SourceFile) -> Iterator[TextIO]:
    """A CSV file as text; its bytes that are no UTF-8 are replaced."""
    with _bytes_of(file) as stream:
        yield TextIOWrapper(stream, encoding="utf-8-sig", errors="replace", newline="")


@contextmanager
def _bytes_of(file: SourceFile) -> Iterator[BinaryIO]:
    is_gzip = file.path.name.endswith(".gz")
    try:
        with gzip.open(file.path, "rb") if is_gzip else file.path.open("rb") as stream:
            yield cast(BinaryIO, stream)
    except (OSError, EOFError) as error:
        raise ModelwireError(
            f"{file.shown} cannot be read: {error}", hint="write the file again"
        ) from error


def _line_of_row(stream: TextIO, number: int) -> int:
    header = stream.readline()
    reader = csv.reader(stream, delimiter=max(_SEPARATORS, key=header.count))
    line = 2
    for row in reader:
        number -= bool(row)
        if not number:
            break
        line = reader.line_num + 2
    return line
