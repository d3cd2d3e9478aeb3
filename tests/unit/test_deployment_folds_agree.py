"""The checker's own fold and the fold of the consumers say the same of every revision."""

import pytest

from deployment.state import empty, fold
from modelwire.checker import log as checker
from tests.control_logs import write_log


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_both_folds_agree_at_every_revision(seed: int) -> None:
    """Two programs that share no code: the same champion, candidate, weight and salt, 3,000 times."""
    written = write_log("sales", 3_000, seed=seed)
    theirs = checker.fold(written.records)
    assert not theirs.problem
    assert theirs.revision == len(written.records)
    ours = empty("sales")
    splits = 0
    for recorded, state in zip(written.ledger.events, theirs.states[1:], strict=True):
        ours = fold(ours, recorded)
        assert state.champion == ours.champion
        assert (state.rollout is None) == (ours.rollout is None)
        if state.rollout is not None and ours.rollout is not None:
            assert state.rollout.revision == ours.rollout.revision
            assert state.rollout.candidate == ours.rollout.candidate
            assert state.rollout.weight == ours.rollout.weight
            assert state.rollout.salt == ours.rollout.salt
            splits += state.split is not None
    assert splits > 100, "a log without traffic on two versions shows little"
