"""Turns: trials side by side, one alone, and nobody kept waiting for ever."""

import os
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest

from consumer.turns import NAME, Turns
from consumer.vetting import Overtaken
from tests.fleet import LIMIT_SECONDS, wait_for


def _nothing() -> None:
    """Go on."""


def _overtaken() -> None:
    raise Overtaken


def test_many_try_side_by_side_and_one_alone_waits_for_them(tmp_path: Path) -> None:
    """It has its turn once the last of them is done."""
    looks: list[int] = []
    came = threading.Event()

    def wait_alone() -> None:
        with Turns(tmp_path, 60.0).alone(lambda: looks.append(1)):
            came.set()

    thread = threading.Thread(target=wait_alone)
    with ExitStack() as others:
        with Turns(tmp_path).beside_others(_overtaken):
            others.enter_context(Turns(tmp_path).beside_others(_overtaken))
            thread.start()
            wait_for("a wait", lambda: looks)
        then = len(looks)
        wait_for("a wait for the other one", lambda: len(looks) > then + 1)
        assert not came.is_set()
    thread.join(LIMIT_SECONDS)
    assert came.is_set()


def test_who_is_alone_keeps_the_others_waiting(tmp_path: Path) -> None:
    """What ends the wait is raised, and nothing stays held or open."""
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    with Turns(tmp_path).alone(_nothing):
        for wait in (Turns(tmp_path).beside_others, Turns(tmp_path).alone):
            with pytest.raises(Overtaken), wait(_overtaken):
                pass
    with Turns(tmp_path).alone(_overtaken):
        pass
    assert (len(os.listdir("/proc/self/fd")) if before else 0) == before


def test_a_wait_has_a_limit(tmp_path: Path) -> None:
    """After it one goes on beside whoever holds it."""
    with Turns(tmp_path).alone(_nothing), Turns(tmp_path, 0.1).beside_others(_nothing):
        pass


@pytest.mark.parametrize("make", ["nothing", "a file for a folder", "a folder for a file"])
def test_without_a_file_there_is_nobody_to_wait_for(make: str, tmp_path: Path) -> None:
    """Neither is missing settings nor a folder that cannot be used a reason to fail."""
    folder: Path | None = tmp_path / "folder"
    assert folder is not None
    match make:
        case "nothing":
            folder = None
        case "a file for a folder":
            folder.write_text("")
        case _:
            (folder / NAME).mkdir(parents=True)
    with Turns(folder).alone(_overtaken), Turns(folder).alone(_overtaken):
        pass
