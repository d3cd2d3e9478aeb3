"""The model card: what a reader of the bundle should know before trusting its answers, as Markdown.

``trainer.card_page`` says the same with plots. What comes from the data or the configuration is
escaped: it can neither break a table nor become markup.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from schemas.contract import Contract
from schemas.evidence import (
    BASELINES,
    MODEL,
    Effect,
    Evidence,
    Examined,
    Quantile,
    Scores,
    Slice,
    Step,
)
from schemas.manifest import Lineage, Parity
from trainer.dataset import Dataset
from trainer.estimator import Loss, Preset
from trainer.measured import calibration_in_words, importance_in_words
from trainer.training import ALONE, LEAST_FOLD_PAST, LEAST_FOLD_TEST

NOTHING = "–"
MOST_GROUPS = 12
"""Groups of a slice that the Markdown shows; the page and ``evidence.json`` have all."""

MOST_STEPS = 16
"""Days ahead that the Markdown shows."""


@dataclass(frozen=True)
class Subject:
    """What a card is about: everything that the bundle says of itself but its bytes."""

    dataset: Dataset
    contract: Contract
    lineage: Lineage
    parity: Parity
    evidence: Evidence
    known_days: int
    """Days of the panel up to the cutoff."""


def what_it_is(subject: Subject) -> str:
    """The model in two sentences."""
    evidence = subject.evidence
    unit = subject.dataset.unit
    ends = f"It forecasts the {unit} of one series on one day, with an interval from p10 to p90."
    if evidence.preset == Preset.PLAIN:
        how = "A ridge regression on means of past daily sales in logs."
    elif evidence.backtest.chosen == ALONE:
        how = "A structural base of level, weekday effects and effects of flags for each series"
        how += (
            ": boosted trees did not beat it in the backtest, so none are published."
            if evidence.backtest.folds
            else "."
        )
    elif evidence.loss == Loss.COUNT:
        how = "Gradient-boosted trees that forecast counts by Poisson's loss, from the history."
    else:
        how = (
            "Gradient-boosted trees that correct a structural base of level, weekday effects and effects "
            "of flags, from the history of the series and of each value of its keys."
        )
    return f"{how} {ends}"


def how_it_was_measured(subject: Subject, examined: Examined) -> str:
    """Which days were scored."""
    evidence = subject.evidence
    if evidence.holdout is None:
        first = (
            "Nothing was held out after the cutoff, so these are the newest fold of the backtest: "
        )
    else:
        first = "Training, its features and the choice of known series never saw these days: "
    told = f"{first}{examined.first} … {examined.last}, {examined.rows:,} rows"
    closed = f"; {examined.closed_rows:,} rows of closed days are left out" * bool(
        examined.closed_rows
    )
    share = ""
    if evidence.unit_share is not None and evidence.holdout is not None:
        share = f" The known series made {evidence.unit_share:.1%} of the units sold then."
    return f"{told}{closed}.{share}"


def limits(subject: Subject) -> Iterator[str]:
    """What the model is not good for, one sentence or two each."""
    evidence = subject.evidence
    examined = evidence.headline
    bias = None
    if examined is not None and "model" in examined.scores:
        bias = examined.scores["model"].bias
    said = "" if bias is None else f" (measured: {bias:+.1%})"
    if evidence.loss == Loss.COUNT:
        yield f"It forecasts means of counts. Sums of answers are off by the bias{said}."
    else:
        yield (
            "It learned log(1 + units) with squared loss, so an answer is a mean of logs turned back and "
            "lies below the mean of units, far below it for series that sell rarely. Sums of answers are "
            f"off by the bias{said}: do not add them up to plan volumes without correcting it."
        )
    yield _known_in_advance(subject)
    yield (
        "A series unknown at the cutoff is answered from the mean of the series that share a key with "
        "it and says so (known_series is 0); how wrong those answers are was not measured."
    )
    yield "Its history ends at the cutoff; answers for later days are worse."


def _known_in_advance(subject: Subject) -> str:
    dataset = subject.dataset
    read = list(dataset.covariates)
    if subject.evidence.preset == Preset.PLAIN:
        read = [dataset.closed] if dataset.closed else []
    unread = [name for name in dataset.covariates if name not in read]
    told = "It knows weekdays and history, not promotions, prices or stock-outs."
    if read:
        told = f"Of what is known in advance it reads only {', '.join(read)}."
    if unread:
        told += f" A request may carry {', '.join(unread)}, which changes nothing."
    return told


def backtest_in_words(subject: Subject) -> str:
    """How the backtest was made, or why there is none."""
    backtest, parent = subject.evidence.backtest, subject.lineage.parent
    if parent:
        return (
            f"A refresh: the regressor is that of bundle {parent}, whose backtest is in its own card. "
            "Only the tables are of this cutoff."
        )
    if not backtest.folds:
        return _why_no_backtest(subject)
    origins = ", ".join(fold.origin for fold in backtest.folds)
    return (
        f"Each fold was trained up to an earlier day ({origins}) and answered for the days after it. "
        f"Published is {backtest.chosen}, the model below."
    )


def _why_no_backtest(subject: Subject) -> str:
    horizon, known = subject.dataset.horizon, subject.known_days
    # With a horizon of a few days several folds together make the least test.
    folds = -(-LEAST_FOLD_TEST // horizon)
    need = LEAST_FOLD_PAST + (LEAST_FOLD_TEST if folds == 1 else horizon * folds)
    if known >= need:
        return "There is no backtest: the days that it would forecast are all closed."
    told = f"it needs {need} days up to the cutoff, and {subject.lineage.cutoff} has {known}"
    held = subject.evidence.holdout
    days = (
        0 if held is None else (date.fromisoformat(held.last) - date.fromisoformat(held.first)).days
    )
    if held is not None and known + days + 1 >= need:
        return f"There is no backtest, since the cutoff is early: {told}."
    return f"There is no backtest, since the panel is short: {told}."


def beaten_by(subject: Subject, examined: Examined) -> str:
    """A remark where a plain baseline is better than the model on the days scored; else empty."""
    name = "wape" if subject.evidence.loss == Loss.COUNT else "rmsle"
    own = getattr(examined.scores.get(MODEL), name, None)
    if own is None:
        return ""
    better = {
        each: value
        for each, scores in examined.scores.items()
        if each.startswith(BASELINES)
        and (value := getattr(scores, name)) is not None
        and value < own
    }
    if not better:
        return ""
    best = min(better, key=lambda each: better[each])
    return (
        f"A plain baseline is better on these days: {best} has a {name.upper()} of {better[best]:.4f}, "
        f"the model {own:.4f}. Look at the backtest and at more days before you release it."
    )


def verdicts(subject: Subject) -> Iterator[str]:
    """What was proved of the bundle."""
    parity, leakage = subject.parity, subject.evidence.leakage
    yield (
        f"The graph was compared with the Python pipeline on {parity.rows:,} rows: the largest "
        f"difference is {parity.max_difference:.1e} on the log scale (limit {parity.limit:.0e}), on "
        f"onnxruntime {parity.onnxruntime}, {parity.numeric_class}."
    )
    if leakage is None:
        return
    same = sum(check.same for check in leakage.checks)
    if leakage.passed:
        yield (
            f"Leakage test passed: with {', '.join(leakage.scrambled)} replaced by noise on later days, "
            f"{same} of {len(leakage.checks)} checks came out bit for bit the same."
        )
    else:
        changed = ", ".join(check.what for check in leakage.checks if not check.same)
        yield f"LEAKAGE TEST FAILED: days that the training must not see change {changed}."


def figures_of(scores: Scores) -> tuple[str, ...]:
    """The metrics of one predictor as text, in the order of ``METRICS``."""
    return (
        f"{scores.rmsle:.4f}",
        f"{scores.nwrmsle:.4f}",
        NOTHING if scores.wape is None else f"{scores.wape:.4f}",
        NOTHING if scores.bias is None else f"{scores.bias:+.1%}",
        NOTHING if scores.pinball is None else f"{scores.pinball:.3f}",
        NOTHING if scores.coverage is None else f"{scores.coverage:.1%}",
        f"{scores.rows:,}",
    )


METRICS = ("RMSLE", "NWRMSLE", "WAPE", "bias", "pinball", "coverage", "rows")


def value_of(value: str, pooled: int) -> str:
    """How a group of a slice is called."""
    if pooled:
        return f"{pooled:,} smaller ones"
    return value or "(unknown)"


TITLES = {"volume": "volume, quintile of mean units in 28 days", "age": "age of the series"}


def title_of(each: Slice) -> str:
    """The heading of a slice."""
    return TITLES.get(each.kind, each.name)


def model_card(subject: Subject) -> bytes:
    """The card as Markdown, UTF-8."""
    return ("\n".join(_lines(subject)).strip() + "\n").encode()


def _lines(subject: Subject) -> Iterator[str]:
    dataset, lineage, evidence = subject.dataset, subject.lineage, subject.evidence
    yield f"# {_md(dataset.model)}: {_md(evidence.preset)} on {_md(dataset.name)}\n"
    yield f"{_md(what_it_is(subject))} All features are inside the ONNX graph.\n"
    yield "## Data\n"
    yield f"{_md(dataset.name)}. Licence: {_md(dataset.licence or 'not stated')}."
    yield f"{_md(dataset.attribution)}\n"
    keys = " × ".join(dataset.keys)
    what = "the tables are of" if lineage.parent else "training saw"
    yield f"- {evidence.series:,} known series ({_md(keys)}); {what} sales up to {lineage.cutoff}."
    yield from (f"- {_md(source.name)}, `{source.digest}`" for source in lineage.sources)
    yield from (f"- {_md(note)}" for note in evidence.notes)
    yield from _answers(subject.contract)
    examined = evidence.headline
    if examined is not None:
        yield from _goodness(subject, examined)
    yield "\n## Backtest\n"
    yield f"{_md(backtest_in_words(subject))}\n"
    yield from _scores("predictor", evidence.backtest.scores) if evidence.backtest.folds else ()
    if evidence.importance is not None:
        found = evidence.importance
        yield "\n## What it rests on\n"
        yield f"{importance_in_words(found)}\n"
        yield from _effects("request field", found.fields)
        yield ""
        yield from _effects("features", found.groups)
    yield "\n## What was proved\n"
    yield from (f"- {_md(line)}" for line in verdicts(subject))
    yield "\n## Limits\n"
    yield from (f"- {_md(line)}" for line in limits(subject))


def _answers(contract: Contract) -> Iterator[str]:
    yield "\n## Requests and answers\n"
    fields = [
        (field.name, str(field.type), "yes" if field.required else "no", field.description)
        for field in contract.fields
    ]
    yield from _table(("field", "type", "required", "meaning"), fields)
    yield ""
    outputs = [
        (each.name, str(each.type), each.unit, each.description) for each in contract.outputs
    ]
    yield from _table(("output", "type", "unit", "meaning"), outputs)
    if contract.horizon is not None:
        yield f"\nIt answers for {contract.horizon.first} … {contract.horizon.last} and no other day."


def _goodness(subject: Subject, examined: Examined) -> Iterator[str]:
    yield "\n## How good it is\n"
    yield f"{_md(how_it_was_measured(subject, examined))}\n"
    if remark := beaten_by(subject, examined):
        yield f"**{_md(remark)}**\n"
    yield from _scores("predictor", examined.scores)
    yield from _days_ahead(examined.steps)
    yield "\n### Calibration\n"
    yield f"{calibration_in_words(examined, subject.dataset.horizon)}\n"
    yield from _calibration(examined.calibration)
    for each in examined.slices:
        yield f"\n### By {_md(title_of(each))}\n"
        largest = sorted(each.groups, key=lambda group: -group.units)[:MOST_GROUPS]
        shown = [group for group in each.groups if group in largest]
        rows = {
            value_of(group.value, group.pooled): group.scores["model"]
            for group in shown
            if "model" in group.scores
        }
        yield from _scores(each.name, rows)
        if len(shown) < len(each.groups):
            yield f"\nThe {len(shown)} of {len(each.groups)} with the most units."


def _days_ahead(steps: Sequence[Step]) -> Iterator[str]:
    """At most ``MOST_STEPS`` of them, evenly apart, the first and the last among them."""
    if len(steps) < 2:
        return
    last, count = len(steps) - 1, min(MOST_STEPS, len(steps))
    shown = [steps[round(place * last / (count - 1))] for place in range(count)]
    yield "\n### By days ahead\n"
    rows = {str(each.step): each.scores[MODEL] for each in shown if MODEL in each.scores}
    yield from _scores("days ahead", rows)


def _calibration(quantiles: Sequence[Quantile]) -> Iterator[str]:
    if quantiles:
        rows = [
            (f"{each.nominal:.0%}", f"{each.below:.1%}", f"{each.at_or_below:.1%}")
            for each in quantiles
        ]
        yield from _table(("quantile", "actuals below it", "at or below it"), rows, right=2)


def _scores(what: str, scores: Mapping[str, Scores]) -> Iterator[str]:
    rows = [(name, *figures_of(each)) for name, each in model_first(scores).items()]
    yield from _table((what, *METRICS), rows, right=len(METRICS))


def model_first(scores: Mapping[str, Scores]) -> dict[str, Scores]:
    """The same with the model first; order in JSON says nothing."""
    return dict(sorted(scores.items(), key=lambda item: item[0] != "model"))


def _effects(what: str, effects: Iterable[Effect]) -> Iterator[str]:
    rows = [(each.name, f"{each.rise:+.4f}", f"{each.deviation:.4f}") for each in effects]
    yield from _table((what, "rise", "±"), rows, right=2)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], right: int = 0) -> Iterator[str]:
    """The last ``right`` columns hold numbers."""
    aligned = ["---"] * (len(heads) - right) + ["---:"] * right
    yield f"| {' | '.join(_md(head) for head in heads)} |"
    yield f"|{'|'.join(aligned)}|"
    yield from (f"| {' | '.join(_md(cell) for cell in row)} |" for row in rows)


def _md(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    one_line = " ".join(printable(text).split())
    escaped = one_line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|~$])", r"\\\1", escaped)


def printable(text: str) -> str:
    """Text whose control characters, which neither HTML nor Markdown may hold, are shown as such."""
    return "".join(
        char if char.isprintable() or char in " \n" else "\N{REPLACEMENT CHARACTER}"
        for char in text
    )
