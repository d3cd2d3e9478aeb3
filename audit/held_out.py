"""The score of a version on the held-out days of what a request names: its series, and each of its keys.

1. The rows are those of the bundle's holdout, with what was sold and what its graph answered. Keys are
   the contract's text fields.
2. Scores are over all rows of the holdout that have the request's value; what evidence says of a slice is
   over open days, and so can differ where shops close.
"""

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class HeldOutScore(msgspec.Struct, frozen=True, kw_only=True):
    """Over ``rows`` rows that have these ``keys``: scores, and the means in units of a day.

    ``wape`` and ``bias`` are shares of the units sold, None where nothing was sold.
    """

    keys: dict[str, str]
    rows: int
    rmsle: float
    wape: float | None
    bias: float | None
    mean_actual: float
    mean_answer: float


def held_out_scores(
    columns: Mapping[str, Sequence[object]],
    actual: Floats,
    answers: Floats,
    keys: Mapping[str, str],
) -> tuple[HeldOutScore, ...]:
    """Of all ``keys`` together first, then of each alone; without rows a score is left out.

    ``columns`` are the keys' values in each row, ``actual`` and ``answers`` ``[N]`` units.
    """
    matches = {
        name: np.array([each == value for each in columns[name]], dtype=bool)
        for name, value in keys.items()
        if name in columns
    }
    choices = [dict(matches)] + [{name: rows} for name, rows in matches.items()] * (
        len(matches) > 1
    )
    found = []
    for chosen in choices:
        if chosen and (rows := np.logical_and.reduce(list(chosen.values()))).any():
            named = {name: keys[name] for name in chosen}
            found.append(_score(named, actual[rows], answers[rows]))
    return tuple(found)


def _score(keys: dict[str, str], actual: Floats, answers: Floats) -> HeldOutScore:
    left = np.log1p(np.maximum(answers, 0.0)) - np.log1p(np.maximum(actual, 0.0))
    sold = float(actual.sum())
    return HeldOutScore(
        keys=keys,
        rows=len(actual),
        rmsle=float(np.sqrt(np.mean(left**2))),
        wape=float(np.abs(answers - actual).sum() / sold) if sold > 0 else None,
        bias=float((answers - actual).sum() / sold) if sold > 0 else None,
        mean_actual=float(actual.mean()),
        mean_answer=float(answers.mean()),
    )
