"""DuckDB reads the file that was named, and what it cannot read is told in our words."""

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.errors import ModelwireError
from tests.unit.panel_reading import (
    FEW,
    csv_text,
    few_in,
    panel_of,
    row,
    small_columns,
    write_many_rows,
)
from trainer.csv_files import MAX_ROW_BYTES
from trainer.dataset import DatasetFile


def sold_by(shop: str) -> dict[str, list[object]]:
    """The small panel with another name for its first shop."""
    columns = small_columns()
    columns["shop"] = [shop if each == "shop-0" else each for each in columns["shop"]]
    return columns


def write(path: Path, columns: dict[str, list[object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".csv":
        path.write_text(csv_text(columns), encoding="utf-8")
    else:
        pq.write_table(pa.table(columns), path)


def source(folder: Path, name: str) -> DatasetFile:
    return few_in(folder, config=FEW.replace("panel.csv", name))


@pytest.mark.parametrize("ending", ["csv", "parquet"])
@pytest.mark.parametrize(
    ("name", "other"), [("p[1]", "p1"), ("p*", "pq"), ("p?", "pq"), ("f[1]/p", "f1/p")]
)
def test_a_name_that_looks_like_a_glob_is_a_file(
    tmp_path: Path, name: str, other: str, ending: str
) -> None:
    """What was digested is what is read, though a file lies there that the glob would match."""
    write(tmp_path / f"{name}.{ending}", sold_by("mine"))
    write(tmp_path / f"{other}.{ending}", sold_by("theirs"))
    panel = panel_of(source(tmp_path, f"{name}.{ending}"))
    assert panel.keys.vocabulary == (("mine", "shop-1", "shop-2"),)
    assert panel.units[row(panel, "mine"), 0] == small_columns()["units"][0]


@pytest.mark.parametrize("ending", ["csv", "parquet"])
@pytest.mark.parametrize("place", ["shop=north", "year=2024"])
def test_folders_are_no_columns(tmp_path: Path, place: str, ending: str) -> None:
    """A folder that is named as a column with a value says nothing of the rows in it."""
    write(tmp_path / place / f"p.{ending}", sold_by("mine"))
    panel = panel_of(source(tmp_path, f"*/p.{ending}"))
    assert panel.keys.vocabulary == (("mine", "shop-1", "shop-2"),)


def test_the_index_that_pandas_writes_is_passed_over(tmp_path: Path) -> None:
    """A first column without a name; a second one makes no difference."""
    columns = small_columns()
    numbers: list[object] = [*range(120)]
    write(tmp_path / "usual.csv", columns)
    lines = csv_text({"a": numbers, **columns, "b": numbers}).splitlines()
    lines[0] = ",day,shop,units,"
    (tmp_path / "p.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    expected = panel_of(source(tmp_path, "usual.csv")).units
    assert (panel_of(source(tmp_path, "p.csv")).units == expected).all()


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ('"shop-1"x', "panel.csv: line 3 has text behind the quote that ends a cell"),
        ("x" * (MAX_ROW_BYTES + 1), f"line 3 has 1,000,015 bytes, and {MAX_ROW_BYTES:,} are the most"),
    ],
)  # fmt: skip
def test_what_no_reader_of_csv_takes_is_told_by_its_line(
    tmp_path: Path, cell: str, said: str
) -> None:
    """In our words: none of DuckDB's classes of errors."""
    file = few_in(tmp_path)
    path = tmp_path / "panel.csv"
    path.write_text(path.read_text().replace("shop-1", cell, 1))
    with pytest.raises(ModelwireError) as caught:
        panel_of(file)
    assert said in caught.value.message
    assert "Error" not in caught.value.message + caught.value.hint


FULL = """
import resource, sys
from pathlib import Path
from schemas.errors import ModelwireError
from tests.unit.panel_reading import panel_of
from trainer.dataset import load_dataset
most = int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
try:
    panel_of(load_dataset(Path(sys.argv[1])))
except ModelwireError as error:
    print(error.message, error.hint, sep="\\n")
"""


@pytest.mark.parametrize("most", [1_000, 300_000, 1_000_000])
def test_a_full_temporary_folder_is_a_plain_message(tmp_path: Path, most: int) -> None:
    """Wherever it fills up: the folder is at fault, and no source. No file may grow beyond the limit."""
    write_many_rows(tmp_path / "panel.parquet")
    path = source(tmp_path, "panel.parquet").path
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(path), str(most)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    message, hint = done.stdout.splitlines()
    assert "temporary folder" in message
    assert "panel.parquet" not in message
    assert "TMPDIR" in hint
