"""What a chaos run came to: its figures, and whether everything is as it must be."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from modelwire.checker import Kind, Report
from tests.chaos.schedule import Sizes

STRIKING = ("stops", "store_faults", "full_disks", "joins", "flood")
"""Kinds of faults that may come and hit nothing. One of each kind has to strike; ``campaign`` says what
that is. Not all have to: which process is where when a fault comes is for the machine."""

NEVER_COUNTED = {"store_faults": 1}
"""The first fault of the store is that it is down, and nobody counts refused connections."""


@dataclass(frozen=True)
class Outcome:
    """What a run came to."""

    sizes: Sizes
    seed: int
    schedule: str
    """Its digest."""
    report: Report
    seen: Counter[str]
    rederived: int
    rederived_wrong: tuple[str, ...]
    wrongly_rejected: int
    poisoned: int
    problems: tuple[str, ...]
    seconds: float

    @property
    def clean(self) -> bool:
        """Whether every request has its one right answer, and the schedule was carried out."""
        return not self.as_json()["problems"]

    def as_json(self) -> dict[str, Any]:
        """The figures, and what is wrong in sentences."""
        report = self.report
        counts = {kind.value: getattr(report, kind) for kind in Kind}
        return {
            "requests": report.requests,
            "answered": report.requests - report.lost,
            **counts,
            "kills": self.seen["kills"],
            "broker_kills": self.seen["broker_kills"],
            "seed": self.seed,
            "schedule": self.schedule,
            "forecasts": report.forecasts,
            "rejections": report.rejections,
            "poisoned": self.poisoned,
            "wrongly_rejected": self.wrongly_rejected,
            "rederived": self.rederived,
            "rederived_wrong": len(self.rederived_wrong),
            "versions": len(report.versions),
            "seen": dict(sorted(self.seen.items())),
            "sizes": asdict(self.sizes),
            "seconds": round(self.seconds, 1),
            "problems": [*self._problems()],
        }

    def _problems(self) -> Iterator[str]:
        report, sizes = self.report, self.sizes
        yield from self.problems
        if report.control_problem:
            yield report.control_problem
        yield from (f"{found.kind}: {found.sentence}" for found in report.findings)
        if not report.clean and not report.findings:
            yield "the checker has found something"
        if report.requests != sizes.requests:
            yield f"{report.requests} of {sizes.requests} requests were sent"
        if report.rejections != self.poisoned or self.wrongly_rejected:
            yield (
                f"{report.rejections} rejections of {self.poisoned} poisoned requests; "
                f"{self.wrongly_rejected} requests were rejected that are good"
            )
        yield from (f"not to the bit: {found}" for found in self.rederived_wrong[:3])
        for name in ("kills", "broker_kills"):
            if self.seen[name] != getattr(sizes, name):
                yield f"{self.seen[name]} {name} of {getattr(sizes, name)}"
        for name in STRIKING:
            scheduled = getattr(sizes, name)
            if scheduled > NEVER_COUNTED.get(name, 0) and not self.seen[f"{name}_struck"]:
                yield f"{name}: {scheduled} scheduled, and none struck anything"
