"""What people type names one model, one version, or is turned down with a reason."""

import pytest

from adapters.model_name import parse_model
from adapters.naming import (
    VersionName,
    parse_version,
    parse_version_of,
)
from schemas.errors import UsageProblem


def test_a_version_has_a_model_and_a_number() -> None:
    """sales:12 is version 12 of sales, and prints as it was written."""
    assert parse_version("sales:12") == VersionName("sales", 12)
    assert str(parse_version("sales:12")) == "sales:12"


@pytest.mark.parametrize("text", ["sales", "sales:", "sales:0", "sales:-1", "sales:x", ":3", "S:1"])
def test_what_is_no_version_is_a_usage_problem(text: str) -> None:
    """A missing or impossible model or number is turned down."""
    with pytest.raises(UsageProblem, match="is not a"):
        parse_version(text)


@pytest.mark.parametrize("text", ["", "Sales", "1sales", "sa.les", "sales/x", "x" * 64])
def test_what_is_no_model_is_a_usage_problem(text: str) -> None:
    """Names that could not be topics or keys are turned down."""
    with pytest.raises(UsageProblem, match="is not a model's name"):
        parse_model(text)


def test_a_version_of_a_known_model_may_be_a_number() -> None:
    """3 and sales:3 are the same version of sales; wine:3 is none of it."""
    assert parse_version_of("sales", "3") == parse_version_of("sales", "sales:3") == 3
    with pytest.raises(UsageProblem, match="wine:3 is not a version of sales"):
        parse_version_of("sales", "wine:3")
