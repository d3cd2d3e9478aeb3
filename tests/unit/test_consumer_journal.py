"""The journal: what a process that ended had in hand, as the next one of its slot finds it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from structlog.testing import capture_logs

from consumer.journal import MOST_RANGES, SIZE, Journal, Suspects
from scoring.batch import Incoming


def request(partition: int, offset: int) -> Incoming:
    """A request, of which only the place matters here."""
    return Incoming("m.requests", partition, offset, 0, None, b"{}")


def requests(partition: int, first: int, last: int) -> list[Incoming]:
    """Requests ``first`` … ``last``."""
    return [request(partition, offset) for offset in range(first, last + 1)]


def life(folder: Path, *batches: list[Incoming], ends: bool = True) -> Journal:
    """A process of slot 0 that scores all batches, and ends in the last one or after it."""
    journal = Journal(folder, "m-0")
    for number, batch in enumerate(batches):
        journal.note(batch)
        if not ends or number < len(batches) - 1:
            journal.clear()
            journal.acquit({each.partition: each.offset + 1 for each in batch})
    return journal


def test_what_was_in_hand_at_an_end_is_suspect(tmp_path: Path) -> None:
    """By the first and the last offset of each partition; what was scored before it is not."""
    life(tmp_path, requests(0, 0, 9), [*requests(0, 10, 14), *requests(3, 7, 8)]).close()
    found = life(tmp_path).suspects
    assert set(found) == {Suspects(0, 10, 14, 1), Suspects(3, 7, 8, 1)}


def test_a_process_that_ends_between_batches_leaves_no_suspects(tmp_path: Path) -> None:
    """Most ends are none of the model's business."""
    life(tmp_path, requests(0, 0, 9), ends=False).close()
    assert life(tmp_path).suspects == ()


def test_each_further_end_is_one_more_strike(tmp_path: Path) -> None:
    """However the batches are cut the next time; what was answered in between is free."""
    life(tmp_path, requests(0, 0, 9)).close()
    life(tmp_path, requests(0, 0, 4), requests(0, 5, 20)).close()
    assert life(tmp_path).suspects == (Suspects(0, 5, 20, 2),)


def test_suspects_whose_answers_are_committed_are_free(tmp_path: Path) -> None:
    """Only once all of them were, and for the lives after this one too."""
    life(tmp_path, requests(0, 0, 9)).close()
    journal = life(tmp_path)
    journal.acquit({0: 9, 1: 500})
    assert journal.suspects == (Suspects(0, 0, 9, 1),)
    journal.acquit({0: 10})
    assert journal.suspects == ()
    journal.close()
    assert life(tmp_path).suspects == ()


def test_what_was_found_out_is_kept(tmp_path: Path) -> None:
    """For those that were judged, under what they were judged, until the next strike."""
    for _ in range(2):
        life(tmp_path, requests(0, 0, 9)).close()
    journal = life(tmp_path)
    names = [(0, offset) for offset in range(6)]
    assert all(journal.blames(name) for name in names)
    assert journal.verdict((0, 3), "v1") is None
    journal.judge(names, "v1", {(0, 3)})
    journal.close()
    journal = life(tmp_path)
    assert [journal.verdict((0, offset), "v1") for offset in (2, 3, 5)] == [False, True, False]
    assert journal.verdict((0, 6), "v1") is None, "nobody looked at that one"
    assert journal.verdict((0, 3), "v2") is None, "another model"
    journal.close()
    life(tmp_path, requests(0, 0, 9)).close()
    assert life(tmp_path).verdict((0, 3), "v1") is None, "they were in hand once more"


def test_ends_are_counted_by_the_model_that_was_in_hand(tmp_path: Path) -> None:
    """Whatever the requests were; a model that did well since is clear."""
    for number in range(3):
        ended = Journal(tmp_path, "m-0")
        ended.note(requests(0, 10 * number, 10 * number + 9), "sha256:" + "a" * 64)
        ended.close()
    journal = Journal(tmp_path, "m-0")
    assert journal.ends == {"sha256:" + "a" * 64: 3}
    journal.cleared("sha256:" + "a" * 64)
    journal.close()
    assert Journal(tmp_path, "m-0").ends == {}


def test_a_second_process_of_the_slot_has_a_journal_of_its_own(tmp_path: Path) -> None:
    """With dynamic membership several instances of one machine may share a slot's number."""
    first = life(tmp_path, requests(0, 0, 9))
    second = Journal(tmp_path, "m-0")
    assert second.suspects == ()
    second.note(requests(1, 5, 5))
    first.close()
    second.close()
    assert Journal(tmp_path, "m-0").suspects == (Suspects(0, 0, 9, 1),)


def test_the_journal_outlives_a_sigkill(tmp_path: Path) -> None:
    """What a killed process noted is there, without it having flushed anything."""
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from tests.unit.test_consumer_journal import life, requests\n"
        "life(Path(sys.argv[1]), requests(2, 40, 49))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=root, check=False)
    assert done.returncode == -signal.SIGKILL
    assert life(tmp_path).suspects == (Suspects(2, 40, 49, 1),)


def test_a_damaged_journal_is_begun_anew(tmp_path: Path) -> None:
    """Whatever stands in the file, the process starts."""
    (tmp_path / "m-0-0.journal").write_bytes(os.urandom(SIZE))
    assert life(tmp_path).suspects == ()
    (tmp_path / "m-0-0.journal").write_bytes(b"modelwire journal 1\n" + b"\xff" * SIZE)
    assert life(tmp_path).suspects == ()


def test_without_a_folder_to_write_to_there_is_no_journal(tmp_path: Path) -> None:
    """Nothing else changes, and the log says why in words."""
    (tmp_path / "file").write_text("in the way")
    with capture_logs() as lines:
        journal = life(tmp_path / "file", requests(0, 0, 9))
    journal.close()
    assert journal.suspects == ()
    [line] = lines
    assert (line["event"], line["problem"]) == ("journal.unavailable", "File exists")
    assert "may end each next one too" in line["meaning"]


def test_a_batch_of_very_many_partitions_is_left_out(tmp_path: Path) -> None:
    """There is no room for it, and what is in the file stays whole."""
    many = [request(partition, 1) for partition in range(MOST_RANGES + 1)]
    life(tmp_path, many).close()
    assert life(tmp_path).suspects == ()
