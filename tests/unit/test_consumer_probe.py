"""The probe: rows that crash or hang the runtime are found in processes that really die of them."""

import os
import platform
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec
import psutil
import pytest

from adapters.bundles import Bundles, StoredBundles, read_manifest
from adapters.object_store import StoreUnavailable, open_store
from adapters.timed_reads import seconds_left
from consumer.probe import Limits, SandboxProbe, Stopped
from schemas.errors import ModelwireError
from schemas.manifest import Manifest
from scoring.snapshot import LoadedVersion, load
from tests.fleet import LIMIT_SECONDS
from tests.trap_bundle import CRASH, HANG, store_trap

MEBIBYTE = 1024 * 1024
ADDRESS_BYTES = 2_048 * MEBIBYTE

pytestmark = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"),
    reason="other processors divide the least integer by -1 without a trap",
)


class Scene:
    """A stored bundle with traps, and what is asked of it."""

    def __init__(self, folder: Path) -> None:
        store = open_store(folder.absolute().as_uri())
        self.digest = store_trap(store, "m", 2.0)
        contract = read_manifest(store, self.digest).contract
        never = None
        self.version: LoadedVersion = load(1, self.digest, contract, never)  # type: ignore[arg-type]
        self.bundles: Bundles = StoredBundles(store)

    def deadly(
        self,
        *units: float,
        seconds: float = 20.0,
        address_bytes: int = ADDRESS_BYTES,
        go_on: Callable[[], bool] = lambda: True,
    ) -> frozenset[int]:
        """The places of the rows with these units that bring the runtime down."""
        limits = Limits(seconds, address_bytes, lambda: ADDRESS_BYTES)
        rows = [
            msgspec.json.encode({"item": "a", "units": each, "date": "2011-12-09"})
            for each in units
        ]
        return SandboxProbe(self.bundles, limits, go_on).deadly(self.version, rows)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """A store with one bundle."""
    return Scene(tmp_path / "store")


def test_rows_that_nothing_is_wrong_with_are_no_ones_fault(scene: Scene) -> None:
    """Whoever killed the consumer, it was not they."""
    assert scene.deadly(*map(float, range(100))) == frozenset()


def test_each_row_that_crashes_the_runtime_is_found(scene: Scene) -> None:
    """The first, the last, and two that are neighbours; no other."""
    assert scene.deadly(CRASH, 1.0, CRASH, CRASH, 2.0, CRASH) == {0, 2, 3, 5}


def test_a_row_that_hangs_the_runtime_is_found(scene: Scene) -> None:
    """It gets the time of a batch, and no more."""
    assert scene.deadly(1.0, HANG, 2.0, seconds=1.5) == {1}


def test_a_bundle_that_cannot_be_had_is_an_error(scene: Scene, tmp_path: Path) -> None:
    """Rows are not condemned unheard."""
    scene.bundles = StoredBundles(open_store((tmp_path / "empty").as_uri()))
    with pytest.raises(ModelwireError):
        scene.deadly(CRASH)


def test_without_room_for_the_model_no_row_is_condemned(scene: Scene) -> None:
    """A process that dies before it ran anything says nothing of the rows."""
    with pytest.raises(ModelwireError, match="could not be told apart"):
        scene.deadly(1.0, address_bytes=MEBIBYTE)


def test_rows_that_only_take_long_together_are_no_ones_fault(scene: Scene) -> None:
    """A set that takes too long is looked at row by row, and no row takes long by itself."""
    rows = [float(number) for number in range(150)] + [CRASH]
    assert scene.deadly(*rows, seconds=0.05) == {150}


def test_a_stop_ends_the_search(scene: Scene) -> None:
    """At once, in the middle of a row that hangs; nothing is found out."""
    asked = iter(range(10_000))
    with pytest.raises(Stopped):
        scene.deadly(HANG, seconds=60.0, go_on=lambda: next(asked) < 20)


class _Slow:
    """Bundles whose files come only once ``gate`` is set, or once nobody waits for them any more."""

    def __init__(self, bundles: Bundles) -> None:
        self.gate = threading.Event()
        self.given = False
        self._bundles = bundles

    def read_manifest(self, digest: str) -> Manifest:
        """At once."""
        return self._bundles.read_manifest(digest)

    def read_file(self, digest: str, manifest: Manifest, name: str) -> bytes:
        """As a store that hangs up to its caller's deadline."""
        in_time = self.gate.wait(min(seconds_left(), LIMIT_SECONDS))
        self.given = True
        if not in_time:
            raise StoreUnavailable("the store does not answer")
        return self._bundles.read_file(digest, manifest, name)

    def look_at_store(self) -> None:
        """Nobody asks."""


def test_a_stop_is_heard_while_the_store_is_slow(scene: Scene) -> None:
    """The loop's pulse beats meanwhile, and a stop does not wait for the read."""
    slow = scene.bundles = _Slow(scene.bundles)
    asked = iter(range(10_000))
    with pytest.raises(Stopped):
        scene.deadly(1.0, go_on=lambda: next(asked) < 3)
    assert not slow.given
    slow.gate.set()


def test_a_slow_store_is_waited_for_and_not_for_ever(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What comes late is used; after the limit the error ends the consumer, and no row is condemned."""
    slow = scene.bundles = _Slow(scene.bundles)
    asked = iter(range(10_000))

    def go_on() -> bool:
        if next(asked) == 2:
            slow.gate.set()
        return True

    assert scene.deadly(CRASH, go_on=go_on) == {0}
    slow.gate.clear()
    monkeypatch.setattr("consumer.probe.READ_SECONDS", 0.3)
    with pytest.raises(StoreUnavailable):
        scene.deadly(CRASH)


def test_the_processes_that_the_loop_waits_for_step_back_for_nobody(scene: Scene) -> None:
    """They are as nice as the loop."""
    seen: set[int] = set()

    def go_on() -> bool:
        for child in psutil.Process().children():
            if "consumer.probe_child" in child.cmdline():
                seen.add(os.getpriority(os.PRIO_PROCESS, child.pid))
        return not seen

    with pytest.raises(Stopped):
        scene.deadly(HANG, seconds=60.0, go_on=go_on)
    assert seen == {os.getpriority(os.PRIO_PROCESS, 0)}
