"""Runs: past trainings and how two of them differ, from the object store alone.

A bundle's manifest says what it was trained on, how, and how good it was; no other place keeps a record
of trainings. Rules:

1. The list reads one manifest a bundle. One that cannot be read is a row that says why, and hides none of
   the others.
2. Scores compare where both runs are of one model, held out the same days and as many rows, and the same
   sales: of the same sources, or with the same scores of every plain baseline, which know nothing but the
   sales. Where they do not compare it is said why, and no difference is told.
3. What differs is told by part: data, configuration, recipe, packages, contract.
"""

import difflib
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any

import msgspec

from adapters.bundles import list_bundles, read_manifest
from adapters.object_store import ObjectStore
from schemas.errors import ModelwireError
from schemas.evidence import BASELINES, MODEL
from schemas.manifest import MODEL_NAME, Holdout, Lineage, Manifest


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One training as its manifest tells it; what a bundle made elsewhere does not say is None.

    ``metrics`` are the model's on its holdout, ``size`` the bytes of its ``model.onnx``; ``problem`` says
    why nothing else is known.
    """

    digest: str
    model: str | None = None
    created_at: datetime | None = None
    preset: str | None = None
    loss: str | None = None
    chosen: str | None = None
    cutoff: str | None = None
    holdout: tuple[str, str] | None = None
    metrics: dict[str, float] = {}
    size: int | None = None
    parent: str | None = None
    problem: str | None = None


class Difference(msgspec.Struct, frozen=True):
    """What two runs say of one thing; None where one of them says nothing."""

    name: str
    a: Any
    b: Any


class MetricPair(msgspec.Struct, frozen=True):
    """A metric of one predictor in both runs; ``difference`` is the second less the first.

    None where one has no such metric, or where the runs do not compare.
    """

    predictor: str
    metric: str
    a: float | None
    b: float | None
    difference: float | None


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Two runs and all in which they differ. ``config`` holds the lines of a unified diff.

    ``incomparable`` are sentences that say why their scores do not compare; none where they do.
    """

    a: Run
    b: Run
    same_holdout: bool
    incomparable: tuple[str, ...]
    same_model_bytes: bool
    metrics: tuple[MetricPair, ...]
    data: tuple[Difference, ...]
    recipe: tuple[Difference, ...]
    packages: tuple[Difference, ...]
    contract: tuple[Difference, ...]
    config: tuple[str, ...]


def list_runs(store: ObjectStore, model: str | None = None) -> list[Run]:
    """Every bundle of the store, or those of one model; the newest first, unreadable ones last."""
    runs = [_read(store, digest) for digest in sorted(list_bundles(store))]
    if model is not None:
        runs = [run for run in runs if run.model == model]
    known = [run for run in runs if run.created_at is not None]
    known.sort(key=lambda run: (run.created_at, run.digest), reverse=True)
    return [*known, *(run for run in runs if run.created_at is None)]


def compare_runs(store: ObjectStore, a: str, b: str) -> Comparison:
    """How the bundles with these digests differ. Raises as ``adapters.bundles.read_manifest``."""
    one, two = read_manifest(store, a), read_manifest(store, b)
    why = tuple(_why_incomparable(one, two))
    return Comparison(
        a=run_of(a, one),
        b=run_of(b, two),
        same_holdout=_is_alike(one.holdout, two.holdout),
        incomparable=why,
        same_model_bytes=one.files[MODEL_NAME] == two.files[MODEL_NAME],
        metrics=tuple(_metric_pairs(one.holdout, two.holdout, compare=not why)),
        data=_differences(one, two, _data),
        recipe=_differences(one, two, _recipe),
        packages=_differences(one, two, _packages),
        contract=_differences(one, two, _contract),
        config=tuple(_config_lines(one.lineage, two.lineage)),
    )


def run_of(digest: str, manifest: Manifest) -> Run:
    """What a manifest tells of its training."""
    lineage, holdout = manifest.lineage, manifest.holdout
    recipe = None if lineage is None else lineage.recipe
    return Run(
        digest=digest,
        model=manifest.model,
        created_at=manifest.created_at,
        preset=None if lineage is None else lineage.preset,
        loss=None if recipe is None else recipe.loss,
        chosen=None if recipe is None else recipe.chosen,
        cutoff=None if lineage is None else lineage.cutoff,
        holdout=_days(holdout),
        metrics={} if holdout is None else holdout.metrics.get(MODEL, {}),
        size=manifest.files[MODEL_NAME].size,
        parent=(lineage.parent or None) if lineage is not None else None,
    )


def _read(store: ObjectStore, digest: str) -> Run:
    try:
        return run_of(digest, read_manifest(store, digest))
    except ModelwireError as error:
        return Run(digest=digest, problem=error.message)


def _days(holdout: Holdout | None) -> tuple[str, str] | None:
    return None if holdout is None else (holdout.first, holdout.last)


def _is_alike(one: Holdout | None, two: Holdout | None) -> bool:
    if one is None or two is None:
        return False
    return (one.first, one.last, one.rows) == (two.first, two.last, two.rows)


def _why_incomparable(one: Manifest, two: Manifest) -> Iterator[str]:
    if one.model != two.model:
        yield f"A is of the model {one.model}, B of {two.model}"
    if one.holdout is None or two.holdout is None:
        which = " and ".join(
            name for name, each in (("A", one), ("B", two)) if each.holdout is None
        )
        yield f"{which} held nothing out"
    elif not _is_alike(one.holdout, two.holdout):
        yield f"other days were held out: A {_told(one.holdout)}, B {_told(two.holdout)}"
    elif _data(one) != _data(two):
        yield from _other_sales(one.holdout, two.holdout)


def _told(holdout: Holdout) -> str:
    return f"{holdout.first} … {holdout.last} ({holdout.rows:,} rows)"


def _other_sales(one: Holdout, two: Holdout) -> Iterator[str]:
    """Of runs on other sources, which may be another side table or other sales."""
    common = [name for name in one.metrics if name in two.metrics and name.startswith(BASELINES)]
    if not common:
        yield "they have other data, and no baseline that would show whether the sales are the same"
    for name in common:
        if one.metrics[name] != two.metrics[name]:
            yield f"they have other data, with other sales: {name} has other scores on the same days"
            return


def _metric_pairs(
    one: Holdout | None, two: Holdout | None, *, compare: bool
) -> Iterator[MetricPair]:
    """Every metric that either has: predictors and metrics in the order of the first run."""
    first = {} if one is None else one.metrics
    second = {} if two is None else two.metrics
    for predictor in _model_first({**first, **second}):
        left, right = first.get(predictor, {}), second.get(predictor, {})
        for metric in {**left, **right}:
            a, b = left.get(metric), right.get(metric)
            difference = b - a if compare and a is not None and b is not None else None
            yield MetricPair(predictor, metric, a, b, difference)


def _model_first(names: Mapping[str, object]) -> list[str]:
    return sorted(names, key=lambda name: name != MODEL)


def _differences(
    one: Manifest, two: Manifest, told: Callable[[Manifest], dict[str, Any]]
) -> tuple[Difference, ...]:
    left, right = told(one), told(two)
    return tuple(
        Difference(name, left.get(name), right.get(name))
        for name in {**left, **right}
        if left.get(name) != right.get(name)
    )


def _data(manifest: Manifest) -> dict[str, Any]:
    if manifest.lineage is None:
        return {}
    return {source.name: source.digest for source in manifest.lineage.sources}


def _recipe(manifest: Manifest) -> dict[str, Any]:
    """What was asked for and what the training decided."""
    lineage = manifest.lineage
    if lineage is None:
        return {}
    told = {"preset": lineage.preset, "seed": lineage.seed, "cutoff": lineage.cutoff}
    if lineage.recipe is not None:
        told |= msgspec.to_builtins(lineage.recipe)
    return {**told, "parent": lineage.parent or None}


def _packages(manifest: Manifest) -> dict[str, Any]:
    lineage = manifest.lineage
    if lineage is None:
        return {}
    code = {"git commit": lineage.git_commit or None}
    return {"python": lineage.python, **lineage.packages, **code}


def _contract(manifest: Manifest) -> dict[str, Any]:
    contract = manifest.contract
    fields = {f"field {each.name}": msgspec.to_builtins(each) for each in contract.fields}
    outputs = {f"output {each.name}": msgspec.to_builtins(each) for each in contract.outputs}
    return {**fields, **outputs, "horizon": msgspec.to_builtins(contract.horizon)}


def _config_lines(one: Lineage | None, two: Lineage | None) -> Iterator[str]:
    left, right = ([] if lineage is None else lineage.config.splitlines() for lineage in (one, two))
    # The first two lines name files, and there are none.
    yield from list(difflib.unified_diff(left, right, lineterm="", n=1))[2:]
