"""Log lines: ECS names, a place of their own for our fields, and a page that lists every event."""

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from adapters.logs import LONGEST_TEXT
from adapters.stderr import MOST_WAITING
from tests.fleet import LIMIT_SECONDS
from tests.log_page import PAGE, documented_events

ROOT = Path(__file__).parent.parent.parent
PARTS = ("adapters", "audit", "consumer", "modelwire", "publisher", "trainer")
"""Those that may write log lines: the pure parts touch nothing."""
WRITERS = {"info": "info", "warning": "warning", "error": "error", "exception": "error"}
NO_FIELDS = {"level", "announce", "exc_info"}

PROGRAM = """
import structlog
from adapters.logs import configure_logs
configure_logs(as_json={as_json})
log = structlog.get_logger()
structlog.contextvars.bind_contextvars(instance="modelwire-m-0", model="m")
log.info("snapshot.applied", revision=3, shadows=(1, 2), lag=None, rejected={{"not-json": 2}})
log.debug("kafka.client", line="left out")
log.warning("x.y", level="a", message="b", service="c", process="d", error="e", timestamp="f")
log.warning("x.y", reason="é" * 100_000 + "the end")
try:
    {{}}["key"]
except KeyError as error:
    log.exception("x.y", version=7)
    log.error("x.y", exc_info=error)
"""


def written(*, as_json: bool) -> list[str]:
    """What the program writes to stderr, line by line."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(as_json=as_json)],
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        check=True,
        env=dict(os.environ) | {"PYTHONIOENCODING": "utf-8"},
    )
    assert done.stdout == ""
    return done.stderr.splitlines()


@pytest.fixture(scope="module")
def lines() -> list[dict[str, Any]]:
    """The program's lines for machines."""
    return [json.loads(line) for line in written(as_json=True)]


def test_a_line_has_the_names_of_the_schema(lines: list[dict[str, Any]]) -> None:
    """Time, level and message first; the event's fields under our name, in their own types."""
    first = lines[0]
    assert list(first)[:3] == ["@timestamp", "log.level", "message"]
    assert first["@timestamp"].endswith("Z")
    assert (first["log.level"], first["message"]) == ("info", "snapshot.applied")
    assert first["event"] == {"action": "snapshot.applied"}
    assert first["ecs.version"]
    assert isinstance(first["process"]["pid"], int)
    assert first["service"]["name"] == "modelwire"
    assert first["service"]["node"] == {"name": "modelwire-m-0"}
    assert first["modelwire"] == {
        "model": "m",
        "revision": 3,
        "shadows": [1, 2],
        "lag": None,
        "rejected": {"not-json": 2},
    }


def test_our_fields_collide_with_nothing(lines: list[dict[str, Any]]) -> None:
    """A field that is called like one of the schema's stands apart from it."""
    second = lines[1]
    assert (second["log.level"], second["message"]) == ("warning", "x.y")
    assert second["service"]["name"] == "modelwire"
    assert second["modelwire"] == {
        "model": "m",
        "level": "a",
        "message": "b",
        "service": "c",
        "process": "d",
        "error": "e",
        "timestamp": "f",
    }


def test_a_long_text_keeps_its_ends(lines: list[dict[str, Any]]) -> None:
    """A line must fit the collectors; the cause of an error stands at either end of its text."""
    reason = lines[2]["modelwire"]["reason"]
    assert len(reason) <= LONGEST_TEXT
    assert (reason[:3], reason[-7:]) == ("ééé", "the end")


def test_an_exception_has_fields_of_its_own(lines: list[dict[str, Any]]) -> None:
    """Whichever way it is handed over: its type, its text and where it came from."""
    for line in lines[3:]:
        error = line["error"]
        assert (line["log.level"], error["type"], error["message"]) == (
            "error",
            "KeyError",
            "'key'",
        )
        assert error["stack_trace"].startswith("Traceback")
    assert lines[3]["modelwire"] == {"model": "m", "version": 7}


def test_lines_for_people_are_no_json() -> None:
    """Other commands write to terminals: the event first, then its fields."""
    first = written(as_json=False)[0]
    assert "snapshot.applied" in first
    assert "revision=3" in first
    assert not first.startswith("{")


FULL_FOR_A_WHILE = """
import resource
import structlog
from adapters.logs import configure_logs, drain_logs
configure_logs(as_json=True)
log = structlog.get_logger()
_, most = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, most))
log.info("x.torn")
log.info("x.lost")
drain_logs()
resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
log.info("x.first")
drain_logs()
log.info("x.second")
"""


def test_a_disk_that_is_full_costs_lines_and_nothing_else(tmp_path: Path) -> None:
    """The process goes on; later lines are whole, and one says how many are missing."""
    file = tmp_path / "lines"
    with file.open("wb") as stderr:
        done = subprocess.run(
            [sys.executable, "-c", FULL_FOR_A_WHILE],
            stderr=stderr,
            timeout=LIMIT_SECONDS,
            check=False,
        )
    assert done.returncode == 0, file.read_text()
    torn, *whole = file.read_text().splitlines()
    assert len(torn) == 100
    lines = [json.loads(line) for line in whole]
    assert [line["message"] for line in lines] == ["x.first", "x.second", "log.lines_lost"]
    assert lines[-1]["modelwire"] == {"lines": 2}


NOBODY_READS = """
import sys
import structlog
from adapters.logs import configure_logs, drain_logs
configure_logs(as_json=True)
log = structlog.get_logger()
for number in range(3_000):
    log.info("x.y", number=number)
print("went on", flush=True)
sys.stdin.readline()
for _ in range(20):
    drain_logs()
log.info("x.last")
"""


def test_a_pipe_that_nobody_reads_holds_nobody_up() -> None:
    """What is more than may wait is left out; once somebody reads, no line is torn, and all count."""
    with subprocess.Popen(
        [sys.executable, "-c", NOBODY_READS],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "went on\n"
        _, said = process.communicate("\n", timeout=LIMIT_SECONDS)
    lines = [json.loads(line) for line in said.splitlines()]
    lost = [each["modelwire"]["lines"] for each in lines if each["message"] == "log.lines_lost"]
    numbers = [each["modelwire"]["number"] for each in lines if each["message"] == "x.y"]
    assert numbers == sorted(numbers)
    assert MOST_WAITING <= len(numbers) < 3_000
    assert len(numbers) + lost[-1] == 3_000
    assert "x.last" in [each["message"] for each in lines]


@pytest.mark.parametrize("redirected", ["2>/dev/full", "2> >(:)", "2>&-"])
def test_without_a_stderr_there_are_no_lines(redirected: str) -> None:
    """On a full disk, into a pipe whose reader is gone, or nowhere: the work is done and ends well."""
    program = f"{PROGRAM.format(as_json=True)}\nprint('went on')"
    done = subprocess.run(
        ["bash", "-c", f'exec "$0" -c "$1" {redirected}', sys.executable, program],
        stdout=subprocess.PIPE,
        text=True,
        timeout=LIMIT_SECONDS,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "went on\n")


def test_no_event_is_listed_twice() -> None:
    """Whoever looks one up finds one meaning."""
    listed = re.findall(r"^\| `([a-z_]+\.[a-z_]+)` \| ", PAGE.read_text(), re.MULTILINE)
    assert set(listed) >= set(documented_events())
    assert [event for event in set(listed) if listed.count(event) > 1] == []


def test_every_event_of_the_code_is_on_the_page_and_no_other() -> None:
    """docs/logs.md is what operators search by: each event, its level, and the fields it can have."""
    page = documented_events()
    calls = list(_calls())
    written_somewhere = {event for event, _, _ in calls}
    assert written_somewhere - set(page) == set(), "docs/logs.md does not list these"
    assert set(page) - written_somewhere == set(), "nothing writes these any more"
    for event, level, fields in calls:
        assert level is None or level in page[event].levels, f"{event} is written as {level}"
        unknown = page[event].undocumented(fields)
        assert not unknown, f"{event} has fields that docs/logs.md does not name: {unknown}"


def _calls() -> Iterator[tuple[str, str | None, set[str]]]:
    """Event, level where the call tells, and the fields that it names: of each line the code writes."""
    for path in (path for part in PARTS for path in sorted((ROOT / part).rglob("*.py"))):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                yield from _events(node)


def _events(call: ast.Call) -> Iterator[tuple[str, str | None, set[str]]]:
    name, arguments = ast.unparse(call.func), list(call.args)
    if name == "failure_as_a_line":
        name = "log.error"
    if name.endswith(".run") and arguments and ast.unparse(arguments[0]) == "end_process":
        name, arguments = "end_process", arguments[1:]
    _, _, method = name.rpartition(".")
    says = name in ("write", "Say", "do.Say", "end_process") or (
        name.removesuffix(f".{method}") in ("log", "_log") and method in WRITERS
    )
    if not says or not arguments:
        return
    level = "error" if name == "end_process" else WRITERS.get(method)
    fields = {each.arg for each in call.keywords if each.arg} - NO_FIELDS
    for found in ast.walk(arguments[0]):
        if isinstance(found, ast.Constant) and "." in str(found.value):
            yield str(found.value), level, fields
