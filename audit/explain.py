"""An answer explained: which version gave it and why that one, who made it so, what that version is, how
good it is for such requests, and what each field of the request did.

What is said of routing and of who did what comes from the control log, and what is said of a model from
its bundle, each checked by its digest. Where one of them cannot be had, that part is missing and
``missing`` says why. Whether the answer is proven is for ``audit.verify``.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import msgspec

from audit.ablation import Ablation
from audit.held_out import HeldOutScore
from audit.history import Deed, History
from audit.kept import Kept
from audit.verdicts import Fault
from deployment.routing import BUCKETS, bucket, routing_of
from deployment.state import Deployment
from schemas.answer_file import Kind
from schemas.evidence import MODEL, Evidence, Group, Scores, Slice
from schemas.forecast import Forecast, Source, Variant
from schemas.manifest import Lineage, Manifest
from schemas.rejection import Rejection


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """The request. Of a rejected one ``inputs`` is None and ``text`` has its bytes.

    They are escaped where they are no text; None where they were not kept.
    """

    request_id: str | None
    key: str | None
    source: Source
    inputs: Any = None
    text: str | None = None


class Given(msgspec.Struct, frozen=True, kw_only=True):
    """The answer: outputs, or the reason and the sentence of a rejection."""

    kind: Kind
    answered_at: datetime
    instance: str
    runtime: str
    topic: str
    partition: int
    offset: int
    file: str
    outputs: dict[str, float | int | bool] | None = None
    reason: str = ""
    detail: str = ""


class Chosen(msgspec.Struct, frozen=True, kw_only=True):
    """The version that answered, and why that one.

    ``bucket`` of 10,000 is where ``sticky`` (the key, or the id of a request without one) falls under the
    rollout's ``salt``; the candidate answers those below ``weight``. All None or empty where no rollout
    had traffic. ``version`` is 0 where the request was rejected before anything was chosen.
    """

    revision: int
    version: int
    variant: str
    digest: str
    why: str
    rollout: int | None = None
    strategy: str = ""
    weight: int | None = None
    salt: str = ""
    sticky: str = ""
    bucket: int | None = None


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """The model: when its bundle was made, and of what. ``lineage`` is None for a foreign model."""

    created_at: datetime
    lineage: Lineage | None


class SliceScore(msgspec.Struct, frozen=True, kw_only=True):
    """The model's score on the group of a slice that the request belongs to.

    ``value`` is empty where the group stands for ``pooled`` small values.
    """

    slice: str
    value: str
    series: int
    scores: Scores
    pooled: int = 0


class Scored(msgspec.Struct, frozen=True, kw_only=True):
    """How the version did on days that its training never saw: in all, and for such requests."""

    first: str
    last: str
    overall: Scores
    slices: tuple[SliceScore, ...]


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """One answer explained; ``words`` say it all to people."""

    model: str
    request: Asked
    answer: Given
    chosen: Chosen
    released: Deed | None = None
    approved: tuple[Deed, ...] = ()
    crowned: Deed | None = None
    routed: Deed | None = None
    made: Made | None = None
    scored: Scored | None = None
    held_out: tuple[HeldOutScore, ...] = ()
    ablation: Ablation | None = None
    faults: tuple[Fault, ...] = ()
    missing: tuple[str, ...] = ()
    words: tuple[str, ...] = ()


def asked_of(kept: Kept) -> Asked:
    """The request of an answer that was read."""
    record, said = _read(kept)
    key = None if record.key is None else record.key.decode(errors="backslashreplace")
    if isinstance(said, Forecast):
        return Asked(
            request_id=said.request_id,
            key=key,
            source=said.source,
            inputs=msgspec.json.decode(said.inputs),
        )
    value = None if kept.is_enveloped else record.value
    text = None if value is None else value.decode(errors="backslashreplace")
    return Asked(request_id=_id_in(value), key=key, source=said.source, text=text)


def given_in(kept: Kept) -> Given:
    """The answer that was read."""
    _, said = _read(kept)
    located = kept.located
    return Given(
        kind=located.kind,
        answered_at=located.time,
        instance=said.instance,
        runtime=said.runtime,
        topic=located.topic,
        partition=located.partition,
        offset=located.offset,
        file=located.file,
        outputs=said.outputs if isinstance(said, Forecast) else None,
        reason=said.reason if isinstance(said, Rejection) else "",
        detail=said.detail if isinstance(said, Rejection) else "",
    )


def chosen_for(kept: Kept, deployment: Deployment | None, request_id: str | None) -> Chosen:
    """Why this version answered, at its revision's deployment (None: not known)."""
    record, said = _read(kept)
    chosen = Chosen(
        revision=said.revision,
        version=said.version,
        variant=str(said.variant),
        digest=said.digest,
        why="the control log does not say what held at its revision",
    )
    routing = None if deployment is None else routing_of(deployment)
    if deployment is None or routing is None:
        return chosen
    if not said.version:
        why = "it was rejected before any version was chosen: nobody could tell what it asks"
        return msgspec.structs.replace(chosen, why=why)
    if routing.weight == 0:
        why = (
            f"no rollout had traffic: the champion, version {routing.champion}, answered everything"
        )
        return msgspec.structs.replace(chosen, why=why)
    assert deployment.rollout is not None
    sticky = (request_id or "").encode() if record.key is None else record.key
    place = bucket(routing.salt, sticky)
    is_candidate = place < routing.weight
    right = Variant.CANDIDATE if is_candidate else Variant.CHAMPION
    version = routing.candidate if is_candidate else routing.champion
    of = "its id, since it has no key," if record.key is None else "its key"
    why = (
        f"{of} falls into bucket {place:,} of {BUCKETS:,}, "
        f"{'below' if is_candidate else 'not below'} the {routing.weight:,} that the candidate of "
        f"rollout {deployment.rollout.revision} answered: so the {right}, version {version}"
    )
    if (said.variant, said.version) != (right, version):
        why += f"; the answer says version {said.version}, the {said.variant}, which is not that"
    return msgspec.structs.replace(
        chosen,
        why=why,
        rollout=deployment.rollout.revision,
        strategy=deployment.rollout.strategy,
        weight=routing.weight,
        salt=routing.salt,
        sticky=sticky.decode(errors="backslashreplace"),
        bucket=place,
    )


def deeds_for(history: History, said: Forecast | Rejection) -> dict[str, Any]:
    """Who released, approved, crowned and shifted, by the names of ``Explanation``."""
    revision = said.revision
    return {
        "released": history.released(said.version, revision),
        "approved": history.approved(said.version, revision),
        "crowned": history.crowned(revision),
        "routed": history.routed(revision),
    }


def made_by(manifest: Manifest) -> Made:
    """What the manifest says of the model's making."""
    return Made(created_at=manifest.created_at, lineage=manifest.lineage)


def scored_on(evidence: Evidence, inputs: dict[str, Any]) -> Scored | None:
    """The scores for a request with these inputs; None where nothing was scored."""
    examined = evidence.headline
    if examined is None or MODEL not in examined.scores:
        return None
    return Scored(
        first=examined.first,
        last=examined.last,
        overall=examined.scores[MODEL],
        slices=tuple(_slices(examined.slices, inputs)),
    )


def _slices(slices: tuple[Slice, ...], inputs: dict[str, Any]) -> Iterator[SliceScore]:
    """Of those that the request's own fields decide; volume and age are the series' past."""
    for each in slices:
        if each.name not in inputs or each.kind not in ("key", "attribute"):
            continue
        group = _group(each, str(inputs[each.name]))
        if group is not None and MODEL in group.scores:
            yield SliceScore(
                slice=each.name,
                value=group.value,
                series=group.series,
                scores=group.scores[MODEL],
                pooled=group.pooled,
            )


def _group(of: Slice, value: str) -> Group | None:
    for group in of.groups:
        if group.value == value and not group.pooled:
            return group
    return next((group for group in of.groups if group.pooled), None)


def _read(kept: Kept) -> tuple[Any, Forecast | Rejection]:
    assert kept.record is not None
    assert kept.said is not None
    return kept.record, kept.said


class _Id(msgspec.Struct):
    request_id: str | None = None


def _id_in(value: bytes | None) -> str | None:
    try:
        return msgspec.json.decode(value or b"", type=_Id).request_id
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
