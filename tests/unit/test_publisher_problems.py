"""What is said of an error on stderr: lines for people, an object for programs."""

import json

import yaml

from deployment.readiness import Lack
from modelwire.problems import problem_object, problem_text
from schemas.errors import NotFound, RefusedByRule

UNREADY = RefusedByRule(
    "[fleet-not-ready] 1 of 2 live instances have sales:2 prepared",
    hint="mend what they say",
    details=(
        Lack("modelwire.sales-0", 2, "not prepared yet"),
        Lack("b", 12, "refused (runtime: needs opset 99)"),
    ),
)


def test_a_refusal_has_a_row_for_each_instance_below_its_sentence() -> None:
    """The columns are aligned and have names; the next thing to try is last."""
    assert problem_text(UNREADY, "table").splitlines() == [
        "error: [fleet-not-ready] 1 of 2 live instances have sales:2 prepared",
        "  instance           version  why",
        "  modelwire.sales-0  2        not prepared yet",
        "  b                  12       refused (runtime: needs opset 99)",
        "  next: mend what they say",
    ]


def test_an_error_without_rows_has_none_and_no_heads() -> None:
    """One line, or two with a hint."""
    assert problem_text(NotFound("no such bundle"), "table") == "error: no such bundle"


def test_programs_get_code_and_instances_apart() -> None:
    """JSON and YAML say the same; the sentence is without the code in brackets."""
    said = json.loads(problem_text(UNREADY, "json"))
    assert said == {
        "error": "1 of 2 live instances have sales:2 prepared",
        "code": "fleet-not-ready",
        "hint": "mend what they say",
        "exit_code": 3,
        "instances": [
            {"instance": "modelwire.sales-0", "version": 2, "why": "not prepared yet"},
            {"instance": "b", "version": 12, "why": "refused (runtime: needs opset 99)"},
        ],
    }
    assert yaml.safe_load(problem_text(UNREADY, "yaml")) == said


def test_an_error_that_no_rule_made_has_no_code() -> None:
    """Its keys are there all the same."""
    said = problem_object(NotFound("[x is no code"))
    assert (said["error"], said["code"], said["hint"]) == ("[x is no code", None, None)
    assert (said["exit_code"], said["instances"]) == (4, [])


def test_bytes_that_are_no_text_are_escaped() -> None:
    """They must not break the very message that tells of them."""
    for output in ("table", "json"):
        assert "\\udcff" in problem_text(NotFound("no \udcff here"), output).replace("\\\\", "\\")
