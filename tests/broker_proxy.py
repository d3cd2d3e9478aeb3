"""A TCP proxy before a broker, which can lose what a network can lose, at a chosen request.

A client that starts at the proxy stays on it: the broker's own address is replaced by the proxy's in
each response (host as text and port as four bytes: the host is the same, so lengths stay).
"""

import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from enum import StrEnum

END_TXN = 26
"""The request (``EndTxn``) with which a producer commits."""

METADATA = 3
"""The request that asks which topics there are."""

UNKNOWN_TOPIC = struct.pack(">h", 3)


class Fault(StrEnum):
    """What happens to the next EndTxn request."""

    NONE = "none"
    LOSE_ANSWER = "lose answer"
    """The broker gets it and answers; then the proxy is dead until ``heal``."""
    HOLD_REQUEST = "hold request"
    """The broker does not get it until ``heal``."""


class BrokerProxy:
    """Listens on a free port of the loopback; ``close`` ends it and every connection."""

    def __init__(self, upstream: str) -> None:
        host, _, port = upstream.partition(":")
        self._upstream = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.theirs = host.encode() + struct.pack(">i", int(port))
        self.ours = host.encode() + struct.pack(">i", self._listener.getsockname()[1])
        self.fault = Fault.NONE
        self.struck = threading.Event()
        """Set when the fault has happened."""
        self.healed = threading.Event()
        self.healed.set()
        self.denied = b""
        """The topic that ``deny`` named, as it stands in a response behind its error code."""
        self._sockets: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def arm(self, fault: Fault) -> None:
        """Let ``fault`` happen to the next EndTxn."""
        self.struck.clear()
        self.healed.clear()
        self.fault = fault

    def deny(self, topic: str) -> None:
        """Say of this topic that it does not exist, and cut all connections, until ``heal``."""
        self.struck.clear()
        self.denied = bytes([len(topic) + 1]) + topic.encode()
        self.cut()

    def heal(self) -> None:
        """Work again."""
        self.fault = Fault.NONE
        self.denied = b""
        self.healed.set()

    def close(self) -> None:
        """Stop listening and cut every connection."""
        self.heal()
        self._listener.close()
        self.cut()

    @property
    def _dead(self) -> bool:
        return self.fault is Fault.LOSE_ANSWER and self.struck.is_set() and not self.healed.is_set()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._dead:
                client.close()
                continue
            server = socket.create_connection(self._upstream)
            self._sockets |= {client, server}
            _Connection(self, client, server).start()

    def cut(self) -> None:
        for each in list(self._sockets):
            _shut(each)
        self._sockets.clear()


class _Connection:
    def __init__(self, proxy: BrokerProxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy = proxy
        self._client = client
        self._server = server
        self._lost_correlation: bytes | None = None
        self._metadata: set[bytes] = set()

    def start(self) -> None:
        for pump in (self._requests, self._responses):
            threading.Thread(target=self._run, args=(pump,), daemon=True).start()

    def _run(self, pump: Callable[[], bool]) -> None:
        with suppress(OSError):
            while pump():
                pass
        _shut(self._client)
        _shut(self._server)

    def _requests(self) -> bool:
        frame = _read_frame(self._client)
        if frame is None:
            return False
        proxy = self._proxy
        kind = struct.unpack_from(">h", frame, 4)[0]
        if kind == METADATA:
            self._metadata.add(frame[8:12])
        if kind == END_TXN:
            if proxy.fault is Fault.HOLD_REQUEST:
                proxy.struck.set()
                proxy.healed.wait()
            elif proxy.fault is Fault.LOSE_ANSWER:
                self._lost_correlation = frame[8:12]
        self._server.sendall(frame)
        return True

    def _responses(self) -> bool:
        frame = _read_frame(self._server)
        if frame is None:
            return False
        proxy = self._proxy
        if frame[4:8] == self._lost_correlation:
            proxy.struck.set()
            proxy.cut()
            return False
        if proxy.denied and frame[4:8] in self._metadata:
            told = frame.replace(b"\0\0" + proxy.denied, UNKNOWN_TOPIC + proxy.denied)
            if told != frame:
                proxy.struck.set()
            frame = told
        self._client.sendall(frame.replace(proxy.theirs, proxy.ours))
        return True


def _read_frame(source: socket.socket) -> bytes | None:
    """One request or response with its length in front; None at the end of the stream."""
    head = _read(source, 4)
    body = None if head is None else _read(source, struct.unpack(">i", head)[0])
    return None if head is None or body is None else head + body


def _read(source: socket.socket, size: int) -> bytes | None:
    content = b""
    while len(content) < size:
        chunk = source.recv(size - len(content))
        if not chunk:
            return None
        content += chunk
    return content


def _shut(each: socket.socket) -> None:
    with suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)
    each.close()
