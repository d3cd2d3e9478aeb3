"""Kills, stops, a broker that dies, a store that is away, a full disk and a flood of commands, at once.

The long form is ``make chaos``.
"""

from pathlib import Path

import pytest

from tests.chaos.arena import arena
from tests.chaos.campaign import Campaign
from tests.chaos.schedule import Sizes

pytestmark = pytest.mark.stack

SEED = 8
RATE = 400.0
SAMPLE = 100

SIZES = Sizes(
    requests=6_000,
    slots=2,
    kills=5,
    broker_kills=1,
    stops=1,
    long_stops=1,
    store_faults=2,
    full_disks=1,
    joins=1,
    commands=4,
    flood=20,
)


def test_every_request_has_its_one_right_answer_whatever_dies(tmp_path: Path, model: str) -> None:
    """Nothing is lost, doubled, wrongly routed or other than what is derived again, to the bit."""
    with arena(tmp_path, model) as (harness, faults):
        outcome = Campaign(harness, faults, SIZES, SEED, RATE, SAMPLE).run()
    said = outcome.as_json()
    print(said)
    assert outcome.clean, said["problems"]
    assert (said["requests"], said["kills"], said["broker_kills"]) == (6_000, 5, 1)
    assert said["versions"] > 1, "no swap was heard of"
    assert said["rederived"] == SAMPLE
    assert said["poisoned"] > 20
    seen = outcome.seen
    assert seen["store_faults_struck"] >= 1, "the store was down, then slow, and nobody asked it"
    assert seen["full_disks_struck"] == 1, "nobody met the full disk"
