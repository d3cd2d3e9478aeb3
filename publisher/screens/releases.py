"""Versions as people and programs see them: the list, and one with its manifest."""

from collections.abc import Iterator
from typing import Any

from rich.table import Table
from rich.text import Text

from adapters.layout import NOTHING, new_table, utc
from deployment.state import Deployment
from publisher.releases import Version
from schemas.manifest import Manifest


def releases_table(deployment: Deployment) -> Table:
    """Every version, the newest first."""
    table = new_table("version", "digest", "standing", "role", "released", "by", "reason")
    for release in sorted(deployment.releases.values(), key=lambda r: -r.version):
        table.add_row(
            Text(f"{deployment.model}:{release.version}"),
            Text(release.digest),
            Text(release.standing),
            _role(deployment, release.version) or NOTHING,
            utc(release.time),
            Text(release.actor),
            Text(release.reason),
        )
    return table


def releases_object(deployment: Deployment) -> dict[str, Any]:
    """Every version, the oldest first."""
    return {
        "model": deployment.model,
        "revision": deployment.revision,
        "champion": deployment.champion,
        "previous": deployment.previous,
        "releases": [
            _release_object(deployment, version) for version in sorted(deployment.releases)
        ],
    }


def _release_object(deployment: Deployment, version: int) -> dict[str, Any]:
    release = deployment.releases[version]
    return {
        "version": version,
        "digest": release.digest,
        "standing": release.standing,
        "role": _role(deployment, version),
        "revision": release.revision,
        "released_at": release.time,
        "actor": release.actor,
        "reason": release.reason,
    }


def _role(deployment: Deployment, version: int) -> str | None:
    if version == deployment.champion:
        return "champion"
    if deployment.rollout is not None and version == deployment.rollout.candidate:
        return "candidate"
    if deployment.shadows_of(version):
        return "shadow"
    return "previous" if version == deployment.previous else None


def version_table(shown: Version) -> Table:
    """One version with the summary of its manifest."""
    release, manifest = shown.release, shown.manifest
    rows = [
        ("version", str(shown.name)),
        ("digest", release.digest),
        ("standing", release.standing.value),
        ("role", _role(shown.deployment, release.version) or NOTHING),
        ("released", f"{utc(release.time)} by {release.actor}, revision {release.revision}"),
        ("reason", release.reason or NOTHING),
        *_bundle_rows(manifest),
        *_evidence_rows(manifest),
    ]
    table = Table.grid(padding=(0, 2))
    for name, value in rows:
        table.add_row(Text(name, style="bold"), Text(value))
    return table


def _bundle_rows(manifest: Manifest) -> Iterator[tuple[str, str]]:
    """What the bundle holds, reads and gives."""
    size = sum(file.size for file in manifest.files.values())
    yield "trained", utc(manifest.created_at)
    yield "files", f"{len(manifest.files)}, {size:,} bytes"
    yield "inputs", ", ".join(field.name for field in manifest.contract.fields)
    yield "outputs", ", ".join(output.name for output in manifest.contract.outputs)
    if horizon := manifest.contract.horizon:
        until = f"{horizon.first} … {horizon.last}, then {horizon.beyond} ({horizon.field})"
        yield "horizon", until


def _evidence_rows(manifest: Manifest) -> Iterator[tuple[str, str]]:
    """How good it is, and what it was made from."""
    if holdout := manifest.holdout:
        yield "holdout", f"{holdout.first} … {holdout.last}, {holdout.rows:,} rows"
        for predictor, metrics in holdout.metrics.items():
            yield (
                f"  {predictor}",
                "  ".join(f"{name} {score:.4g}" for name, score in metrics.items()),
            )
    if parity := manifest.parity:
        yield (
            "parity",
            f"{parity.max_difference:.3g} in {parity.space} over {parity.rows:,} rows "
            f"(limit {parity.limit:g})",
        )
    if lineage := manifest.lineage:
        for source in lineage.sources:
            yield "data", f"{source.name} {source.digest}"
        yield "training", f"preset {lineage.preset}, seed {lineage.seed}"
        yield "cutoff", lineage.cutoff
        yield "code", lineage.git_commit or NOTHING


def version_object(shown: Version) -> dict[str, Any]:
    """One version with its whole manifest."""
    return {
        "model": shown.name.model,
        **_release_object(shown.deployment, shown.name.version),
        "manifest": shown.manifest,
    }
