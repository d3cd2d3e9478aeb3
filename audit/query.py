"""Questions that have a name, and what people say beside them: values, conditions.

A named query is a file ``audit/queries/sql/<name>.sql``. Its first lines are comments: one that says what
it shows, and one for each parameter, ``-- $name = default: what it is``; without a default it must be
given. A default that is a whole number makes the parameter one. The parameter ``output`` is one of the
model's outputs, the first unless it is named, and stands in the SQL as ``{output}``; all others are
DuckDB's.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from schemas.errors import NotFound, UsageProblem

OUTPUT = "output"
"""The parameter that names a column."""

OUTPUT_COLUMN = "output_"
"""Before an output's name in a column."""

_TITLE = re.compile(r"-- (.+)")
_PARAMETER = re.compile(r"-- \$(?P<name>\w+)(?: = (?P<default>[^:]*))?: (?P<what>.+)")


@dataclass(frozen=True)
class Parameter:
    """What may be given to a named query. ``default`` is None where it must be."""

    name: str
    default: int | str | None
    what: str


@dataclass(frozen=True)
class NamedQuery:
    """A question with a name."""

    name: str
    title: str
    parameters: tuple[Parameter, ...]
    sql: str

    @property
    def names_output(self) -> bool:
        """Whether it is about one of the model's outputs."""
        return any(each.name == OUTPUT for each in self.parameters)


@dataclass(frozen=True)
class Statement:
    """SQL and the values of its parameters."""

    sql: str
    values: Mapping[str, int | str]


def parse_query(name: str, text: str) -> NamedQuery:
    """The query that a file holds. Raises ValueError where it has not the form."""
    lines = text.splitlines()
    title = _TITLE.fullmatch(lines[0])
    if title is None or title[1].startswith("$"):
        raise ValueError(f"{name}: its first line is no comment that says what it shows")
    parameters = []
    for line in lines[1:]:
        if not line.startswith("--"):
            break
        found = _PARAMETER.fullmatch(line)
        if found is None:
            raise ValueError(f"{name}: {line!r} is no parameter")
        parameters.append(Parameter(found["name"], _default(found["default"]), found["what"]))
    return NamedQuery(name, title[1], tuple(parameters), text)


def _default(text: str | None) -> int | str | None:
    if text is None:
        return None
    return int(text) if re.fullmatch(r"-?\d+", text) else text


def choose_query(queries: Mapping[str, NamedQuery], name: str) -> NamedQuery:
    """The query of this name. Raises NotFound."""
    if name in queries:
        return queries[name]
    near = get_close_matches(name, queries, 1)
    meant = f"did you mean {near[0]}? " if near else ""
    raise NotFound(
        f"there is no named query {name}", hint=f"{meant}modelwire audit query --list names all"
    )


def fill_in(query: NamedQuery, given: Mapping[str, str], columns: Sequence[str]) -> Statement:
    """The query with these values of its parameters; ``columns`` are those of the forecasts.

    Raises UsageProblem for a parameter that it has not, that is missing or is no number, and NotFound for
    an output that no forecast has.
    """
    known = {each.name: each for each in query.parameters}
    for name in given:
        if name not in known:
            has = f"it has {', '.join(known)}" if known else "it has none"
            raise UsageProblem(f"{query.name} has no parameter {name}", hint=has)
    values: dict[str, int | str] = {}
    for name, parameter in known.items():
        if name == OUTPUT:
            continue
        if name not in given and parameter.default is None:
            raise UsageProblem(
                f"{query.name} needs {name}: {parameter.what}",
                hint=f"add --param {name}=VALUE",
            )
        values[name] = _value(parameter, given[name]) if name in given else _known(parameter)
    sql = query.sql
    if query.names_output:
        sql = sql.replace("{output}", _output_column(given.get(OUTPUT), columns))
    return Statement(sql, values)


def _known(parameter: Parameter) -> int | str:
    assert parameter.default is not None
    return parameter.default


def _value(parameter: Parameter, text: str) -> int | str:
    if not isinstance(parameter.default, int):
        return text
    if not re.fullmatch(r"-?\d{1,18}", text):
        raise UsageProblem(
            f"{parameter.name} must be a whole number, not {text!r}",
            hint=f"{parameter.name} is {parameter.what}",
        )
    return int(text)


def _output_column(named: str | None, columns: Sequence[str]) -> str:
    outputs = [
        name.removeprefix(OUTPUT_COLUMN) for name in columns if name.startswith(OUTPUT_COLUMN)
    ]
    if not outputs:
        raise NotFound(
            "there are no forecasts in these answer files",
            hint="widen --since and --until, or copy answers first: modelwire audit sink",
        )
    if named is not None and named not in outputs:
        raise NotFound(
            f"no forecast has an output {named}", hint=f"the outputs are {', '.join(outputs)}"
        )
    return '"{}"'.format((OUTPUT_COLUMN + (named or outputs[0])).replace('"', '""'))


def pairs_of(option: str, texts: Sequence[str]) -> dict[str, str]:
    """What ``key=value`` options say. Raises UsageProblem for one that is none, or named twice."""
    pairs: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UsageProblem(
                f"{option} {text} is no pair",
                hint=f"write {option} NAME=VALUE, as in country=France",
            )
        if name in pairs:
            raise UsageProblem(
                f"{option} names {name} twice", hint="rows must have one value: name it once"
            )
        pairs[name] = value
    return pairs
