"""The batch: requests in, one answer each out. Production and everything that re-derives it use this.

For every request, in this order:

1. the envelope is decoded, and refused where it is no request (``schemas.request``);
2. it is routed to the champion or the candidate (``deployment.routing``);
3. its inputs are decoded under that version's contract (``schemas.codec``);
4. the rows of a version are gathered, padded and run as one batch (``scoring.arrays``);
5. every output must be finite, and the encoded answer must fit its topic.

A request that is good at first sight (``schemas.first_look``) takes the short way through 1 and 3.

Whatever goes wrong with one request rejects that request and no other, and does not change a bit of
the others' answers. Where a model fails on a batch, or gives too few outputs for it, the rows at fault
are found by runs whose outputs are thrown away, and the rest is run again (``scoring.runs``).

A shadow takes the same way for its share of the requests, with its own version in place of the routed
one (``shadow_answers``). It leaves out what is no request, which the answer rejects, and what that
version answers anyway.

Nothing here reads a clock or a record from anywhere: the caller hands in both, produces the answers,
and owns the transaction around them.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import datetime
from itertools import compress, repeat
from typing import cast

import msgspec

from deployment.routing import BUCKETS, bucket, route
from schemas.codec import Row
from schemas.first_look import Verdicts, without
from schemas.forecast import Source, Variant, forecast_encoder
from schemas.rejection import MAX_DETAIL_LENGTH, Reason, Rejected, Rejection
from schemas.request import Request, decode_each, decode_envelope, decode_request, diagnose
from scoring.runs import run_rows
from scoring.snapshot import LoadedVersion, Shadow, Snapshot

# One object of each of these stands for every message: a msgspec struct is built in a fifth of the time
# that a frozen dataclass takes, and with gc=False the collector has nothing to walk.


class Incoming(msgspec.Struct, frozen=True, gc=False):
    """A record of the request topic. ``timestamp_ms`` is the record's, since 1970 (UTC)."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None


class ForecastAnswer(msgspec.Struct, frozen=True, gc=False):
    """The request was answered: ``value`` is the forecast's bytes."""

    incoming: Incoming
    value: bytes
    variant: Variant


class RejectionAnswer(msgspec.Struct, frozen=True, gc=False):
    """The request was rejected; what becomes of its bytes is the writer's business."""

    incoming: Incoming
    rejection: Rejection


Answer = ForecastAnswer | RejectionAnswer

_Answers = list[Answer | None]
"""By place in the batch; None where there is none yet."""


class _Group(msgspec.Struct):
    """The requests that go to one version, column by column: their places in the batch first."""

    variant: Variant
    version: LoadedVersion
    places: list[int] = []
    requests: list[Request] = []
    rows: list[Row] = []

    def look(
        self, places: Sequence[int], values: Sequence[bytes], requests: Sequence[Request]
    ) -> Verdicts:
        """Step 3 for requests that may be good at first sight; what becomes of the others, by place."""
        rows, verdicts = self.version.first_look(values, requests)
        self.places += without(places, verdicts)
        self.requests += without(requests, verdicts)
        self.rows += rows
        return {places[at]: verdict for at, verdict in verdicts.items()}

    def take(self, place: int, incoming: Incoming, request: Request) -> None:
        """Step 3 for one request. Raises Rejected where the version's contract does not take it."""
        # The envelope was read under the widest limit of several contracts; this one's may be narrower.
        size, limit = len(incoming.value or b""), self.version.contract.max_request_bytes
        if size > limit:
            raise Rejected(Reason.TOO_LARGE, f"the value has {size} bytes; the limit is {limit}")
        self.rows.append(self.version.decode(bytes(request.inputs)))
        self.places.append(place)
        self.requests.append(request)


class _Scene(msgspec.Struct, frozen=True):
    """What all answers of a batch have in common."""

    snapshot: Snapshot
    scored_at: datetime
    instance: str
    runtime: str
    max_answer_bytes: int
    crashing: Collection[tuple[int, int]] = ()


def answer(
    snapshot: Snapshot,
    batch: Sequence[Incoming],
    *,
    scored_at: datetime,
    instance: str,
    runtime: str = "",
    max_answer_bytes: int,
    crashing: Collection[tuple[int, int]] = (),
) -> list[Answer]:
    """One answer for each request of ``batch``, in its order.

    ``scored_at`` must know its zone; ``instance`` and ``runtime`` say who answers (``schemas.forecast``).
    A forecast of more than ``max_answer_bytes`` becomes a rejection.
    ``crashing`` are requests, by partition and offset, that are known to bring the runtime down: they
    are rejected instead of run. Never raises for what a request holds or for what the model does with it.
    """
    scene = _Scene(snapshot, _with_zone(scored_at), instance, runtime, max_answer_bytes, crashing)
    answers: _Answers = [None] * len(batch)
    for group in _admit(scene, batch, answers):
        _answer_group(scene, batch, group, answers)
    return cast(list[Answer], answers)


def shadow_answers(
    snapshot: Snapshot,
    shadow: Shadow,
    batch: Sequence[Incoming],
    *,
    scored_at: datetime,
    instance: str,
    runtime: str = "",
    max_answer_bytes: int,
) -> list[Answer]:
    """What ``shadow`` says to its share of ``batch``, which ``snapshot`` answered; in the batch's order.

    The rest as in ``answer``.
    """
    scene = _Scene(snapshot, _with_zone(scored_at), instance, runtime, max_answer_bytes)
    answers: _Answers = [None] * len(batch)
    group = _Group(Variant.SHADOW, shadow.version)
    versions = [shadow.version, *(each.version for each in _groups(snapshot))]
    limit = max(version.contract.max_request_bytes for version in versions)
    for place, incoming in enumerate(batch):
        try:
            request = decode_request(incoming.value, limit)
        except Rejected:
            continue
        if _is_shadowed(snapshot, shadow, incoming.key, request.request_id):
            try:
                group.take(place, incoming, request)
            except Rejected as rejected:
                answers[place] = _reject(scene, incoming, group, rejected)
    _answer_group(scene, batch, group, answers)
    return [each for each in answers if each is not None]


def _is_shadowed(snapshot: Snapshot, shadow: Shadow, key: bytes | None, request_id: str) -> bool:
    sticky = request_id.encode() if key is None else key
    if shadow.share < BUCKETS and bucket(shadow.salt, sticky) >= shadow.share:
        return False
    candidate = snapshot.candidate
    if candidate is None or candidate.version != shadow.version.version:
        return True
    return route(snapshot.routing, key, request_id) is not Variant.CANDIDATE


def _with_zone(scored_at: datetime) -> datetime:
    if scored_at.tzinfo is None:
        raise ValueError("scored_at has no time zone")
    return scored_at


def _groups(snapshot: Snapshot) -> tuple[_Group, ...]:
    """An empty group for each version that answers, the champion's first."""
    champion = _Group(Variant.CHAMPION, snapshot.champion)
    if snapshot.candidate is None or snapshot.routing.weight == 0:
        return (champion,)
    return (champion, _Group(Variant.CANDIDATE, snapshot.candidate))


def _admit(scene: _Scene, batch: Sequence[Incoming], answers: _Answers) -> tuple[_Group, ...]:
    """Steps 1 to 3: the decodable requests by version. The rejections of the rest go to ``answers``."""
    groups = _groups(scene.snapshot)
    limit = max(group.version.contract.max_request_bytes for group in groups)
    # None gets a first look while some are known to crash the runtime.
    left: Iterable[int] = range(len(batch))
    if not scene.crashing:
        left = _look_first(scene, groups, limit, batch, answers)
    for place in left:
        answers[place] = _look_closer(scene, groups, limit, place, batch[place])
    return groups


def _look_first(
    scene: _Scene,
    groups: tuple[_Group, ...],
    limit: int,
    batch: Sequence[Incoming],
    answers: _Answers,
) -> list[int]:
    """Steps 1 to 3 for what is good or bad at first sight; the places of those left open."""
    values = [incoming.value or b"" for incoming in batch]
    left = [place for place, value in enumerate(values) if not 0 < len(value) <= limit]
    places = without(range(len(batch)), left)
    requests, errors = decode_each(decode_envelope, without(values, left))
    for at, error in errors.items():
        place = places[at]
        answers[place] = _reject(scene, batch[place], None, diagnose(values[place], error))
    for group, mine, asked in _shared_out(scene, groups, batch, without(places, errors), requests):
        verdicts = group.look(mine, [values[place] for place in mine], asked)
        for place, verdict in verdicts.items():
            if verdict is None:
                left.append(place)
            else:
                answers[place] = _reject(scene, batch[place], group, verdict)
    return left


def _shared_out(
    scene: _Scene,
    groups: tuple[_Group, ...],
    batch: Sequence[Incoming],
    places: Sequence[int],
    requests: Sequence[Request],
) -> Iterator[tuple[_Group, Sequence[int], Sequence[Request]]]:
    """Step 2 for many: the groups, each with the places and the requests that are routed to it."""
    if len(groups) == 1:
        yield groups[0], places, requests
        return
    chosen = [
        _routed(scene, groups, batch[place], request)
        for place, request in zip(places, requests, strict=True)
    ]
    for group in groups:
        mine = [each is group for each in chosen]
        yield group, list(compress(places, mine)), list(compress(requests, mine))


def _look_closer(
    scene: _Scene, groups: tuple[_Group, ...], limit: int, place: int, incoming: Incoming
) -> RejectionAnswer | None:
    """Steps 1 to 3 for a request that the first look leaves open; its rejection, if it comes to one."""
    group = None
    try:
        request = decode_request(incoming.value, limit)
        group = _routed(scene, groups, incoming, request)
        if (incoming.partition, incoming.offset) in scene.crashing:
            raise Rejected(Reason.MODEL_CRASH, "the model brought its process down on this row")
        group.take(place, incoming, request)
    except Rejected as rejected:
        return _reject(scene, incoming, group, rejected)
    return None


def _routed(
    scene: _Scene, groups: tuple[_Group, ...], incoming: Incoming, request: Request
) -> _Group:
    """Step 2."""
    if len(groups) == 1:
        return groups[0]
    variant = route(scene.snapshot.routing, incoming.key, request.request_id)
    return groups[1 if variant is Variant.CANDIDATE else 0]


def _answer_group(
    scene: _Scene, batch: Sequence[Incoming], group: _Group, answers: _Answers
) -> None:
    """Steps 4 and 5 for the rows of one version."""
    if not group.rows:
        return
    version, variant = group.version, group.variant
    encode = forecast_encoder(
        model=scene.snapshot.model_name,
        version=version.version,
        digest=version.digest,
        variant=variant,
        revision=scene.snapshot.revision,
        scored_at=scene.scored_at,
        instance=scene.instance,
        runtime=scene.runtime,
    )
    outcomes = run_rows(version, group.rows)
    faults = {at: each for at, each in enumerate(outcomes) if isinstance(each, Rejected)}
    for at, fault in faults.items():
        place = group.places[at]
        answers[place] = _reject(scene, batch[place], group, fault)
    places = without(group.places, faults)
    asked = [batch[place] for place in places]
    requests, outputs = without(group.requests, faults), without(outcomes, faults)
    values = encode(requests, outputs, _sources(asked))
    forecasts = map(ForecastAnswer, asked, values, repeat(variant))
    for place, forecast in zip(places, forecasts, strict=True):
        answers[place] = forecast
    if max(map(len, values), default=0) > scene.max_answer_bytes:
        for place, incoming, value in zip(places, asked, values, strict=True):
            if len(value) > scene.max_answer_bytes:
                answers[place] = _reject(scene, incoming, group, _oversized(value, scene))


def _oversized(value: bytes, scene: _Scene) -> Rejected:
    return Rejected(
        Reason.ANSWER_TOO_LARGE,
        f"the forecast has {len(value)} bytes; the limit is {scene.max_answer_bytes}",
    )


def _reject(
    scene: _Scene, incoming: Incoming, group: _Group | None, rejected: Rejected
) -> RejectionAnswer:
    (source,) = _sources([incoming])
    rejection = Rejection(
        reason=rejected.reason,
        detail=rejected.detail[:MAX_DETAIL_LENGTH],
        model=scene.snapshot.model_name,
        version=0 if group is None else group.version.version,
        variant="" if group is None else group.variant,
        digest="" if group is None else group.version.digest,
        revision=scene.snapshot.revision,
        source=source,
        instance=scene.instance,
        runtime=scene.runtime,
    )
    return RejectionAnswer(incoming, rejection)


def _sources(batch: Sequence[Incoming]) -> list[Source]:
    return [Source(each.topic, each.partition, each.offset, each.timestamp_ms) for each in batch]
