"""The stamp gate: each kind of stamp against each kind of snapshot."""

import pytest

from consumer.gate import Gate, gate_of
from deployment.ledger import StampVerdict

STAMP = "0123456789abcdef:7:fedcba9876543210"


@pytest.mark.parametrize(
    ("stamp", "verdict", "snapshot_revision", "gate"),
    [
        ("", StampVerdict.FOREIGN, 0, Gate.OPEN),
        ("", StampVerdict.FOREIGN, 9, Gate.OPEN),
        (STAMP, StampVerdict.KNOWN, 6, Gate.WAIT),
        (STAMP, StampVerdict.KNOWN, 7, Gate.OPEN),
        (STAMP, StampVerdict.KNOWN, 8, Gate.OPEN),
        (STAMP, StampVerdict.AHEAD, 5, Gate.WAIT),
        (STAMP, StampVerdict.FOREIGN, 9, Gate.FOREIGN),
        ("no stamp at all", StampVerdict.FOREIGN, 9, Gate.FOREIGN),
    ],
)
def test_the_gate_compares_the_stamp_with_the_snapshot(
    stamp: str, verdict: StampVerdict, snapshot_revision: int, gate: Gate
) -> None:
    """It opens at the stamp's revision, waits below it, and never for a stamp of another log."""
    assert gate_of(stamp, verdict, snapshot_revision) is gate
