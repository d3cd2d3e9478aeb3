"""Kept answers: read from their files once those have been checked, as far as they hold what they state.

1. A file proves its rows by the digest of its records in its footer, and the file after it proves the
   bytes of the whole by the digest that it names. The newest file of a partition has none after it yet,
   and neither has one behind which a file is missing: what lies further on says nothing of this one.
2. A row must have the very columns that its record makes: a reader of the columns sees no other answer
   than one who restores the record.
3. Where a file is not what it states, its answers are faulty, and are read all the same where they can
   be: an answer that still comes out again was not what was altered.
"""

import io
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from adapters.answer_files import AnswerStore, read_footer, read_rows
from adapters.answer_rows import records_of, rows_of
from audit.answers import Located
from audit.verdicts import Fault, What
from schemas.answer_file import FileDamaged, FileName, Kind, Record, parse_key
from schemas.errors import NotFound
from schemas.forecast import Forecast, decode_forecast
from schemas.manifest import digest_of
from schemas.rejection import ENVELOPE_HEADER, Rejection, read_rejection


class Kept(msgspec.Struct, frozen=True):
    """An answer as its file holds it. ``said`` is None where the record could not be had."""

    located: Located
    record: Record | None
    said: Forecast | Rejection | None
    faults: tuple[Fault, ...] = ()

    @property
    def is_enveloped(self) -> bool:
        """Whether a rejection holds an envelope in place of the request's bytes."""
        assert self.record is not None
        return any(name == ENVELOPE_HEADER for name, _ in self.record.headers)


class KeptFiles:
    """The answer files of a model. Reads each file that is asked for once, and the one after it."""

    def __init__(self, answers: AnswerStore) -> None:
        self._answers = answers
        self._names: dict[Kind, dict[tuple[int, int], list[FileName]]] = {}
        self._last: tuple[FileName, bytes] | None = None

    def read(self, located: Sequence[Located]) -> list[Kept]:
        """The answers, in the order in which they were given. Raises as the store does."""
        by_file: dict[FileName, list[Located]] = {}
        found: dict[Located, Kept] = {}
        for each in located:
            name = parse_key(each.file)
            if name is None:
                [found[each]] = _lost([each], f"{each.file} is no answer file's key")
            else:
                by_file.setdefault(name, []).append(each)
        for name in sorted(by_file):
            found |= {kept.located: kept for kept in self._read_file(name, by_file[name])}
        return [found[each] for each in located]

    def _read_file(self, name: FileName, located: Sequence[Located]) -> Iterable[Kept]:
        try:
            content = self._content(name)
        except NotFound:
            return _lost(located, f"{name.key} is not there any more")
        except FileDamaged as damaged:
            return _lost(located, damaged.message)
        table, faults = _rows_in(content, name)
        faults += tuple(self._what_follows(name, content))
        if table is None:
            return [Kept(each, None, None, faults) for each in located]
        return _taken(name, table, located, faults)

    def _what_follows(self, name: FileName, content: bytes) -> Iterable[Fault]:
        try:
            own = read_footer(content, name)
        except FileDamaged:
            return  # and nobody knows where it ends
        digest = digest_of(content)
        stated: dict[str, FileName] = {}
        for after in self._at(name.kind, name.partition, own.next):
            with suppress(FileDamaged, NotFound):  # no fault of this one; `audit check` names it
                stated[read_footer(self._content(after), after).previous] = after
        if stated and digest not in stated:
            said, after = next(iter(stated.items()))
            yield Fault(
                What.ROW,
                f"{name.key}: {after.key} says that its bytes had the digest {said or '(none)'}; they "
                f"have {digest}",
            )

    def _at(self, kind: Kind, partition: int, first: int) -> Sequence[FileName]:
        """The files that begin there: one, or more where somebody doubled it."""
        if kind not in self._names:
            self._names[kind] = {}
            for name in self._answers.names(kind):
                self._names[kind].setdefault((name.partition, name.first), []).append(name)
        return self._names[kind].get((partition, first), ())

    def _content(self, name: FileName) -> bytes:
        """The one read last is kept: who reads file after file reads each twice."""
        if self._last is None or self._last[0] != name:
            self._last = (name, self._answers.read(name))
        return self._last[1]


def _lost(located: Sequence[Located], why: str) -> list[Kept]:
    return [Kept(each, None, None, (Fault(What.ROW, why),)) for each in located]


def _rows_in(content: bytes, name: FileName) -> tuple[pa.Table | None, tuple[Fault, ...]]:
    try:
        return read_rows(content, name), ()
    except FileDamaged as damaged:
        faults = (Fault(What.ROW, damaged.message),)
    try:
        return pq.read_table(io.BytesIO(content)), faults
    except (pa.ArrowException, OSError):
        return None, faults


def _taken(
    name: FileName, table: pa.Table, located: Sequence[Located], faults: tuple[Fault, ...]
) -> list[Kept]:
    places = {offset: row for row, offset in enumerate(table["offset"].to_pylist())}
    wanted = [each for each in located if each.offset in places]
    rows = table.take([places[each.offset] for each in wanted])
    kept = {}
    try:
        records = list(records_of(name.kind, rows))
    except (pa.ArrowException, ArithmeticError, AttributeError, TypeError, ValueError) as error:
        faults = (*faults, Fault(What.ROW, f"{name.key}: its rows cannot be read: {error}"))
        wanted, records = [], []
    differing = _differing_columns(name, rows, wanted, records)
    for each, record in zip(wanted, records, strict=True):
        own = list(faults)
        if columns := differing.get(each.offset):
            why = f"{name.key}: the row of offset {each.offset} has not its record's {columns}"
            own.append(Fault(What.ROW, why))
        said = _said(name.kind, record)
        if said is None:
            own.append(Fault(What.ROW, f"{name.key}: offset {each.offset} holds no answer"))
        kept[each] = Kept(each, record, said, tuple(own))
    lost = Fault(What.ROW, f"{name.key} does not hold it any more")
    return [kept.get(each) or Kept(each, None, None, (*faults, lost)) for each in located]


def _differing_columns(
    name: FileName, rows: pa.Table, located: Sequence[Located], records: Sequence[Record]
) -> Mapping[int, str]:
    """Offset -> the columns in which the row is not what its record makes."""
    if not records:
        return {}
    made = rows_of(name.kind, located[0].topic, name.partition, records)
    found: dict[int, list[str]] = {}
    for column in rows.column_names:
        stands = _plain(rows[column])
        # A column of outputs is there where some row of the file has that output.
        right = _plain(made[column]) if column in made.column_names else [None] * len(stands)
        for each, one, other in zip(located, stands, right, strict=True):
            if one != other:
                found.setdefault(each.offset, []).append(column)
    return {offset: ", ".join(columns) for offset, columns in found.items()}


def _plain(column: pa.ChunkedArray) -> list[object]:
    """The values; a time as its number, since it may be one that ``datetime`` has not."""
    is_time = pa.types.is_timestamp(column.type)
    return list((column.cast(pa.int64()) if is_time else column).to_pylist())


def _said(kind: Kind, record: Record) -> Forecast | Rejection | None:
    try:
        if kind is Kind.REJECTIONS:
            return read_rejection([(name, content or b"") for name, content in record.headers])
        return decode_forecast(record.value or b"")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError):
        return None
