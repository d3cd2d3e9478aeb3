"""Golden vectors: requests with the answers that the Python pipeline gives to them.

Whoever loads the model answers them again and compares, so they go through the same decoder as
requests do and lie inside the contract. They exercise every branch of it: known series on days drawn by a
seeded generator, the first and the last day of the horizon, every kind of unknown key, and for each
covariate its values, its extremes, null and absence.
"""

from typing import Any

import msgspec
import numpy as np

from schemas.errors import RefusedByRule
from schemas.manifest import GoldenVector, Tolerance
from trainer.dataset import IN_HORIZON, KNOWN_SERIES, SALES, SALES_P10, SALES_P90
from trainer.estimator import Forecaster
from trainer.panel import day_of
from trainer.parity import LIMIT, unknown_requests
from trainer.requests import Forecasts, Requests

KNOWN = 64
"""Vectors of known series, beside those on the first and last day."""

TOLERANCE = Tolerance(absolute=2 * LIMIT, relative=2 * LIMIT)
"""A difference of ``d`` on the scale log(1 + x) is one of about ``d + d * x``: the limit of parity,
twice, so that a machine of another numeric class may round otherwise."""


def golden_requests(forecaster: Forecaster, held: Requests, seed: int) -> Requests:
    """The requests to answer, in a fixed order for a seed."""
    generator = np.random.default_rng(seed)
    first, last = forecaster.cutoff_day + 1, forecaster.cutoff_day + forecaster.horizon
    drawn = np.sort(generator.choice(len(held), size=min(len(held), KNOWN), replace=False))
    known = held.take(drawn)
    edges = known.take(np.repeat(np.arange(min(4, len(known))), 2))
    edges = Requests(edges.columns, np.tile([first, last], len(edges) // 2), edges.covariates)
    unknown = unknown_requests(forecaster, held)
    at_edges = np.flatnonzero((unknown.days == first) | (unknown.days == last))
    parts = [known, edges, unknown.take(at_edges)]
    parts += [_varied(known, name, value) for name, value in _variants(forecaster, held)]
    return joined(parts)


def _variants(forecaster: Forecaster, held: Requests) -> list[tuple[str, float]]:
    """For each covariate the values that a request may find special; NaN is null or absent."""
    found = []
    for name in forecaster.covariates:
        values = held.covariates[name]
        there = values[np.isfinite(values)]
        extremes = [float(there.min()), float(there.max())] if len(there) else [0.0]
        special = extremes if name in forecaster.numbers else [0.0, 1.0]
        found += [(name, value) for value in (*special, float("nan"), float("nan"))]
    return found


def _varied(known: Requests, name: str, value: float) -> Requests:
    one = known.take(np.array([0]))
    return Requests(
        one.columns, one.days, {**one.covariates, name: np.array([value], dtype=np.float32)}
    )


def joined(parts: list[Requests]) -> Requests:
    """The requests of all parts, in order."""
    first = parts[0]
    return Requests(
        columns={
            name: [value for part in parts for value in part.columns[name]]
            for name in first.columns
        },
        days=np.concatenate([part.days for part in parts]),
        covariates={
            name: np.concatenate([part.covariates[name] for part in parts])
            for name in first.covariates
        },
    )


def golden_lines(
    forecaster: Forecaster, requests: Requests, forecasts: Forecasts, date_field: str
) -> bytes:
    """The content of ``golden.jsonl``: one vector a line. What is missing is null, or absent in turn."""
    lines = []
    for row, day in enumerate(requests.days):
        inputs: dict[str, Any] = {name: values[row] for name, values in requests.columns.items()}
        inputs[date_field] = day_of(day).isoformat()
        for name in forecaster.covariates:
            value = float(requests.covariates[name][row])
            if not np.isnan(value):
                inputs[name] = value if name in forecaster.numbers else value > 0.5
            elif row % 2:
                inputs[name] = None
        vector = GoldenVector(
            inputs=msgspec.Raw(msgspec.json.encode(inputs)),
            outputs={
                **{
                    name: float(getattr(forecasts, name)[row])
                    for name in (SALES, SALES_P10, SALES_P90)
                },
                KNOWN_SERIES: int(forecasts.known_series[row]),
                IN_HORIZON: int(forecasts.in_horizon[row]),
            },
        )
        lines.append(msgspec.json.encode(vector))
    return b"\n".join(lines) + b"\n"


def check_tolerance(python: Forecasts, graph: Forecasts) -> None:
    """Raises RefusedByRule where the graph leaves the tolerance that the manifest promises."""
    for name in (SALES, SALES_P10, SALES_P90):
        meant = getattr(python, name)
        difference = np.abs(getattr(graph, name) - meant)
        if not (difference <= TOLERANCE.absolute + TOLERANCE.relative * np.abs(meant)).all():
            raise RefusedByRule(
                f"the exported graph leaves the tolerance of its golden vectors: a difference of "
                f"{difference.max():.3g} units of {name}",
                hint="nothing was written; this is a fault of the export, not of the data",
            )
