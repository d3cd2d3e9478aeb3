"""Isolation: a row that brings the runtime down costs two lives of a process, and then one rejection.

1. A batch stands in the journal while it is scored, and scoring it has a limit of time: a process that
   hangs is ended (``adapters.watchdog``), as one that crashes ends by itself.
2. The next life goes on as if nothing had been, since most ends have other reasons. What was in hand at
   two ends is taken apart first, by a process of its own that may die (``probe``): it says which rows
   bring it down under the version that they are routed to, and those are rejected.
3. Everything else of the batch is scored as always, so that its bits do not depend on its neighbours.

``journal`` remembers; which requests come, and what becomes of the answers, is for ``answering``.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

import structlog

from adapters.watchdog import Watchdog
from consumer.journal import Journal
from deployment.routing import route
from schemas.forecast import Variant
from schemas.rejection import Rejected
from schemas.request import decode_request
from scoring.batch import Incoming
from scoring.snapshot import LoadedVersion, Snapshot

Name = tuple[int, int]
"""A request's partition and offset."""

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

    @contextmanager
    def in_hand(self, snapshot: Snapshot, batch: Sequence[Incoming]) -> Iterator[Collection[Name]]:
        """While the block scores ``batch`` it is in hand; gives the requests not to be run."""
        deadly = self._take_apart(snapshot, batch) if self._journal.suspects else ()
        self._journal.note(batch)
        with self._watchdog.watching("score a batch"):
            yield deadly
        self._journal.clear()

    def committed(self, offsets: Mapping[int, int]) -> None:
        """The answers up to these offsets are committed."""
        if self._journal.suspects:
            self._journal.acquit(offsets)

    def _take_apart(self, snapshot: Snapshot, batch: Sequence[Incoming]) -> frozenset[Name]:
        found: set[Name] = set()
        rows = _by_version(snapshot, [each for each in batch if self._journal.blames(each)])
        for version, named in rows:
            names = list(named)
            log.warning("batch.taken_apart", version=version.version, rows=len(names))
            places = self._probe.deadly(version, [named[name] for name in names])
            found.update(names[place] for place in places)
        if found:
            log.error("model.crashes", requests=[f"{p}/{offset}" for p, offset in sorted(found)])
        return frozenset(found)


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
        rows[incoming.partition, incoming.offset] = bytes(request.inputs)
    versions = [(snapshot.champion, champion)]
    if snapshot.candidate is not None:
        versions.append((snapshot.candidate, candidate))
    return [(version, rows) for version, rows in versions if rows]
