"""Health and metrics of a supervisor's slots, as one: what its own port answers.

1. Alive (``/healthz``): the supervisor answers, and no slot was given up. A slot that is down is being
   started again; whoever restarts the whole for that would take the other slots down.
2. Ready (``/readyz``): every slot says of itself that it is. The body tells what each one says, and of
   one without a process how the last one ended, and who has its port where somebody else does.
3. Metrics (``/metrics``): every sample of every slot, with a label ``slot``; the supervisor's own beside
   them. A slot that cannot be asked is left out, and ``modelwire_slot_running`` tells of it.

Each slot has a port of its own on loopback. All are asked at once, and after ``ASK_SECONDS`` the page is
made of what was answered, so that slots that hang neither hide the others nor hold the page up.

All ports are looked at before a slot starts: one that is taken then is a mistake of whoever set them.
``open_port`` is for an instance's own port too; what stands here loads no model runtime.
"""

import errno
import http.client
import json
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from http import HTTPStatus

import psutil
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from adapters.http_port import HttpPort, Page, Reply
from adapters.metrics import Exposition, Kind, Measure, Reading
from consumer.supervisor import LASTING, Slot
from consumer.threads import step_back, thread_of
from schemas.errors import ModelwireError, UsageProblem

ASK_SECONDS = 0.4
"""A slot answers within milliseconds. A probe's own limit is a second, in which it may have to wait for
another one's page first."""

FREE_SECONDS = 2.0
"""How long a slot's port is waited for at the start. The slots of a supervisor that was killed a moment
ago die with it, but a little later."""

LOOK_SECONDS = 0.05

LOOPBACK = "127.0.0.1"

RUNNING = Measure(
    "modelwire_slot_running",
    Kind.GAUGE,
    ("model", "slot"),
    "0 or 1",
    "Whether the slot has a process now.",
)
GIVEN_UP = Measure(
    "modelwire_slot_given_up",
    Kind.GAUGE,
    ("model", "slot"),
    "0 or 1",
    "Whether the supervisor gave the slot up, since a restart does not mend why it ends.",
)
STARTS = Measure(
    "modelwire_slot_starts_total",
    Kind.COUNTER,
    ("model", "slot"),
    "processes",
    "Processes that were started for the slot.",
)
SLOT_MEASURES = (RUNNING, GIVEN_UP, STARTS)


@dataclass(frozen=True, slots=True)
class Said:
    """What a slot answered."""

    status: int
    text: str


class SlotsHealth:
    """``slots`` gives them as they stand, from any thread; ``ports`` is each one's on loopback."""

    def __init__(
        self, model: str, slots: Callable[[], Sequence[Slot]], ports: Mapping[int, int]
    ) -> None:
        self._slots = slots
        self._ports = ports
        self._own = Exposition(lambda: slot_readings(model, slots()))
        self._http: HttpPort | None = None

    def open(self, host: str, port: int) -> None:
        """Answer on this port. Raises UsageProblem where it cannot be had."""
        pages = {
            "/healthz": lambda _accept: _reply(*aliveness(self._slots())),
            "/readyz": lambda _accept: _reply(*self._readiness()),
            "/metrics": self._metrics,
        }
        self._http = open_port(host, port, pages)
        thread_of("health", self._http.serve).start()

    def close(self) -> None:
        """Free the port, if it was opened."""
        if self._http is not None:
            self._http.close()

    def require_ports(self) -> None:
        """Before a slot starts: raises UsageProblem where another process has the port of one."""
        deadline = time.monotonic() + FREE_SECONDS
        for number, port in self._ports.items():
            while holder := holder_of(LOOPBACK, port):
                if time.monotonic() > deadline:
                    raise UsageProblem(
                        f"port {port} of {LOOPBACK}, for health and metrics of slot {number}, "
                        f"is taken by another process: {holder}",
                        hint="end that process, or set another consumer.health_port: the "
                        f"{len(self._ports)} ports above it are the slots'; 0 for none",
                    )
                time.sleep(LOOK_SECONDS)

    def _readiness(self) -> tuple[bool, dict[str, object]]:
        slots = self._slots()
        down = [slot.number for slot in slots if slot.pid is None]
        taken = {number: holder_of(LOOPBACK, self._ports[number]) for number in down}
        reasons = {
            number: f"port {self._ports[number]} of {LOOPBACK} is taken by another process: {holder}"
            for number, holder in taken.items()
            if holder
        }
        return readiness(slots, self._ask("/readyz"), reasons)

    def _metrics(self, accept: str) -> Reply:
        own, _ = self._own.page("")
        page, content_type = merged(own.decode(), self._ask("/metrics"), accept)
        return Reply(HTTPStatus.OK, content_type, page)

    def _ask(self, path: str) -> dict[int, Said]:
        """What each slot that has a process says; one that does not answer is left out."""
        running = [slot.number for slot in self._slots() if slot.pid is not None]
        if not running:
            return {}
        asking = ThreadPoolExecutor(len(running))
        try:
            asked = {number: asking.submit(_get, self._ports[number], path) for number in running}
            answered = wait(asked.values(), ASK_SECONDS).done
        finally:
            asking.shutdown(wait=False, cancel_futures=True)
        said = {number: each.result() for number, each in asked.items() if each in answered}
        return {number: each for number, each in said.items() if each is not None}


def open_port(host: str, port: int, pages: Mapping[str, Page]) -> HttpPort:
    """The port with these pages, not served yet. Raises UsageProblem where it cannot be had."""
    try:
        return HttpPort(host, port, pages, step_back)
    except ModelwireError as error:
        holder = holder_of(host, port)
        whose = f": {holder}" if holder else ""
        raise UsageProblem(f"{error.message}{whose}", hint=error.hint) from error


def holder_of(host: str, port: int) -> str:
    """Who has this port, as far as the system tells; empty where it could be had, or cannot be known."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            # As the server does. It does not listen, so it keeps the port from nobody meanwhile.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        return _listener_on(port) if error.errno == errno.EADDRINUSE else ""
    return ""


def _listener_on(port: int) -> str:
    try:
        for each in psutil.net_connections("tcp"):
            if each.status == psutil.CONN_LISTEN and each.laddr[1:] == (port,) and each.pid:
                return f"process {each.pid} ({psutil.Process(each.pid).name()})"
    except psutil.Error:  # another user's, or gone meanwhile
        pass
    return "one that the system does not name"


def aliveness(slots: Sequence[Slot]) -> tuple[bool, dict[str, object]]:
    """Rule 1, and what to tell."""
    alive = all(slot.given_up is None for slot in slots)
    return alive, {"alive": alive, "slots": {slot.number: _standing(slot) for slot in slots}}


def readiness(
    slots: Sequence[Slot], said: Mapping[int, Said], reasons: Mapping[int, str]
) -> tuple[bool, dict[str, object]]:
    """Rule 2, from what the slots answered, and what to tell; ``reasons`` is why some cannot."""
    told = {
        slot.number: _readiness(slot, said.get(slot.number), reasons.get(slot.number))
        for slot in slots
    }
    ready = all(each["ready"] is True for each in told.values())
    return ready, {"ready": ready, "slots": told}


def slot_readings(model: str, slots: Sequence[Slot]) -> list[Reading]:
    """What the supervisor itself knows of its slots."""

    def by_slot(measure: Measure, value: Callable[[Slot], float]) -> Reading:
        return Reading(measure, {(model, str(slot.number)): value(slot) for slot in slots})

    return [
        by_slot(RUNNING, lambda slot: slot.pid is not None),
        by_slot(GIVEN_UP, lambda slot: slot.given_up is not None),
        by_slot(STARTS, lambda slot: slot.starts),
    ]


def merged(own: str, said: Mapping[int, Said], accept: str) -> tuple[bytes, str]:
    """Rule 3: the page and its content type; ``own`` is the supervisor's page, as text.

    A slot's page that is no page is left out, like a slot that does not answer.
    """
    families: dict[str, Metric] = {}
    _add(families, text_string_to_metric_families(own), {})
    for number, page in sorted(said.items()):
        if page.status == HTTPStatus.OK:
            try:
                found = list(text_string_to_metric_families(page.text))
            except ValueError:
                continue
            _add(families, found, {"slot": str(number)})
    registry = CollectorRegistry()
    registry.register(_Families(families.values()))
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


def _add(families: dict[str, Metric], found: Iterable[Metric], labels: dict[str, str]) -> None:
    for told in found:
        family = families.setdefault(told.name, Metric(told.name, told.documentation, told.type))
        for sample in told.samples:
            family.samples.append(sample._replace(labels={**sample.labels, **labels}))


class _Families(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        yield from self._families


def _standing(slot: Slot) -> dict[str, object]:
    if slot.given_up is not None:
        return {"state": "given up", "exit_code": slot.given_up, "reason": LASTING[slot.given_up]}
    if slot.pid is not None:
        return {"state": "running", "starts": slot.starts}
    ended = slot.last_code
    why = {} if ended not in LASTING else {"exit_code": ended, "reason": LASTING[ended]}
    return {"state": "waiting", "starts": slot.starts, **why}


def _readiness(slot: Slot, said: Said | None, reason: str | None) -> dict[str, object]:
    if said is None:
        why = {} if reason is None else {"reason": reason}
        return {"ready": False, **_standing(slot), **why}
    try:
        told = json.loads(said.text)
    except ValueError:
        told = None
    known = told if isinstance(told, dict) else {"detail": said.text.strip()}
    return {**known, "ready": said.status == HTTPStatus.OK}


def _reply(good: bool, told: Mapping[str, object]) -> Reply:
    status = HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE
    return Reply(status, "application/json", f"{json.dumps(told)}\n".encode())


def _get(port: int, path: str) -> Said | None:
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=ASK_SECONDS)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return Said(response.status, response.read().decode("utf-8", "replace"))
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
