"""Pins of DVC: what the real one wrote (``tests/fixtures/dvc``) is found, and compared with the files."""

import shutil
from pathlib import Path

import pytest

from schemas.errors import ModelwireError
from tests.shell import ROOT
from tests.unit.panel_reading import FEW
from trainer.dataset import DatasetFile, load_dataset
from trainer.sources import SourceFile, open_sources

FIXTURE = ROOT / "tests" / "fixtures" / "dvc"
FOLDER_MD5 = "251502eee1e20c6c6623bccbecfe568d.dir"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """What the fixture's script left in a repository of DVC."""
    folder = tmp_path / "repository"
    shutil.copytree(FIXTURE, folder)
    (folder / ".dvc").mkdir()
    return folder


def dataset(folder: Path, source: str) -> DatasetFile:
    """The least dataset with this source, in a folder."""
    path = folder / "few.toml"
    path.write_text(FEW.replace('"panel.csv"', source), encoding="utf-8")
    return load_dataset(path)


def files_of(folder: Path, source: str) -> tuple[SourceFile, ...]:
    with open_sources(dataset(folder, source)) as sources:
        return sources.all


def test_what_dvc_wrote_pins_files_and_folders(repository: Path) -> None:
    """A file beside its pin, files of a pinned folder, and one by a pin of another name above it."""
    files = files_of(repository, '["panel.csv", "shops/**/*.csv", "raw/visits.csv"]')
    assert [(each.name, each.pin and each.pin.md5, each.pin_name) for each in files] == [
        ("panel.csv", "f51cd88e57881780821f6ea499e730cf", "panel.csv.dvc"),
        ("shops/north.csv", FOLDER_MD5, "shops.dvc"),
        ("shops/south/süd.csv", FOLDER_MD5, "shops.dvc"),
        ("raw/visits.csv", "5678b01f82c22e803045deff8654b9fa", "traffic.dvc"),
    ]


def test_a_pin_is_found_up_to_the_root_of_its_repository(repository: Path, tmp_path: Path) -> None:
    """Two folders above the data; its name is said from there."""
    file = load_dataset(dataset(tmp_path, '"süd.csv"').path, repository / "shops" / "south")
    with open_sources(file) as sources:
        [found] = sources.all
    assert found.pin is not None
    assert (found.pin.md5, found.pin_name) == (FOLDER_MD5, "../../shops.dvc")


def test_no_pin_is_looked_for_above_a_repository(repository: Path, tmp_path: Path) -> None:
    """What lies there belongs to somebody else."""
    (tmp_path / "repository.dvc").write_text("outs:\n- md5: none\n  path: repository\n")
    [found] = files_of(repository / "raw", '"visits.csv"')
    assert found.pin_name == "../traffic.dvc"
    (repository / "traffic.dvc").unlink()
    [found] = files_of(repository / "raw", '"visits.csv"')
    assert found.pin is None


def test_outside_of_a_repository_a_folder_and_its_pin_may_have_been_copied(
    repository: Path,
) -> None:
    """The folder above the source's own is the last that is looked into."""
    (repository / ".dvc").rmdir()
    [near, far] = files_of(repository, '["shops/north.csv", "shops/south/süd.csv"]')
    assert (near.pin_name, far.pin) == ("shops.dvc", None)


@pytest.mark.parametrize("change", ["more", "less", "other"])
def test_a_folder_that_is_not_what_is_pinned_is_refused(repository: Path, change: str) -> None:
    """Also where the file that differs is none that is read."""
    notes = repository / "shops" / "notes.txt"
    if change == "less":
        notes.unlink()
    else:
        place = notes if change == "other" else repository / "shops" / "south" / "more.txt"
        place.write_text("new")
    count = {"more": 4, "less": 2, "other": 3}[change]
    said = rf"shops is not the data that .*shops.dvc pins: its {count} files .* says {FOLDER_MD5}"
    with pytest.raises(ModelwireError, match=said) as caught:
        files_of(repository, '"shops/*.csv"')
    assert "`dvc checkout shops`" in caught.value.hint
    assert "DVC 2" not in caught.value.hint
    assert ".dvcignore" not in caught.value.hint


def test_a_changed_source_of_a_pinned_folder_is_refused(repository: Path) -> None:
    """Its MD5 is of the bytes that are read."""
    (repository / "shops" / "north.csv").write_text("day,shop,units\n2024-01-01,north,4\n")
    with pytest.raises(ModelwireError, match="its 3 files have the MD5"):
        files_of(repository, '"shops/*.csv"')


def test_folders_of_version_control_are_no_part_of_a_pin(repository: Path) -> None:
    """As DVC has it."""
    (repository / "shops" / ".git").mkdir()
    (repository / "shops" / "south" / ".hg").mkdir()
    (repository / "shops" / "south" / ".hg" / "store").write_text("x")
    files_of(repository, '"shops/north.csv"')


def test_what_is_not_looked_at_is_said_where_a_pin_differs(repository: Path) -> None:
    """Patterns of files that DVC ignores, and the digests of text that DVC 2 wrote."""
    (repository / ".dvcignore").write_text("# every init writes this\n\n")
    pin = repository / "shops.dvc"
    pin.write_text(pin.read_text().replace("  hash: md5\n", "").replace("md5: 2", "md5: 3"))
    with pytest.raises(ModelwireError) as caught:
        files_of(repository, '"shops/north.csv"')
    assert "DVC 2 wrote this pin" in caught.value.hint
    assert ".dvcignore" not in caught.value.hint
    (repository / ".dvcignore").write_text("*.tmp\n")
    with pytest.raises(ModelwireError) as caught:
        files_of(repository, '"shops/north.csv"')
    assert f"{repository / '.dvcignore'} may leave files out" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[", r"shops.dvc is no pin of shops"),
        ("outs:\n- path: shops", r"shops.dvc is no pin of shops"),
        ("outs:\n- md5: {}\n  path: shops", r"shops.dvc pins shops by '0+', which is no MD5 of a folder"),
    ],
)  # fmt: skip
def test_a_pin_of_a_folder_that_cannot_be_read_is_refused(
    repository: Path, text: str, said: str
) -> None:
    """A pin that cannot be used must not look like one that was checked."""
    (repository / "shops.dvc").write_text(text.format("0" * 32))
    with pytest.raises(ModelwireError, match=said):
        files_of(repository, '"shops/south/süd.csv"')


def test_a_file_is_not_pinned_as_a_folder(repository: Path) -> None:
    """The digest of a list of files says nothing of one."""
    pin = repository / "panel.csv.dvc"
    pin.write_text(f"outs:\n- md5: {FOLDER_MD5}\n  path: panel.csv\n")
    with pytest.raises(
        ModelwireError, match=r"pins panel.csv by '.*dir', which is no MD5 of a file"
    ):
        files_of(repository, '"panel.csv"')


def test_pins_of_other_data_are_passed_over(repository: Path) -> None:
    """One that nobody can read, and one that lists an address."""
    (repository / "broken.dvc").write_text("[")
    (repository / "far.dvc").write_text("outs:\n- md5: x\n  path: s3://bucket/panel.csv\n")
    assert files_of(repository, '"raw/visits.csv"')[0].pin_name == "traffic.dvc"
