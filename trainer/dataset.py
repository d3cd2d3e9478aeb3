"""The dataset configuration: which panel to read, and what its columns mean.

Rules:

1. It is a TOML file with the keys of ``Dataset``; unknown keys are refused, so that a misspelt one
   is never silently ignored.
2. ``source`` is a Parquet file, relative to the folder of the TOML file.
3. Every problem names the file, the line and the key. A key that is missing has no line: the line
   is that of its table, or 1.

Reading the source and judging its content is ``trainer.panel``'s.
"""

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails

from schemas.contract import NAME_PATTERN
from schemas.errors import NotFound, UsageProblem

SALES, KNOWN_SERIES, IN_HORIZON = "sales", "known_series", "in_horizon"
OUTPUTS = (SALES, KNOWN_SERIES, IN_HORIZON)
"""What every model of a panel answers; no key can have such a name."""

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Days = Annotated[int, Field(ge=1, le=3660, strict=True)]


class Dataset(BaseModel):
    """A panel of daily sales: one target a day for each series, a series being a tuple of keys.

    ``keys`` maps a key column to its one-line description; its order is the order of the fields in
    a request. ``horizon`` is the days after the cutoff that the model answers for, ``holdout`` the
    last days of the panel that training never sees (at most ``horizon``, so that the model can
    answer for them). A series is known when it sold on at least ``min_days`` of the last
    ``recent_days`` days before the cutoff; others are answered from the rows for unknown keys.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Text
    model: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,62}$")]
    source: Text
    licence: Text
    attribution: Text
    date: Text
    target: Text
    unit: Text
    horizon: Days
    holdout: Days
    min_days: Days
    recent_days: Days
    keys: Annotated[dict[str, Text], Field(min_length=1, max_length=4)]

    @field_validator("date", "keys")
    @classmethod
    def _can_be_fields(cls, value: str | dict[str, str]) -> str | dict[str, str]:
        for name in [value] if isinstance(value, str) else value:
            if not re.match(NAME_PATTERN, name):
                raise ValueError(f"names a field {name!r}, which does not match {NAME_PATTERN}")
            if name in OUTPUTS:
                raise ValueError(f"names a field {name!r}, which is the name of an output")
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.holdout > self.horizon:
            raise ValueError(
                f"holdout is {self.holdout} days and horizon {self.horizon}; "
                "the model must be able to answer for every held-out day"
            )
        if self.min_days > self.recent_days:
            raise ValueError(
                f"min_days is {self.min_days} and recent_days {self.recent_days}; "
                "no series could ever be known"
            )
        columns = [self.date, self.target, *self.keys]
        repeated = sorted({column for column in columns if columns.count(column) > 1})
        if repeated:
            raise ValueError(f"column {repeated[0]!r} is used for more than one purpose")
        return self


@dataclass(frozen=True)
class DatasetFile:
    """A dataset configuration together with where it lay: ``text`` is the file as written."""

    path: Path
    text: str
    dataset: Dataset

    @property
    def source(self) -> Path:
        """The Parquet file of the panel."""
        return self.path.parent / self.dataset.source

    def where(self, *key: str) -> str:
        """``file:line: key`` of a key, for messages about what that key points at."""
        return f"{self.path}:{_line_of(self.text, key)}: {'.'.join(key)}"


def shipped_datasets() -> Path:
    """The folder of the datasets that come with the project, in a clone or an installed package."""
    installed = Path(__file__).parent / "datasets"
    return installed if installed.is_dir() else Path(__file__).parent.parent / "datasets"


def load_dataset(path: Path) -> DatasetFile:
    """The configuration at ``path``, or the shipped one that ``datasets/<name>.toml`` names.

    Raises NotFound where there is no such file, UsageProblem where it is not a dataset.
    """
    if not path.exists() and str(path.parent) in (".", "datasets"):
        shipped = shipped_datasets() / path.name
        path = shipped if shipped.exists() else path
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise NotFound(
            f"no dataset configuration at {path}",
            hint=f"datasets that come with modelwire are in {shipped_datasets()}",
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageProblem(
            f"{path} cannot be read as text: {error}",
            hint="a dataset configuration is a TOML file in UTF-8",
        ) from error
    return DatasetFile(path=path, text=text, dataset=_parse(path, text))


def _parse(path: Path, text: str) -> Dataset:
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        what, line = _toml_problem(str(error), text)
        raise UsageProblem(
            f"{path}:{line}: not valid TOML: {what}", hint="mend the line and train again"
        ) from error
    try:
        return Dataset.model_validate(tree)
    except ValidationError as error:
        lines = [_describe(path, text, problem) for problem in error.errors()]
        raise UsageProblem(
            "\n".join(lines),
            hint=f"compare it with {shipped_datasets() / 'online_retail.toml'}",
        ) from error


def _toml_problem(message: str, text: str) -> tuple[str, int]:
    """What tomllib found and in which line; it gives the place only inside its message."""
    found = re.search(r" \(at line (\d+), column \d+\)$", message)
    if found:
        return message[: found.start()], int(found[1])
    return message.removesuffix(" (at end of document)"), text.count("\n") + 1


def _describe(path: Path, text: str, problem: ErrorDetails) -> str:
    key = tuple(str(part) for part in problem["loc"] if part != "[key]")
    match problem["type"]:
        case "missing":
            said = "is missing"
        case "extra_forbidden":
            said = f"is not a key of a dataset; the keys are {', '.join(Dataset.model_fields)}"
        case "value_error":
            said = str(problem["msg"]).removeprefix("Value error, ")
        case _:
            said = f"{problem['msg']}, found {problem['input']!r}"
    name = ".".join(key)
    return f"{path}:{_line_of(text, key)}: {name + ' ' if name else ''}{said}"


def _line_of(text: str, key: tuple[str, ...]) -> int:
    """The 1-based line that sets ``key`` in TOML text, else that of its table, else 1."""
    table: tuple[str, ...] = ()
    best = 1
    for number, line in enumerate(text.splitlines(), start=1):
        header = re.match(r"\s*\[([^\[\]]+)\]", line)
        if header:
            table = tuple(part.strip(" \t\"'") for part in header[1].split("."))
            if table == key[: len(table)]:
                best = number
            continue
        setting = re.match(r"""\s*["']?([\w.-]+)["']?\s*=""", line)
        if setting and key and (*table, *setting[1].split(".")) == key:
            return number
    return best
