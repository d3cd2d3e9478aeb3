"""Models that other tools trained and their own converters exported, small enough to train in a test.

Each is trained on the same made-up shop: last week's sales, a mean that is unknown for new items, a
price, a promotion, and for one of them the name of the store. ``golden`` holds the raw inputs, and
under ``sales`` what the training library itself predicts for them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
from onnx import TensorProto, helper, numpy_helper

NUMBERS = ["lag_7", "mean_28", "price", "promo"]

MATRIX_CONTRACT = """\
model = "{model}"

[matrix.input]
columns = ["lag_7", "mean_28", "price", "promo"]

[fields.lag_7]
description = "Units sold a week before"
unit = "pieces"
minimum = 0

[fields.mean_28]
description = "Mean of the last 28 days, null for a new item"
nullable = true

[fields.promo]
type = "int64"
allowed = [0, 1]
default = 0

[outputs.sales]
description = "Units that will be sold"
unit = "pieces"
"""

TORCH_INPUTS = {"recent": ["lag_7", "mean_28"], "offer": ["price", "promo"]}

TORCH_CONTRACT = MATRIX_CONTRACT.replace(
    '[matrix.input]\ncolumns = ["lag_7", "mean_28", "price", "promo"]\n',
    '[matrix.recent]\ncolumns = ["lag_7", "mean_28"]\n\n[matrix.offer]\ncolumns = ["price", "promo"]\n',
)

COLUMNS_CONTRACT = """\
model = "{model}"

[fields.store]
description = "Which store"
max_length = 8

[fields.lag_7]
unit = "pieces"

[fields.price]

[fields.promo]
type = "bool"

[outputs.sales]
tensor = "variable"
"""


@dataclass(frozen=True)
class Exported:
    """A model as its converter wrote it, the contract file that fits it, and its golden data."""

    content: bytes
    contract: str
    golden: pd.DataFrame
    predict: Callable[[pd.DataFrame], "np.ndarray[Any, Any]"]


def shop(rows: int = 400, seed: int = 5) -> tuple[pd.DataFrame, "np.ndarray[Any, Any]"]:
    """Raw inputs, float32 as they are trained on, and the sales."""
    generator = np.random.default_rng(seed)
    lag = generator.gamma(2, 4, rows).round()
    mean = np.where(generator.random(rows) < 0.1, np.nan, lag * generator.uniform(0.5, 1.5, rows))
    price = generator.choice([1.25, 2.5, 3.75], rows)
    promo = generator.integers(0, 2, rows)
    store = generator.choice(["s1", "s2", "s3"], rows)
    sales = lag * (1 + 0.5 * promo) + np.nan_to_num(mean) / price + (store == "s2") * 3.0
    numbers = pd.DataFrame(
        {"lag_7": lag, "mean_28": mean, "price": price, "promo": promo}, dtype=np.float32
    )
    return numbers.assign(store=store), sales


def lightgbm_model() -> Exported:
    """LightGBM by onnxmltools: a matrix with NaN, one output ``[N, 1]`` that is called ``variable``."""
    import lightgbm
    from onnxmltools import convert_lightgbm
    from onnxmltools.convert.common.data_types import FloatTensorType

    frame, sales = shop()
    features = frame[NUMBERS].to_numpy()
    model = lightgbm.LGBMRegressor(
        n_estimators=40, num_leaves=7, n_jobs=1, verbose=-1, random_state=0
    ).fit(features, sales)
    converted = convert_lightgbm(
        model, initial_types=[("input", FloatTensorType([None, 4]))], target_opset=15
    )
    return _matrix_model(converted, frame, lambda rows: model.predict(rows[NUMBERS].to_numpy()))


def xgboost_model() -> Exported:
    """XGBoost by onnxmltools: the same inputs."""
    import xgboost
    from onnxmltools import convert_xgboost
    from onnxmltools.convert.common.data_types import FloatTensorType

    frame, sales = shop()
    features = frame[NUMBERS].to_numpy()
    model = xgboost.XGBRegressor(n_estimators=40, max_depth=4, n_jobs=1, random_state=0).fit(
        features, sales
    )
    converted = convert_xgboost(
        model, initial_types=[("input", FloatTensorType([None, 4]))], target_opset=15
    )
    return _matrix_model(converted, frame, lambda rows: model.predict(rows[NUMBERS].to_numpy()))


def pipeline_model() -> Exported:
    """A scikit-learn pipeline by skl2onnx: one input ``[N, 1]`` for each column, text among them."""
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType, StringTensorType
    from sklearn.compose import make_column_transformer
    from sklearn.linear_model import LinearRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    frame, sales = shop()
    names = ["store", "lag_7", "price", "promo"]
    model = make_pipeline(
        make_column_transformer(
            (OneHotEncoder(handle_unknown="ignore"), ["store"]), remainder="passthrough"
        ),
        LinearRegression(),
    ).fit(frame[names], sales)
    types = [("store", StringTensorType([None, 1]))]
    types += [(name, FloatTensorType([None, 1])) for name in names[1:]]
    converted = to_onnx(model, initial_types=types, target_opset=17)
    golden = frame[names].assign(promo=frame["promo"] == 1, sales=model.predict(frame[names]))
    return Exported(
        converted.SerializeToString(),
        COLUMNS_CONTRACT,
        golden,
        lambda rows: model.predict(rows[names]),
    )


def classifier_model() -> Exported:
    """A LightGBM classifier without its map of classes: a label ``[N]`` and probabilities ``[N, 2]``."""
    import lightgbm
    from onnxmltools import convert_lightgbm
    from onnxmltools.convert.common.data_types import FloatTensorType

    frame, sales = shop()
    model = lightgbm.LGBMClassifier(n_estimators=10, num_leaves=7, n_jobs=1, verbose=-1).fit(
        frame[NUMBERS].to_numpy(), (sales > 10).astype(int)
    )
    converted = convert_lightgbm(
        model, initial_types=[("input", FloatTensorType([None, 4]))], target_opset=15, zipmap=False
    )
    probabilities = model.predict_proba(frame[NUMBERS].to_numpy())[:, 1]
    golden = frame[NUMBERS].assign(label=probabilities > 0.5, busy=probabilities)
    outputs = '[outputs.label]\n[outputs.busy]\ntensor = "probabilities"\ncolumn = 1\n'
    contract = MATRIX_CONTRACT[: MATRIX_CONTRACT.index("[outputs")] + outputs
    return Exported(
        converted.SerializeToString(),
        contract,
        golden,
        lambda rows: model.predict_proba(rows[NUMBERS].to_numpy())[:, 1],
    )


def misrounded_model() -> Exported:
    """A LightGBM model with a threshold between neighbours of float32; its converter rounds it up."""
    import lightgbm
    from onnxmltools import convert_lightgbm
    from onnxmltools.convert.common.data_types import FloatTensorType

    generator = np.random.default_rng(0)
    frame, _ = shop()
    one = np.float32(1)
    above = np.nextafter(one, np.float32(2))
    rare = generator.random(len(frame)) < 0.02
    price = np.where(rare, above, np.where(generator.random(len(frame)) < 0.5, one, 5 * one))
    frame = frame.assign(price=price.astype(np.float32))
    sales = (price > one) + 3.0 * rare
    model = lightgbm.LGBMRegressor(
        n_estimators=20, min_child_samples=1, min_data_in_bin=1, n_jobs=1, verbose=-1
    ).fit(frame[NUMBERS].to_numpy(), sales)
    converted = convert_lightgbm(
        model, initial_types=[("input", FloatTensorType([None, 4]))], target_opset=15
    )
    return _matrix_model(converted, frame, lambda rows: model.predict(rows[NUMBERS].to_numpy()))


def _matrix_model(
    converted: onnx.ModelProto,
    frame: pd.DataFrame,
    predict: Callable[[pd.DataFrame], "np.ndarray[Any, Any]"],
) -> Exported:
    golden = frame[NUMBERS].assign(sales=predict(frame))
    return Exported(converted.SerializeToString(), MATRIX_CONTRACT, golden, predict)


def torch_model() -> Exported:
    """A PyTorch network by PyTorch's exporter, made by ``tests/fixtures/torch/make.py``: two matrices."""
    folder = Path(__file__).parent / "fixtures" / "torch"
    golden = pd.read_csv(folder / "golden.csv", dtype=np.float32)
    return Exported(
        (folder / "network.onnx").read_bytes(),
        TORCH_CONTRACT,
        golden,
        lambda rows: golden["sales"].to_numpy()[rows.index],
    )


def linear_graph(
    weights: tuple[float, ...] = (1.0, 2.0),
    *,
    rows: int | str = "N",
    of_the_batch: bool = False,
    dtype: int = TensorProto.FLOAT,
) -> bytes:
    """``y = x @ weights`` for an input ``x`` ``[rows, k]``; ``y`` is ``[rows, 1]``.

    ``of_the_batch`` subtracts the batch's mean, as a network that was exported in training does.
    """
    numpy_type = helper.tensor_dtype_to_np_dtype(dtype)
    column = np.array(weights, numpy_type).reshape(-1, 1)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["raw"])]
    if of_the_batch:
        nodes.append(helper.make_node("ReduceMean", ["raw"], ["mean"], axes=[0], keepdims=1))
        nodes.append(helper.make_node("Sub", ["raw", "mean"], ["y"]))
    else:
        nodes.append(helper.make_node("Identity", ["raw"], ["y"]))
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("x", dtype, [rows, len(weights)])],
        [helper.make_tensor_value_info("y", dtype, [rows, 1])],
        [numpy_helper.from_array(column, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    model.producer_name = "by hand"
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())
