"""What the checker reads and what it says: records, kinds of faults, the report."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class Kind(StrEnum):
    """What can be wrong. The values are the report's fields."""

    LOST = "lost"
    DOUBLED = "doubled"
    REVISION_REGRESSION = "revision_regressions"
    WRONG_ECHO = "wrong_echo"
    WRONG_VERSION = "wrong_version"
    WRONG_PARTITION = "wrong_partition"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Record:
    """A Kafka record. ``timestamp`` is in milliseconds since 1970 (UTC)."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}/{self.offset}"


@dataclass(frozen=True)
class Finding:
    """One example of what is wrong, with the place where it can be looked up."""

    kind: Kind
    sentence: str


@dataclass(frozen=True)
class Report:
    """The counts. ``versions`` maps a version to its forecasts; ``control_problem`` is empty or says
    why the control log cannot be trusted."""

    requests: int
    forecasts: int
    rejections: int
    lost: int
    doubled: int
    revision_regressions: int
    wrong_echo: int
    wrong_version: int
    wrong_partition: int
    unknown: int
    versions: Mapping[int, int]
    version_checked: bool
    share_unchecked: bool
    control_problem: str
    findings: tuple[Finding, ...]

    @property
    def clean(self) -> bool:
        """Nothing is wrong."""
        return not self.control_problem and not any(getattr(self, kind) for kind in Kind)

    def as_json(self) -> dict[str, Any]:
        """The report as a JSON object, with ``clean``."""
        return asdict(self) | {"clean": self.clean}
