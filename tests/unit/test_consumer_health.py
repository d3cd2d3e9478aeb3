"""What alive and ready mean, the port that tells it, and the summaries."""

import http.client
import json
import os
import socket
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from http import HTTPStatus

import pytest
from structlog.testing import capture_logs

from adapters import http_port
from adapters.http_port import MOST_CONNECTIONS, HttpPort, Page, Reply
from adapters.request_stream import Committed
from adapters.settings import Consumer
from consumer import health as shipped
from consumer.health import LOST, Health, Place, Pulse
from consumer.summary import Summary, summary_of
from consumer.vitals import Vitals, alive, ready
from schemas.errors import UsageProblem
from schemas.fleet import Phase
from schemas.forecast import Variant
from tests.fleet import LIMIT_SECONDS, wait_for
from tests.unit.example_vitals import WHO, vitals

HOST = "127.0.0.1"


# --- what it means


@pytest.mark.parametrize(
    ("seen", "loop_seconds", "says"),
    [
        pytest.param(vitals(), 29.9, None, id="answers"),
        pytest.param(vitals(phase=Phase.WAITING, detail="no champion"), 0.0, None, id="waits"),
        pytest.param(None, 1_000.0, None, id="starts"),
        pytest.param(vitals(), 30.1, "the main loop has not come round for 30.1 s", id="hangs"),
        pytest.param(vitals(missing_threads=("loader",)), 0.0, "died: loader", id="lost a thread"),
    ],
)
def test_an_instance_is_alive_while_it_does_its_work(
    seen: Vitals | None, loop_seconds: float, says: str | None
) -> None:
    """Whatever it waits for; not when its loop stands still or a thread is missing."""
    verdict = alive(seen, loop_seconds, 30.0)
    assert verdict.good is (says is None)
    assert (says or "") in str(verdict.told.get("reason", ""))


@pytest.mark.parametrize(
    ("seen", "loop_seconds", "told"),
    [
        pytest.param(vitals(), 0.0, (True, "ready", ""), id="answers"),
        pytest.param(
            vitals(phase=Phase.WAITING, detail="no champion", joined=False),
            0.0,
            (False, "waiting", "no champion"),
            id="waits",
        ),
        pytest.param(
            vitals(detail="answers nothing: 2 was revoked"),
            0.0,
            (False, "ready", "answers nothing: 2 was revoked"),
            id="holds",
        ),
        pytest.param(vitals(joined=False), 0.0, (False, "ready", ""), id="no member"),
        pytest.param(vitals(phase=Phase.LEAVING), 0.0, (False, "leaving", ""), id="leaves"),
        pytest.param(
            None, 0.0, (False, "starting", "its parts are being put together"), id="starts"
        ),
        pytest.param(
            vitals(),
            31.0,
            (False, "ready", "the main loop has not come round for 31.0 s; 30 s are allowed"),
            id="hangs",
        ),
    ],
)
def test_an_instance_is_ready_while_it_may_take_traffic(
    seen: Vitals | None, loop_seconds: float, told: tuple[bool, str, str]
) -> None:
    """Alive, in the group and answering; else the phase and why."""
    verdict = ready(seen, alive(seen, loop_seconds, 30.0))
    good, phase, detail = told
    assert verdict.good is good
    assert verdict.told == {"ready": good, "phase": phase, "detail": detail}


class Heard:
    """A stream's listener that remembers what it heard."""

    def __init__(self) -> None:
        self.said: list[tuple[str, list[int]]] = []

    def assigned(self, found: Mapping[int, Committed]) -> Collection[int]:
        """Says that the first of them waits."""
        self.said.append(("assigned", sorted(found)))
        return sorted(found)[:1]

    def revoked(self, partitions: Collection[int]) -> None:
        """Remembers them."""
        self.said.append(("revoked", sorted(partitions)))

    def lost(self, partitions: Collection[int]) -> None:
        """Remembers them."""
        self.said.append(("lost", sorted(partitions)))


def test_a_place_is_lost_with_the_last_partition_and_back_with_the_first() -> None:
    """What is revoked was given up in order; everything is passed on."""
    heard = Heard()
    place = Place(heard)
    found = {each: Committed(0, "") for each in range(3)}
    assert place.assigned(found) == [0]
    place.revoked([0])
    place.lost([1])
    assert not place.is_lost
    place.lost([2])
    assert place.is_lost
    place.assigned({})
    assert place.is_lost
    place.assigned({2: Committed(0, "")})
    assert not place.is_lost
    place.revoked([2])
    place.lost([])
    assert not place.is_lost
    assert [what for what, _ in heard.said] == [
        *("assigned", "revoked", "lost", "lost", "assigned", "assigned", "revoked", "lost")
    ]


def test_a_call_that_is_repeated_beats_the_pulse(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the broker is away the loop stands in one call: it tries, so it lives."""
    now = [100.0]
    monkeypatch.setattr(shipped.time, "monotonic", lambda: now[0])
    pulse = Pulse()
    give_up = pulse.beating(lambda: False)
    now[0] += 40
    assert pulse.seconds == 40
    assert give_up() is False
    assert pulse.seconds == 0


# --- the port


def plain(text: str) -> Page:
    """A page that is always the same."""
    return lambda _accept: Reply(HTTPStatus.OK, "text/plain", text.encode())


@contextmanager
def serving(**pages: Page) -> Iterator[int]:
    """A port with these pages; gives its number."""
    opened = HttpPort(HOST, 0, {f"/{name}": page for name, page in pages.items()}, lambda: None)
    thread = threading.Thread(target=opened.serve)
    thread.start()
    try:
        yield opened.port
    finally:
        opened.close()
        thread.join()


def ask(port: int, path: str, method: str = "GET", accept: str = "") -> tuple[int, str]:
    """The status and the content."""
    connection = http.client.HTTPConnection(HOST, port, timeout=LIMIT_SECONDS)
    try:
        connection.request(method, path, headers={"Accept": accept})
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def test_only_reading_is_answered() -> None:
    """GET with the page, HEAD without; the rest is refused, and an unknown path tells the known ones."""
    with serving(healthz=plain("well")) as port:
        assert ask(port, "/healthz") == ask(port, "/healthz?verbose=1") == (200, "well")
        with socket.create_connection((HOST, port)) as reader, reader.makefile("rb") as said:
            reader.sendall(b"HEAD /healthz HTTP/1.0\r\n\r\n")
            head = said.read()
        assert head.startswith(b"HTTP/1.0 200 ")
        assert head.endswith(b"\r\n\r\n")
        for method in ("POST", "PUT", "DELETE", "PATCH"):
            assert ask(port, "/healthz", method) == (405, "only GET and HEAD are answered\n")
        assert ask(port, "/elsewhere") == (404, "there is /healthz\n")
        with socket.create_connection((HOST, port)) as rude:
            rude.sendall(b"nonsense\r\n\r\n")
            assert b"400" in rude.recv(1_000)


def test_a_page_that_fails_is_told_and_the_port_goes_on() -> None:
    """500 without what went wrong, which stands in a log line."""

    def fail(_accept: str) -> Reply:
        raise ValueError("a secret")

    with capture_logs() as lines, serving(metrics=fail, healthz=plain("well")) as port:
        status, text = ask(port, "/metrics?token=secret")
        assert (status, "secret" in text) == (500, False)
        assert ask(port, "/healthz") == (200, "well")
    assert [(line["event"], line["path"]) for line in lines] == [("health.page_failed", "/metrics")]


def test_a_page_waits_for_no_other() -> None:
    """Of one page one is made at a time; a probe of another is answered meanwhile."""
    begun, go_on = threading.Semaphore(0), threading.Event()

    def slow(_accept: str) -> Reply:
        begun.release()
        assert go_on.wait(LIMIT_SECONDS)
        return Reply(HTTPStatus.OK, "text/plain", b"slow")

    with ThreadPoolExecutor(2) as scrapers, serving(metrics=slow, healthz=plain("well")) as port:
        scrapes = [scrapers.submit(ask, port, "/metrics") for _ in range(2)]
        try:
            assert begun.acquire(timeout=LIMIT_SECONDS)
            assert ask(port, "/healthz") == (200, "well")
            assert not begun.acquire(blocking=False)
        finally:
            go_on.set()
        assert [scrape.result(LIMIT_SECONDS) for scrape in scrapes] == [(200, "slow")] * 2


def test_who_connects_and_says_nothing_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others are answered meanwhile; who comes beyond the most connections is hung up on at once."""
    monkeypatch.setattr(http_port._Handler, "timeout", 60)
    monkeypatch.setattr(http_port, "LONGEST_SECONDS", 60)
    with serving(healthz=plain("well")) as port, ExitStack() as stack:
        silent = [_connect(stack, port) for _ in range(MOST_CONNECTIONS - 1)]
        assert ask(port, "/healthz") == (200, "well")
        silent += [_connect(stack, port) for _ in range(2)]
        wait_for("the end of one too many", lambda: any(map(_is_hung_up, silent)))
        stack.close()
        wait_for("a free place", lambda: _answered(port))


def _connect(stack: ExitStack, port: int) -> socket.socket:
    return stack.enter_context(socket.create_connection((HOST, port)))


def _is_hung_up(connection: socket.socket) -> bool:
    connection.settimeout(0.2)
    try:
        return connection.recv(1) == b""
    except TimeoutError:
        return False


def _answered(port: int) -> bool:
    try:
        return ask(port, "/healthz") == (200, "well")
    except (OSError, http.client.HTTPException):
        return False


def test_who_trickles_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte now and then renews the wait for the next one, and not the connection's whole time."""
    monkeypatch.setattr(http_port, "LONGEST_SECONDS", 0.3)
    with serving(healthz=plain("well")) as port, socket.create_connection((HOST, port)) as slow:
        slow.settimeout(0.05)

        def ended() -> bool:
            try:
                slow.sendall(b"G")
                return slow.recv(1) == b""
            except TimeoutError:
                return False
            except OSError:
                return True

        wait_for("the end", ended)


@pytest.mark.parametrize(
    ("host", "says", "hint"),
    [
        (HOST, "is taken by another process", "health_port"),
        ("192.0.2.1", "cannot be opened", "health_host"),
    ],
)
def test_a_port_that_cannot_be_had_is_an_error_that_names_it(
    host: str, says: str, hint: str
) -> None:
    """At the start, before anything else; and what to do."""
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageProblem, match=says) as error:
            Health(Consumer(health_port=port, health_host=host))
    assert f"port {port} of {host}" in error.value.message
    assert (f"process {os.getpid()} " in error.value.message) == (host == HOST)
    assert hint in (error.value.hint or "")


# --- health as a whole


@contextmanager
def healthy(read: Callable[[], Vitals] | None, **settings: object) -> Iterator[tuple[Health, int]]:
    """Health with a free port, and the port; ``read`` None: nothing to watch yet."""
    with socket.create_server((HOST, 0)) as free:
        port = free.getsockname()[1]
    health = Health(Consumer.model_validate({"health_port": port, **settings}))
    try:
        if read is not None:
            health.watch(WHO, read)
        yield health, port
    finally:
        health.stop()


def test_before_its_parts_stand_an_instance_is_alive_and_not_ready() -> None:
    """A start that waits for its broker is no dead process; its page has no figures yet."""
    with healthy(None) as (_, port):
        assert ask(port, "/healthz")[0] == 200
        status, text = ask(port, "/readyz")
        assert (status, json.loads(text)["phase"]) == (503, "starting")
        status, text = ask(port, "/metrics")
        assert (status, "modelwire_" in text, "process_cpu" in text) == (200, False, True)


def test_the_port_tells_the_vitals_of_the_moment() -> None:
    """Each page is made when it is asked for."""
    seen = [vitals()]
    with healthy(lambda: seen[-1]) as (_, port):
        assert ask(port, "/readyz")[0] == 200
        assert 'modelwire_ready{model="sales"} 1.0' in ask(port, "/metrics")[1]
        seen.append(vitals(phase=Phase.WAITING, detail="no champion", missing_threads=("shadow",)))
        assert ask(port, "/readyz")[0] == 503
        status, text = ask(port, "/healthz")
        assert (status, json.loads(text)["reason"]) == (503, "threads that died: shadow")
        assert 'modelwire_ready{model="sales"} 0.0' in ask(port, "/metrics")[1]
        assert ask(port, "/metrics", accept="application/openmetrics-text")[1].endswith("# EOF\n")


def test_who_lost_its_place_is_not_ready_until_partitions_come() -> None:
    """The loop goes on and the phase stays; what the page and the figures say is the same."""
    place = Place(Heard())
    with healthy(None) as (health, port):
        health.watch(WHO, vitals, place)
        place.assigned({0: Committed(0, "")})
        assert ask(port, "/readyz")[0] == 200
        place.lost([0])
        status, text = ask(port, "/readyz")
        assert status == 503
        assert json.loads(text) == {"ready": False, "phase": "ready", "detail": LOST}
        assert 'modelwire_ready{model="sales"} 0.0' in ask(port, "/metrics")[1]
        assert ask(port, "/healthz")[0] == 200
        place.assigned({0: Committed(0, "")})
        assert ask(port, "/readyz")[0] == 200


@pytest.mark.parametrize(("score_timeout_ms", "seconds"), [(500, 30.5), (60_000, 70.5)])
def test_a_loop_that_stands_still_is_told_though_the_port_answers(
    monkeypatch: pytest.MonkeyPatch, score_timeout_ms: int, seconds: float
) -> None:
    """After 30 s, or as long as one batch may take and a little more; the next turn mends it."""
    monkeypatch.setattr(Pulse, "seconds", seconds - 1)
    with healthy(vitals, score_timeout_ms=score_timeout_ms) as (_, port):
        assert ask(port, "/healthz")[0] == 200
        monkeypatch.setattr(Pulse, "seconds", seconds)
        assert ask(port, "/healthz")[0] == 503
        assert ask(port, "/readyz")[0] == 503


def test_without_a_port_there_are_only_summaries() -> None:
    """0 opens nothing; the last summary is written at the stop."""
    health = Health(Consumer(health_port=0))
    assert health.port is None
    with capture_logs() as lines:
        health.watch(WHO, vitals)
        health.stop()
    assert [line["event"] for line in lines] == ["consumer.summary"]


# --- summaries


def test_summaries_add_up_to_what_was_answered() -> None:
    """Every line tells of its own seconds, also of a version that came in between."""
    steps = [
        vitals(forecasts={}, rejections={}, aborted=0),
        vitals(forecasts={(2, Variant.CHAMPION): 10}, rejections={"empty": 1}, aborted=0),
        vitals(
            forecasts={(2, Variant.CHAMPION): 10, (3, Variant.CHAMPION): 5},
            rejections={"empty": 3, "not-json": 1},
            aborted=2,
        ),
    ]
    told = iter(steps)
    written = threading.Event()

    def read() -> Vitals:
        try:
            return next(told)
        except StopIteration:
            written.set()
            return steps[-1]

    with capture_logs() as lines:
        summary = Summary(read, 0.001)
        summary.start()
        assert written.wait(LIMIT_SECONDS)
        summary.stop()
    assert [line["answered"] for line in lines[:4]] == [0, 10, 5, 0]
    assert [line["rejected"] for line in lines[:4]] == [
        {},
        {"empty": 1},
        {"empty": 2, "not-json": 1},
        {},
    ]
    assert [line["aborted"] for line in lines[:4]] == [0, 0, 2, 0]


def test_a_summary_tells_figures_that_people_read() -> None:
    """Rates a second, milliseconds of a batch, mebibytes; None where nothing was scored."""
    line = summary_of(None, vitals(), 10.0)
    assert (line["rate"], line["answered"], line["rejected"]) == (10.4, 100, {"not-json": 4})
    assert (line["batches"], line["score_ms_mean"], line["resident_mb"]) == (2, 4.0, 150.0)
    assert (line["lag"], line["revision"], line["read_revision"]) == (12, 7, 9)
    idle = summary_of(vitals(), vitals(), 10.0)
    assert (idle["answered"], idle["rejected"], idle["batches"]) == (0, {}, 0)
    assert (idle["score_ms_mean"], idle["score_ms_p99"]) == (None, None)
