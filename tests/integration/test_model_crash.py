"""A row that brings the runtime down, in a consumer that a supervisor starts again."""

import platform
import threading

import msgspec
import pytest

from deployment.commands import Start, Strategy
from schemas.rejection import Reason
from tests.broker_proxy import ADD_OFFSETS, TRANSACTION_ABORTABLE, BrokerProxy
from tests.bundles import store_bundle
from tests.fleet import Harness, wait_for
from tests.trap_bundle import CRASH, HANG, store_trap

pytestmark = [
    pytest.mark.stack,
    pytest.mark.skipif(
        platform.machine() not in ("x86_64", "AMD64"),
        reason="other processors divide the least integer by -1 without a trap",
    ),
]

GOOD = 40

MANY = 10_000
"""Refusals: more than there will be transactions."""


def request(number: int, units: float) -> bytes:
    """A request that the contract takes."""
    return msgspec.json.encode(
        {
            "request_id": f"r-{number}",
            "inputs": {"item": "a", "units": units, "date": "2011-12-09"},
        }
    )


def test_rows_that_crash_or_hang_the_runtime_are_rejected_and_no_others(harness: Harness) -> None:
    """After two ends each; the requests around them have their answers."""
    harness.release(store_trap(harness.store, harness.model, 2.0))
    settings = {"CONSUMER__SCORE_TIMEOUT_MS": "2000", "CONSUMER__BATCH_SIZE": "16"}
    stop = threading.Event()
    keeper = threading.Thread(target=_restart_what_ends, args=(harness, settings, stop))
    keeper.start()
    try:
        units = [float(number) for number in range(GOOD)]
        units[7], units[21] = CRASH, HANG
        harness.send_raw([request(number, each) for number, each in enumerate(units)])
        rejections = harness.rejections(2)
        forecasts = harness.forecasts(GOOD - 2)
    finally:
        stop.set()
        keeper.join()
    assert {(each.rejection.source.offset, each.rejection.reason) for each in rejections} == {
        (7, Reason.MODEL_CRASH),
        (21, Reason.MODEL_CRASH),
    }
    assert {each.value for each in rejections} == {request(7, CRASH), request(21, HANG)}
    assert sorted(each.source.offset for each in forecasts) == [
        number for number in range(GOOD) if number not in (7, 21)
    ]
    report = harness.verify()
    assert report.clean, report.findings
    lives = len(harness.instances)
    print(f"{lives} lives of one slot for a row that crashes and one that hangs")
    assert lives >= 5


def test_a_shadow_that_crashes_on_a_row_stops_no_answer(harness: Harness) -> None:
    """After two ends the row is left out, for the shadow alone: the champion answers it."""
    harness.release(store_bundle(harness.store, harness.model, 1.0))
    harness.release(store_trap(harness.store, harness.model, 2.0), start=False)
    harness.command(Start(2, Strategy.SHADOW, "dark"))
    stop = threading.Event()
    proxy = BrokerProxy(harness.settings.kafka.bootstrap_servers)
    # Nothing is committed before a shadow has left the row out, or it might never come again.
    proxy.refuse(ADD_OFFSETS, *[TRANSACTION_ABORTABLE] * MANY)
    behind = {"KAFKA__BOOTSTRAP_SERVERS": proxy.address}
    keeper = threading.Thread(target=_restart_what_ends, args=(harness, behind, stop))
    keeper.start()
    try:
        wait_for("a shadow that is loaded", lambda: _shadows(harness))
        units = [CRASH if number == 7 else float(number) for number in range(GOOD)]
        harness.send_raw([request(number, each) for number, each in enumerate(units)])
        wait_for("a shadow that left it out", lambda: _failed(harness))
        proxy.heal()
        forecasts = harness.forecasts(GOOD)
    finally:
        stop.set()
        keeper.join()
        harness.close()
        proxy.close()
    assert sorted(each.source.offset for each in forecasts) == list(range(GOOD))
    assert {each.version for each in forecasts} == {1}
    assert len(harness.instances) == 3
    assert harness.verify().clean


def _shadows(harness: Harness) -> bool:
    """Whether the instance that runs now answers with the shadow loaded."""
    lines = harness.instances[-1].lines("snapshot.applied") if harness.instances else []
    return any(line["shadows"] for line in lines)


def _failed(harness: Harness) -> bool:
    """Whether a live instance says that a shadow failed on something."""
    return any(
        tally.failed for each in harness.fleet() if each.alive for tally in each.status.tallies
    )


def _restart_what_ends(harness: Harness, settings: dict[str, str], stop: threading.Event) -> None:
    """The supervisor of one slot."""
    running = harness.start(0, **settings)
    while not stop.wait(0.05):
        if running.process.poll() is not None:
            running = harness.start(0, **settings)
