"""What a dataset configuration may say, and what it is told when it says something else."""

from pathlib import Path

import pytest

from schemas.errors import NotFound, UsageProblem
from tests.unit.trainer_panels import CONFIG
from trainer.dataset import load_dataset, shipped_datasets


def write(folder: Path, text: str) -> Path:
    path = folder / "panel.toml"
    path.write_text(text, encoding="utf-8")
    return path


def problem_of(path: Path) -> str:
    with pytest.raises(UsageProblem) as caught:
        load_dataset(path)
    assert caught.value.exit_code == 2
    assert caught.value.hint
    return caught.value.message


def test_shipped_dataset_is_found_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The panel that comes with the project needs no clone as the working folder."""
    monkeypatch.chdir(tmp_path)
    file = load_dataset(Path("datasets/online_retail.toml"))
    assert file.source.is_file()
    assert tuple(file.dataset.keys) == ("country", "stockcode")


def test_shipped_dataset_has_its_attribution_beside_it() -> None:
    """The licence of the shipped data asks for its makers to be named."""
    text = (shipped_datasets() / "ATTRIBUTION.md").read_text(encoding="utf-8")
    assert "Daqing Chen (2015)" in text
    assert "CC BY 4.0" in text


def test_source_is_relative_to_the_configuration(tmp_path: Path) -> None:
    """Where the command runs does not matter for where the panel is."""
    assert load_dataset(write(tmp_path, CONFIG)).source == tmp_path / "panel.parquet"


def test_missing_configuration_is_not_found(tmp_path: Path) -> None:
    """A path without a file exits with 4 and names where shipped datasets are."""
    with pytest.raises(NotFound, match=r"no dataset configuration at .*nowhere\.toml") as caught:
        load_dataset(tmp_path / "nowhere.toml")
    assert "datasets" in caught.value.hint


def test_configuration_that_is_not_text_is_refused(tmp_path: Path) -> None:
    """Bytes that are no UTF-8 are a plain message."""
    path = tmp_path / "panel.toml"
    path.write_bytes(b"\xff\xfe\x00name")
    assert f"{path} cannot be read as text" in problem_of(path)


@pytest.mark.parametrize(
    ("broken", "line", "said"),
    [
        ("horizon = 14 days", 9, "not valid TOML"),
        ("horizon = 14\nhorizon = 15", 10, "not valid TOML: Cannot overwrite a value"),
        ('horizon = "', 9, "not valid TOML"),
    ],
)
def test_malformed_toml_names_its_line(tmp_path: Path, broken: str, line: int, said: str) -> None:
    """A typing error is found by its line."""
    path = write(tmp_path, CONFIG.replace("horizon = 14", broken))
    message = problem_of(path)
    assert f"{path}:{line}: " in message
    assert said in message


def test_toml_that_ends_too_early_names_the_last_line(tmp_path: Path) -> None:
    """An end in the middle of a value is reported where the file ends."""
    path = write(tmp_path, 'name = "x"\nkeys = {')
    assert f"{path}:2: not valid TOML" in problem_of(path)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("horizon = 14", "horison = 14", ":9: horison is not a key of a dataset; the keys are "),
        ("horizon = 14", "horison = 14", ":1: horizon is missing"),
        ("horizon = 14", "horizon = 0", ":9: horizon Input should be greater than or equal to 1"),
        ("horizon = 14", 'horizon = "14"', ":9: horizon Input should be a valid integer, found"),
        ("horizon = 14", "horizon = 9", "holdout is 10 days and horizon 9"),
        ("min_days = 3", "min_days = 61", "min_days is 61 and recent_days 60"),
        ('model = "sales"', 'model = "Sales"', ":2: model String should match pattern"),
        ('licence = "none"', 'licence = " "', ":4: licence String should have at least 1"),
        ('shop = "The shop"', "shop = 3", ":15: keys.shop Input should be a valid string"),
        ('shop = "The shop"', 'sales = "The shop"', ":14: keys names a field 'sales', which is"),
        ('shop = "The shop"', '"a b" = "The shop"', ":14: keys names a field 'a b', which does"),
        ('shop = "The shop"', 'units = "The shop"', "column 'units' is used for more than one"),
        ('date = "day"', 'date = "known_series"', ":6: date names a field 'known_series', which"),
    ],
)  # fmt: skip
def test_wrong_key_is_named_with_its_line(
    tmp_path: Path, old: str, new: str, expected: str
) -> None:
    """Each wrong value says which file, line and key, and what is allowed."""
    path = write(tmp_path, CONFIG.replace(old, new))
    message = problem_of(path)
    assert str(path) in message
    assert expected in message


def test_all_wrong_keys_are_reported_at_once(tmp_path: Path) -> None:
    """Two mistakes need one run to be seen."""
    text = CONFIG.replace("horizon = 14", "horizon = 0").replace("min_days = 3", "min_days = 0")
    message = problem_of(write(tmp_path, text))
    assert ":9: horizon" in message
    assert ":11: min_days" in message
