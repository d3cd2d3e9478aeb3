"""The contract file and its binding: what a file becomes, and what is said of a wrong one."""

from pathlib import Path

import pytest

from schemas.contract import Beyond, Contract, FieldType, TensorType
from schemas.errors import NotFound, UsageProblem
from trainer.binding import bind
from trainer.contract_file import load_contract_file
from trainer.signature import Signature, Tensor

F32, F64, I64, STRING = (
    TensorType.FLOAT32,
    TensorType.FLOAT64,
    TensorType.INT64,
    TensorType.STRING,
)
HEAD = 'model = "demand"\n[outputs.sales]\n'
MATRIX = '[matrix.x]\ncolumns = ["a", "b"]\n'


def tensor(name: str, dtype: TensorType | None, *shape: int | None, said: str = "") -> Tensor:
    return Tensor(name, dtype, said or str(dtype), shape)


def signature(*inputs: Tensor, outputs: tuple[Tensor, ...] = ()) -> Signature:
    given = outputs or (tensor("variable", F32, None, 1),)
    return Signature({e.name: e for e in inputs}, {e.name: e for e in given}, "test", "1")


X = signature(tensor("x", F32, None, 2))
"""A matrix of two columns."""


def contract(folder: Path, text: str, graph: Signature) -> Contract:
    path = folder / "contract.toml"
    path.write_text(text, encoding="utf-8")
    return bind(load_contract_file(path), graph)


def problem(folder: Path, text: str, graph: Signature = X) -> str:
    """What is said of the file, without its folder."""
    with pytest.raises(UsageProblem) as caught:
        contract(folder, text, graph)
    assert caught.value.hint
    return caught.value.message.replace(f"{folder}/", "")


def test_two_lines_bind_a_matrix(tmp_path: Path) -> None:
    """A matrix needs its columns' names and nothing else: types, tensors and places are the graph's."""
    bound = contract(tmp_path, HEAD + MATRIX, X)
    assert [(f.name, f.type, f.binding.tensor, f.binding.column) for f in bound.fields] == [
        ("a", FieldType.FLOAT32, "x", 0),
        ("b", FieldType.FLOAT32, "x", 1),
    ]
    assert all(f.required and not f.nullable and f.description for f in bound.fields)
    [output] = bound.outputs
    assert (output.name, output.tensor, output.type) == ("sales", "variable", FieldType.FLOAT32)


def test_the_long_form_of_a_matrix_says_the_same(tmp_path: Path) -> None:
    """Tensor and column can be said field by field."""
    long = (
        HEAD
        + """
[fields.a]
tensor = "x"
column = 0
[fields.b]
tensor = "x"
column = 1
dtype = "float32"
"""
    )
    assert contract(tmp_path, long, X) == contract(tmp_path, HEAD + MATRIX, X)


def test_single_inputs_take_their_type_from_the_graph(tmp_path: Path) -> None:
    """``[N]`` is a vector, ``[N, 1]`` a matrix of one column; text, whole numbers and days are told."""
    graph = signature(
        tensor("store", STRING, None, 1), tensor("units", I64, None), tensor("day", I64, None)
    )
    text = (
        HEAD
        + """
[fields]
store = { max_length = 8 }
units = {}
[fields.day]
type = "date"
[horizon]
field = "day"
first = 2017-08-01
last = "2017-08-16"
beyond = "last-day"
"""
    )
    bound = contract(tmp_path, text, graph)
    assert [(f.type, f.binding.column) for f in bound.fields] == [
        (FieldType.STRING, 0),
        (FieldType.INT64, None),
        (FieldType.DATE, None),
    ]
    assert bound.horizon is not None
    assert bound.horizon.beyond is Beyond.LAST_DAY
    assert (bound.horizon.last - bound.horizon.first).days == 15


def test_a_default_makes_a_field_optional_and_limits_reach_the_contract(tmp_path: Path) -> None:
    """What stands in a field's table is the contract's, also for a column of a matrix."""
    text = HEAD + MATRIX + "[fields.b]\ndefault = 1\nminimum = 0\nmaximum = 9.5\nnullable = true\n"
    field = contract(tmp_path, text, X).field("b")
    assert (field.required, field.default, field.minimum, field.maximum) == (False, 1, 0, 9.5)
    assert field.nullable


def test_an_output_is_found_by_its_name_its_tensor_or_because_it_is_alone(tmp_path: Path) -> None:
    """Of a classifier's two outputs one column can be read."""
    outputs = (tensor("label", I64, None), tensor("probabilities", F32, None, 2))
    graph = signature(tensor("x", F32, None, 2), outputs=outputs)
    text = (
        'model = "demand"\n[outputs.label]\n[outputs.p]\ntensor = "probabilities"\ncolumn = 1\n'
        + MATRIX
    )
    bound = contract(tmp_path, text, graph)
    assert [(o.name, o.type, o.column) for o in bound.outputs] == [
        ("label", FieldType.INT64, None),
        ("p", FieldType.FLOAT32, 1),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('model = "demand\n', "contract.toml:1: not valid TOML"),
        (MATRIX, "contract.toml:1: model is missing"),
        ('model = "Demand"\n[outputs.y]\n', 'contract.toml:1: model is "Demand"; it must be a name of a'),
        ('model = "d"\noutputs = {}\n', "contract.toml:2: outputs is an empty table; it must be of 1 or"),
        (
            HEAD + MATRIX + "[fields.b]\nminumum = 0\n",
            "contract.toml:6: fields.b.minumum is no key of [fields.b]; the keys are type, tensor",
        ),
        (HEAD + 'unit = 3\n', "contract.toml:3: outputs.sales.unit is 3; it must be text in quotes"),
        (HEAD + '[fields.b]\nminimum = "0"\n', 'contract.toml:4: fields.b.minimum is "0"; it must be a '),
        (HEAD + '[fields.b]\nminimum = "0"\n[fields]\n', 'contract.toml:4: fields.b.minimum is "0"; it '),
        (HEAD + '[fields.b]\ntype = "int"\n', 'contract.toml:4: fields.b.type is "int"; it must be "str'),
        (HEAD + "[matrix.x]\n", "contract.toml:3: matrix.x.columns is missing"),
        (HEAD + '[horizon]\nfield = "day"\n', "contract.toml:3: horizon.first is missing"),
        (HEAD + "max_request_bytes = 9\n", "`max_request_bytes` of the whole contract comes before"),
        (HEAD + "licence = 1\nsize = 2\n", "contract.toml:4: outputs.sales.size is no key"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_told_by_line_and_key(tmp_path: Path, text: str, said: str) -> None:
    """What is not a contract file says where and which key, before the graph is looked at."""
    assert said in problem(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "graph", "said"),
    [
        (
            '[matrix.x]\ncolumns = ["a"]\n',
            X,
            "contract.toml:4: matrix.x.columns has 1 columns, and 'x' (float32 [N, 2]) has 2",
        ),
        ('[matrix.z]\ncolumns = ["a"]\n', X, "contract.toml:3: matrix.z names no input of the graph"),
        ('[fields.a]\ntensor = "z"\n', X, "fields.a.tensor names no input of the graph 'z'; it reads"),
        ("[fields.x]\n", X, "fields.x fills 'x' (float32 [N, 2]), a matrix; say its column, or list"),
        (
            MATRIX + 'dtype = "float64"\n',
            X,
            "contract.toml:5: matrix.x.dtype is float64, and the graph reads 'x' (float32 [N, 2])",
        ),
        (
            MATRIX + '[fields.a]\ntype = "string"\n',
            X,
            "contract.toml:6: fields.a.type is string, which cannot fill 'x'",
        ),
        (MATRIX + "[fields.a]\ncolumn = 1\n", X, "contract.toml:5: fields.a says tensor, column"),
        (
            '[fields.a]\ntensor = "x"\ncolumn = 0\n',
            X,
            "contract.toml:5: fields.a.column has 1 columns, and 'x' (float32 [N, 2]) has 2",
        ),
        (
            MATRIX,
            signature(tensor("x", F32, None, 2), tensor("price", F32, None, 1)),
            "no field fills the graph's input 'price' (float32 [N, 1]): write [fields.price]",
        ),
        (MATRIX, signature(tensor("x", F32, 64, 2)), "whose number of rows is fixed; export the graph"),
        (MATRIX, signature(tensor("x", F32, None, 2, 3)), "(float32 [N, 2, 3]); an input is [N] or"),
        (MATRIX, signature(tensor("x", None, None, 2, said="float16")), "fills 'x' (float16 [N, 2])"),
        (MATRIX, signature(tensor("x", F32, None)), "makes columns of 'x' (float32 [N]), which has none"),
    ],
)  # fmt: skip
def test_inputs_that_do_not_fit_the_graph(
    tmp_path: Path, text: str, graph: Signature, said: str
) -> None:
    """What was found in the graph, what the file says, and what to write."""
    assert said in problem(tmp_path, HEAD + text, graph)


@pytest.mark.parametrize(
    ("text", "outputs", "said"),
    [
        ("", (tensor("a", F32, None), tensor("b", F32, None)), ":2: outputs.sales is not an output of"),
        ('tensor = "z"\n', (), "contract.toml:3: outputs.sales.tensor is 'z'; the graph gives"),
        ("", (tensor("y", F32, None, 3),), "which has 3 columns: say which, column = 0"),
        ("column = 3\n", (tensor("y", F32, None, 3),), ":3: outputs.sales.column is 3, and 'y'"),
        ('type = "float64"\n', (), ":3: outputs.sales.type is float64, and the graph gives 'variable'"),
        ("", (Tensor("y", None, "sequence", None),), "reads 'y' (sequence); an answer holds tensors of"),
    ],
)  # fmt: skip
def test_outputs_that_do_not_fit_the_graph(
    tmp_path: Path, text: str, outputs: tuple[Tensor, ...], said: str
) -> None:
    """The same for what it gives."""
    graph = signature(tensor("x", F32, None, 2), outputs=outputs)
    assert said in problem(tmp_path, HEAD + text + MATRIX, graph)


def test_all_that_does_not_fit_is_told_at_once(tmp_path: Path) -> None:
    """Three mistakes are three lines; the graph's own inputs and outputs are in the hint."""
    text = 'model = "d"\n[outputs.y]\ntensor = "no"\n[matrix.x]\ncolumns = ["a"]\n[fields.q]\n'
    path = tmp_path / "contract.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageProblem) as caught:
        bind(load_contract_file(path), X)
    assert len(caught.value.message.splitlines()) == 3
    assert "the graph reads 'x' (float32 [N, 2]), and gives 'variable'" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[fields.b]\nminimum = 3\nmaximum = 1\n", ":6: fields.b.minimum: field 'b' has a minimum above"),
        ("[fields.b]\nrequired = false\n", ":5: fields.b: field 'b' is optional, so it needs a default"),
        ('[fields.b]\ntype = "int64"\nnullable = true\nnull_as = 1.5\n', ":8: fields.b.null_as: field"),
        ('[horizon]\nfield = "b"\nfirst = 2020-01-01\nlast = 2020-01-02\n', ":5: horizon: the horizon"),
        ("[fields.b]\nmaximum = 1e39\n", ":5: fields.b: field 'b' states 1e+39"),
    ],
)  # fmt: skip
def test_the_rules_of_a_contract_are_told_by_line_and_key(
    tmp_path: Path, text: str, said: str
) -> None:
    """What ``schemas.contract`` complains of is traced back to the file."""
    assert said in problem(tmp_path, HEAD + MATRIX + text)


def test_a_name_that_cannot_be_a_field_is_traced_to_the_columns(tmp_path: Path) -> None:
    """LightGBM and XGBoost allow names with spaces; requests do not."""
    said = problem(tmp_path, HEAD + '[matrix.x]\ncolumns = ["a", "Column 1"]\n')
    assert "contract.toml:4: matrix.x.columns: field name 'Column 1' does not match" in said


def test_a_tensor_with_an_odd_name_can_be_named(tmp_path: Path) -> None:
    """Keras calls its tensors ``dense_input:0``: TOML quotes such keys, and lines are still found."""
    graph = signature(tensor("dense_input:0", F32, None, 2))
    text = HEAD + '[matrix."dense_input:0"]\ncolumns = ["a", "b"]\n'
    assert contract(tmp_path, text, graph).field("b").binding.tensor == "dense_input:0"
    assert ":5: matrix.dense_input:0.dtype" in problem(tmp_path, text + 'dtype = "int64"\n', graph)


def test_no_contract_file(tmp_path: Path) -> None:
    """A path without a file is not found; bytes that are no text are a usage problem."""
    with pytest.raises(NotFound, match="no contract file at"):
        load_contract_file(tmp_path / "contract.toml")
    (tmp_path / "c.toml").write_bytes(b"\xff")
    with pytest.raises(UsageProblem, match="cannot be read as text"):
        load_contract_file(tmp_path / "c.toml")
