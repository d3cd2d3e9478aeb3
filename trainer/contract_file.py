"""The contract file: what a model from another tool reads and gives, as its maker writes it by hand.

    model = "demand"

    [matrix.input]                                   # the graph's input, and the fields in its columns
    columns = ["lag_7", "mean_28", "price", "promo"]

    [fields.promo]                                   # only where there is more to say than the name
    type = "int64"
    allowed = [0, 1]

    [outputs.sales]
    tensor = "variable"
    unit = "pieces"

Rules:

1. It is TOML with the keys of ``ContractFile``; unknown keys are refused, so that a misspelt one is
   never silently ignored.
2. What the graph knows need not be said: which tensor, of which element type. Where it is said, it must
   be true. Both are ``trainer.binding``'s, which makes a ``schemas.contract.Contract`` of this.
3. A field with a default is optional unless it says ``required``.
4. Every problem names the file, the line and the key. A key that is not in the file has no line: the
   line is that of the nearest table around it, or 1.
"""

from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Annotated

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    StringConstraints,
    ValidationError,
)
from pydantic_core import ErrorDetails

from schemas.contract import Beyond, FieldType, TensorType
from schemas.errors import NotFound, UsageProblem
from trainer.toml_lines import Key, line_of, parse_toml
from trainer.toml_problems import problems_by_key, read_toml_text, said_of

EXAMPLE = "docs/how-to/bring-your-own-model.md"


def _iso(value: object) -> object:
    """TOML has dates of its own; a contract writes them as text."""
    is_day = isinstance(value, date) and not isinstance(value, datetime)
    return value.isoformat() if isinstance(value, date) and is_day else value


Number = StrictInt | StrictFloat
Value = Annotated[StrictStr | StrictInt | StrictFloat | StrictBool, BeforeValidator(_iso)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FieldTable(_Table):
    """``[fields.NAME]``: the keys of ``schemas.contract.Field``, all of which may be left out.

    ``tensor`` is the graph's input of the field's own name where nothing is said, ``dtype`` and
    ``type`` what that input takes. A member of a ``[matrix.…]`` has its tensor and column from there.
    """

    type: FieldType | None = None
    tensor: str | None = None
    dtype: TensorType | None = None
    column: StrictInt | None = None
    description: str = ""
    unit: str = ""
    required: bool | None = None
    default: Value | None = None
    nullable: bool = False
    null_as: Value | None = None
    minimum: Number | None = None
    maximum: Number | None = None
    allowed: tuple[StrictStr | StrictInt, ...] | None = None
    max_length: StrictInt = 256


class MatrixTable(_Table):
    """``[matrix.INPUT]``: the fields in the columns of one input ``[N, k]``, in the graph's order."""

    columns: Annotated[tuple[str, ...], Field(min_length=1)]
    dtype: TensorType | None = None


class OutputTable(_Table):
    """``[outputs.NAME]``: the keys of ``schemas.contract.Output``, all of which may be left out.

    ``tensor`` is the graph's output of that name, or its only one. ``actual`` is a column of the golden
    data: what came, that the output is measured by (``trainer.foreign_evidence``).
    """

    tensor: str | None = None
    type: FieldType | None = None
    column: StrictInt | None = None
    description: str = ""
    unit: str = ""
    actual: StrictStr | None = None


class HorizonTable(_Table):
    """``[horizon]``: the days that the model can answer for, both included."""

    field: str
    first: date
    last: date
    beyond: Beyond = Beyond.REJECT


class ContractFile(_Table):
    """The whole file."""

    model: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,62}$")]
    outputs: Annotated[dict[str, OutputTable], Field(min_length=1)]
    fields: dict[str, FieldTable] = {}
    matrix: dict[str, MatrixTable] = {}
    horizon: HorizonTable | None = None
    max_request_bytes: StrictInt = 65_536


@dataclass(frozen=True)
class WrittenContract:
    """A contract file together with where it lay: ``text`` is the file as written."""

    path: Path
    text: str
    tables: ContractFile

    @property
    def actuals(self) -> dict[str, str]:
        """The column of actuals for each output that names one."""
        tables = self.tables.outputs.items()
        return {name: each.actual for name, each in tables if each.actual is not None}

    def where(self, *key: str) -> str:
        """``file:line: key`` of a setting, for a message about it."""
        return _where(self.path, self.text, key)


def load_contract_file(path: Path) -> WrittenContract:
    """The contract file at ``path``. Raises NotFound, or UsageProblem with every line that is wrong."""
    try:
        text = read_toml_text(path, "a contract file")
    except FileNotFoundError:
        raise NotFound(f"no contract file at {path}", hint=f"{EXAMPLE} shows one") from None
    except OSError as error:
        raise UsageProblem(
            f"{path} cannot be read: {error.strerror or error}",
            hint="a contract file is a TOML file; name it, and check its rights",
        ) from error
    return WrittenContract(path, text, _parse(path, text))


def _parse(path: Path, text: str) -> ContractFile:
    tree = parse_toml(path, text, hint="mend the line and try again")
    try:
        return ContractFile.model_validate(tree)
    except ValidationError as error:
        found = problems_by_key(tree, error.errors())
        lines = [_describe(path, text, key, problems) for key, problems in found.items()]
        raise UsageProblem("\n".join(lines), hint=f"compare it with {EXAMPLE}") from error


_KEYS_OF: dict[str, type[_Table]] = {
    "fields": FieldTable,
    "matrix": MatrixTable,
    "outputs": OutputTable,
    "horizon": HorizonTable,
}


def _describe(path: Path, text: str, key: Key, problems: list[ErrorDetails]) -> str:
    said = said_of(problems)
    if problems[0]["type"] == "extra_forbidden":
        table = _KEYS_OF[key[0]] if len(key) > 1 else ContractFile
        kind = f"[{'.'.join(key[:-1])}]" if len(key) > 1 else "a contract file"
        said = f"is no key of {kind}; the keys are {', '.join(table.model_fields)}"
        if len(key) > 1 and key[-1] in ContractFile.model_fields:
            said += f". `{key[-1]}` of the whole contract comes before the first table"
    return f"{_where(path, text, key)} {said}"


def _where(path: Path, text: str, key: Key) -> str:
    return f"{path}:{line_of(text, key)}: {'.'.join(key)}"
