"""Evidence of a foreign model: its answers to the golden data against what came.

The contract file names the column of actuals for an output (``actual``). Nobody says here whether
training saw those rows, so these are figures of golden data and no holdout. Metrics, over the rows with
an actual ``a`` and an answer ``p``:

- ``rmse``, ``mae``: root of the mean square, and mean size, of ``p - a``, in units of the output;
- ``wape``, ``bias``: sum of ``|p - a|``, and of ``p - a``, over the sum of ``a``. Both need actuals of at
  least 0 that are not all 0;
- ``rmsle``: as ``rmse``, of ``log(1 + p)`` and ``log(1 + a)``. It needs both of at least 0.

Beside the answers stands their mean actual as a predictor: who knew nothing else could say that.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from schemas.evidence import MODEL, Accuracy, ForeignEvidence
from scoring.arrays import OutputRow
from trainer.golden_data import GoldenData

DIGITS = 6

MEAN = "mean of the actuals"

METRICS = ("rmse", "mae", "wape", "bias", "rmsle")

Floats = NDArray[np.float64]


def evidence_of_golden(data: GoldenData, answers: Sequence[OutputRow]) -> ForeignEvidence | None:
    """The evidence; None where the contract file names no actuals."""
    if not data.actuals:
        return None
    return ForeignEvidence(
        rows=len(data.rows),
        outputs={
            name: _predictors(actual, np.array([float(getattr(each, name)) for each in answers]))
            for name, actual in data.actuals.items()
        },
    )


def _predictors(actual: Floats, answers: Floats) -> dict[str, Accuracy]:
    there = np.isfinite(actual)
    actual, answers = actual[there], answers[there]
    return {
        MODEL: accuracy(actual, answers),
        MEAN: accuracy(actual, np.full(len(actual), actual.mean())),
    }


def accuracy(actual: Floats, predicted: Floats) -> Accuracy:
    """The metrics of one predictor, for at least one row."""
    error = predicted - actual
    wape = bias = rmsle = None
    if (actual >= 0).all():
        if (total := actual.sum()) > 0:
            wape, bias = _rounded(np.abs(error).sum() / total), _rounded(error.sum() / total)
        if (predicted >= 0).all():
            rmsle = _rounded(np.sqrt(((np.log1p(predicted) - np.log1p(actual)) ** 2).mean()))
    return Accuracy(
        rows=len(actual),
        rmse=_rounded(np.sqrt((error**2).mean())),
        mae=_rounded(np.abs(error).mean()),
        wape=wape,
        bias=bias,
        rmsle=rmsle,
    )


def evidence_in_words(evidence: ForeignEvidence | None) -> Iterator[str]:
    """Lines of a card in Markdown."""
    if evidence is None:
        yield (
            "Not measured. The golden data holds no actuals: the contract file names the column of what "
            "came by `actual`, in the table of an output."
        )
        return
    yield (
        "On the rows of the golden data that have an actual. Whether the model was trained on them "
        "nobody said."
    )
    yield ""
    yield f"| output | predictor | {' | '.join(METRICS)} | rows |"
    yield f"|---|---|{'---:|' * (len(METRICS) + 1)}"
    for output, predictors in evidence.outputs.items():
        for name, found in sorted(predictors.items(), key=lambda item: item[0] != MODEL):
            figures = [getattr(found, metric) for metric in METRICS]
            shown = ["–" if each is None else f"{each:.4g}" for each in figures]
            yield f"| {output} | {name} | {' | '.join(shown)} | {found.rows:,} |"


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
