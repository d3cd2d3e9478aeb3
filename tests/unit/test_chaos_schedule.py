"""The schedule of a chaos run: what the seed and the sizes make of it."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest

from tests.chaos.schedule import (
    Ask,
    Command,
    Fault,
    FillDisk,
    Flood,
    Join,
    Kill,
    KillBroker,
    Sizes,
    SpoilStore,
    Step,
    Stop,
    StoreFault,
    digest,
    flood_for,
    pace,
    schedule,
    sizes_for,
)

FULL = sizes_for(100_000, 200, 20, slots=3, flood=500)
SMALL = sizes_for(6_000, 5, 1, slots=2, flood=30)
SEEDS = range(20)


def of_kind(steps: tuple[Step, ...], *kinds: type[Fault]) -> list[Step]:
    """The steps of these kinds, in order."""
    return [step for step in steps if isinstance(step.fault, kinds)]


def test_the_seed_replays_the_schedule() -> None:
    """The same seed and sizes give the same schedule, another seed another one."""
    assert schedule(FULL, 7) == schedule(FULL, 7)
    assert len({schedule(FULL, seed) for seed in SEEDS}) == len(SEEDS)


def test_a_seed_noted_with_a_bug_still_means_the_same() -> None:
    """The faults of one seed, as they were when this was written."""
    steps = of_kind(schedule(SMALL, 1), Kill, KillBroker)
    assert [(step.at, step.fault) for step in steps] == [
        (677, Kill(slot=1)),
        (1538, Kill(slot=1)),
        (2407, KillBroker(away_seconds=0.0)),
        (2474, Kill(slot=0)),
        (4042, Kill(slot=1)),
        (4713, Kill(slot=1)),
    ]


def test_a_digest_names_a_schedule() -> None:
    """The same schedule has the same one on every machine; whatever is other in it makes another one."""
    steps = schedule(SMALL, 1)
    assert digest(steps) == digest(schedule(SMALL, 1)) == "f0165d4a4b40ca7b"
    changed = [(steps[0], *steps[:0:-1]), steps[:-1], schedule(SMALL, 2), schedule(FULL, 1)]
    later = replace(steps[0], at=steps[0].at + 1)
    assert len({digest(each) for each in (steps, (later, *steps[1:]), *changed)}) == 6


@pytest.mark.parametrize(
    ("requests", "commands"),
    [(100, 20), (4_000, 20), (10_000, 50), (100_000, 500), (1_000_000, 500)],
)
def test_a_flood_is_as_large_as_its_run(requests: int, commands: int) -> None:
    """A small run is not all flood, and has one; 500 commands are enough for any."""
    assert flood_for(requests) == commands


@pytest.mark.parametrize("sizes", [FULL, SMALL])
@pytest.mark.parametrize("seed", SEEDS)
def test_every_kind_occurs_as_often_as_asked(sizes: Sizes, seed: int) -> None:
    """200 kills are 200 kills; every fault of the store occurs, and stops beyond the session."""
    steps = schedule(sizes, seed)
    releases = sizes.store_faults + sizes.full_disks
    assert Counter(type(step.fault) for step in steps) == {
        Kill: sizes.kills,
        KillBroker: sizes.broker_kills,
        Stop: sizes.stops,
        SpoilStore: sizes.store_faults,
        FillDisk: sizes.full_disks,
        Join: sizes.joins,
        Command: sizes.commands + releases,
        Flood: 1,
    }
    asked = [step.fault for step in steps if isinstance(step.fault, Command)]
    assert sum(each.ask is Ask.RELEASE for each in asked) == releases
    assert {step.fault.fault for step in steps if isinstance(step.fault, SpoilStore)} == {
        *StoreFault
    }
    stops = [step.fault.seconds for step in steps if isinstance(step.fault, Stop)]
    assert sum(seconds > 6.0 for seconds in stops) == sizes.long_stops >= 1


@pytest.mark.parametrize("sizes", [FULL, SMALL])
@pytest.mark.parametrize("seed", SEEDS)
def test_faults_are_in_order_and_inside_the_run(sizes: Sizes, seed: int) -> None:
    """None comes before the first requests; all end before the last; slots are those that there are."""
    steps = schedule(sizes, seed)
    assert [step.at for step in steps] == sorted(step.at for step in steps)
    for step in steps:
        until = getattr(step.fault, "until", step.at + 1)
        assert sizes.requests * 0.03 - 1 <= step.at < until < sizes.requests * 0.97
        assert getattr(step.fault, "slot", 0) in range(sizes.slots)


@pytest.mark.parametrize("kind", [SpoilStore, FillDisk])
@pytest.mark.parametrize("seed", SEEDS)
def test_what_lasts_is_over_before_the_next_of_its_kind(kind: type[Fault], seed: int) -> None:
    """Two faults of the store at once would hide each other; a release comes with each."""
    steps = schedule(FULL, seed)
    places = [(step.at, getattr(step.fault, "until", 0)) for step in of_kind(steps, kind)]
    for (_, until), (at, _) in pairwise(places):
        assert until < at
    releases = {s.at for s in steps if isinstance(s.fault, Command) and s.fault.ask is Ask.RELEASE}
    assert {at for at, _ in places} <= releases


def test_another_number_of_kills_moves_no_other_fault() -> None:
    """A failure that needs fewer kills can be looked for with the same rest."""
    fewer = schedule(replace(FULL, kills=3), 7)
    kept = [step for step in schedule(FULL, 7) if not isinstance(step.fault, Kill)]
    assert [step for step in fewer if not isinstance(step.fault, Kill)] == kept


def test_nothing_asked_is_nothing_done() -> None:
    """Sizes of 0 give no fault; sizes below are no sizes."""
    assert schedule(Sizes(100, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0), 1) == ()
    with pytest.raises(ValueError, match="below nothing"):
        replace(FULL, stops=-1)


def test_the_full_size_takes_a_quarter_of_an_hour_at_most() -> None:
    """Where the machine keeps up with its restarts; a run without kills is no faster than readers are."""
    assert 600 < FULL.requests / pace(FULL) < 900
    assert pace(replace(FULL, kills=0, broker_kills=0)) == 1_500
