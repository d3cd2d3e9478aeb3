"""The wire format as the checker knows it: only the fields that it judges by.

Written from the documentation of the topics, apart from the structs that the writers use, so that a
mistake there is not repeated here.
"""

from typing import Annotated

import msgspec

from modelwire.checker.report import Record

BasisPoints = Annotated[int, msgspec.Meta(ge=0, le=10_000)]


class Released(msgspec.Struct, frozen=True):
    """A bundle got its number."""

    version: int
    digest: str


class Revoked(msgspec.Struct, frozen=True):
    """The version must never answer again."""

    version: int


class Started(msgspec.Struct, frozen=True):
    """A candidate, without traffic so far; with the strategy ``shadow`` it never gets any."""

    candidate: int
    strategy: str
    salt: str


class Shifted(msgspec.Struct, frozen=True):
    """The candidate's weight; one that is not named is 0."""

    rollout: int
    weight: BasisPoints = 0


class Promoted(msgspec.Struct, frozen=True):
    """The candidate is champion."""

    rollout: int
    version: int


class Aborted(msgspec.Struct, frozen=True):
    """The rollout is over."""

    rollout: int


class Restored(msgspec.Struct, frozen=True):
    """A version is champion again."""

    version: int


EventData = Released | Revoked | Started | Shifted | Promoted | Aborted | Restored

EVENTS: dict[str, type[EventData]] = {
    "io.modelwire.model.released.v1": Released,
    "io.modelwire.model.revoked.v1": Revoked,
    "io.modelwire.rollout.started.v1": Started,
    "io.modelwire.rollout.shifted.v1": Shifted,
    "io.modelwire.rollout.promoted.v1": Promoted,
    "io.modelwire.rollout.aborted.v1": Aborted,
    "io.modelwire.model.restored.v1": Restored,
}
"""The control events that change who answers; all others only count as revisions."""


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
