"""What a supervisor's port says of its slots, which are asked on ports of their own."""

import json
import os
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from http import HTTPStatus
from types import MappingProxyType

import pytest
from prometheus_client.parser import text_string_to_metric_families

from adapters.http_port import HttpPort, Reply
from consumer import slot_health
from consumer.slot_health import SlotsHealth
from consumer.supervisor import Slot
from schemas.errors import UsageProblem
from tests.fleet import LIMIT_SECONDS

OPENMETRICS = "application/openmetrics-text; version=1.0.0"

PAGE = """\
# HELP answers_total Answers.
# TYPE answers_total counter
answers_total{model="sales",version="1"} %d.0
# HELP score_seconds Seconds.
# TYPE score_seconds histogram
score_seconds_bucket{le="0.1"} %d.0
score_seconds_bucket{le="+Inf"} 9.0
score_seconds_count 9.0
score_seconds_sum 1.5
"""


def slot_page(number: int, *, ready: bool = True) -> dict[str, Reply]:
    """What a slot answers on its port."""
    status = HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE
    told = {"ready": ready, "phase": "ready" if ready else "waiting", "detail": "no champion yet"}
    return {
        "/readyz": Reply(status, "application/json", json.dumps(told).encode()),
        "/metrics": Reply(HTTPStatus.OK, "text/plain", (PAGE % (number, number)).encode()),
    }


@contextmanager
def served(replies: dict[str, Reply]) -> Iterator[int]:
    """These replies on a port of their own."""
    pages = {path: lambda _accept, reply=reply: reply for path, reply in replies.items()}
    port = HttpPort("127.0.0.1", 0, pages, lambda: None)
    threading.Thread(target=port.serve, daemon=True).start()
    try:
        yield port.port
    finally:
        port.close()


def free_port() -> int:
    """A port that nobody has now."""
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


class Asked:
    """A supervisor's port over these slots, and what it answers."""

    def __init__(
        self,
        stack: ExitStack,
        slots: list[Slot],
        pages: dict[int, dict[str, Reply]],
        ports: Mapping[int, int] = MappingProxyType({}),
    ) -> None:
        """``ports`` are those of slots without ``pages``; who is in neither does not answer."""
        ours = {number: stack.enter_context(served(replies)) for number, replies in pages.items()}
        ports = {**ports, **ours}
        absent = {slot.number: free_port() for slot in slots if slot.number not in ports}
        health = SlotsHealth("sales", lambda: slots, ports | absent)
        self._port = free_port()
        health.open("127.0.0.1", self._port)
        stack.callback(health.close)

    def get(self, path: str, accept: str = "") -> tuple[int, str]:
        """The status and the body."""
        request = urllib.request.Request(f"http://127.0.0.1:{self._port}{path}")
        request.add_header("Accept", accept)
        try:
            with urllib.request.urlopen(request, timeout=LIMIT_SECONDS) as reply:
                return reply.status, reply.read().decode()
        except urllib.error.HTTPError as refused:
            return refused.code, refused.read().decode()


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """What is opened by a test, closed at its end."""
    with ExitStack() as opened:
        yield opened


def test_ready_is_when_every_slot_says_so(stack: ExitStack) -> None:
    """The body holds what each one says of itself."""
    slots = [Slot(4, pid=1, starts=1), Slot(5, pid=2, starts=1)]
    asked = Asked(stack, slots, {4: slot_page(4), 5: slot_page(5)})
    status, body = asked.get("/readyz")
    assert status == 200
    assert {number: told["phase"] for number, told in json.loads(body)["slots"].items()} == {
        "4": "ready",
        "5": "ready",
    }


def test_one_slot_that_is_not_ready_is_named(stack: ExitStack) -> None:
    """One that waits says why; one without a process, or that does not answer, is told of."""
    slots = [Slot(0, pid=1), Slot(1, pid=2), Slot(2, starts_at=9.0, starts=3), Slot(3, pid=4)]
    asked = Asked(stack, slots, {0: slot_page(0), 1: slot_page(1, ready=False)})
    status, body = asked.get("/readyz")
    told = json.loads(body)
    assert (status, told["ready"]) == (503, False)
    assert {number: each["ready"] for number, each in told["slots"].items()} == {
        "0": True,
        "1": False,
        "2": False,
        "3": False,
    }
    assert told["slots"]["1"]["detail"] == "no champion yet"
    assert told["slots"]["2"] == {"ready": False, "state": "waiting", "starts": 3}


def test_a_slot_whose_port_was_taken_says_so(stack: ExitStack) -> None:
    """Its processes end with 2 before they can answer; the supervisor looks who has the port."""
    server = stack.enter_context(socket.socket())
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # keeps the port from nobody yet
    server.bind(("127.0.0.1", 0))
    port = server.getsockname()[1]
    slots = [Slot(0, starts_at=9.0, last_code=2), Slot(1, starts_at=9.0, last_code=5)]
    asked = Asked(stack, slots, {}, {0: port})
    told = json.loads(asked.get("/readyz")[1])["slots"]["0"]
    assert (told["exit_code"], told["reason"]) == (2, "its command or its settings are not usable")
    server.listen()
    told = json.loads(asked.get("/readyz")[1])["slots"]
    assert f"port {port} of 127.0.0.1 is taken by another process" in told["0"]["reason"]
    assert f"process {os.getpid()} " in told["0"]["reason"]
    assert told["1"]["reason"].startswith("another process has its slot")


def test_a_port_of_a_slot_that_is_taken_is_told_at_the_start(
    stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its number, and who has it."""
    monkeypatch.setattr(slot_health, "FREE_SECONDS", 0.1)
    taken = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    port = taken.getsockname()[1]
    health = SlotsHealth("sales", list, {0: free_port(), 1: port})
    with pytest.raises(UsageProblem) as error:
        health.require_ports()
    assert f"port {port} of 127.0.0.1, for health and metrics of slot 1" in error.value.message
    assert f"process {os.getpid()} " in error.value.message
    assert "set another consumer.health_port: the 2 ports above it" in error.value.hint


def test_the_port_of_a_slot_that_is_just_ending_is_waited_for(
    stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That of a supervisor that was killed a moment ago."""
    monkeypatch.setattr(slot_health, "FREE_SECONDS", 10.0)
    taken = socket.create_server(("127.0.0.1", 0))
    ending = threading.Timer(0.2, taken.close)
    ending.start()
    stack.callback(ending.join)
    SlotsHealth("sales", list, {0: taken.getsockname()[1]}).require_ports()


def test_a_slot_that_is_down_leaves_the_supervisor_alive(stack: ExitStack) -> None:
    """It is being started again; a slot that was given up needs somebody, and says for what."""
    slots = [Slot(0, pid=1), Slot(1, starts_at=9.0)]
    asked = Asked(stack, slots, {})
    assert asked.get("/healthz")[0] == 200
    slots[1] = Slot(1, given_up=4)
    status, body = asked.get("/healthz")
    told = json.loads(body)["slots"]["1"]
    assert (status, told["exit_code"]) == (503, 4)
    assert "does not exist" in told["reason"]


def test_all_slots_are_asked_at_once(stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many: each answers only once every other one was asked too."""
    slots = [Slot(number, pid=1) for number in range(40)]
    server = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=len(slots)))
    server.settimeout(LIMIT_SECONDS)

    def answer() -> None:
        with ExitStack() as opened, suppress(TimeoutError):
            asking = [opened.enter_context(server.accept()[0]) for _ in slots]
            for connection in asking:
                connection.recv(1_000)
                connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n{}")

    answering = threading.Thread(target=answer)
    answering.start()
    stack.callback(answering.join)
    ports = {slot.number: server.getsockname()[1] for slot in slots}
    monkeypatch.setattr(slot_health, "ASK_SECONDS", 5.0)
    assert Asked(stack, slots, {}, ports).get("/readyz")[0] == 200


def test_a_slot_that_hangs_holds_no_page_up(
    stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even one that drips bytes is left out after the limit, and what the others say is told."""
    monkeypatch.setattr(slot_health, "ASK_SECONDS", 0.5)
    ended = threading.Event()
    dripping = stack.enter_context(socket.create_server(("127.0.0.1", 0)))

    def drip() -> None:
        connection = dripping.accept()[0]
        with connection, suppress(OSError):
            for _ in range(200):
                connection.sendall(b"H")
                if ended.wait(0.05):
                    return
        ended.set()

    dripper = threading.Thread(target=drip)
    dripper.start()
    stack.callback(dripper.join)
    stack.callback(ended.set)
    slots = [Slot(0, pid=1), Slot(1, pid=2, starts=1)]
    asked = Asked(stack, slots, {0: slot_page(0)}, {1: dripping.getsockname()[1]})
    told = json.loads(asked.get("/readyz")[1])["slots"]
    assert not ended.is_set()
    assert (told["0"]["ready"], told["1"]["ready"]) == (True, False)


@pytest.mark.parametrize("accept", ["", OPENMETRICS])
def test_the_slots_metrics_are_one_page(stack: ExitStack, accept: str) -> None:
    """Each family stands once, with every slot's samples; what is no page is left out."""
    broken = {"/metrics": Reply(HTTPStatus.OK, "text/plain", b"{no page")}
    failed = {"/metrics": Reply(HTTPStatus.INTERNAL_SERVER_ERROR, "text/plain", b"a 1\n")}
    slots = [Slot(n, pid=n, starts=n) for n in range(1, 6)]
    pages = {1: slot_page(1), 2: slot_page(2), 3: broken, 4: failed}
    status, page = Asked(stack, slots, pages).get("/metrics", accept)
    assert status == 200
    assert page.count("# TYPE answers") == page.count("# TYPE score_seconds histogram") == 1
    assert page.endswith("# EOF\n") == (accept == OPENMETRICS)
    samples = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(page.removesuffix("# EOF\n"))
        for sample in family.samples
    }
    assert samples["answers_total", "1", "1", "sales"] == 1.0
    assert samples["answers_total", "1", "2", "sales"] == 2.0
    assert samples["score_seconds_bucket", "0.1", "2"] == 2.0
    assert samples["score_seconds_sum", "2"] == 1.5
    assert samples["modelwire_slot_running", "5", "sales"] == 1.0
    assert samples["modelwire_slot_starts_total", "3", "sales"] == 3.0
    assert samples["modelwire_slot_given_up", "3", "sales"] == 0.0
    assert samples["process_resident_memory_bytes",] > 0
