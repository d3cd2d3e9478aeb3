"""A TCP proxy before a broker, which can lose what a network can lose, at a chosen request.

A client that starts at the proxy stays on it: the broker's own address is replaced by the proxy's in
each response (host as text and port as four bytes: the host is the same, so lengths stay).
"""

import socket
import struct
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum

ADD_OFFSETS = 25
"""The request (``AddOffsetsToTxn``) with which a producer says that offsets are part of it."""

END_TXN = 26
"""The request (``EndTxn``) with which a producer commits."""

TXN_OFFSETS = 28
"""The request (``TxnOffsetCommit``) that brings the offsets."""

METADATA = 3
"""The request that asks which topics there are."""

PRODUCE = 0
"""The request that brings records."""

COMPACT_PRODUCE = 9
"""From this version of it on, lengths in it are unsigned varints, one larger than what they count."""

UNKNOWN_TOPIC = 3
NOT_AUTHORIZED = 29
"""Error codes of Kafka for a topic."""

COORDINATOR_LOADING = 14
NOT_COORDINATOR = 16
CONCURRENT_TRANSACTIONS = 51
"""Error codes of a coordinator that say: later, or elsewhere."""

ILLEGAL_GENERATION = 22
TRANSACTION_ABORTABLE = 120
"""Error codes that make a transaction impossible."""

INVALID_PRODUCER_EPOCH = 47
INVALID_TXN_STATE = 48
PRODUCER_FENCED = 90
"""Error codes after which a producer is of no more use."""


class Fault(StrEnum):
    """What happens to the next request of a kind, which is EndTxn unless another is named."""

    NONE = "none"
    LOSE_ANSWER = "lose answer"
    """The broker gets it and answers; then the proxy is dead until ``heal``."""
    HOLD_REQUEST = "hold request"
    """The broker does not get it until ``heal``."""


@dataclass(frozen=True)
class Denial:
    """Requests of one kind for this topic are answered with an error."""

    topic: bytes
    kind: int
    code: bytes

    @property
    def nowhere(self) -> bytes:
        """A topic that the broker does not have, of the same length."""
        return b"-" * len(self.topic)

    def misled(self, frame: bytes) -> bytes:
        """The request; its records go to no topic if they are for the denied one."""
        return frame.replace(self.topic, self.nowhere) if self.kind == PRODUCE else frame

    def answered(self, frame: bytes, version: int) -> bytes:
        """The response to a request of this kind, with the error where it is about the topic."""
        if self.kind == METADATA:  # the code stands in front of the name
            name = bytes([len(self.topic) + 1]) + self.topic
            return frame.replace(b"\0\0" + name, self.code + name)
        before, found, after = frame.partition(self.nowhere)
        if not found:
            return frame
        # Behind the name: how many partitions (librdkafka sends one at a time), its number, the code.
        at = (1 if version >= COMPACT_PRODUCE else 4) + 4
        assert after[at : at + 2] == struct.pack(">h", UNKNOWN_TOPIC), after[: at + 2]
        return before + self.topic + after[:at] + self.code + after[at + 2 :]


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
        self.kind = END_TXN
        """Of the requests that the fault happens to."""
        self.struck = threading.Event()
        """Set when the fault has happened."""
        self.healed = threading.Event()
        self.healed.set()
        self.denied: Denial | None = None
        self.bytes_a_second = 0
        """How fast records get through to the broker; 0: as they come."""
        self.unthrottled = threading.Event()
        self._refusals: deque[tuple[int, int]] = deque()
        self._sockets: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def arm(self, fault: Fault, kind: int = END_TXN) -> None:
        """Let ``fault`` happen to the next request of this kind."""
        self.struck.clear()
        self.healed.clear()
        self.kind = kind
        self.fault = fault

    def go_away(self) -> None:
        """Be as a broker that is not there, until ``heal``."""
        self.arm(Fault.LOSE_ANSWER)
        self.struck.set()
        self.cut()

    def refuse(self, kind: int, *codes: int) -> None:
        """Answer the next requests of this kind with these errors, one after the other.

        The broker never hears of them. ``kind`` is ``END_TXN`` or ``ADD_OFFSETS``, whose answers are an
        error code and nothing else.
        """
        self._refusals.extend((kind, code) for code in codes)

    def refusal_of(self, kind: int) -> int | None:
        """The error for a request of this kind, each of which is given once."""
        if not self._refusals or self._refusals[0][0] != kind:
            return None
        return self._refusals.popleft()[1]

    @property
    def has_refused(self) -> bool:
        """Whether every refusal that was asked for was given."""
        return not self._refusals

    def deny(self, topic: str, kind: int = METADATA, code: int = UNKNOWN_TOPIC) -> None:
        """Answer requests of this kind for the topic with an error, until ``heal``.

        All connections are cut first, so that clients ask again. Records of a denied ``PRODUCE`` do not
        get to the topic.
        """
        self.struck.clear()
        self.denied = Denial(topic.encode(), kind, struct.pack(">h", code))
        self.cut()

    def throttle(self, bytes_a_second: int) -> None:
        """Let records through to the broker no faster than this, until ``heal``."""
        self.unthrottled.clear()
        self.bytes_a_second = bytes_a_second

    def heal(self) -> None:
        """Work again."""
        self.fault = Fault.NONE
        self.denied = None
        self.bytes_a_second = 0
        self.unthrottled.set()
        self._refusals.clear()
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
        self._to_deny: dict[bytes, tuple[Denial, int]] = {}

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
        version = struct.unpack_from(">h", frame, 6)[0]
        denial = proxy.denied
        if denial is not None and kind == denial.kind:
            self._to_deny[frame[8:12]] = denial, version
            frame = denial.misled(frame)
        code = proxy.refusal_of(kind)
        if code is not None:
            # Length, correlation, throttle time, error code.
            self._client.sendall(struct.pack(">i4sih", 10, frame[8:12], 0, code))
            return True
        if kind == PRODUCE and proxy.bytes_a_second:
            proxy.unthrottled.wait(len(frame) / proxy.bytes_a_second)
        if kind == proxy.kind:
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
        denial, version = self._to_deny.pop(frame[4:8], (None, 0))
        if denial is not None:
            told = denial.answered(frame, version)
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
