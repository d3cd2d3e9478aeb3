"""Golden vectors: requests with the answers that the Python pipeline gives to them.

Whoever loads the model answers them again and compares, so they go through the same decoder as
requests do and lie inside the contract: known series on days drawn by a seeded generator, the
first and the last day of the horizon, and every kind of unknown key on both.
"""

import msgspec
import numpy as np

from schemas.errors import RefusedByRule
from schemas.manifest import GoldenVector, Tolerance
from trainer.dataset import IN_HORIZON, KNOWN_SERIES, SALES
from trainer.estimator import Forecaster, Forecasts
from trainer.evaluation import HeldOut
from trainer.panel import day_of
from trainer.parity import LIMIT, Requests, unknown_requests

KNOWN = 64
"""Vectors of known series, beside those on the first and last day."""

TOLERANCE = Tolerance(absolute=2 * LIMIT, relative=2 * LIMIT)
"""A difference of ``d`` on the scale log(1 + x) is one of about ``d + d * x``: the limit of parity,
twice, so that a machine of another numeric class may round otherwise."""


def golden_requests(forecaster: Forecaster, held: HeldOut, seed: int) -> Requests:
    """The requests to answer, in a fixed order for a seed."""
    generator = np.random.default_rng(seed)
    rows = len(held.days)
    first, last = forecaster.cutoff_day + 1, forecaster.cutoff_day + forecaster.horizon
    drawn = np.sort(generator.choice(rows, size=min(rows, KNOWN), replace=False))
    edges = np.repeat(drawn[:4], 2)
    unknown = unknown_requests(forecaster)
    at_edges = np.flatnonzero((unknown.days == first) | (unknown.days == last))
    columns = {
        name: [values[i] for i in (*drawn, *edges)] + [unknown.columns[name][i] for i in at_edges]
        for name, values in held.columns.items()
    }
    edge_days = np.tile([first, last], len(edges) // 2)
    days = np.concatenate([held.days[drawn], edge_days, unknown.days[at_edges]])
    return Requests(columns=columns, days=days)


def golden_lines(requests: Requests, forecasts: Forecasts, date_field: str) -> bytes:
    """The content of ``golden.jsonl``: one vector a line."""
    lines = []
    for row, day in enumerate(requests.days):
        inputs = {name: values[row] for name, values in requests.columns.items()}
        inputs[date_field] = day_of(day).isoformat()
        vector = GoldenVector(
            inputs=msgspec.Raw(msgspec.json.encode(inputs)),
            outputs={
                SALES: float(forecasts.sales[row]),
                KNOWN_SERIES: int(forecasts.known_series[row]),
                IN_HORIZON: int(forecasts.in_horizon[row]),
            },
        )
        lines.append(msgspec.json.encode(vector))
    return b"\n".join(lines) + b"\n"


def check_tolerance(python: Forecasts, graph: Forecasts) -> None:
    """Raises RefusedByRule where the graph leaves the tolerance that the manifest promises."""
    allowed = TOLERANCE.absolute + TOLERANCE.relative * np.abs(python.sales)
    difference = np.abs(graph.sales - python.sales)
    if not (difference <= allowed).all():
        raise RefusedByRule(
            f"the exported graph leaves the tolerance of its golden vectors: a difference of "
            f"{difference.max():.3g} units",
            hint="nothing was written; this is a fault of the export, not of the data",
        )
