"""Reproduction: a bundle's model made again from its lineage, and what differs.

The configuration, cutoff, preset and seed are the manifest's; a refreshed bundle is refreshed again, on
the regressor of its parent, which must be in the store. The verdict is whether ``model.onnx`` has the
same bytes; times and ids stand outside of it. All else is told as what may have caused a difference:
data, code, packages, Python, the kind of processor. They may differ and the bytes be the same.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import msgspec

from adapters.bundles import read_manifest
from adapters.object_store import ObjectStore, S3Settings
from schemas.errors import ModelwireError
from schemas.manifest import MODEL_NAME, Lineage, Manifest, Source
from trainer.bundle import Bundle, Order, train_bundle
from trainer.estimator import Preset
from trainer.recorded import recipe_and_lineage, recorded_dataset
from trainer.refreshing import read_parent, refresh_bundle


class Change(msgspec.Struct, frozen=True):
    """What something was when the bundle was made, and what it is now; empty where there is none."""

    had: str
    have: str


class Differences(msgspec.Struct, frozen=True, kw_only=True):
    """What is not as it was. ``data`` are sources by name, and their digests."""

    data: dict[str, Change]
    code: Change | None
    packages: dict[str, Change]
    python: Change | None
    numeric_class: Change | None


@dataclass(frozen=True)
class Reproduction:
    """``wanted`` and ``found`` are the digests of ``model.onnx``, in the bundle and as made again."""

    digest: str
    manifest: Manifest
    wanted: str
    found: str
    differences: Differences

    @property
    def is_same(self) -> bool:
        """Whether the model has the same bytes."""
        return self.wanted == self.found


def reproduce(
    store: ObjectStore,
    digest: str,
    *,
    data: Path | None = None,
    memory_mb: int,
    s3: S3Settings | None = None,
    progress: Callable[[str], None] = lambda line: None,
) -> Reproduction:
    """Makes the model of a bundle again and compares.

    Raises UsageProblem for a bundle that does not say how it was made, NotFound where its sources or its
    parent are not there, and whatever a training raises, each with the sources that the bundle had.
    """
    manifest = read_manifest(store, digest)
    _, lineage = recipe_and_lineage(digest, manifest)
    try:
        again = _again(store, digest, manifest, data, memory_mb, s3, progress)
    except ModelwireError as error:
        error.details = (*error.details, *(_wanted(each) for each in lineage.sources))
        raise
    return Reproduction(
        digest=digest,
        manifest=manifest,
        wanted=manifest.files[MODEL_NAME].digest,
        found=again.manifest.files[MODEL_NAME].digest,
        differences=differences(manifest, again.manifest),
    )


def _again(
    store: ObjectStore,
    digest: str,
    manifest: Manifest,
    data: Path | None,
    memory_mb: int,
    s3: S3Settings | None,
    progress: Callable[[str], None],
) -> Bundle:
    _, lineage = recipe_and_lineage(digest, manifest)
    file = recorded_dataset(digest, lineage, data)
    cutoff = date.fromisoformat(lineage.cutoff)
    if lineage.parent:
        return refresh_bundle(
            file,
            read_parent(store, lineage.parent),
            created_at=manifest.created_at,
            cutoff=cutoff,
            memory_mb=memory_mb,
            s3=s3,
            progress=progress,
        )
    order = Order(Preset(lineage.preset), cutoff, lineage.seed, memory_mb)
    return train_bundle(file, order, created_at=manifest.created_at, s3=s3, progress=progress)


def differences(before: Manifest, after: Manifest) -> Differences:
    """What differs between two bundles with a lineage in what they were made of, and with."""
    had, have = _lineage(before), _lineage(after)
    was, now = before.parity, after.parity
    return Differences(
        data=_changes(_digests(had), _digests(have)),
        code=_change(had.git_commit, have.git_commit),
        packages=_changes(had.packages, have.packages),
        python=_change(had.python, have.python),
        numeric_class=_change(was.numeric_class, now.numeric_class) if was and now else None,
    )


def _lineage(manifest: Manifest) -> Lineage:
    assert manifest.lineage is not None
    return manifest.lineage


def _digests(lineage: Lineage) -> dict[str, str]:
    return {each.name: each.digest for each in lineage.sources}


def _changes(had: dict[str, str], have: dict[str, str]) -> dict[str, Change]:
    found = {name: _change(had.get(name, ""), have.get(name, "")) for name in {**had, **have}}
    return {name: change for name, change in found.items() if change is not None}


def _change(had: str, have: str) -> Change | None:
    return None if had == have else Change(had, have)


def _wanted(source: Source) -> str:
    return f"the bundle was made of {source.name}: {source.size:,} bytes, {source.digest}"
