"""Binding: from a contract as written and a graph's signature to the contract of the bundle.

Rules:

1. What the file leaves out is taken from the graph: a field's tensor is the input of its name, its type
   the one that the tensor holds; an output's tensor is the output of its name, or the only one.
2. What the file says must be true of the graph: each input is filled, each tensor that is named is there,
   of the element type and the width that are stated.
3. An input ``[N, 1]`` that one field fills is a matrix of one column.
4. All that does not fit is told at once, each with file, line and key, what was found, and what was
   wanted. The rules of a contract itself are ``schemas.contract``'s; its first complaint is told so too.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from schemas.contract import (
    TENSORS_FOR,
    Binding,
    Contract,
    Field,
    FieldType,
    Horizon,
    Output,
    TensorType,
)
from schemas.errors import UsageProblem
from trainer.contract_file import FieldTable, OutputTable, WrittenContract
from trainer.signature import Signature, Tensor
from trainer.toml_lines import Key

_FIELD_TYPES = {
    TensorType.STRING: FieldType.STRING,
    TensorType.INT64: FieldType.INT64,
    TensorType.INT32: FieldType.INT64,
    TensorType.FLOAT64: FieldType.FLOAT64,
    TensorType.FLOAT32: FieldType.FLOAT32,
    TensorType.BOOL: FieldType.BOOL,
}
"""What a field is that fills a tensor of this type and says nothing of its own."""

_OUTPUT_TYPES = {
    TensorType.INT64: FieldType.INT64,
    TensorType.FLOAT64: FieldType.FLOAT64,
    TensorType.FLOAT32: FieldType.FLOAT32,
    TensorType.BOOL: FieldType.BOOL,
}


def bind(written: WrittenContract, graph: Signature) -> Contract:
    """The contract. Raises UsageProblem with every line of the file that does not fit the graph."""
    binder = _Binder(written, graph)
    fields = binder.fields()
    outputs = binder.outputs()
    if binder.problems:
        raise UsageProblem(
            "\n".join(dict.fromkeys(binder.problems)),
            hint=f"the graph reads {_listed(graph.inputs)}, and gives {_listed(graph.outputs)}; "
            "correct the contract file, or export the graph again",
        )
    horizon = written.tables.horizon
    try:
        return Contract(
            fields=tuple(fields),
            outputs=tuple(outputs),
            horizon=None if horizon is None else Horizon(**horizon.model_dump()),
            max_request_bytes=written.tables.max_request_bytes,
        )
    except ValueError as error:
        said = str(error)
        raise UsageProblem(
            f"{written.where(*_key_of(said, written))}: {said}",
            hint="schemas/contract.py states the rules of a contract",
        ) from error


@dataclass
class _Binder:
    """Collects problems while it makes the parts."""

    written: WrittenContract
    graph: Signature
    problems: list[str] = field(default_factory=list)

    def fields(self) -> list[Field]:
        tables = self.written.tables
        found = []
        members: set[str] = set()
        for tensor, matrix in tables.matrix.items():
            key = ("matrix", tensor, "columns")
            given = self._input(tensor, ("matrix", tensor))
            if given is None:
                members.update(matrix.columns)
                continue
            self._check_width(given, len(matrix.columns), key)
            self._check_dtype(given, matrix.dtype, ("matrix", tensor, "dtype"))
            for column, name in enumerate(matrix.columns):
                if name in members:
                    self._say(key, f"names {name!r} twice; each column is a field of its own")
                members.add(name)
                own = tables.fields.get(name, FieldTable())
                if own.tensor is not None or own.column is not None or own.dtype is not None:
                    self._say(
                        ("fields", name),
                        f"says tensor, column or dtype, and is in {'.'.join(key)} too; say it once",
                    )
                found.append(self._field(name, own, given, column))
        for name, own in tables.fields.items():
            if name not in members:
                found += self._field_of_its_own(name, own)
        self._check_all_filled({each.binding.tensor for each in found if each is not None})
        return [each for each in found if each is not None]

    def outputs(self) -> list[Output]:
        found = (self._output(name, own) for name, own in self.written.tables.outputs.items())
        return [each for each in found if each is not None]

    def _field_of_its_own(self, name: str, own: FieldTable) -> Iterator[Field | None]:
        key = ("fields", name) if own.tensor is None else ("fields", name, "tensor")
        given = self._input(own.tensor or name, key)
        if given is None:
            return
        self._check_dtype(given, own.dtype, ("fields", name, "dtype"))
        column = own.column
        if column is None and given.shape is not None and len(given.shape) == 2:
            if given.shape[1] == 1:
                column = 0
            else:
                self._say(
                    ("fields", name),
                    f"fills {given}, a matrix; say its column, or list all columns: "
                    f'[matrix.{given.name}] columns = ["…", "…"]',
                )
                return
        elif column is not None:
            others = self.written.tables.fields.items()
            filling = sum((each.tensor or of) == given.name for of, each in others)
            self._check_width(given, filling, ("fields", name, "column"))
        yield self._field(name, own, given, column)

    def _field(self, name: str, own: FieldTable, given: Tensor, column: int | None) -> Field | None:
        if given.dtype is None:
            return None  # told of the tensor
        kind = own.type or _FIELD_TYPES[given.dtype]
        if given.dtype not in TENSORS_FOR[kind]:
            self._say(
                ("fields", name, "type"),
                f"is {kind}, which cannot fill {given}; it can fill "
                f"{', '.join(sorted(TENSORS_FOR[kind]))}",
            )
            return None
        place = "" if column is None else f", column {column}"
        return Field(
            name=name,
            type=kind,
            binding=Binding(given.name, given.dtype, column),
            description=own.description or f"the graph's input {given.name}{place}",
            unit=own.unit,
            required=own.default is None if own.required is None else own.required,
            default=own.default,
            nullable=own.nullable,
            null_as=own.null_as,
            minimum=own.minimum,
            maximum=own.maximum,
            allowed=own.allowed,
            max_length=own.max_length,
        )

    def _output(self, name: str, own: OutputTable) -> Output | None:
        outputs, key = self.graph.outputs, ("outputs", name)
        tensor = own.tensor or (
            name if name in outputs or len(outputs) != 1 else next(iter(outputs))
        )
        if tensor not in outputs:
            said = "is not an output of the graph" if own.tensor is None else f"is {tensor!r}"
            self._say(
                key if own.tensor is None else (*key, "tensor"),
                f"{said}; the graph gives {_listed(outputs)}: write tensor = one of these",
            )
            return None
        given = outputs[tensor]
        kind = None if given.dtype is None else _OUTPUT_TYPES.get(given.dtype)
        if kind is None:
            self._say(
                key,
                f"reads {given}; an answer holds tensors of {', '.join(sorted(_OUTPUT_TYPES))}. "
                "A converter of classifiers gives one with zipmap=False",
            )
            return None
        if own.type not in (None, kind):
            self._say((*key, "type"), f"is {own.type}, and the graph gives {given}: write {kind}")
        width = given.shape[1] if given.shape is not None and len(given.shape) == 2 else 1
        if own.column is None and width is not None and width > 1:
            self._say(key, f"reads {given}, which has {width} columns: say which, column = 0 …")
        elif own.column is not None and width is not None and own.column >= width:
            self._say(
                (*key, "column"), f"is {own.column}, and {given} has the columns 0 … {width - 1}"
            )
        return Output(
            name=name,
            tensor=tensor,
            type=kind,
            description=own.description or f"the graph's output {tensor}",
            unit=own.unit,
            column=own.column,
        )

    def _input(self, tensor: str, key: Key) -> Tensor | None:
        given = self.graph.inputs.get(tensor)
        if given is None:
            named = "" if tensor == key[-1] else f" {tensor!r}"
            self._say(
                key, f"names no input of the graph{named}; it reads {_listed(self.graph.inputs)}"
            )
            return None
        if given.dtype is None:
            wanted = ", ".join(sorted(TensorType))
            self._say(key, f"fills {given}, and no field can; fields fill tensors of {wanted}")
        elif given.shape is not None and len(given.shape) not in (1, 2):
            self._say(key, f"fills {given}; an input is [N] or [N, k], so reshape inside the graph")
            return None
        elif given.shape is not None and given.shape[0] is not None:
            self._say(
                key,
                f"fills {given}, whose number of rows is fixed; export the graph with a first "
                "dimension of any size (torch.onnx.export: dynamic_shapes, others: None or a name)",
            )
            return None
        return given

    def _check_width(self, given: Tensor, columns: int, key: Key) -> None:
        width = given.shape[1] if given.shape is not None and len(given.shape) == 2 else None
        if given.shape is not None and len(given.shape) == 1:
            self._say(key, f"makes columns of {given}, which has none; drop column, or [matrix.…]")
        elif width is not None and width != columns:
            self._say(
                key,
                f"has {columns} columns, and {given} has {width}: name each of them, in the order "
                "in which the model was trained",
            )

    def _check_dtype(self, given: Tensor, stated: TensorType | None, key: Key) -> None:
        if stated is not None and given.dtype is not None and stated is not given.dtype:
            self._say(
                key, f"is {stated}, and the graph reads {given}: write {given.dtype}, or nothing"
            )

    def _check_all_filled(self, filled: set[str]) -> None:
        if self.problems:  # a field that does not fit is why an input seems empty
            return
        for name, given in self.graph.inputs.items():
            if name not in filled:
                is_matrix = (
                    given.shape is not None and len(given.shape) == 2 and given.shape[1] != 1
                )
                write = f'[matrix.{name}] columns = ["…"]' if is_matrix else f"[fields.{name}]"
                self.problems.append(
                    f"{self.written.path}: no field fills the graph's input {given}: write {write}"
                )

    def _say(self, key: Key, what: str) -> None:
        self.problems.append(f"{self.written.where(*key)} {what}")


def _listed(tensors: dict[str, Tensor]) -> str:
    return ", ".join(map(str, tensors.values())) or "nothing"


def _key_of(said: str, written: WrittenContract) -> Key:
    """The key that a contract's complaint is about: the table of what it names, and the key in it."""
    found = re.match(r"(field|output|tensor) (?:name )?'([^']*)'", said)
    if found is None:
        return ("horizon",) if "horizon" in said else ("max_request_bytes",)
    kind, name = found.groups()
    tables = written.tables
    if kind == "tensor":
        return ("matrix", name) if name in tables.matrix else ("fields",)
    if kind == "output":
        return ("outputs", name)
    if name not in tables.fields:
        holding = (tensor for tensor, each in tables.matrix.items() if name in each.columns)
        return ("matrix", next(holding, ""), "columns")
    stated = tables.fields[name].model_fields_set
    keys = ("minimum", "maximum", "allowed", "max_length", "null_as", "default", "nullable", "type")
    blamed = next((each for each in keys if each in stated and each in said), None)
    return ("fields", name) if blamed is None else ("fields", name, blamed)
