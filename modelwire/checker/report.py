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
    WRONG_VARIANT = "wrong_variant"
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
class Tally:
    """A number for each variant."""

    champion: int
    candidate: int

    @property
    def total(self) -> int:
        """Of both."""
        return self.champion + self.candidate

    @property
    def share(self) -> float:
        """The candidate's part, 0 … 1; of nothing it is 0."""
        return self.candidate / self.total if self.total else 0.0


@dataclass(frozen=True)
class Share:
    """What was seen of one split: the rollout (by the revision that started it) at one weight.

    ``version`` is the candidate, ``weight`` its share to be, in basis points. ``answers`` counts the
    answers of each variant. ``keys`` counts the distinct keys among them, or the request ids where
    there is no key: all of them where ``one_in`` is 1, else a uniform sample of one in so many. A
    key that both variants answered counts for both.
    """

    rollout: int
    version: int
    weight: int
    answers: Tally
    keys: Tally
    one_in: int


@dataclass(frozen=True)
class Report:
    """The counts. ``versions`` maps a version to its forecasts; ``variant_unchecked`` counts answers
    whose variant could not be judged; ``control_problem`` is empty or says why the control log cannot
    be trusted."""

    requests: int
    forecasts: int
    rejections: int
    lost: int
    doubled: int
    revision_regressions: int
    wrong_echo: int
    wrong_version: int
    wrong_variant: int
    wrong_partition: int
    unknown: int
    versions: Mapping[int, int]
    version_checked: bool
    variant_unchecked: int
    shares: tuple[Share, ...]
    control_problem: str
    findings: tuple[Finding, ...]

    @property
    def clean(self) -> bool:
        """Nothing is wrong."""
        return not self.control_problem and not any(getattr(self, kind) for kind in Kind)

    def as_json(self) -> dict[str, Any]:
        """The report as a JSON object, with ``clean``."""
        return asdict(self) | {"clean": self.clean}
