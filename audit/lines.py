"""An answer as a log line, for whoever searches answers where their logs are.

1. A line has the field names of the Elastic Common Schema, as ``adapters.logs`` writes them; its time is
   the broker's of the answer, not that of writing the line. What ECS has no name for stands under
   ``modelwire.``, by the names of the columns of the answer files.
2. ``event.id`` is where the answer lies. A line may be written twice (a sink that starts again); by its
   id it counts once.
3. ``event.outcome`` is ``success`` for a forecast, ``failure`` for a rejection and ``unknown`` for a
   record that is nothing of its kind. ``event.duration`` is the nanoseconds from the request's time to
   the answer's, where they are in that order.
4. Inputs and outputs are objects, so that a query can name their fields. Inputs of more than
   ``LONGEST_INPUTS`` characters are left out, and ``inputs_left_out`` says so: a line must fit the
   collectors that read it. No bytes that were kept as they are stand in a line.
5. Which answers have lines is decided by where their requests lay (``is_sampled``), so that a forecast
   and its shadow share their fate, and a line that is written again is the same one.

``docs/audit-queries.md`` lists the fields; the queries under ``audit/queries/`` use them.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from zlib import crc32

import msgspec

from schemas.answer_file import Kind
from schemas.events import TYPE_PREFIX, TYPE_SUFFIX

LONGEST_INPUTS = 2_000
"""Characters of a request's inputs that a line takes: a container runtime cuts lines at 16 KiB."""

Line = dict[str, Any]

_SERVICE = "modelwire"
_ECS_VERSION = "1.6.0"
_SHARES = 1 << 32
_WHAT = {
    Kind.FORECASTS: "answer.forecast",
    Kind.SHADOW: "answer.shadow",
    Kind.REJECTIONS: "answer.rejection",
}
_OUTCOMES = {
    Kind.FORECASTS: "success",
    Kind.SHADOW: "success",
    Kind.REJECTIONS: "failure",
    Kind.CONTROL: "success",
}
_SAID = ("request_id", "key", "version", "digest", "variant", "revision", "runtime")
_REJECTED = ("reason", "detail")

encode_line = msgspec.json.Encoder().encode
"""A line as bytes, without a newline at its end."""


def line_of(kind: Kind, model: str, row: Mapping[str, Any]) -> Line:
    """The line of a row of ``adapters.answer_rows``, for ``encode_line``. Any row has one."""
    if row["revision"] is None:
        return _line(kind, model, row, "answer.unreadable", "unknown")
    if kind is Kind.CONTROL:
        return _event_line(model, row)
    line = _line(kind, model, row, _WHAT[kind], _OUTCOMES[kind])
    ours = line[_SERVICE]
    ours |= {name: row[name] for name in _SAID if row[name] not in (None, "", 0)}
    source = {name: row[f"source_{name}"] for name in ("topic", "partition", "offset")}
    ours["source"] = source | {"time": _time(row["source_time"])}
    line["service"]["node"] = {"name": row["instance"]}
    took = row["time"] - row["source_time"]
    if took >= timedelta():
        line["event"]["duration"] = took // timedelta(microseconds=1) * 1_000
        ours["milliseconds"] = took // timedelta(milliseconds=1)
    if kind is Kind.REJECTIONS:
        ours |= {name: row[name] for name in _REJECTED}
        ours["kept"] = row["value"] is not None and not row["enveloped"]
    else:
        ours["scored_at"] = _time(row["scored_at"])
        ours["outputs"] = _object(row["outputs"])
        if len(row["inputs"]) <= LONGEST_INPUTS:
            ours["inputs"] = _object(row["inputs"])
        else:
            ours["inputs_left_out"] = True
    return line


def is_sampled(row: Mapping[str, Any], share: float) -> bool:
    """Whether this row is one of the ``share`` (0 … 1) that have lines.

    Rows that do not say where their request lay (control events, unreadable records) always are.
    """
    place = row.get("source_topic"), row.get("source_partition"), row.get("source_offset")
    if None in place:
        return True
    return crc32("{}/{}/{}".format(*place).encode()) < share * _SHARES


def _event_line(model: str, row: Mapping[str, Any]) -> Line:
    what = row["type"].removeprefix(TYPE_PREFIX).removesuffix(TYPE_SUFFIX)
    line = _line(Kind.CONTROL, model, row, what, _OUTCOMES[Kind.CONTROL])
    line["@timestamp"] = _time(row["event_time"])
    line["user"] = {"name": row["actor"]}
    line[_SERVICE] |= {name: row[name] for name in ("revision", "commandid", "hash")}
    line[_SERVICE]["data"] = _object(row["data"])
    return line


def _line(kind: Kind, model: str, row: Mapping[str, Any], action: str, outcome: str) -> Line:
    topic, partition, offset = row["topic"], row["partition"], row["offset"]
    return {
        "@timestamp": _time(row["time"]),
        "log.level": "warning" if outcome == "unknown" else "info",
        "message": action,
        "ecs.version": _ECS_VERSION,
        "event": {
            "action": action,
            "dataset": f"{_SERVICE}.{kind}",
            "id": f"{topic}/{partition}/{offset}",
            "outcome": outcome,
        },
        "service": {"name": _SERVICE},
        _SERVICE: {"model": model, "topic": topic, "partition": partition, "offset": offset},
    }


def _object(text: str) -> msgspec.Raw | None:
    """The JSON without the spaces and line ends between its parts; None where it nests too deep."""
    try:
        return msgspec.Raw(msgspec.json.format(text, indent=-1).encode())
    except (msgspec.DecodeError, RecursionError):
        return None


def _time(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}Z"
