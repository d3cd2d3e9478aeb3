"""What people and programs see of releases and rollouts: sentences, tables, and JSON objects.

Every JSON object that is written here is a contract with scripts: keys are added, never renamed.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import msgspec
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from adapters.fleet_topic import Sighting
from deployment.state import Deployment, short_hash
from publisher.commands import Appended
from publisher.releases import Version
from publisher.rollouts import Status
from schemas.events import (
    EventData,
    ModelReleased,
    ModelRestored,
    ModelRetired,
    ModelRevoked,
    Recorded,
    RolloutAborted,
    RolloutPromoted,
    RolloutShifted,
    RolloutStarted,
)

NOTHING = "–"


def as_json(value: object, *, one_line: bool = False) -> str:
    """JSON text of plain values and structs, indented unless it must be one line."""
    compact = msgspec.json.encode(value)
    return (compact if one_line else msgspec.json.format(compact, indent=2)).decode()


def what_happened(model: str, recorded: Recorded) -> str:
    """One event as a sentence without its end, for the history."""
    match recorded.data:
        case ModelReleased(version=version, digest=digest):
            return f"released {model}:{version} ({short_hash(digest)})"
        case ModelRevoked(version=version):
            return f"revoked {model}:{version}"
        case ModelRetired(version=version):
            return f"retired {model}:{version}"
        case RolloutStarted(candidate=version, strategy=strategy):
            return f"started a {strategy} rollout of {model}:{version}"
        case RolloutShifted(rollout=rollout, weight=weight):
            return f"rollout {rollout} answers {weight / 100:g} %"
        case RolloutPromoted(version=version):
            return f"made {model}:{version} champion"
        case RolloutAborted(rollout=rollout):
            return f"aborted rollout {rollout}"
        case ModelRestored(version=version, replaced=replaced):
            return f"restored {model}:{version} in place of {model}:{replaced}"
        case _:
            return f"{recorded.event.type} (this modelwire does not know it)"


def appended_line(appended: Appended) -> str:
    """What a command did, as one line: ``sales:2 released (revision 4), champion since revision 6``."""
    parts = []
    for recorded in appended.events:
        revision = recorded.event.revision
        match recorded.data:
            case ModelReleased(version=version):
                parts.append(f"{appended.model}:{version} released (revision {revision})")
            case RolloutStarted(candidate=version) if not parts:
                parts.append(f"{appended.model}:{version} rolled out (revision {revision})")
            case RolloutPromoted():
                parts.append(f"champion since revision {revision}")
            case ModelRestored(version=version, replaced=replaced):
                parts.append(
                    f"{appended.model}:{version} champion again since revision {revision}, "
                    f"in place of {appended.model}:{replaced}"
                )
            case ModelRevoked(version=version):
                parts.append(f"{appended.model}:{version} revoked (revision {revision})")
            case ModelRetired(version=version):
                parts.append(f"{appended.model}:{version} retired (revision {revision})")
            case RolloutAborted(rollout=rollout):
                parts.append(f"rollout {rollout} aborted (revision {revision})")
    return ", ".join(parts)


def appended_object(appended: Appended) -> dict[str, Any]:
    """What a command did, for programs. ``version`` is the last that it put in or out of service."""
    last = appended.events[-1]
    versions = [
        version for each in appended.events if (version := _version_in(each.data)) is not None
    ]
    digests = [each.data.digest for each in appended.events if isinstance(each.data, ModelReleased)]
    return {
        "model": appended.model,
        "version": versions[-1] if versions else None,
        "digest": digests[0] if digests else None,
        "revision": last.event.revision,
        "commandid": last.event.commandid,
        "actor": last.event.actor,
        "appended_at": last.event.time,
        "seconds": round(appended.seconds, 3),
        "events": [_event_object(each) for each in appended.events],
    }


def _version_in(data: EventData | None) -> int | None:
    match data:
        case RolloutStarted(candidate=version):
            return version
        case (
            ModelReleased(version=version)
            | ModelRevoked(version=version)
            | ModelRetired(version=version)
            | RolloutPromoted(version=version)
            | ModelRestored(version=version)
        ):
            return version
        case _:
            return None


def _event_object(recorded: Recorded) -> dict[str, Any]:
    event = recorded.event
    return {
        "revision": event.revision,
        "type": event.type,
        "time": event.time,
        "actor": event.actor,
        "commandid": event.commandid,
        "hash": recorded.hash,
        "data": event.data,
    }


def releases_table(deployment: Deployment) -> Table:
    """Every version, the newest first."""
    table = _table("version", "digest", "standing", "role", "released", "by", "reason")
    for release in sorted(deployment.releases.values(), key=lambda r: -r.version):
        table.add_row(
            Text(f"{deployment.model}:{release.version}"),
            Text(release.digest),
            Text(release.standing),
            _role(deployment, release.version) or NOTHING,
            _utc(release.time),
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
    return "previous" if version == deployment.previous else None


def version_table(shown: Version) -> Table:
    """One version with the summary of its manifest."""
    release, manifest = shown.release, shown.manifest
    table = Table.grid(padding=(0, 2))
    size = sum(file.size for file in manifest.files.values())
    rows = [
        ("version", str(shown.name)),
        ("digest", release.digest),
        ("standing", release.standing.value),
        ("role", _role(shown.deployment, release.version) or NOTHING),
        ("released", f"{_utc(release.time)} by {release.actor}, revision {release.revision}"),
        ("reason", release.reason or NOTHING),
        ("trained", _utc(manifest.created_at)),
        ("files", f"{len(manifest.files)}, {size:,} bytes"),
        ("inputs", ", ".join(field.name for field in manifest.contract.fields)),
        ("outputs", ", ".join(output.name for output in manifest.contract.outputs)),
    ]
    if horizon := manifest.contract.horizon:
        rows.append(
            (
                "horizon",
                f"{horizon.first} … {horizon.last}, then {horizon.beyond} ({horizon.field})",
            )
        )
    if holdout := manifest.holdout:
        rows.append(("holdout", f"{holdout.first} … {holdout.last}, {holdout.rows:,} rows"))
        for predictor, metrics in holdout.metrics.items():
            scores = "  ".join(f"{name} {score:.4g}" for name, score in metrics.items())
            rows.append((f"  {predictor}", scores))
    if parity := manifest.parity:
        rows.append(
            (
                "parity",
                f"{parity.max_difference:.3g} in {parity.space} over {parity.rows:,} rows "
                f"(limit {parity.limit:g})",
            )
        )
    if lineage := manifest.lineage:
        rows += [("data", f"{source.name} {source.digest}") for source in lineage.sources]
        rows.append(("training", f"preset {lineage.preset}, seed {lineage.seed}"))
        rows.append(("cutoff", lineage.cutoff))
        rows.append(("code", lineage.git_commit or NOTHING))
    for name, value in rows:
        table.add_row(Text(name, style="bold"), Text(value))
    return table


def version_object(shown: Version) -> dict[str, Any]:
    """One version with its whole manifest."""
    return {
        "model": shown.name.model,
        **_release_object(shown.deployment, shown.name.version),
        "manifest": shown.manifest,
    }


def history_table(model: str, events: Iterable[Recorded]) -> Table:
    """Who did what, when and why, the oldest first."""
    table = _table("revision", "time", "who", "what", "why")
    for recorded in events:
        event = recorded.event
        table.add_row(
            str(event.revision),
            _utc(event.time),
            Text(event.actor),
            Text(what_happened(model, recorded)),
            Text(_reason(recorded.data)),
        )
    return table


def history_object(model: str, events: Iterable[Recorded]) -> dict[str, Any]:
    """The same, as events."""
    return {
        "model": model,
        "events": [
            {
                **_event_object(recorded),
                "what": what_happened(model, recorded),
                "reason": _reason(recorded.data),
            }
            for recorded in events
        ],
    }


def _reason(data: EventData | None) -> str:
    reason = getattr(data, "reason", "")
    return str(reason)


def status_line(status: Status) -> str:
    """The rollout in one line; it changes only when something does."""
    deployment = status.deployment
    if deployment.champion is None:
        return f"{deployment.model} revision {deployment.revision}: no champion yet"
    return (
        f"{deployment.model} revision {deployment.revision}: champion "
        f"{deployment.model}:{deployment.champion}, served by {status.serving} of {status.alive} "
        "live instances"
    )


def status_view(status: Status) -> RenderableType:
    """The rollout and the fleet, a row for each instance."""
    deployment = status.deployment
    head = [Text(status_line(status), style="bold")]
    if deployment.previous is not None:
        head.append(Text(f"previous {deployment.model}:{deployment.previous}"))
    if rollout := deployment.rollout:
        head.append(
            Text(
                f"rollout {rollout.revision}: {deployment.model}:{rollout.candidate}, "
                f"{rollout.strategy}, answers {rollout.weight / 100:g} %"
            )
        )
    if not status.fleet:
        start_one = f"modelwire consume --model {deployment.model}"
        return Group(*head, Text(f"no instance has announced itself; start one: {start_one}"))
    columns = ("instance", "phase", "champion", "revision", "prepared", "partitions", "rate")
    table = _table(*columns, "days left", "seen", "detail")
    for sighting in status.fleet:
        table.add_row(*_instance_row(sighting), style="" if sighting.alive else "dim")
    return Group(*head, table)


def _instance_row(sighting: Sighting) -> list[str | Text]:
    said = sighting.status
    refused = "; ".join(f"refused {r.version} ({r.rung}): {r.reason}" for r in said.refused)
    return [
        Text(said.instance),
        said.phase.value if sighting.alive else "lost",
        NOTHING if said.champion is None else str(said.champion),
        str(said.revision),
        ",".join(map(str, said.prepared)) or NOTHING,
        _ranges(said.partitions) or NOTHING,
        f"{said.rate:,.0f}/s",
        _days_left(said.horizon_days_left),
        f"{sighting.age_seconds:.0f} s ago",
        Text("; ".join(part for part in (said.detail, refused) if part)),
    ]


def _days_left(days: int | None) -> str:
    """Days to the end of the champion's horizon; a horizon that is over answers nothing new."""
    if days is None:
        return NOTHING
    return str(days) if days >= 0 else f"over for {-days}"


def status_object(status: Status) -> dict[str, Any]:
    """The rollout and the fleet, for programs."""
    deployment = status.deployment
    rollout = deployment.rollout
    return {
        "model": deployment.model,
        "revision": deployment.revision,
        "champion": deployment.champion,
        "champion_since": status.champion_since,
        "previous": deployment.previous,
        "rollout": rollout
        and {
            "revision": rollout.revision,
            "candidate": rollout.candidate,
            "strategy": rollout.strategy,
            "weight": rollout.weight,
        },
        "alive": status.alive,
        "serving": status.serving,
        "instances": [
            {
                **msgspec.to_builtins(sighting.status),
                "alive": sighting.alive,
                "age_seconds": round(sighting.age_seconds, 3),
            }
            for sighting in status.fleet
        ],
    }


def _utc(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%SZ}"


def _ranges(numbers: Iterable[int]) -> str:
    """``0-3,7`` for 0, 1, 2, 3 and 7."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)


_LONG = ("instance", "detail", "digest", "reason", "what", "why")
"""Columns that fold where the terminal is narrow; the others keep their width."""


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column not in _LONG)
    return table
