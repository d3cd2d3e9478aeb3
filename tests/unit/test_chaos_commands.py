"""What a chaos run's draws ask for: commands that the rules allow, of every kind, whatever they find."""

import itertools
from collections import Counter
from collections.abc import Callable
from random import Random

import pytest

from deployment.commands import Abort, Promote, Release, Revoke, Shift, Start, Undo
from tests.chaos.commands import choose
from tests.chaos.schedule import Ask
from tests.control_logs import Writer


def new_bundles() -> Callable[[], str]:
    """Digests that were never released."""
    numbers = itertools.count(1)
    return lambda: f"sha256:{next(numbers):064x}"


@pytest.mark.parametrize("seed", range(5))
def test_a_flood_asks_for_everything_and_is_hardly_refused(seed: int) -> None:
    """300 commands on a log of their own, nobody asked: each kind occurs, nine of ten are taken."""
    writer, random, new_bundle = Writer("m"), Random(seed), new_bundles()
    kinds: Counter[type] = Counter()
    taken = 0
    for _ in range(300):
        command = choose(writer.deployment, Ask.ANY, random, (), new_bundle)
        kinds[type(command)] += 1
        taken += writer.give(command)
    assert kinds.keys() == {Release, Start, Shift, Promote, Abort, Undo, Revoke}
    assert taken > 270
    assert writer.deployment.champion is not None


def test_a_release_is_a_release_whatever_runs() -> None:
    """What comes with a fault of the store makes every instance fetch a bundle it never had."""
    writer, random, new_bundle = Writer("m"), Random(1), new_bundles()
    for _ in range(100):
        command = choose(writer.deployment, Ask.RELEASE, random, (), new_bundle)
        assert isinstance(command, Release)
        assert writer.give(command)
        writer.give(choose(writer.deployment, Ask.ANY, random, (), new_bundle))


def test_a_draw_means_the_same_command_again() -> None:
    """The same deployment, fleet and draw: the seed replays what is asked as far as the log allows."""
    writer, new_bundle = Writer("m"), new_bundles()
    writer.give(choose(writer.deployment, Ask.RELEASE, Random(1), (), new_bundle))
    for draw in range(20):
        one, other = (
            choose(writer.deployment, Ask.ANY, Random(draw), (), lambda: "sha256:" + "0" * 64)
            for _ in range(2)
        )
        assert one == other
