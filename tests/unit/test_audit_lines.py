"""Log lines of answers: ECS names, whole JSON on one line, the same lines each time."""

import json
from datetime import timedelta
from typing import Any

import pytest

from adapters.answer_rows import rows_of
from audit.lines import LONGEST_INPUTS, encode_line, is_sampled, line_of
from schemas.answer_file import Kind, Record
from schemas.events import ModelReleased
from schemas.forecast import Variant
from schemas.rejection import ENVELOPE_HEADER, Reason
from tests.answers import NOON, digest, event_records, forecast_record, rejection_record


def lines_of(kind: Kind, *records: Record) -> list[dict[str, Any]]:
    """The lines as their reader parses them."""
    rows = rows_of(kind, f"sales.{kind}", 3, records).to_pylist()
    written = [encode_line(line_of(kind, "sales", row)) for row in rows]
    assert not [line for line in written if b"\n" in line]
    return [json.loads(line) for line in written]


def test_a_forecast_has_a_line_that_says_all_of_it() -> None:
    """Who was asked what, what answered, with which version and how fast."""
    record = forecast_record("sales", 7, version=2, variant=Variant.CANDIDATE, units=1.5)
    (line,) = lines_of(Kind.FORECASTS, record)
    assert list(line)[:3] == ["@timestamp", "log.level", "message"]
    assert line == {
        "@timestamp": "2026-11-20T12:00:00.000000Z",
        "log.level": "info",
        "message": "answer.forecast",
        "ecs.version": "1.6.0",
        "event": {
            "action": "answer.forecast",
            "dataset": "modelwire.forecasts",
            "id": "sales.forecasts/3/7",
            "outcome": "success",
            "duration": 20_000_000,
        },
        "service": {"name": "modelwire", "node": {"name": "modelwire-sales-0"}},
        "modelwire": {
            "model": "sales",
            "topic": "sales.forecasts",
            "partition": 3,
            "offset": 7,
            "request_id": "r-7",
            "key": "France|22423",
            "version": 2,
            "digest": digest(2),
            "variant": "candidate",
            "revision": 2,
            "runtime": "onnxruntime 1.31.0 x86_64-avx512",
            "source": {
                "topic": "sales.requests",
                "partition": 0,
                "offset": 7,
                "time": "2026-11-20T11:59:59.980000Z",
            },
            "milliseconds": 20,
            "scored_at": "2026-11-20T11:59:59.998500Z",
            "outputs": {"units": 1.5},
            "inputs": {"country": "France", "stockcode": "22423", "date": "2026-11-21"},
        },
    }


def test_a_rejection_says_why() -> None:
    """Its reason, and whether its bytes were kept; nothing of a version where it was not routed."""
    enveloped = rejection_record("sales", 9, reason=Reason.TOO_LARGE, version=0)
    headers = (*enveloped.headers, (ENVELOPE_HEADER, b"1"))
    kept, left_out = lines_of(
        Kind.REJECTIONS,
        rejection_record("sales", 8),
        Record(9, enveloped.time_ms, None, b"{}", headers),
    )
    assert kept["event"]["outcome"] == "failure"
    assert kept["modelwire"]["reason"] == "wrong-type"
    assert kept["modelwire"]["detail"] == "stockcode: expected a string"
    assert (kept["modelwire"]["request_id"], kept["modelwire"]["kept"]) == ("bad-1", True)
    assert (left_out["modelwire"]["reason"], left_out["modelwire"]["kept"]) == ("too-large", False)
    assert not {"version", "digest", "variant", "request_id", "key"} & set(left_out["modelwire"])


def test_a_control_event_has_the_time_and_the_name_of_who_gave_it() -> None:
    """Searchable beside the answers: what was released, by whom, why."""
    (line,) = lines_of(Kind.CONTROL, *event_records("sales", ModelReleased(1, digest(1), "better")))
    assert line["message"] == line["event"]["action"] == "model.released"
    assert line["user"] == {"name": "ann@desk"}
    assert line["modelwire"]["revision"] == 1
    assert line["modelwire"]["data"] == {"version": 1, "digest": digest(1), "reason": "better"}


def test_garbage_has_a_line_too() -> None:
    """A record that is nothing of its kind is told by its place, and none of its bytes are."""
    for kind in Kind:
        (line,) = lines_of(kind, Record(4, 1_700_000_000_000, b"\xff", b"\xffsecret"))
        assert line["event"]["outcome"] == "unknown"
        assert line["log.level"] == "warning"
        assert line["event"]["id"] == f"sales.{kind}/3/4"
        assert "secret" not in json.dumps(line)


@pytest.mark.parametrize(
    ("inputs", "seen"),
    [
        (b'{"a" : 1.50,\n "b":[1,\t2]}', {"a": 1.5, "b": [1, 2]}),
        (b'{"n":123456789012345678901234567890}', {"n": 123456789012345678901234567890}),
        (b'{"s":"' + b"x" * LONGEST_INPUTS + b'"}', None),
    ],
)
def test_inputs_of_any_form_stay_one_line(inputs: bytes, seen: object) -> None:
    """Line ends between the parts go, numbers stay as they were written, long inputs are left out."""
    (line,) = lines_of(Kind.FORECASTS, forecast_record("sales", 1, inputs=inputs))
    assert line["modelwire"].get("inputs") == seen
    assert line["modelwire"].get("inputs_left_out", False) is (seen is None)


def test_an_answer_before_its_request_has_no_duration() -> None:
    """Clocks that disagree give no negative times."""
    (line,) = lines_of(Kind.FORECASTS, forecast_record("sales", 1, milliseconds=-5))
    assert "duration" not in line["event"]
    assert "milliseconds" not in line["modelwire"]


def test_a_sample_is_the_same_each_time_and_of_that_share() -> None:
    """By the request's place alone: a forecast and its shadow have lines, or neither has."""
    records = [forecast_record("sales", offset) for offset in range(4_000)]
    rows = rows_of(Kind.FORECASTS, "sales.results", 0, records).to_pylist()
    later = [forecast_record("sales", n, NOON + timedelta(1), version=5) for n in range(4_000)]
    shadows = rows_of(Kind.SHADOW, "sales.shadow", 0, later).to_pylist()
    chosen = [is_sampled(row, 0.1) for row in rows]
    assert chosen == [is_sampled(row, 0.1) for row in shadows]
    assert 300 < sum(chosen) < 500
    assert all(is_sampled(row, 1.0) for row in rows)
    assert not any(is_sampled(row, 0.0) for row in rows)


def test_what_says_no_place_is_always_in_the_sample() -> None:
    """Events are few, and records that nobody can read are what somebody should see."""
    events = rows_of(Kind.CONTROL, "c", 0, event_records("sales", ModelReleased(1, digest(1))))
    garbage = rows_of(Kind.FORECASTS, "r", 0, [Record(1, 1, None, b"?")])
    assert all(is_sampled(row, 0.0) for row in [*events.to_pylist(), *garbage.to_pylist()])
