"""The instances of a fleet as people see them: a row for each, and below what does not fit into one.

A fleet that computes with one runtime says so once; where instances differ, each says its own.
"""

from collections.abc import Iterator, Sequence

from rich.table import Table
from rich.text import Text

from adapters.fleet_topic import Sighting
from adapters.layout import NOTHING, new_table, ranges
from schemas.fleet import InstanceStatus, Runtime


def instances_table(fleet: Sequence[Sighting]) -> Table:
    """Every instance that has not stopped cleanly; a lost one is dim."""
    columns = ("instance", "phase", "revision", "champion", "prepared", "partitions", "rate", "lag")
    table = new_table(*columns, "days", "seen")
    for sighting in fleet:
        table.add_row(*_cells(sighting), style="" if sighting.alive else "dim")
    return table


def _cells(sighting: Sighting) -> list[str | Text]:
    said = sighting.status
    return [
        Text(said.instance),
        said.phase.value if sighting.alive else "lost",
        str(said.revision),
        NOTHING if said.champion is None else str(said.champion),
        ",".join(map(str, said.prepared)) or NOTHING,
        ranges(said.partitions) or NOTHING,
        f"{said.rate:,.0f}/s",
        NOTHING if said.lag is None else f"{said.lag:,}",
        days_left_text(said.horizon_days_left),
        f"{sighting.age_seconds:.0f}s ago",
    ]


def remarks(fleet: Sequence[Sighting]) -> list[Text]:
    """What instances say of themselves beyond the row: why they wait, what they refused, and where
    they differ in it their runtime."""
    differ = not shared_runtime(fleet)
    return [
        Text(f"{sighting.status.instance}: {remark}")
        for sighting in fleet
        for remark in _remarks(sighting.status, differ=differ)
    ]


def _remarks(said: InstanceStatus, *, differ: bool) -> Iterator[str]:
    if said.detail:
        yield said.detail
    for refused in said.refused:
        yield f"refused {refused.version} ({refused.rung}): {refused.reason}"
    if differ:
        yield runtime_text(said.runtime)


def days_left_text(days: int | None) -> str:
    """Days to the end of the champion's horizon; a horizon that is over answers nothing new."""
    if days is None:
        return NOTHING
    return str(days) if days >= 0 else f"over for {-days}"


def runtime_text(runtime: Runtime) -> str:
    """``onnxruntime 1.31.0, opset 23, IR 11, x86_64-avx2``; what is not known is left out."""
    parts = [f"onnxruntime {runtime.onnxruntime}"]
    if opset := runtime.opsets.get("ai.onnx"):
        parts.append(f"opset {opset}")
    if runtime.ir_version:
        parts.append(f"IR {runtime.ir_version}")
    return ", ".join([*parts, runtime.numeric_class])


def shared_runtime(fleet: Sequence[Sighting]) -> str:
    """The runtime of the whole fleet; empty where instances differ, or there is none."""
    kinds = {runtime_text(sighting.status.runtime) for sighting in fleet}
    return kinds.pop() if len(kinds) == 1 else ""
