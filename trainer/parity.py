"""Parity: proof that the graph is the trained model, and the gate that stops one that is not.

The Python pipeline and the graph answer the same raw requests: every held-out row, and for every
day of the horizon, and a day before and after it, requests whose keys are unknown one by one, all
at once, and in a combination that no series has. Rules:

1. ``sales`` may differ by ``LIMIT`` on the log scale, log(1 + sales). A relative error would
   explode near zero, an absolute one would say nothing about large sales.
2. The flags must be equal.
3. The graph is run on a multiple of 64 rows, as a consumer runs it: fewer rows take another path
   through the runtime's trees, with other last bits.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from adapters.onnx_model import OnnxModel
from schemas.errors import RefusedByRule
from trainer.dataset import IN_HORIZON, KNOWN_SERIES, OUTPUTS, SALES
from trainer.estimator import Forecaster, Forecasts
from trainer.keys import Ints, Keys
from trainer.panel import day_of

LIMIT = 1e-5
"""Largest difference on the log scale. Float32 alone explains 2e-6 at sales of some thousands."""

CHUNK = 8192
"""Rows for each run, a multiple of 64."""

UNKNOWN = "\u2400 unknown"
"""A key value that no panel has."""


@dataclass(frozen=True)
class Requests:
    """N raw requests: ``[N]`` values of each key, and ``[N]`` days since 1970-01-01."""

    columns: dict[str, list[str]]
    days: Ints


@dataclass(frozen=True)
class Agreement:
    """Rows compared, and the largest difference of ``sales`` on the log scale."""

    rows: int
    max_difference: float


def unknown_requests(forecaster: Forecaster) -> Requests:
    """Requests with unknown keys, on every day of the horizon and one day before and after it."""
    names = forecaster.keys.names
    days = forecaster.cutoff_day + np.arange(forecaster.horizon + 2)
    tuples = list(_unknown_tuples(forecaster.keys))
    columns = {
        name: [values[position] for values in tuples for _ in days]
        for position, name in enumerate(names)
    }
    return Requests(columns=columns, days=np.tile(days, len(tuples)))


def run_graph(model: OnnxModel, requests: Requests, date_field: str) -> Forecasts:
    """The graph's answers to the requests."""
    parts = []
    rows = len(requests.days)
    for start in range(0, rows, CHUNK):
        taken = np.arange(start, min(start + CHUNK, rows))
        padded = np.pad(taken, (0, -len(taken) % 64), mode="edge")
        feeds = {
            name: np.array([values[i] for i in padded], dtype=object)
            for name, values in requests.columns.items()
        }
        feeds[date_field] = requests.days[padded]
        answers = model.run(feeds, OUTPUTS)
        parts.append([answer[: len(taken)] for answer in answers])
    merged = dict(zip(OUTPUTS, map(np.concatenate, zip(*parts, strict=True)), strict=True))
    return Forecasts(
        sales=merged[SALES], known_series=merged[KNOWN_SERIES], in_horizon=merged[IN_HORIZON]
    )


def compare(requests: Requests, python: Forecasts, graph: Forecasts) -> Agreement:
    """How well both agree. Raises RefusedByRule with the worst row where they do not."""
    difference = np.abs(np.log1p(graph.sales.astype(np.float64)) - np.log1p(python.sales))
    worst = int(np.argmax(np.nan_to_num(difference, nan=np.inf)))
    if not difference[worst] <= LIMIT:
        raise _refusal(
            f"it answers {graph.sales[worst]:.6g} where Python answers {python.sales[worst]:.6g}, "
            f"a difference of {difference[worst]:.2g} on the log scale (limit {LIMIT:g})",
            requests,
            worst,
        )
    for name in (KNOWN_SERIES, IN_HORIZON):
        wrong = np.flatnonzero(getattr(python, name) != getattr(graph, name))
        if len(wrong):
            row = int(wrong[0])
            raise _refusal(
                f"{name} is {getattr(graph, name)[row]} where Python says "
                f"{getattr(python, name)[row]}",
                requests,
                row,
            )
    return Agreement(rows=len(difference), max_difference=float(difference[worst]))


def _refusal(what: str, requests: Requests, row: int) -> RefusedByRule:
    keys = ", ".join(f"{name} {values[row]!r}" for name, values in requests.columns.items())
    return RefusedByRule(
        f"the exported graph is not the trained model: {what}, for {keys} on "
        f"{day_of(requests.days[row])}",
        hint="nothing was written; this is a fault of the export, not of the data",
    )


def _unknown_tuples(keys: Keys) -> Iterator[tuple[str, ...]]:
    """Key values that no series has: one unknown at a time, all, and a new combination."""
    example = [values[0] for values in keys.vocabulary]
    for position in range(len(keys.names)):
        yield tuple(UNKNOWN if i == position else value for i, value in enumerate(example))
    yield (UNKNOWN,) * len(keys.names)
    inner = keys.row_map[tuple(slice(0, size - 1) for size in keys.sizes)]
    new = np.argwhere(inner >= keys.series)
    if len(new):
        yield tuple(values[i] for values, i in zip(keys.vocabulary, new[0], strict=True))
