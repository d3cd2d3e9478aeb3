"""The demo's own figures: what it counts from the answers, and how it shows them."""

from datetime import UTC, datetime

import msgspec
import pytest

from modelwire.checker import check
from modelwire.demo.cli import summary
from modelwire.demo.follower import RATE_SECONDS, Answers
from modelwire.demo.script import Played, Swap
from modelwire.demo.view import Moment, sentence
from schemas.forecast import Forecast, Source, Variant

ACTUALS = {b'{"item":"a"}': 10.0, b'{"item":"b"}': 0.0}


def forecast(partition: int, revision: int, *, item: str = "a", sales: float = 8.0) -> Forecast:
    """A forecast; version 1 answers up to revision 5, version 2 after it."""
    return Forecast(
        request_id="r",
        inputs=msgspec.Raw(f'{{"item":"{item}"}}'.encode()),
        outputs={"sales": sales},
        model="m",
        version=1 if revision <= 5 else 2,
        digest="",
        variant=Variant.CHAMPION,
        revision=revision,
        source=Source("m.requests", partition, 0, 0),
        scored_at=datetime(2026, 1, 1, tzinfo=UTC),
        instance=f"m-{partition % 2}",
    )


def answers() -> Answers:
    """No answers yet."""
    return Answers(actuals=ACTUALS, output="sales")


def test_a_swap_is_over_when_the_last_partition_has_an_answer_at_its_revision() -> None:
    """A later revision counts too; a partition that has only older answers holds it up."""
    seen = answers()
    seen.take([forecast(0, 3), forecast(1, 3)], 0, at=1.0)
    assert seen.partitions() == {0, 1}
    assert seen.served_since(6, seen.partitions()) is None
    seen.take([forecast(0, 6)], 0, at=2.0)
    assert seen.served_since(6, seen.partitions()) is None
    seen.take([forecast(0, 7), forecast(1, 7)], 0, at=3.0)
    assert seen.served_since(6, seen.partitions()) == 3.0
    assert seen.served_since(3, seen.partitions()) == 1.0


def test_wape_is_summed_for_each_version_over_the_answers_it_gave() -> None:
    """Sum of absolute errors over sum of actuals; a row without an actual is left out."""
    seen = answers()
    seen.take([forecast(0, 3), forecast(0, 3, item="b", sales=1.0)], 0, at=1.0)
    seen.take([forecast(0, 6, sales=9.0), forecast(0, 6, item="c")], 0, at=1.0)
    assert {version: score.wape for version, score in seen.scores.items()} == {
        1: pytest.approx(0.3),
        2: pytest.approx(0.1),
    }
    assert seen.versions == {1: 2, 2: 2}


def test_wape_is_unknown_where_nothing_was_sold() -> None:
    """No division by zero."""
    seen = answers()
    seen.take([forecast(0, 3, item="b")], 0, at=1.0)
    assert seen.scores[1].wape is None


def test_rate_and_instances_are_those_of_the_last_seconds() -> None:
    """What answered long ago answers no more."""
    seen = answers()
    seen.take([forecast(0, 3)] * 10, 2, at=10.0)
    assert seen.rate(10.0) == 12 / RATE_SECONDS
    assert seen.instances(10.0) == ("m-0",)
    seen.take([forecast(1, 3)] * 4, 0, at=10.0 + RATE_SECONDS)
    assert seen.rate(10.0 + RATE_SECONDS) == 4 / RATE_SECONDS
    assert seen.instances(10.0 + RATE_SECONDS) == ("m-1",)
    assert (seen.answered, seen.forecasts, seen.rejections) == (16, 14, 2)


def test_the_plain_line_says_who_answers() -> None:
    """Version, revision, rate, lag and instances, in words."""
    line = sentence(Moment(1_200, 1_000, 500.0, 6, 2, {1: 900, 2: 100}, ("m-0", "m-1")))
    assert line == (
        "version 2 answers, revision 6: 1,000 answers, 500/s, lag 200, instances m-0, m-1"
    )
    assert "no version answers" in sentence(Moment(0, 0, 0.0, 0, None, {}, ()))


def test_the_result_has_exactly_the_promised_keys() -> None:
    """One flat object; the verdict in it is the checker's."""
    played = Played((Swap("a", 6, 0.5), Swap("b", 7, 1.25)), {1: 0.91237, 2: None})
    result = summary(played, check([], [], [], requests_topic="m.requests"))
    assert result == {
        "requests": 0,
        "forecasts": 0,
        "rejections": 0,
        "lost": 0,
        "doubled": 0,
        "revision_regressions": 0,
        "swaps": 2,
        "swap_seconds_max": 1.25,
        "versions": {},
        "wape_by_version": {"1": 0.9124, "2": None},
    }
