"""The probe: which rows of a batch bring the runtime down, found out where it may go down.

1. All rows at once first, as they were in hand: where that goes well, none is at fault, and what ended
   the consumer was something else.
2. Otherwise one row after the other. The one that the process does not survive is at fault; the next
   process goes on after it. A run that takes longer than the limit is ended, and counts as one that died.
3. What is left is run at once again. Where that still dies, though no row does so alone, all of it is at
   fault: the requests must be answered, and cannot be by this model.

An end by a signal from outside says nothing of a row: it is tried again, a few times. The bytes come from
where bundles are; where they cannot be had, the error ends the consumer, and the slot's next life tries
again.
"""

import math
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from adapters.bundles import Bundles
from consumer.probe_child import DONE, OVER, READY, Job
from consumer.sandbox import CRASHES, Sandbox, name_of
from schemas.errors import ModelwireError
from schemas.manifest import MODEL_NAME, Manifest, encode_manifest
from scoring.snapshot import LoadedVersion

START_SECONDS = 30.0
"""For the process to start and load the model, which was done before in a second or two."""

MOST_TRIES = 3
"""Of a process that is ended from outside."""


BY_ITSELF = CRASHES | {signal.SIGXCPU}
"""The signals that are the rows' doing."""


@dataclass(frozen=True)
class _Run:
    """How far a process came: rows that it survived, whether it is done, and whether the model is why
    it is not."""

    survived: int
    is_done: bool
    is_at_fault: bool
    how: str


class SandboxProbe:
    """Runs rows in sandboxes; ``run_seconds`` and ``address_bytes`` are the limits of one run."""

    def __init__(self, bundles: Bundles, run_seconds: float, address_bytes: int) -> None:
        self._bundles = bundles
        self._run_seconds = run_seconds
        self._address_bytes = address_bytes

    def deadly(self, version: LoadedVersion, inputs: Sequence[bytes]) -> frozenset[int]:
        """The places of ``inputs`` that crash or hang the model. Raises ModelwireError."""
        manifest = self._bundles.read_manifest(version.digest)
        model = self._bundles.read_file(version.digest, manifest, MODEL_NAME)
        bundle = _Bundle(version.digest, manifest, model)
        places = list(range(len(inputs)))
        if self._at_once(bundle, inputs, places):
            return frozenset()
        deadly = self._one_by_one(bundle, inputs)
        left = [place for place in places if place not in deadly]
        if left and not self._at_once(bundle, inputs, left):
            deadly.update(left)
        return frozenset(deadly)

    def _at_once(self, bundle: "_Bundle", inputs: Sequence[bytes], places: Sequence[int]) -> bool:
        return self._run(bundle, [inputs[place] for place in places], one_by_one=False).is_done

    def _one_by_one(self, bundle: "_Bundle", inputs: Sequence[bytes]) -> set[int]:
        deadly: set[int] = set()
        begin = 0
        while begin < len(inputs):
            run = self._run(bundle, inputs[begin:], one_by_one=True)
            if run.is_done:
                break
            deadly.add(begin + run.survived)
            begin += run.survived + 1
        return deadly

    def _run(self, bundle: "_Bundle", rows: Sequence[bytes], *, one_by_one: bool) -> _Run:
        for _ in range(MOST_TRIES):
            run = self._try(bundle, rows, one_by_one=one_by_one)
            if run.is_done or run.is_at_fault:
                return run
        raise ModelwireError(
            f"rows that brought a consumer down could not be told apart: the process that ran them was "
            f"ended {MOST_TRIES} times with {run.how}",
            hint="see that the machine has memory to spare, and start the consumer again",
        )

    def _try(self, bundle: "_Bundle", rows: Sequence[bytes], *, one_by_one: bool) -> _Run:
        runs = len(rows) if one_by_one else 1
        manifest = encode_manifest(bundle.manifest)
        job = Job(
            digest=bundle.digest,
            address_bytes=self._address_bytes,
            cpu_seconds=math.ceil(START_SECONDS + self._run_seconds * runs),
            manifest=len(manifest),
            model=len(bundle.model),
            rows=tuple(map(len, rows)),
            one_by_one=one_by_one,
        )
        try:
            with Sandbox("consumer.probe_child") as sandbox:
                sandbox.hand_over([msgspec.json.encode(job), b"\n", manifest, bundle.model, *rows])
                return self._follow(sandbox)
        except OSError as error:
            raise ModelwireError(
                f"no process could be started to tell rows apart: {error}",
                hint="see what the machine is short of, and start the consumer again",
            ) from error

    def _follow(self, sandbox: Sandbox) -> _Run:
        said = b""
        heard = time.monotonic()
        while not said.endswith(DONE):
            limit = self._run_seconds if said else START_SECONDS
            more = sandbox.listen(max(heard + limit - time.monotonic(), 0.0))
            if more:
                said += more
                heard = time.monotonic()
                continue
            if more is None:
                # Before the first row it is no row's fault that nothing comes.
                return _Run(said.count(OVER), False, READY in said, "no answer in time")
            code = sandbox.wait() or 0
            how = name_of(-code) if code < 0 else f"code {code}{sandbox.last_words()}"
            by_itself = code > 0 or -code in BY_ITSELF
            return _Run(said.count(OVER), False, READY in said and by_itself, how)
        return _Run(said.count(OVER), True, False, "")


@dataclass(frozen=True)
class _Bundle:
    digest: str
    manifest: Manifest
    model: bytes
