"""A log line against the line that its answer makes."""

import json
from typing import Any

from adapters.kafka import TopicNames
from audit.answers import Place, parse_target
from audit.line_check import answer_lines, line_faults
from audit.verdicts import What

MADE: dict[str, Any] = {
    "@timestamp": "2026-03-01T12:00:00.000000Z",
    "event": {"id": "sales.results/3/1042", "dataset": "modelwire.forecasts", "outcome": "success"},
    "modelwire": {"version": 2, "outputs": {"units": 12.5}, "runtime": "onnxruntime 1.31.1"},
}
TOPICS = TopicNames(
    *(
        f"sales.{name}"
        for name in ("control", "requests", "results", "shadow", "rejections", "fleet", "actuals")
    )
)


def raw(**changes: Any) -> bytes:
    """The line with other members."""
    return json.dumps(MADE | changes).encode()


def test_a_line_names_its_answer_and_other_lines_are_passed_over() -> None:
    """Of shadows, of control events, of consumers, and what is no JSON at all."""
    shadow = raw(event=MADE["event"] | {"dataset": "modelwire.shadow"})
    others = [b"", b"{", b"[]", b"3", b'{"event":3}', b'{"event":{"id":"x"}}', b"\xff", shadow]
    placeless = raw(event=MADE["event"] | {"id": "nowhere"})
    lines = list(answer_lines([*others, raw(), placeless]))
    assert [(line.number, line.place) for line in lines] == [
        (len(others) + 1, Place("sales.results", 3, 1042))
    ]


def test_what_a_collector_adds_is_nobodys_business_and_what_it_drops_says_nothing() -> None:
    """Only a value that is another one is a fault."""
    less = {name: value for name, value in MADE.items() if name != "@timestamp"}
    [line] = answer_lines([json.dumps(less | {"stream": "stderr", "tags": [1]}).encode()])
    assert line_faults(line, MADE) == []


def test_each_value_that_is_another_one_is_named_with_both() -> None:
    """Nested ones, too."""
    told = MADE["modelwire"] | {"version": 3, "outputs": {"units": 12.25}}
    [line] = answer_lines([raw(modelwire=told)])
    faults = line_faults(line, MADE)
    assert {fault.what for fault in faults} == {What.LOG_LINE}
    assert [fault.why for fault in faults] == [
        "line 1 says modelwire.version = 3; the answer says 2",
        "line 1 says modelwire.outputs.units = 12.25; the answer says 12.5",
    ]


def test_what_stands_in_the_place_of_an_object_is_named() -> None:
    """Nothing that it held is there any more, and something else is."""
    told = MADE["modelwire"] | {"outputs": "units 100", "version": True}
    [line] = answer_lines([raw(modelwire=told)])
    made = MADE | {"modelwire": MADE["modelwire"] | {"version": 1}}
    assert [fault.why for fault in line_faults(line, made)] == [
        "line 1 says modelwire.version = True; the answer says 1",
        "line 1 says modelwire.outputs = 'units 100'; the answer says modelwire.outputs.units = 12.5",
    ]


def test_a_target_is_a_place_only_in_a_topic_of_the_model() -> None:
    """Ids may look like places."""
    assert parse_target("sales.requests/3/1042", TOPICS) == Place("sales.requests", 3, 1042)
    assert parse_target("sales.rejections/0/0", TOPICS) == Place("sales.rejections", 0, 0)
    for text in ("shop/3/1042", "r-1", "sales.requests/3", "sales.requests/-1/2", ""):
        assert parse_target(text, TOPICS) == text
