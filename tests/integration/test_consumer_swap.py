"""Swaps under load: how long they take, and that no answer notices."""

import itertools
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from adapters.control_log import read_log
from tests.bundles import store_bundle
from tests.fleet import Harness, environment_of, wait_for

if TYPE_CHECKING:
    from tests.conftest import RunningStack

pytestmark = pytest.mark.stack

RATE = 1_000
FIVE_MEGABYTES = 5 * 1024 * 1024


@pytest.fixture
def harness(stack: "RunningStack", model: str, tmp_path: Path) -> Iterator[Harness]:
    """A model with topics of its own, and its bundles on the S3 server."""
    settings = stack.settings(f"swap-{model}")
    running = Harness(settings, environment_of(settings), model, tmp_path)
    yield running
    running.close()


def test_every_instance_serves_a_large_model_under_load(harness: Harness) -> None:
    """A 5 MB model released blue-green under 1,000 requests/s answers everywhere; the bench says when."""
    small = store_bundle(harness.store, harness.model, 1.0)
    large = store_bundle(harness.store, harness.model, 2.0, table_bytes=FIVE_MEGABYTES)
    harness.release(small)
    for slot in range(2):
        harness.start(slot)
    harness.wait_until_ready(2)
    with harness.stream(RATE) as stream:
        wait_for("a stream that flows", lambda: stream.sent > RATE)
        revision = harness.release(large)
        harness.wait_for_revision(revision, 2)
        # Answers of every instance under the new version, each stamped with its own time.
        after = stream.sent + RATE
        wait_for("a second of answers", lambda: stream.sent > after)
    [switch] = [
        each.event.time
        for each in read_log(harness.settings, harness.model).events
        if each.event.revision == revision
    ]
    answered = harness.forecasts(stream.sent)
    last_old = max(f.scored_at for f in answered if f.revision < revision) - switch
    first_new = {
        instance: min(f.scored_at for f in answers if f.revision == revision) - switch
        for instance, answers in itertools.groupby(
            sorted(answered, key=lambda f: f.instance), key=lambda f: f.instance
        )
        for answers in [list(answers)]
    }
    print(
        f"\nlast answer of the old version {_seconds(last_old)} s after the append; first of the new"
    )
    print({instance: _seconds(after) for instance, after in first_new.items()})
    assert len(first_new) == 2, "both instances answered under the new version"
    report = harness.verify()
    assert report.clean, report.findings
    assert set(report.versions) == {1, 2}


def test_swaps_and_undos_under_load_leave_no_trace_but_the_revision(harness: Harness) -> None:
    """Four switches while requests flow: one answer each, revisions only rise, champions alternate."""
    for slope in (1.0, 2.0):
        harness.release(store_bundle(harness.store, harness.model, slope))
    for slot in range(2):
        harness.start(slot)
    harness.wait_until_ready(2)
    with harness.stream(300) as stream:
        for _ in range(4):
            harness.wait_for_revision(harness.undo(), 2)
            answered = stream.sent
            wait_for("answers in between", lambda mark=answered + 100: stream.sent >= mark)
    report = harness.verify()
    assert report.clean, report.findings
    assert set(report.versions) == {1, 2}


def test_a_version_that_nothing_names_any_more_is_dropped(harness: Harness) -> None:
    """Champion, previous and the newest release stay loaded; what is older goes."""
    instance = harness.start()
    for slope in (1.0, 2.0, 3.0, 4.0):
        revision = harness.release(store_bundle(harness.store, harness.model, slope))
        harness.wait_for_revision(revision)
    prepared = wait_for(
        "two versions kept",
        lambda: next(
            (s.status.prepared for s in harness.fleet() if s.status.prepared == (3, 4)), None
        ),
    )
    assert prepared == (3, 4)
    assert [line["version"] for line in instance.lines("model.dropped")] == [1, 2]


def _seconds(span: timedelta) -> float:
    return round(span.total_seconds(), 3)
