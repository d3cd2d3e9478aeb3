"""A lifted regressor: the regressor of a finished graph, taken out of it to serve under new tables.

The node of the trees, or the constants of a linear model, go from a parent's ``model.onnx`` into the new
graph byte for byte (``trainer.graph``), and ``predict`` says in numpy what they compute, so that parity
and golden vectors have a Python pipeline here too. It does as the ONNX operators do:

1. Trees (``TreeEnsembleRegressor``): a row goes to the true branch where its feature, in float32, is at
   most the node's value, and where it is NaN and the node says ``missing_value_tracks_true``.
2. A linear model: the sum of coefficients times features, and the intercept.
3. Sums are made in float64, without BLAS: its order depends on its threads. They are exact in any order
   (``trainer.sums``).
4. With the loss ``count`` trees predict logs of counts, and the graph has the exponential behind them.

What the node cannot be, since ``modelwire train`` writes no such nodes, is refused.
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from schemas.errors import UsageProblem
from trainer.estimator import Loss
from trainer.graph import COEFFICIENTS, INTERCEPT, QUANTILES, TREES
from trainer.history import GRID
from trainer.keys import Float32s, Floats, Ints

CHUNK_CELLS = 2_000_000
"""Pairs of a row and a tree that are walked at once: some ten MB for each of the arrays."""

_LEAF, _LEQ = b"LEAF", b"BRANCH_LEQ"


@dataclass(frozen=True)
class Lifted:
    """What a refresh takes over from a parent: its regressor, if it has one, and the calibration.

    ``quantiles`` is ``[horizon, 2]``, as in ``trainer.spread``: they were calibrated with the regressor.
    """

    regressor: "LiftedTrees | LiftedLine | None"
    quantiles: Float32s


def lift(content: bytes, loss: Loss) -> Lifted:
    """The parts of a ``model.onnx``. Raises UsageProblem where it is no graph of ``modelwire train``."""
    graph = onnx.load_model_from_string(content).graph
    constants = {each.name: each for each in graph.initializer}
    trees = [node for node in graph.node if node.name == TREES]
    line = [name for name in (COEFFICIENTS, INTERCEPT) if name in constants]
    if QUANTILES not in constants or (len(trees), len(line)) not in ((0, 0), (1, 0), (0, 2)):
        raise _foreign(
            f"it has {len(trees)} nodes {TREES!r} and, of its constants, "
            f"{', '.join([*line, *({QUANTILES} & constants.keys())]) or 'none'}"
        )
    values = numpy_helper.to_array(constants[QUANTILES])
    if values.dtype == np.int16:  # a long horizon's are narrow
        values = values.astype(np.float32) / np.float32(GRID)
    regressor: LiftedTrees | LiftedLine | None = None
    if trees:
        regressor = LiftedTrees(trees[0], loss)
    elif line:
        slopes, start = (numpy_helper.to_array(constants[name]) for name in line)
        regressor = LiftedLine(slopes.ravel(), float(start))
    return Lifted(regressor, np.asarray(values, dtype=np.float32))


@dataclass(frozen=True)
class LiftedLine:
    """A linear model that can be asked and written, and not fitted; named as scikit-learn names them."""

    coef_: Floats
    intercept_: float

    def predict(self, features: Float32s) -> Floats:
        """Predictions ``[N]`` for features ``[N, k]``."""
        total = np.full(len(features), self.intercept_)
        for column, coefficient in enumerate(self.coef_):
            total += features[:, column] * coefficient
        return total


@dataclass(frozen=True)
class LiftedTrees:
    """Trees that can be asked and written, and not fitted."""

    node: onnx.NodeProto
    loss: Loss

    def predict(self, features: Float32s) -> Floats:
        """Predictions ``[N]`` for features ``[N, k]``; with the loss ``count`` in units."""
        found = self._function.predict(np.asarray(features, dtype=np.float32))
        return np.exp(found) if self.loss is Loss.COUNT else found

    @cached_property
    def _function(self) -> "_Trees":
        attributes = {each.name: helper.get_attribute_value(each) for each in self.node.attribute}
        if attributes.get("post_transform", b"NONE") != b"NONE":
            raise _foreign(f"its regressor has the post_transform {attributes['post_transform']!r}")
        if (self.node.domain, self.node.op_type) != ("ai.onnx.ml", "TreeEnsembleRegressor"):
            raise _foreign(f"its regressor is a {self.node.op_type}")
        return _Trees.of(attributes)


@dataclass(frozen=True)
class _Trees:
    """All nodes of all trees in one row of arrays; a leaf is followed by itself, on both sides.

    ``value`` is a branch's threshold, ``weight`` what a leaf adds; ``roots`` has one node a tree and
    ``depth`` is the most branches on a way down.
    """

    feature: Ints
    value: Float32s
    below: Ints
    above: Ints
    missing_below: npt.NDArray[np.bool_]
    weight: Floats
    roots: Ints
    base: float
    depth: int = field(default=0)

    @classmethod
    def of(cls, attributes: dict[str, Any]) -> "_Trees":
        modes = np.asarray(attributes["nodes_modes"])
        if not np.isin(modes, (_LEAF, _LEQ)).all():
            raise _foreign("its trees branch by other rules than `at most`")
        if attributes.get("aggregate_function", b"SUM") != b"SUM":
            raise _foreign("its trees are not added up")
        trees, nodes = _ints(attributes, "nodes_treeids"), _ints(attributes, "nodes_nodeids")
        place = {
            pair: at for at, pair in enumerate(zip(trees.tolist(), nodes.tolist(), strict=True))
        }
        itself = np.arange(len(nodes))
        is_leaf = modes == _LEAF

        def followed_by(name: str) -> Ints:
            ids = _ints(attributes, name)
            pairs = zip(
                trees.tolist(), ids.tolist(), is_leaf.tolist(), itself.tolist(), strict=True
            )
            return np.asarray([at if leaf else place[tree, node] for tree, node, leaf, at in pairs])

        below, above = followed_by("nodes_truenodeids"), followed_by("nodes_falsenodeids")
        children = np.concatenate([below[~is_leaf], above[~is_leaf]])
        roots = np.setdiff1d(itself, children)
        weight = np.zeros(len(nodes))
        targets = zip(attributes["target_treeids"], attributes["target_nodeids"], strict=True)
        weight[[place[pair] for pair in targets]] = _floats(attributes, "target_weights")
        missing = attributes.get("nodes_missing_value_tracks_true") or [0] * len(nodes)
        return cls(
            feature=_ints(attributes, "nodes_featureids"),
            value=_floats(attributes, "nodes_values").astype(np.float32),
            below=below,
            above=above,
            missing_below=np.asarray(missing, dtype=bool),
            weight=weight,
            roots=roots,
            base=float(sum(_floats(attributes, "base_values")))
            if attributes.get("base_values")
            else 0.0,
            depth=_depth(roots, below, above),
        )

    def predict(self, features: Float32s) -> Floats:
        step = max(1, CHUNK_CELLS // max(len(self.roots), 1))
        parts = [self._walk(features[at : at + step]) for at in range(0, len(features), step)]
        return np.concatenate([np.empty(0), *parts])

    def _walk(self, features: Float32s) -> Floats:
        rows = np.arange(len(features))[:, None]
        at = np.broadcast_to(self.roots, (len(features), len(self.roots)))
        for _ in range(self.depth):
            found = features[rows, self.feature[at]]
            goes_below = (found <= self.value[at]) | (np.isnan(found) & self.missing_below[at])
            at = np.where(goes_below, self.below[at], self.above[at])
        total: Floats = np.add.accumulate(self.weight[at], axis=1)[:, -1] + self.base
        return total


def _depth(roots: Ints, below: Ints, above: Ints) -> int:
    depth = 0
    reached = roots
    while True:
        further = np.unique(np.concatenate([below[reached], above[reached]]))
        if np.array_equal(further, np.unique(reached)):
            return depth
        reached, depth = further, depth + 1


def _ints(attributes: dict[str, Any], name: str) -> Ints:
    return np.asarray(attributes[name], dtype=np.int64)


def _floats(attributes: dict[str, Any], name: str) -> Floats:
    """Attributes are float32 in the file; widening changes none."""
    return np.asarray(attributes[name], dtype=np.float32).astype(np.float64)


def _foreign(what: str) -> UsageProblem:
    return UsageProblem(
        f"the parent's model.onnx is no graph of this trainer: {what}",
        hint="train anew: modelwire train --dataset D.toml",
    )
