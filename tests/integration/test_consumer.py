"""Real consumer processes on a real broker: answering, waiting, refusing, stopping."""

import json
import time
from collections import Counter

import pytest

from schemas.fleet import InstanceStatus, Phase
from schemas.rejection import ENVELOPE_HEADER, Reason
from tests.broker_proxy import BrokerProxy
from tests.bundles import expected, store_bundle, store_corrupt_bundle
from tests.fleet import PARTITIONS, Harness, wait_for
from tests.traffic import good_request

pytestmark = pytest.mark.stack


def test_every_request_is_answered_by_the_champion(harness: Harness) -> None:
    """Each forecast echoes its request, names version, revision and source, and is the model's value."""
    digest = store_bundle(harness.store, harness.model, 3.0)
    revision = harness.release(digest)
    harness.start()
    harness.wait_until_ready()
    harness.send(500, item="b")
    forecasts = harness.forecasts(500)
    assert len(forecasts) == 500
    for forecast in forecasts:
        inputs = json.loads(bytes(forecast.inputs))
        assert forecast.outputs == {"forecast": expected(3.0, inputs["item"], inputs["units"])}
        assert (forecast.version, forecast.digest, forecast.revision) == (1, digest, revision)
        assert forecast.source.topic == harness.topics.requests
        assert forecast.instance == f"modelwire-{harness.model}-0"
    assert {forecast.source.partition for forecast in forecasts} == set(range(PARTITIONS))
    report = harness.verify()
    assert report.clean, report.findings


def test_a_repeated_request_id_is_answered_again(harness: Harness) -> None:
    """An answer's identity is where its request lay; the id is the caller's and may repeat."""
    harness.release(store_bundle(harness.store, harness.model, 3.0))
    harness.start()
    harness.send(20)
    harness.send(20)
    answered = Counter(forecast.request_id for forecast in harness.forecasts(40))
    assert answered == Counter({f"r-{number}": 2 for number in range(20)})


def test_without_a_champion_it_waits_and_says_so(harness: Harness) -> None:
    """A consumer outside the group announces what it waits for, and joins once a version is started."""
    instance = harness.start()
    line = instance.wait_for_line("consumer.phase")
    assert (line["phase"], "no champion yet" in line["detail"]) == ("waiting", True)
    digest = store_bundle(harness.store, harness.model, 1.0)
    harness.release(digest, start=False)
    status = wait_for(
        "the released version prepared without traffic",
        lambda: next((s.status for s in harness.fleet() if s.status.prepared == (1,)), None),
    )
    assert (status.phase, status.champion, status.partitions) == (Phase.WAITING, None, ())
    second = store_bundle(harness.store, harness.model, 2.0)
    harness.release(second)
    harness.wait_until_ready()
    harness.send(10)
    assert {forecast.version for forecast in harness.forecasts(10)} == {2}


def test_bad_bundles_are_refused_and_the_old_model_goes_on(harness: Harness) -> None:
    """Bundles that fall on a rung change nothing but the fleet topic, until one comes that passes."""
    harness.release(store_bundle(harness.store, harness.model, 1.0))
    instance = harness.start()
    harness.wait_until_ready()
    bad = {
        "golden": store_bundle(harness.store, harness.model, 2.0, golden_slope=2.5),
        "digest": store_corrupt_bundle(harness.store, harness.model, 3.0),
        "fetch": f"sha256:{'0' * 64}",
    }
    # The release itself asks for nothing, so its revisions are applied; the switch is not.
    before_switch, *_ = (harness.release(digest) - 1 for digest in bad.values())

    def look() -> InstanceStatus | None:
        [sighting] = harness.fleet()
        return sighting.status if len(sighting.status.refused) == len(bad) else None

    status = wait_for("the refusals on the fleet topic", look)
    assert sorted((r.version, r.rung) for r in status.refused) == list(enumerate(bad, 2))
    assert all(refusal.reason for refusal in status.refused)
    assert (status.phase, status.champion, status.revision) == (Phase.READY, 1, before_switch)
    assert len(instance.lines("model.refused")) == len(bad)
    harness.send(100)
    assert {(f.version, f.revision) for f in harness.forecasts(100)} == {(1, before_switch)}
    better = store_bundle(harness.store, harness.model, 4.0)
    harness.wait_for_revision(harness.release(better))
    harness.send(100)
    assert {f.version for f in harness.forecasts(200)} == {1, 5}
    report = harness.verify()
    assert report.clean, report.findings


def test_poison_is_rejected_with_reasons_and_its_own_bytes(harness: Harness) -> None:
    """Each bad request becomes one rejection that keeps the bytes; the good ones between are answered."""
    harness.release(store_bundle(harness.store, harness.model, 1.0))
    harness.start()
    harness.wait_until_ready()
    good = good_request(7, "a")
    poison: list[tuple[bytes | None, Reason]] = [
        (b"", Reason.EMPTY),
        (None, Reason.TOMBSTONE),
        (b"not json", Reason.NOT_JSON),
        (b"\xff\xfe{}", Reason.NOT_UTF8),
        (good.replace(b'"units": 7.0, ', b""), Reason.MISSING_FIELD),
        (good.replace(b'"units"', b'"stock": 1, "units"'), Reason.UNKNOWN_FIELD),
        (good.replace(b"7.0", b'"seven"'), Reason.WRONG_TYPE),
        (good.replace(b"7.0", b"NaN"), Reason.NOT_A_NUMBER),
        (good.replace(b"7.0", b"2e9"), Reason.OUT_OF_RANGE),
        (good.replace(b"2011-12-09", b"1999-12-31"), Reason.OUTSIDE_HORIZON),
        (good.replace(b'"units"', b'"item": "b", "units"'), Reason.DUPLICATE_KEY),
        (good + b" " * 70_000, Reason.TOO_LARGE),
        (b'{"request_id": "r", "inputs": ' + b"[" * 5_000 + b"]" * 5_000 + b"}", Reason.TOO_DEEP),
    ]
    harness.send_raw([value for bad, _ in poison for value in (bad, good)])
    rejections = harness.rejections(len(poison))
    by_offset = sorted(rejections, key=lambda rejected: rejected.rejection.source.offset)
    assert [rejected.rejection.reason for rejected in by_offset] == [why for _, why in poison]
    for rejected, (value, _) in zip(by_offset, poison, strict=True):
        assert rejected.key == b"key"
        assert rejected.rejection.detail
        if value:
            assert rejected.value == value
            assert ENVELOPE_HEADER not in rejected.headers
        else:
            assert ENVELOPE_HEADER in rejected.headers
    assert len(harness.forecasts(len(poison))) == len(poison)
    report = harness.verify()
    assert report.clean, report.findings


def test_sigterm_commits_says_goodbye_and_exits_with_0(harness: Harness) -> None:
    """After a SIGTERM under load it is off the fleet with nothing open, and a restart goes on."""
    harness.release(store_bundle(harness.store, harness.model, 1.0))
    instance = harness.start()
    harness.wait_until_ready()
    with harness.stream(500) as stream:
        wait_for("some answers", lambda: stream.sent > 500)
        began = time.monotonic()
        assert instance.terminate() == 0
        print(f"\nstopped in {time.monotonic() - began:.2f} s")
        assert harness.fleet() == []
        harness.start()
        wait_for("more requests", lambda: stream.sent > 1_500)
    report = harness.verify()
    assert report.clean, report.findings
    assert "Traceback" not in instance.text


def test_a_waiting_instance_stops_as_cleanly(harness: Harness) -> None:
    """One that never had a champion leaves the fleet on a signal, and exits with 0."""
    instance = harness.start()
    instance.wait_for_line("consumer.phase")
    assert instance.terminate() == 0
    assert harness.fleet() == []


def test_dynamic_members_hand_over_at_once_on_a_clean_stop(harness: Harness) -> None:
    """With dynamic membership names are random, and a stopped member's partitions do not wait."""
    harness.release(store_bundle(harness.store, harness.model, 1.0))
    dynamic = {"CONSUMER__MEMBERSHIP": "dynamic"}
    harness.start(0, **dynamic)
    harness.wait_until_ready()
    # Whoever has to wait for the end of this session does not come to the end of the test.
    leaving = harness.start(0, **dynamic, CONSUMER__SESSION_TIMEOUT_MS="72000")
    harness.wait_until_ready(2)
    with harness.stream(300) as stream:
        wait_for("some requests", lambda: stream.sent > 300)
        assert leaving.terminate() == 0
        harness.wait_until_ready(1, seconds=60)
    report = harness.verify()
    assert report.clean, report.findings


def test_missing_topics_are_named_with_the_command_that_makes_them(harness: Harness) -> None:
    """A model without topics ends the start with exit code 4 and no traceback."""
    harness.model = "nobody-made-this"
    instance = harness.start()
    assert instance.wait_for_exit() == 4
    assert "nobody-made-this.control" in instance.text
    assert "modelwire topics create nobody-made-this" in instance.text
    assert "Traceback" not in instance.text


def test_a_broker_that_is_away_is_waited_for_with_a_line(harness: Harness) -> None:
    """Without a broker the start says what it waits for, and still stops cleanly."""
    instance = harness.start(KAFKA__BOOTSTRAP_SERVERS="127.0.0.1:1")
    line = instance.wait_for_line("broker.away")
    assert "127.0.0.1:1" in line["problem"]
    assert instance.terminate() == 0


def test_a_broker_that_comes_back_in_time_is_served(harness: Harness) -> None:
    """A start that began without a broker goes on as if nothing had been, once there is one."""
    harness.release(store_bundle(harness.store, harness.model, 1.0))
    proxy = BrokerProxy(harness.settings.kafka.bootstrap_servers)
    proxy.go_away()
    harness.send(20)
    instance = harness.start(KAFKA__BOOTSTRAP_SERVERS=proxy.address)
    instance.wait_for_line("broker.away")
    proxy.heal()
    assert len(harness.forecasts(20)) == 20
    assert instance.terminate() == 0
    proxy.close()


@pytest.mark.chaos
def test_a_broker_that_stays_away_ends_the_start(harness: Harness) -> None:
    """After half a minute it says which address it tried, and what to look at, and exits with 1."""
    instance = harness.start(KAFKA__BOOTSTRAP_SERVERS="127.0.0.1:1")
    assert instance.wait_for_exit() == 1
    assert "no Kafka broker answered" in instance.text
    assert "127.0.0.1:1" in instance.text
    assert "modelwire doctor" in instance.text
    assert "Traceback" not in instance.text
