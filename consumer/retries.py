"""Retries: when a version that fell is taken through admission again.

1. What was judged by its bytes is never tried again.
2. What may be mended outside is tried again soon, in case it already is: another instance's trial took
   the memory, or the store came back just after it was given up. The pause doubles up to the short one,
   stretched by chance so that instances do not ask all at once. What nobody wants yet is tried again
   after a long one, and what lacked memory also when a version was dropped here (``models``).
3. A model that killed the process that tried it, or hung there, is tried once more, since the first time
   may have been chance. After the second the pause is ``STRUCK_SECONDS``, and doubles with each further
   one: nothing is for ever, but a bad model must not burn a core.
4. A process that somebody else killed says nothing of the model: the pause doubles from the short one, so
   that a machine short of memory is not made shorter.

Strikes are of the bundle's digest (within one process the runtime is always the same), and are kept in
memory: what hangs or crashes where it is tried never brings this process down, so a restart that forgets
costs two tries. What passed there and dies only in this process is remembered by ``openings``.
"""

import math
from dataclasses import dataclass

from consumer.rungs import Again, Rung

SOON_SECONDS = 0.5
"""After the first refusal that may be mended."""

AGAIN_SECONDS = 5.0
"""The short pause, after further ones: a store that is back is noticed within twice this."""

UNWANTED_TIMES = 12
"""How many times longer for a version that only has to be judged: a bundle that is gone for good is asked
for all the time that its release is among the newest."""

STRIKES = 2
STRUCK_SECONDS = 600.0
LONGEST_STRUCK_SECONDS = 6 * 3_600.0
LONGEST_KILLED_SECONDS = 300.0

MOST_DOUBLINGS = 30


@dataclass(frozen=True)
class Fall:
    """A refusal at the time ``at``, the ``count``-th of its kind in a row for this digest.

    ``stretch`` is a factor of about 1, by chance.
    """

    rung: Rung
    reason: str
    again: Again
    at: float
    count: int
    stretch: float

    def again_at(self, pause: float, *, is_wanted: bool) -> float:
        """When it is tried again, where ``pause`` is the short one in seconds; infinity for never."""
        return self.at + self.stretch * _pause(self, pause, is_wanted=is_wanted)


def _pause(fall: Fall, pause: float, *, is_wanted: bool) -> float:
    patient = pause if is_wanted else UNWANTED_TIMES * pause
    match fall.again:
        case Again.NEVER:
            return math.inf
        case Again.MENDED:
            return min(pause, _doubled(SOON_SECONDS, fall.count)) if is_wanted else patient
        case Again.KILLED:
            return max(patient, min(_doubled(pause, fall.count), LONGEST_KILLED_SECONDS))
        case Again.STRIKE:
            if fall.count < STRIKES:
                return patient
            return min(_doubled(STRUCK_SECONDS, fall.count - 1), LONGEST_STRUCK_SECONDS)


def _doubled(seconds: float, count: int) -> float:
    """``seconds`` the first time, and twice as long each further one."""
    return float(seconds * 2.0 ** min(count - 1, MOST_DOUBLINGS))
