"""The rejection: the answer that says why there is no forecast.

Its value is the request's own bytes, untouched, so that it can be sent again; everything else stands
in Kafka headers. Where the value cannot be kept (it is missing, or with the headers it is larger than
the topic takes) the value is a small JSON envelope instead, and a header says so.
"""

from enum import StrEnum
from functools import lru_cache

import msgspec

from schemas.forecast import Source


class Reason(StrEnum):
    """Why a request was rejected. The codes are stable: dashboards and replays name them."""

    EMPTY = "empty"
    TOMBSTONE = "tombstone"
    TOO_LARGE = "too-large"
    NOT_UTF8 = "not-utf8"
    NOT_JSON = "not-json"
    TOO_DEEP = "too-deep"
    DUPLICATE_KEY = "duplicate-key"
    NOT_A_NUMBER = "not-a-number"
    """NaN or Infinity stood where JSON has no such number."""
    NUMBER_TOO_LARGE = "number-too-large"
    """The number is beyond what its type can hold."""
    WRONG_TYPE = "wrong-type"
    MISSING_FIELD = "missing-field"
    UNKNOWN_FIELD = "unknown-field"
    WRONG_LENGTH = "wrong-length"
    OUT_OF_RANGE = "out-of-range"
    NOT_ALLOWED = "not-allowed"
    NOT_A_DATE = "not-a-date"
    OUTSIDE_HORIZON = "outside-horizon"
    NOT_FINITE = "not-finite"
    """The model gave NaN or infinity."""
    MODEL_FAILED = "model-failed"
    """The model raised an error on this row."""
    MODEL_CRASH = "model-crash"
    """The runtime crashed or hung on this row."""
    ANSWER_TOO_LARGE = "answer-too-large"


class Rejected(Exception):
    """Raised where a request turns out to be unanswerable; becomes one rejection record."""

    def __init__(self, reason: Reason, detail: str) -> None:
        # Both are in ``args`` already, and the sentence is put together only where somebody reads it: a
        # flood of bad requests raises one of these for each.
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


class Rejection(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A rejection as a reader sees it, whether from the headers or from the envelope.

    ``version`` and ``variant`` are 0 and empty where the request was rejected before it was routed.
    ``detail`` is a sentence for people, at most 500 characters.
    """

    reason: str
    detail: str
    model: str
    version: int
    variant: str
    digest: str
    revision: int
    source: Source
    instance: str
    runtime: str = ""


HEADER_PREFIX = "modelwire-"
MAX_DETAIL_LENGTH = 500
ENVELOPE_HEADER = f"{HEADER_PREFIX}envelope"
"""Present where the value is the JSON envelope and not the request's own bytes."""

REPLAY_HEADER = f"{HEADER_PREFIX}replay-of"
"""On a request that was rejected and sent again: where it lay then, ``topic/partition/offset``."""

Header = tuple[str, bytes]
Headers = list[Header]


def rejection_headers(rejection: Rejection) -> Headers:
    """The rejection as Kafka headers, one a field, text in UTF-8."""
    source = rejection.source
    model, version, variant, digest, revision, instance, runtime = _headers_of_many(
        rejection.model,
        rejection.version,
        rejection.variant,
        rejection.digest,
        rejection.revision,
        rejection.instance,
        rejection.runtime,
    )
    return [
        ("modelwire-reason", rejection.reason.encode(errors="replace")),
        ("modelwire-detail", rejection.detail[:MAX_DETAIL_LENGTH].encode(errors="replace")),
        model,
        version,
        variant,
        digest,
        revision,
        (
            "modelwire-source",
            b"%s/%d/%d" % (source.topic.encode(), source.partition, source.offset),
        ),
        ("modelwire-timestamp", b"%d" % source.timestamp),
        instance,
        runtime,
    ]


@lru_cache(maxsize=64)
def _headers_of_many(
    model: str,
    version: int,
    variant: str,
    digest: str,
    revision: int,
    instance: str,
    runtime: str,
) -> tuple[Header, ...]:
    """The headers that are the same for all rejections of a version under a snapshot.

    Made once: in a flood of bad requests, making the headers was a quarter of what each cost.
    """
    fields = (
        ("model", model),
        ("version", str(version)),
        ("variant", variant),
        ("digest", digest),
        ("revision", str(revision)),
        ("instance", instance),
        ("runtime", runtime),
    )
    return tuple((HEADER_PREFIX + name, text.encode(errors="replace")) for name, text in fields)


def read_rejection(headers: Headers) -> Rejection:
    """The rejection that ``headers`` hold. Raises ValueError where one is missing or malformed."""
    found = {
        name.removeprefix(HEADER_PREFIX): value.decode(errors="replace")
        for name, value in headers
        if name.startswith(HEADER_PREFIX)
    }
    try:
        topic, partition, offset = found["source"].rsplit("/", 2)
        return Rejection(
            reason=found["reason"],
            detail=found["detail"],
            model=found["model"],
            version=int(found["version"]),
            variant=found["variant"],
            digest=found["digest"],
            revision=int(found["revision"]),
            source=Source(topic, int(partition), int(offset), int(found["timestamp"])),
            instance=found["instance"],
            runtime=found.get("runtime", ""),
        )
    except KeyError as missing:
        raise ValueError(f"the rejection has no header {HEADER_PREFIX}{missing.args[0]}") from None
