"""What a dataset configuration may say, and what it is told when it says something else."""

from pathlib import Path

import pytest

from schemas.errors import NotFound, UsageProblem
from schemas.evidence import BASELINES, MODEL
from tests.unit.panel_reading import FEW
from tests.unit.trainer_panels import CONFIG
from trainer.dataset import (
    PREDICTORS,
    Dataset,
    Duplicates,
    LossChoice,
    Negatives,
    load_dataset,
    shipped_datasets,
)
from trainer.evaluation import Baseline
from trainer.training import ALONE, COUNTS, RIDGE, TREES


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
    assert (dataset.loss, dataset.unit) == (LossChoice.LOG1P, "units")
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


@pytest.mark.parametrize("name", ["a" * 5_000, "a\0b"])
def test_a_path_that_cannot_be_one_is_refused(name: str) -> None:
    """Longer than a name may be, or with a NUL, as a variable that was pasted twice or is binary."""
    assert "cannot be read: " in problem_of(Path(name))


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
        ("horizon = 14", "horizon = 0", ":9: horizon is 0; it must be at least 1"),
        ("horizon = 14", 'horizon = "14"', ':9: horizon is "14"; it must be a whole number'),
        ("horizon = 14", "horizon = 9", ":10: holdout is 10 days and horizon 9"),
        ("min_days = 3", "min_days = 61", ":11: min_days is 61 and recent_days 60"),
        ('model = "sales"', 'model = "Sales"', ':2: model is "Sales"; it must be a name of a-z, 0-9'),
        ('licence = "none"', "licence = 4", ":4: licence is 4; it must be text in quotes"),
        ('shop = "The shop"', "shop = 3", ":15: keys.shop is 3; it must be text in quotes"),
        ('shop = "The shop"', 'sales = "The shop"', ":14: keys names a field 'sales', which is"),
        ('shop = "The shop"', '"a b" = "The shop"', ":14: keys names a field 'a b'; the name of a field"),
        ('shop = "The shop"', 'units = "The shop"', ":15: keys.units is column 'units', which is used f"),
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
        ("[covariates]\npromotion", "[covariates]\nshop", ":19: covariates.shop is column 'shop', which"),
        ("[covariates]\npromotion", "[covariates]\nsales_p10", ":18: covariates names a field 'sales_p"),
        ("horizon = 14", 'horizon = 14\nclosed = "shop"', ":10: closed names 'shop', which is no covari"),
        ("[covariates]\npromotion", "[covariates]\nactual", ":18: covariates names a field 'actual'"),
        ("horizon = 14", 'horizon = 14\nreferences = {model = "r"}', ":10: references calls a predicti"),
        ("horizon = 14", 'horizon = 14\nreferences = {lag-7 = "r"}', ":10: references calls a predicti"),
        ("horizon = 14", 'horizon = 14\nslices = ["state"]', ":10: slices names 'state', which is no ke"),
        ("horizon = 14", "horizon = 14\nweights = {state = 2}", ":10: weights.state names 'state', whic"),
        ("horizon = 14", "horizon = 14\nweights = {city = -2}", ":10: weights.city is -2; it must be mo"),
        ("horizon = 14", 'horizon = 14\nloss = "l1"', ':10: loss is "l1"; it must be "log1p", "count"'),
        ("horizon = 14", 'horizon = 14\nnegatives = "keep"', ':10: negatives is "keep"; it must be "ref'),
        ('key = "product"', 'key = "article"', ":27: attributes.1.key names 'article', which is no key "),
        ('columns = ["special"]', 'columns = ["city"]', ":28: attributes.1.columns 'city' is the name o"),
        ('columns = ["special"]', 'columns = ["a", "b"]', ":26: attributes.1 with values has one column"),
        ('source = "shops.csv"', "", ":21: attributes.0 needs either a source or values"),
        ('source = "shops.csv"', "source = []", ":22: attributes.0.source is an empty list; it must be"),
        ('source = "shops.csv"', 'sauce = "shops.csv"', ":22: attributes.0.sauce is not a key of a"),
        ("source = \"shops.csv\"", 'source = "s"\notherwise = 1', "has otherwise, which goes with"),
        ('Local = "city"', 'Local = "town"', ":33: holidays.match.Local names 'town', which is no key"),
        ('Local = "city"', 'Local = "city", B = "product"', ":33: holidays.match names attributes of mo"),
        ('value = "visits"', "", ":35: traffic.value is missing"),
        ('"p/1" = 1', '"p/1" = []', ':29: attributes.1.values.p/1 is an empty list; it must be text in '),
    ],
)  # fmt: skip
def test_wrong_extras_are_named(tmp_path: Path, old: str, new: str, expected: str) -> None:
    """Covariates, side tables and what refers to them are checked against each other."""
    assert old in EXTRAS
    assert expected in problem_of(write(tmp_path, EXTRAS.replace(old, new, 1)))


def test_no_reference_takes_the_place_of_a_predictor() -> None:
    """Its scores would stand where those of the model, a contender or a baseline belong."""
    assert set(PREDICTORS) == {MODEL, ALONE, TREES, COUNTS, RIDGE}
    assert all(each.startswith(BASELINES) for each in Baseline)


def test_right_extras_are_taken(tmp_path: Path) -> None:
    """The text that the cases above make mistakes in has none."""
    dataset = load_dataset(write(tmp_path, EXTRAS)).dataset
    assert dataset.attribute_keys == {"city": "shop", "type": "shop", "special": "product"}
    assert dataset.attributes[1].values == {"p/1": 1}


@pytest.mark.parametrize(
    ("line", "table", "at"),
    [
        ("horizon = 14", "[covariates]", 18),
        ("horizon = 14", "[holidays]", 31),
        ("horizon = 14", "[traffic]", 35),
        ("horizon = 14", "[[attributes]]", 21),
        ('unit = "pieces"', "[holidays]", 31),
        ('negatives = "zero"', "[covariates]", 18),
        ('name = "made up"', "[covariates]", 18),
    ],
)
def test_a_setting_that_strayed_into_a_table_is_told(
    tmp_path: Path, line: str, table: str, at: int
) -> None:
    """TOML gives what follows a table to that table: the message says so, and nothing else."""
    text = EXTRAS.replace(f"{line}\n", "", 1).replace(f"{table}\n", f"{table}\n{line}\n", 1)
    at += 0 if line in EXTRAS else 1
    name = line.split(" ")[0]
    assert problem_of(write(tmp_path, text)) == (
        f"{tmp_path / 'panel.toml'}:{at}: `{name}` stands under {table}; settings of the whole dataset "
        "come before the first table"
    )


def test_a_column_may_have_the_name_of_a_setting(tmp_path: Path) -> None:
    """Where nothing says that it is the setting."""
    text = EXTRAS.replace(
        "[covariates]\n", '[covariates]\nclosed = "Closed"\nlicence = "Of cars"\n'
    )
    assert set(load_dataset(write(tmp_path, text)).dataset.covariates) == {
        "closed",
        "licence",
        "promotion",
    }


def test_a_missing_setting_that_a_table_has_too_is_pointed_at(tmp_path: Path) -> None:
    """``date`` below [holidays] is the table's own, so the dataset has none."""
    text = EXTRAS.replace('date = "day"\n', "").replace(
        "[holidays]\n", '[holidays]\ndate = "day"\n'
    )
    assert problem_of(write(tmp_path, text)).endswith(
        ":1: date is missing; the one in line 31 is [holidays]'s, since it stands below that line"
    )


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (CONFIG.encode("utf-16"), "it is UTF-16"),
        (CONFIG.encode("utf-16-le"), "it is UTF-16"),
        (CONFIG.replace("The shop", "Caf\xe9").encode("latin-1"), "it is not UTF-8 (line 15)"),
    ],
)
def test_another_encoding_is_named(tmp_path: Path, raw: bytes, said: str) -> None:
    """Windows' own editors and shells write UTF-16."""
    path = tmp_path / "panel.toml"
    path.write_bytes(raw)
    assert problem_of(path) == f"{path} cannot be read as text: {said}"


def test_no_phrase_of_the_validator_reaches_a_reader(tmp_path: Path) -> None:
    """Every setting, given a value of each wrong kind, is told in plain words."""
    values = ["3", "-1", "1.5", '"x"', '""', "true", "[]", '[""]', "{}", "{ a = [] }", "2017-08-16"]
    for name in Dataset.model_fields:
        for value in values:
            lines = [each for each in CONFIG.splitlines() if not each.startswith(f"{name} =")]
            if name == "keys":
                lines = lines[: lines.index("[keys]")]
            path = write(tmp_path, "\n".join([f"{name} = {value}", *lines]))
            try:
                load_dataset(path)
            except UsageProblem as problem:
                said = problem.message
                assert f"{path}:" in said
                assert name in said
                for phrase in (
                    "Input should",
                    "String should",
                    "Value should",
                    "valid ",
                    "pydantic",
                ):
                    assert phrase not in said
                assert "which cannot be used here" not in said


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
