"""The page for Prometheus, what is on it, and the figures of the loop that it is made of."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as prometheus

from adapters.metrics import Exposition, Kind, Measure, Reading
from consumer.measures import MEASURES, readings
from consumer.slot_health import SLOT_MEASURES
from consumer.tallies import Histogram, Meters, Observed
from consumer.vitals import Verdict
from schemas.rejection import Reason
from tests.unit.example_vitals import WHO, vitals

PAGE = Path(__file__).parent.parent.parent / "docs" / "metrics.md"
OPENMETRICS = "application/openmetrics-text; version=1.0.0"
LABELS = {
    "model",
    "version",
    "variant",
    "reason",
    "rung",
    "stage",
    "instance_name",
    "onnxruntime",
    "numeric_class",
}
"""All labels that there may be. A request, an item, a store or an error's text is never one."""


def page(accept: str = "", **changes: object) -> str:
    """The page of an instance with these vitals."""
    exposition = Exposition(lambda: readings(WHO, vitals(**changes), Verdict(True, {})))
    return exposition.page(accept)[0].decode()


def families(text: str) -> dict[str, Metric]:
    """Our families of the page, by name."""
    parse = openmetrics if text.endswith("# EOF\n") else prometheus
    return {f.name: f for f in parse(text) if f.name.startswith("modelwire")}


def sample(family: Metric, suffix: str = "", **labels: str) -> float:
    """The value of the one sample that has these labels."""
    [found] = [
        each.value
        for each in family.samples
        if each.name == family.name + suffix and each.labels == {"model": "sales", **labels}
    ]
    return found


@pytest.mark.parametrize("accept", ["", OPENMETRICS])
def test_either_format_holds_every_metric_with_its_values(accept: str) -> None:
    """Counters by version, variant, reason and rung; distributions with buckets, count and sum."""
    found = families(page(accept))
    answers = found["modelwire_answers"]
    assert sample(answers, "_total", version="2", variant="champion") == 90
    assert sample(answers, "_total", version="3", variant="candidate") == 10
    assert sample(found["modelwire_rejections"], "_total", reason="not-json") == 4
    assert sample(found["modelwire_refusals"], "_total", rung="golden") == 1
    assert sample(found["modelwire_control_lag"]) == 2
    rows = found["modelwire_batch_rows"]
    assert sample(rows, "_bucket", le="50.0") == 1
    assert sample(rows, "_bucket", le="+Inf") == sample(rows, "_count") == 2
    assert sample(rows, "_sum") == 104
    swaps = found["modelwire_swap_seconds"]
    assert (sample(swaps, "_count", stage="fetch"), sample(swaps, "_sum", stage="fetch")) == (
        2,
        0.5,
    )
    of_measures = {each.name.removesuffix("_total").removesuffix("_info") for each in MEASURES}
    assert {name.removesuffix("_info") for name in found} == of_measures


def test_the_format_is_the_one_that_the_scraper_asks_for() -> None:
    """By its Accept header; without one it is Prometheus's own."""
    exposition = Exposition(lambda: ())
    assert exposition.page("")[1].startswith("text/plain")
    content, content_type = exposition.page(OPENMETRICS)
    assert content_type.startswith("application/openmetrics-text")
    assert content.endswith(b"# EOF\n")


def test_what_is_not_known_is_left_out() -> None:
    """A lag or a horizon of 0 would be taken for one."""
    found = families(page(lag=None, horizon_days_left=None))
    assert found["modelwire_request_lag"].samples == []
    assert found["modelwire_horizon_days_left"].samples == []
    assert sample(families(page(horizon_days_left=-3))["modelwire_horizon_days_left"]) == -3


def test_labels_are_of_the_allowed_names() -> None:
    """On every sample, whatever happened; and each metric has the labels that its table says."""
    every_reason = dict.fromkeys(Reason, 1)
    of_measures = {each.name: set(each.labels) for each in MEASURES}
    assert set().union(*of_measures.values()) <= LABELS
    for family in families(page(rejections=every_reason)).values():
        for each in family.samples:
            name = re.sub("_(bucket|count|sum)$", "", each.name)
            assert set(each.labels) - {"le"} == of_measures[name]


def test_the_times_of_a_stage_add_up() -> None:
    """How often, and seconds in all: what a rate of the two gives is the mean."""
    meters = Meters()
    for seconds in (0.2, 0.3):
        meters.swap("apply", seconds)
    assert meters.swaps == {"apply": Observed(2, 0.5)}


def test_a_single_number_where_a_distribution_stands_is_a_bug() -> None:
    """It is told, and not shown as something else."""
    wrong = Reading(Measure("modelwire_x", Kind.HISTOGRAM, (), "", "x"), {(): 1})
    with pytest.raises(AssertionError, match="modelwire_x"):
        Exposition(lambda: [wrong]).page("")


def test_the_page_of_the_docs_is_these_tables() -> None:
    """Each metric, an instance's and a supervisor's, with labels, unit and meaning, in order."""
    measures = (*MEASURES, *SLOT_MEASURES)
    rows = [
        f"| `{each.name}` | {each.kind} | {', '.join(f'`{name}`' for name in each.labels)} "
        f"| {each.unit} | {each.meaning} |"
        for each in measures
    ]
    text = PAGE.read_text()
    missing = [row for row in rows if row not in text]
    assert missing == [], "docs/metrics.md should have:\n" + "\n".join(missing)
    named = re.findall(r"^\| `(modelwire_\w+)` \|", text, re.MULTILINE)
    assert named == [each.name for each in measures]


@given(
    values=st.lists(st.floats(0, 20), min_size=1, max_size=60), share=st.sampled_from([0.5, 0.99])
)
def test_a_quantile_is_in_the_bucket_of_the_true_one(values: list[float], share: float) -> None:
    """The estimate and the value that it stands for lie between the same bounds."""
    bounds = (1.0, 2.0, 5.0, 10.0)
    histogram = Histogram(bounds)
    for value in values:
        histogram.observe(value)
    observed = histogram.read()
    assert observed.count == len(values)
    assert observed.total == pytest.approx(sum(values))
    rank = share * len(values)
    true = sorted(values)[min(int(-(-rank // 1)), len(values)) - 1]
    estimate = observed.quantile(share)
    assert estimate is not None
    lower = max((bound for bound in bounds if bound < true), default=0.0)
    upper = min((bound for bound in bounds if bound >= true), default=bounds[-1])
    assert lower <= estimate <= upper


def test_what_came_since_is_of_that_time_alone() -> None:
    """So that a summary tells of its own seconds; nothing has no quantile."""
    meters = Meters()
    meters.batch(5, 9.0)
    before = meters.score_seconds.read()
    assert before.since(before).quantile(0.99) is None
    meters.batch(5, 0.003)
    later = meters.score_seconds.read().since(before)
    assert (later.count, later.total) == (1, pytest.approx(0.003))
    estimate = later.quantile(0.99)
    assert estimate is not None
    assert 0.002 < estimate <= 0.004
    assert meters.batch_rows.read().count == 2
