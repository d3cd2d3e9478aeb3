"""Streams for the checker's tests, written with the real wire language, which it does not share."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime

import msgspec

from deployment.commands import Command, Refusal, Release, Strategy
from deployment.decisions import decide
from deployment.routing import route, routing_of
from deployment.state import Deployment, empty, fold
from modelwire.checker import Kind, Record, Report, check
from schemas.events import EventData, decode_event, encode_event
from schemas.events import new_event as event_of
from schemas.forecast import Forecast, Source, Variant, encode_forecast
from schemas.rejection import Rejection, rejection_headers
from schemas.request import decode_request

NOW = datetime(2026, 1, 2, tzinfo=UTC)
DIGESTS = {version: f"sha256:{version:064x}" for version in range(1, 5)}
REQUESTS = "m.requests"


Move = Command | Callable[[Deployment], Command]
"""A command, or what gives one to the deployment that it meets."""


def control_log(moves: Iterable[Move]) -> list[bytes]:
    """The log that the commands give; a refused command adds nothing."""
    deployment, values = empty("m"), []
    for number, move in enumerate(moves):
        events = decide(deployment, move(deployment) if callable(move) else move)
        if isinstance(events, Refusal):
            continue
        for data in events:
            raw = append(data, deployment.revision + 1, deployment.head, f"c{number}")
            values.append(raw)
            deployment = fold(deployment, decode_event(raw))
    return values


def extended(values: Iterable[bytes], *events: EventData) -> list[bytes]:
    """The log with more events."""
    longer = list(values)
    for data in events:
        longer.append(append(data, len(longer) + 1, decode_event(longer[-1]).hash))
    return longer


def deployments(values: Iterable[bytes]) -> list[Deployment]:
    """The deployment at each revision of the log, from 0."""
    states = [empty("m")]
    for raw in values:
        states.append(fold(states[-1], decode_event(raw)))
    return states


def append(data: EventData, revision: int, previous: str | None, command: str = "c") -> bytes:
    """An event as it stands in the log."""
    return encode_event(
        event_of(
            data,
            model="m",
            revision=revision,
            previous=previous,
            commandid=command,
            actor="test",
            time=NOW,
        )
    )


BLUE_GREEN = Strategy.BLUE_GREEN
SWAP = control_log(
    [
        Release(DIGESTS[1], BLUE_GREEN, "s1"),  # revisions 1, 2, 3: version 1 answers from 3
        Release(DIGESTS[2], BLUE_GREEN, "s2"),  # revisions 4, 5, 6: version 2 answers from 6
    ]
)


def request(
    partition: int, offset: int, item: str = "a", *, key: bytes | None = b"a", name: str = ""
) -> Record:
    """A request record; its id is ``name``, or says where it lies."""
    said = {"request_id": name or f"{partition}-{offset}", "inputs": {"item": item}}
    return Record(REQUESTS, partition, offset, 1_000 + offset, key, msgspec.json.encode(said))


def forecast(
    asked: Record,
    at: int,
    *,
    revision: int = 3,
    version: int = 1,
    item: str = "a",
    variant: Variant = Variant.CHAMPION,
) -> Record:
    """The forecast that answers ``asked``, at offset ``at`` of the same partition."""
    value = encode_forecast(
        Forecast(
            request_id=decode_request(asked.value, 10_000).request_id,
            inputs=msgspec.Raw(msgspec.json.encode({"item": item})),
            outputs={"sales": 1.5},
            model="m",
            version=version,
            digest=DIGESTS[version],
            variant=variant,
            revision=revision,
            source=source_of(asked),
            scored_at=NOW,
            instance="m-0",
        )
    )
    return Record("m.results", asked.partition, at, 2_000, asked.key, value)


def rejection(
    asked: Record,
    at: int,
    *,
    revision: int = 3,
    version: int = 0,
    variant: Variant = Variant.CHAMPION,
) -> Record:
    """The rejection of ``asked``: before it was routed where ``version`` is 0, else after."""
    said = Rejection(
        reason="wrong-type",
        detail="…",
        model="m",
        version=version,
        variant=variant if version else "",
        digest=DIGESTS.get(version, ""),
        revision=revision,
        source=source_of(asked),
        instance="m-0",
    )
    headers = tuple(rejection_headers(said))
    return Record("m.rejections", 0, at, 2_000, asked.key, asked.value, headers)


def source_of(asked: Record) -> Source:
    """Where a request lies."""
    return Source(asked.topic, asked.partition, asked.offset, asked.timestamp)


ASKED = [request(partition, offset) for partition in (0, 1) for offset in range(4)]
ANSWERED = [forecast(asked, asked.offset) for asked in ASKED]


def judge(
    answers: Iterable[Record] = ANSWERED,
    *,
    asked: Iterable[Record] = ASKED,
    rejections: Iterable[Record] = (),
    control: Iterable[bytes] | None = SWAP,
) -> Report:
    """The report on a stream."""
    return check(asked, answers, rejections, control, requests_topic=REQUESTS, same_partitions=True)


def rewritten(answer: Record, old: str, new: str) -> Record:
    """The answer with another text in the place of ``old``, which must be there."""
    assert answer.value is not None
    assert answer.value.count(old.encode()) == 1
    return replace(answer, value=answer.value.replace(old.encode(), new.encode()))


def only(report: Report, kind: Kind, count: int = 1) -> str:
    """The sentence on the one kind of fault in the report; fails where there is another."""
    assert {each: getattr(report, each) for each in Kind} == dict.fromkeys(Kind, 0) | {kind: count}
    assert not report.clean
    assert {finding.kind for finding in report.findings} == {kind}
    return report.findings[0].sentence


OTHER = {Variant.CHAMPION: Variant.CANDIDATE, Variant.CANDIDATE: Variant.CHAMPION}


def routed(state: Deployment, asked: Record) -> tuple[Variant, int]:
    """The variant and the version that the real routing names."""
    plan = routing_of(state)
    assert plan is not None
    variant = route(plan, asked.key, f"{asked.partition}-{asked.offset}")
    return variant, version_of(state, variant)


def version_of(state: Deployment, variant: Variant) -> int:
    """The version that answers as this variant."""
    rollout = state.rollout
    if variant is Variant.CANDIDATE:
        assert rollout is not None
        return rollout.candidate
    assert state.champion is not None
    return state.champion


def answered(
    asked: Record, state: Deployment, *, flipped: bool = False, rejected: bool = False
) -> Record:
    """The answer that the routing at ``state`` gives, or the other variant's."""
    variant, version = routed(state, asked)
    if flipped:
        variant = OTHER[variant]
        version = version_of(state, variant)
    answer = rejection if rejected else forecast
    return answer(asked, asked.offset, revision=state.revision, version=version, variant=variant)
