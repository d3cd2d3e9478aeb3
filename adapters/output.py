"""What a command prints for programs: JSON or YAML, instead of the table for people.

1. YAML says exactly what JSON says: it is made from the same text. Times are strings with their zone,
   enums their values.
2. A command that goes on (``-w``) prints a value a line in JSON, and documents that begin with ``---``
   in YAML.
3. Every object that is printed is a contract with scripts: keys are added, never renamed.
4. An error is an object too, on stderr; ``modelwire.problems`` says which.
"""

import re

import click
import msgspec

TABLE, JSON, YAML = "table", "json", "yaml"

_BREAKS = re.compile("[\x85\u2028\u2029]")

YAML_WIDTH = 120
"""Columns at which long texts are folded."""

CHOSEN = "modelwire.output"
"""Where a command's context keeps what ``-o`` says, for whoever prints its error."""


def _remember(context: click.Context, _: click.Parameter, chosen: str) -> str:
    context.meta[CHOSEN] = chosen
    return chosen


output_option = click.option(
    "-o",
    "--output",
    callback=_remember,
    is_eager=True,  # before what may be wrong with another option
    type=click.Choice([TABLE, JSON, YAML]),
    default=TABLE,
    show_default=True,
    help="A table for people, or one object for programs.",
)


def as_json(value: object, *, one_line: bool = False) -> str:
    """JSON text of plain values and structs, indented unless it must be one line."""
    compact = msgspec.json.encode(value)
    return (compact if one_line else msgspec.json.format(compact, indent=2)).decode()


def as_yaml(value: object, *, one_of_many: bool = False) -> str:
    """YAML text of plain values and structs; ``one_of_many`` begins with ``---``. No newline ends it."""
    import yaml  # here: it is needed by few, and costs every start 15 ms

    class Dumper(yaml.SafeDumper):
        """PyYAML's, but for the line breaks of Unicode, which it writes so that they are lost."""

        def represent_str(self, data: str) -> yaml.ScalarNode:
            style = '"' if _BREAKS.search(data) else None
            return self.represent_scalar("tag:yaml.org,2002:str", data, style=style)

    Dumper.add_representer(str, Dumper.represent_str)
    text = yaml.dump(
        msgspec.json.decode(msgspec.json.encode(value)),
        Dumper=Dumper,
        sort_keys=False,
        allow_unicode=True,
        width=YAML_WIDTH,
        explicit_start=one_of_many,
    )
    return str(text).removesuffix("\n")


def as_text(output: str, value: object, *, one_of_many: bool = False) -> str:
    """The value in the format that the option ``-o`` names, which is not the table.

    ``one_of_many``: others follow it in the same output.
    """
    if output == YAML:
        return as_yaml(value, one_of_many=one_of_many)
    if output != JSON:
        raise ValueError(f"{output} is no format for programs")
    return as_json(value, one_line=one_of_many)
