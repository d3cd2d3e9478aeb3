"""The description: what an instance says of itself in each phase, and of its unclean ends."""

from dataclasses import replace
from datetime import UTC, date, datetime
from types import SimpleNamespace

import pytest

from adapters.settings import Settings
from consumer.answering import Serving
from consumer.control import Heard
from consumer.description import Description, crashes_of
from consumer.models import Report
from deployment.state import Deployment, Rollout, empty
from schemas.fleet import CrashCount, InstanceStatus, Phase

CANARY = Rollout(5, 2, "canary", "s", 100, datetime(2026, 1, 1, tzinfo=UTC), 6)
RUNNING = replace(empty("m"), revision=6, rollout=CANARY)
BEFORE = (CrashCount(5, 2),)


def describe(phase: Phase, serving: Serving | None) -> InstanceStatus:
    """The status of an instance that read revision 6."""
    # It has no snapshot to look at, whose sessions might then die on the reporter's thread.
    answering = SimpleNamespace(
        serving=serving,
        phase=phase,
        detail="",
        holdings=SimpleNamespace(partitions=()),
        transactions=SimpleNamespace(answered=0, rejected=0, counts={}),
    )
    service = SimpleNamespace(answering=answering, lag=None)
    return Description(
        Settings(),
        "m",
        "m-0",
        service,  # type: ignore[arg-type]
        SimpleNamespace(report=Report((1,), (), (1, 2))),  # type: ignore[arg-type]
        SimpleNamespace(heard=Heard(RUNNING, True, 0.0)),  # type: ignore[arg-type]
        SimpleNamespace(counts=dict),  # type: ignore[arg-type]
        SimpleNamespace(crashes_before=BEFORE),  # type: ignore[arg-type]
    )()


@pytest.mark.parametrize(
    ("phase", "revision"), [(Phase.READY, 4), (Phase.LEAVING, 4), (Phase.WAITING, 0)]
)
def test_outside_the_group_no_revision_is_answered_at(phase: Phase, revision: int) -> None:
    """Whatever is loaded there: what waits must not pass for applied; the champion is told."""
    status = describe(phase, Serving(4, 1, None))
    assert (status.revision, status.champion, status.read_revision) == (revision, 1, 6)


def test_before_the_first_snapshot_nothing_is_served() -> None:
    """Neither a revision, nor a champion, nor its last day."""
    status = describe(Phase.STARTING, None)
    assert (status.revision, status.champion, status.horizon_days_left) == (0, None, None)


def test_verdicts_crashes_and_the_days_left_are_told() -> None:
    """As the loader, the topic's past and the contract have them."""
    status = describe(Phase.READY, Serving(4, 1, date(2026, 3, 2)))
    assert (status.prepared, status.passed) == ((1,), (1, 2))
    assert status.crashes == BEFORE
    assert status.horizon_days_left == (date(2026, 3, 2) - status.at.date()).days


@pytest.mark.parametrize(
    ("newest", "caught_up", "before", "told"),
    [
        pytest.param(RUNNING, True, BEFORE, BEFORE, id="the same rollout"),
        pytest.param(RUNNING, True, (CrashCount(3, 9),), (CrashCount(5, 0),), id="another one"),
        pytest.param(RUNNING, True, (), (CrashCount(5, 0),), id="a clean stop before"),
        pytest.param(empty("m"), True, BEFORE, (), id="no rollout any more"),
        pytest.param(empty("m"), False, BEFORE, BEFORE, id="the log is not read yet"),
    ],
)
def test_unclean_ends_count_for_the_rollout_that_moves_traffic(
    newest: Deployment,
    caught_up: bool,
    before: tuple[CrashCount, ...],
    told: tuple[CrashCount, ...],
) -> None:
    """An end before the log was read must not make it forget; with a rollout 0 is told too."""
    assert crashes_of(Heard(newest, caught_up, 0.0), before) == told
