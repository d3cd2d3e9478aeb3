"""Admission: the ladder that a version climbs before it may answer. ``rungs`` has the names of its rungs.

1. The manifest comes first, the rest after: what is of another model, or has no room here, costs no
   download, and the process that will try the model (``vetting``) starts while its bytes are on the way.
2. Fetching is repeated with jittered pauses while the store cannot be asked, up to the limit for one
   version. What is loaded is what was tried: the bytes are read once.
3. A version that falls is refused with the rung and a sentence. Whether it is tried again, and when, is
   for ``retries``; from ``runtime`` on the very bytes that the log names were judged.
   What was being loaded when the process before this one ended is not loaded at once (``openings``).
4. A bundle that passed where it was tried is not tried there again by this process: neither its bytes nor
   the runtime change.
5. Room in memory is asked for three times: before the download for what the file alone will take, before
   the load for what the model took where it was tried, and after it for what is really taken. Whoever
   does not fit is refused, and let go of again, before the system would end the process for it. Where
   others share the limit, only once it was looked at while none of them tried a model (``turns``).

When to admit what is for ``plan`` and ``models``.
"""

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeVar

from adapters.bundles import BundleDamaged, Bundles, NoManifest
from adapters.object_store import StoreUnavailable
from adapters.onnx_model import runtime_limits
from adapters.settings import Consumer
from adapters.timed_reads import reading_by
from consumer.memory import LEAST_TIMES, MIB, Budget, budget_of, give_back
from consumer.openings import Openings
from consumer.retries import AGAIN_SECONDS
from consumer.rungs import Again, Bundle, NotAdmitted, Rung, open_version
from consumer.turns import Turns
from consumer.vetting import Overtaken, Trial
from schemas.errors import ModelwireError, NotFound
from schemas.manifest import GOLDEN_NAME, MODEL_NAME, Manifest
from scoring.snapshot import LoadedVersion

FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 2.0

Found = TypeVar("Found")

MOST_GOLDEN_BYTES = 64 * MIB
"""Golden vectors beyond this are no vectors: all of them are in memory at once, as objects."""


@dataclass(frozen=True)
class Limits:
    """What admission may take.

    ``seconds`` for fetching one version, retries included; ``batch_size`` rows of a warm-up batch;
    ``vet_seconds`` and ``vet_bytes`` of address space for the process that tries it; ``memory_megabytes``
    that this process may have resident (MiB; 0: what the container or the machine has); ``again_seconds``
    until a refusal that may be mended is tried again; ``folder`` of this machine, which those instances
    have in common that share its memory (None: there are none), and this one's ``slot`` among them.
    """

    seconds: float
    batch_size: int
    vet_seconds: float = 20.0
    vet_bytes: int = 4_096 * MIB
    memory_megabytes: int = 0
    again_seconds: float = AGAIN_SECONDS
    folder: Path | None = None
    slot: int = 0

    @classmethod
    def of(cls, settings: Consumer, folder: Path, slot: int) -> Self:
        """The limits that the settings give; ``folder`` and ``slot`` as above."""
        return cls(
            seconds=settings.load_timeout_ms / 1_000,
            batch_size=settings.batch_size,
            vet_seconds=settings.vet_timeout_ms / 1_000,
            vet_bytes=settings.vet_megabytes * MIB,
            memory_megabytes=settings.memory_megabytes,
            folder=folder,
            slot=slot,
        )


@dataclass(frozen=True)
class Admitted:
    """The version, ready for traffic, the size of its file, and the seconds of each stage.

    Stages are ``fetch``, ``vet``, ``load``, ``check`` and ``warm-up``; ``vet`` is 0 where the bundle had
    been tried before.
    """

    version: LoadedVersion
    size: int
    seconds: dict[str, float]


class Admission:
    """The ladder of one instance, and what it remembers of bundles that it tried. For one thread."""

    def __init__(
        self, bundles: Bundles, model: str, limits: Limits, budget: Budget | None = None
    ) -> None:
        self._bundles = bundles
        self._model = model
        self._limits = limits
        self._budget = budget or budget_of(limits.memory_megabytes)
        self._turns = Turns(limits.folder)
        name = f"{model}-{limits.slot}"
        self._openings = Openings(
            limits.folder and limits.folder / "openings" / name, runtime_limits().onnxruntime
        )
        self._growths: dict[str, int] = {}

    def admit(
        self,
        version: int,
        digest: str,
        wanted: Callable[[], bool],
        *,
        beside_answers: bool = True,
    ) -> Admitted:
        """Take a version up the ladder. Raises NotAdmitted, or Overtaken once ``wanted`` says no.

        ``beside_answers``: this process answers meanwhile, and the trial steps back for that.
        """
        problem = self._openings.problem(digest)
        if problem is not None:
            raise NotAdmitted(Rung.LOAD, problem, Again.MENDED)
        try:
            with self._turns.beside_others(lambda: _go_on(wanted)):
                return self._climb(version, digest, wanted, beside_answers)
        except NotAdmitted as fallen:
            others = self._budget.is_shared and self._turns.are_known
            if fallen.rung is not Rung.MEMORY or not others:
                raise
        with self._turns.alone(lambda: _go_on(wanted)):
            return self._climb(version, digest, wanted, beside_answers)

    def look_at_store(self) -> None:
        """Have it said where the store is away and was not missed. May take seconds."""
        self._bundles.look_at_store()

    def close(self) -> None:
        """The process ends of its own will. From any thread."""
        self._openings.close()

    def _climb(
        self, version: int, digest: str, wanted: Callable[[], bool], beside_answers: bool
    ) -> Admitted:
        began = time.monotonic()
        deadline = began + self._limits.seconds
        manifest = self._asked(lambda: self._manifest(digest), deadline, wanted)
        self._check_room(digest, manifest)
        with self._trial(digest, beside_answers) as trial:
            bundle = self._asked(lambda: self._bundle(digest, manifest), deadline, wanted)
            is_fetched = time.monotonic()
            if trial is not None:
                self._growths[digest] = self._vet(trial, bundle, wanted)
        self._check_room(digest, manifest)
        is_vetted = time.monotonic()
        with self._opening(digest):
            opened = open_version(version, bundle, self._limits.batch_size)
            del bundle  # its bytes are no part of what the version takes
            self._check_fits()
        return Admitted(
            version=opened.version,
            size=manifest.files[MODEL_NAME].size,
            seconds={
                "fetch": is_fetched - began,
                "vet": is_vetted - is_fetched,
                "load": opened.load_seconds,
                "check": opened.check_seconds,
                "warm-up": opened.warm_up_seconds,
            },
        )

    def _asked(
        self, ask: Callable[[], Found], deadline: float, wanted: Callable[[], bool]
    ) -> Found:
        """What the store says, asked again while it cannot be asked."""
        pause = FIRST_PAUSE_SECONDS
        while True:
            try:
                with reading_by(deadline):
                    return ask()
            except StoreUnavailable as error:
                if time.monotonic() + pause > deadline:
                    raise NotAdmitted(Rung.FETCH, error.message) from error
            until = time.monotonic() + pause * random.uniform(0.5, 1.5)
            while time.monotonic() < until:
                _go_on(wanted)
                time.sleep(FIRST_PAUSE_SECONDS / 2)
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)

    def _manifest(self, digest: str) -> Manifest:
        with _fetching():
            manifest = self._bundles.read_manifest(digest)
        if manifest.model != self._model:
            raise NotAdmitted(
                Rung.MANIFEST,
                f"the bundle is of model {manifest.model!r}, not of {self._model!r}",
            )
        size = manifest.files[GOLDEN_NAME].size
        if size > MOST_GOLDEN_BYTES:
            raise NotAdmitted(
                Rung.MANIFEST,
                f"{GOLDEN_NAME} has {size:,} bytes, more than the {MOST_GOLDEN_BYTES:,} that are read",
            )
        return manifest

    def _bundle(self, digest: str, manifest: Manifest) -> Bundle:
        with _fetching():
            model = self._bundles.read_file(digest, manifest, MODEL_NAME)
            golden = self._bundles.read_file(digest, manifest, GOLDEN_NAME)
        return Bundle(digest, manifest, model, golden)

    def _check_room(self, digest: str, manifest: Manifest) -> None:
        least = LEAST_TIMES * manifest.files[MODEL_NAME].size
        problem = self._budget.problem(self._growths.get(digest) or least)
        if problem is not None:
            raise NotAdmitted(Rung.MEMORY, problem)

    @contextmanager
    def _trial(self, digest: str, beside_answers: bool) -> Iterator[Trial | None]:
        """A process to try the bundle in; None where it has been tried."""
        if digest in self._growths:
            yield None
            return
        with Trial(beside_answers=beside_answers) as trial:
            yield trial

    @contextmanager
    def _opening(self, digest: str) -> Iterator[None]:
        """Where this process dies in the block, its slot's next life knows of what."""
        self._openings.note(digest)
        try:
            yield
        finally:
            self._openings.clear(digest)

    def _vet(self, trial: Trial, bundle: Bundle, wanted: Callable[[], bool]) -> int:
        return trial.judge(
            bundle,
            seconds=self._limits.vet_seconds,
            address_bytes=self._limits.vet_bytes,
            room_bytes=self._budget.room(),
            batch_size=self._limits.batch_size,
            wanted=wanted,
        )

    def _check_fits(self) -> None:
        if self._budget.overrun() is None:
            return
        give_back()
        problem = self._budget.overrun()
        if problem is not None:
            raise NotAdmitted(Rung.MEMORY, problem)


def _go_on(wanted: Callable[[], bool]) -> None:
    if not wanted():
        raise Overtaken


@contextmanager
def _fetching() -> Iterator[None]:
    """What the store raises, as a fall; but for StoreUnavailable, which may pass."""
    try:
        yield
    except StoreUnavailable:
        raise
    except BundleDamaged as error:
        raise NotAdmitted(Rung.DIGEST, error.message) from error
    except NoManifest as error:
        raise NotAdmitted(Rung.MANIFEST, error.message) from error
    except (NotFound, ModelwireError) as error:  # no bundle, no permission, no bucket
        raise NotAdmitted(Rung.FETCH, error.message) from error
