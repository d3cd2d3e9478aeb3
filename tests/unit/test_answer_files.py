"""Answer files: their order, their damages, and where a store has them."""

import io
import random
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from adapters.answer_files import (
    AnswerStore,
    FileElsewhere,
    check_day,
    check_file,
    encode_file,
    kept_models,
    read_footer,
    read_records,
    read_rows,
)
from adapters.answer_rows import rows_of
from adapters.file_store import FileStore
from schemas.answer_file import (
    NO_DAY,
    ContentHash,
    FileDamaged,
    FileName,
    Footer,
    Kind,
    Record,
)
from schemas.events import ModelReleased
from tests.answers import (
    NOON,
    answer_file,
    digest,
    event_records,
    forecast_record,
    rejection_record,
)

DAY = NOON.date()


def forecasts(count: int) -> list[Record]:
    """Forecasts of several versions and keys."""
    rng = random.Random(4)
    return [
        forecast_record("sales", number, key=f"k{rng.randrange(9)}", version=rng.randrange(1, 4))
        for number in range(count)
    ]


def test_rows_are_sorted_and_come_back_in_the_order_of_their_offsets() -> None:
    """By version and key, so that filters skip; the file says so, and has a Bloom filter of ids."""
    records = forecasts(500)
    name, content = answer_file(Kind.FORECASTS, "sales", records)
    table = read_rows(content, name)
    rows = list(
        zip(*(table[each].to_pylist() for each in ("version", "key", "offset")), strict=True)
    )
    assert rows == sorted(rows)
    assert read_records(content, name) == records
    group = pq.ParquetFile(io.BytesIO(content)).metadata.row_group(0)
    assert [table.column_names[each.column_index] for each in group.sorting_columns] == [
        "version",
        "key",
        "offset",
    ]


def test_rejections_are_sorted_by_reason() -> None:
    """Those without one, which are none, stand last."""
    records = [
        rejection_record("sales", 1, reason="b"),
        Record(2, int(NOON.timestamp() * 1_000), None, b"?"),
        rejection_record("sales", 3, reason="a"),
    ]  # type: ignore[arg-type]
    name, content = answer_file(Kind.REJECTIONS, "sales", records)
    assert read_rows(content, name)["offset"].to_pylist() == [3, 1, 2]


def test_the_same_rows_give_the_same_bytes() -> None:
    """However they came: two sinks with the same records store the same file."""
    records = forecasts(300)
    _, content = answer_file(Kind.FORECASTS, "sales", records)
    parts = [
        rows_of(Kind.FORECASTS, "sales.results", 0, records[at : at + 70])
        for at in range(0, 300, 70)
    ]
    digest = ContentHash()
    digest.take(records)
    footer = Footer(
        kind=Kind.FORECASTS, model="sales", topic="sales.results", partition=0,
        first=0, next=300, rows=300, content=digest.digest,
    )  # fmt: skip
    assert encode_file(footer, parts) == content


def test_a_gap_is_a_file_without_rows() -> None:
    """It can be read like any other."""
    footer = Footer(
        kind=Kind.SHADOW, model="sales", topic="sales.shadow", partition=0,
        first=0, next=70, rows=0, content=ContentHash().digest,
    )  # fmt: skip
    name = FileName(Kind.SHADOW, "sales", 0, 0, NO_DAY)
    content = encode_file(footer, [])
    assert read_footer(content, name).is_gap
    assert read_records(content, name) == []


def edited(content: bytes, change: "dict[str, pa.Array] | None" = None, **footer: object) -> bytes:
    """The file with columns or its metadata replaced, as somebody with the tools could do it."""
    table = pq.read_table(io.BytesIO(content))
    for name, values in (change or {}).items():
        table = table.set_column(table.column_names.index(name), name, values)
    metadata = dict(table.schema.metadata)
    for name, value in footer.items():
        metadata[name.encode()] = value
    written = io.BytesIO()
    pq.write_table(table.replace_schema_metadata(metadata), written)
    return written.getvalue()


def test_an_edited_row_is_found() -> None:
    """Its records have another digest than the footer states."""
    name, content = answer_file(Kind.FORECASTS, "sales", forecasts(20))
    outputs = pa.array(['{"units":1000.0}'] * 20)
    with pytest.raises(FileDamaged, match="its records have the digest"):
        read_rows(edited(content, {"outputs": outputs}), name)


def test_rows_of_other_types_are_damage_and_no_crash() -> None:
    """Whoever edits a file may write anything."""
    name, content = answer_file(Kind.FORECASTS, "sales", forecasts(20))
    for column, values in (
        ("inputs", [1.5] * 20),
        ("version", ["x"] * 20),
        ("headers", ["["] * 20),
    ):
        with pytest.raises(FileDamaged):
            read_rows(edited(content, {column: pa.array(values)}), name)


@pytest.mark.parametrize("size", [0, 3, 200])
def test_what_is_no_parquet_file_is_damage(size: int) -> None:
    """Cut short, or something else."""
    name, content = answer_file(Kind.FORECASTS, "sales", forecasts(20))
    with pytest.raises(FileDamaged, match="it is no Parquet file"):
        read_footer(content[:size], name)


def test_a_parquet_file_of_somebody_else_is_damage() -> None:
    """It has no footer of ours, or one that cannot be read."""
    name, content = answer_file(Kind.FORECASTS, "sales", forecasts(20))
    written = io.BytesIO()
    pq.write_table(pa.table({"a": [1]}), written)
    with pytest.raises(FileDamaged, match="no footer"):
        read_footer(written.getvalue(), name)
    with pytest.raises(FileDamaged, match="its footer cannot be read"):
        read_footer(edited(content, **{"modelwire.answers": b"{"}), name)


def test_a_file_under_another_name_says_where_it_belongs() -> None:
    """A copy is known as one."""
    name, content = answer_file(Kind.FORECASTS, "sales", forecasts(20))
    with pytest.raises(FileElsewhere, match="partition 0 from 0") as raised:
        read_footer(content, FileName(name.kind, name.model, 1, 0, name.day))
    assert raised.value.footer == read_footer(content, name)


def test_a_file_in_another_day_is_damage() -> None:
    """Its records were not written then."""
    name, content = answer_file(Kind.FORECASTS, "sales", forecasts(20))
    moved = FileName(name.kind, name.model, 0, 0, date(2026, 11, 22))
    with pytest.raises(FileDamaged, match="written on 2026-11-20"):
        read_rows(content, moved)


def test_a_file_in_another_day_is_known_without_reading_its_rows() -> None:
    """By its statistics: its bytes are right, and questions by time would pass it over."""
    name, content = answer_file(Kind.FORECASTS, "sales", forecasts(20))
    check_day(content, name)
    with pytest.raises(FileDamaged, match="written on 2026-11-20"):
        check_day(content, FileName(name.kind, name.model, 0, 0, date(2026, 11, 22)))


def test_a_whole_file_is_sound_whatever_it_holds() -> None:
    """Outputs that few have, records that are nothing, and those that are kept whole."""
    noise = Record(400, int(NOON.timestamp() * 1_000), b"\xff", b"noise")
    spaced = forecast_record("sales", 401)
    assert spaced.value is not None
    spaced = msgspec.structs.replace(spaced, value=spaced.value.replace(b":", b": ", 1))
    other = forecast_record("sales", 402, units=1.0, p90=2.0)
    kinds = {
        Kind.FORECASTS: [*forecasts(20), noise, spaced, other],
        Kind.REJECTIONS: [rejection_record("sales", 1), msgspec.structs.replace(noise, offset=2)],
        Kind.CONTROL: event_records("sales", ModelReleased(1, digest(1), "the first")),
    }
    for kind, records in kinds.items():
        name, content = answer_file(kind, "sales", records)
        assert check_file(content, name) == read_footer(content, name)


@pytest.mark.parametrize(
    ("kind", "column", "value"),
    [
        (Kind.FORECASTS, "output_units", 1000.0),
        (Kind.REJECTIONS, "request_id", "somebody's"),
        (Kind.CONTROL, "actor", "eve"),
        (Kind.CONTROL, "data", "{}"),
    ],
)
def test_an_edited_column_that_no_record_is_made_of_is_found(
    kind: Kind, column: str, value: object
) -> None:
    """Its records are as they were, and questions would be answered from the column."""
    records = {
        Kind.FORECASTS: forecasts(3),
        Kind.REJECTIONS: [rejection_record("sales", 1)],
        Kind.CONTROL: event_records("sales", ModelReleased(1, digest(1), "the first")),
    }[kind]
    name, content = answer_file(kind, "sales", records)
    of = pa.string() if isinstance(value, str) else pa.float64()
    altered = edited(content, {column: pa.array([value] * len(records), of)})
    assert read_rows(altered, name)[column][0].as_py() == value
    with pytest.raises(FileDamaged, match=f"its column {column} is not what its records make"):
        check_file(altered, name)


@pytest.fixture
def store(tmp_path: Path) -> AnswerStore:
    """An empty one."""
    return AnswerStore(FileStore(tmp_path / "kept"), "sales")


def put(store: AnswerStore, *places: tuple[int, int, date]) -> Sequence[FileName]:
    """Put something under the names of these partitions, positions and days."""
    names = [FileName(Kind.FORECASTS, "sales", number, first, day) for number, first, day in places]
    for name in names:
        assert store.put(name, b"x")
    return names


def test_the_first_put_wins(store: AnswerStore) -> None:
    """The second is told, and changes nothing."""
    (name,) = put(store, (0, 0, DAY))
    assert not store.put(name, b"y")
    assert store.read(name) == b"x"
    assert store.has(name)


def test_names_are_of_the_days_that_are_asked_for(store: AnswerStore, tmp_path: Path) -> None:
    """In the order of partitions and positions; what lies among them is told apart."""
    days = [date(2026, 11, day) for day in (18, 19, 20)]
    one, two, three = put(store, (1, 0, days[0]), (0, 7, days[1]), (0, 3, days[2]))
    stray = tmp_path / "kept" / "audit/forecasts/sales/2026-11-19/notes.txt"
    stray.write_text("?")
    assert store.names(Kind.FORECASTS) == [three, two, one]
    assert store.names(Kind.FORECASTS, days[1]) == [three, two]
    assert store.names(Kind.FORECASTS, days[0], days[1]) == [two, one]
    assert store.look(Kind.FORECASTS)[1] == ["audit/forecasts/sales/2026-11-19/notes.txt"]
    assert store.names(Kind.SHADOW) == []
    assert store.names(Kind.FORECASTS, date.min, date.max) == [three, two, one]


def test_the_last_file_is_found_however_long_ago(store: AnswerStore) -> None:
    """Also where clocks differ around midnight, and in a partition that was idle for weeks."""
    before, today = date(2026, 11, 19), date(2026, 11, 20)
    last = put(
        store, (0, 5, today), (0, 9, before), (1, 2, date(2026, 9, 1)), (2, 1, date(2026, 11, 21))
    )
    found = store.ends(Kind.FORECASTS, [0, 1, 2, 3], today)
    assert found == {0: last[1], 1: last[2], 2: last[3]}


def test_models_are_known_by_their_control_logs(tmp_path: Path) -> None:
    """Of a model whose topics are gone nothing else may be left."""
    files = FileStore(tmp_path / "kept")
    assert kept_models(files) == set()
    for model in ("sales", "units"):
        for kind in Kind:
            assert AnswerStore(files, model).put(FileName(kind, model, 0, 0, DAY), b"x")
    assert kept_models(files) == {"sales", "units"}


def test_a_store_without_files_has_no_ends(store: AnswerStore) -> None:
    """A sink then begins at the beginning."""
    assert store.ends(Kind.FORECASTS, [0], datetime.now(UTC).date()) == {}
