"""Admission against models that mean harm, and bundles whose bytes were turned."""

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from adapters.bundles import StoredBundles
from adapters.object_store import open_store
from consumer.admission import Admission
from consumer.rungs import NotAdmitted, Rung
from schemas.fleet import Phase
from tests.bundles import store_bundle
from tests.fleet import Harness, wait_for
from tests.gauntlet import ROWS
from tests.hostile import KINDS, hostile_of, limits_for, problem_of

RELEASED = ("allocation", "hang", "not a number", "external")
"""Of the kinds, one for each way in which the process that tries them ends."""


@pytest.mark.parametrize("kind", KINDS)
def test_no_kind_of_hostile_model_is_admitted(kind: str, tmp_path: Path) -> None:
    """Each has valid digests, and falls from the rung that its harm is seen at."""
    store = open_store(tmp_path.as_uri())
    made = hostile_of("m", kind, random.Random(11))
    ladder = Admission(StoredBundles(store), "m", limits_for(kind))
    with pytest.raises(NotAdmitted) as fallen:
        ladder.admit(1, made.store(store), lambda: True)
    assert problem_of(kind, fallen.value) is None


def test_no_bundle_with_a_turned_bit_is_admitted() -> None:
    """Whichever of its files it is in, the digest tells; the champion goes on."""
    report = _run_gauntlet("damaged", 60)
    assert (report["tried"], report["served"], report["rungs"]) == (60, 0, {"digest": 60})


def test_a_model_with_a_turned_bit_that_is_admitted_answers_without_harm() -> None:
    """Its digests match, so some are: they answer random requests, and the process lives."""
    report = _run_gauntlet("flipped", 4)
    assert report["tried"] == 4
    assert report["served"] > 0
    assert sum(report["answers"].values()) == report["served"] * ROWS


@pytest.mark.stack
def test_a_consumer_answers_on_while_hostile_models_are_released(harness: Harness) -> None:
    """Each is refused on the fleet topic and in the log lines, none answers, and nothing is lost."""
    harness.release(store_bundle(harness.store, harness.model, 1.0))
    instance = harness.start(CONSUMER__VET_TIMEOUT_MS="2000")
    harness.wait_until_ready()
    with harness.stream(300):
        for number, kind in enumerate(RELEASED, start=2):
            made = hostile_of(harness.model, kind, random.Random(number))
            # A few are even switched to.
            harness.release(made.store(harness.store), start=number % 2 == 0)
            [line, *_] = wait_for(
                f"a refusal of a {kind}",
                lambda version=number: [
                    line for line in instance.lines("model.refused") if line["version"] == version
                ],
            )
            fallen = NotAdmitted(Rung(line["rung"]), line["reason"])
            assert problem_of(kind, fallen) is None
        [sighting] = harness.fleet()
        assert {each.version for each in sighting.status.refused} <= set(range(2, number + 1))
        assert sighting.status.refused
        assert sighting.status.champion == 1
        better = store_bundle(harness.store, harness.model, 4.0)
        harness.wait_for_revision(harness.release(better))
    assert instance.process.poll() is None
    [sighting] = harness.fleet()
    assert sighting.status.phase is Phase.READY
    report = harness.verify()
    assert report.clean, report.findings
    assert set(report.versions) == {1, number + 1}


@pytest.mark.chaos
@pytest.mark.timeout(1_200)
def test_the_whole_gauntlet(tmp_path: Path) -> None:
    """3,000 turned bits: none serves; 300 with digests made to match and 200 hostile: nobody is lost."""
    uri = (tmp_path / "store").as_uri()
    dataset = str(Path(__file__).parents[2] / "datasets" / "online_retail.toml")
    trained = _modelwire("train", "--dataset", dataset, "--out", uri, "-o", "json")
    real = ("--store", uri, "--digest", json.loads(trained)["digest"])
    damaged = _run_gauntlet("damaged", 3_000, *real)
    flipped = _run_gauntlet("flipped", 300, *real)
    hostile_ones = _run_gauntlet("hostile", 200)
    for report in (damaged, flipped, hostile_ones):
        print(json.dumps(report))
    caught = flipped["rungs"].get("golden", 0) / flipped["tried"]
    refused = 1 - flipped["served"] / flipped["tried"]
    surprises = [
        each for report in (damaged, flipped, hostile_ones) for each in report["surprises"]
    ]
    assert not surprises
    assert sum(flipped["answers"].values()) == flipped["served"] * ROWS
    print(
        f"of the bits with matching digests golden vectors catch {caught:.1%}, all rungs {refused:.1%}"
    )
    assert (damaged["tried"], damaged["served"]) == (3_000, 0)
    assert flipped["tried"] == 300
    assert (hostile_ones["tried"], hostile_ones["served"]) == (200, 0)


def _modelwire(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "modelwire", *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _run_gauntlet(what: str, count: int, *arguments: str) -> dict[str, Any]:
    """What the process that stands for a consumer reports, once it came to its end."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.gauntlet", what, "--count", str(count), *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, f"the consumer was lost: {done.returncode}\n{done.stderr[-4_000:]}"
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return report
