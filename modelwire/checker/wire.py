"""The wire format as the checker knows it: only the fields that it judges by.

Written from the documentation of the topics, apart from the structs that the writers use, so that a
mistake there is not repeated here.
"""

from typing import Annotated

import msgspec

from modelwire.checker.report import Record


class Envelope(msgspec.Struct, frozen=True):
    """A request, as far as an answer echoes it."""

    request_id: str
    inputs: msgspec.Raw


class Source(msgspec.Struct, frozen=True):
    """Where the request lay that an answer answers; ``timestamp`` in milliseconds since 1970."""

    topic: str
    partition: int
    offset: int
    timestamp: int


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What every answer claims. ``request_id`` and ``inputs`` are a forecast's."""

    version: int
    digest: str
    variant: str
    revision: int
    source: Source
    request_id: str = ""
    inputs: msgspec.Raw = msgspec.Raw()


class Forecast(Answer, frozen=True, kw_only=True):
    """A forecast, which must echo the request."""

    request_id: str
    inputs: msgspec.Raw
    outputs: Annotated[dict[str, float | int | bool], msgspec.Meta(min_length=1)]
    """At least one number each; a null is how some writers put NaN, and no answer."""


decode_envelope = msgspec.json.Decoder(Envelope).decode
decode_forecast = msgspec.json.Decoder(Forecast).decode

NOT_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def is_enveloped(record: Record) -> bool:
    """Whether the value is the JSON envelope and not the request's own bytes."""
    return any(name == "modelwire-envelope" for name, _ in record.headers)


def read_rejection(record: Record) -> Answer:
    """What a rejection claims. Raises ValueError or KeyError where it says less than it must."""
    said = {name.removeprefix("modelwire-"): value.decode() for name, value in record.headers}
    topic, partition, offset = said["source"].rsplit("/", 2)
    return Answer(
        version=int(said["version"]),
        digest=said["digest"],
        variant=said["variant"],
        revision=int(said["revision"]),
        source=Source(topic, int(partition), int(offset), int(said["timestamp"])),
    )
