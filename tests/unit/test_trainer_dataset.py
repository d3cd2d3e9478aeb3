"""What a dataset configuration may say, and what it is told when it says something else."""

from pathlib import Path

import pytest

from schemas.errors import NotFound, UsageProblem
from tests.unit.panel_reading import FEW
from tests.unit.trainer_panels import CONFIG
from trainer.dataset import Duplicates, Loss, Negatives, load_dataset, shipped_datasets


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


def test_another_folder_may_be_named_for_the_data(tmp_path: Path) -> None:
    """Data that may not be copied stay where they are."""
    file = load_dataset(write(tmp_path, CONFIG), tmp_path / "elsewhere")
    assert file.source == tmp_path / "elsewhere" / "panel.parquet"


def test_ten_lines_are_a_dataset(tmp_path: Path) -> None:
    """All but seven keys have a default."""
    assert len(FEW.splitlines()) <= 10
    dataset = load_dataset(write(tmp_path, FEW)).dataset
    assert (dataset.holdout, dataset.min_days, dataset.recent_days) == (5, 1, 182)
    assert (dataset.loss, dataset.unit) == (Loss.LOG1P, "units")
    assert (dataset.negatives, dataset.duplicates) == (Negatives.REFUSE, Duplicates.SUM)
    assert (dataset.covariates, dataset.attributes, dataset.slices) == ({}, (), ())


@pytest.mark.parametrize("name", ["online_retail", "favorita", "favorita_excerpt"])
def test_shipped_datasets_say_what_they_mean(name: str) -> None:
    """Each is valid, and those whose data may not be shipped name files that are not there."""
    file = load_dataset(shipped_datasets() / f"{name}.toml")
    assert file.source.exists() == (name == "online_retail")
    assert file.dataset.licence
    if name != "online_retail":
        assert file.dataset.slices == ("type", "family", "perishable")
        assert file.dataset.weights == {"perishable": 1.25}


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
        ('licence = "none"', "licence = 4", ":4: licence Input should be a valid string"),
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


EXTRAS = (
    CONFIG
    + """\

[covariates]
promotion = "On promotion"

[[attributes]]
source = "shops.csv"
key = "shop"
columns = ["city", "type"]

[[attributes]]
key = "product"
columns = ["special"]
values = { "p/1" = 1 }

[holidays]
source = "holidays.csv"
match = { Local = "city" }

[traffic]
source = "visits.csv"
key = "shop"
value = "visits"
"""
)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("[covariates]\npromotion", "[covariates]\nshop", "'shop' is used for more than one purpose"),
        ("[covariates]\npromotion", "[covariates]\nsales_p10", ":18: covariates names a field 'sales_p"),
        ("horizon = 14", 'horizon = 14\nclosed = "shop"', "closed names 'shop', which is no covariate"),
        ("horizon = 14", 'horizon = 14\nslices = ["state"]', "slices names 'state', which is no key or "),
        ("horizon = 14", "horizon = 14\nweights = {state = 2}", "weights names 'state', which is no at"),
        ("horizon = 14", "horizon = 14\nweights = {city = -2}", ":10: weights.city Input should be grea"),
        ("horizon = 14", 'horizon = 14\nloss = "l1"', ":10: loss Input should be 'log1p', 'count' or "),
        ("horizon = 14", 'horizon = 14\nnegatives = "keep"', ":10: negatives Input should be 'refuse' "),
        ('key = "product"', 'key = "article"', "key names 'article', which is no key (shop, product)"),
        ('columns = ["special"]', 'columns = ["city"]', "'city' is the name of more than one key or at"),
        ('columns = ["special"]', 'columns = ["a", "b"]', ":26: attributes.1 with values has one column"),
        ('source = "shops.csv"', "", ":21: attributes.0 needs either a source or values"),
        ('source = "shops.csv"', "source = []", ":22: attributes.0.source Value should have at least 1"),
        ('source = "shops.csv"', 'sauce = "shops.csv"', ":22: attributes.0.sauce is not a key of a"),
        ("source = \"shops.csv\"", 'source = "s"\notherwise = 1', "has otherwise, which goes with"),
        ('Local = "city"', 'Local = "town"', "holidays.match names 'town', which is no key or attribute"),
        ('Local = "city"', 'Local = "city", B = "product"', "names attributes of more than one key"),
        ('value = "visits"', "", ":35: traffic.value is missing"),
        ('"p/1" = 1', '"p/1" = []', ':29: attributes.1.values.p/1'),
    ],
)  # fmt: skip
def test_wrong_extras_are_named(tmp_path: Path, old: str, new: str, expected: str) -> None:
    """Covariates, side tables and what refers to them are checked against each other."""
    assert old in EXTRAS
    assert expected in problem_of(write(tmp_path, EXTRAS.replace(old, new, 1)))


def test_right_extras_are_taken(tmp_path: Path) -> None:
    """The text that the cases above make mistakes in has none."""
    dataset = load_dataset(write(tmp_path, EXTRAS)).dataset
    assert dataset.attribute_keys == {"city": "shop", "type": "shop", "special": "product"}
    assert dataset.attributes[1].values == {"p/1": 1}


def test_missing_horizon_is_one_problem(tmp_path: Path) -> None:
    """The holdout, which is as long by default, is not complained of as well."""
    message = problem_of(write(tmp_path, FEW.replace("horizon = 5", "")))
    assert message == f"{tmp_path / 'panel.toml'}:1: horizon is missing"


def test_all_wrong_keys_are_reported_at_once(tmp_path: Path) -> None:
    """Two mistakes need one run to be seen."""
    text = CONFIG.replace("horizon = 14", "horizon = 0").replace("min_days = 3", "min_days = -1")
    message = problem_of(write(tmp_path, text))
    assert ":9: horizon" in message
    assert ":11: min_days" in message
