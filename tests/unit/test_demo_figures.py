"""The demo's own figures: what it counts from the answers, and how it shows them."""

from dataclasses import replace
from datetime import UTC, datetime

import msgspec
import pytest

from modelwire.checker import Share, check
from modelwire.checker.report import Tally
from modelwire.demo.answers import RATE_SECONDS, Answers, Keyed, Split
from modelwire.demo.figures import (
    Audited,
    Played,
    Shadowed,
    Step,
    Swap,
    lines,
    shadow_words,
    summary,
)
from modelwire.demo.view import Canary, Moment, Shadow, sentence
from schemas.forecast import Forecast, Source, Variant

ACTUALS = {b'{"item":"a"}': 10.0, b'{"item":"b"}': 0.0}


def forecast(
    partition: int,
    revision: int,
    *,
    item: str = "a",
    sales: float = 8.0,
    variant: Variant = Variant.CHAMPION,
    offset: int = 0,
) -> Forecast:
    """A forecast; version 1 answers up to revision 5, version 2 after it and as anything but champion."""
    return Forecast(
        request_id="r",
        inputs=msgspec.Raw(f'{{"item":"{item}"}}'.encode()),
        outputs={"sales": sales},
        model="m",
        version=1 if revision <= 5 and variant is Variant.CHAMPION else 2,
        digest="",
        variant=variant,
        revision=revision,
        source=Source("m.requests", partition, offset, 0),
        scored_at=datetime(2026, 1, 1, tzinfo=UTC),
        instance=f"m-{partition % 2}",
    )


def keyed(*forecasts: Forecast, key: bytes | None = b"k") -> list[Keyed]:
    """The forecasts, all under one key."""
    return [(key, each) for each in forecasts]


def answers() -> Answers:
    """No answers yet."""
    return Answers(actuals=ACTUALS, output="sales")


def test_a_swap_is_over_when_the_last_partition_has_an_answer_at_its_revision() -> None:
    """A later revision counts too; a partition that has only older answers holds it up."""
    seen = answers()
    seen.take(keyed(forecast(0, 3), forecast(1, 3)), 0, at=1.0)
    assert seen.partitions() == {0, 1}
    assert seen.served_since(6, seen.partitions()) is None
    seen.take(keyed(forecast(0, 6)), 0, at=2.0)
    assert seen.served_since(6, seen.partitions()) is None
    seen.take(keyed(forecast(0, 7), forecast(1, 7)), 0, at=3.0)
    assert seen.served_since(6, seen.partitions()) == 3.0
    assert seen.served_since(3, seen.partitions()) == 1.0


def test_wape_is_summed_for_each_version_over_the_answers_it_gave() -> None:
    """Sum of absolute errors over sum of actuals; a row without an actual is left out."""
    seen = answers()
    seen.take(keyed(forecast(0, 3), forecast(0, 3, item="b", sales=1.0)), 0, at=1.0)
    seen.take(keyed(forecast(0, 6, sales=9.0), forecast(0, 6, item="c")), 0, at=1.0)
    assert {version: score.wape for version, score in seen.scores.items()} == {
        1: pytest.approx(0.3),
        2: pytest.approx(0.1),
    }
    assert seen.versions == {1: 2, 2: 2}


def test_wape_is_unknown_where_nothing_was_sold() -> None:
    """No division by zero."""
    seen = answers()
    seen.take(keyed(forecast(0, 3, item="b")), 0, at=1.0)
    assert seen.scores[1].wape is None


def test_rate_and_instances_are_those_of_the_last_seconds() -> None:
    """What answered long ago answers no more."""
    seen = answers()
    seen.take(keyed(forecast(0, 3)) * 10, 2, at=10.0)
    assert seen.rate(10.0) == 12 / RATE_SECONDS
    assert seen.instances(10.0) == ("m-0",)
    seen.take(keyed(forecast(1, 3)) * 4, 0, at=10.0 + RATE_SECONDS)
    assert seen.rate(10.0 + RATE_SECONDS) == 4 / RATE_SECONDS
    assert seen.instances(10.0 + RATE_SECONDS) == ("m-1",)
    assert (seen.answered, seen.forecasts, seen.rejections) == (16, 14, 2)


def test_the_split_of_a_revision_counts_requests_and_distinct_keys_by_variant() -> None:
    """A key that asks often counts once; a request without a key counts for no key."""
    seen = answers()
    canary = forecast(0, 4, variant=Variant.CANDIDATE)
    seen.take(keyed(canary, canary, canary, key=b"moved"), 0, at=1.0)
    seen.take(keyed(forecast(0, 4), key=b"one") + keyed(forecast(1, 4), key=b"two"), 0, at=1.0)
    seen.take(keyed(forecast(1, 4), key=None), 0, at=1.0)
    seen.take(keyed(forecast(1, 3), key=b"before"), 0, at=1.0)
    split = seen.splits[4]
    assert (split.requests.total(), split.request_share) == (6, 0.5)
    assert split.key_count == 3
    assert split.key_share == pytest.approx(1 / 3)
    assert seen.splits[3].request_share == 0
    assert (Split().request_share, Split().key_share) == (None, None)


def test_those_answer_that_answered_at_the_highest_revision() -> None:
    """Both versions of a canary; the champion of before no more."""
    seen = answers()
    assert list(seen.answering) == []
    seen.take(keyed(forecast(0, 4), forecast(0, 4, variant=Variant.CANDIDATE)), 0, at=1.0)
    assert list(seen.answering) == [1, 2]
    seen.take(keyed(forecast(0, 6), forecast(1, 4)), 0, at=2.0)
    assert list(seen.answering) == [2]


def test_a_shadow_is_compared_with_the_champion_on_the_same_requests() -> None:
    """Whichever comes first; what only one has answered counts for neither WAPE, nor does a row that
    nothing is known of."""
    seen = answers()
    shadow = Variant.SHADOW
    seen.take(keyed(forecast(0, 3, offset=1), forecast(0, 3, offset=2, sales=0.0)), 0, at=1.0)
    seen.take_shadow(
        [
            forecast(0, 3, offset=1, sales=9.0, variant=shadow),
            forecast(0, 3, offset=3, sales=5.0, variant=shadow),
            forecast(1, 3, offset=1, sales=0.0, variant=shadow),
            forecast(0, 3, offset=4, item="c", variant=shadow),
        ]
    )
    seen.take(keyed(forecast(0, 3, offset=3, sales=10.0)), 0, at=2.0)
    seen.take(keyed(forecast(0, 3, offset=4, item="c")), 0, at=2.0)
    compared = seen.comparison
    assert (compared.scored, compared.compared) == (4, 3)
    assert compared.shadow.wape == pytest.approx((1 + 5) / 20)
    assert compared.champion.wape == pytest.approx((2 + 0) / 20)
    assert seen.answered == 4
    assert 2 not in seen.versions


def test_a_request_that_a_shadow_scored_twice_counts_once() -> None:
    """A partition that moved is scored again from its last commit."""
    seen = answers()
    again = forecast(0, 3, offset=1, sales=9.0, variant=Variant.SHADOW)
    seen.take_shadow([again])
    seen.take(keyed(forecast(0, 3, offset=1)), 0, at=1.0)
    seen.take_shadow([again])
    assert (seen.comparison.scored, seen.comparison.compared) == (1, 1)
    assert seen.comparison.shadow.actual == 10.0


def test_the_candidates_answers_are_not_taken_for_the_champions() -> None:
    """A shadow's late answer to a request that the candidate answered is compared with nothing."""
    seen = answers()
    seen.take(keyed(forecast(0, 4, offset=1, variant=Variant.CANDIDATE)), 0, at=1.0)
    seen.take_shadow([forecast(0, 3, offset=1, variant=Variant.SHADOW)])
    assert (seen.comparison.scored, seen.comparison.compared) == (1, 0)
    assert seen.comparison.champion.wape is None


def moment(shadow: Shadow | None = None, canary: Canary | None = None) -> Moment:
    """Version 2 answers."""
    versions = {1: 900, 2: 100}
    return Moment(1_200, 1_000, 500.0, 6, (2,), versions, ("m-0", "m-1"), shadow, canary)


def test_the_plain_line_says_who_answers() -> None:
    """Version, revision, rate, lag and instances, in words."""
    assert sentence(moment()) == (
        "version 2 answers, revision 6: 1,000 answers, 500/s, lag 200, instances m-0, m-1"
    )
    assert "no version answers" in sentence(Moment(0, 0, 0.0, 0, (), {}, ()))
    assert "versions 1 and 2 answer," in sentence(Moment(0, 0, 0.0, 0, (1, 2), {}, ()))


def test_the_plain_line_says_what_runs_beside_the_champion() -> None:
    """The shadow's count and both WAPEs; the canary's weight and what was seen of it."""
    line = sentence(moment(shadow=Shadow(2, 1_234, 0.84512, None)))
    assert line.endswith("; shadow: version 2 scored 1,234, WAPE 0.845, champion unknown")
    line = sentence(moment(canary=Canary(2, 1_000, 2_000, 0.0985, 1_000, None)))
    assert line.endswith(
        "; canary: version 2 at 10% answered 9.8% of 2,000 requests, 0.0% of 1,000 keys"
    )


SHADOWED = Shadowed(2, 3_100, 7, 1, 3_000, 0.84512, 0.89988)
PLAYED = Played(
    (Swap("promotion", "a", 6, 0.5), Swap("undo", "b", 7, 1.25)),
    {1: 0.91237, 2: None},
    SHADOWED,
    (Step(1_000, 5, 2_000, 0.098765, 0, None, 0.1234),),
)


AUDITED = Audited(kept=990, request_id="r-7", version=2, derived=500, identical=499)


def test_the_result_has_exactly_the_promised_keys() -> None:
    """The first ten as they always were; the verdict in it is the checker's."""
    result = summary(PLAYED, check([], [], [], requests_topic="m.requests"), AUDITED)
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
        "swap_seconds": {"promotion": 0.5, "undo": 1.25},
        "wrong_variant": 0,
        "shadow": {
            "version": 2,
            "scored": 3_100,
            "shed": 7,
            "failed": 1,
            "compared": 3_000,
            "wape": 0.8451,
            "champion_wape": 0.8999,
        },
        "canary": [
            {
                "weight": 1_000,
                "revision": 5,
                "requests": 2_000,
                "request_share": 0.0988,
                "keys": 0,
                "key_share": None,
                "seconds": 0.123,
            }
        ],
        "shares": [],
        "audit": {"kept": 990, "explained": "r-7", "derived": 500, "identical": 499},
    }


def test_only_answers_that_all_came_out_again_prove_anything() -> None:
    """One that did not is one too many; nothing derived proves nothing."""
    assert not AUDITED.is_proven
    assert replace(AUDITED, identical=500).is_proven
    assert not replace(AUDITED, derived=0, identical=0).is_proven


def test_the_shares_are_those_of_the_checker_where_something_was_answered() -> None:
    """What nobody answered at a weight says nothing of it."""
    nothing = check([], [], [], requests_topic="m.requests")
    seen = Share(4, 2, 1_000, Tally(1_800, 200), Tally(880, 120), one_in=1)
    empty = Share(8, 2, 0, Tally(0, 0), Tally(0, 0), one_in=1)
    report = replace(nothing, shares=(seen, empty))
    assert summary(PLAYED, report, AUDITED)["shares"] == [
        {
            "rollout": 4,
            "version": 2,
            "weight": 1_000,
            "requests": 2_000,
            "request_share": 0.1,
            "keys": 1_000,
            "key_share": 0.12,
        }
    ]
    said = dict(lines(PLAYED, report, AUDITED))
    assert said["share at weight 10%"] == "10.0% of 2,000 requests, 12.0% of 1,000 keys"
    same = "version 2 WAPE 0.845, champion 0.900 on the same 3,000 requests"
    assert said["shadow"] == f"{same}; 7 left out, 1 failed"
    assert shadow_words(replace(SHADOWED, shed=0, failed=0)) == same
    assert said["seconds of the undo"] == "1.250"
    assert said["derived again to the bit"] == "499 of 500 answers"
    assert "share at weight 0%" not in said
