"""What a draw of a schedule asks for: a command that makes sense for the deployment that it finds.

The rules may turn it down all the same, where something came in between or too few instances are ready.
"""

from collections.abc import Callable, Sequence
from functools import partial
from random import Random

from deployment.commands import (
    Abort,
    Promote,
    Release,
    Revoke,
    Shift,
    Start,
    Strategy,
    Undo,
)
from deployment.commands import Command as Given
from deployment.readiness import Fleet
from deployment.state import Deployment, Rollout
from tests.chaos.schedule import Ask

MINIMA = (0, 0, 0, 5_000, 10_000)
"""Of instances that must be ready, in basis points: nobody is asked, some may stay behind, all."""

WEIGHTS = (0, 100, 1_000, 2_500, 5_000, 7_500, 10_000)
SHARES = (500, 5_000)

NewBundle = Callable[[], str]
"""Stores a bundle that was never released; returns its digest."""

Choice = tuple[int, Callable[[], Given]]
"""How often in comparison with the others, and what."""


def choose(
    deployment: Deployment, ask: Ask, random: Random, fleet: Fleet, new_bundle: NewBundle
) -> Given:
    """The command of this draw. With an empty ``fleet`` nobody is asked whether they are ready."""
    choices = _choices(deployment, random, fleet, new_bundle)
    if ask is Ask.RELEASE:
        choices = choices[:1]
    chosen = random.choices(choices, [often for often, _ in choices])[0]
    return chosen[1]()


def _choices(
    deployment: Deployment, random: Random, fleet: Fleet, new_bundle: NewBundle
) -> Sequence[Choice]:
    """What may be asked; a release, which is always possible, stands first."""
    rollout = deployment.rollout
    minimum = random.choice(MINIMA) if fleet else 0
    salt = f"{random.getrandbits(32):08x}"

    def release(strategy: Strategy | None) -> Choice:
        return 2, lambda: Release(new_bundle(), strategy, salt, min_ready=minimum, fleet=fleet)

    if rollout is not None:
        return [release(None), *_while_it_runs(rollout, random, fleet)]
    former = [number for number in deployment.crowned if number != deployment.champion]
    usable = [number for number in former if deployment.releases[number].may_serve]
    choices = [release(Strategy.BLUE_GREEN), release(Strategy.CANARY)]
    if deployment.previous is not None:
        champion, previous = deployment.champion, deployment.previous
        assert champion is not None
        choices.append((3, lambda: Undo(previous, fleet=fleet, min_ready=minimum)))
        choices.append((1, lambda: Revoke(champion)))
    if usable:
        other = random.choice(usable)

        def again(often: int, strategy: Strategy) -> Choice:
            share = random.choice(SHARES)
            return often, lambda: Start(
                other, strategy, salt, min_ready=minimum, share=share, fleet=fleet
            )

        choices += [again(2, Strategy.BLUE_GREEN), again(3, Strategy.CANARY)]
        choices += [again(1, Strategy.SHADOW)]
    choices += [(1, partial(Abort, revision)) for revision in deployment.shadows]
    return choices


def _while_it_runs(rollout: Rollout, random: Random, fleet: Fleet) -> list[Choice]:
    revision = rollout.revision
    choices: list[Choice] = [
        (4, lambda: Promote(revision, fleet)),
        (1, lambda: Abort(revision)),
        (1, lambda: Revoke(rollout.candidate)),
    ]
    if rollout.strategy == Strategy.CANARY:
        weight = random.choice([each for each in WEIGHTS if each != rollout.weight])
        choices.append((12, lambda: Shift(revision, weight, None, fleet)))
    return choices
