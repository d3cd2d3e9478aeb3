"""Answers read from their files: which other file says something of theirs, and which does not."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from adapters.answer_files import AnswerStore, read_records
from adapters.file_store import FileStore
from audit.answers import Located
from audit.check import check
from audit.kept import Kept, KeptFiles
from schemas.answer_file import FileName, Kind
from tests.answers import NOON, forecast_record
from tests.keeping import chain, file_of

TOPIC = "sales.results"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the store lies."""
    return tmp_path / "store"


@pytest.fixture
def files(folder: Path) -> list[FileName]:
    """Three files of a partition, of four answers each."""
    store = AnswerStore(FileStore(folder), "sales")
    records = [forecast_record("sales", number) for number in range(12)]
    return chain(store, Kind.FORECASTS, "sales", TOPIC, 0, records, 4)


def kept(folder: Path, name: FileName) -> Kept:
    """The first answer of a file."""
    first = name.first
    place = Located(
        kind=name.kind, file=name.key, topic=TOPIC, partition=0, offset=first, time=NOON,
        source=f"sales.requests/0/{first}",
    )  # fmt: skip
    [found] = KeptFiles(AnswerStore(FileStore(folder), "sales")).read([place])
    return found


def found_by_check(folder: Path) -> list[tuple[str, str]]:
    """What is wrong, and with which file."""
    store = AnswerStore(FileStore(folder), "sales")
    report = check(store, None, None, {}, NOON.date())
    return [(each.what.value, each.key) for each in report.findings]


def write_anew(folder: Path, name: FileName, *, previous: str) -> None:
    """Edit an answer of a file and mend its footer, so that nothing in the file itself is wrong."""
    path = folder / name.key
    records = read_records(path.read_bytes(), name)
    records[0] = forecast_record("sales", records[0].offset, units=99.0)
    content = file_of(
        name.kind, "sales", TOPIC, 0, records, name.day, previous=previous, first=name.first
    )[1]
    path.chmod(0o644)
    path.write_bytes(content)


def test_a_missing_file_is_no_fault_of_the_answers_before_it(
    folder: Path, files: list[FileName]
) -> None:
    """The next one that is there states the bytes of the missing one."""
    (folder / files[1].key).unlink()
    assert kept(folder, files[0]).faults == ()
    assert found_by_check(folder) == [("missing", files[1].key)]


def test_a_stray_file_hides_no_edit(folder: Path, files: list[FileName]) -> None:
    """Not by a name that lies nearer than that of the file which states the edited one's bytes."""
    write_anew(folder, files[0], previous="")
    stray = folder / FileName(Kind.FORECASTS, "sales", 0, 1, files[0].day).key
    stray.write_bytes((folder / files[1].key).read_bytes())
    [fault] = kept(folder, files[0]).faults
    assert files[1].key in fault.why


def test_a_file_that_states_no_digest_vouches_for_none(folder: Path, files: list[FileName]) -> None:
    """Whoever edits two files in a row still leaves the chain broken between them."""
    write_anew(folder, files[0], previous="")
    write_anew(folder, files[1], previous="")
    [fault] = kept(folder, files[0]).faults
    assert "(none)" in fault.why


def test_a_file_moved_to_another_day_is_named(folder: Path, files: list[FileName]) -> None:
    """Its bytes are what the next one states, and questions of its day would pass it over."""
    moved = FileName(Kind.FORECASTS, "sales", 0, files[1].first, files[1].day - timedelta(days=3))
    (folder / moved.key).parent.mkdir()
    (folder / files[1].key).rename(folder / moved.key)
    assert found_by_check(folder) == [("altered", moved.key)]


def test_a_column_edited_in_the_newest_file_is_named(folder: Path, files: list[FileName]) -> None:
    """No file states its bytes yet, and its records are as they were."""

    path = folder / files[-1].key
    table = pq.read_table(path)
    place = table.column_names.index("output_units")
    path.chmod(0o644)
    pq.write_table(table.set_column(place, "output_units", pa.array([7.0] * 4)), path)
    assert found_by_check(folder) == [("altered", files[-1].key)]


def test_a_file_that_is_stored_meanwhile_is_not_missed(folder: Path, files: list[FileName]) -> None:
    """A listing passes over its place, then finds the one behind it."""

    passed_over = [files[1].key]

    class Late(FileStore):
        def list(self, folder: str = "") -> Iterator[str]:
            """Without what is not stored yet."""
            for key in super().list(folder):
                if key in passed_over:
                    passed_over.remove(key)
                else:
                    yield key

    report = check(AnswerStore(Late(folder), "sales"), None, None, {}, NOON.date())
    assert report.findings == ()
    assert report.counts[0].files == len(files)
    assert not passed_over


def test_any_first_day_can_be_asked_for(folder: Path, files: list[FileName]) -> None:
    """The first that there is has none before it."""
    store = AnswerStore(FileStore(folder), "sales")
    report = check(store, NOON.date().min, None, {}, NOON.date())
    assert report.findings == ()
    assert sum(each.files for each in report.counts) == len(files)
