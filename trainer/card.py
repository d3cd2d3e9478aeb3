"""The model card: what a reader of the bundle should know before trusting its answers."""

from schemas.contract import Contract
from schemas.manifest import Holdout, Lineage, Parity
from trainer.dataset import Dataset
from trainer.estimator import Forecaster, Preset
from trainer.evaluation import Predictor

_WHAT = {
    Preset.PLAIN: (
        "A ridge regression on three means of past daily sales in logs: of the series over half a "
        "year, of the series over four weeks, and of the series on the weekday asked for."
    ),
    Preset.FULL: (
        "Gradient-boosted trees (scikit-learn's HistGradientBoostingRegressor) that correct a "
        "structural base of level and weekday effect, from the history of the series and of each "
        "value of its keys."
    ),
}

_CARD = """\
# {model}: {preset} on {name}

{what} It forecasts the {unit} of one series on one day. All features are inside the ONNX graph; it
reads only the fields below.

## Data

{name}. Licence: {licence}. {attribution}

- {series:,} known series ({keys}); training saw sales up to {cutoff}.
- Source `{source}`, {digest}.

## Answers

Fields: {fields}. It answers for {first} … {last} and no other day. Answers: {outputs}.

## How good it is

The last {days} days of the panel ({held_first} … {held_last}, {rows:,} rows) were held out:
training, its features and the choice of known series never saw them. The known series made
{unit_share:.0%} of the units sold in these days.

| predictor | RMSLE | WAPE | bias |
|---|---|---|---|
{scores}

`mean-28-log` answers the mean of the last 28 days on the log scale, `lag-7` the same weekday of the
week before the cutoff. A bias of -50 % means that the forecasts add up to half of what was sold.

The graph was compared with the Python pipeline on {parity_rows:,} rows: the largest difference is
{parity:.1e} on the log scale (limit {limit:.0e}), on onnxruntime {onnxruntime}, {numeric_class}.

## Intended use

Ranking and relative levels of daily demand, day by day and series by series, as an example of a
model that is released, replaced and audited on a stream.

## Limits

- The target is log(1 + units) with squared loss, so an answer is a mean of logs turned back: below
  the mean of units, far below it for series that sell rarely. **Sums of answers are too low** (see
  the bias); do not add them up to plan volumes.
- It knows weekdays and recent history, not promotions, prices, holidays or stock-outs.
- A series unknown at the cutoff is answered from the mean of the series that share a key with it
  and says so (`known_series` is 0); how wrong those answers are was not measured here.
- Its history ends at the cutoff: the error grows with every day after it.
"""


def model_card(
    dataset: Dataset,
    forecaster: Forecaster,
    contract: Contract,
    lineage: Lineage,
    holdout: Holdout,
    parity: Parity,
    unit_share: float,
) -> bytes:
    """The card as Markdown, UTF-8. ``unit_share`` is ``Panel.unit_share``."""
    source = lineage.sources[0]
    horizon = contract.horizon
    assert horizon is not None
    preset = Preset(lineage.preset)
    text = _CARD.format(
        model=dataset.model,
        preset=preset.value,
        name=dataset.name,
        what=_WHAT[preset],
        unit=dataset.unit,
        licence=dataset.licence,
        attribution=dataset.attribution,
        series=forecaster.keys.series,
        keys=" × ".join(forecaster.keys.names),
        cutoff=lineage.cutoff,
        source=source.name,
        digest=source.digest,
        fields=", ".join(f"`{field.name}` ({field.type})" for field in contract.fields),
        outputs="; ".join(f"`{output.name}`: {output.description}" for output in contract.outputs),
        first=horizon.first,
        last=horizon.last,
        days=dataset.holdout,
        held_first=holdout.first,
        held_last=holdout.last,
        rows=holdout.rows,
        unit_share=unit_share,
        scores="\n".join(_score_line(each, holdout.metrics[each]) for each in Predictor),
        parity_rows=parity.rows,
        parity=parity.max_difference,
        limit=parity.limit,
        onnxruntime=parity.onnxruntime,
        numeric_class=parity.numeric_class,
    )
    return text.encode()


def _score_line(predictor: Predictor, metrics: dict[str, float]) -> str:
    rmsle, wape, bias = metrics["rmsle"], metrics["wape"], metrics["bias"]
    return f"| {predictor} | {rmsle:.4f} | {wape:.4f} | {bias:+.1%} |"
