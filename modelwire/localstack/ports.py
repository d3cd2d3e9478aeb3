"""Which loopback ports a stack uses.

Ports are chosen once and then remembered, so that a configuration that names them stays true.
They lie below the range from which systems hand out ports to outgoing connections (32768 and up on
Linux, 49152 and up elsewhere): while a killed broker is down, a client that keeps reconnecting
could otherwise be given the broker's own port as its source port and keep it.
"""

import random
import socket
import time
from collections.abc import Callable

from schemas.errors import ModelwireError

LOOPBACK = "127.0.0.1"
FIRST_PORT = 20_000
LAST_PORT = 32_000
DRAWS = 1_000

_SYSTEM = random.SystemRandom()


def is_free(port: int) -> bool:
    """Whether a server could listen on this loopback port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As the Java servers do: connections that ended a moment ago do not count as use.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
            probe.listen(1)
        except OSError:
            return False
    return True


def becomes_free(port: int, limit_seconds: float) -> bool:
    """Whether a server could listen on this port, now or within `limit_seconds`."""
    deadline = time.monotonic() + limit_seconds
    while not is_free(port):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def choose(
    count: int,
    *,
    draw: Callable[[int, int], int] = _SYSTEM.randint,
    free: Callable[[int], bool] = is_free,
) -> tuple[int, ...]:
    """Draw `count` different free ports.

    Raises ModelwireError when a thousand draws do not find them.
    """
    chosen: list[int] = []
    drawn: set[int] = set()
    for _ in range(DRAWS):
        if len(chosen) == count:
            return tuple(chosen)
        port = draw(FIRST_PORT, LAST_PORT)
        if port not in drawn and free(port):
            chosen.append(port)
        drawn.add(port)
    raise ModelwireError(
        f"no free port on {LOOPBACK} between {FIRST_PORT} and {LAST_PORT}",
        hint="stop some of the programs that listen there",
    )
