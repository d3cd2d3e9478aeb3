"""A fleet that agrees: who cannot serve says so, stays out, leaves, or takes the rollout back."""

import shutil
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from structlog.testing import capture_logs

from adapters.control_log import read_log
from adapters.fleet_topic import Sighting, live_instances
from adapters.object_store import open_store
from adapters.onnx_model import runtime_limits
from adapters.stream_config import group_of
from consumer.aborts import Aborts
from deployment.commands import Shift, Start, Strategy
from deployment.readiness import ALL, Instance
from schemas.errors import RefusedByRule
from schemas.events import Recorded, RolloutAborted
from schemas.fleet import InstanceStatus, Phase, Runtime
from schemas.manifest import digest_of
from tests.bundles import store_bundle
from tests.fleet import PARTITIONS, Harness, environment_of, wait_for
from tests.wire import Wire

if TYPE_CHECKING:
    from tests.conftest import RunningStack

pytestmark = pytest.mark.stack

WITHOUT_CACHE = {"CONSUMER__CACHE_MEGABYTES": "0"}
"""For an instance whose store lacks what another one of this machine has kept."""

READY = (Instance("who-was-asked", frozenset({1, 2})),)


@pytest.fixture
def on_s3(stack: "RunningStack", model: str, tmp_path: Path) -> Iterator[Harness]:
    """A model with topics of its own, and its bundles on the S3 server."""
    settings = stack.settings(f"agreement-{model}")
    running = Harness(settings, environment_of(settings), model, tmp_path)
    yield running
    running.close()


def test_a_fleet_that_cannot_run_a_version_says_so_before_anybody_starts_it(
    harness: Harness,
) -> None:
    """Every instance names the opset that its runtime lacks; starting is refused, traffic untouched."""
    harness.release(store_bundle(harness.store, harness.model, 1.0))
    for slot in range(2):
        harness.start(slot)
    harness.wait_until_ready(2)
    limits = runtime_limits()
    with harness.stream(300) as stream:
        future = store_bundle(harness.store, harness.model, 2.0, opset=99)
        released = harness.release(future, start=False)
        sighted = wait_for("two refusals", lambda: _all_refuse(harness, 2))
        for status in sighted:
            [fallen] = status.refused
            assert (fallen.version, fallen.rung) == (2, "runtime")
            assert (status.runtime.opsets, status.runtime.ir_version) == (
                limits.opsets,
                limits.ir_version,
            )
        for strategy in (Strategy.CANARY, Strategy.BLUE_GREEN):
            fleet = live_instances(harness.fleet())
            with pytest.raises(RefusedByRule) as refused:
                harness.command(Start(2, strategy, "salt", min_ready=ALL, fleet=fleet))
            lines = list(map(str, refused.value.details))
            needed = f"opset 99 of ai.onnx; onnxruntime {limits.onnxruntime} here runs up to"
            assert [line.partition(":")[0] for line in lines] == [
                f"{group_of(harness.model)}-{slot}" for slot in range(2)
            ]
            assert all(needed in line for line in lines)
        then = stream.sent + 300
        wait_for("a second of requests more", lambda: stream.sent > then)
    assert read_log(harness.settings, harness.model).deployment.revision == released
    report = harness.verify()
    assert report.clean, report.findings
    assert report.versions == {1: stream.sent}


def test_an_instance_that_joins_without_the_candidate_stays_out_until_it_has_it(
    harness: Harness,
) -> None:
    """In mid-canary it takes no partition, so it never answers as champion what is the candidate's."""
    first = store_bundle(harness.store, harness.model, 1.0)
    poor = harness.folder / "poor"
    shutil.copytree(harness.folder / "store", poor)
    harness.release(first)
    harness.start(0)
    harness.wait_until_ready()
    harness.release(store_bundle(harness.store, harness.model, 2.0), start=False)
    half = _start_canary(harness, 5_000)
    harness.wait_for_revision(half)
    with harness.stream(300) as before:
        harness.start(1, STORE_URL=poor.as_uri(), **WITHOUT_CACHE)
        status = wait_for("it knows why", lambda: _outside(harness, 1, "version 2: fetch:"))
        assert (status.prepared, status.partitions, status.revision) == ((1,), (), 0)
        mark = before.sent + 300
        wait_for("a second of requests", lambda: before.sent > mark)
    assert _status(harness, 1, Phase.WAITING)
    answered = harness.forecasts(before.sent)
    assert {f.instance for f in answered} == {f"{group_of(harness.model)}-0"}
    store_bundle(open_store(poor.as_uri()), harness.model, 2.0)
    harness.wait_until_ready(2)
    with harness.stream(300) as after:
        wait_for("a second of requests", lambda: after.sent > 300)
    report = harness.verify()
    assert report.clean, report.findings
    assert set(report.versions) == {1, 2}
    later = harness.forecasts(before.sent + after.sent)
    assert len({f.instance for f in later}) == 2


@pytest.mark.parametrize(
    ("min_ready", "stamp_wait_ms", "said"),
    [
        (5_000, "30000", "version 2 is not ready here: the rollout goes on without this instance"),
        (10_000, "1500", "version 2 is still not ready here after"),
    ],
)
def test_an_instance_that_is_not_ready_leaves_when_others_are(
    on_s3: Harness, min_ready: int, stamp_wait_ms: str, said: str
) -> None:
    """At once where the rollout may leave it behind; else when a load lasts longer than a stamp waits."""
    harness = on_s3
    wire = Wire(urlsplit(harness.settings.s3.endpoint).netloc)
    harness.release(store_bundle(harness.store, harness.model, 1.0))
    harness.start(0)
    slow = harness.start(
        1,
        S3__ENDPOINT=f"http://{wire.address}",
        CONSUMER__STAMP_WAIT_MS=stamp_wait_ms,
        **WITHOUT_CACHE,
    )
    harness.wait_until_ready(2)
    wire.cut()
    harness.release(store_bundle(harness.store, harness.model, 2.0), start=False)
    wait_for("one that is ready", lambda: _prepared(harness, 0) == (1, 2))
    with harness.stream(300):
        half = _start_canary(harness, 5_000, min_ready=min_ready)
        line = wait_for("it leaves", lambda: slow.lines("group.leave"))[0]
        assert line["reason"].startswith(f"another instance answers at revision {half}, and {said}")
        assert not slow.lines("model.refused")
        wait_for(
            "the other one owns everything",
            lambda: (s := _status(harness, 0, Phase.READY)) and len(s.partitions) == PARTITIONS,
        )
    report = harness.verify()
    assert report.clean, report.findings
    assert set(report.versions) == {1, 2}


def test_live_consumers_abort_a_rollout_that_nobody_can_serve_any_more(harness: Harness) -> None:
    """All restarted, the candidate's bundle gone: one of them aborts, and the champion answers."""
    harness.release(store_bundle(harness.store, harness.model, 1.0))
    candidate = store_bundle(harness.store, harness.model, 2.0)
    for slot in range(2):
        harness.start(slot)
    harness.wait_until_ready(2)
    harness.release(candidate, start=False)
    half = _start_canary(harness, 5_000)
    harness.wait_for_revision(half, 2)
    with harness.stream(300) as stream:
        assert {each.version for each in harness.forecasts(300)} == {1, 2}
        for instance in harness.instances:
            instance.kill()
        bundle = harness.folder / "store" / "bundles" / candidate.removeprefix("sha256:")
        shutil.rmtree(bundle)
        for slot in range(2):
            harness.start(slot, CONSUMER__GUARD_WAIT_MS="1500", **WITHOUT_CACHE)
        aborted = wait_for("an abort", lambda: _events(harness)[half:])[0]
        harness.wait_until_ready(2)
        harness.wait_for_revision(half + 1, 2)
        mark = stream.sent + 300
        wait_for("a second of requests", lambda: stream.sent > mark)
    report = harness.verify()
    assert report.clean, report.findings
    assert set(report.versions) == {1, 2}
    assert {f.version for f in harness.forecasts(stream.sent) if f.revision > half} == {1}
    assert _events(harness)[half:] == [aborted]
    assert isinstance(aborted.data, RolloutAborted)
    assert aborted.event.actor in {f"{group_of(harness.model)}-{slot}" for slot in range(2)}
    assert aborted.data.reason.startswith(
        f"guard: 0 of 2 live instances ready for {harness.model}:1 and {harness.model}:2 for "
    )


def test_two_guards_at_once_append_one_abort(harness: Harness) -> None:
    """Each alone in its own view, so both have the first turn: one wins, the other one is told."""
    for number in (b"1", b"2"):
        harness.release(digest_of(number), start=number == b"1")
    half = _start_canary(harness, 5_000)
    deployment = read_log(harness.settings, harness.model).deployment
    consumer = harness.settings.consumer.model_copy(update={"guard_wait_ms": 1})
    settings = harness.settings.model_copy(update={"consumer": consumer})
    follower = SimpleNamespace(heard=SimpleNamespace(deployment=deployment))
    guards = {name: Aborts(settings, harness.model, name, follower) for name in ("a", "b")}  # type: ignore[arg-type]
    with capture_logs() as lines:

        def look() -> bool:
            for name, guard in guards.items():
                guard.look([_alone(name)])
            return (
                sum(line["event"] in ("guard.aborted", "guard.not_aborted") for line in lines) == 2
            )

        wait_for("two ends", look)
    assert [line["event"] for line in lines if line["event"] == "guard.aborted"] == [
        "guard.aborted"
    ]
    [aborted] = _events(harness)[half:]
    assert isinstance(aborted.data, RolloutAborted)
    assert aborted.event.actor in guards


# --- what the tests do and see


def _alone(name: str) -> Sighting:
    """A fresh announcement of an instance that has nothing prepared."""
    now = datetime.now(UTC)
    status = InstanceStatus(
        instance=name,
        model="m",
        phase=Phase.WAITING,
        detail="",
        read_revision=0,
        revision=0,
        champion=None,
        prepared=(),
        refused=(),
        runtime=Runtime("1", "x", "0"),
        partitions=(),
        answered=0,
        rejected=0,
        rate=0.0,
        horizon_days_left=None,
        interval_seconds=60.0,
        started_at=now,
        at=now,
    )
    return Sighting(status, 0.0, alive=True)


def _start_canary(harness: Harness, weight: int, *, min_ready: int = ALL) -> int:
    """Start a canary of version 2 and give it traffic, whoever is ready really; gives the revision."""
    salt = uuid.uuid4().hex
    [started] = harness.command(Start(2, Strategy.CANARY, salt, min_ready=min_ready))
    [shifted] = harness.command(Shift(started.event.revision, weight, None, fleet=READY))
    return shifted.event.revision


def _events(harness: Harness) -> list[Recorded]:
    return read_log(harness.settings, harness.model).events


def _all_refuse(harness: Harness, count: int) -> list[InstanceStatus]:
    found = [s.status for s in harness.fleet() if s.alive and s.status.refused]
    return found if len(found) == count else []


def _prepared(harness: Harness, slot: int) -> tuple[int, ...]:
    status = _status(harness, slot, Phase.READY)
    return () if status is None else status.prepared


def _outside(harness: Harness, slot: int, said: str) -> InstanceStatus | None:
    status = _status(harness, slot, Phase.WAITING)
    return status if status is not None and said in status.detail else None


def _status(harness: Harness, slot: int, phase: Phase) -> InstanceStatus | None:
    name = f"{group_of(harness.model)}-{slot}"
    for sighting in harness.fleet():
        status = sighting.status
        if sighting.alive and status.instance == name and status.phase is phase:
            return status
    return None
