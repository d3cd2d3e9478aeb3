"""The loader: one thread that admits versions, and the only one to build and drop sessions.

Dropping a large session holds the interpreter for its whole free, so the answering loop must never
hold the last reference: a version leaves the cache only when no snapshot in use names it, and the
loop says by ``using`` which snapshot that is, once it has let go of the one before. What waits for a
shadow is asked for (``also_in_use``) before anything is dropped, and ``look_again`` says that it is less.

The follower hands in what it reads by ``consider``; the newest deployment wins, and a version that is
not the most urgent one any more is given up while it waits for the store. What can be answered with
is published as ``ready``: one reference, replaced by one assignment, never taken back; at the same
revision again where one more of its shadows is loaded. A failed
admission changes nothing but ``report``. Which version to load, to judge, to keep and to apply is
decided in ``plan``; a version that only had to be judged is let go as soon as it passed, so that never
more than one of them is in memory.
"""

import math
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from adapters.object_store import ObjectStore
from consumer import plan
from consumer.admission import MAY_BE_MENDED, Admitted, Limits, NotAdmitted, Overtaken, Rung, admit
from consumer.threads import step_back, thread_of
from deployment.state import Deployment
from schemas.fleet import Refused
from scoring.snapshot import LoadedVersion, Snapshot

AGAIN_SECONDS = 5.0
"""After a refusal that may be mended; a store that is back is noticed within twice this."""

UNWANTED_AGAIN_SECONDS = 60.0
"""The same for a version that only has to be judged: a bundle that is gone for good is asked for all the
time that its release is among the newest."""

log = structlog.get_logger()


@dataclass(frozen=True)
class Report:
    """What the loader has in memory, and its verdicts: a version has ``passed`` or was ``refused``."""

    prepared: tuple[int, ...]
    refused: tuple[Refused, ...]
    passed: tuple[int, ...]


@dataclass(frozen=True)
class _Fall:
    """A refusal at the time ``at``. ``stretch`` keeps the instances from asking all at once."""

    rung: Rung
    reason: str
    at: float
    stretch: float

    def again_at(self, *, is_wanted: bool) -> float:
        """When the store is asked again, for ever later where it could not help."""
        if self.rung not in MAY_BE_MENDED:
            return math.inf
        pause = AGAIN_SECONDS if is_wanted else UNWANTED_AGAIN_SECONDS
        return self.at + pause * self.stretch


class Loader:
    """Starts with ``start``; what has no underscore may be called from any thread."""

    def __init__(
        self,
        store: ObjectStore,
        model: str,
        limits: Limits,
        on_change: Callable[[], None],
        also_in_use: Callable[[], Sequence[Snapshot]] = tuple,
    ) -> None:
        self.ready: Snapshot | None = None
        self.report = Report((), (), ())
        self._store = store
        self.model = model
        self._limits = limits
        self._on_change = on_change
        self._also_in_use = also_in_use
        self._wake = threading.Condition()
        self._newest: Deployment | None = None
        self._in_use: Snapshot | None = None
        self._dirty = False
        self._stopping = False
        self._loaded: dict[int, LoadedVersion] = {}
        self._fallen: dict[int, _Fall] = {}
        self._passed: set[int] = set()
        self._thread = thread_of("loader", self._run)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread after the step that it is in; does not wait for it."""
        with self._wake:
            self._stopping = True
            self._wake.notify()

    def consider(self, deployments: Sequence[Deployment]) -> None:
        """The states that the log went through since the last call, oldest first."""
        with self._wake:
            self._newest = deployments[-1]
            self._dirty = True
            self._wake.notify()
        # Here and not on the loader: what is loaded must not wait for a download under way.
        self._publish(deployments)

    def using(self, snapshot: Snapshot) -> None:
        """The loop answers with ``snapshot`` now, and holds no other."""
        with self._wake:
            self._in_use = snapshot
            self._dirty = True
            self._wake.notify()

    def look_again(self) -> None:
        """Something may be dropped that was in use."""
        with self._wake:
            self._dirty = True
            self._wake.notify()

    def _run(self) -> None:
        step_back()
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._dirty or self._stopping, self._next_try())
                if self._stopping:
                    return
                self._dirty = False
            while (version := self._most_urgent()) is not None:
                self._try(version)
                self._drop()
            self._drop()

    def _most_urgent(self) -> int | None:
        """The version to admit next; None where nothing is left to do."""
        newest = self._newest
        if newest is None or self._stopping:
            return None
        kept = plan.to_load(newest)
        for version in plan.to_judge(newest):
            is_kept = version in kept
            is_done = version in self._loaded or (version in self._passed and not is_kept)
            fall = self._fallen.get(version)
            if not is_done and (
                fall is None or fall.again_at(is_wanted=is_kept) <= time.monotonic()
            ):
                return version
        return None

    def _try(self, version: int) -> None:
        newest = self._newest
        assert newest is not None
        digest = newest.releases[version].digest
        try:
            admitted = admit(
                self._store,
                self.model,
                version,
                digest,
                self._limits,
                wanted=lambda: self._most_urgent() == version,
            )
        except Overtaken:
            log.info("model.overtaken", version=version)
        except NotAdmitted as fallen:
            self._note_fall(version, fallen)
        except Exception as error:
            log.exception("model.load_failed", version=version)
            self._note_fall(version, NotAdmitted(Rung.LOAD, f"{type(error).__name__}: {error}"))
        else:
            self._note_success(version, digest, admitted)

    def _note_success(self, version: int, digest: str, admitted: Admitted) -> None:
        self._fallen.pop(version, None)
        self._passed.add(version)
        with self._wake:
            assert self._newest is not None
            is_kept = version in plan.to_load(self._newest)
            if is_kept:
                self._loaded[version] = admitted.version
        log.info(
            "model.prepared" if is_kept else "model.passed",
            version=version,
            digest=digest,
            bytes=admitted.size,
            fetch_seconds=round(admitted.fetch_seconds, 4),
            load_seconds=round(admitted.load_seconds, 4),
        )
        if is_kept:
            self._publish([self._newest])
        self._tell()

    def _note_fall(self, version: int, fallen: NotAdmitted) -> None:
        before = self._fallen.get(version)
        stretch = random.uniform(0.6, 1.4)
        self._fallen[version] = _Fall(fallen.rung, fallen.reason, time.monotonic(), stretch)
        self._passed.discard(version)
        if before is None or (before.rung, before.reason) != (fallen.rung, fallen.reason):
            log.error(
                "model.refused",
                version=version,
                rung=fallen.rung.value,
                reason=fallen.reason,
                tried_again=fallen.rung in MAY_BE_MENDED,
            )
        self._tell()

    def _publish(self, deployments: Sequence[Deployment]) -> None:
        with self._wake:
            chosen = plan.newest_servable(deployments, self._loaded)
            if chosen is None:
                return
            snapshot = plan.snapshot_of(chosen, self._loaded)
            if not plan.is_progress(snapshot, self.ready):
                return
            self.ready = snapshot
        self._on_change()

    def _drop(self) -> None:
        with self._wake:
            newest, in_use = self._newest, self._in_use
            if newest is None:
                return
            # Taken out under the lock, freed after it: freeing a large session takes a while.
            still = (self.ready, in_use, *self._also_in_use())
            unneeded = plan.to_drop(self._loaded, newest, still)
            del still
            dropped = [self._loaded.pop(version) for version in unneeded]
        for version in unneeded:
            log.info("model.dropped", version=version)
        dropped.clear()
        judged = plan.to_judge(newest)
        self._fallen = {
            version: fall for version, fall in self._fallen.items() if version in judged
        }
        self._passed.intersection_update(judged)
        self._tell()

    def _tell(self) -> None:
        report = Report(
            tuple(sorted(self._loaded)),
            tuple(
                Refused(version, fall.rung, fall.reason)
                for version, fall in sorted(self._fallen.items())
            ),
            tuple(sorted(self._passed.union(self._loaded))),
        )
        if report != self.report:
            self.report = report
            self._on_change()

    def _next_try(self) -> float | None:
        kept = () if self._newest is None else plan.to_load(self._newest)
        times = (fall.again_at(is_wanted=v in kept) for v, fall in self._fallen.items())
        soonest = min(times, default=math.inf)
        return None if math.isinf(soonest) else max(soonest - time.monotonic(), 0.0)
