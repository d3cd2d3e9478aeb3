"""Aborts: what the guard's shell makes of the fleet topic, and of an append that fails."""

from collections.abc import MutableMapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from adapters.fleet_topic import Sighting
from adapters.settings import Settings
from consumer.aborts import Aborts
from deployment.state import Deployment, Rollout
from schemas.fleet import InstanceStatus, Phase, Runtime
from tests.fleet import wait_for

BORN = datetime.now(UTC)
STATUS = InstanceStatus(
    instance="i-0",
    model="m",
    phase=Phase.WAITING,
    detail="",
    read_revision=6,
    revision=0,
    champion=None,
    prepared=(1,),
    refused=(),
    runtime=Runtime("1", "x", "0"),
    partitions=(),
    answered=0,
    rejected=0,
    rate=0.0,
    horizon_days_left=None,
    interval_seconds=60.0,
    started_at=BORN,
    at=BORN,
)
TWO_WAITS = timedelta(milliseconds=2)
HALF = Deployment(
    "m", "sha256:a", 6, "sha256:b", {}, 1, None, Rollout(5, 2, "canary", "s", 5_000, BORN, 6)
)


def _aborts(guard_wait_ms: int) -> Aborts:
    settings = Settings(
        kafka={"bootstrap_servers": "127.0.0.1:1"},  # type: ignore[arg-type]
        consumer={"guard_wait_ms": guard_wait_ms},  # type: ignore[arg-type]
    )
    follower = SimpleNamespace(heard=SimpleNamespace(deployment=HALF))
    return Aborts(settings, "m", "i-0", follower)  # type: ignore[arg-type]


def _sighting(**changes: object) -> Sighting:
    status = msgspec.structs.replace(STATUS, at=datetime.now(UTC))
    return Sighting(msgspec.structs.replace(status, **changes), 0.0, alive=True)


def test_an_abort_that_cannot_be_appended_is_a_log_line() -> None:
    """With no broker the look neither waits nor raises, and one line says what was tried."""
    aborts = _aborts(1)
    with capture_logs() as lines:

        def said() -> list[MutableMapping[str, Any]]:
            return [line for line in lines if line["event"].startswith("guard.")]

        wait_for("a verdict", lambda: aborts.look([_sighting()]) or said())
        assert [line["event"] for line in said()] == ["guard.abort"]
        wait_for("the end of the try", lambda: len(said()) > 1)
    assert said()[1]["event"] == "guard.not_aborted"
    assert "no Kafka broker answered" in said()[1]["problem"]


@pytest.mark.parametrize(
    ("changes", "alive"),
    [
        pytest.param({"instance": "i-1"}, True, id="others alone"),
        pytest.param({"at": BORN}, True, id="this name's last life"),
        pytest.param({"at": BORN + timedelta(days=1)}, True, id="another machine's clock"),
        pytest.param({"interval_seconds": 0.0}, True, id="a broker that was away"),
        pytest.param({}, False, id="taken to be dead"),
    ],
)
def test_a_view_without_an_own_announcement_of_a_moment_ago_is_no_view(
    changes: dict[str, object], alive: bool
) -> None:
    """The topic's past, and a broker that was away, must not abort what runs now."""
    aborts = _aborts(1)
    seen = [replace(_sighting(**changes), alive=alive), _sighting(instance="i-2")]
    with capture_logs() as lines:
        for _ in range(2):
            aborts.look(seen)
            after = datetime.now(UTC) + TWO_WAITS
            wait_for("more than the wait", lambda: datetime.now(UTC) > after)  # noqa: B023
    assert lines == []


def test_a_wait_of_zero_switches_the_guard_off() -> None:
    """Then nothing is judged, however long too few are ready."""
    aborts = _aborts(0)
    with capture_logs() as lines:
        for _ in range(3):
            aborts.look([_sighting()])
    assert lines == []
