"""What a topic's retention removed before it was copied: told where it held answers, and only there."""

import pytest
from confluent_kafka import TopicPartition

from adapters.answer_files import read_footer
from adapters.answer_source import AnswerSource, Place
from adapters.kafka import admin
from schemas.answer_file import NO_DAY, Kind
from tests.fleet import Harness
from tests.kept_answers import checked, files_hold, run_once, start_sink, store_of
from tests.written_answers import Scribe, topics_hold

pytestmark = pytest.mark.stack


def remove_until(harness: Harness, topic: str, partition: int, offset: int) -> None:
    """What retention does to a partition."""
    with admin(harness.settings) as asked:
        place = TopicPartition(topic, partition, offset)
        for each in asked.results(asked.client.delete_records([place])).values():
            assert each.low_watermark == offset


def test_what_was_gone_before_the_audit_began_is_no_loss(harness: Harness) -> None:
    """The chain begins with a file that says so."""
    Scribe(harness).write(600)
    remove_until(harness, harness.topics.results, 1, 50)
    sink = start_sink(harness, "--once")
    assert sink.wait_for_exit() == 0
    assert sink.lines("audit.begins_late")[0]["next"] == 50
    assert not sink.lines("audit.gap")
    store = store_of(harness)
    first = next(name for name in store.names(Kind.FORECASTS) if name.partition == 1)
    assert (first.first, first.day) == (0, NO_DAY)
    assert read_footer(store.read(first), first).is_gap
    assert files_hold(harness) == topics_hold(harness)
    assert checked(harness)["clean"]


def test_answers_that_retention_removed_before_they_were_copied_are_told(harness: Harness) -> None:
    """In an error's line, by the check, and by a file that the chain goes on from."""
    scribe = Scribe(harness)
    scribe.write(600)
    run_once(harness)
    scribe.write(600)
    kept = files_hold(harness)[Kind.FORECASTS]
    copied = max(offset for partition, offset in kept if partition == 2) + 1
    remove_until(harness, harness.topics.results, 2, copied + 40)
    sink = start_sink(harness, "--once")
    assert sink.wait_for_exit() == 0
    (line,) = sink.lines("audit.gap")
    assert line["level"] == "error"
    assert (line["partition"], line["next"]) == (2, copied + 40)
    (finding,) = checked(harness)["findings"]
    assert finding["what"] == "lost"
    assert kept.keys() | topics_hold(harness)[Kind.FORECASTS].keys() == (
        files_hold(harness)[Kind.FORECASTS].keys()
    )


def test_marks_of_transactions_that_retention_removed_are_no_loss(harness: Harness) -> None:
    """What was aborted behind the last file is nobody's answer, however often the sink starts again."""
    scribe = Scribe(harness)
    scribe.write(600)
    run_once(harness)
    names = store_of(harness).names(Kind.FORECASTS)
    last = max((name for name in names if name.partition == 1), key=lambda name: name.first)
    end = read_footer(store_of(harness).read(last), last).next
    scribe.abort(1, 40)
    run_once(harness)
    source = AnswerSource(harness.settings, harness.model)
    place = Place(Kind.FORECASTS, 1)
    left = source.committed([place])[place]
    source.close()
    assert (left.next, left.clear) == (end, end + 41)
    remove_until(harness, harness.topics.results, 1, left.clear)
    for _ in range(2):
        sink = start_sink(harness, "--once")
        assert sink.wait_for_exit() == 0
        assert not sink.lines("audit.gap")
    scribe.write(600)
    kept = files_hold(harness)[Kind.FORECASTS]
    run_once(harness)
    assert checked(harness)["clean"]
    assert kept.keys() | topics_hold(harness)[Kind.FORECASTS].keys() == (
        files_hold(harness)[Kind.FORECASTS].keys()
    )
