"""Shadows on real consumers: every request scored beside its answer, and no harm done by any of them."""

import json
from collections import Counter, defaultdict

import pytest
from confluent_kafka import TopicCollection
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource

from deployment.commands import Abort, Release, Start, Strategy
from deployment.routing import bucket
from schemas.events import ModelReleased
from schemas.fleet import Tally
from schemas.forecast import Forecast, Variant, decode_forecast
from tests.broker_proxy import (
    END_TXN,
    METADATA,
    NOT_AUTHORIZED,
    PRODUCE,
    TRANSACTION_ABORTABLE,
    BrokerProxy,
)
from tests.bundles import expected, store_bundle
from tests.fleet import Harness, wait_for

pytestmark = pytest.mark.stack

WHOLE = 10_000
TOO_MUCH = b'{"request_id":"r","inputs":{"item":"a","units":1e9,"date":"2011-12-09"}}'
"""A request whose answer is beyond a float32 for a slope of 1e31, and a number for smaller ones."""


def _champion(harness: Harness, **settings: str) -> None:
    """Version 1, of slope 1, answers on one instance."""
    harness.release(store_bundle(harness.store, harness.model, 1.0))
    harness.start(**settings)
    harness.wait_until_ready()


def _shadow(harness: Harness, slope: float, *, share: int = WHOLE, layers: int = 0) -> int:
    """A shadow of this slope is at work; returns its version. Its salt is ``dark``."""
    digest = store_bundle(harness.store, harness.model, slope, layers=layers)
    [released] = harness.command(Release(digest, None, "unused"))
    assert isinstance(released.data, ModelReleased)
    version = released.data.version
    harness.command(Start(version, Strategy.SHADOW, "dark", share=share))

    def at_work() -> bool:
        applied = harness.instances[0].lines("snapshot.applied")
        return version in applied[-1]["shadows"]

    wait_for(f"a snapshot with shadow {version}", at_work)
    return version


def _shadow_records(harness: Harness, count: int) -> list[tuple[bytes, Forecast]]:
    """Keys and answers on the shadow topic, at least ``count``."""
    records = harness.records(harness.topics.shadow, count)
    return [(each.key or b"", decode_forecast(each.value or b"")) for each in records]


def _tallies(harness: Harness) -> dict[tuple[int, str], Tally]:
    """The tallies that the one instance announced last, by version and variant."""
    [sighting] = harness.fleet()
    return {(tally.version, tally.variant): tally for tally in sighting.status.tallies}


def _wait_for_shadow(harness: Harness, version: int, handled: int, *, failed: int = 0) -> Tally:
    """The shadow's tally, once so many requests have come to something, so many of them failed."""

    def look() -> Tally | None:
        tally = _tallies(harness).get((version, Variant.SHADOW))
        if tally is None or tally.failed < failed:
            return None
        done = tally.answered + tally.rejected + tally.shed + tally.failed
        return tally if done >= handled else None

    return wait_for(f"{handled} requests in the tally of shadow {version}", look)


def _assert_unharmed(harness: Harness, count: int) -> None:
    """The champion answered every request once, as the checker sees it."""
    report = harness.verify()
    assert report.clean, report.findings
    assert {each.version for each in harness.forecasts(count)} == {1}


def test_two_shadows_score_every_request_beside_its_answer(harness: Harness) -> None:
    """Each gives its own numbers for the very requests, while the champion answers them all."""
    _champion(harness)
    slopes = {_shadow(harness, slope): slope for slope in (2.0, 3.0)}
    harness.send(600)
    found = defaultdict(list)
    for key, forecast in _shadow_records(harness, 1_200):
        source, version = forecast.source, forecast.version
        assert key == f"{source.partition}/{source.offset}/{version}".encode()
        assert forecast.variant is Variant.SHADOW
        inputs = json.loads(bytes(forecast.inputs))
        value = expected(slopes[version], inputs["item"], inputs["units"])
        assert forecast.outputs == {"forecast": value}
        found[version].append((source.partition, source.offset))
    answered = sorted((f.source.partition, f.source.offset) for f in harness.forecasts(600))
    assert {version: sorted(places) for version, places in found.items()} == dict.fromkeys(
        slopes, answered
    )
    _assert_unharmed(harness, 600)
    for version in slopes:
        tally = _wait_for_shadow(harness, version, 600)
        assert (tally.answered, tally.rejected, tally.shed, tally.failed) == (600, 0, 0, 0)
    assert _tallies(harness)[1, Variant.CHAMPION].answered == 600
    [sighting] = harness.fleet()
    assert sighting.status.lag == 0


def test_a_shadow_of_a_fifth_scores_the_keys_whose_bucket_is_below(harness: Harness) -> None:
    """The keys that a canary of the same salt and weight would move, and all of theirs."""
    _champion(harness)
    version = _shadow(harness, 2.0, share=2_000)
    harness.send(970)
    scored = {number for number in range(97) if bucket("dark", f"key-{number}".encode()) < 2_000}
    _wait_for_shadow(harness, version, 10 * len(scored))
    counted = Counter(
        int(forecast.request_id.removeprefix("r-")) % 97
        for _, forecast in _shadow_records(harness, 10 * len(scored))
    )
    assert counted == dict.fromkeys(scored, 10)
    _assert_unharmed(harness, 970)


def test_a_request_that_is_answered_again_is_shadowed_under_the_same_key(harness: Harness) -> None:
    """What an aborted transaction had answered is shadowed once more; each repeat has its key."""
    proxy = BrokerProxy(harness.settings.kafka.bootstrap_servers)
    try:
        _champion(harness, KAFKA__BOOTSTRAP_SERVERS=proxy.address)
        _shadow(harness, 2.0)
        proxy.refuse(END_TXN, TRANSACTION_ABORTABLE)
        harness.send(50)
        [instance] = harness.instances
        aborted = wait_for("an abort", lambda: instance.lines("transaction.aborted"))
        repeated = sum(line["answers"] for line in aborted)
        assert 0 < repeated <= 50
        keys = Counter(key for key, _ in _shadow_records(harness, 50 + repeated))
        assert (len(keys), keys.total()) == (50, 50 + repeated)
        assert set(keys.values()) <= {1, 2}
        _assert_unharmed(harness, 50)
    finally:
        proxy.close()


def _prepared(harness: Harness) -> tuple[int, ...]:
    return next((s.status.prepared for s in harness.fleet() if s.alive), ())


def test_a_shadow_topic_that_is_missing_harms_nothing_and_is_counted(harness: Harness) -> None:
    """The instance starts without it, and its status says what became of the shadow's answers."""
    admin = AdminClient({"bootstrap.servers": harness.settings.kafka.bootstrap_servers})
    topic = harness.topics.shadow
    admin.delete_topics([topic])[topic].result()

    def gone() -> bool:
        try:
            admin.describe_topics(TopicCollection([topic]))[topic].result()
        except Exception:  # noqa: BLE001 - what it raises is what is waited for
            return True
        return False

    wait_for("the topic's end", gone)
    _champion(harness)
    version = _shadow(harness, 2.0)
    harness.send(200)
    _assert_unharmed(harness, 200)
    tally = _wait_for_shadow(harness, version, 200, failed=200)
    assert (tally.answered, tally.rejected, tally.shed, tally.failed) == (0, 0, 0, 200)
    assert harness.instances[0].lines("shadow.not_taken")
    assert harness.instances[0].terminate() == 0


@pytest.mark.parametrize("kind", [METADATA, PRODUCE], ids=["describe", "write"])
def test_a_shadow_topic_without_permission_harms_nothing_and_is_counted(
    harness: Harness, kind: int
) -> None:
    """An instance that may not describe the topic, or not write to it, answers all the same."""
    proxy = BrokerProxy(harness.settings.kafka.bootstrap_servers)
    try:
        proxy.deny(harness.topics.shadow, kind, NOT_AUTHORIZED)
        _champion(harness, KAFKA__BOOTSTRAP_SERVERS=proxy.address)
        version = _shadow(harness, 2.0)
        harness.send(200)
        _assert_unharmed(harness, 200)
        tally = _wait_for_shadow(harness, version, 200, failed=200)
        assert (tally.answered, tally.rejected, tally.shed, tally.failed) == (0, 0, 0, 200)
        assert proxy.struck.is_set()
        [complaint] = harness.instances[0].lines("shadow.not_taken")
        assert "AUTHORIZATION_FAILED" in complaint["error"]
        assert _shadow_records(harness, 0) == []
        assert harness.instances[0].terminate() == 0
    finally:
        proxy.close()


def test_answers_that_the_shadow_topic_does_not_take_are_counted(harness: Harness) -> None:
    """A topic whose limit is below every answer refuses them all; nothing else notices."""
    admin = AdminClient({"bootstrap.servers": harness.settings.kafka.bootstrap_servers})
    limit = ConfigEntry("max.message.bytes", "100", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(
        ConfigResource.Type.TOPIC, harness.topics.shadow, incremental_configs=[limit]
    )
    admin.incremental_alter_configs([resource])[resource].result()
    _champion(harness)
    version = _shadow(harness, 2.0)
    harness.send(200)
    _assert_unharmed(harness, 200)
    tally = _wait_for_shadow(harness, version, 200, failed=200)
    assert (tally.answered, tally.rejected, tally.shed, tally.failed) == (0, 0, 0, 200)


def test_rows_that_a_shadow_cannot_answer_are_counted(harness: Harness) -> None:
    """Where the shadow's number is none, it is rejected in the tally, and the champion answers."""
    _champion(harness)
    version = _shadow(harness, 1e31)
    harness.send(100)
    harness.send_raw([TOO_MUCH] * 20)
    tally = _wait_for_shadow(harness, version, 120)
    assert (tally.answered, tally.rejected, tally.shed, tally.failed) == (100, 20, 0, 0)
    assert len(_shadow_records(harness, 100)) == 100
    _assert_unharmed(harness, 120)


def test_a_slow_shadow_sheds_and_ends_without_delay(harness: Harness) -> None:
    """The champion answers everything; what the shadow leaves out is counted; a stop is a stop."""
    _champion(harness, CONSUMER__SHADOW_QUEUE_KILOBYTES="64")
    version = _shadow(harness, 2.0, layers=500)

    def shed() -> int:
        tally = _tallies(harness).get((version, Variant.SHADOW))
        return 0 if tally is None else tally.shed

    with harness.stream(1_000) as stream:
        wait_for("requests that it left out", lambda: shed() > 500)
    report = harness.verify()
    assert report.clean, report.findings
    tally = _wait_for_shadow(harness, version, stream.sent)
    assert tally.answered + tally.shed == stream.sent
    assert tally.answered > 0
    with harness.stream(1_000) as stream:
        wait_for("work for the shadow", lambda: stream.sent > 500)
        assert harness.instances[0].terminate() == 0


def test_a_shadow_that_is_aborted_stops_and_its_model_is_dropped(harness: Harness) -> None:
    """Nothing more is scored; once nothing waits for it, the loader drops the version."""
    _champion(harness)
    version = _shadow(harness, 2.0)
    harness.send(100)
    _wait_for_shadow(harness, version, 100)
    [rollout] = [t.rollout for t in _tallies(harness).values() if t.variant == "shadow"]
    newer = store_bundle(harness.store, harness.model, 3.0)
    harness.release(newer, start=False)
    harness.wait_for_revision(harness.command(Abort(rollout))[-1].event.revision)
    wait_for("the drop", lambda: _prepared(harness) == (1, 3))
    harness.send(100)
    _assert_unharmed(harness, 200)
    assert len(_shadow_records(harness, 100)) == 100
    assert set(_tallies(harness)) == {(1, "champion")}
