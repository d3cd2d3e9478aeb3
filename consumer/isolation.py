"""Isolation: a row that brings the runtime down costs two lives of a process, and then one rejection.

1. A batch stands in the journal while it is scored, and scoring it has a limit of time: a process that
   hangs is ended (``adapters.watchdog``), as one that crashes ends by itself.
2. The next life goes on as if nothing had been, since most ends have other reasons. What was in hand at
   two ends is taken apart first, by a process of its own that may die (``probe``): it says which rows
   bring it down under the version that they are routed to, and those are rejected. What it said is kept.
3. That takes seconds, and up to minutes where rows hang. The loop commits what it has open before, and
   is alive meanwhile; a stop ends it.
4. Everything else of the batch is scored as always, so that its bits do not depend on its neighbours.

``journal`` remembers; which requests come, and what becomes of the answers, is for ``answering``.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

import structlog

from adapters.watchdog import Watchdog
from consumer.journal import Journal, Name
from deployment.routing import route
from schemas.forecast import Variant
from schemas.rejection import Rejected
from schemas.request import decode_request
from scoring.batch import Incoming
from scoring.snapshot import LoadedVersion, Snapshot

log = structlog.get_logger()


class Probe(Protocol):
    """Finds out which rows bring the runtime down."""

    def deadly(self, version: LoadedVersion, inputs: Sequence[bytes]) -> frozenset[int]:
        """The places of ``inputs`` (raw JSON of the contract's fields) that crash or hang the model.

        Raises ModelwireError where that cannot be found out.
        """
        ...


class Isolation:
    """For the answering loop; not thread-safe."""

    def __init__(self, journal: Journal, probe: Probe, limit_seconds: float) -> None:
        self._journal = journal
        self._probe = probe
        self._watchdog = Watchdog(limit_seconds)

    def is_suspect(self, snapshot: Snapshot, batch: Sequence[Incoming]) -> bool:
        """Whether there is something to find out about this batch before it may be scored."""
        return bool(self._journal.suspects) and bool(self._unknown(snapshot, batch))

    def take_apart(self, snapshot: Snapshot, batch: Sequence[Incoming]) -> None:
        """Find it out. Takes long."""
        unknown = self._unknown(snapshot, batch)
        found: set[Name] = set()
        for version, rows in _by_version(snapshot, unknown):
            names = list(rows)
            log.warning("batch.taken_apart", version=version.version, rows=len(names))
            places = self._probe.deadly(version, list(rows.values()))
            found.update(names[place] for place in places)
        if found:
            log.error("model.crashes", requests=[f"{p}/{offset}" for p, offset in sorted(found)])
        self._journal.judge([_name(each) for each in unknown], _judged(snapshot), found)

    @contextmanager
    def in_hand(self, snapshot: Snapshot, batch: Sequence[Incoming]) -> Iterator[frozenset[Name]]:
        """While the block scores ``batch`` it is in hand; gives the requests not to be run."""
        deadly = self._deadly(snapshot, batch) if self._journal.suspects else frozenset()
        self._journal.note(batch)
        with self._watchdog.watching("score a batch"):
            yield deadly
        self._journal.clear()

    def committed(self, offsets: Mapping[int, int]) -> None:
        """The answers up to these offsets are committed, by whomever."""
        if self._journal.suspects:
            self._journal.acquit(offsets)

    def _unknown(self, snapshot: Snapshot, batch: Sequence[Incoming]) -> list[Incoming]:
        judged = _judged(snapshot)
        return [
            each
            for each in batch
            if self._journal.blames(_name(each))
            and self._journal.verdict(_name(each), judged) is None
        ]

    def _deadly(self, snapshot: Snapshot, batch: Sequence[Incoming]) -> frozenset[Name]:
        judged = _judged(snapshot)
        names = map(_name, batch)
        return frozenset(name for name in names if self._journal.verdict(name, judged))


def _name(incoming: Incoming) -> Name:
    return incoming.partition, incoming.offset


def _judged(snapshot: Snapshot) -> str:
    """The versions that a verdict holds for, and how requests are shared out between them."""
    versions = (snapshot.champion, snapshot.candidate)
    digests = (version.digest for version in versions if version is not None)
    return " ".join((*digests, str(snapshot.routing.weight), snapshot.routing.salt))


def _by_version(
    snapshot: Snapshot, batch: Sequence[Incoming]
) -> list[tuple[LoadedVersion, dict[Name, bytes]]]:
    """The raw inputs of those requests that would be run, by the version that they are routed to."""
    champion: dict[Name, bytes] = {}
    candidate: dict[Name, bytes] = {}
    for incoming in batch:
        try:
            request = decode_request(incoming.value, len(incoming.value or b""))
        except Rejected:
            continue  # it never reaches a model
        variant = route(snapshot.routing, incoming.key, request.request_id)
        rows = candidate if variant is Variant.CANDIDATE else champion
        rows[_name(incoming)] = bytes(request.inputs)
    versions = [(snapshot.champion, champion)]
    if snapshot.candidate is not None:
        versions.append((snapshot.candidate, candidate))
    return [(version, rows) for version, rows in versions if rows]
