"""Retries: when a version that fell is taken through admission again.

1. What was judged by its bytes is never tried again.
2. What may be mended outside is tried again after a short pause, stretched by chance so that instances
   do not ask all at once; what nobody wants yet, after a long one. A lack of memory may end at any drop,
   and is looked at again then (``models``).
3. A model that killed the process that tried it, or hung there, is tried once more, since the first time
   may have been chance. After the second the pause is ``STRUCK_SECONDS``, and doubles with each further
   one: nothing is for ever, but a bad model must not burn a core.
4. A process that somebody else killed says nothing of the model: the pause doubles from the short one, so
   that a machine short of memory is not made shorter.

Strikes are of the bundle's digest (within one process the runtime is always the same), and are kept in
memory: such a model never brings this process down, so a restart that forgets costs two tries.
"""

import math
from dataclasses import dataclass

from consumer.rungs import Again, Rung

AGAIN_SECONDS = 5.0
"""After a refusal that may be mended; a store that is back is noticed within twice this."""

UNWANTED_TIMES = 12
"""How many times longer for a version that only has to be judged: a bundle that is gone for good is asked
for all the time that its release is among the newest."""

STRIKES = 2
STRUCK_SECONDS = 600.0
LONGEST_STRUCK_SECONDS = 6 * 3_600.0
LONGEST_KILLED_SECONDS = 300.0


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
            return patient
        case Again.KILLED:
            return max(patient, min(pause * 2.0 ** (fall.count - 1), LONGEST_KILLED_SECONDS))
        case Again.STRIKE:
            if fall.count < STRIKES:
                return patient
            return min(STRUCK_SECONDS * 2.0 ** (fall.count - STRIKES), LONGEST_STRUCK_SECONDS)
