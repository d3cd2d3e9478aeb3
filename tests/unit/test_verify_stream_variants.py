"""The checker judges which variant answered, by a routing of its own, and says what shares came of it.

The streams here are routed by the real routing, which the checker does not share.
"""

from collections.abc import Iterable
from dataclasses import replace
from math import sqrt

import msgspec
import pytest

from deployment import routing
from deployment.commands import (
    Release,
)
from modelwire.checker import Kind, Record, Report, StreamCheck, Tally, routes
from schemas.events import (
    EventData,
    ModelReleased,
    ModelRestored,
    RolloutAborted,
    RolloutPaused,
    RolloutPromoted,
    RolloutResumed,
    RolloutShifted,
    RolloutStarted,
)
from schemas.forecast import Variant
from schemas.rejection import ENVELOPE_HEADER
from tests.unit.checked_streams import (
    DIGESTS,
    OTHER,
    REQUESTS,
    SWAP,
    answered,
    control_log,
    deployments,
    extended,
    forecast,
    judge,
    only,
    rejection,
    request,
    routed,
)

CANARY = extended(SWAP, RolloutStarted(1, "canary", "salt"), RolloutShifted(7, 3_000))
"""From revision 8 on version 1 is to answer 30 % of the keys, and version 2 the others."""


def keyed(count: int) -> list[Record]:
    """Requests with a key each."""
    return [request(0, offset, key=f"store-{offset}".encode()) for offset in range(count)]


def keyless(count: int) -> list[Record]:
    """Requests without a key."""
    return [request(0, offset, key=None) for offset in range(count)]


def judge_at(
    control: list[bytes], asked: list[Record], *, flipped: Iterable[int] = (), revision: int = 0
) -> Report:
    """The report where all were answered at a revision (the last), some by the other variant."""
    state = deployments(control)[revision or -1]
    answers = [answered(each, state, flipped=each.offset in flipped) for each in asked]
    return judge(answers, asked=asked, control=control)


@pytest.mark.parametrize("asked", [keyed(200), keyless(200)], ids=["keys", "no keys"])
def test_answers_by_the_route_are_clean_and_one_by_the_other_variant_is_found(
    asked: list[Record],
) -> None:
    """By the key, or without one by the request id; the finding says where and why."""
    report = judge_at(CANARY, asked)
    assert report.clean
    assert set(report.versions) == {1, 2}
    sentence = only(judge_at(CANARY, asked, flipped=[77]), Kind.WRONG_VARIANT)
    assert "m.results/0/77" in sentence
    assert "revision 8 and weight 3000" in sentence


def test_an_instance_without_the_candidate_that_answers_as_champion_is_found() -> None:
    """Each key that the log routes to the candidate and the champion answers is counted."""
    asked = keyed(200)
    state = deployments(CANARY)[-1]
    moved = [each for each in asked if routed(state, each)[0] is Variant.CANDIDATE]
    answers = [forecast(each, each.offset, revision=8, version=2) for each in asked]
    assert 20 < len(moved) < 100
    only(judge(answers, asked=asked, control=CANARY), Kind.WRONG_VARIANT, len(moved))


def test_the_version_may_not_belie_the_variant() -> None:
    """The right variant's name on the other version's answer is a wrong version."""
    asked = keyed(1)
    variant, version = routed(deployments(CANARY)[-1], asked[0])
    belied = forecast(asked[0], 0, revision=8, version=3 - version, variant=variant)
    only(judge([belied], asked=asked, control=CANARY), Kind.WRONG_VERSION)


@pytest.mark.parametrize(("old", "new"), [(1_000, 6_000), (6_000, 1_000)])
def test_a_weight_holds_from_its_revision_on(old: int, new: int) -> None:
    """Answers by the weight before are wrong exactly where the key has moved since."""
    control = extended(
        SWAP, RolloutStarted(1, "canary", "s"), RolloutShifted(7, old), RolloutShifted(7, new)
    )
    asked = keyed(300)
    before, after = deployments(control)[8:10]
    assert judge_at(control, asked, revision=8).clean
    assert judge_at(control, asked, revision=9).clean
    moved = {each.offset for each in asked if routed(before, each) != routed(after, each)}
    assert 100 < len(moved) < 200
    late = judge_at(control, asked, flipped=moved, revision=9)
    only(late, Kind.WRONG_VARIANT, len(moved))


@pytest.mark.parametrize("weight", [0, 10_000])
def test_without_a_split_the_version_alone_is_judged(weight: int) -> None:
    """At 0 and at 10,000 only one variant answers, and there is no share to report."""
    control = extended(SWAP, RolloutStarted(1, "canary", "s"), RolloutShifted(7, weight))
    asked = keyed(5)
    report = judge_at(control, asked)
    assert report.clean
    assert report.shares == ()
    only(judge_at(control, asked, flipped=[2]), Kind.WRONG_VERSION)


BESIDE: list[tuple[EventData, ...]] = [
    (RolloutShifted(9, shadow=500),),
    (RolloutShifted(9), RolloutShifted(10, shadow=10_000)),
    (RolloutAborted(9),),
    (RolloutAborted(10), RolloutAborted(9)),
    (RolloutPaused(7), RolloutResumed(7), RolloutPaused(9)),
    (RolloutStarted(4, "shadow", "c"), RolloutShifted(11, shadow=1)),
]


@pytest.mark.parametrize("events", BESIDE)
def test_what_becomes_of_shadows_does_not_touch_the_traffic(events: tuple[EventData, ...]) -> None:
    """Shadows that start, shift and end beside a canary, and a pause: the split stays as it was."""
    released = control_log([Release(DIGESTS[n], None, "s") for n in (1, 2, 3, 4)])
    control = extended(
        released,
        *(RolloutStarted(1, "blue-green", "s"), RolloutPromoted(5, 1)),
        *(RolloutStarted(2, "canary", "salt"), RolloutShifted(7, 3_000)),
        *(RolloutStarted(3, "shadow", "a"), RolloutStarted(4, "shadow", "b")),
    )
    control = extended(control, *events)
    asked = keyed(100)
    report = judge_at(control, asked)
    assert report.clean
    assert [(share.rollout, share.version, share.weight) for share in report.shares] == [
        (7, 2, 3_000)
    ]
    only(judge_at(control, asked, flipped=[3, 4]), Kind.WRONG_VARIANT, 2)


@pytest.mark.parametrize(
    ("event", "said"),
    [
        (RolloutShifted(6, 10), "names rollout 6, which does not run"),
        (RolloutAborted(3), "names rollout 3, which does not run"),
        (RolloutAborted(10), "names rollout 10, which does not run"),
        (RolloutShifted(9, 10), "gives traffic to the shadow 9"),
        (RolloutPromoted(9, 1), "promotes version 1, which rollout 9 does not"),
        (RolloutPromoted(7, 2), "promotes version 2, which rollout 7 does not"),
        (RolloutStarted(1, "canary", "s"), "starts a rollout while 7 runs"),
        (ModelRestored(1, 2), "restores a version while rollout 7 runs"),
        (ModelReleased(2, DIGESTS[4]), "releases version 2 again"),
    ],
)
def test_an_event_that_nobody_may_write_ends_the_log(event: EventData, said: str) -> None:
    """No consumer goes on from there, so nothing after it can be vouched for."""
    shadows = (RolloutStarted(1, "shadow", "x"), RolloutStarted(1, "shadow", "y"))
    control = extended(CANARY, *shadows, RolloutAborted(10), event)
    report = judge(control=control)
    assert report.control_problem == f"revision 12 of the control log {said}"
    assert not report.clean


def test_a_shift_that_names_no_weight_takes_the_traffic_away() -> None:
    """A share that an event does not name is 0."""
    *before, last = extended(CANARY, RolloutShifted(7))
    assert last.count(rb'"weight":0,') == 1
    control = [*before, last.replace(rb'"weight":0,', b"")]
    report = judge_at(control, keyed(20))
    assert report.clean
    assert report.versions == {2: 20}


def test_a_rejection_is_judged_by_its_key_or_by_the_id_in_its_bytes() -> None:
    """A routed rejection is held to the route like a forecast, with a key and without one."""
    for asked in (keyed(1)[0], keyless(1)[0]):
        variant, version = routed(deployments(CANARY)[-1], asked)
        right = rejection(asked, 0, revision=8, version=version, variant=variant)
        wrong = rejection(asked, 0, revision=8, version=3 - version, variant=OTHER[variant])
        assert judge([], asked=[asked], rejections=[right], control=CANARY).clean
        report = judge([], asked=[asked], rejections=[wrong], control=CANARY)
        assert "m.rejections/0/0" in only(report, Kind.WRONG_VARIANT)


def test_a_rejection_from_before_the_routing_has_no_variant() -> None:
    """Version 0 is right at every weight, and no answer of either variant."""
    asked = keyless(3)
    refused = [rejection(each, each.offset, revision=8) for each in asked]
    report = judge([], asked=asked, rejections=refused, control=CANARY)
    assert report.clean
    assert (report.variant_unchecked, report.shares[0].answers.total) == (0, 0)


def test_a_rejection_that_keeps_neither_key_nor_bytes_is_counted_as_unchecked() -> None:
    """An envelope with the key is judged; one without it is no fault, and not passed over either."""
    ours, nameless = keyed(1)[0], keyless(2)[1]
    variant, version = routed(deployments(CANARY)[-1], ours)
    enveloped = [
        replace(
            rejection(asked, 0, revision=8, version=v, variant=said),
            value=keyless(3)[2].value,
            headers=(
                *rejection(asked, 0, revision=8, version=v, variant=said).headers,
                (ENVELOPE_HEADER, b"1"),
            ),
        )
        for asked, said, v in ((ours, OTHER[variant], 3 - version), (nameless, variant, version))
    ]
    report = judge([], asked=[ours, nameless], rejections=enveloped, control=CANARY)
    only(report, Kind.WRONG_VARIANT)
    assert report.variant_unchecked == 1


def test_answers_beyond_the_known_log_are_judged_when_it_has_caught_up() -> None:
    """The same faults are found whether the log was known before the answers or only after them."""
    asked = keyed(100)
    state = deployments(CANARY)[-1]
    answers = [answered(each, state, flipped=each.offset in (7, 8)) for each in asked]

    def report(first: list[bytes], last: list[bytes]) -> Report:
        stream = StreamCheck(REQUESTS, same_partitions=True)
        stream.take_control(first)
        for each in asked:
            stream.take_request(each)
        for each in answers:
            stream.take_forecast(each)
        assert stream.is_behind is (len(first) < len(CANARY))
        stream.take_control(last)
        assert not stream.is_behind
        return stream.report()

    at_once, afterwards = report(CANARY, CANARY), report(SWAP, CANARY)
    only(at_once, Kind.WRONG_VARIANT, 2)
    assert afterwards == at_once


def test_an_answer_whose_revision_the_log_never_reached_is_unchecked_and_wrong() -> None:
    """It is a fault of its version; of its variant nothing can be said."""
    report = judge([forecast(keyed(1)[0], 0, revision=9)], asked=keyed(1), control=CANARY)
    only(report, Kind.WRONG_VERSION)
    assert report.variant_unchecked == 1


def test_no_more_answers_are_kept_than_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is beyond it is counted as unchecked, so that nobody takes it for judged."""
    monkeypatch.setattr(routes, "KEPT", 3)
    stream = StreamCheck(REQUESTS)
    stream.take_control(SWAP)
    for asked in keyed(5):
        stream.take_request(asked)
        stream.take_forecast(answered(asked, deployments(CANARY)[-1], flipped=True))
    stream.take_control(CANARY)
    report = stream.report()
    assert (report.wrong_variant, report.variant_unchecked) == (3, 2)


def test_without_a_control_log_no_variant_is_judged() -> None:
    """Nothing is known of weights then."""
    asked = keyed(20)
    report = judge([forecast(each, each.offset) for each in asked], asked=asked, control=None)
    assert report.clean
    assert (report.shares, report.variant_unchecked) == ((), 0)


def test_shares_count_answers_and_distinct_keys_by_weight() -> None:
    """A key that asks again is one key and two answers; a weight that comes back is the same share."""
    control = extended(CANARY, RolloutShifted(7, 6_000), RolloutShifted(7, 3_000))
    asked = keyed(300)
    again = [replace(each, offset=each.offset + 300) for each in asked]
    again = [request(0, each.offset, key=each.key) for each in again]
    at_8, at_10 = (deployments(control)[revision] for revision in (8, 10))
    answers = [answered(each, at_8) for each in asked] + [answered(each, at_10) for each in again]
    report = judge(answers, asked=asked + again, control=control)
    assert report.clean
    first, second = report.shares
    moved = sum(routed(at_8, each)[0] is Variant.CANDIDATE for each in asked)
    assert (first.rollout, first.version, first.weight, first.one_in) == (7, 1, 3_000, 1)
    assert first.keys == Tally(300 - moved, moved)
    assert first.answers == Tally(600 - 2 * moved, 2 * moved)
    assert first.keys.share == moved / 300
    assert (second.weight, second.keys.total, second.keys.share) == (6_000, 0, 0.0)
    assert report.as_json()["shares"][0]["keys"] == {"champion": 300 - moved, "candidate": moved}
    assert msgspec.json.decode(msgspec.json.encode(report.as_json()))["clean"] is True


def test_beyond_its_bound_the_sample_of_keys_stays_fair(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few keys are remembered of many; their share is within binomial bounds, whatever their buckets
    have in common."""
    monkeypatch.setattr(routes, "KEYS_HELD", 500)
    asked = [each for each in keyed(8_000) if routing.bucket("salt", each.key or b"") % 2]
    report = judge_at(CANARY, asked)
    [share] = report.shares
    assert share.answers.total == len(asked)
    assert share.one_in in (8, 16)
    assert 200 <= share.keys.total <= 500
    assert abs(share.keys.share - 0.3) < 4 * sqrt(0.3 * 0.7 / share.keys.total)
    assert abs(share.keys.total * share.one_in - len(asked)) < 1_000


def test_where_keys_are_too_many_the_largest_share_is_thinned(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A share with few keys keeps them all."""
    monkeypatch.setattr(routes, "KEYS_HELD", 200)
    control = extended(CANARY, RolloutShifted(7, 6_000))
    states = deployments(control)
    asked = keyed(530)
    answers = [answered(each, states[8 if each.offset < 30 else 9]) for each in asked]
    small, large = judge(answers, asked=asked, control=control).shares
    assert (small.one_in, small.keys.total) == (1, 30)
    assert large.one_in > 1
    assert large.keys.total <= 170
