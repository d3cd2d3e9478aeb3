"""Whatever ends a sink, and however many run: each committed answer is in the files once.

The short forms always run; those of the full length are part of ``make chaos``.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.chaos.sinks import kill_sinks, pair_sinks
from tests.fleet import Harness, environment_of

if TYPE_CHECKING:
    from tests.conftest import RunningStack

pytestmark = pytest.mark.stack


@pytest.fixture
def on_s3(stack: "RunningStack", model: str, tmp_path: Path) -> Iterator[Harness]:
    """A model whose answers are kept on the S3 server."""
    settings = stack.settings(f"kept-{model}")
    running = Harness(settings, environment_of(settings), model, tmp_path)
    yield running
    running.close()


def test_a_few_kills_lose_and_double_nothing(on_s3: Harness) -> None:
    """Three kills during 6,000 answers."""
    outcome = kill_sinks(on_s3, 6_000, 3, seed=1)
    assert outcome.answers > 6_000
    assert outcome.files > 3
    assert outcome.at_work


def test_two_sinks_are_as_good_as_one(harness: Harness) -> None:
    """Both have the same records at hand, and one of them loses the put."""
    outcome = pair_sinks(harness, 6_000, 1, seed=1)
    assert outcome.answers > 6_000
    assert outcome.lost_puts >= 1


@pytest.mark.chaos
@pytest.mark.timeout(1_800)
def test_fifty_kills_lose_and_double_nothing(on_s3: Harness) -> None:
    """During 200,000 answers."""
    outcome = kill_sinks(on_s3, 200_000, 50, seed=7)
    print(outcome)
    assert outcome.answers > 200_000
    assert outcome.at_work > 25


@pytest.mark.chaos
@pytest.mark.timeout(1_800)
def test_two_sinks_ten_times(on_s3: Harness) -> None:
    """During 100,000 answers; one of the two is killed each time."""
    outcome = pair_sinks(on_s3, 100_000, 10, seed=7)
    print(outcome)
    assert outcome.lost_puts >= 10
