"""Decides whether the consumers have come to a standstill: requests go in, and no answer comes out.

1. Answers are those that the consumers told of. A killed process takes up to a second of them with it, so
   that they are fewer than there are; only whether they become more counts here.
2. While nothing was sent since the last answer, nobody has to answer: a stream that waits for a fault is
   no standstill.

``campaign`` looks, and ends the run.
"""

from dataclasses import dataclass

STILL_SECONDS = 120.0
"""Beyond everything that a schedule does: a session, a transaction and a broker's start are 30 s."""


@dataclass(frozen=True)
class Moment:
    """How many answers were told of and how many requests were sent, at a time in seconds."""

    at: float
    answered: int
    sent: int


class Standstill:
    """Looks from ``now`` on; times are of any one clock."""

    def __init__(self, now: float) -> None:
        self._last = Moment(now, 0, 0)

    def look(self, now: float, answered: int, sent: int) -> Moment | None:
        """The moment of the last answer, where it is too long ago."""
        if answered > self._last.answered or sent <= self._last.sent:
            self._last = Moment(now, answered, sent)
        return self._last if now - self._last.at >= STILL_SECONDS else None
