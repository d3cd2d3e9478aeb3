"""The port of a real consumer: what its probes say through its life, and that its metrics are true."""

import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as prometheus

from consumer.health import LOST
from consumer.measures import MEASURES
from deployment.commands import Revoke
from schemas.rejection import Reason
from tests.broker_proxy import BrokerProxy
from tests.bundles import store_bundle
from tests.fleet import LIMIT_SECONDS, Harness, Instance, environment_of, flat_line, wait_for
from tests.log_page import documented_events
from tests.s3_faults import Down, S3Faults

if TYPE_CHECKING:
    from tests.conftest import RunningStack

pytestmark = pytest.mark.stack

MARK = "whiskers"
"""Stands in requests and nowhere else, so that it can be looked for where it must not be."""

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
def on_s3(stack: "RunningStack", model: str, tmp_path: Path) -> Iterator[Harness]:
    """A model with topics of its own, and its bundles on the S3 server."""
    settings = stack.settings(f"health-{model}")
    running = Harness(settings, environment_of(settings), model, tmp_path)
    yield running
    running.close()


class Probe:
    """Asks the port of an instance."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]

    def get(self, path: str, accept: str = "") -> tuple[int, str]:
        """The status and the content; a status of 0 where nobody answers."""
        request = Request(f"http://127.0.0.1:{self.port}{path}", headers={"Accept": accept})
        try:
            with urlopen(request, timeout=LIMIT_SECONDS) as response:
                return response.status, response.read().decode()
        except HTTPError as error:
            return error.code, error.read().decode()
        except URLError:
            return 0, ""

    def wait_until(self, path: str, status: int) -> dict[str, Any]:
        """What ``path`` says once it has this status."""

        def look() -> str | None:
            found, said = self.get(path)
            return said if found == status else None

        told: dict[str, Any] = json.loads(wait_for(f"{status} of {path}", look))
        return told

    def samples(self) -> Samples:
        """Every sample by its name and labels, but for those of the process."""
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in prometheus(self.get("/metrics")[1])
            for sample in family.samples
            if sample.name.startswith("modelwire")
        }


def test_probes_and_metrics_tell_what_the_instance_does(on_s3: Harness) -> None:
    """503, 200, 503 while it holds, 200 again; counters are what the topics have; no line tells more."""
    harness, probe = on_s3, Probe()
    faults = S3Faults(harness.settings.s3.endpoint)
    instance = harness.start(
        S3__ENDPOINT=faults.endpoint,
        CONSUMER__HEALTH_PORT=str(probe.port),
        CONSUMER__SUMMARY_INTERVAL_MS="1000",
    )

    instance.wait_for_line("consumer.phase")
    wait_for(
        "an instance that waits for a champion",
        lambda: "no champion yet" in probe.wait_until("/readyz", 503)["detail"],
    )
    assert probe.wait_until("/readyz", 503)["phase"] == "waiting"
    assert probe.get("/healthz")[0] == 200

    harness.release(store_bundle(harness.store, harness.model, 1.0))
    assert probe.wait_until("/readyz", 200) == {"ready": True, "phase": "ready", "detail": ""}
    harness.send(120, item="b")
    harness.send_raw([json.dumps({"request_id": MARK}).encode(), MARK.encode(), None], key=None)
    assert len(harness.forecasts(120)) == 120
    assert len(harness.rejections(3)) == 3

    faults.fault = Down()
    revoked = _second_version_with_the_first_revoked(harness)
    told = probe.wait_until("/readyz", 503)
    assert (told["phase"], told["detail"].startswith("answers nothing: ")) == ("ready", True)
    assert probe.get("/healthz")[0] == 200
    held = probe.samples()
    assert held[_name("ready", harness)] == 0
    assert held[_name("control_lag", harness)] > 0

    faults.fault = None
    probe.wait_until("/readyz", 200)
    harness.send(80, item="c")
    forecasts = harness.forecasts(200)
    _assert_metrics_are_true(probe, harness, forecasts, harness.rejections(3), revoked)
    _assert_metrics_are_what_was_logged(probe, harness, instance)
    for family in openmetrics(probe.get("/metrics", "application/openmetrics-text")[1]):
        assert family.documentation, family.name

    assert instance.terminate() == 0
    assert probe.get("/healthz")[0] == 0
    _assert_lines_add_up(instance, answered=200, rejected=3)


def _second_version_with_the_first_revoked(harness: Harness) -> int:
    """A version that cannot be fetched for now takes over from one that may serve no more."""
    harness.release(store_bundle(harness.store, harness.model, 2.0))
    return harness.command(Revoke(1))[-1].event.revision


def _name(name: str, harness: Harness, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return f"modelwire_{name}", frozenset({"model": harness.model, **labels}.items())


def _assert_metrics_are_true(
    probe: Probe, harness: Harness, forecasts: list[Any], rejections: list[Any], revision: int
) -> None:
    def counted() -> Samples | None:
        samples = probe.samples()
        answers = [v for (name, _), v in samples.items() if name == "modelwire_answers_total"]
        return samples if sum(answers) == len(forecasts) else None

    samples = wait_for("the last transaction's answers", counted)
    by_version = Counter((str(f.version), f.variant) for f in forecasts)
    assert len(by_version) == 2
    for (version, variant), count in by_version.items():
        labels = {"version": version, "variant": variant}
        assert samples[_name("answers_total", harness, **labels)] == count
    reasons = Counter(each.rejection.reason for each in rejections)
    assert reasons[Reason.TOMBSTONE] == 1
    for reason, count in reasons.items():
        assert samples[_name("rejections_total", harness, reason=reason)] == count
    rows = len(forecasts) + len(rejections)
    assert samples[_name("batch_rows_sum", harness)] >= rows  # more only where one was aborted
    assert (
        samples[_name("batch_rows_bucket", harness, le="+Inf")]
        == (samples[_name("score_seconds_count", harness)])
    )
    assert samples[_name("control_revision", harness)] == revision
    assert samples[_name("control_lag", harness)] == 0
    assert samples[_name("partitions", harness)] == 4
    assert samples[_name("horizon_days_left", harness)] > 0
    assert samples[_name("loaded_models", harness)] >= 1
    assert samples[_name("resident_memory_bytes", harness)] > 2**20
    _assert_labels_are_harmless(probe, samples)


def _assert_metrics_are_what_was_logged(probe: Probe, harness: Harness, instance: Instance) -> None:
    samples = probe.samples()
    swaps = len(instance.lines("snapshot.applied"))
    assert samples[_name("swap_seconds_count", harness, stage="apply")] == swaps
    aborted = len(instance.lines("transaction.aborted"))
    assert samples[_name("aborted_transactions_total", harness)] == aborted


def _assert_labels_are_harmless(probe: Probe, samples: Samples) -> None:
    allowed = {name for each in MEASURES for name in each.labels} | {"le"}
    assert {name for _, labels in samples for name, _ in labels} <= allowed
    assert MARK not in probe.get("/metrics")[1]
    for _, labels in samples:
        for name, value in labels:
            assert name not in ("version", "variant", "reason", "stage", "rung") or re.fullmatch(
                r"[\w.+-]{1,40}", value
            )


def _assert_lines_add_up(instance: Instance, *, answered: int, rejected: int) -> None:
    """The summaries tell everything once, and every line is of a documented event."""
    summaries = instance.lines("consumer.summary")
    assert sum(line["answered"] for line in summaries) == answered
    assert sum(sum(line["rejected"].values()) for line in summaries) == rejected
    assert {line["champion"] for line in instance.lines("snapshot.applied")} == {1, 2}
    assert MARK not in instance.text
    events = documented_events()
    for line in instance.text.splitlines():
        parsed = json.loads(line)
        assert parsed["service"]["node"]["name"], line
        told = flat_line(line)
        fields = set(told) - {"event", "level", "@timestamp", "model"}
        assert not events[told["event"]].undocumented(fields), line
        assert told["level"] in events[told["event"]].levels, line


HANGS = """
import sys, threading
from pathlib import Path
import consumer.health
from consumer.service import Service
from modelwire.cli import main

consumer.health.STUCK_SECONDS = consumer.health.SCORE_MARGIN_SECONDS = 0.5
turn = Service.turn

def hanging_turn(service):
    if Path("hang").exists():
        threading.Event().wait()
    turn(service)

Service.turn = hanging_turn
sys.argv = ["modelwire", *sys.argv[1:]]
main()
"""
"""A consumer whose loop stands still, in a call that nobody watches, once there is a file. With a score
timeout of half a second it may take a whole one."""


def test_an_instance_whose_loop_hangs_is_neither_alive_nor_ready(harness: Harness) -> None:
    """The port answers on its own thread, and says for how long nothing happened."""
    probe = Probe()
    ours = {
        "MODELWIRE_CONSUMER__HEALTH_PORT": str(probe.port),
        "MODELWIRE_CONSUMER__SCORE_TIMEOUT_MS": "500",
    }
    harness.release(store_bundle(harness.store, harness.model, 1.0))
    process = subprocess.Popen(
        [sys.executable, "-c", HANGS, "consume", "--model", harness.model],
        env=environment_of(harness.settings) | ours,
        cwd=harness.folder,
        stderr=subprocess.DEVNULL,
    )
    try:
        probe.wait_until("/readyz", 200)
        longer = time.monotonic() + 1.1
        wait_for("more than the loop may take", lambda: time.monotonic() > longer)
        probe.wait_until("/healthz", 200)
        (harness.folder / "hang").touch()
        told = probe.wait_until("/healthz", 503)
        assert told["reason"].startswith("the main loop has not come round for ")
        told = probe.wait_until("/readyz", 503)
        assert (told["phase"], told["detail"][:13]) == ("ready", "the main loop")
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def test_a_port_that_is_taken_ends_the_process_at_once(harness: Harness) -> None:
    """Before any broker is asked: the error names the port and what to do."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        instance = harness.start(CONSUMER__HEALTH_PORT=port)
        assert instance.wait_for_exit() == 2
    [failed] = instance.lines("consumer.failed")
    assert (failed["slot"], failed["exit_code"]) == (0, 2)
    assert f"port {port} of 127.0.0.1, for health and metrics, is taken" in instance.text
    assert "consumer.health_port" in instance.text
    assert "Traceback" not in instance.text


def test_who_lost_its_place_in_the_group_is_not_ready(harness: Harness) -> None:
    """A broker that is away for longer than a session: 503 with the reason, and 200 once it is back."""
    probe = Probe()
    harness.release(store_bundle(harness.store, harness.model, 1.0))
    proxy = BrokerProxy(harness.settings.kafka.bootstrap_servers)
    instance = harness.start(
        KAFKA__BOOTSTRAP_SERVERS=proxy.address,
        CONSUMER__HEALTH_PORT=str(probe.port),
        CONSUMER__MEMBERSHIP="dynamic",
        CONSUMER__SESSION_TIMEOUT_MS="2000",
        CONSUMER__TRANSACTION_TIMEOUT_MS="1000",
    )
    probe.wait_until("/readyz", 200)
    instance.wait_for_line("partitions.assigned")
    proxy.go_away()
    instance.wait_for_line("partitions.lost")
    assert probe.wait_until("/readyz", 503)["detail"] == LOST
    assert probe.get("/healthz")[0] == 200
    proxy.heal()
    probe.wait_until("/readyz", 200)
    assert instance.terminate() == 0
    proxy.close()
