"""The dataset configuration: which panel to read, and what its columns mean.

Rules:

1. It is a TOML file with the keys of ``Dataset``; unknown keys are refused, so that a misspelt one
   is never silently ignored. Seven of them must be there, the others have defaults.
2. A source is a file, a glob, or a list of them, on this machine or at ``s3://``; what is relative
   is relative to the folder of the TOML file, or to the folder of data that the caller names.
3. Every problem names the file, the line and the key, in plain words (``trainer.toml_problems``). A
   key that is missing has no line: the line is that of its table, or 1.
4. What TOML writes after a ``[table]`` belongs to that table. A setting that strayed into one is
   refused by its line, where it can be told from a column of that name.

Finding the sources is ``trainer.sources``', reading them and judging their content is
``trainer.reading``'s.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
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
from schemas.evidence import BASELINES, MODEL
from schemas.manifest import ACTUAL, PREDICTION
from trainer.stray_settings import Settings, stray_settings, without
from trainer.toml_lines import Key, line_of, parse_toml
from trainer.toml_problems import NAME_RULE, AtKey, problems_by_key, read_toml_text, said_of

SALES, SALES_P10, SALES_P90 = "sales", "sales_p10", "sales_p90"
KNOWN_SERIES, IN_HORIZON = "known_series", "in_horizon"
OUTPUTS = (SALES, SALES_P10, SALES_P90, KNOWN_SERIES, IN_HORIZON)
HOLDOUT_COLUMNS = (ACTUAL, PREDICTION)
"""What every model of a panel answers, and columns of its held-out rows: no field can be called so."""

PREDICTORS = (MODEL, "structural-base", "trees", "trees-count", "ridge")
"""What the scores call a model and its contenders; a reference, like a baseline's, has another name."""


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
MOST_DAYS = 3_660
Days = Annotated[int, Field(ge=1, le=MOST_DAYS, strict=True)]
Where = Annotated[tuple[Text, ...], BeforeValidator(_listed), Field(min_length=1)]
"""A file, a glob, ``s3://bucket/key-or-glob``, or a list of them."""


class LossChoice(StrEnum):
    """What the training minimises: errors of log(1 + units), or of counts that are mostly 0."""

    LOG1P = "log1p"
    COUNT = "count"
    AUTO = "auto"
    """Whichever wins the backtest."""


class Negatives(StrEnum):
    """What a row with fewer than 0 units is: a mistake, or a return, which counts as 0."""

    REFUSE = "refuse"
    ZERO = "zero"


class Duplicates(StrEnum):
    """What several rows of one series and day are: parts of that day's sales, or a mistake."""

    SUM = "sum"
    REFUSE = "refuse"


class Attributes(BaseModel):
    """What is known of the values of one key: columns of a side table, or values given in line.

    In line, ``columns`` is the one name of the attribute, ``values`` gives it for values of the key,
    and ``otherwise`` for all others; without it they are unknown.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: Text
    columns: Annotated[tuple[Text, ...], Field(min_length=1)]
    source: Where | None = None
    values: dict[str, str | int | bool] | None = None
    otherwise: str | int | bool | None = None

    @model_validator(mode="after")
    def _has_one_origin(self) -> Self:
        if (self.source is None) == (self.values is None):
            raise ValueError("needs either a source or values")
        if self.values is not None and len(self.columns) != 1:
            raise ValueError("with values has one column, the name of the attribute")
        if self.otherwise is not None and self.values is None:
            raise ValueError("has otherwise, which goes with values alone")
        return self


class HolidayTable(BaseModel):
    """A side table with a row for each holiday; an empty name says that there is no such column.

    A row counts when its ``type`` is one of ``types`` and it was not ``transferred`` to another day.
    It is a holiday everywhere when its ``locale`` is ``everywhere``; else ``match`` names the
    attribute or key that its ``locale_name`` is a value of. Other locales are refused.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: Where
    date: Text = "date"
    type: str = "type"
    types: Annotated[tuple[Text, ...], Field(min_length=1)] = (
        "Holiday",
        "Additional",
        "Bridge",
        "Transfer",
    )
    locale: str = "locale"
    locale_name: str = "locale_name"
    transferred: str = "transferred"
    everywhere: Text = "National"
    match: dict[str, Text] = {}


class TrafficTable(BaseModel):
    """A side table with a number a day for each value of a key, such as a store's transactions."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: Where
    key: Text
    value: Text
    date: Text = "date"


class Dataset(BaseModel):
    """A panel of daily sales: one target a day for each series, a series being a tuple of keys.

    ``keys`` and ``covariates`` map a column to its one-line description; their order is the order
    of the fields in a request. ``horizon`` is the days after the cutoff that the model answers for,
    ``holdout`` the last days of the panel that training never sees where no cutoff is asked for (at
    most ``horizon``, which it is by default, so that the model can answer for them).

    A series is known when it sold on at least ``min_days`` of the last ``recent_days`` days before the
    cutoff (with 0, when it has a row there); others are answered from the rows for unknown keys.

    ``closed`` names the covariate that is 1 on days known to be closed, ``slices`` the keys and
    attributes that errors are broken down by, ``weights`` the factor of the series whose attribute is
    1 or true, and ``references`` maps a name to the column with somebody else's prediction.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Text
    model: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,62}$")]
    source: Where
    date: Text
    target: Text
    horizon: Days
    keys: Annotated[dict[str, Text], Field(min_length=1, max_length=4)]
    licence: str = ""
    attribution: str = ""
    unit: Text = "units"
    holdout: Days = Field(default_factory=lambda known: known["horizon"])
    min_days: Annotated[int, Field(ge=0, le=MOST_DAYS, strict=True)] = 1
    recent_days: Days = 182
    loss: LossChoice = LossChoice.LOG1P
    negatives: Negatives = Negatives.REFUSE
    duplicates: Duplicates = Duplicates.SUM
    closed: str = ""
    slices: tuple[Text, ...] = ()
    covariates: dict[str, Text] = {}
    attributes: tuple[Attributes, ...] = ()
    holidays: HolidayTable | None = None
    traffic: TrafficTable | None = None
    weights: dict[str, Annotated[float, Field(gt=0, le=1000)]] = {}
    references: dict[str, Text] = {}

    @property
    def attribute_keys(self) -> dict[str, str]:
        """The key that each attribute, by name, is one of."""
        return {name: each.key for each in self.attributes for name in each.columns}

    @field_validator("date", "keys", "covariates")
    @classmethod
    def _can_be_fields(cls, value: str | dict[str, str]) -> str | dict[str, str]:
        for name in [value] if isinstance(value, str) else value:
            if not re.match(NAME_PATTERN, name):
                raise ValueError(f"names a field {name!r}; the name of a field {NAME_RULE}")
            if name in (*OUTPUTS, *HOLDOUT_COLUMNS):
                raise ValueError(f"names a field {name!r}, which is a name of the bundle's own")
        return value

    @field_validator("references")
    @classmethod
    def _can_be_predictors(cls, value: dict[str, str]) -> dict[str, str]:
        for name in value:
            if name in PREDICTORS or name.startswith(BASELINES):
                raise ValueError(
                    f"calls a prediction {name!r}, as the scores call one of their own"
                )
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.holdout > self.horizon:
            raise AtKey(
                f"is {self.holdout} days and horizon {self.horizon}; the model must be able to answer "
                "for every held-out day",
                "holdout",
            )
        if self.min_days > self.recent_days:
            raise AtKey(
                f"is {self.min_days} and recent_days {self.recent_days}; no series could ever be known",
                "min_days",
            )
        used: dict[str, tuple[str, ...]] = {}
        for column, key in self._columns():
            first = used.setdefault(column, key)
            if first != key and {first[0], key[0]} != {"references"}:
                raise AtKey(
                    f"is column {column!r}, which is used for more than one purpose "
                    f"({'.'.join(first)} is it too)",
                    *key,
                )
        return self

    def _columns(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Each column of the panel's source, and the setting that names it."""
        yield self.date, ("date",)
        yield self.target, ("target",)
        yield from ((name, ("keys", name)) for name in self.keys)
        yield from ((name, ("covariates", name)) for name in self.covariates)
        yield from ((column, ("references", name)) for name, column in self.references.items())

    @model_validator(mode="after")
    def _names_what_is_there(self) -> Self:
        named = [(name, ("keys", name)) for name in self.keys]
        attributes = [
            (name, ("attributes", str(position), "columns"))
            for position, each in enumerate(self.attributes)
            for name in each.columns
        ]
        names: list[str] = []
        for name, key in [*named, *attributes]:
            if name in names:
                raise AtKey(f"{name!r} is the name of more than one key or attribute", *key)
            names.append(name)
        of_attributes = [name for name, _ in attributes]
        for kind, among, pointers in (
            ("key", [*self.keys], self._keyed()),
            ("covariate", [*self.covariates], [(self.closed, ("closed",))] * bool(self.closed)),
            ("key or attribute", names, [(name, ("slices",)) for name in self.slices]),
            ("attribute", of_attributes, [(name, ("weights", name)) for name in self.weights]),
            ("key or attribute", names, self._matched()),
        ):
            for name, key in pointers:
                if name not in among:
                    known = ", ".join(among) or "none"
                    raise AtKey(f"names {name!r}, which is no {kind} ({known})", *key)
        if len({self.attribute_keys.get(name, name) for name, _ in self._matched()}) > 1:
            raise AtKey("names attributes of more than one key", "holidays", "match")
        return self

    def _keyed(self) -> list[tuple[str, tuple[str, ...]]]:
        """The keys that side tables are about, and the settings that say so."""
        found: list[tuple[str, tuple[str, ...]]] = [
            (each.key, ("attributes", str(position), "key"))
            for position, each in enumerate(self.attributes)
        ]
        if self.traffic:
            found.append((self.traffic.key, ("traffic", "key")))
        return found

    def _matched(self) -> list[tuple[str, tuple[str, ...]]]:
        """The keys and attributes that holidays are matched by, and the settings that say so."""
        match = self.holidays.match if self.holidays else {}
        return [(name, ("holidays", "match", locale)) for locale, name in match.items()]


_TABLES: dict[str, type[BaseModel]] = {
    "attributes": Attributes,
    "holidays": HolidayTable,
    "traffic": TrafficTable,
}
_SETTINGS = Settings(
    names=Dataset.model_fields,
    required=[name for name, field in Dataset.model_fields.items() if field.is_required()],
    words={"loss": [*LossChoice], "negatives": [*Negatives], "duplicates": [*Duplicates]},
)


@dataclass(frozen=True)
class DatasetFile:
    """A dataset configuration together with where it lay.

    ``text`` is the file as written, ``root`` the folder that its relative sources lie in.
    """

    path: Path
    text: str
    dataset: Dataset
    root: Path

    @property
    def source(self) -> Path:
        """The file of a panel that is one file on this machine."""
        return self.root / self.dataset.source[0]

    def where(self, *key: str) -> str:
        """``file:line: key`` of a key, for messages about what that key points at."""
        return f"{self.path}:{line_of(self.text, key)}: {'.'.join(key)}"


def shipped_datasets() -> Path:
    """The folder of the datasets that come with the project, in a clone or an installed package."""
    installed = Path(__file__).parent / "datasets"
    return installed if installed.is_dir() else Path(__file__).parent.parent / "datasets"


def load_dataset(path: Path, data: Path | None = None) -> DatasetFile:
    """The configuration at ``path``, or the shipped one that ``datasets/<name>.toml`` names.

    ``data`` is the folder of its relative sources, where that is not the configuration's own.
    Raises NotFound where there is no such file, UsageProblem where it is not a dataset.
    """
    try:
        if not path.exists() and str(path.parent) in (".", "datasets"):
            shipped = shipped_datasets() / path.name
            path = shipped if shipped.exists() else path
        text = read_toml_text(path, "a dataset configuration")
    except FileNotFoundError:
        raise NotFound(
            f"no dataset configuration at {path}",
            hint=f"datasets that come with modelwire are in {shipped_datasets()}",
        ) from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        said = error.strerror if isinstance(error, OSError) else error
        raise UsageProblem(
            f"{str(path)[:200]} cannot be read: {said}",
            hint="a dataset configuration is a TOML file; name it, and check its rights",
        ) from error
    root = path.parent if data is None else data
    return DatasetFile(path=path, text=text, dataset=parse_dataset(path, text), root=root)


def parse_dataset(path: Path, text: str) -> Dataset:
    """The dataset that TOML text describes; messages name it as ``path``. Raises UsageProblem."""
    tree = parse_toml(path, text, hint="mend the line and train again")
    own = {name: table.model_fields for name, table in _TABLES.items()}
    strays = stray_settings(tree, _SETTINGS, own)
    lines = [f"{path}:{line_of(text, each.key)}: {each.said}" for each in strays]
    tree = without(tree, strays)
    try:
        dataset = Dataset.model_validate(tree)
    except ValidationError as error:
        found = problems_by_key(
            tree,
            # What the default of one setting could not be made of follows from another problem.
            (each for each in error.errors() if each["type"] != "default_factory_not_called"),
        )
        lines += [_describe(path, text, tree, key, of_key) for key, of_key in found.items()]
    if lines:
        like = shipped_datasets() / "online_retail.toml"
        raise UsageProblem("\n".join(lines), hint=f"compare it with {like}")
    return dataset


def _describe(
    path: Path, text: str, tree: dict[str, Any], key: Key, problems: list[ErrorDetails]
) -> str:
    said = said_of(problems)
    if problems[0]["type"] == "extra_forbidden":
        fields = _TABLES.get(key[0], Dataset).model_fields
        said = f"is not a key of a dataset; the keys are {', '.join(fields)}"
    elif problems[0]["type"] == "missing" and len(key) == 1:
        holding = (
            name for name in _TABLES if isinstance(tree.get(name), dict) and key[0] in tree[name]
        )
        for table in holding:
            line = line_of(text, (table, key[0]))
            said += f"; the one in line {line} is [{table}]'s, since it stands below that line"
    name = ".".join(key)
    return f"{path}:{line_of(text, key)}: {name + ' ' if name else ''}{said}"
