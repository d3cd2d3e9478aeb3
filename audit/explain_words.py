"""An explanation in sentences, for people. Shares are percent, times UTC."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec

from audit.ablation import Ablation, Effect
from audit.explain import Explanation, Scored
from audit.held_out import HeldOutScore
from audit.history import Deed
from deployment.words import percent
from schemas.evidence import Scores
from schemas.forecast import Source

MOST_SOURCES = 5
MOST_TEXT = 400
"""Characters of a request's bytes that a sentence shows."""


def words_of(explanation: Explanation) -> tuple[str, ...]:
    """What the explanation says, a sentence or two each."""
    return (
        *_request(explanation),
        *_chosen(explanation),
        *_deeds(explanation),
        *_made(explanation),
        *([] if explanation.scored is None else _scored(explanation.scored)),
        *map(_held_out, explanation.held_out),
        *([] if explanation.ablation is None else _ablation(explanation.ablation)),
        *(f"Not known: {why}." for why in explanation.missing),
        *(f"Beware, {fault.what}: {fault.why}." for fault in explanation.faults),
    )


def _request(explanation: Explanation) -> Iterator[str]:
    asked, given = explanation.request, explanation.answer
    named = (
        "a request without an id" if asked.request_id is None else f"request {asked.request_id!r}"
    )
    key = "no key" if asked.key is None else f"the key {asked.key!r}"
    yield (
        f"{named[0].upper()}{named[1:]} came as {_place(asked.source)} with {key}, at "
        f"{_utc(datetime.fromtimestamp(asked.source.timestamp / 1_000, UTC))}."
    )
    if asked.inputs is not None:
        yield f"It asked {_fields(asked.inputs)}."
    elif asked.text is not None:
        text = asked.text[:MOST_TEXT] + ("…" if len(asked.text) > MOST_TEXT else "")
        yield f"Its bytes were {text!r}."
    else:
        yield "Its bytes were not kept."
    what = (
        f"rejected as {given.reason}: {given.detail}"
        if given.outputs is None
        else f"answered with {_fields(given.outputs)}"
    )
    yield (
        f"It was {what} at {_utc(given.answered_at)}, by {given.instance} on "
        f"{given.runtime or 'a runtime that it does not name'}."
    )


def _chosen(explanation: Explanation) -> Iterator[str]:
    chosen = explanation.chosen
    yield f"At revision {chosen.revision}, {chosen.why}."
    if chosen.rollout is not None and chosen.weight is not None:
        yield (
            f"Rollout {chosen.rollout}, a {chosen.strategy}, gave its candidate "
            f"{percent(chosen.weight)} of the keys, told apart by the salt {chosen.salt!r}."
        )


def _deeds(explanation: Explanation) -> Iterator[str]:
    if explanation.released is not None:
        yield _deed(explanation.released)
    for approved in explanation.approved:
        yield _deed(approved)
    if explanation.crowned is not None:
        yield f"The champion of then: {_deed(explanation.crowned, is_told=True)}"
    if explanation.routed is not None and explanation.routed != explanation.crowned:
        yield f"The shares of then: {_deed(explanation.routed, is_told=True)}"


def _deed(deed: Deed, *, is_told: bool = False) -> str:
    """Who did what; ``is_told``: what was done first, which may be no verb."""
    why = f", because: {deed.reason}" if deed.reason else ""
    if is_told:
        return f"{deed.what}, by {deed.actor} at {_utc(deed.time)} (revision {deed.revision}){why}."
    return f"{deed.actor} {deed.what} at {_utc(deed.time)} (revision {deed.revision}){why}."


def _made(explanation: Explanation) -> Iterator[str]:
    made = explanation.made
    if made is None:
        return
    version = f"{explanation.model}:{explanation.chosen.version}"
    if made.lineage is None:
        yield f"{version} was bundled at {_utc(made.created_at)}; its bundle names no training."
        return
    lineage = made.lineage
    sources = [f"{each.name} ({each.digest[:23]}…)" for each in lineage.sources[:MOST_SOURCES]]
    if len(lineage.sources) > MOST_SOURCES:
        sources.append(f"{len(lineage.sources) - MOST_SOURCES} more")
    commit = f", code {lineage.git_commit[:12]}" if lineage.git_commit else ""
    yield (
        f"{version} was made at {_utc(made.created_at)} of {', '.join(sources)}, sales up to "
        f"{lineage.cutoff}, preset {lineage.preset}, seed {lineage.seed}{commit}, Python "
        f"{lineage.python}."
    )
    if lineage.packages:
        packages = ", ".join(f"{name} {version}" for name, version in lineage.packages.items())
        yield f"Packages: {packages}."
    if lineage.parent:
        yield f"It took over the regressor of bundle {lineage.parent} under new tables."


def _scored(scored: Scored) -> Iterator[str]:
    yield (
        f"On {scored.first} to {scored.last}, days that its training never saw, it scored "
        f"{_scores(scored.overall)} over all."
    )
    for each in scored.slices:
        what = (
            f"the {each.pooled:,} smallest values of {each.slice} together"
            if each.pooled
            else f"{each.slice} = {each.value}"
        )
        yield f"For {what} ({each.series:,} series): {_scores(each.scores)}."


def _held_out(score: HeldOutScore) -> str:
    named = " and ".join(f"{name} = {_json(value)}" for name, value in score.keys.items())
    parts = [f"RMSLE {score.rmsle:.3g}"]
    if score.wape is not None and score.bias is not None:
        parts += [f"WAPE {score.wape:.1%}", f"bias {score.bias:+.1%}"]
    return (
        f"Of the held-out rows {score.rows:,} have {named}: {', '.join(parts)}; a day sold "
        f"{_number(score.mean_actual)} on average, and {_number(score.mean_answer)} was answered."
    )


def _scores(scores: Scores) -> str:
    parts = [f"RMSLE {scores.rmsle:.3g}"]
    if scores.wape is not None:
        parts.append(f"WAPE {scores.wape:.1%}")
    if scores.bias is not None:
        parts.append(f"bias {scores.bias:+.1%}")
    return f"{', '.join(parts)} ({scores.rows:,} rows)"


def _ablation(ablation: Ablation) -> Iterator[str]:
    name = next(iter(ablation.outputs))
    given = ablation.outputs[name]
    for effect in ablation.fields:
        yield _effect(effect, name, given)
    if ablation.typical is not None:
        yield (
            f"With every field typical {name} is {_number(ablation.typical[name])}. Effects are of one "
            "field at a time and do not add up where fields act together."
        )
    yield (
        f"Typical is the median, or the commonest, of {ablation.rows:,} rows of the bundle's "
        f"{ablation.source}."
    )


def _effect(effect: Effect, name: str, given: Any) -> str:
    value, typical = _json(effect.value), _json(effect.typical)
    if effect.outputs is None or effect.effects is None:
        return f"{effect.field} = {value}: its effect cannot be told with {typical}: {effect.note}."
    if effect.value == effect.typical:
        return f"{effect.field} = {value} is typical."
    moved = effect.effects[name]
    if moved == 0:
        return f"{effect.field} = {value} instead of {typical} changes nothing."
    does = "raises" if moved > 0 else "lowers"
    return (
        f"{effect.field} = {value} {does} {name} by {_number(abs(moved))}: it is {_number(given)}, and "
        f"{_number(effect.outputs[name])} with {typical}."
    )


def _fields(fields: Any) -> str:
    return ", ".join(f"{name} = {_json(value)}" for name, value in dict(fields).items())


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _number(value: float | int | bool) -> str:
    return str(value) if isinstance(value, bool) else f"{value:.6g}"


def _place(source: Source) -> str:
    return f"{source.topic}/{source.partition}/{source.offset}"


def _utc(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%SZ}"
