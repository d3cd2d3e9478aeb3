"""The forecast: an answer that can be audited without a join.

It echoes the request's inputs byte for byte and says which version gave it, why that version
(variant, revision), and where the request lay. (topic, partition, offset) of the request is the
answer's identity.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

import msgspec


class Variant(StrEnum):
    """Which of the two versions a request was routed to."""

    CHAMPION = "champion"
    CANDIDATE = "candidate"
    SHADOW = "shadow"
    """On the shadow topic only: scored beside the answer, for nobody to see."""


class Source(msgspec.Struct, frozen=True, gc=False):
    """Where a request lay. ``timestamp`` is the record's, in milliseconds since 1970 (UTC)."""

    topic: str
    partition: int
    offset: int
    timestamp: int


class Forecast(msgspec.Struct, frozen=True, gc=False):
    """One answer on the results topic.

    ``outputs`` maps the contract's output names to numbers; a float32 is written with the digits of
    the float64 of the same value, so that it reads back to the same bits. ``revision`` is that of the
    snapshot that answered; ``digest`` is the bundle's; ``instance`` is the consumer's name on the
    fleet topic, and ``runtime`` what it computed with: onnxruntime, its version and the numeric
    class of the CPU, with spaces between, or empty in old answers. Unknown keys are accepted: later
    versions add some.
    """

    request_id: str
    inputs: msgspec.Raw
    outputs: dict[str, float | int | bool]
    model: str
    version: int
    digest: str
    variant: Variant
    revision: int
    source: Source
    scored_at: datetime
    instance: str
    runtime: str = ""


encode_forecast: Callable[[Forecast], bytes] = msgspec.json.Encoder().encode
"""The forecast as the bytes of a record's value."""


class _Spliced(msgspec.Struct, frozen=True, gc=False):
    """A forecast whose shared parts are bytes: each stands under the first of its keys."""

    request_id: str
    inputs: msgspec.Raw
    outputs: Any
    model: msgspec.Raw
    source: Source
    scored_at: msgspec.Raw


class Asked(Protocol):
    """What a forecast repeats of its request (``schemas.request.Request``)."""

    @property
    def request_id(self) -> str:
        """The caller's."""
        ...

    @property
    def inputs(self) -> msgspec.Raw:
        """As they came."""
        ...


EncodeForecasts = Callable[[Sequence[Asked], Sequence[Any], Sequence[Source]], list[bytes]]
"""From requests, outputs and sources to the bytes of their forecasts."""


def forecast_encoder(
    *,
    model: str,
    version: int,
    digest: str,
    variant: Variant,
    revision: int,
    scored_at: datetime,
    instance: str,
    runtime: str,
) -> EncodeForecasts:
    """What gives the bytes of ``encode_forecast`` for the forecasts of a batch, each column in order.

    What they share is encoded once, and the bytes grow in one buffer.
    """
    why = _members(
        {
            "model": model,
            "version": version,
            "digest": digest,
            "variant": variant,
            "revision": revision,
        }
    )
    end = _members({"scored_at": scored_at, "instance": instance, "runtime": runtime})
    encode_into = msgspec.json.Encoder().encode_into
    buffer = bytearray()

    def encode(
        requests: Sequence[Asked], outputs: Sequence[Any], sources: Sequence[Source]
    ) -> list[bytes]:
        values = []
        for request, given, source in zip(requests, outputs, sources, strict=True):
            spliced = _Spliced(request.request_id, request.inputs, given, why, source, end)
            encode_into(spliced, buffer)
            values.append(b"".join((buffer,)))  # the shortest way to copy it
        return values

    return encode


def _members(shared: dict[str, Any]) -> msgspec.Raw:
    """The JSON of an object's members, from the value of the first one on."""
    text = msgspec.json.encode(shared)
    return msgspec.Raw(text[len(f'{{"{next(iter(shared))}":') : -1])


_decoder = msgspec.json.Decoder(Forecast)


def decode_forecast(value: bytes) -> Forecast:
    """A forecast from a record's value. Raises ValueError (a msgspec error) where it is not one."""
    return _decoder.decode(value)
