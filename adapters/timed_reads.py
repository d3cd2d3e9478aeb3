"""Timed reads: an answer of a server is read until a deadline, however slowly it drips.

A socket's timeout begins anew with each byte, so a server that sends one every few seconds holds its
reader for as long as it likes, with headers as well as with a body. Here each read of a socket has the
time that is left. ``reading_by`` says until when, on its own thread, to clients that ``time_reads``
prepared.
Making the connection has a timeout of its own, and asking for a host's name those of the system.
"""

import io
import math
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from http.client import HTTPResponse
from typing import TYPE_CHECKING, Any

from botocore.awsrequest import (
    AWSHTTPConnection,
    AWSHTTPConnectionPool,
    AWSHTTPSConnection,
    AWSHTTPSConnectionPool,
)

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer
    from mypy_boto3_s3 import S3Client

_deadline: ContextVar[float] = ContextVar("deadline", default=math.inf)


@contextmanager
def reading_by(deadline: float) -> Iterator[None]:
    """Reads in this block end by ``deadline``, a reading of ``time.monotonic``, as a timeout would.

    In a block within a block the earlier deadline holds.
    """
    token = _deadline.set(min(deadline, _deadline.get()))
    try:
        yield
    finally:
        _deadline.reset(token)


def seconds_left() -> float:
    """Until the deadline that holds here; infinity where there is none, below 0 once it has passed."""
    return _deadline.get() - time.monotonic()


def time_reads(client: "S3Client") -> None:
    """Have this client's answers read by the deadlines of ``reading_by``."""
    # There is no other way in: botocore takes neither a session nor pools from its caller.
    session = client._endpoint.http_session  # type: ignore[attr-defined]
    pools = {"http": _Pool, "https": _SecurePool}
    session._pool_classes_by_scheme = pools  # for connections through a proxy
    session._manager.pool_classes_by_scheme = pools


class _Socket(io.RawIOBase):
    """A socket to read from, which waits no longer than its own timeout and the deadline."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._longest = connection.gettimeout() or math.inf
        self._file = connection.makefile(
            "rb", buffering=0
        )  # keeps the socket open until it is closed

    def readable(self) -> bool:
        """Nothing else."""
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int | None:
        """What has come, as soon as something has."""
        left = seconds_left()
        if left <= 0:
            raise TimeoutError("timed out")
        seconds = min(self._longest, left)
        self._connection.settimeout(None if seconds == math.inf else seconds)
        return self._file.readinto(buffer)

    def close(self) -> None:
        """Let the socket go."""
        self._file.close()
        super().close()


class _Response(HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        self.fp.close()
        self.fp = io.BufferedReader(_Socket(sock))


class _Connection(AWSHTTPConnection):
    response_class = _Response  # type: ignore[assignment]  # its stubs name the subclass for puts


class _SecureConnection(AWSHTTPSConnection):
    response_class = _Response  # type: ignore[assignment]  # its stubs name the subclass for puts


class _Pool(AWSHTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(AWSHTTPSConnectionPool):
    ConnectionCls = _SecureConnection
