"""A process that can no longer do its work ends, and says why where anybody listens."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.fleet import LIMIT_SECONDS

CONFIGURED = "from adapters.logs import configure_logs\nconfigure_logs(as_json=True)\n"
STUCK = """
import time
from adapters.watchdog import Watchdog
dog = Watchdog(0.2)
with dog.watching("commit"):
    pass
with dog.watching("commit"):
    time.sleep(600)
"""
DEAD = """
import time
from consumer.threads import thread_of
thread_of("follower", lambda: 1 / 0).start()
time.sleep(600)
"""
DEAD_DOG = """
import time
from adapters import watchdog
watchdog.LOOK_SECONDS = "never"
watchdog.Watchdog(0.2)
time.sleep(600)
"""
FINE = """
import time
from adapters.watchdog import Watchdog
dog = Watchdog(0.5)
for _ in range(3):
    with dog.watching("commit"):
        pass
time.sleep(1.5)
"""


@pytest.mark.parametrize(
    ("program", "code", "says"),
    [
        (STUCK, 1, "process.stuck"),
        (DEAD, 1, "ZeroDivisionError"),
        (DEAD_DOG, 1, "TypeError"),
        (FINE, 0, ""),
    ],
)
def test_what_is_stuck_or_dead_ends_and_what_is_fine_goes_on(
    program: str, code: int, says: str
) -> None:
    """Exit code 1 and a line that names the call or the error; no end without a cause."""
    ended = subprocess.run(
        [sys.executable, "-c", CONFIGURED + program],
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        check=False,
    )
    assert ended.returncode == code, ended.stderr
    assert says in ended.stderr


@contextmanager
def useless_stderr(kind: str) -> Iterator[int]:
    """A stderr that takes no line: on a full disk, of a reader that is gone or that never reads."""
    if kind == "a full disk":
        full = os.open("/dev/full", os.O_WRONLY)
        yield full
        os.close(full)
        return
    reader, writer = os.pipe()
    if kind == "a closed pipe":
        os.close(reader)
    else:
        os.set_blocking(writer, False)
        while True:
            try:
                os.write(writer, b"x" * 4_096)
            except BlockingIOError:
                break
        os.set_blocking(writer, True)
    yield writer
    os.close(writer)
    if kind != "a closed pipe":
        os.close(reader)


@pytest.mark.parametrize("kind", ["a full disk", "a closed pipe", "a full pipe"])
def test_the_end_comes_though_nobody_can_be_told(kind: str) -> None:
    """Whatever stderr is: code 1, for what is stuck and for what is dead."""
    with useless_stderr(kind) as stderr:
        processes = [
            subprocess.Popen([sys.executable, "-c", CONFIGURED + program], stderr=stderr)
            for program in (STUCK, DEAD)
        ]
        try:
            assert [process.wait(LIMIT_SECONDS) for process in processes] == [1, 1]
        finally:
            for process in processes:
                process.kill()
                process.wait()


FAILING = """
import sys
import {module}

def fail(*_):
    raise RuntimeError("a bug")

{module}.{name} = fail
from modelwire.cli import main
sys.argv = ["modelwire", "consume", "--model", "sales", *{arguments}]
main()
"""


@pytest.mark.parametrize(
    ("module", "name", "arguments"),
    [
        ("consumer.instance", "_await_topics", []),
        ("consumer.slots", "_signals", ["--workers", "2"]),
    ],
    ids=["an instance", "a supervisor"],
)
def test_what_nobody_foresaw_is_one_line(module: str, name: str, arguments: list[str]) -> None:
    """With the error in its fields, and exit code 1; a collector of lines sees no raw traceback."""
    program = FAILING.format(module=module, name=name, arguments=arguments)
    ended = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        check=False,
    )
    lines = [json.loads(line) for line in ended.stderr.splitlines()]
    failed = lines[-1]
    assert (ended.returncode, failed["message"]) == (1, "consumer.failed")
    assert (failed["error"]["type"], failed["error"]["message"]) == ("RuntimeError", "a bug")
    assert "in fail" in failed["error"]["stack_trace"]
