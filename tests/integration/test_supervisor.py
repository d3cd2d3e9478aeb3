"""``modelwire consume --workers``: real slots on a real broker, killed, stopped, started again."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from urllib.error import HTTPError
from urllib.request import urlopen

import psutil
import pytest
from confluent_kafka.admin import AdminClient
from prometheus_client.parser import text_string_to_metric_families

from adapters.kafka import client_config
from consumer.supervisor import LASTING
from schemas.errors import NotFound
from tests.bundles import store_bundle
from tests.fleet import LIMIT_SECONDS, Harness, Instance, environment_of, wait_for

pytestmark = pytest.mark.stack


def start(harness: Harness, workers: int, first: int = 0, **settings: str) -> Instance:
    """A supervisor of so many slots."""
    harness.release(store_bundle(harness.store, harness.model, 3.0))
    return harness.start(first, "--workers", str(workers), **settings)


def pid_of(supervisor: Instance, slot: int) -> int:
    """The slot's newest process."""
    started = [line for line in supervisor.lines("slot.started") if line["slot"] == slot]
    return int(started[-1]["pid"])


def are_gone(pids: list[int]) -> Callable[[], bool]:
    """Whether none of the processes runs any more."""

    def is_gone(pid: int) -> bool:
        try:
            return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True

    return lambda: all(is_gone(pid) for pid in pids)


def free_ports(count: int) -> int:
    """The first of so many ports, one after the other, that nobody has now."""

    def look() -> int | None:
        with ExitStack() as taken:
            server = taken.enter_context(socket.create_server(("127.0.0.1", 0)))
            first = int(server.getsockname()[1])
            try:
                for port in range(first + 1, first + count):
                    taken.enter_context(socket.create_server(("127.0.0.1", port)))
            except (OSError, OverflowError):
                return None
            return first

    return wait_for("free ports", look)


def get(port: int, path: str) -> tuple[int, str]:
    """The status and the body of a page."""
    try:
        with urlopen(f"http://127.0.0.1:{port}{path}", timeout=LIMIT_SECONDS) as reply:
            return reply.status, reply.read().decode()
    except HTTPError as refused:
        return refused.code, refused.read().decode()


def by_slot(page: str, metric: str) -> dict[str, float]:
    """The sum of a metric's samples for each slot."""
    sums: Counter[str] = Counter()
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            if sample.name == metric:
                sums[sample.labels["slot"]] += sample.value
    return dict(sums)


def test_a_killed_slot_is_back_and_a_stop_stops_all(harness: Harness) -> None:
    """Killed under load it starts again at once, each request has its one answer; SIGTERM ends in 0.

    Its health port tells of both slots all along.
    """
    port = free_ports(3)
    supervisor = start(harness, 2, first=4, CONSUMER__HEALTH_PORT=str(port))
    harness.wait_until_ready(2)
    wait_for("both ready", lambda: get(port, "/readyz")[0] == 200)
    assert json.loads(get(port, "/readyz")[1])["slots"].keys() == {"4", "5"}
    named = {sighting.status.instance for sighting in harness.fleet()}
    assert named == {f"modelwire-{harness.model}-{slot}" for slot in (4, 5)}
    with harness.stream(200) as stream:
        wait_for("requests", lambda: stream.sent > 100)
        killed = pid_of(supervisor, 5)
        os.kill(killed, signal.SIGKILL)
        [ended] = wait_for("the end heard of", lambda: supervisor.lines("slot.ended"))
        assert (ended["slot"], ended["pid"], ended["signal"]) == (5, killed, "SIGKILL")
        assert ended["starts_in_seconds"] == 0
        wait_for("another process", lambda: pid_of(supervisor, 5) != killed)
        after = stream.sent
        wait_for("more requests", lambda: stream.sent > after + 300)
    report = harness.verify()
    assert report.clean, report.findings
    assert report.forecasts == stream.sent
    wait_for("both ready again", lambda: get(port, "/readyz")[0] == 200)
    assert get(port, "/healthz")[0] == 200
    page = get(port, "/metrics")[1]
    assert by_slot(page, "modelwire_slot_starts_total") == {"4": 1, "5": 2}
    assert by_slot(page, "modelwire_ready") == {"4": 1, "5": 1}
    answers = by_slot(page, "modelwire_answers_total")
    assert 0 < sum(answers.values()) <= stream.sent  # without those of the process that was killed
    slots = [pid_of(supervisor, slot) for slot in (4, 5)]
    assert supervisor.terminate() == 0
    assert are_gone(slots)()
    codes = [line.get("exit_code") for line in supervisor.lines("slot.ended")]
    assert codes == [None, 0, 0]
    assert supervisor.lines("supervisor.stop")[0]["exit_code"] == 0


def test_no_slot_outlives_a_killed_supervisor(harness: Harness) -> None:
    """Its slots die with it, one at work as well as one that has only just begun to start."""
    supervisor = start(harness, 2)
    wait_for("two slots", lambda: len(supervisor.lines("consumer.start")) == 2)
    young = pid_of(supervisor, 1)
    os.kill(young, signal.SIGKILL)
    wait_for("a young one", lambda: pid_of(supervisor, 1) != young)
    slots = [pid_of(supervisor, slot) for slot in (0, 1)]
    supervisor.kill()
    wait_for("their end", are_gone(slots))
    said = harness.run("consume", "--model", harness.model, "--supervisor", "999999999", code=1)
    assert "the supervisor of this slot (process 999999999) is gone" in said


def test_a_slot_that_cannot_start_ends_the_supervisor(harness: Harness) -> None:
    """With the slot's own code, and a line that says why, where a restart would not mend it."""
    harness.model = "unknown-model"
    unknown = harness.start(0, "--workers", "2")
    astray = harness.start(0, "--workers", "1", KAFKA__BOOTSTRAP_SERVERS="")
    assert (unknown.wait_for_exit(), astray.wait_for_exit()) == (4, 2)
    for supervisor, slots, code in ((unknown, {0, 1}, 4), (astray, {0}, 2)):
        lines = supervisor.lines("slot.given_up")
        assert {line["slot"] for line in lines} == slots
        assert {(line["exit_code"], line["reason"]) for line in lines} == {(code, LASTING[code])}
        assert supervisor.lines("supervisor.stop")[0]["exit_code"] == code
    assert "modelwire topics create" in unknown.text
    assert "no Kafka broker is named" in astray.text


def test_a_slot_that_has_worked_is_not_given_up_at_once(harness: Harness) -> None:
    """Killed and back, it finds no topic, as where a broker is only just back: it tries again."""
    supervisor = start(harness, 1)
    harness.wait_until_ready()
    admin = AdminClient(client_config(harness.settings))
    admin.delete_topics([harness.topics.fleet])[harness.topics.fleet].result(LIMIT_SECONDS)
    os.kill(pid_of(supervisor, 0), signal.SIGKILL)
    wait_for("one more start", lambda: len(supervisor.lines("slot.started")) == 3)
    codes = [line.get("exit_code") for line in supervisor.lines("slot.ended")]
    assert codes == [None, NotFound.exit_code]


@pytest.mark.parametrize(
    ("arguments", "port", "said"),
    [
        (["--slot", "9998", "--workers", "3"], "0", "goes beyond the last slot, 9999"),
        (["--workers", "6"], "65530", "up to 65536"),
        (["--workers", "0"], "0", "0 is not in the range"),
    ],
)
def test_what_it_has_no_numbers_for_is_refused(
    harness: Harness, monkeypatch: pytest.MonkeyPatch, arguments: list[str], port: str, said: str
) -> None:
    """Slots and ports beyond their ends are the caller's mistake: exit code 2 before anything starts."""
    monkeypatch.setitem(harness._environment, "MODELWIRE_CONSUMER__HEALTH_PORT", port)
    assert said in harness.run("consume", "--model", "m", *arguments, code=2)


def test_a_port_that_is_taken_ends_it_before_a_slot_starts(harness: Harness) -> None:
    """Its own, or that of one of its slots: exit code 2, and the port and its holder are named."""
    first = free_ports(3)
    for taken in (first, first + 2):
        with socket.create_server(("127.0.0.1", taken)):
            supervisor = harness.start(0, "--workers", "2", CONSUMER__HEALTH_PORT=str(first))
            assert supervisor.wait_for_exit() == 2
        assert f"port {taken} of 127.0.0.1" in supervisor.text
        assert f"process {os.getpid()} " in supervisor.text
        assert supervisor.lines("consumer.failed")[0]["exit_code"] == 2
        assert not supervisor.lines("slot.started")


def test_two_supervisors_of_one_slot_take_it_ever_more_slowly(harness: Harness) -> None:
    """Each end with 5 is one more of its row, also after seconds at work, and waits longer."""
    supervisors = [start(harness, 1)]
    harness.wait_until_ready()
    supervisors.append(harness.start(0, "--workers", "1"))

    def taken_from(supervisor: Instance) -> list[int]:
        lines = supervisor.lines("slot.ended")
        return [line["taken_ends"] for line in lines if line.get("exit_code") == 5]

    wait_for("three ends of either", lambda: all(len(taken_from(s)) > 2 for s in supervisors))
    for supervisor in supervisors:
        rows = taken_from(supervisor)
        assert rows == list(range(1, len(rows) + 1))
        lines = [line for line in supervisor.lines("slot.ended") if line.get("exit_code") == 5]
        assert lines[0]["starts_in_seconds"] == 0
        assert lines[2]["starts_in_seconds"] > lines[1]["starts_in_seconds"] > 0
        assert lines[2]["starts_in_seconds"] > 0.7
    assert "Traceback" not in supervisors[0].text


def test_a_second_signal_does_not_wait_for_a_slot_that_hangs(harness: Harness) -> None:
    """The slot is killed, and the code says that the end was not awaited."""
    supervisor = start(harness, 1)
    supervisor.wait_for_line("consumer.start")
    slot = pid_of(supervisor, 0)
    os.kill(slot, signal.SIGSTOP)

    def ask_again() -> bool:
        supervisor.process.send_signal(signal.SIGINT)
        return supervisor.process.poll() is not None

    wait_for("the end", ask_again)
    assert supervisor.process.returncode == 130
    assert are_gone([slot])()
    passed_on = [line["signal"] for line in supervisor.lines("supervisor.stopping")]
    assert passed_on == ["SIGTERM", "SIGKILL"]


def test_a_child_that_it_did_not_start_is_reaped(harness: Harness) -> None:
    """Process 1 of a container inherits such children; each would stay a zombie for ever."""
    consume = ["-m", "modelwire", "consume", "--model", harness.model, "--workers", "1"]
    supervisor = subprocess.Popen(
        ["sh", "-c", 'sleep 0.1 & exec "$@"', "sh", sys.executable, *consume],
        env=environment_of(harness.settings),
        stderr=subprocess.DEVNULL,
    )
    try:
        of_supervisor = psutil.Process(supervisor.pid)
        [inherited] = wait_for("the child of the shell", of_supervisor.children)

        def only_the_slot() -> bool:
            children = of_supervisor.children()
            return len(children) == 1 and inherited not in children

        wait_for("the slot, and nothing else", only_the_slot)
    finally:
        supervisor.kill()
        supervisor.wait()
