"""The option -o: the same formats for every command, and the same content in each."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from enum import StrEnum

import click
import msgspec
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.output import as_text
from modelwire.cli import modelwire


class Colour(StrEnum):
    """An enum, as objects for programs hold them."""

    RED = "red"


def commands(group: click.Group, path: str = "") -> Iterator[tuple[str, click.Command]]:
    """Every command below the group, with what one types."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, f"{path}{name} ")
        else:
            yield f"{path}{name}", command


def test_every_command_with_an_output_has_the_same_formats() -> None:
    """A script that asks one for YAML may ask all, but for rows, which come as files do."""
    formats = {
        name: tuple(option.type.choices)
        for name, command in commands(modelwire)
        for option in command.params
        if option.name == "output" and isinstance(option.type, click.Choice)
    }
    assert formats.pop("audit query") == ("table", "json", "csv", "parquet")
    assert len(formats) > 15
    assert set(formats.values()) == {("table", "json", "yaml")}


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(deadline=None, max_examples=50)  # the first one imports PyYAML
@given(st.dictionaries(st.text(max_size=8), plain, max_size=5))
def test_yaml_reads_back_as_json_does(value: dict[str, object]) -> None:
    """Whatever texts are in it: those that look like numbers, times or markup as well."""
    assert yaml.safe_load(as_text("yaml", value)) == json.loads(as_text("json", value))


def test_times_and_enums_are_strings() -> None:
    """As in JSON: a time in ISO 8601 with its zone, an enum's value."""
    value = {
        "at": datetime(2026, 3, 1, 12, tzinfo=UTC),
        "colour": Colour.RED,
        "raw": msgspec.Raw(b"1"),
    }
    assert as_text("yaml", value) == "at: '2026-03-01T12:00:00Z'\ncolour: red\nraw: 1"


def test_a_stream_is_a_line_each_or_a_document_each() -> None:
    """What follows can be told apart from what came before."""
    value = {"a": 1, "b": [2]}
    assert as_text("json", value, one_of_many=True) == '{"a":1,"b":[2]}'
    assert as_text("yaml", value, one_of_many=True) == "---\na: 1\nb:\n- 2"


def test_a_table_is_no_format_for_programs() -> None:
    """Asking for one is a mistake of ours."""
    with pytest.raises(ValueError, match="table"):
        as_text("table", {})
