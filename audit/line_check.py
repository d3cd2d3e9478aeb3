"""Log lines held against the answers that they are of.

1. A line names its answer by where it lies (``event.id``). What it says is compared with the line that
   this answer makes (``audit.lines``), field by field. Fields that a collector adds are nobody's
   business; one that is not there says nothing wrong.
2. Lines of shadows and of control events are no lines of answers, and neither is any other JSON.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from audit.answers import ANSWERS, Place
from audit.verdicts import Fault, What

Fields = Mapping[str, Any]

_DATASETS = {f"modelwire.{kind}" for kind in ANSWERS}


class Line(msgspec.Struct, frozen=True):
    """A line of an answer: its number in the file from 1, the answer's place, and all that it says."""

    number: int
    place: Place
    fields: Fields


def answer_lines(lines: Iterable[bytes]) -> Iterator[Line]:
    """The lines of answers among these."""
    for number, raw in enumerate(lines, 1):
        try:
            fields = msgspec.json.decode(raw)
            event = fields["event"]
            topic, partition, offset = event["id"].rsplit("/", 2)
            if event["dataset"] in _DATASETS:
                yield Line(number, Place(topic, int(partition), int(offset)), fields)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue
        except (KeyError, TypeError, ValueError, AttributeError):
            continue


def line_faults(line: Line, made: Fields) -> list[Fault]:
    """What the line says otherwise than ``made``, the line that its answer makes."""
    # As JSON gives it back: a time is text, and what was kept as JSON is an object.
    right = dict(_flat(msgspec.json.decode(msgspec.json.encode(made))))
    said = dict(_flat(line.fields))
    # Where an object should be and none is, that says something else of all that is in it.
    found = {name: next((each for each in _upwards(name) if each in said), None) for name in right}
    return [
        Fault(
            What.LOG_LINE,
            f"line {line.number} says {at} = {said[at]!r}; the answer says {name} = {right[name]!r}"
            if at != name
            else f"line {line.number} says {name} = {said[name]!r}; the answer says {right[name]!r}",
        )
        for name, at in found.items()
        if at is not None and (at != name or _differ(said[name], right[name]))
    ]


def _differ(one: Any, other: Any) -> bool:
    """True is no 1; a whole number may have become a float on its way."""
    return one != other or isinstance(one, bool) != isinstance(other, bool)


def _upwards(name: str) -> Iterator[str]:
    """The field's name, and those of the objects around it."""
    while name:
        yield name
        name = name.rpartition(".")[0]


def _flat(fields: Fields, above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in fields.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value
