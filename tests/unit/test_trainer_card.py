"""The cards tell the evidence, stand alone, and survive whatever the data are called."""

import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser

import msgspec
import numpy as np
import pytest

from schemas.evidence import Evidence, Leakage, Unchanged
from schemas.manifest import Lineage, Parity, Source, digest_of
from tests.unit.evidence_panels import HOSTILE, made_up_panel
from trainer.bundle import contract_of
from trainer.card import Subject, backtest_in_words, model_card
from trainer.card_page import card_page, page_of_text
from trainer.dataset import Dataset, LossChoice
from trainer.estimator import Preset
from trainer.evaluation import held_out
from trainer.evidence import evidence_of
from trainer.examples import Example, examples_of
from trainer.importance import importance_of
from trainer.panel import Panel
from trainer.training import develop

NAME = "made | up <b>&amp;</b>\x00"
VOID = {"meta", "br", "use", "path", "rect"}


@pytest.fixture(scope="module")
def panel() -> Panel:
    return made_up_panel()


@pytest.fixture(scope="module")
def made(panel: Panel) -> tuple[Subject, tuple[Example, ...]]:
    dataset = Dataset(
        name=NAME,
        model="sales",
        source=("panel.parquet",),
        date="day",
        target="units",
        horizon=14,
        keys={"shop": "The shop", "product": "The product"},
        covariates={"promotion": "1 where it is promoted"},
        licence="none",
        slices=("shop", "product"),
    )
    trained = develop(panel, Preset.FULL, LossChoice.LOG1P, seed=0)
    held = held_out(panel)
    answers = trained.forecaster.predict(held.requests)
    evidence = evidence_of(
        panel,
        trained,
        held,
        answers,
        dataset.slices,
        importance_of(trained.forecaster, held, dataset.date, seed=0),
        Leakage(passed=True, scrambled=("units",), checks=(Unchanged("tables", True),)),
    )
    subject = Subject(
        dataset=dataset,
        contract=contract_of(dataset, trained.forecaster),
        lineage=Lineage(
            sources=(Source("panel.parquet", digest_of(b""), 12),),
            config='name = "<script>x</script>"\n',
            preset="full",
            seed=0,
            cutoff="2024-04-07",
            packages={"numpy": "2.0"},
            python="3.11",
        ),
        parity=Parity(
            rows=336,
            space="log1p",
            max_difference=3e-7,
            limit=2e-6,
            onnxruntime="1.31.0",
            numeric_class="avx2",
        ),
        evidence=evidence,
        known_days=panel.cutoff + 1,
    )
    return subject, examples_of(panel, trained, held, answers)


@pytest.fixture(scope="module")
def page(made: tuple[Subject, tuple[Example, ...]]) -> str:
    return card_page(*made).decode()


@pytest.fixture(scope="module")
def card(made: tuple[Subject, tuple[Example, ...]]) -> str:
    return model_card(made[0]).decode()


class Elements(HTMLParser):
    """The elements of a page, and whether each is closed where it should be."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.ids: Counter[str] = Counter()
        self.loads: list[tuple[str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        for name, value in attrs:
            if name == "id":
                self.ids[str(value)] += 1
            if name in {"src", "href", "srcset", "action", "data"} or name.startswith("on"):
                self.loads.append((name, str(value)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


def elements(page: str) -> Elements:
    found = Elements()
    found.feed(page)
    found.close()
    return found


def test_page_stands_alone(page: str) -> None:
    """Nothing in it makes a browser fetch or run anything."""
    found = elements(page)
    assert not {"script", "link", "img", "iframe", "object", "embed", "base"} & set(found.tags)
    assert all(name == "href" and value.startswith("#") for name, value in found.loads)
    assert set(re.findall(r"https?://[^\"' <]+", page)) <= {"http://www.w3.org/2000/svg"}
    assert all(address.startswith("#") for address in re.findall(r"url\(([^)]*)\)", page))
    assert "@import" not in page


def test_page_is_well_formed(page: str) -> None:
    """Every element is closed in order, and no id is there twice, though figures share the page."""
    found = elements(page)
    assert found.open == []
    assert found.tags["svg"] == 4 + 2
    assert max(found.ids.values()) == 1
    for name in re.findall(r'(?:url\(#|href="#)([^)"]+)', page):
        assert found.ids[name] == 1


def test_names_of_the_data_are_text(page: str, card: str) -> None:
    """A key value, a dataset's name and a configuration that want to be markup are not."""
    assert HOSTILE not in page
    assert "&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;&amp;$x_{2}$" in page
    assert "<b>&amp;amp;" not in page
    assert "<script" not in card
    assert "\x00" not in page + card


def test_tables_of_the_card_keep_their_columns(card: str) -> None:
    """A name with a bar in it does not shift the others."""
    width = None
    for line in card.splitlines():
        if not line.startswith("|"):
            width = None
            continue
        columns = len(re.findall(r"(?<!\\)\|", line))
        width = width or columns
        assert columns == width, line
    assert "made \\| up" in card


def test_cards_tell_the_figures(
    made: tuple[Subject, tuple[Example, ...]], page: str, card: str
) -> None:
    """RMSLE of model and baselines, each group, each field and each kind of series."""
    subject, examples = made
    examined = subject.evidence.holdout
    assert examined is not None
    for scores in examined.scores.values():
        assert f"{scores.rmsle:.4f}" in page
        assert f"{scores.rmsle:.4f}" in card
    assert [example.role for example in examples] == ["largest", "typical", "best", "worst"]
    for text in ("Forecast worst", "Calibration", "days ahead", "day (weekday)", "2024-04-08"):
        assert text in page
    assert "2 rows were summed" in page
    assert "2 rows were summed" in card


def test_markdown_tells_days_ahead_and_calibration_in_figures(
    made: tuple[Subject, tuple[Example, ...]], card: str
) -> None:
    """The page has plots of them; of a long horizon the first day, the last and some between stand."""
    examined = made[0].evidence.holdout
    assert examined is not None
    for step in (examined.steps[0], examined.steps[-1]):
        assert f"| {step.step} | {step.scores['model'].rmsle:.4f} |" in card
    for each in examined.calibration:
        assert f"| {each.nominal:.0%} | {each.below:.1%} | {each.at_or_below:.1%} |" in card
    long = msgspec.structs.replace(
        examined,
        steps=tuple(msgspec.structs.replace(examined.steps[0], step=n) for n in range(1, 101)),
    )
    told = model_card(with_evidence(made[0], holdout=long)).decode()
    table = told[told.index("### By days ahead") : told.index("### Calibration")]
    shown = [int(step) for step in re.findall(r"^\| (\d+) \|", table, re.M)]
    assert (len(shown), shown[0], shown[-1]) == (16, 1, 100)


def test_best_and_worst_are_what_they_say(
    made: tuple[Subject, tuple[Example, ...]],
) -> None:
    """No shown series is better than the best or worse than the worst."""
    errors = {example.role: example.rmsle for example in made[1]}
    assert errors["best"] == min(errors.values())
    assert errors["worst"] == max(errors.values())
    assert errors["best"] < errors["typical"] < errors["worst"]


def test_same_evidence_gives_the_same_bytes(made: tuple[Subject, tuple[Example, ...]]) -> None:
    """No date, id or order of a set gets into the page."""
    assert card_page(*made) == card_page(*made)
    assert model_card(made[0]) == model_card(made[0])


def with_evidence(subject: Subject, **changes: object) -> Subject:
    found: Evidence = msgspec.structs.replace(subject.evidence, **changes)
    return replace(subject, evidence=found)


def test_a_failed_leakage_test_cannot_be_overlooked(
    made: tuple[Subject, tuple[Example, ...]],
) -> None:
    """It is named with what changed."""
    failed = Leakage(passed=False, scrambled=("units",), checks=(Unchanged("tables", False),))
    subject = with_evidence(made[0], leakage=failed)
    for text in (card_page(subject, ()).decode(), model_card(subject).decode()):
        assert "LEAKAGE TEST FAILED: days that the training must not see change tables" in text


def test_cards_do_without_what_is_not_there(made: tuple[Subject, tuple[Example, ...]]) -> None:
    """No holdout, no folds, no importance: the cards say less, and say so."""
    backtest = msgspec.structs.replace(made[0].evidence.backtest, folds=(), scores={})
    subject = with_evidence(made[0], holdout=None, backtest=backtest, importance=None, leakage=None)
    for text in (card_page(subject, ()).decode(), model_card(subject).decode()):
        assert "There is no backtest" in text
        assert "How good it is" not in text
    shown = with_evidence(made[0], holdout=None)
    assert "Nothing was held out" in model_card(shown).decode()


@pytest.mark.parametrize(("loss", "name"), [("log1p", "rmsle"), ("count", "wape")])
def test_a_better_baseline_is_remarked_upon(
    made: tuple[Subject, tuple[Example, ...]], loss: str, name: str
) -> None:
    """By the error that the model was to make small; where it is the best nothing is said."""
    subject, examples = made
    held = subject.evidence.holdout
    assert held is not None
    for factor, is_said in ((0.9, True), (1.1, False)):
        own = getattr(held.scores["model"], name)
        worse = dict.fromkeys(held.scores, held.scores["model"])
        scores = worse | {
            "lag-7": msgspec.structs.replace(held.scores["model"], **{name: own * factor})
        }
        evidence = msgspec.structs.replace(
            subject.evidence, holdout=msgspec.structs.replace(held, scores=scores), loss=loss
        )
        changed = replace(subject, evidence=evidence)
        said = f"better on these days: lag-7 has a {name.upper()} of {own * factor:.4f}"
        assert (said in card_page(changed, examples).decode()) == is_said
        assert (said in re.sub(r"\\(.)", r"\1", model_card(changed).decode())) == is_said


@pytest.mark.parametrize(
    ("known", "horizon", "held", "said"),
    [
        (
            31,
            14,
            False,
            "the panel is short: it needs 32 days up to the cutoff, and 2024-04-07 has 31",
        ),
        (
            31,
            14,
            True,
            "the cutoff is early: it needs 32 days up to the cutoff, and 2024-04-07 has 31",
        ),
        (33, 3, False, "since the panel is short: it needs 34 days"),
        (32, 14, False, "the days that it would forecast are all closed"),
    ],
)
def test_why_there_is_no_backtest_is_told(
    made: tuple[Subject, tuple[Example, ...]], known: int, horizon: int, held: bool, said: str
) -> None:
    """With the days that it needs and those that it had."""
    subject, _ = made
    evidence = msgspec.structs.replace(
        subject.evidence,
        backtest=msgspec.structs.replace(subject.evidence.backtest, folds=()),
        **({} if held else {"holdout": None}),
    )
    dataset = subject.dataset.model_copy(update={"horizon": horizon})
    told = backtest_in_words(replace(subject, dataset=dataset, evidence=evidence, known_days=known))
    assert said in told


def test_a_fold_gives_examples_where_nothing_was_held_out(panel: Panel) -> None:
    """The newest fold's days are shown instead; they end at the cutoff."""
    trained = develop(panel, Preset.FULL, LossChoice.LOG1P, seed=0)
    examples = examples_of(panel, trained, held_out(panel), None)
    assert examples
    assert all(int(example.days[-1]) == panel.cutoff_day for example in examples)
    assert all(np.isfinite(example.actual).all() for example in examples)


def test_a_card_of_others_becomes_a_page_that_runs_and_fetches_nothing() -> None:
    """Markdown is set; what is raw HTML or an image in it is not."""
    card = b"# Ours\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n<script>x</script> ![i](http://e.com/i.png)\n"
    page = page_of_text("ours", card).decode()
    assert "<h1>Ours</h1>" in page
    assert "<td>1</td>" in page
    assert "<script" not in page
    assert "<img" not in page
