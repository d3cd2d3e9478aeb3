"""Parity: proof that the graph is the trained model, and the gate that stops one that is not.

The Python pipeline and the graph answer the same raw requests, sorted into cases:

- ``held-out``: every held-out row; where nothing is held out, every series on every day of the horizon;
- ``unknown-keys``: keys unknown one by one, all at once, and in a combination that no series has;
- ``nulls``: every covariate absent;
- ``edge-dates``: known series on the first and last day, a day beside each, and on days centuries away.

Covariates take their extremes as well as the values of the panel. Rules:

1. Each of the three forecasts may differ by ``LIMIT`` on the log scale, log(1 + units). A relative error
   would explode near zero, an absolute one would say nothing about large sales.
2. The flags must be equal.
3. All of it is run in batches of each of ``BATCHES`` rows: below 64 rows, and at odd sizes, the runtime
   takes other paths. Consumers pad to multiples of 64, and small batches see at most ``MOST_SMALL_ROWS``.

The certificate says what was compared on which runtime and numeric class; without one there is no bundle.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from adapters.onnx_model import OnnxModel
from schemas.contract import INT64_MAX
from schemas.errors import RefusedByRule
from scoring.arrays import BATCH_MULTIPLE
from scoring.model import Array
from trainer.dataset import IN_HORIZON, KNOWN_SERIES, OUTPUTS, SALES, SALES_P10, SALES_P90
from trainer.estimator import Forecaster
from trainer.keys import Float32s, Ints, KeyKind, Keys
from trainer.panel import day_of
from trainer.requests import Forecasts, Requests

LIMIT = 2e-6
"""Largest difference on the log scale. Sums are exact (``trainer.sums``), and the rounding of answers to
float32 explains 6e-8; the rest is for exponentials that another machine rounds otherwise."""

BATCHES = (1, 7, 64, 256)

MOST_SMALL_ROWS = 200_000
"""Rows of a case that are run in small batches; more are thinned evenly. One at a time costs 50 µs."""

UNKNOWN_TEXT = "\u2400 unknown"
"""A key value that no panel has."""

FAR_DAYS = (-719_162, 0, 2_932_896)
"""The first day that a date can have, 1970-01-01, and the last one."""


@dataclass(frozen=True)
class Agreement:
    """What was compared: rows by case, and the largest difference on the log scale."""

    rows: Mapping[str, int]
    max_difference: float


def cases(forecaster: Forecaster, held: Requests) -> dict[str, Requests]:
    """The requests to compare on, by case; ``held`` are the held-out rows, or stand-ins."""
    rows = np.arange(len(held))
    some = held.take(rows[:: max(len(rows) // 64, 1)][:64])
    return {
        "held-out": held,
        "unknown-keys": unknown_requests(forecaster, held),
        "nulls": _without_covariates(some),
        "edge-dates": _at_edges(forecaster, some, held),
    }


def unknown_requests(forecaster: Forecaster, held: Requests) -> Requests:
    """Requests with unknown keys, on every day of the horizon and one day before and after it.

    Flags alternate and numbers are drawn from the held-out rows, in turn.
    """
    days = forecaster.cutoff_day + np.arange(forecaster.horizon + 2)
    tuples = list(_unknown_tuples(forecaster.keys))
    count = len(tuples) * len(days)
    turn = np.arange(count)
    return Requests(
        columns={
            name: [values[position] for values in tuples for _ in days]
            for position, name in enumerate(forecaster.keys.names)
        },
        days=np.tile(days, len(tuples)),
        covariates={
            name: (turn // (2**position) % 2).astype(np.float32)
            if name not in forecaster.numbers
            else np.resize(held.covariates[name], count)
            for position, name in enumerate(forecaster.covariates)
        },
    )


def _without_covariates(requests: Requests) -> Requests:
    nothing = np.full(len(requests), np.nan, dtype=np.float32)
    return Requests(requests.columns, requests.days, dict.fromkeys(requests.covariates, nothing))


def _at_edges(forecaster: Forecaster, requests: Requests, held: Requests) -> Requests:
    first, last = forecaster.cutoff_day + 1, forecaster.cutoff_day + forecaster.horizon
    days = np.array([first - 1, first, last, last + 1, *FAR_DAYS])
    rows = np.repeat(np.arange(len(requests)), len(days))
    spread = requests.take(rows)
    turn = np.arange(len(rows))
    covariates = {
        name: _extremes(held.covariates[name], turn)
        if name in forecaster.numbers
        else (turn // len(days) % 2).astype(np.float32)
        for name in spread.covariates
    }
    return Requests(spread.columns, np.tile(days, len(requests)), covariates)


def _extremes(values: Float32s, turn: Ints) -> Float32s:
    there = values[np.isfinite(values)]
    low, high = (there.min(), there.max()) if len(there) else (0.0, 1.0)
    return np.asarray([low, high, np.nan], dtype=np.float32)[turn % 3]


def run_graph(
    model: OnnxModel, forecaster: Forecaster, requests: Requests, date_field: str, batch: int
) -> Forecasts:
    """The graph's answers to the requests, run in batches of so many rows."""
    feeds = feeds_of(forecaster, requests, date_field)
    parts = []
    for start in range(0, len(requests), batch):
        part = {name: values[start : start + batch] for name, values in feeds.items()}
        parts.append(model.run(part, OUTPUTS))
    merged = [np.concatenate(part) for part in zip(*parts, strict=True)]
    answers = dict(zip(OUTPUTS, merged, strict=True))
    return Forecasts(**{name: np.asarray(values) for name, values in answers.items()})


def feeds_of(forecaster: Forecaster, requests: Requests, date_field: str) -> dict[str, Array]:
    """The graph's inputs for requests, as a consumer gathers them from a request's JSON."""
    feeds: dict[str, Array] = {}
    for name, kind in zip(forecaster.keys.names, forecaster.keys.kinds, strict=True):
        dtype = np.int64 if kind is KeyKind.WHOLE else np.object_
        feeds[name] = np.array(list(requests.columns[name]), dtype=dtype)
    feeds[date_field] = requests.days
    for name in forecaster.covariates:
        values = requests.covariates[name]
        feeds[name] = values if name in forecaster.numbers else np.nan_to_num(values) > 0.5
    return feeds


def compare(
    model: OnnxModel, forecaster: Forecaster, asked: Mapping[str, Requests], date_field: str
) -> Agreement:
    """How well graph and Python agree. Raises RefusedByRule with the worst row where they do not."""
    largest = 0.0
    for case, requests in asked.items():
        python = forecaster.predict(requests)
        thinned = np.arange(0, len(requests), -(-len(requests) // MOST_SMALL_ROWS))
        fewer, python_of_fewer = requests.take(thinned), python.take(thinned)
        for batch in BATCHES:
            is_small = batch < BATCH_MULTIPLE
            rows, meant = (fewer, python_of_fewer) if is_small else (requests, python)
            graph = run_graph(model, forecaster, rows, date_field, batch)
            where = f"{case}, batches of {batch}"
            largest = max(largest, _difference(rows, meant, graph, where))
    return Agreement({case: len(requests) for case, requests in asked.items()}, largest)


def _difference(requests: Requests, python: Forecasts, graph: Forecasts, where: str) -> float:
    largest = 0.0
    for name in (SALES, SALES_P10, SALES_P90):
        found, meant = getattr(graph, name), getattr(python, name)
        with np.errstate(invalid="ignore"):
            difference = np.abs(np.log1p(found.astype(np.float64)) - np.log1p(meant))
        worst = int(np.argmax(np.nan_to_num(difference, nan=np.inf)))
        if not difference[worst] <= LIMIT:
            raise _refusal(
                f"{name} is {found[worst]:.6g} where Python answers {meant[worst]:.6g}, "
                f"a difference of {difference[worst]:.2g} on the log scale (limit {LIMIT:g})",
                requests,
                worst,
                where,
            )
        largest = max(largest, float(difference[worst]))
    for name in (KNOWN_SERIES, IN_HORIZON):
        found, meant = getattr(graph, name), getattr(python, name)
        wrong = np.flatnonzero(found != meant)
        if len(wrong):
            row = int(wrong[0])
            said = f"{name} is {found[row]} where Python says {meant[row]}"
            raise _refusal(said, requests, row, where)
    return largest


def _refusal(what: str, requests: Requests, row: int, where: str) -> RefusedByRule:
    keys = ", ".join(f"{name} {values[row]!r}" for name, values in requests.columns.items())
    given = "".join(f", {name} {values[row]:g}" for name, values in requests.covariates.items())
    return RefusedByRule(
        f"the exported graph is not the trained model: {what}, for {keys} on "
        f"{day_of(requests.days[row])}{given} ({where})",
        hint="nothing was written; this is a fault of the export, not of the data",
    )


def _unknown_tuples(keys: Keys) -> Iterator[tuple[str | int, ...]]:
    """Key values that no series has: one unknown at a time, all, and a new combination."""
    example = [values[0] for values in keys.vocabulary]
    unknown = [_unknown(values) for values in keys.vocabulary]
    for position in range(len(keys.names)):
        yield tuple(unknown[i] if i == position else value for i, value in enumerate(example))
    yield tuple(unknown)
    if (new := _new_combination(keys)) is not None:
        yield new


def _unknown(values: tuple[str, ...] | tuple[int, ...]) -> str | int:
    newest: str | int = values[-1]  # they are sorted
    if not isinstance(newest, int):
        return UNKNOWN_TEXT
    return newest + 1 if newest < INT64_MAX else int(values[0]) - 1


def _new_combination(keys: Keys) -> tuple[str | int, ...] | None:
    """The first combination of known values that no series has."""
    cells = set(keys.cells.tolist())
    shape = tuple(len(values) for values in keys.vocabulary)
    # Of one more combination than there are series, one is new, if there are so many.
    for number in range(min(math.prod(shape), len(cells) + 1)):
        codes = np.asarray(np.unravel_index(number, shape))
        if int(keys.cell_of(codes[:, None])[0]) not in cells:
            return tuple(
                values[int(code)] for values, code in zip(keys.vocabulary, codes, strict=True)
            )
    return None
