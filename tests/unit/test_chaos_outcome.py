"""The outcome of a chaos run: what of it makes the run a failure."""

from collections import Counter
from dataclasses import replace

import pytest

from modelwire.checker import Finding, Kind, Report
from tests.chaos.outcome import Outcome
from tests.chaos.schedule import sizes_for

SIZES = sizes_for(1_000, 3, 1, slots=2, flood=20)
STRUCK = Counter(
    kills=3,
    broker_kills=1,
    stops_struck=1,
    store_faults_struck=4,
    full_disks_struck=1,
    joins_struck=1,
    flood_struck=18,
)
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
    schedule="0123456789abcdef",
    report=REPORT,
    seen=STRUCK,
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
    wanted |= {"schedule": "0123456789abcdef"}
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
        ({"seen": STRUCK - Counter(kills=1)}, "2 kills of 3"),
        ({"seen": STRUCK - Counter(broker_kills=1)}, "0 broker_kills of 1"),
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


@pytest.mark.parametrize("kind", ["stops", "store_faults", "full_disks", "joins", "flood"])
def test_a_kind_of_fault_that_never_struck_fails_the_run(kind: str) -> None:
    """It was scheduled and came, and hit nothing; where it was not scheduled nobody misses it."""
    seen = STRUCK | Counter({kind: 9})
    del seen[f"{kind}_struck"]
    outcome = replace(CLEAN, seen=seen)
    [problem] = outcome.as_json()["problems"]
    assert problem == f"{kind}: {getattr(SIZES, kind)} scheduled, and none struck anything"
    assert replace(outcome, sizes=replace(SIZES, **{kind: 0})).clean


def test_a_store_that_is_only_down_need_not_be_asked() -> None:
    """The first fault of the store refuses connections, which nobody counts."""
    seen = STRUCK - Counter(store_faults_struck=4)
    assert replace(CLEAN, seen=seen, sizes=replace(SIZES, store_faults=1)).clean
    assert not replace(CLEAN, seen=seen, sizes=replace(SIZES, store_faults=2)).clean
