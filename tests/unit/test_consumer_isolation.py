"""Isolation: what is found out about suspects, when, and for how long it holds."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from consumer.isolation import Isolation
from consumer.journal import Journal
from deployment.routing import Routing
from schemas.errors import ModelwireError
from scoring.batch import Incoming
from scoring.snapshot import LoadedVersion, Snapshot, load
from tests.bundles import contract

LIMIT_SECONDS = 60.0
VERSION = load(1, "sha256:" + "1" * 64, contract(), model=None)  # type: ignore[arg-type]
SNAPSHOT = Snapshot("m", 3, "log:3:head", Routing(1, None, 0, ""), VERSION, None)


def requests(first: int, last: int) -> list[Incoming]:
    """Requests of partition 0 whose units are their offsets."""
    return [
        Incoming("m.requests", 0, offset, 0, b"key", msgspec.json.encode(body(offset)))
        for offset in range(first, last + 1)
    ]


def body(offset: int) -> dict[str, object]:
    """A good request."""
    inputs = {"item": "a", "units": float(offset), "date": "2011-12-09"}
    return {"request_id": f"r-{offset}", "inputs": inputs}


class Deadly:
    """A probe of a model that dies of these units. ``asked`` is what it was asked, in order."""

    def __init__(self, *units: float) -> None:
        self.units = set(units)
        self.asked: list[list[float]] = []
        self.fails = False

    def deadly(self, version: LoadedVersion, inputs: Sequence[bytes]) -> frozenset[int]:
        """As ``consumer.isolation.Probe``."""
        if self.fails:
            raise ModelwireError("no bundle")
        units = [msgspec.json.decode(each)["units"] for each in inputs]
        self.asked.append(units)
        return frozenset(place for place, each in enumerate(units) if each in self.units)


def isolation(folder: Path, probe: Deadly, ends: int, last: int = 9) -> Isolation:
    """What a process finds after so many ends with requests 0 … ``last`` in hand."""
    for _ in range(ends):
        ended = Journal(folder, "m-0")
        ended.note(requests(0, last))
        ended.close()
    return Isolation(Journal(folder, "m-0"), probe, LIMIT_SECONDS)


def test_one_end_changes_nothing(tmp_path: Path) -> None:
    """Most ends have other reasons."""
    probe = Deadly(4.0)
    found = isolation(tmp_path, probe, ends=1)
    assert not found.is_suspect(SNAPSHOT, requests(0, 9))
    with found.in_hand(SNAPSHOT, requests(0, 9)) as deadly:
        assert not deadly
    assert probe.asked == []


def test_after_two_ends_the_rows_at_fault_are_left_out(tmp_path: Path) -> None:
    """Only what was in hand is looked at, once; the rest of the batch is as ever."""
    probe = Deadly(4.0, 12.0)
    found = isolation(tmp_path, probe, ends=2)
    batch = requests(2, 15)
    assert found.is_suspect(SNAPSHOT, batch)
    found.take_apart(SNAPSHOT, batch)
    assert probe.asked == [[float(offset) for offset in range(2, 10)]]
    assert not found.is_suspect(SNAPSHOT, batch)
    with found.in_hand(SNAPSHOT, batch) as deadly:
        assert deadly == {(0, 4)}


def test_what_was_found_out_outlives_the_process(tmp_path: Path) -> None:
    """A life that ends for another reason, between batches, need not find it out again."""
    probe = Deadly(4.0)
    first = isolation(tmp_path, probe, ends=2)
    first.take_apart(SNAPSHOT, requests(0, 9))
    first._journal.close()
    second = Isolation(Journal(tmp_path, "m-0"), probe, LIMIT_SECONDS)
    assert not second.is_suspect(SNAPSHOT, requests(0, 9))
    with second.in_hand(SNAPSHOT, requests(0, 9)) as deadly:
        assert deadly == {(0, 4)}


def test_another_model_is_looked_at_anew(tmp_path: Path) -> None:
    """After an undo the rows may be harmless, and are answered."""
    probe = Deadly(4.0)
    found = isolation(tmp_path, probe, ends=2)
    found.take_apart(SNAPSHOT, requests(0, 9))
    other = replace(SNAPSHOT, champion=replace(VERSION, digest="sha256:" + "2" * 64))
    assert found.is_suspect(other, requests(0, 9))
    with found.in_hand(other, requests(0, 9)) as deadly:
        assert not deadly


def test_what_cannot_be_found_out_is_an_error(tmp_path: Path) -> None:
    """Nothing is condemned, and the next life tries again."""
    probe = Deadly(4.0)
    found = isolation(tmp_path, probe, ends=2)
    probe.fails = True
    with pytest.raises(ModelwireError):
        found.take_apart(SNAPSHOT, requests(0, 9))
    assert found.is_suspect(SNAPSHOT, requests(0, 9))


def test_what_never_reaches_a_model_is_harmless(tmp_path: Path) -> None:
    """A request that is none is rejected for what it is."""
    probe = Deadly(4.0)
    found = isolation(tmp_path, probe, ends=2)
    poison = [*requests(0, 3), Incoming("m.requests", 0, 4, 0, None, b"poison")]
    found.take_apart(SNAPSHOT, poison)
    assert probe.asked == [[0.0, 1.0, 2.0, 3.0]]
    with found.in_hand(SNAPSHOT, poison) as deadly:
        assert not deadly


def test_committed_answers_end_the_matter(tmp_path: Path) -> None:
    """By this process or by another one: the requests will not come again."""
    found = isolation(tmp_path, Deadly(4.0), ends=2)
    found.committed({0: 10})
    assert not found.is_suspect(SNAPSHOT, requests(0, 9))
