"""The evidence: how good a model is, for whom, and what it rests on; ``evidence.json`` of a bundle.

Gates read it, so it is part of the wire language. Rules:

1. Metrics are those of ``Scores``, over open days alone: a closed day says nothing of demand. How many
   rows were left out is said beside them.
2. Predictors are named: ``model``, ``structural-base``, baselines such as ``lag-7`` and
   ``mean-28-log``, and the references that the dataset carries. A reference is scored where it is
   there, so its ``rows`` can be fewer; compare only what has equal rows.
3. What cannot be computed is absent: WAPE and bias where nothing was sold, intervals of a predictor that
   has none.
4. Numbers are rounded to six significant digits, and keys are sorted: the same training gives the
   same bytes.
"""

from typing import Literal

import msgspec

from schemas.errors import ModelwireError

MODEL = "model"
"""The predictor that the bundle holds."""

BASELINES = ("lag-", "mean-")
"""How the names of predictors begin that read nothing but past sales."""

SliceKind = Literal["key", "attribute", "volume", "age"]


class Scores(msgspec.Struct, frozen=True, omit_defaults=True):
    """Metrics of one predictor over ``rows`` rows.

    ``rmsle`` and ``nwrmsle`` are on the log scale, the second weighted by series; ``wape`` and ``bias``
    are shares of the units sold; ``pinball`` is in units; ``coverage`` is the share of rows inside
    p10 … p90.
    """

    rows: int
    rmsle: float
    nwrmsle: float
    wape: float | None = None
    bias: float | None = None
    pinball: float | None = None
    coverage: float | None = None


class Step(msgspec.Struct, frozen=True):
    """The scores so many days after the origin, by predictor."""

    step: int
    scores: dict[str, Scores]


class Group(msgspec.Struct, frozen=True, omit_defaults=True):
    """One value of a slice: ``series`` that it has, ``units`` that they sold, scores by predictor.

    ``pooled`` is above 0 where the group stands for so many values, too small to be told one by one;
    ``value`` is empty then, and also for series whose attribute is unknown.
    """

    value: str
    series: int
    units: float
    scores: dict[str, Scores]
    pooled: int = 0


class Slice(msgspec.Struct, frozen=True):
    """Scores by the values of a key or an attribute, by volume, or by age.

    ``volume`` has the quintiles ``1`` (smallest) … ``5`` of the mean units of a series in the 28 days up
    to the origin, ``age`` ``new`` (first sale in those days), ``older`` and ``unsold``.
    """

    name: str
    kind: SliceKind
    groups: tuple[Group, ...]


class Quantile(msgspec.Struct, frozen=True):
    """The quantile at ``nominal``, and the share of actuals ``below`` it and ``at_or_below`` it.

    Sales are counts: where many days sell nothing the two lie apart, and a quantile is right when
    ``nominal`` lies between them.
    """

    nominal: float
    below: float
    at_or_below: float


class Examined(msgspec.Struct, frozen=True, kw_only=True):
    """Days after an origin that no part of a training saw, ``first`` … ``last`` (ISO dates).

    ``rows`` were scored; ``closed_rows`` were left out. Fields other than these two count open days.
    ``calibrated_on`` are the origins (ISO dates, the newest first) of the folds whose residuals gave the
    intervals and the other quantiles; without any there are no quantiles of a fold.
    """

    origin: str
    first: str
    last: str
    rows: int
    closed_rows: int
    scores: dict[str, Scores]
    steps: tuple[Step, ...]
    slices: tuple[Slice, ...]
    calibration: tuple[Quantile, ...] = ()
    calibrated_on: tuple[str, ...] = ()


class BacktestRecord(msgspec.Struct, frozen=True):
    """What each contender scored over all folds, which was ``chosen``, and each fold, the newest first.

    An interval of a fold has quantiles learned on the folds before it, so the oldest has none.
    """

    chosen: str
    scores: dict[str, Scores]
    folds: tuple[Examined, ...]


class Effect(msgspec.Struct, frozen=True, omit_defaults=True):
    """How much the RMSLE rises where a field, or a group of ``features``, is shuffled among rows.

    ``rise`` is the mean over the repeats, ``deviation`` their standard deviation.
    """

    name: str
    rise: float
    deviation: float
    features: tuple[str, ...] = ()


class Importance(msgspec.Struct, frozen=True):
    """Permutation importance on ``rows`` rows, whose ``rmsle`` is that of the model as it is.

    ``fields`` are raw request fields, ``groups`` columns that the regressor reads; largest first. It was
    measured ``on`` the days ``first`` … ``last`` (ISO dates) of the holdout, or of the newest fold of the
    backtest, and then on the model as it was trained for that fold.
    """

    rows: int
    repeats: int
    rmsle: float
    fields: tuple[Effect, ...]
    groups: tuple[Effect, ...]
    on: Literal["holdout", "newest fold"] = "holdout"
    first: str = ""
    last: str = ""


class Unchanged(msgspec.Struct, frozen=True):
    """Something that must not depend on the future: whether it came out bit for bit the same."""

    what: str
    same: bool


class Leakage(msgspec.Struct, frozen=True):
    """The leakage test: everything after an origin was replaced by noise, and ``checks`` were compared.

    ``scrambled`` names what was replaced. ``passed`` only where every check is the same.
    """

    passed: bool
    scrambled: tuple[str, ...]
    checks: tuple[Unchanged, ...]


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """The evidence of one bundle.

    ``unit_share`` is the share of the held-out units that belong to known series. ``notes`` are
    sentences on what was found in the data. Unknown keys are accepted: later versions add some.
    """

    format: Literal["modelwire.evidence/1"] = "modelwire.evidence/1"
    preset: str
    loss: str
    series: int
    features: tuple[str, ...]
    unit_share: float | None = None
    holdout: Examined | None = None
    backtest: BacktestRecord
    importance: Importance | None = None
    leakage: Leakage | None = None
    notes: tuple[str, ...] = ()

    @property
    def headline(self) -> Examined | None:
        """What speaks for the model: the holdout, else the newest fold; None where there is neither."""
        if self.holdout is not None:
            return self.holdout
        return self.backtest.folds[0] if self.backtest.folds else None


class Accuracy(msgspec.Struct, frozen=True, omit_defaults=True):
    """Metrics of one predictor over ``rows`` rows: ``rmse`` and ``mae`` in units of the output."""

    rows: int
    rmse: float
    mae: float
    wape: float | None = None
    bias: float | None = None
    rmsle: float | None = None


class ForeignEvidence(msgspec.Struct, frozen=True, kw_only=True):
    """The evidence of a model from another tool, on ``rows`` rows of golden data.

    ``outputs`` maps each output that has actuals to its predictors, ``model`` and a constant. Whether the
    model was trained on these rows is not known.
    """

    format: Literal["modelwire.foreign-evidence/1"] = "modelwire.foreign-evidence/1"
    rows: int
    outputs: dict[str, dict[str, Accuracy]]


def encode_evidence(evidence: Evidence | ForeignEvidence) -> bytes:
    """The bytes that are stored: keys sorted, indented, one final newline."""
    compact = msgspec.json.encode(evidence, order="deterministic")
    return msgspec.json.format(compact, indent=2) + b"\n"


def decode_evidence(raw: bytes) -> Evidence:
    """Evidence from its bytes. Raises ModelwireError with the key that is wrong."""
    try:
        return msgspec.json.decode(raw, type=Evidence)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ModelwireError(
            f"the evidence is not valid: {error}",
            hint="make the bundle again; a bundle's files are never edited",
        ) from error
