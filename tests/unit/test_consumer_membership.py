"""Membership: every reason to wait, to join, to hold and to leave, as a table."""

from dataclasses import replace

import pytest

from consumer.membership import Situation, Step, next_step

OUTSIDE = Situation(
    joined=False,
    caught_up=True,
    read_revision=6,
    champion=2,
    snapshot_revision=6,
    unprepared=(),
    unprepared_ms=0,
    refused={},
    revoked=(),
    revoked_ms=0,
    blocked=(),
    blocked_ms=0,
    peer_revision=0,
    may_leave_behind=False,
    stamp_wait_ms=30_000,
)
INSIDE = replace(OUTSIDE, joined=True)
BEHIND = replace(INSIDE, snapshot_revision=3, unprepared=(2,))
REFUSED = replace(BEHIND, refused={2: "golden: off"})
LEFT = replace(BEHIND, may_leave_behind=True)
REVOKED = replace(BEHIND, revoked=(1,))


@pytest.mark.parametrize(
    ("now", "step", "said"),
    [
        (OUTSIDE, Step.JOIN, ""),
        (replace(OUTSIDE, caught_up=False), Step.WAIT, "reading the control log"),
        (replace(OUTSIDE, champion=None, snapshot_revision=0), Step.WAIT, "no champion yet"),
        (replace(BEHIND, joined=False), Step.WAIT, "version 2 is being prepared"),
        (replace(OUTSIDE, snapshot_revision=5), Step.WAIT, "revision 6 is being prepared"),
        (replace(REFUSED, joined=False), Step.WAIT, "version 2: golden: off"),
        # A peer that is ahead is no reason to join with less than the log asks for.
        (replace(REFUSED, joined=False, peer_revision=6), Step.WAIT, "golden"),
        (INSIDE, Step.ANSWER, ""),
        (BEHIND, Step.ANSWER, ""),
        # Slow is not refused: while it is loading, a peer that is faster changes nothing.
        (replace(BEHIND, peer_revision=6, unprepared_ms=29_999), Step.ANSWER, ""),
        (
            replace(BEHIND, peer_revision=6, unprepared_ms=30_000),
            Step.LEAVE,
            "still not ready here",
        ),
        # However slow: without a peer that can, nobody would answer.
        (replace(BEHIND, peer_revision=5, unprepared_ms=99_999), Step.ANSWER, ""),
        # Allowed to be left behind: it goes as soon as somebody else is there.
        (replace(LEFT, peer_revision=6), Step.LEAVE, "version 2 is not ready here: the rollout"),
        (replace(LEFT, peer_revision=5, unprepared_ms=99_999), Step.ANSWER, ""),
        (replace(LEFT, peer_revision=6, unprepared=()), Step.ANSWER, ""),
        # The loader publishes a snapshot a moment before it says what it has prepared.
        (replace(LEFT, peer_revision=6, snapshot_revision=6), Step.ANSWER, ""),
        (replace(LEFT, joined=False, peer_revision=6), Step.WAIT, "version 2 is being prepared"),
        (REFUSED, Step.ANSWER, ""),
        (replace(REFUSED, peer_revision=5), Step.ANSWER, ""),
        (replace(REFUSED, peer_revision=6), Step.LEAVE, "another instance answers at revision 6"),
        (replace(BEHIND, blocked=(4,), blocked_ms=29_999), Step.ANSWER, ""),
        (replace(BEHIND, blocked=(4,), blocked_ms=30_000), Step.LEAVE, "partitions 4"),
        (REVOKED, Step.HOLD, "version 1 in service here was revoked"),
        (replace(REVOKED, revoked_ms=30_000), Step.LEAVE, "version 2 is not ready"),
        (replace(REVOKED, refused={2: "fetch: gone"}), Step.LEAVE, "fetch: gone"),
        (replace(REVOKED, joined=False), Step.WAIT, "being prepared"),
    ],
)
def test_the_situation_decides_the_step(now: Situation, step: Step, said: str) -> None:
    """Each situation leads to its step, with a sentence that says why."""
    decision = next_step(now)
    assert decision.step is step
    assert said in decision.reason
    assert bool(decision.reason) == (step not in (Step.JOIN, Step.ANSWER))
