"""The loader: one thread that admits versions, and the only one to build and drop sessions.

Dropping a large session holds the interpreter for its whole free, so the answering loop must never
hold the last reference: a version leaves the cache only when no snapshot in use names it, and the
loop says by ``using`` which snapshot that is, once it has let go of the one before. What waits for a
shadow is asked for (``also_in_use``) before anything is dropped, and ``look_again`` says that it is less.
What was dropped is given back to the system at once; nothing in a version refers to itself, so that no
collector has to find it first.

The follower hands in what it reads by ``consider``; the newest deployment wins. A version is given up,
while it waits for the store or is tried for long, where nobody needs its verdict any more, or where one
that was never tried is more urgent. One that fell before does not count: it is due again every few
seconds, and no trial that takes longer would ever end beside it. What can be answered with is published
as ``ready``: one reference, replaced by one assignment, never taken back; at the same revision again
where one more of its shadows is loaded. A failed admission changes nothing but ``report`` and the counts.
Which version to load, to judge, to keep and to apply is decided in ``plan``, when one that fell is tried
again in ``retries``; a version that only had to be judged is let go as soon as it passed, so that never
more than one of them is in memory.
"""

import math
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import structlog

from adapters.bundles import Bundles
from consumer import plan
from consumer.admission import Admission, Admitted, Limits
from consumer.memory import give_back, resident_bytes
from consumer.retries import Fall
from consumer.rungs import Again, NotAdmitted, Rung
from consumer.threads import step_back, thread_of
from consumer.vetting import Overtaken
from deployment.state import Deployment
from schemas.fleet import Refused
from scoring.snapshot import LoadedVersion, Snapshot, snapshot_of

log = structlog.get_logger()


@dataclass(frozen=True)
class Report:
    """What the loader has in memory, and its verdicts: a version has ``passed`` or was ``refused``."""

    prepared: tuple[int, ...]
    refused: tuple[Refused, ...]
    passed: tuple[int, ...]


class Loader:
    """Starts with ``start``; what has no underscore may be called from any thread.

    ``refused_total`` counts the falls by rung, each try of a version, and ``stage_seconds`` has for each
    stage of an admission that passed how often it was taken and the sum of its seconds; both are replaced
    as a whole.
    """

    def __init__(
        self,
        bundles: Bundles,
        model: str,
        limits: Limits,
        on_change: Callable[[], None],
        also_in_use: Callable[[], Sequence[Snapshot]] = tuple,
    ) -> None:
        self.ready: Snapshot | None = None
        self.report = Report((), (), ())
        self.refused_total: Mapping[str, int] = {}
        self.stage_seconds: Mapping[str, tuple[int, float]] = {}
        self.model = model
        self._admission = Admission(bundles, model, limits)
        self._again_seconds = limits.again_seconds
        self._on_change = on_change
        self._also_in_use = also_in_use
        self._wake = threading.Condition()
        self._newest: Deployment | None = None
        self._in_use: Snapshot | None = None
        self._dirty = False
        self._stopping = False
        self._loaded: dict[int, LoadedVersion] = {}
        self._fallen: dict[int, Fall] = {}
        self._falls: Counter[tuple[str, Again]] = Counter()
        self._passed: set[int] = set()
        self._thread = thread_of("loader", self._run)

    @property
    def loaded(self) -> int:
        """How many models are in memory."""
        return len(self._loaded)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread after the step that it is in; does not wait for it."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self._admission.close()

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
                give_back()  # what was fetched, and a version that only had to be judged
                self._drop()
            self._drop()
            self._admission.look_at_store()  # at the first pause, when what the log asks for is loaded

    def _most_urgent(self) -> int | None:
        """The version to admit next; None where nothing is left to do."""
        for version, is_kept in self._not_done():
            fall = self._fallen.get(version)
            if (
                fall is None
                or fall.again_at(self._again_seconds, is_wanted=is_kept) <= time.monotonic()
            ):
                return version
        return None

    def _goes_on(self, version: int) -> bool:
        """Whether the admission of ``version``, which is under way, is to come to its end."""
        for other, _ in self._not_done():
            if other == version:
                return True
            if other not in self._fallen:
                return False
        return False

    def _not_done(self) -> Iterator[tuple[int, bool]]:
        """The versions without what is wanted of them, most urgent first, and whether each is kept."""
        newest = self._newest
        if newest is None or self._stopping:
            return
        kept = plan.to_load(newest)
        for version in plan.to_judge(newest):
            is_kept = version in kept
            if version not in self._loaded and (is_kept or version not in self._passed):
                yield version, is_kept

    def _try(self, version: int) -> None:
        newest = self._newest
        assert newest is not None
        digest = newest.releases[version].digest
        try:
            admitted = self._admission.admit(
                version,
                digest,
                wanted=lambda: self._goes_on(version),
                beside_answers=self.ready is not None,
            )
        except Overtaken:
            log.info("model.overtaken", version=version)
        except NotAdmitted as fallen:
            self._note_fall(version, digest, fallen)
        except Exception as error:  # one version's admission; the champion must outlive it
            log.exception("model.load_failed", version=version)
            self._note_fall(version, digest, _unexpected(error))
        else:
            self._note_success(version, digest, admitted)

    def _note_success(self, version: int, digest: str, admitted: Admitted) -> None:
        self._fallen.pop(version, None)
        for again in Again:
            self._falls.pop((digest, again), None)
        self._passed.add(version)
        self._count(admitted.seconds)
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
            resident=resident_bytes(),
            **{
                f"{stage.replace('-', '_')}_seconds": round(seconds, 4)
                for stage, seconds in admitted.seconds.items()
            },
        )
        if is_kept:
            self._publish([self._newest])
        self._tell()

    def _count(self, seconds: Mapping[str, float]) -> None:
        counted = dict(self.stage_seconds)
        for stage, took in seconds.items():
            times, total = counted.get(stage, (0, 0.0))
            counted[stage] = (times + 1, total + took)
        self.stage_seconds = counted

    def _note_fall(self, version: int, digest: str, fallen: NotAdmitted) -> None:
        before = self._fallen.get(version)
        self._falls[digest, fallen.again] += 1
        fall = Fall(
            fallen.rung,
            fallen.reason,
            fallen.again,
            at=time.monotonic(),
            count=self._falls[digest, fallen.again],
            stretch=random.uniform(0.6, 1.4),
        )
        self._fallen[version] = fall
        self._passed.discard(version)
        counted = Counter(self.refused_total)
        counted[fall.rung.value] += 1
        self.refused_total = counted
        is_news = before is None or (before.rung, before.reason) != (fall.rung, fall.reason)
        if is_news or fall.again is Again.STRIKE:
            pause = fall.again_at(self._again_seconds, is_wanted=True) - fall.at
            log.error(
                "model.refused",
                version=version,
                digest=digest,
                rung=fall.rung.value,
                reason=fall.reason,
                tried_again=not math.isinf(pause),
                again_seconds=None if math.isinf(pause) else round(pause, 1),
            )
        self._tell()

    def _publish(self, deployments: Sequence[Deployment]) -> None:
        with self._wake:
            chosen = plan.newest_servable(deployments, self._loaded)
            if chosen is None:
                return
            snapshot = snapshot_of(chosen, self._loaded)
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
            resident = resident_bytes()
            del dropped[0]
            give_back()
            log.info(
                "model.dropped",
                version=version,
                resident_before=resident,
                resident=resident_bytes(),
            )
        if unneeded:
            self._look_at_room_again()
        judged = plan.to_judge(newest)
        self._fallen = {
            version: fall for version, fall in self._fallen.items() if version in judged
        }
        self._passed.intersection_update(judged)
        self._tell()

    def _look_at_room_again(self) -> None:
        for version, fall in self._fallen.items():
            if fall.rung is Rung.MEMORY:
                self._fallen[version] = replace(fall, at=-math.inf)

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
        times = (
            fall.again_at(self._again_seconds, is_wanted=version in kept)
            for version, fall in self._fallen.items()
        )
        soonest = min(times, default=math.inf)
        return None if soonest == math.inf else max(soonest - time.monotonic(), 0.0)


def _unexpected(error: Exception) -> NotAdmitted:
    """What nobody foresaw, as a fall: what the system lacks now says nothing of the model."""
    reason = f"{type(error).__name__}: {error}"
    match error:
        case MemoryError():
            return NotAdmitted(Rung.MEMORY, reason)
        case OSError():  # no descriptor, process or page left
            return NotAdmitted(Rung.LOAD, reason, Again.MENDED)
    return NotAdmitted(Rung.LOAD, reason)
