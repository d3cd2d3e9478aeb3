"""The ledger: a control log as one reader has read it, record by record.

It holds the deployment at the latest revision, every accepted event and its hash, and so it can say
whether a stamp (``<log id>:<revision>:<hash>``) that a consumer stored belongs to this log. A record
that has not the form of an event is not accepted: it is reported and counts for nothing.
"""

from dataclasses import dataclass
from enum import StrEnum

from deployment.state import Deployment, empty, fold, short_hash
from schemas.events import NotAnEvent, Recorded, decode_event


class StampVerdict(StrEnum):
    """What a stamp says about the log that was read."""

    KNOWN = "known"
    """The stamp is of an event that was read."""
    AHEAD = "ahead"
    """The stamp is of this log, at a revision beyond what was read."""
    FOREIGN = "foreign"
    """The stamp is of another log, of a rewritten one, or no stamp at all."""


@dataclass(frozen=True)
class Unaccepted:
    """A record that is no control event, and why."""

    reason: str


class Ledger:
    """Takes records in the log's order. Not thread-safe: one thread takes, others read a Deployment."""

    def __init__(self, model: str, *, keeps_events: bool = True) -> None:
        """Without its events (1.1 KB each) a ledger still judges stamps; ``events`` stays empty."""
        self.deployment: Deployment = empty(model)
        self.events: list[Recorded] = []
        self._keeps_events = keeps_events
        self._hashes: list[str] = []
        self.unaccepted = 0
        """How many records were no events."""

    def take(self, raw: bytes | None) -> Recorded | Unaccepted:
        """Fold one more record. Raises BrokenLog where an accepted event cannot follow."""
        try:
            recorded = decode_event(raw or b"")
        except NotAnEvent as error:
            self.unaccepted += 1
            return Unaccepted(str(error) if raw else "the record has no value")
        self.deployment = fold(self.deployment, recorded)
        if self._keeps_events:
            self.events.append(recorded)
        self._hashes.append(short_hash(recorded.hash))
        return recorded

    def find_command(self, commandid: str) -> list[Recorded]:
        """The events that a command appended, in order; empty where it appended none."""
        return [recorded for recorded in self.events if recorded.event.commandid == commandid]

    def judge_stamp(self, stamp: str) -> StampVerdict:
        """Whether the stamp is of this log, and within what was read."""
        log_id, _, rest = stamp.partition(":")
        revision_text, _, head = rest.partition(":")
        if not (log_id and head and revision_text.isascii() and revision_text.isdigit()):
            return StampVerdict.FOREIGN
        revision = int(revision_text)
        if revision < 1 or (self._hashes and log_id != self._hashes[0]):
            return StampVerdict.FOREIGN
        if revision > len(self._hashes):
            return StampVerdict.AHEAD
        return StampVerdict.KNOWN if head == self._hashes[revision - 1] else StampVerdict.FOREIGN


def stamp_revision(stamp: str) -> int:
    """The revision in a stamp that was judged KNOWN or AHEAD."""
    return int(stamp.split(":")[1])
