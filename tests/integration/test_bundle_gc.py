"""``modelwire bundle gc`` on a real broker and a real store: what goes, and what never does."""

import json
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from msgspec.structs import replace

from adapters.bundles import list_bundles
from adapters.settings import load_settings
from deployment.commands import Retire
from schemas.answer_file import Kind
from schemas.events import ModelReleased
from schemas.forecast import decode_forecast, encode_forecast
from tests.answers import event_records, forecast_record, store_answers
from tests.bundles import store_bundle
from tests.conftest import RunningStack
from tests.fleet import Harness, environment_of

pytestmark = pytest.mark.stack


@pytest.fixture
def harness(stack: RunningStack, tmp_path: Path) -> Iterator[Harness]:
    """A cluster of one model: whoever looks for models finds no other test's."""
    pattern = f"gc-{uuid.uuid4().hex[:8]}-{{model}}.control"
    store = (tmp_path / "store").as_uri()
    settings = load_settings(
        state_dir=stack.info.state_dir, store_url=store, topics={"control": pattern}
    )
    environment = environment_of(settings) | {"MODELWIRE_TOPICS__CONTROL": pattern}
    made = Harness(settings, environment, f"gc-{uuid.uuid4().hex[:8]}", tmp_path)
    yield made
    made.close()


def judged(harness: Harness, *arguments: str) -> dict[str, tuple[bool, str]]:
    """Digest -> whether it stays, and why."""
    said = json.loads(harness.run("bundle", "gc", "-o", "json", *arguments))
    return {each["digest"]: (each["stays"], each["why"]) for each in said["bundles"]}


def test_only_what_nothing_asks_for_goes_and_only_when_told(harness: Harness) -> None:
    """A version that never served goes once retired; what serves, served lately or is new stays."""
    first, second, withdrawn, unreleased = (
        store_bundle(harness.store, harness.model, float(number)) for number in range(4)
    )
    harness.release(first)
    harness.release(second)
    harness.release(withdrawn, start=False)
    harness.command(Retire(1))
    assert judged(harness)[withdrawn] == (True, f"{harness.model}:3 may serve; retire it first")
    harness.command(Retire(3))
    found = judged(harness)
    assert found == {
        first: (True, f"{harness.model}:1 answered until {datetime.now(UTC):%Y-%m-%d}"),
        second: (True, f"{harness.model}:2 serves"),
        withdrawn: (False, f"{harness.model}:3 is retired, and no kept answer refers to it"),
        unreleased: (False, "no model of this cluster ever released it"),
    }
    assert judged(harness, "--grace-days", "100000")[unreleased][0], (
        "it may be about to be released"
    )
    assert set(list_bundles(harness.store)) == set(found), "a dry run"
    assert "2 would be removed; --yes removes them" in harness.run("bundle", "gc")
    judged(harness, "--yes")
    assert set(list_bundles(harness.store)) == {first, second}
    assert not [key for key in harness.store.list() if withdrawn[7:] in key]


def test_a_kept_answer_keeps_its_bundle(harness: Harness) -> None:
    """Even where no log tells of it: here one of a version that never served."""
    withdrawn = store_bundle(harness.store, harness.model, 1.0)
    harness.release(withdrawn, start=False)
    harness.command(Retire(1))
    assert judged(harness)[withdrawn][0] is False
    record = forecast_record(harness.model, 7, datetime.now(UTC))
    said = replace(decode_forecast(record.value or b""), digest=withdrawn)
    record = replace(record, value=encode_forecast(said))
    store_answers(harness.store, Kind.FORECASTS, harness.model, [record])
    assert judged(harness, "--yes")[withdrawn] == (True, "1 kept answers refer to it")
    assert list(list_bundles(harness.store)) == [withdrawn]


def test_answers_of_a_model_that_is_gone_keep_their_bundle(harness: Harness) -> None:
    """Its topics were removed, and its files can be asked for."""
    digest = store_bundle(harness.store, harness.model, 1.0)
    assert judged(harness)[digest][0] is False
    record = forecast_record("gone", 7, datetime.now(UTC))
    said = replace(decode_forecast(record.value or b""), digest=digest)
    record = replace(record, value=encode_forecast(said))
    store_answers(harness.store, Kind.FORECASTS, "gone", [record])
    events = event_records("gone", ModelReleased(1, digest), at=datetime.now(UTC))
    store_answers(harness.store, Kind.CONTROL, "gone", events)
    assert judged(harness)[digest] == (True, "1 kept answers refer to it")


def test_a_log_that_cannot_be_read_removes_nothing(harness: Harness) -> None:
    """Its bundles would look as if nobody had released them."""
    withdrawn = store_bundle(harness.store, harness.model, 1.0)
    harness.release(withdrawn, start=False)
    harness.command(Retire(1))
    released = ModelReleased(1, withdrawn)
    out_of_order = event_records(harness.model, released, released)[1]
    producer = harness.producer()
    producer.produce(harness.topics.control, out_of_order.value, partition=0)
    assert producer.flush(10) == 0
    said = harness.run("bundle", "gc", "--yes", code=1)
    assert f"the control log of {harness.model}" in said
    assert list(list_bundles(harness.store)) == [withdrawn]
