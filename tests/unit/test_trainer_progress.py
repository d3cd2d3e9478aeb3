"""Progress on a terminal: the step at work beside a spinner; elsewhere a line for each step."""

import os
import pty
import subprocess
import sys

PROGRAM = """
from time import sleep
from trainer.cli import progress_on_stderr
with progress_on_stderr() as say:
    for line in ("reading [bold]panel.csv", "note: 2 rows of [/x] were summed", "training trees"):
        say(line)
        sleep(0.3)
"""


def test_a_terminal_has_a_spinner_with_the_step() -> None:
    """Names in brackets are names and no markup; the note stands on a line of its own."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
    environment.pop("NO_COLOR", None)
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stderr=theirs, stdout=subprocess.PIPE, env=environment
    ) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                block = os.read(ours, 65_536)
            except OSError:  # what Linux says when the other end is closed
                break
            if not block:
                break
            shown += block
        assert process.stdout is not None
        assert process.stdout.read() == b""
    os.close(ours)
    assert process.returncode == 0
    text = shown.decode()
    assert "reading [bold]panel.csv" in text
    assert "note: 2 rows of [/x] were summed\r\n" in text
    assert "training trees" in text
    assert "\x1b[" in text, "a spinner moves the cursor"


def test_a_pipe_has_a_line_for_each_step() -> None:
    """As they are, in their order."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        "reading [bold]panel.csv",
        "note: 2 rows of [/x] were summed",
        "training trees",
    ]
