"""Unsettled partitions: ours, but what is committed of them is not known yet.

The broker keeps the offsets of a partition back while a transaction that has some of it is open. A peer
that died in its commit leaves such a transaction, until its slot starts again or the broker ends it
(``consumer.transaction_timeout_ms``). A transaction that nobody ends, which brokers have been seen to
leave after their own crash, keeps them back for ever: that is for a person, and is said.
"""

from collections.abc import Collection
from typing import Any

AGAIN_SECONDS = 0.25
MOST_SECONDS = 4.0
"""Between two attempts: each takes a moment in which nothing is answered, so they become rarer."""

COMPLAINT_SECONDS = 10.0

LONG_SECONDS = 60.0
"""After this no transaction should be open any more, and the complaint says what to do."""


class Unsettled:
    """Which partitions they are, and when to ask again. Times are readings of one clock in seconds."""

    def __init__(self) -> None:
        self.partitions: set[int] = set()
        self._since = 0.0
        self._again = AGAIN_SECONDS
        self._due = 0.0
        self._complained = 0.0

    def is_due(self, now: float) -> bool:
        """Whether there are such partitions, and it is time to ask for them."""
        return bool(self.partitions) and now >= self._due

    def count(self, most: int) -> int:
        """How many there are, at most so many."""
        return min(len(self.partitions), most)

    def forget(self, partitions: Collection[int]) -> None:
        """Somebody else has these now."""
        self.partitions.difference_update(partitions)

    def found(
        self, asked: Collection[int], found: Collection[int], now: float
    ) -> dict[str, Any] | None:
        """Of those that were asked for these are known now. Returns what there is to say of the rest."""
        if not self.partitions:
            self._since = self._complained = now
            self._again = AGAIN_SECONDS
        self.partitions.update(asked)
        self.partitions.difference_update(found)
        self._due = now + self._again
        self._again = min(2 * self._again, MOST_SECONDS)
        if not self.partitions or now < self._complained + COMPLAINT_SECONDS:
            return None
        self._complained = now
        seconds = now - self._since
        fields: dict[str, Any] = {
            "partitions": sorted(self.partitions),
            "seconds": round(seconds, 1),
            "why": "a transaction that has offsets of them is open",
        }
        if seconds >= LONG_SECONDS:
            fields["hint"] = (
                "nobody ends it by now: find it with kafka-transactions.sh find-hanging, and end it "
                "with kafka-transactions.sh abort"
            )
        return fields
