"""The card as one HTML page: the same as ``trainer.card``, with plots.

1. It stands alone: no script, no font, style sheet or picture from elsewhere, nothing that a browser
   would fetch.
2. Whatever comes from the data or the configuration is escaped.
3. The same evidence gives the same bytes.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape

from markdown_it import MarkdownIt

from schemas.evidence import Effect, Examined, Group, Scores, Slice
from trainer.card import (
    METRICS,
    Subject,
    backtest_in_words,
    beaten_by,
    figures_of,
    how_it_was_measured,
    limits,
    model_first,
    printable,
    title_of,
    value_of,
    verdicts,
    what_it_is,
)
from trainer.examples import Example
from trainer.figures import calibration_svg, example_svg, steps_svg
from trainer.measured import calibration_in_words, importance_in_words

_STYLE = """\
:root { color-scheme: light; }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0 auto; padding: 3rem 1.5rem 5rem; max-width: 62rem; background: #fff; color: #1d2433;
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, Helvetica, Arial, sans-serif;
  font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
h1 { margin: 0 0 .25rem; font-size: 1.9rem; line-height: 1.2; letter-spacing: -.01em; }
h2 { margin: 3rem 0 .75rem; padding-top: 1rem; border-top: 1px solid #e4e7ec; font-size: 1.25rem; }
h3 { margin: 1.75rem 0 .5rem; font-size: 1rem; }
p { margin: .5rem 0; max-width: 46rem; }
.quiet { color: #667085; }
.small { font-size: .85rem; }
ul { padding-left: 1.2rem; max-width: 46rem; }
li { margin: .3rem 0; }
code { font: .85em ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .75rem;
  margin: 1.75rem 0 0; }
.tile { padding: .8rem 1rem; border: 1px solid #e4e7ec; border-radius: .5rem; }
.tile b { display: block; font-size: 1.5rem; line-height: 1.3; letter-spacing: -.01em; }
.tile span { color: #667085; font-size: .8rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .87rem; }
th, td { padding: .34rem .7rem .34rem 0; border-bottom: 1px solid #eef0f3; text-align: left;
  vertical-align: top; overflow-wrap: anywhere; }
th { color: #667085; font-weight: 600; border-bottom-color: #d0d5dd; overflow-wrap: normal; }
td.number, th.number { text-align: right; white-space: nowrap; padding-left: .7rem; padding-right: 0; }
td:first-child { max-width: 22rem; }
tr.model td { font-weight: 600; background: #f2f6fd; }
td.bar { width: 34%; min-width: 8rem; padding-left: 1.2rem; padding-right: 0; }
.bar i { display: block; height: .6rem; margin-top: .4rem; border-radius: .15rem; background: #1d5fc2; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(24rem, 1fr)); gap: 1.5rem 2rem; }
figure { margin: .5rem 0; break-inside: avoid; }
figcaption { margin-bottom: .2rem; font-size: .87rem; }
svg { display: block; max-width: 100%; height: auto; }
svg * { stroke-linejoin: round; stroke-linecap: butt; }
pre { padding: 1rem; border: 1px solid #e4e7ec; border-radius: .5rem; background: #fafbfc;
  overflow-x: auto; white-space: pre-wrap;
  font: .8rem/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
.good { color: #176b45; font-weight: 600; }
.bad { color: #b42318; font-weight: 600; }
@media (max-width: 30rem) { .plots { grid-template-columns: 1fr; } }
@page { margin: 16mm; }
@media print {
  body { max-width: none; padding: 0; font-size: 10pt; }
  h2, h3 { break-after: avoid; }
  tr, .tile, pre { break-inside: avoid; }
  .scroll { overflow: visible; }
  .bar i, tr.model td { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""

BASELINE = "mean-28-log"
"""What the tiles compare the model with."""

ROLES = {
    "largest": "Sells most",
    "typical": "Typical",
    "best": "Forecast best",
    "worst": "Forecast worst",
}


def card_page(subject: Subject, examples: Sequence[Example]) -> bytes:
    """The page, UTF-8. ``examples`` are ``trainer.examples.examples_of`` the same training."""
    title = f"{subject.dataset.model}: {subject.dataset.name}"
    return _page(title, "\n".join(_body(subject, examples)))


def page_of_text(title: str, card: bytes) -> bytes:
    """A card that somebody else wrote, in Markdown, as a page; raw HTML in it stays text, and images,
    which would have to be fetched, are left as links."""
    reader = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
    return _page(title, reader.render(card.decode()))


def _page(title: str, body: str) -> bytes:
    head = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "style-src 'unsafe-inline'\">\n"
        f"<title>{_e(title)}</title>\n<style>\n{_STYLE}</style>\n</head>\n<body>\n"
    )
    return f"{head}{body}\n</body>\n</html>\n".encode()


def _body(subject: Subject, examples: Sequence[Example]) -> Iterator[str]:
    dataset, lineage, evidence = subject.dataset, subject.lineage, subject.evidence
    examined = evidence.headline
    yield f"<header>\n<h1>{_e(dataset.model)}</h1>"
    yield (
        f'<p class="quiet">{_e(dataset.name)} · {_e(evidence.preset)} · {evidence.series:,} series · '
        f"sales up to {_e(lineage.cutoff)}</p>"
    )
    yield f"<p>{_e(what_it_is(subject))}</p>"
    if examined is not None:
        yield from _tiles(examined)
    yield "</header>"
    if examined is not None:
        yield from _goodness(subject, examined)
        yield from _series(examples, dataset.unit)
        yield from _calibration(subject, examined)
        yield from _slices(examined)
    yield from _importance(subject)
    yield from _backtest(subject)
    yield "<h2>What was proved</h2>"
    yield from _list(verdicts(subject))
    yield from _leakage(subject)
    yield "<h2>Limits</h2>"
    yield from _list(limits(subject))
    yield from _contract(subject)
    yield from _made_of(subject)


def _tiles(examined: Examined) -> Iterator[str]:
    model, baseline = examined.scores.get("model"), examined.scores.get(BASELINE)
    if model is None:
        return
    better = ""
    if baseline is not None and baseline.rmsle > 0:
        change = model.rmsle / baseline.rmsle - 1
        better = f", {abs(change):.0%} {'below' if change <= 0 else 'above'} {BASELINE}"
    tiles = [(f"{model.rmsle:.3f}", f"RMSLE{better}")]
    if model.wape is not None and model.bias is not None:
        tiles += [(f"{model.wape:.3f}", "WAPE"), (f"{model.bias:+.1%}", "bias of the sum")]
    if model.coverage is not None:
        tiles.append((f"{model.coverage:.1%}", "of days inside p10 … p90, meant to be 80 %"))
    yield '<div class="tiles">'
    for figure, meaning in tiles:
        yield f'<div class="tile"><b>{figure}</b><span>{_e(meaning)}</span></div>'
    yield "</div>"


def _goodness(subject: Subject, examined: Examined) -> Iterator[str]:
    yield "<h2>How good it is</h2>"
    yield f"<p>{_e(how_it_was_measured(subject, examined))}</p>"
    if remark := beaten_by(subject, examined):
        yield f'<p class="bad">{_e(remark)}</p>'
    yield from _scores("predictor", examined.scores)
    yield (
        '<p class="quiet small">RMSLE is the root mean square of differences of log(1 + units); NWRMSLE '
        "weights them by series. WAPE and bias are shares of the units sold. Pinball is the loss of p10 "
        "and p90 in units. lag-7 answers the same weekday of the week before, mean-28-log the mean of "
        "four weeks on the log scale, structural-base the model's base without trees.</p>"
    )
    if len(examined.steps) > 1:
        yield "<h3>By days ahead</h3>"
        svg = steps_svg(examined.steps, "steps")
        yield f'<figure role="img" aria-label="RMSLE by days ahead">{svg}</figure>'


def _series(examples: Sequence[Example], unit: str) -> Iterator[str]:
    if not examples:
        return
    yield "<h2>Four series</h2>" if len(examples) == 4 else "<h2>Some series</h2>"
    yield (
        f'<p class="quiet">Daily {_e(unit)}. The dashed line is the last day that the training saw.</p>'
    )
    yield '<div class="plots">'
    for example in examples:
        keys = ", ".join(f"{name} {value}" for name, value in example.keys)
        role = ROLES[example.role]
        svg = example_svg(example, f"series-{example.role}")
        yield (
            f"<figure><figcaption><b>{role}</b> · {_e(keys)} "
            f'<span class="quiet">· RMSLE {example.rmsle:.3f}</span></figcaption>'
            f'<div role="img" aria-label="{_e(role)}: history, forecast and actual">{svg}</div></figure>'
        )
    yield "</div>"


def _calibration(subject: Subject, examined: Examined) -> Iterator[str]:
    yield "<h2>Calibration</h2>"
    yield f"<p>{_e(calibration_in_words(examined, subject.dataset.horizon))}</p>"
    if not examined.calibration:
        return
    yield (
        "<p>A quantile is right when as many actuals lie below it as its name says: a mark on the dashed "
        "line. Where many days sell nothing, a quantile of 0 has a share below it and one at or below "
        "it; the bar spans both. The model publishes the blue ones.</p>"
    )
    svg = calibration_svg(examined.calibration, "calibration")
    yield '<div class="plots">'
    yield f'<figure role="img" aria-label="nominal against observed quantiles">{svg}</figure><div>'
    rows = [
        (f"{each.nominal:.0%}", f"{each.below:.1%}", f"{each.at_or_below:.1%}")
        for each in examined.calibration
    ]
    yield from _table(("quantile", "below", "at or below"), rows, right=2)
    yield "</div></div>"


def _slices(examined: Examined) -> Iterator[str]:
    yield "<h2>For whom</h2>"
    for each in examined.slices:
        yield f"<h3>By {_e(title_of(each))}</h3>"
        yield from _slice(each)


def _slice(each: Slice) -> Iterator[str]:
    groups = [group for group in each.groups if "model" in group.scores]
    largest = max((group.scores["model"].rmsle for group in groups), default=0.0)
    yield '<div class="scroll"><table><thead><tr>'
    yield f"<th>{_e(each.name)}</th>"
    yield "".join(
        f'<th class="number">{head}</th>'
        for head in ("series", "units", "WAPE", "bias", "coverage", BASELINE, "RMSLE")
    )
    yield "<th></th></tr></thead><tbody>"
    for group in groups:
        yield _group_row(group, largest)
    yield "</tbody></table></div>"


def _group_row(group: Group, largest: float) -> str:
    model, baseline = group.scores["model"], group.scores.get(BASELINE)
    rmsle, _, wape, bias, _, coverage, _ = figures_of(model)
    cells = (
        f"{group.series:,}",
        f"{group.units:,.0f}",
        wape,
        bias,
        coverage,
        "–" if baseline is None else f"{baseline.rmsle:.4f}",
        rmsle,
    )
    numbers = "".join(f'<td class="number">{cell}</td>' for cell in cells)
    name = _e(value_of(group.value, group.pooled))
    return f"<tr><td>{name}</td>{numbers}{_bar(model.rmsle, largest)}</tr>"


def _bar(value: float, largest: float) -> str:
    width = 100 * max(value, 0.0) / largest if largest > 0 else 0.0
    return f'<td class="bar"><i style="width: {width:.1f}%"></i></td>'


def _importance(subject: Subject) -> Iterator[str]:
    importance = subject.evidence.importance
    if importance is None:
        return
    yield "<h2>What it rests on</h2>"
    yield (
        f"<p>{_e(importance_in_words(importance))} Shuffled are the values of one request field, or the "
        f"columns of a group of features; mean of {importance.repeats} shuffles. What two groups both "
        "know is counted for neither.</p>"
    )
    yield from _effects("request field", importance.fields)
    yield "<h3>Groups of features</h3>"
    yield from _effects("group", importance.groups)


def _effects(what: str, effects: Sequence[Effect]) -> Iterator[str]:
    largest = max((each.rise for each in effects), default=0.0)
    yield (
        f'<table><thead><tr><th>{what}</th><th class="number">rise</th><th class="number">±</th>'
        "<th></th></tr></thead><tbody>"
    )
    for each in effects:
        features = ", ".join(each.features)
        told = f'<br><span class="quiet small">{_e(features)}</span>' if features else ""
        yield (
            f'<tr><td>{_e(each.name)}{told}</td><td class="number">{each.rise:+.4f}</td>'
            f'<td class="number">{each.deviation:.4f}</td>{_bar(each.rise, largest)}</tr>'
        )
    yield "</tbody></table>"


def _backtest(subject: Subject) -> Iterator[str]:
    backtest = subject.evidence.backtest
    yield "<h2>Backtest</h2>"
    yield f"<p>{_e(backtest_in_words(subject))}</p>"
    if not backtest.folds:
        return
    yield from _scores("all folds", backtest.scores)
    for fold in backtest.folds:
        yield f"<h3>Trained up to {_e(fold.origin)}</h3>"
        yield from _scores("predictor", fold.scores)


def _leakage(subject: Subject) -> Iterator[str]:
    leakage = subject.evidence.leakage
    if leakage is None:
        return
    yield "<h3>Leakage test</h3>"
    yield "<table><tbody>"
    for check in leakage.checks:
        word, kind = ("unchanged", "good") if check.same else ("CHANGED", "bad")
        yield f'<tr><td>{_e(check.what)}</td><td class="{kind}">{word}</td></tr>'
    yield "</tbody></table>"


def _contract(subject: Subject) -> Iterator[str]:
    contract = subject.contract
    yield "<h2>Requests and answers</h2>"
    if contract.horizon is not None:
        horizon = contract.horizon
        yield f"<p>It answers for {horizon.first} … {horizon.last} and no other day.</p>"
    fields = [
        (each.name, str(each.type), "yes" if each.required else "no", each.description)
        for each in contract.fields
    ]
    yield from _table(("field", "type", "required", "meaning"), fields)
    yield "<br>"
    outputs = [
        (each.name, str(each.type), each.unit, each.description) for each in contract.outputs
    ]
    yield from _table(("output", "type", "unit", "meaning"), outputs)


def _made_of(subject: Subject) -> Iterator[str]:
    dataset, lineage = subject.dataset, subject.lineage
    yield "<h2>What it was made of</h2>"
    licence = dataset.licence or "not stated"
    yield f"<p>{_e(dataset.name)}. Licence: {_e(licence)}. {_e(dataset.attribution)}</p>"
    sources = [(each.name, f"{each.size:,}", each.digest) for each in lineage.sources]
    yield from _table(("source", "bytes", "digest"), sources)
    if subject.evidence.notes:
        yield "<h3>Notes on the data</h3>"
        yield from _list(subject.evidence.notes)
    yield "<h3>Dataset configuration</h3>"
    yield f"<pre>{_e(lineage.config)}</pre>"
    packages = ", ".join(f"{name} {version}" for name, version in sorted(lineage.packages.items()))
    commit = f", commit {lineage.git_commit}" if lineage.git_commit else ""
    yield (
        f'<p class="quiet small">Seed {lineage.seed}, Python {_e(lineage.python)}{_e(commit)}, '
        f"{_e(packages)}.</p>"
    )


def _scores(what: str, scores: Mapping[str, Scores]) -> Iterator[str]:
    rows = [(name, *figures_of(each)) for name, each in model_first(scores).items()]
    yield from _table((what, *METRICS), rows, right=len(METRICS), marked="model")


def _table(
    heads: Sequence[str], rows: Iterable[Sequence[str]], right: int = 0, marked: str | None = None
) -> Iterator[str]:
    """The last ``right`` columns hold numbers; the row that begins with ``marked`` stands out."""
    first, number = len(heads) - right, ' class="number"'

    def cells(tag: str, texts: Sequence[str]) -> str:
        return "".join(
            f"<{tag}{number if column >= first else ''}>{_e(text)}</{tag}>"
            for column, text in enumerate(texts)
        )

    yield f'<div class="scroll"><table><thead><tr>{cells("th", heads)}</tr></thead><tbody>'
    for row in rows:
        kind = ' class="model"' if row[0] == marked else ""
        yield f"<tr{kind}>{cells('td', row)}</tr>"
    yield "</tbody></table></div>"


def _list(lines: Iterable[str]) -> Iterator[str]:
    yield "<ul>"
    yield from (f"<li>{_e(line)}</li>" for line in lines)
    yield "</ul>"


def _e(text: str) -> str:
    return escape(printable(text))
