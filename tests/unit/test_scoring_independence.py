"""An answer does not depend on what else was in its batch: shown on models that ONNX Runtime runs.

The graphs are of the kinds for which it was measured to fail without padding: ensembles of trees, and
the vector code of Log, Sin and Softplus. What padding cannot mend (a ReduceSum over unaligned rows) is
found by ``scoring.golden.check_independence``.
"""

import numpy as np
import onnx
import pytest
from example_contracts import answers, field, loaded, output, request, snapshot_of
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.ensemble import GradientBoostingRegressor, RandomForestRegressor

from adapters.onnx_model import load_onnx_model
from schemas.contract import Contract
from scoring.batch import Answer, ForecastAnswer
from scoring.snapshot import Snapshot

FEATURES = 6
VALUES = np.random.default_rng(7).lognormal(size=(600, FEATURES)).astype(np.float32)


def matrix_contract(*outputs: str, tensor: str = "") -> Contract:
    """Six floats in one matrix ``x``, a store's name, and float32 outputs."""
    columns = [
        field(f"f{number}", "float32", "float32", tensor="x", column=number)
        for number in range(FEATURES)
    ]
    return Contract(
        fields=tuple(columns), outputs=tuple(output(name, tensor=tensor) for name in outputs)
    )


def curves() -> Snapshot:
    """A graph of Log, Sin and Softplus, with a text feature that a LabelEncoder turns into a number."""
    nodes = [
        helper.make_node(
            "LabelEncoder",
            ["store"],
            ["code"],
            domain="ai.onnx.ml",
            keys_strings=["s0", "s1", "s2"],
            values_floats=[0.25, 0.5, 0.75],
            default_float=0.0,
        ),
        helper.make_node("Unsqueeze", ["code", "one"], ["shift"]),
        helper.make_node("Add", ["x", "shift"], ["moved"]),
        helper.make_node("Log", ["moved"], ["logs"]),
        helper.make_node("Sin", ["moved"], ["sines"]),
        helper.make_node("Softplus", ["moved"], ["pluses"]),
        helper.make_node("Mul", ["logs", "sines"], ["product"]),
        helper.make_node("Mul", ["product", "pluses"], ["bends"]),
        helper.make_node("MatMul", ["bends", "ones"], ["total"]),
    ]
    graph = helper.make_graph(
        nodes,
        "curves",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", FEATURES]),
            helper.make_tensor_value_info("store", TensorProto.STRING, ["N"]),
        ],
        [
            helper.make_tensor_value_info("total", TensorProto.FLOAT, ["N", 1]),
            helper.make_tensor_value_info("bends", TensorProto.FLOAT, ["N", FEATURES]),
        ],
        [
            helper.make_tensor("one", TensorProto.INT64, [1], [1]),
            helper.make_tensor("ones", TensorProto.FLOAT, [FEATURES, 1], [1.0] * FEATURES),
        ],
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)],
        ir_version=9,
    )
    onnx.checker.check_model(model)
    plain = matrix_contract("total")
    contract = Contract(
        fields=(*plain.fields, field("store", "string", "string", required=False, default="s0")),
        outputs=(output("total"), output("third", tensor="bends", column=2)),
    )
    return snapshot_of(loaded(load_onnx_model(model.SerializeToString()), contract=contract))


def trees(kind: type[GradientBoostingRegressor] | type[RandomForestRegressor]) -> Snapshot:
    """An ensemble of trees, trained on noise and converted by skl2onnx."""
    target = np.log(VALUES).sum(axis=1) + np.random.default_rng(8).normal(size=len(VALUES))
    trained = kind(n_estimators=40, max_depth=6, random_state=0).fit(VALUES, target)
    model = to_onnx(
        trained, initial_types=[("x", FloatTensorType([None, FEATURES]))], target_opset=18
    )
    contract = matrix_contract("units", tensor="variable")
    return snapshot_of(loaded(load_onnx_model(model.SerializeToString()), contract=contract))


KINDS = ("curves", "gradient boosting", "random forest")


@pytest.fixture(scope="module")
def serving() -> dict[str, Snapshot]:
    """A snapshot of each kind of model."""
    return {
        "curves": curves(),
        "gradient boosting": trees(GradientBoostingRegressor),
        "random forest": trees(RandomForestRegressor),
    }


def of_row(number: int, kind: str) -> bytes:
    """The request for a row of VALUES."""
    inputs: dict[str, object] = {
        f"f{column}": float(value) for column, value in enumerate(VALUES[number])
    }
    if kind == "curves" and number % 3:
        inputs["store"] = f"s{number % 5}"
    return request(inputs, f"r-{number}")


def outputs_of(each: Answer) -> bytes:
    """The part of a forecast that the model gave: its offset is left out."""
    assert isinstance(each, ForecastAnswer), each
    head, _, tail = each.value.partition(b',"outputs":')
    assert head
    return tail.partition(b',"model":')[0]


@pytest.fixture(scope="module")
def alone(serving: dict[str, Snapshot]) -> dict[str, list[bytes]]:
    """What each row gets when it is alone in its batch."""
    return {
        kind: [outputs_of(answers(serving[kind], [of_row(row, kind)])[0]) for row in range(200)]
        for kind in KINDS
    }


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.integers(0, 199), min_size=1, max_size=200),
    poison=st.lists(st.integers(0, 199), max_size=5),
)
def test_an_answer_does_not_depend_on_its_batch(
    kind: str,
    rows: list[int],
    poison: list[int],
    serving: dict[str, Snapshot],
    alone: dict[str, list[bytes]],
) -> None:
    """In any batch, of any size and order, with bad rows in between, a row gets the same bytes."""
    values: list[bytes | None] = [of_row(row, kind) for row in rows]
    expected: list[bytes | None] = [alone[kind][row] for row in rows]
    for place in poison:
        values.insert(place % (len(values) + 1), b"poison")
        expected.insert(place % (len(expected) + 1), None)
    given_answers = answers(serving[kind], values)
    found = [
        outputs_of(each) if isinstance(each, ForecastAnswer) else None for each in given_answers
    ]
    assert found == expected


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [1, 2, 63, 64, 65, 70, 90, 93, 127, 128, 129, 200])
def test_no_size_of_a_batch_changes_a_bit(
    kind: str, size: int, serving: dict[str, Snapshot], alone: dict[str, list[bytes]]
) -> None:
    """The sizes at which unpadded batches were seen to differ give the bytes of single rows."""
    found = [
        outputs_of(each) for each in answers(serving[kind], [of_row(r, kind) for r in range(size)])
    ]
    assert found == alone[kind][:size]
