"""The edge to whoever probes and scrapes: a small HTTP server for a few pages that are only read.

1. GET and HEAD of a known path are answered, each connection once; the rest is refused with a sentence.
2. It is bounded: at most ``MOST_CONNECTIONS`` at once, each for at most ``LONGEST_SECONDS``, whatever
   the other end does. Who comes beyond that is hung up on. A page is made for one at a time, and none
   waits for another page: a liveness probe must not for a scrape.
3. A page that fails is answered with 500 and told in a log line; nothing in here ends the process.

It serves on the thread that calls ``serve`` and one more a connection; ``on_thread`` is called on each of
those first. What the pages say is not for here.
"""

import errno
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from socketserver import BaseServer, TCPServer, ThreadingMixIn
from typing import Any

import structlog

from schemas.errors import ModelwireError

MOST_CONNECTIONS = 16
"""Two probes and a few scrapers need no more."""

LONGEST_SECONDS = 5.0
"""From a connection's begin to its end. A probe's own limit is a second or so."""

READ_SECONDS = 2.0
"""For the next bytes of a request to come, or of a reply to leave."""

LOOK_SECONDS = 0.2
"""Between two looks for connections that take too long; also how long ``close`` may take."""

log = structlog.get_logger()


@dataclass(frozen=True)
class Reply:
    """A page: the HTTP status, the content type, the content."""

    status: HTTPStatus
    content_type: str
    content: bytes


Page = Callable[[str], Reply]
"""Makes a page for the request's ``Accept`` header, empty where it had none."""


class HttpPort:
    """Bound at once; answers while ``serve`` runs."""

    def __init__(
        self,
        host: str,
        port: int,
        pages: Mapping[str, Page],
        on_thread: Callable[[], None],
    ) -> None:
        """Raises ModelwireError where the port cannot be had."""
        try:
            family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
            self._server = _Server(family, (host, port), pages, on_thread)
        except OSError as error:
            raise _not_to_be_had(host, port, error) from error
        self.port = int(self._server.server_address[1])
        """The port; where 0 was asked for, the one that was free."""

    def serve(self) -> None:
        """Answer until ``close`` is called."""
        self._server.serve_forever(LOOK_SECONDS)

    def close(self) -> None:
        """End ``serve``, which must be running, and free the port; what is under way is let go."""
        self._server.shutdown()
        self._server.server_close()


def _not_to_be_had(host: str, port: int, error: OSError) -> ModelwireError:
    where = f"port {port} of {host or 'this machine'}"
    if error.errno == errno.EADDRINUSE:
        return ModelwireError(
            f"{where}, for health and metrics, is taken by another process",
            hint="give each process its own consumer.health_port, or 0 for none",
        )
    if error.errno == errno.EACCES:
        return ModelwireError(
            f"{where}, for health and metrics, may not be opened: {error.strerror}",
            hint="take a consumer.health_port above 1023",
        )
    return ModelwireError(
        f"{where}, for health and metrics, cannot be opened: {error.strerror or error}",
        hint="consumer.health_host must be an address of this machine, 0.0.0.0 for all of them",
    )


class _Server(ThreadingMixIn, TCPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True

    def __init__(
        self,
        family: int,
        address: tuple[str, int],
        pages: Mapping[str, Page],
        on_thread: Callable[[], None],
    ) -> None:
        self.address_family = family
        self.pages = pages
        self.on_thread = on_thread
        self.one_at_a_time = {path: threading.Lock() for path in pages}
        self._free = threading.Semaphore(MOST_CONNECTIONS)
        self._ends: dict[Any, float] = {}
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        self._ends[request] = time.monotonic() + LONGEST_SECONDS
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # no thread to be had
            self._let_go(request)
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            self.on_thread()
            super().process_request_thread(request, client_address)
        finally:
            self._let_go(request)

    def service_actions(self) -> None:
        now = time.monotonic()
        for request, end in list(self._ends.items()):
            if now > end:
                _hang_up(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """The other end went away, or took too long."""

    def _let_go(self, request: Any) -> None:
        self._ends.pop(request, None)
        self._free.release()


def _hang_up(request: Any) -> None:
    try:
        request.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # it ended by itself


class _Handler(BaseHTTPRequestHandler):
    """One request. It speaks HTTP/1.0: the connection ends with the reply."""

    server_version = "modelwire"
    sys_version = ""
    timeout = READ_SECONDS

    def __init__(self, request: Any, client_address: Any, server: BaseServer) -> None:
        assert isinstance(server, _Server)
        self._port = server
        super().__init__(request, client_address, server)

    def do_GET(self) -> None:
        self._answer(with_content=True)

    def do_HEAD(self) -> None:
        self._answer(with_content=False)

    def _refuse(self) -> None:
        self._send(_plain(HTTPStatus.METHOD_NOT_ALLOWED, "only GET and HEAD are answered"))

    do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _refuse

    def _answer(self, *, with_content: bool) -> None:
        path = self.path.partition("?")[0]
        page = self._port.pages.get(path)
        if page is None:
            known = ", ".join(sorted(self._port.pages))
            self._send(_plain(HTTPStatus.NOT_FOUND, f"there is {known}"), with_content=with_content)
            return
        try:
            with self._port.one_at_a_time[path]:
                reply = page(self.headers.get("Accept", ""))
        except Exception:  # a page that fails must cost the asker a page, and nobody anything else
            log.exception("health.page_failed", path=path)
            reply = _plain(HTTPStatus.INTERNAL_SERVER_ERROR, "the page failed; see the log lines")
        self._send(reply, with_content=with_content)

    def _send(self, reply: Reply, *, with_content: bool = True) -> None:
        self.send_response(reply.status)
        if reply.status is HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET, HEAD")
        self.send_header("Content-Type", reply.content_type)
        self.send_header("Content-Length", str(len(reply.content)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if with_content:
            self.wfile.write(reply.content)

    def log_message(self, format: str, *args: object) -> None:
        """A probe is not worth a line."""


def _plain(status: HTTPStatus, text: str) -> Reply:
    return Reply(status, "text/plain; charset=utf-8", f"{text}\n".encode())
