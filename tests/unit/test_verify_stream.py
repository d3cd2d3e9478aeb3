"""The checker finds each kind of fault, and nothing in a stream without one.

The streams here are written with the real wire language, which the checker does not share: so these
tests also hold the two against each other.
"""

import ast
from dataclasses import replace
from pathlib import Path

import pytest

import modelwire.checker
from deployment.commands import Release, Revoke
from modelwire.checker import Kind, Record, StreamCheck
from schemas.rejection import ENVELOPE_HEADER
from tests.unit.checked_streams import (
    ANSWERED,
    ASKED,
    BLUE_GREEN,
    DIGESTS,
    REQUESTS,
    SWAP,
    control_log,
    forecast,
    judge,
    only,
    rejection,
    request,
    rewritten,
)


def test_a_stream_without_a_fault_is_clean() -> None:
    """Forecasts, rejections routed or not, and enveloped ones: all counted, nothing found."""
    refused = [rejection(ASKED[6], 0), rejection(ASKED[7], 1, version=1)]
    report = judge(ANSWERED[:6], rejections=refused)
    assert report.clean
    assert (report.requests, report.forecasts, report.rejections) == (8, 6, 2)
    assert report.versions == {1: 6}
    assert report.findings == ()


def test_a_lost_request_is_found_and_named() -> None:
    """A request without an answer counts as lost, with the place where it lies."""
    assert "m.requests/1/3" in only(judge(ANSWERED[:-1]), Kind.LOST)


def test_a_gap_in_the_offsets_is_no_request() -> None:
    """Offsets that a transaction's markers or an aborted request took are not lost."""
    asked = [request(0, offset) for offset in (5, 7, 9)]
    assert judge([forecast(each, each.offset) for each in asked], asked=asked).requests == 3
    assert judge([forecast(each, each.offset) for each in asked], asked=asked).clean


def test_a_doubled_answer_is_found_once_however_often_it_is_repeated() -> None:
    """An offset with three answers is one doubled request."""
    again = [forecast(ASKED[0], at) for at in (10, 11)]
    assert "m.requests/0/0" in only(judge(ANSWERED + again), Kind.DOUBLED)


def test_a_forecast_and_a_rejection_of_one_request_are_a_double() -> None:
    """Results and rejections count together."""
    only(judge(rejections=[rejection(ASKED[2], 0)]), Kind.DOUBLED)


def test_a_regression_by_the_offset_of_the_request_is_found() -> None:
    """A later request answered at an older revision, even where the log's order hides it."""
    refused = [rejection(ASKED[1], 0, revision=6)]
    report = judge(ANSWERED[:1] + ANSWERED[2:], rejections=refused)
    sentence = only(report, Kind.REVISION_REGRESSION, 2)
    assert "m.requests/0/2" in sentence
    assert "revision 3" in sentence


def test_a_regression_in_the_order_of_the_answers_is_found() -> None:
    """An older revision after a newer one in the result log, though offsets alone look right."""
    swapped = [forecast(ASKED[1], 0, revision=6, version=2), forecast(ASKED[0], 1)]
    sentence = only(judge(swapped, asked=ASKED[:2]), Kind.REVISION_REGRESSION)
    assert "m.results/0/1" in sentence


def test_a_regression_seen_in_both_orders_counts_once() -> None:
    """The same answer is not counted twice."""
    answers = [forecast(ASKED[0], 0, revision=6, version=2), forecast(ASKED[1], 1)]
    only(judge(answers, asked=ASKED[:2]), Kind.REVISION_REGRESSION)


def test_partitions_may_stand_at_different_revisions() -> None:
    """Only within one partition must revisions not fall."""
    answers = [forecast(each, each.offset, revision=6, version=2) for each in ASKED[:4]]
    assert judge(answers + ANSWERED[4:]).clean


def test_wrong_inputs_are_a_wrong_echo() -> None:
    """A forecast that echoes other inputs than were asked is found, byte for byte."""
    answers = [*ANSWERED[:-1], forecast(ASKED[-1], 3, item="b")]
    assert "m.results/1/3" in only(judge(answers), Kind.WRONG_ECHO)


def test_a_wrong_request_id_or_key_or_timestamp_is_a_wrong_echo() -> None:
    """The parts of an echo are judged one by one."""
    ours, other = ASKED[-1], request(1, 9)
    elsewhere = replace(other, offset=ours.offset, timestamp=ours.timestamp)
    for wrong in (
        rewritten(ANSWERED[-1], '"request_id":"1-3"', '"request_id":"1-4"'),
        replace(ANSWERED[-1], key=b"other"),
        forecast(replace(ours, timestamp=7), 3),
    ):
        only(judge([*ANSWERED[:-1], wrong]), Kind.WRONG_ECHO)
    assert judge(asked=[*ASKED[:-1], elsewhere]).wrong_echo == 1


def test_a_rejection_must_hold_the_very_bytes_unless_it_says_that_it_cannot() -> None:
    """Changed bytes are a wrong echo; the envelope header excuses them."""
    refused = replace(rejection(ASKED[-1], 0), value=b"{}")
    excused = replace(refused, headers=(*refused.headers, (ENVELOPE_HEADER, b"1")))
    only(judge(ANSWERED[:-1], rejections=[refused]), Kind.WRONG_ECHO)
    assert judge(ANSWERED[:-1], rejections=[excused]).clean


def test_a_forecast_for_a_request_that_is_no_json_is_a_wrong_echo() -> None:
    """Nothing can echo what cannot be read."""
    broken = replace(ASKED[-1], value=b"\xff")
    only(judge(asked=[*ASKED[:-1], broken]), Kind.WRONG_ECHO)
    assert judge(
        ANSWERED[:-1], asked=[*ASKED[:-1], broken], rejections=[rejection(broken, 0)]
    ).clean


@pytest.mark.parametrize(
    ("revision", "version", "said"),
    [
        (3, 2, "version 2 had not been released at revision 3"),
        (4, 2, "the log says version 1 as champion"),
        (6, 1, "the log says version 2 as champion"),
        (2, 1, "the log says version None as champion"),
        (7, 2, "revision 7 is not in the control log"),
        (0, 1, "revision 0 is not in the control log"),
    ],
)
def test_an_answer_by_a_version_that_the_log_did_not_route_to_is_found(
    revision: int, version: int, said: str
) -> None:
    """Too early, too late, or under a revision that does not exist."""
    answers = [*ANSWERED[:2], forecast(ASKED[2], 2, revision=revision, version=version)]
    sentence = judge(answers, asked=ASKED[:3]).findings[-1].sentence
    assert said in sentence
    assert judge(answers, asked=ASKED[:3]).wrong_version == 1


def test_a_forecast_of_no_version_is_a_wrong_version() -> None:
    """Version 0 is for a rejection from before the routing; a forecast was made by something."""
    nobody = rewritten(ANSWERED[0], '"version":1', '"version":0')
    assert "version 0" in only(judge([nobody, *ANSWERED[1:]]), Kind.WRONG_VERSION)


def test_a_wrong_digest_is_a_wrong_version() -> None:
    """The version's number alone does not prove which bundle answered."""
    answers = [rewritten(ANSWERED[0], DIGESTS[1], DIGESTS[3]), *ANSWERED[1:]]
    assert "was released as" in only(judge(answers), Kind.WRONG_VERSION)


def test_a_revoked_version_may_answer_only_before_its_revocation() -> None:
    """The same answer is right at revision 6 and wrong at revision 8, where it was revoked."""
    log = control_log(
        [
            Release(DIGESTS[1], BLUE_GREEN, "s"),
            Release(DIGESTS[2], BLUE_GREEN, "s"),
            Revoke(2),
        ]
    )
    assert len(log) == 8
    right = forecast(ASKED[0], 0, revision=6, version=2)
    wrong = forecast(ASKED[0], 0, revision=8, version=2)
    assert judge([right], asked=ASKED[:1], control=log).clean
    report = judge([wrong], asked=ASKED[:1], control=log)
    assert "had been revoked" in only(report, Kind.WRONG_VERSION)


def test_a_broken_control_log_is_not_clean() -> None:
    """A log that lost an event cannot vouch for an answer; a record that is no event is skipped."""
    broken = judge(control=SWAP[:3] + SWAP[4:])
    assert "sequence 5 does not follow revision 3" in broken.control_problem
    assert not broken.clean
    assert judge(control=[SWAP[0], b"no event", *SWAP[1:]]).clean


def test_a_control_log_that_is_rewritten_meanwhile_is_not_clean() -> None:
    """What was read first must still stand there at the end; that it grew is no fault."""
    stream = StreamCheck(REQUESTS)
    stream.take_control(SWAP[:3])
    stream.take_control(SWAP)
    assert stream.report().clean
    another = control_log([Release(DIGESTS[n], BLUE_GREEN, "s") for n in (3, 4, 1)])
    for later in (SWAP[:5], another, []):
        stream = StreamCheck(REQUESTS)
        stream.take_control(SWAP)
        stream.take_control(later)
        report = stream.report()
        assert "rewritten" in report.control_problem
        assert not report.clean


def test_without_a_control_log_versions_are_only_counted() -> None:
    """The report says that it did not judge them."""
    report = judge([forecast(each, 0, version=2) for each in ASKED], control=None)
    assert report.clean
    assert not report.version_checked
    assert report.versions == {2: 8}


def test_answers_to_nothing_are_unknown() -> None:
    """No such request, another topic, not JSON, a rejection without its headers."""
    stranger = forecast(request(0, 77), 50)
    elsewhere = forecast(replace(ASKED[0], topic="n.requests"), 51)
    unreadable = Record("m.results", 0, 52, 0, None, b"[]")
    bare = Record("m.rejections", 0, 0, 0, None, b"[]")
    report = judge([*ANSWERED, stranger, elsewhere, unreadable], rejections=[bare])
    only(report, Kind.UNKNOWN, 4)


def test_answers_to_requests_that_retention_removed_are_passed_over() -> None:
    """What the request topic no longer holds cannot be judged."""
    stream = StreamCheck(REQUESTS, first_held={0: 2})
    for asked in ASKED[2:4]:
        stream.take_request(asked)
    for answer in ANSWERED[:4]:
        stream.take_forecast(answer)
    assert stream.report().clean


def test_a_forecast_on_another_partition_than_its_request_is_found() -> None:
    """The order of answers is the order of requests only on the same partition."""
    moved = replace(ANSWERED[0], partition=1, offset=99)
    only(judge([moved, *ANSWERED[1:]]), Kind.WRONG_PARTITION)


def test_requests_that_come_during_the_check_are_not_lost() -> None:
    """A late request counts when it has an answer, and not at all when it has none."""
    stream = StreamCheck(REQUESTS)
    for asked in ASKED[:2]:
        stream.take_request(asked)
    for answer in ANSWERED[:3]:
        stream.take_forecast(answer)
    assert (stream.unanswered, stream.orphans) == (0, 1)
    for asked in ASKED[2:4]:
        stream.take_request(asked, due=False)
    report = stream.report()
    assert report.clean
    assert report.requests == 3


def test_examples_are_limited_and_counts_are_not() -> None:
    """A thousand lost requests make a short report."""
    report = judge([], asked=[request(0, offset) for offset in range(1_000)])
    assert report.lost == 1_000
    assert len(report.findings) == 5


def test_the_checker_imports_no_other_part() -> None:
    """A witness that shared code with the parts it judges would share their mistakes."""
    ours = Path(modelwire.checker.__file__).parent
    strangers = set()
    for file in ours.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            strangers |= {n for n in names if not n.startswith("modelwire.checker")}
    parts = {"schemas", "deployment", "scoring", "adapters", "trainer", "publisher", "consumer"}
    assert not {name.split(".")[0] for name in strangers} & (parts | {"modelwire"})


@pytest.mark.parametrize(
    ("old", "new"),
    [('{"sales":1.5}', '{"sales":null}'), ('{"sales":1.5}', "{}"), ('"outputs":', '"outcome":')],
)
def test_a_forecast_without_numbers_is_no_answer(old: str, new: str) -> None:
    """A null (which is how NaN is written), no output at all: it cannot be read, and one is lost."""
    report = judge([rewritten(ANSWERED[0], old, new), *ANSWERED[1:]])
    assert (report.unknown, report.lost, report.clean) == (1, 1, False)
