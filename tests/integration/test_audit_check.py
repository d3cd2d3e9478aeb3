"""What somebody did to answer files is found, and the file is named."""

import io
import shutil
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.answer_file import FileName, Kind
from tests.fleet import Harness
from tests.kept_answers import checked, files_of, run_once
from tests.written_answers import Scribe

pytestmark = pytest.mark.stack


@pytest.fixture
def kept(harness: Harness) -> Harness:
    """A model with three files in each chain of forecasts."""
    scribe = Scribe(harness)
    for _ in range(3):
        scribe.write(256)
        run_once(harness)
    return harness


def path_of(harness: Harness, name: FileName) -> Path:
    """Where the file lies."""
    return Path(unquote(urlsplit(harness.settings.audit_url).path)) / name.key


def chain_of(harness: Harness, partition: int) -> list[FileName]:
    """The files of a partition's forecasts."""
    return [
        name
        for name in files_of(harness)
        if (name.kind, name.partition) == (Kind.FORECASTS, partition)
    ]


def edit(path: Path) -> None:
    """Change one answer, as somebody with the tools would."""
    table = pq.read_table(io.BytesIO(path.read_bytes()))
    outputs = table["outputs"].to_pylist()
    outputs[0] = '{"units":100000.0}'
    column = table.column_names.index("outputs")
    pq.write_table(table.set_column(column, "outputs", pa.array(outputs)), path)


def test_what_was_done_by_hand_is_found_by_name(kept: Harness) -> None:
    """Each in a chain of its own: deleted, doubled, edited, cut short; and what does not belong there."""
    assert checked(kept)["clean"]
    deleted, doubled, edited, damaged = (chain_of(kept, number)[1] for number in range(4))
    path_of(kept, deleted).unlink()
    copy = FileName(doubled.kind, doubled.model, 1, doubled.first + 1, doubled.day)
    shutil.copy(path_of(kept, doubled), path_of(kept, copy))
    edit(path_of(kept, edited))
    path = path_of(kept, damaged)
    path.write_bytes(path.read_bytes()[:-100])
    stray = path.with_name("notes.parquet")
    stray.write_bytes(b"?")
    found = {(each["what"], each["key"]) for each in checked(kept)["findings"]}
    folder = damaged.key.rpartition("/")[0]
    assert found == {
        ("missing", deleted.key),
        ("doubled", copy.key),
        ("altered", edited.key),
        ("altered", damaged.key),
        ("foreign", f"{folder}/notes.parquet"),
    }


def test_the_end_of_a_chain_is_known_too(kept: Harness) -> None:
    """Its last file edited: by its records. Deleted: by what the sink said, which the broker has."""
    last = [chain_of(kept, number)[-1] for number in range(4)]
    edit(path_of(kept, last[0]))
    path_of(kept, last[1]).unlink()
    for name in chain_of(kept, 2):
        path_of(kept, name).unlink()
    findings = checked(kept)["findings"]
    assert sorted((each["what"], each["key"]) for each in findings) == [
        ("altered", last[0].key),
        ("missing", last[1].key.replace(last[1].day.isoformat(), "*")),
        ("missing", "forecasts, partition 2"),
    ]
    alone = checked(kept, "--no-broker")["findings"]
    assert [(each["what"], each["key"]) for each in alone] == [("altered", last[0].key)]


def test_a_part_of_the_days_can_be_checked(kept: Harness) -> None:
    """Files of days that were not asked for are not missed, whether they are there or not."""
    day = chain_of(kept, 0)[0].day
    assert checked(kept, "--since", str(day))["clean"]
    path_of(kept, chain_of(kept, 0)[0]).unlink()
    assert not checked(kept)["clean"]
    assert checked(kept, "--since", str(day))["clean"]
    kept.run("audit", "check", "--model", kept.model, "--until", "2020-01-01", code=4)


def test_people_are_told_in_words(kept: Harness) -> None:
    """What was read, what was found, and how many."""
    said = kept.run("audit", "check", "--model", kept.model)
    assert "clean" in said
    path_of(kept, chain_of(kept, 0)[1]).unlink()
    said = kept.run("audit", "check", "--model", kept.model, code=1)
    assert f"missing: {chain_of(kept, 1)[1].key.rpartition('/')[0]}" in said
    assert "1 finding" in said
