"""A process that can no longer do its work ends, and says why."""

import subprocess
import sys

import pytest

STUCK = """
import time
from adapters.watchdog import Watchdog
dog = Watchdog(0.2)
with dog.watching("commit"):
    pass
with dog.watching("commit"):
    time.sleep(60)
"""
DEAD = """
import time
from consumer.threads import thread_of
thread_of("follower", lambda: 1 / 0).start()
time.sleep(60)
"""
FINE = """
import time
from adapters.watchdog import Watchdog
dog = Watchdog(0.2)
for _ in range(3):
    with dog.watching("commit"):
        pass
time.sleep(1.5)
"""


@pytest.mark.parametrize(
    ("program", "code", "says"),
    [(STUCK, 1, "stream.stuck"), (DEAD, 1, "ZeroDivisionError"), (FINE, 0, "")],
)
def test_what_is_stuck_or_dead_ends_and_what_is_fine_goes_on(
    program: str, code: int, says: str
) -> None:
    """Exit code 1 and a line that names the call or the error; no end without a cause."""
    configured = "from adapters.logs import configure_logs\nconfigure_logs(as_json=True)\n"
    ended = subprocess.run(
        [sys.executable, "-c", configured + program],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ended.returncode == code, ended.stderr
    assert says in ended.stderr
