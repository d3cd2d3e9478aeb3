"""The protocol under random schedules, and the proof that the schedules find what they should."""

import os
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor

import pytest

from tests.simulation.mutants import PLANTED, planted
from tests.simulation.world import Verdict, replay, shrink, simulate

SHORT = 2_000
LONG = 100_000
ENOUGH_TO_FIND = 3_000
FIRST_SEED = int(os.environ.get("SEED", "0"))


def explain(seed: int, verdict: Verdict) -> str:
    """What a person needs to go on from a failure."""
    small = shrink(verdict.drawn)
    return (
        f"seed {seed}: {'; '.join(verdict.findings[:3])}\nshrunk from {len(verdict.drawn)} to "
        f"{len(small)} choices: {replay(small).findings[0]}\n"
        f"replay it with tests.simulation.world.replay({small})"
    )


def check(seeds: Iterable[int]) -> tuple[int, int]:
    """The answers and the crashes of these schedules; fails at the first one that goes wrong."""
    answered = crashes = 0
    for seed in seeds:
        verdict = simulate(seed)
        assert not verdict.findings, explain(seed, verdict)
        answered += verdict.answered
        crashes += verdict.crashes
    return answered, crashes


def test_random_schedules_lose_double_and_reverse_nothing() -> None:
    """2,000 of them, with crashes, zombies, moves, aborts and vanished bundles; all heal in the end."""
    answered, crashes = check(range(FIRST_SEED, FIRST_SEED + SHORT))
    assert answered > 20 * SHORT
    assert crashes > SHORT / 2


@pytest.mark.chaos
@pytest.mark.timeout(7_200)
def test_many_more_random_schedules() -> None:
    """100,000 of them."""
    size = 1_000
    starts = range(FIRST_SEED, FIRST_SEED + LONG, size)
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        found = list(pool.map(check, [range(start, start + size) for start in starts]))
    answered, crashes = (sum(column) for column in zip(*found, strict=True))
    print(f"simulated {LONG:,} schedules: {answered:,} answers, {crashes:,} crashes, no finding")


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_bug_is_found(name: str) -> None:
    """Each within a few seconds; its choices fail in the same way again, and so do fewer of them."""
    with planted(name):
        seed, verdict = next(
            (seed, verdict)
            for seed in range(ENOUGH_TO_FIND)
            if (verdict := simulate(seed)).findings
        )
        assert replay(verdict.drawn).findings == verdict.findings
        small = shrink(verdict.drawn, limit=60)
        kinds = {each.findings[0].split(":")[0] for each in (verdict, replay(small))}
    print(
        f"{name}: seed {seed}, {verdict.findings[0]}, {len(verdict.drawn)} → {len(small)} choices"
    )
    assert len(kinds) == 1
    assert len(small) < len(verdict.drawn)
    assert not replay(small).findings, "the bug is the reason"
