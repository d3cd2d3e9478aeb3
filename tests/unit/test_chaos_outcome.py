"""The outcome of a chaos run: what of it makes the run a failure."""

from collections import Counter
from dataclasses import replace

import pytest

from modelwire.checker import Finding, Kind, Report
from tests.chaos.outcome import Outcome
from tests.chaos.schedule import sizes_for

SIZES = sizes_for(1_000, 3, 1, slots=2, flood=0)
REPORT = Report(
    requests=1_000,
    forecasts=990,
    rejections=10,
    lost=0,
    doubled=0,
    revision_regressions=0,
    wrong_echo=0,
    wrong_version=0,
    wrong_variant=0,
    wrong_partition=0,
    unknown=0,
    versions={1: 990},
    version_checked=True,
    variant_unchecked=0,
    shares=(),
    control_problem="",
    findings=(),
)
CLEAN = Outcome(
    sizes=SIZES,
    seed=7,
    report=REPORT,
    seen=Counter(kills=3, broker_kills=1, joins=1),
    rederived=100,
    rederived_wrong=(),
    wrongly_rejected=0,
    poisoned=10,
    problems=(),
    seconds=12.0,
)


def test_a_run_in_which_all_went_well_is_clean() -> None:
    """Its figures are those that the issue asks for."""
    assert CLEAN.clean
    said = CLEAN.as_json()
    wanted = {"requests": 1_000, "answered": 1_000, "lost": 0, "doubled": 0, "seed": 7}
    wanted |= {"revision_regressions": 0, "wrong_variant": 0, "kills": 3, "broker_kills": 1}
    assert said.items() >= wanted.items()


@pytest.mark.parametrize("kind", Kind)
def test_one_finding_of_the_checker_fails_the_run(kind: Kind) -> None:
    """Whatever its kind, with and without a sentence about it."""
    counted = replace(REPORT, **{kind.value: 1})
    assert not replace(CLEAN, report=counted).clean
    told = replace(counted, findings=(Finding(kind, "here"),))
    outcome = replace(CLEAN, report=told)
    assert outcome.as_json()["problems"] == [f"{kind}: here"]
    assert outcome.as_json()[kind.value] == 1


@pytest.mark.parametrize(
    ("spoilt", "said"),
    [
        ({"seen": Counter(kills=2, broker_kills=1)}, "2 kills of 3"),
        ({"seen": Counter(kills=3)}, "0 broker_kills of 1"),
        ({"poisoned": 11}, "10 rejections of 11 poisoned requests"),
        ({"wrongly_rejected": 1}, "1 requests were rejected that are good"),
        ({"rederived_wrong": ("given 1, derived 2",)}, "not to the bit"),
        ({"problems": ("a slot was given up",)}, "a slot was given up"),
        ({"report": replace(REPORT, requests=999)}, "999 of 1000 requests were sent"),
        ({"report": replace(REPORT, control_problem="no log")}, "no log"),
    ],
)
def test_what_was_not_done_or_not_right_fails_the_run(spoilt: dict[str, object], said: str) -> None:
    """A run that killed less than it was asked to proves less; each such thing is in a sentence."""
    outcome = replace(CLEAN, **spoilt)
    assert not outcome.clean
    assert said in " ".join(outcome.as_json()["problems"])
