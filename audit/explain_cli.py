"""``modelwire audit explain``: why a request got its answer."""

from collections.abc import Sequence

import click
import msgspec
from rich.console import Group, RenderableType
from rich.text import Text

from adapters.answer_files import AnswerStore
from adapters.answer_query import AnswerQuery
from adapters.bundles import Bundles, StoredBundles
from adapters.command_line import speak_briefly
from adapters.kafka import topic_names
from adapters.layout import NOTHING, new_table, show, utc
from adapters.model_name import parse_model
from adapters.object_store import StoreUnavailable, open_store
from audit.ablation import Ablation, CannotExplain, ablate
from audit.answers import find, parse_target
from audit.derivation import Derivation, Loaded
from audit.explain import (
    Explanation,
    asked_of,
    chosen_for,
    deeds_for,
    given_in,
    made_by,
    scored_on,
)
from audit.explain_words import words_of
from audit.history import History
from audit.kept import Kept, KeptFiles
from audit.logs import read_history
from audit.options import proving, settings_of, time_of
from audit.typical import Typical, read_typical
from audit.words import printable
from schemas.errors import ModelwireError
from schemas.evidence import decode_evidence
from schemas.forecast import Forecast
from schemas.manifest import EVIDENCE_NAME


@click.command("explain")
@click.argument("target", metavar="REQUEST_ID|TOPIC/PARTITION/OFFSET")
@proving
def explain_command(
    target: str,
    model: str,
    since: str | None,
    until: str | None,
    control_log: str,
    bootstrap_servers: str | None,
    store: str | None,
    bundles: str | None,
    output: str,
) -> None:
    """Say why a request got its answer: request, version, who decided, the model, each field's effect.

    A place is that of the request, or of the answer. An id that was answered more than once lists its
    answers: name the one that you mean by its place. Exit code 4: no such answer.
    """
    first, last = time_of("--since", since), time_of("--until", until)
    parse_model(model)
    speak_briefly()
    settings = settings_of(bootstrap_servers, store, bundles)
    topics = topic_names(settings, model)
    with AnswerQuery(settings, model, since=first, until=last) as query:
        located = find(query, parse_target(target, topics), topics)
    answers = AnswerStore(open_store(settings.audit_url, settings.s3_settings), model)
    kept = KeptFiles(answers).read(located)
    if len(kept) > 1:
        show(output, _list_view(target, kept), {"model": model, "answers": _listed(kept)})
        return
    [only] = kept
    if only.said is None:
        why = "; ".join(fault.why for fault in only.faults)
        raise ModelwireError(
            f"the answer cannot be read: {why}", hint="modelwire audit check says what is damaged"
        )
    history = read_history(settings, answers, model, control_log)
    stored = StoredBundles(open_store(settings.store_url, settings.s3_settings))
    explanation = explain(only, history, stored)
    value = {"model": model, "answers": _listed(kept), "explanation": explanation}
    show(output, Group(*(Text(printable(each)) for each in explanation.words)), value)


def explain(kept: Kept, history: History, bundles: Bundles) -> Explanation:
    """The explanation of an answer that was read. Raises StoreUnavailable where the store is away."""
    said = kept.said
    assert said is not None
    asked = asked_of(kept)
    deployment = history.at(said.revision)
    missing: list[str] = []
    if deployment is None:
        missing.append(f"the control log was read up to revision {history.last}")
    parts = {} if deployment is None else deeds_for(history, said)
    if not said.version:
        parts["routed"] = None
    explanation = Explanation(
        model=history.model,
        request=asked,
        answer=given_in(kept),
        chosen=chosen_for(kept, deployment, asked.request_id),
        faults=kept.faults,
        **parts,
    )
    if said.version:
        explanation = _with_bundle(explanation, kept, bundles, missing)
    explanation = msgspec.structs.replace(explanation, missing=tuple(missing))
    return msgspec.structs.replace(explanation, words=words_of(explanation))


def _with_bundle(
    explanation: Explanation, kept: Kept, bundles: Bundles, missing: list[str]
) -> Explanation:
    said = kept.said
    assert said is not None
    try:
        manifest = bundles.read_manifest(said.digest)
        explanation = msgspec.structs.replace(explanation, made=made_by(manifest))
        if EVIDENCE_NAME in manifest.files and isinstance(said, Forecast):
            evidence = decode_evidence(bundles.read_file(said.digest, manifest, EVIDENCE_NAME))
            scored = scored_on(evidence, msgspec.json.decode(said.inputs))
            explanation = msgspec.structs.replace(explanation, scored=scored)
        elif isinstance(said, Forecast):
            missing.append("its bundle has no evidence of how good it is")
        if isinstance(said, Forecast):
            inputs = msgspec.json.decode(said.inputs)
            typical = read_typical(bundles, said.digest, manifest, inputs)
            explanation = msgspec.structs.replace(explanation, held_out=typical.held_out)
            ablation = _ablated(said, typical, bundles)
            explanation = msgspec.structs.replace(explanation, ablation=ablation)
    except StoreUnavailable:
        raise
    except ModelwireError as error:
        missing.append(error.message)
    except CannotExplain as cannot:
        missing.append(f"what each field did: {cannot}")
    return explanation


def _ablated(said: Forecast, typical: Typical, bundles: Bundles) -> Ablation:
    tried = Derivation(bundles).load(said.version, said.digest)
    if not isinstance(tried, Loaded):
        raise CannotExplain(tried.why)
    inputs = bytes(said.inputs)
    return ablate(tried.version, inputs, typical.values, typical.source, typical.rows)


def _listed(kept: Sequence[Kept]) -> list[dict[str, object]]:
    """The answers, for programs."""
    return [
        {
            "request": each.located.source,
            "answer": f"{each.located.topic}/{each.located.partition}/{each.located.offset}",
            "kind": each.located.kind,
            "answered_at": each.located.time,
            "version": None if each.said is None else each.said.version or None,
            "said": _said(each),
        }
        for each in kept
    ]


def _said(kept: Kept) -> object:
    if isinstance(kept.said, Forecast):
        return kept.said.outputs
    return None if kept.said is None else kept.said.reason


def _list_view(target: str, kept: Sequence[Kept]) -> RenderableType:
    table = new_table("request", "answered", "version", "answer")
    for each in _listed(kept):
        said = each["said"]
        text = said if isinstance(said, str) else msgspec.json.encode(said).decode()
        table.add_row(
            str(each["request"]),
            utc(each["answered_at"]),  # type: ignore[arg-type]
            str(each["version"] or NOTHING),
            Text(printable(text)),
        )
    head = Text(f"{printable(target)} was answered {len(kept):,} times; explain one by its request")
    return Group(head, Text(), table)
