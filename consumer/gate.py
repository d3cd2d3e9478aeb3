"""The stamp gate: may a partition's requests be answered by this snapshot?

A stamp is what the last owner stored beside the partition's committed offset: the revision it had
answered with, and the hash of that event. Answers of a partition never go back in revision, so:

1. No stamp (the group is new here, or somebody placed the offset by hand): open.
2. A stamp of this log at a revision that the snapshot has reached: open.
3. A stamp of this log beyond the snapshot's revision: wait. It is the *snapshot* that is compared, the
   one of the transaction that will hold the answer, never what was merely read.
4. A stamp that this log does not hold: foreign. The log was truncated or made anew, and no wait helps.

Whether a stamp is of this log is for ``deployment.ledger``; how long one waits for ``membership``.
"""

from enum import StrEnum

from deployment.ledger import StampVerdict, stamp_revision


class Gate(StrEnum):
    """What the gate says of a partition."""

    OPEN = "open"
    WAIT = "wait"
    FOREIGN = "foreign"


def gate_of(stamp: str, verdict: StampVerdict, snapshot_revision: int) -> Gate:
    """The gate of a partition that carries ``stamp`` (empty: none), which the log judged ``verdict``."""
    if not stamp:
        return Gate.OPEN
    if verdict is StampVerdict.FOREIGN:
        return Gate.FOREIGN
    return Gate.OPEN if stamp_revision(stamp) <= snapshot_revision else Gate.WAIT
