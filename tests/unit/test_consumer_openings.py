"""Openings: a load that ended the process is remembered, and not for ever."""

import os
from pathlib import Path

import pytest

from consumer.openings import FIRST_SECONDS, Openings

GOOD, BAD = f"sha256:{'1' * 64}", f"sha256:{'2' * 64}"
RUNTIME = "1.31.0"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A slot's file, in a folder that is not there yet."""
    return tmp_path / "openings" / "m-0"


def _die(openings: Openings) -> None:
    """What the system does with the files of a process that is gone."""
    assert openings._descriptor is not None
    os.close(openings._descriptor)
    openings._descriptor = None


def _die_loading(file: Path, digest: str) -> None:
    openings = Openings(file, RUNTIME)
    openings.note(digest)
    _die(openings)


def test_the_second_end_of_a_process_in_a_load_is_enough(file: Path) -> None:
    """The first may be chance; what else is loaded meanwhile neither suffers nor makes it forgotten."""
    _die_loading(file, BAD)
    second = Openings(file, RUNTIME)
    second.note(GOOD)
    second.clear(GOOD)
    assert second.problem(BAD) is None
    second.note(BAD)
    _die(second)
    third = Openings(file, RUNTIME)
    problem = third.problem(BAD)
    assert problem is not None
    assert "2 times in a row; it is left alone for 30 s" in problem
    assert third.problem(BAD) == problem
    assert third.problem(GOOD) is None


def test_it_is_tried_again_after_a_pause_that_doubles(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once it went well nothing is left of it."""
    now = [1_000_000.0]
    monkeypatch.setattr("consumer.openings.time.time", lambda: now[0])
    for _ in range(2):
        _die_loading(file, BAD)
    for wait in (FIRST_SECONDS, 2 * FIRST_SECONDS, 4 * FIRST_SECONDS):
        openings = Openings(file, RUNTIME)
        now[0] += wait - 1
        assert openings.problem(BAD)
        now[0] += 2
        assert openings.problem(BAD) is None
        openings.note(BAD)
        _die(openings)
    openings = Openings(file, RUNTIME)
    now[0] += 8 * FIRST_SECONDS + 1
    openings.note(BAD)
    openings.clear(BAD)
    _die(openings)
    _die_loading(file, BAD)
    assert Openings(file, RUNTIME).problem(BAD) is None


def test_another_runtime_starts_anew(file: Path) -> None:
    """What ended under one version is loaded under another, and counts only its own ends."""
    for _ in range(2):
        _die_loading(file, BAD)
    for _ in range(2):
        upgraded = Openings(file, "1.32.0")
        assert upgraded.problem(BAD) is None
        upgraded.note(BAD)
        _die(upgraded)
    assert Openings(file, "1.32.0").problem(BAD)


def test_ends_of_an_unknown_runtime_count_for_nothing(file: Path) -> None:
    """A file that names no runtime, as they once were, is held against nobody."""
    file.parent.mkdir()
    file.write_text(f'{{"digest":"{BAD}","ends":9,"at":1.0}}')
    assert Openings(file, RUNTIME).problem(BAD) is None


def test_a_process_that_is_told_to_stop_blames_nobody(file: Path) -> None:
    """Neither does what its loader still does after that."""
    for _ in range(3):
        openings = Openings(file, RUNTIME)
        openings.note(BAD)
        openings.close()
        openings.note(BAD)
        openings.close()
    assert Openings(file, RUNTIME).problem(BAD) is None


@pytest.mark.parametrize("content", [b"", b"nonsense", b"{}", b"\xff" * 600])
def test_what_stands_there_need_not_make_sense(file: Path, content: bytes) -> None:
    """It is as if nothing were there."""
    file.parent.mkdir()
    file.write_bytes(content)
    _die_loading(file, BAD)
    _die_loading(file, BAD)
    assert Openings(file, RUNTIME).problem(BAD)


def test_another_process_of_the_same_slot_is_no_end(file: Path) -> None:
    """Who cannot have the file to itself remembers nothing, and blames nothing that is under way."""
    first = Openings(file, RUNTIME)
    first.note(BAD)
    for _ in range(3):
        other = Openings(file, RUNTIME)
        other.note(BAD)
        assert other.problem(BAD) is None
    first.clear(BAD)
    _die(first)
    assert Openings(file, RUNTIME).problem(BAD) is None


def test_without_a_folder_nothing_is_remembered(tmp_path: Path) -> None:
    """And nothing fails."""
    blocked = tmp_path / "file"
    blocked.write_text("")
    for file in (None, blocked / "m-0"):
        openings = Openings(file, RUNTIME)
        openings.note(BAD)
        openings.clear(BAD)
        assert openings.problem(BAD) is None
        openings.close()
