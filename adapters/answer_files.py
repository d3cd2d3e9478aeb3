"""Answer files: rows to the bytes of a Parquet file and back, and where a store keeps them.

``schemas.answer_file`` has the rules. A file is sorted by version and key (``_ORDER``), in row groups of
``ROW_GROUP`` with statistics, and its request ids have a Bloom filter for each group: a reader that asks
for a key, a version, a time or an id skips what cannot hold it.

A listing is believed for where files may be, never for what they hold.
"""

import io
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set
from datetime import date, timedelta

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from adapters.answer_rows import OUTPUT_PREFIX, columns_of, records_of, rows_of, unreadable_in
from adapters.object_store import ObjectStore, TooLarge
from schemas.answer_file import (
    FOLDER,
    FOOTER_KEY,
    MAX_FILE_BYTES,
    ContentHash,
    FileDamaged,
    FileName,
    Footer,
    Kind,
    Record,
    day_folder,
    day_of,
    decode_footer,
    encode_footer,
    kind_folder,
    parse_key,
)

ROW_GROUP = 65_536
"""Most rows of a row group."""

_LEVEL = 1
"""Of zstd. Level 3 takes half as long again, and a file of answers is no smaller."""

_FALSE_POSITIVES = 0.01
"""How often a Bloom filter says of an absent id that it may be there."""

_ORDER: Mapping[Kind, tuple[str, ...]] = {
    Kind.FORECASTS: ("version", "key", "offset"),
    Kind.SHADOW: ("version", "key", "offset"),
    Kind.REJECTIONS: ("reason", "key", "offset"),
    Kind.CONTROL: ("offset",),
}
_HAVE_IDS = (Kind.FORECASTS, Kind.SHADOW, Kind.REJECTIONS)

_MANY_DAYS = 60
"""Days beyond which one listing of all files is cheaper than one for each day."""

_RECENT_DAYS = 8
"""How far back the end of a chain is looked for before all files are listed."""


def encode_file(footer: Footer, tables: Iterable[pa.Table]) -> bytes:
    """The bytes of an answer file. ``tables`` are ``answer_rows.rows_of`` its records.

    ``rows``, ``content`` and ``unreadable`` of the footer must be theirs. The same rows and footer give
    the same bytes under the same pyarrow.
    """
    kind = footer.kind
    table = pa.concat_tables(
        [rows_of(kind, footer.topic, footer.partition, ()), *tables], promote_options="default"
    )
    outputs = [name for name in table.column_names if name.startswith(OUTPUT_PREFIX)]
    table = table.select([*columns_of(kind), *outputs]).unify_dictionaries().combine_chunks()
    order = [(name, "ascending") for name in _ORDER[kind]]
    table = table.take(_sorting(table, _ORDER[kind]))
    table = table.replace_schema_metadata({FOOTER_KEY: encode_footer(footer)})
    written = io.BytesIO()
    pq.write_table(
        table,
        written,
        row_group_size=ROW_GROUP,
        compression="zstd",
        compression_level=_LEVEL,
        use_dictionary=[
            name for name, of in columns_of(kind).items() if pa.types.is_dictionary(of)
        ],
        sorting_columns=pq.SortingColumn.from_ordering(table.schema, order),
        # Without the number of ids a writer takes room for a hundred million.
        bloom_filter_options={
            "request_id": {"fpp": _FALSE_POSITIVES, "ndv": min(max(len(table), 1), ROW_GROUP)}
        }
        if kind in _HAVE_IDS
        else None,
    )
    return written.getvalue()


def _sorting(table: pa.Table, names: Sequence[str]) -> pa.Array:
    """The places of the rows in order. Texts are compared by their ranks: few of a file's differ."""
    keys = {name: _ranks(table[name]) for name in names}
    return pc.sort_indices(pa.table(keys), [(name, "ascending") for name in names])


def _ranks(column: pa.ChunkedArray) -> pa.Array:
    array = column.combine_chunks()
    if pa.types.is_string(array.type):
        array = array.dictionary_encode()
    if not pa.types.is_dictionary(array.type):
        return array
    ranks = pc.rank(array.dictionary, tiebreaker="dense")
    return ranks.take(array.indices) if len(array.dictionary) else array.indices


def read_footer(content: bytes, name: FileName) -> Footer:
    """What the file under this name says of itself.

    Raises FileDamaged where it is no answer file, FileElsewhere where it belongs elsewhere.
    """
    return _footer(_opened(content, name), name)


def read_rows(content: bytes, name: FileName) -> pa.Table:
    """The rows of the file, once its records have the digest that its footer states.

    Raises FileDamaged where they do not, or the file is none.
    """
    return _checked(content, name)[1]


def _checked(content: bytes, name: FileName) -> tuple[Footer, pa.Table, list[Record]]:
    """The footer, the rows, and the record of each row."""
    file = _opened(content, name)
    footer = _footer(file, name)
    try:
        table = file.read()
        records = list(records_of(footer.kind, table))
    except (
        pa.ArrowException,
        ArithmeticError,
        AttributeError,
        KeyError,
        OSError,
        TypeError,
        ValueError,
    ) as error:
        raise _damaged(name, f"its rows cannot be read: {error}") from None
    in_order = sorted(records, key=lambda record: record.offset)
    _check_records(name, footer, in_order, unreadable_in(table))
    return footer, table, records


def check_file(content: bytes, name: FileName) -> Footer:
    """The footer of a file of which all was looked at: ``read_rows``, and each column of each row.

    Where a record is kept whole (``raw``) its other columns say nothing of it, and yet are what questions
    are answered from. Raises FileDamaged.
    """
    footer, table, records = _checked(content, name)
    made = rows_of(footer.kind, footer.topic, footer.partition, records)
    for column in dict.fromkeys((*table.column_names, *made.column_names)):
        if not _is_same(table, made, column):
            raise _damaged(name, f"its column {column} is not what its records make")
    return footer


def check_day(content: bytes, name: FileName) -> None:
    """Raises FileDamaged where the statistics tell of records of another day than the file's folder."""
    metadata = _opened(content, name).metadata
    for group in range(metadata.num_row_groups):
        columns = map(metadata.row_group(group).column, range(metadata.num_columns))
        for column in columns:
            if column.path_in_schema == "time" and column.is_stats_set:
                found = column.statistics
                for time_ms in (found.min_raw, found.max_raw) if found.has_min_max else ():
                    _check_written(name, {day_of(time_ms)})


def read_records(content: bytes, name: FileName) -> list[Record]:
    """The records of the file in the order of their offsets; raises as ``read_rows``."""
    table = read_rows(content, name)
    return sorted(records_of(name.kind, table), key=lambda record: record.offset)


class FileElsewhere(FileDamaged):
    """A file lies under another name than that which its footer says."""

    def __init__(self, name: FileName, footer: Footer) -> None:
        super().__init__(
            f"{name.key}: its footer says {footer.kind} of {footer.model}, partition "
            f"{footer.partition} from {footer.first}",
            hint=_DAMAGED_HINT,
        )
        self.footer = footer


class AnswerStore:
    """The answer files of one model in a store. Raises as the store does."""

    def __init__(self, store: ObjectStore, model: str) -> None:
        self._store = store
        self._model = model

    @property
    def url(self) -> str:
        """The store's address."""
        return self._store.url

    def names(
        self, kind: Kind, first_day: date | None = None, last_day: date | None = None
    ) -> list[FileName]:
        """The files whose records were written on these days (both included), by partition and place.

        All files are listed unless both are given, and for more than ``_MANY_DAYS``.
        """
        return self.look(kind, first_day, last_day)[0]

    def look(
        self, kind: Kind, first_day: date | None = None, last_day: date | None = None
    ) -> tuple[list[FileName], list[str]]:
        """``names``, and the keys of what lies among the files and is none."""
        if (
            first_day is not None
            and last_day is not None
            and (last_day - first_day).days <= _MANY_DAYS
        ):
            keys = self._on_days(kind, first_day, last_day)
        else:
            keys = self._store.list(kind_folder(kind, self._model))
        found, foreign = [], []
        for key in keys:
            name = parse_key(key)
            if name is None:
                foreign.append(key)
            elif (first_day is None or name.day >= first_day) and (
                last_day is None or name.day <= last_day
            ):
                found.append(name)
        found.sort(key=lambda name: (name.partition, name.first, name.day))
        return found, sorted(foreign)

    def ends(self, kind: Kind, partitions: Collection[int], today: date) -> dict[int, FileName]:
        """The last file of each partition's chain; a partition without files is left out.

        Days are listed backwards from tomorrow until each partition was found, and one more, since the
        brokers' clocks may differ.
        """
        found: dict[int, FileName] = {}
        for back in range(-1, _RECENT_DAYS):
            was_complete = found.keys() >= set(partitions)
            day = today - timedelta(days=back)
            for name in self.names(kind, day, day):
                _keep_last(found, name)
            if was_complete:
                break
        else:
            if not found.keys() >= set(partitions):
                for name in self.names(kind):
                    _keep_last(found, name)
        return {number: found[number] for number in partitions if number in found}

    def read(self, name: FileName) -> bytes:
        """The file's bytes. Raises NotFound, and FileDamaged where it is larger than any such file."""
        try:
            return self._store.get(name.key, limit=MAX_FILE_BYTES)
        except TooLarge as error:
            raise _damaged(name, f"it has {error.size:,} bytes") from None

    def put(self, name: FileName, content: bytes) -> bool:
        """Stores the file; False where another stands there already."""
        return self._store.put_if_absent(name.key, content)

    def has(self, name: FileName) -> bool:
        """Whether the file is there."""
        return self._store.exists(name.key)

    def _on_days(self, kind: Kind, first_day: date, last_day: date) -> Iterator[str]:
        for number in range((last_day - first_day).days + 1):
            day = first_day + timedelta(days=number)
            yield from self._store.list(day_folder(kind, self._model, day))


def kept_models(store: ObjectStore) -> set[str]:
    """The models that have answer files: each keeps its control log among them, which has few."""
    names = map(parse_key, store.list(f"{FOLDER}/{Kind.CONTROL}"))
    return {name.model for name in names if name is not None}


def _keep_last(found: dict[int, FileName], name: FileName) -> None:
    kept = found.get(name.partition)
    if kept is None or name.first >= kept.first:
        found[name.partition] = name


def _opened(content: bytes, name: FileName) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(io.BytesIO(content))
    except (pa.ArrowException, OSError) as error:
        raise _damaged(name, f"it is no Parquet file: {error}") from None


def _footer(file: pq.ParquetFile, name: FileName) -> Footer:
    raw = (file.metadata.metadata or {}).get(FOOTER_KEY)
    if raw is None:
        raise _damaged(name, "it has no footer of an answer file")
    try:
        footer = decode_footer(raw)
    except ValueError as error:
        raise _damaged(name, f"its footer cannot be read: {error}") from None
    says = (footer.kind, footer.model, footer.partition, footer.first)
    if says != (name.kind, name.model, name.partition, name.first):
        raise FileElsewhere(name, footer)
    return footer


def _check_records(
    name: FileName, footer: Footer, records: Sequence[Record], unreadable: int
) -> None:
    digest = ContentHash()
    digest.take(records)
    offsets = [record.offset for record in records]
    inside = all(footer.first <= offset < footer.next for offset in offsets)
    if len(records) != footer.rows or not inside or len(set(offsets)) != len(offsets):
        raise _damaged(
            name,
            f"it states {footer.rows:,} records from {footer.first} to before {footer.next} and holds "
            f"{len(records):,}",
        )
    if digest.digest != footer.content or unreadable != footer.unreadable:
        raise _damaged(name, f"its records have the digest {digest.digest}, not {footer.content}")
    _check_written(name, {day_of(record.time_ms) for record in records})


def _check_written(name: FileName, days: Set[date]) -> None:
    if others := days - {name.day}:
        raise _damaged(name, f"it has records that were written on {max(others)}")


def _is_same(table: pa.Table, made: pa.Table, column: str) -> bool:
    """Whether the column holds what was made. One that was not made has nothing but nulls."""
    if column not in table.column_names:
        return False
    if column not in made.column_names:
        return column.startswith(OUTPUT_PREFIX) and table[column].null_count == len(table)
    return bool(_plain(table[column]).equals(_plain(made[column])))


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def _damaged(name: FileName, found: str) -> FileDamaged:
    return FileDamaged(f"{name.key}: {found}", hint=_DAMAGED_HINT)


_DAMAGED_HINT = "restore the file from a backup of the store, or find who wrote there"
