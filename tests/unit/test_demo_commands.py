"""The processes of the demo: what ends well, what ends badly, and that none is forgotten."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelwire.demo.commands import Commands, uninterrupted
from schemas.errors import ModelwireError
from tests.fleet import LIMIT_SECONDS


@pytest.fixture
def commands(tmp_path: Path) -> Iterator[Commands]:
    """Commands whose processes do not outlive the test."""
    commands = Commands(tmp_path)
    yield commands
    commands.stop()


def tick() -> None:
    """A moment."""
    time.sleep(0.02)


def test_a_command_that_fails_says_what_it_said(commands: Commands) -> None:
    """Its line, and its own error with what to do next."""
    with pytest.raises(ModelwireError) as failed:
        commands.run("rollout", "undo", "No-Model", meanwhile=tick)
    assert failed.value.message.startswith("modelwire rollout undo No-Model failed:\nerror: ")


def test_a_background_command_that_ends_well_by_itself_is_no_problem(commands: Commands) -> None:
    """It was meant to end; then it is nothing that runs any more."""
    started = commands.start("version", "--version", ends=True)
    commands.wait(started, tick)
    commands.check()
    assert commands.background == []
    assert "version" in started.log.read_text()


def test_a_background_command_that_fails_is_noticed(commands: Commands) -> None:
    """Also while others are awaited; with its code and the end of its output."""
    started = commands.start("plan", "rollout", "start", "m:2", "--run", ends=True)
    with pytest.raises(ModelwireError, match=r"(?s)start m:2 --run ended with code 2:.*say how"):
        commands.wait(started, tick)


def test_a_service_that_ends_is_noticed_whatever_its_code(commands: Commands) -> None:
    """A consumer that left cleanly is gone all the same."""
    started = commands.start("version", "--version")
    started.process.wait(LIMIT_SECONDS)
    with pytest.raises(ModelwireError, match="ended with code 0"):
        commands.check()


def test_a_service_that_is_killed_is_noticed(commands: Commands) -> None:
    """By the signal that ended it."""
    started = commands.start("watch", "rollout", "status", "--help")
    started.process.kill()
    started.process.wait(LIMIT_SECONDS)
    with pytest.raises(ModelwireError, match="was ended by signal 9"):
        commands.check()


@pytest.mark.usefixtures("_interrupts")
def test_an_interrupt_while_a_command_starts_takes_effect_when_it_is_remembered() -> None:
    """A process that was started and not noted yet would run for ever."""
    noted = []

    def start() -> None:
        with uninterrupted():
            os.kill(os.getpid(), signal.SIGINT)
            noted.append("the process")

    with pytest.raises(KeyboardInterrupt):
        start()
    assert noted == ["the process"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.fixture
def _interrupts() -> Iterator[None]:
    """SIGINT raises, as at a terminal: a shell's background job is born with it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
