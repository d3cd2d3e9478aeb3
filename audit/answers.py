"""Answers found: by request id, by where the request lay, by where the answer lies, or drawn.

1. An answer's identity is the place of its request. Ids may repeat; each request has its own answer.
2. ``TOPIC/PARTITION/OFFSET`` is a place where the topic is one of the model's; anything else is an id.
3. What is drawn depends on the seed and on what was answered, not on the files that it lies in.

Forecasts and rejections are answers; what a shadow said is none. What was found here was not checked
yet: that is for ``audit.kept``.
"""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from adapters.answer_query import AnswerQuery
from adapters.kafka import TopicNames
from schemas.answer_file import Kind
from schemas.errors import NotFound

ANSWERS = (Kind.FORECASTS, Kind.REJECTIONS)

_PLACE = re.compile(r"(?P<topic>.+)/(?P<partition>\d{1,9})/(?P<offset>\d{1,18})", re.DOTALL)
_COLUMNS = 'file, topic, "partition", "offset", time, source_topic, source_partition, source_offset'


class Located(msgspec.Struct, frozen=True):
    """Where an answer lies: its file's key, and its place in its topic. ``kind`` says which one."""

    kind: Kind
    file: str
    topic: str
    partition: int
    offset: int
    time: datetime
    source: str
    """Of the request: ``topic/partition/offset``."""


class Place(msgspec.Struct, frozen=True):
    """A place in one of a model's topics."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}/{self.offset}"


def parse_target(text: str, topics: TopicNames) -> Place | str:
    """What ``text`` names: a place, or else a request id."""
    found = _PLACE.fullmatch(text)
    if found is None or found["topic"] not in (topics.requests, topics.results, topics.rejections):
        return text
    return Place(found["topic"], int(found["partition"]), int(found["offset"]))


def find(query: AnswerQuery, target: Place | str, topics: TopicNames) -> list[Located]:
    """The answers that the target names, the oldest first. Raises NotFound where there is none."""
    if isinstance(target, str):
        found = _select(query, "request_id = $id", {"id": target})
    else:
        place = {"topic": target.topic, "partition": target.partition, "offset": target.offset}
        of = "source_" if target.topic == topics.requests else ""
        found = _select(
            query,
            f'"{of}topic" = $topic AND "{of}partition" = $partition AND "{of}offset" = $offset',
            place,
        )
    if found:
        return found
    named = f"request id {target!r}" if isinstance(target, str) else f"place {target}"
    raise NotFound(
        f"the answer files hold no answer of the {named}",
        hint=f"a place is written TOPIC/PARTITION/OFFSET, such as {topics.requests}/3/1042; "
        "what was answered in the last minutes may not be stored yet",
    )


def find_places(query: AnswerQuery, places: Sequence[Place]) -> list[Located]:
    """The answers that lie at these places of the topics of answers, as far as there are any."""
    topics = {topic: f"topic_{n}" for n, topic in enumerate({each.topic for each in places})}
    of = " OR ".join(
        f'(topic = ${name} AND ("partition", "offset") IN ({_listed(topic, places)}))'
        for topic, name in topics.items()
    )
    return _select(query, f"({of})", {name: topic for topic, name in topics.items()}) if of else []


def draw(
    query: AnswerQuery, count: int, seed: int, kinds: Sequence[Kind] = ANSWERS
) -> list[Located]:
    """``count`` answers, or all where there are fewer."""
    places = " UNION ALL ".join(
        f"SELECT '{kind}' AS kind, {_COLUMNS} FROM {kind} WHERE revision IS NOT NULL"
        for kind in kinds
    )
    drawn = 'hash(kind, "partition", "offset", $seed)'
    rows = query.fetch(
        f'SELECT * FROM ({places}) ORDER BY {drawn}, "partition", "offset" LIMIT {count}',
        {"seed": seed},
    )
    return _located(rows.to_pylist())


def _select(query: AnswerQuery, condition: str, parameters: dict[str, object]) -> list[Located]:
    places = " UNION ALL ".join(
        f"SELECT '{kind}' AS kind, {_COLUMNS} FROM {kind} WHERE revision IS NOT NULL AND {condition}"
        for kind in ANSWERS
    )
    rows = query.fetch(f'SELECT * FROM ({places}) ORDER BY time, "partition", "offset"', parameters)
    return _located(rows.to_pylist())


def _located(rows: list[dict[str, Any]]) -> list[Located]:
    return [
        Located(
            kind=Kind(row["kind"]),
            file=row["file"],
            topic=row["topic"],
            partition=row["partition"],
            offset=row["offset"],
            time=row["time"].astimezone(UTC),
            source=f"{row['source_topic']}/{row['source_partition']}/{row['source_offset']}",
        )
        for row in rows
    ]


def _listed(topic: str, places: Sequence[Place]) -> str:
    return ", ".join(f"({each.partition}, {each.offset})" for each in places if each.topic == topic)
