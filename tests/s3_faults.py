"""A proxy before the S3 server, which does to its answers what networks and busy servers do.

Requests pass as they were signed: the client signs the proxy's address as the ``Host``, and the server
checks the ``Host`` that it is sent. ``fault`` holds for the requests that come from then on; ``Down``
and ``Hang`` also strike the connections that are open.
"""

import random
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import chain
from urllib.parse import urlsplit

CHUNK = 64 * 1024
TICK_SECONDS = 0.05
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_EXPECT = re.compile(rb"\r\nexpect: *100-continue", re.IGNORECASE)
_CONNECTION = re.compile(rb"\r\nconnection: *[^\r]*", re.IGNORECASE)


@dataclass(frozen=True)
class Down:
    """Nobody listens: connections are refused."""


@dataclass(frozen=True)
class Hang:
    """Requests are taken and never answered."""


@dataclass(frozen=True)
class Slow:
    """Answers begin after ``delay`` seconds, and their bodies come at ``rate`` bytes a second."""

    rate: float
    delay: float = 0.0


@dataclass(frozen=True)
class Drip:
    """After this many bytes of the answer, its head included, a byte comes every so many seconds."""

    after: int
    seconds: float


@dataclass(frozen=True)
class Truncate:
    """The connection breaks off after this many bytes of a body."""

    after: int


@dataclass(frozen=True)
class Flip:
    """One bit in the middle of each body is another."""


@dataclass(frozen=True)
class Fail:
    """This share of the requests, drawn at random, is answered with an error."""

    status: int = 500
    code: str = "InternalError"
    share: float = 1.0


THROTTLED = Fail(503, "SlowDown")

Fault = Down | Hang | Slow | Drip | Truncate | Flip | Fail


@dataclass(frozen=True)
class Asked:
    """A request that reached the proxy, at a time of ``time.monotonic``."""

    at: float
    method: str
    path: str


class S3Faults:
    """Listens on a port of the loopback until ``close``, which also cuts every connection."""

    def __init__(self, endpoint: str, seed: int = 1) -> None:
        parts = urlsplit(endpoint)
        self._upstream = (parts.hostname or "", parts.port or 80)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._address = self._listener.getsockname()
        self.endpoint = f"http://127.0.0.1:{self._address[1]}"
        self.asked: list[Asked] = []
        """Every request so far, those that a fault struck as well."""
        self._random = random.Random(seed)
        self._fault: Fault | None = None
        self._sockets: set[socket.socket] = set()
        self._closed = False
        self._accept_in_a_thread()

    @property
    def fault(self) -> Fault | None:
        """What happens to requests now; None: they pass."""
        return self._fault

    @fault.setter
    def fault(self, fault: Fault | None) -> None:
        was_down = isinstance(self._fault, Down)
        self._fault = fault
        if isinstance(fault, Down) and not was_down:
            _cut(self._listener)
            # Bound and not listening: refused, and nobody else's.
            self._listener = socket.socket()
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._listener.bind(self._address)
        if isinstance(fault, Down | Hang):
            self._cut_all()
        if was_down and not isinstance(fault, Down):
            self._listener.listen()
            self._accept_in_a_thread()

    def close(self) -> None:
        """Stop listening and cut every connection."""
        self._closed = True
        _cut(self._listener)
        self._cut_all()

    def _cut_all(self) -> None:
        for each in list(self._sockets):
            _cut(each)
        self._sockets.clear()

    def _accept_in_a_thread(self) -> None:
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # or 40 ms an answer
                self._sockets.add(client)
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError), closing(client):
            while (head := _read_head(client)) is not None:
                method, path, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
                self.asked.append(Asked(time.monotonic(), method, path))
                if not self._answer(client, head, is_head=method == "HEAD"):
                    break
        self._sockets.discard(client)

    def _answer(self, client: socket.socket, head: bytes, *, is_head: bool) -> bool:
        """Whether another request may come on this connection."""
        fault = self._fault
        match fault:
            case Hang():
                while self._fault is fault and not self._closed:
                    time.sleep(TICK_SECONDS)
                return False
            case Fail() if self._random.random() < fault.share:
                client.sendall(_error(fault, is_head=is_head))
                client.shutdown(socket.SHUT_WR)
                while client.recv(CHUNK):  # or what is unread would reset the answer on its way
                    pass
                return False
        with closing(socket.create_connection(self._upstream)) as server:
            self._sockets.add(server)
            self._pass_request(client, server, head)
            answer = _read_head(server)
            if answer is None:
                return False
            if isinstance(fault, Slow):
                time.sleep(fault.delay)
            length = 0 if is_head else _length(answer)
            body = _spoiled(_body(server, length), length, fault)
            for chunk in _dripped(chain([_CONNECTION.sub(b"", answer)], body), fault):
                client.sendall(chunk)
            self._sockets.discard(server)
            return length is not None and not isinstance(fault, Truncate)

    def _pass_request(self, client: socket.socket, server: socket.socket, head: bytes) -> None:
        if _EXPECT.search(head):
            client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        # Neither header is signed. One request a connection, so that a body may end with it.
        head = _CONNECTION.sub(b"", _EXPECT.sub(b"", head))
        server.sendall(head.removesuffix(b"\r\n") + b"Connection: close\r\n\r\n")
        for chunk in _body(client, _length(head) or 0):
            server.sendall(chunk)


def _spoiled(body: Iterator[bytes], length: int | None, fault: Fault | None) -> Iterator[bytes]:
    passed = 0
    for chunk in body:
        match fault:
            case Truncate(after=after):
                yield chunk[: max(after - passed, 0)]
                if passed + len(chunk) > after:
                    return
            case Flip():
                place = (length or 1) // 2 - passed
                yield _flipped(chunk, place) if 0 <= place < len(chunk) else chunk
            case Slow(rate=rate):
                step = max(int(rate * TICK_SECONDS), 1)
                for start in range(0, len(chunk), step):
                    time.sleep(step / rate)
                    yield chunk[start : start + step]
            case _:
                yield chunk
        passed += len(chunk)


def _dripped(answer: Iterator[bytes], fault: Fault | None) -> Iterator[bytes]:
    if not isinstance(fault, Drip):
        yield from answer
        return
    quick = fault.after
    for piece in answer:
        if quick > 0:
            yield piece[:quick]
        for place in range(quick, len(piece)):
            time.sleep(fault.seconds)
            yield piece[place : place + 1]
        quick = max(quick - len(piece), 0)


def _flipped(chunk: bytes, place: int) -> bytes:
    return chunk[:place] + bytes([chunk[place] ^ 1]) + chunk[place + 1 :]


def _error(fault: Fail, *, is_head: bool) -> bytes:
    body = f"<Error><Code>{fault.code}</Code><Message>not now</Message></Error>".encode()
    head = f"HTTP/1.1 {fault.status} Failed\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode() + (b"" if is_head else body)


def _read_head(source: socket.socket) -> bytes | None:
    """A request line or status line and its headers, with the empty line; None at the end."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = source.recv(1)
        if not byte:
            return None
        head += byte
    return head


def _length(head: bytes) -> int | None:
    found = _LENGTH.search(head)
    return int(found[1]) if found else None


def _body(source: socket.socket, length: int | None) -> Iterator[bytes]:
    """A body of this length, or, with None, all that comes until the connection ends."""
    left = length
    while left is None or left > 0:
        chunk = source.recv(CHUNK if left is None else min(CHUNK, left))
        if not chunk:
            return
        left = None if left is None else left - len(chunk)
        yield chunk


def _cut(each: socket.socket) -> None:
    with suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)
    each.close()
