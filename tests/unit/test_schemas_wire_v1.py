"""What version 1 wrote is read by today's code: control log, requests, answers, status, manifest.

The files in ``tests/fixtures/wire/v1`` are never edited. Where one of these tests fails, the change
that made it fail breaks what is stored in somebody's topics and buckets.
"""

import base64
import json
from datetime import UTC, date, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import msgspec
import pytest

from deployment.ledger import Ledger, StampVerdict, Unaccepted
from deployment.routing import Routing, routing_of
from deployment.state import Standing
from schemas.codec import compile_inputs
from schemas.contract import Beyond
from schemas.events import EVENT_TYPES
from schemas.fleet import Phase, Refused, Runtime, decode_status
from schemas.forecast import Source, Variant, decode_forecast
from schemas.manifest import decode_manifest
from schemas.rejection import ENVELOPE_HEADER, Reason, Rejection, read_rejection
from schemas.request import decode_request

V1 = Path(__file__).parents[1] / "fixtures" / "wire" / "v1"
START = datetime(2026, 1, 1, 12, tzinfo=UTC)

PINNED = {
    "control-log.jsonl": "04311d4fa8ac01b8fb9a113fa6a2181ad3eeb1707e928f86acd131ec669f4c90",
    "fleet-status.json": "d918fa2719307e60ecf9fd73835dfe2e81813c9167724fcc85b7e3a75ce7b472",
    "forecasts.jsonl": "666211eba4e395fde4cb3fc8b35bcce689dd17ab65ed5d12c08df7751dc15bcb",
    "manifest.json": "643f20e8f6c067a3ec37faf19dacef10c29f0da7d955adf7140a3aeed1ac930b",
    "rejections.json": "6dc8f7461f599429a120ad788d1daa87dfa4327920abd5b4e09e67ae84aef5be",
    "requests.jsonl": "7ceba394db3c1f580bb5d3a7230e09c1e845adf59379a8bc600073503bff864f",
}


def lines(name: str) -> list[bytes]:
    """The lines of a file of v1."""
    return (V1 / name).read_bytes().splitlines()


def digest(name: str) -> str:
    """The digest that stands for a file called ``name``."""
    return f"sha256:{sha256(name.encode()).hexdigest()}"


def test_the_files_are_those_that_were_written() -> None:
    """No byte of v1 has changed since."""
    found = {path.name: sha256(path.read_bytes()).hexdigest() for path in V1.iterdir()}
    assert found == PINNED


def read_log() -> Ledger:
    """The ledger after the whole log; its one stray record is not accepted."""
    ledger = Ledger("sales")
    stray = [raw for raw in lines("control-log.jsonl") if isinstance(ledger.take(raw), Unaccepted)]
    assert stray == [b'{"this":"is no event"}']
    return ledger


def test_the_control_log_folds_to_its_state() -> None:
    """Champion, previous, rollout and standings are what the 18 events say."""
    deployment = read_log().deployment
    assert deployment.revision == 18
    assert (deployment.champion, deployment.previous) == (1, None)
    assert deployment.rollout is not None
    assert (deployment.rollout.revision, deployment.rollout.strategy) == (15, "canary")
    assert routing_of(deployment) == Routing(champion=1, candidate=4, weight=5_000, salt="salt-4")
    assert {number: release.standing for number, release in deployment.releases.items()} == {
        1: Standing.RELEASED,
        2: Standing.REVOKED,
        3: Standing.RETIRED,
        4: Standing.RELEASED,
    }
    second = deployment.releases[2]
    assert (second.digest, second.revision) == (digest("bundle 2"), 4)
    assert (second.actor, second.reason) == ("anna@example.org", "naïve, but better — 予測")
    assert second.time == START + timedelta(minutes=4)


def test_the_control_log_keeps_its_stamps() -> None:
    """The stamps that v1's consumers stored beside their offsets are still known."""
    ledger = read_log()
    assert ledger.deployment.stamp == "60998b54eda12c75:18:6c7cac96f8255a6f"
    assert ledger.judge_stamp("60998b54eda12c75:16:71bfe0dfcb73729a") is StampVerdict.KNOWN
    assert ledger.judge_stamp(ledger.deployment.stamp) is StampVerdict.KNOWN


def test_each_type_of_event_is_in_the_control_log() -> None:
    """Every type that v1 knew is read, and the one that nobody knows is kept and skipped."""
    ledger = read_log()
    data = [type(recorded.data) for recorded in ledger.events if recorded.data is not None]
    v1_types = {
        *("ModelReleased", "ModelRevoked", "ModelRetired", "ModelRestored"),
        *("RolloutStarted", "RolloutShifted", "RolloutPromoted", "RolloutAborted"),
    }
    assert {each.__name__ for each in data} == v1_types
    assert set(data) <= set(EVENT_TYPES.values())
    (unknown,) = [recorded for recorded in ledger.events if recorded.data is None]
    assert unknown.event.revision == 17
    assert unknown.event.type == "io.modelwire.tide.turned.v1"


def test_commands_are_found_in_the_control_log() -> None:
    """Three events share the first command, and the last carries its signature."""
    ledger = read_log()
    assert [each.event.revision for each in ledger.find_command("first")] == [1, 2, 3]
    (last,) = ledger.find_command("shift-4b")
    assert (last.event.signature, last.event.keyid) == ("c2lnbmF0dXJl", "key-1")


def test_requests_are_read_under_the_manifests_contract() -> None:
    """The three requests decode to the very values, blanks, escapes, nulls and all."""
    decode = compile_inputs(decode_manifest((V1 / "manifest.json").read_bytes()).contract)
    requests = [decode_request(raw, 4_096) for raw in lines("requests.jsonl")]
    rows = [decode(bytes(request.inputs)) for request in requests]
    assert [request.request_id for request in requests] == ["r-1", "r-2", "r-1"]
    assert [request.requested_at for request in requests] == [
        None,
        datetime(2017, 8, 1, 8, 0, 0, 123_000, tzinfo=UTC),
        None,
    ]
    unset = msgspec.UNSET
    assert [(row.store, row.day, row.promo, row.price, row.stock, row.kind) for row in rows] == [
        ("s1", date(2017, 8, 3), True, 2.5, unset, unset),
        ("sü", date(2017, 8, 16), False, None, -3, unset),
        ("", date(2017, 8, 1), True, 100.0, unset, unset),
    ]


def test_forecasts_are_read() -> None:
    """Each forecast gives its outputs, its origin, and its inputs as the requests held them."""
    first, second = (decode_forecast(raw) for raw in lines("forecasts.jsonl"))
    assert first.outputs == {"units": 0.10000000149011612, "lucky": True}
    assert second.outputs == {"units": -1.5e-7, "rank": 9007199254740993}
    assert isinstance(second.outputs["rank"], int)
    assert bytes(second.inputs) in lines("requests.jsonl")[1]
    assert (first.variant, second.variant) == (Variant.CHAMPION, Variant.CANDIDATE)
    assert (second.request_id, second.model, second.version) == ("r-2", "sales", 2)
    assert (second.digest, second.revision) == (digest("bundle 2"), 6)
    assert second.source == Source("sales.requests", 3, 1_001, 1_767_268_800_000)
    assert second.scored_at == START + timedelta(microseconds=123_456)
    assert second.instance == "sales-0"


def test_rejections_are_read() -> None:
    """Headers give the rejection whole, and an envelope says the same as its headers."""
    records = json.loads((V1 / "rejections.json").read_bytes())
    (routed, value), (early, envelope) = (
        (
            [(name, base64.b64decode(text)) for name, text in record["headers"]],
            base64.b64decode(record["value"]),
        )
        for record in records
    )
    assert value == b'{"request_id":"\xff'
    assert read_rejection(routed) == Rejection(
        reason=Reason.OUTSIDE_HORIZON,
        detail="day is 2018-01-01; this version answers for 2017-08-01 to 2017-08-16 — è",
        model="sales",
        version=2,
        variant=Variant.CANDIDATE,
        digest=digest("bundle 2"),
        revision=6,
        source=Source("sales.requests", 0, 42, 1_767_268_800_000),
        instance="sales-0",
    )
    assert ENVELOPE_HEADER in dict(early)
    assert msgspec.json.decode(envelope, type=Rejection) == read_rejection(early)
    assert read_rejection(early).reason == Reason.TOMBSTONE


def test_a_fleet_status_is_read() -> None:
    """An instance's announcement gives all that it said."""
    status = decode_status((V1 / "fleet-status.json").read_bytes())
    assert (status.instance, status.model, status.phase) == ("sales-0", "sales", Phase.READY)
    assert (status.read_revision, status.revision, status.champion) == (18, 16, 1)
    assert status.prepared == (1, 4)
    assert status.refused == (Refused(3, "golden", "golden vector 2: units is 1.0"),)
    assert status.runtime == Runtime("1.31.1", "x86_64-avx2", "0.1.0")
    assert (status.partitions, status.answered, status.rejected) == ((0, 3), 123_456, 7)
    assert (status.rate, status.horizon_days_left, status.interval_seconds) == (998.5, 12, 2.0)
    assert status.at - status.started_at == timedelta(hours=1)


def test_a_manifest_is_read() -> None:
    """A bundle's manifest gives its contract, files, lineage and scores."""
    manifest = decode_manifest((V1 / "manifest.json").read_bytes())
    contract = manifest.contract
    assert (manifest.model, manifest.created_at) == ("sales", START)
    assert manifest.files["model.onnx"].digest == digest("model.onnx")
    assert [field.name for field in contract.tensors()["x"]] == ["promo", "price", "stock"]
    assert contract.field("share").null_as == -1
    assert contract.field("kind").allowed == ("a", "b")
    assert contract.horizon is not None
    assert (contract.horizon.last, contract.horizon.beyond) == (date(2017, 8, 16), Beyond.LAST_DAY)
    assert manifest.graph.opsets == {"": 18, "ai.onnx.ml": 3}
    assert (manifest.tolerance.absolute, manifest.tolerance.relative) == (1e-6, 1e-5)
    assert manifest.parity is not None
    assert manifest.parity.space == "log1p"
    assert manifest.lineage is not None
    assert manifest.lineage.packages == {"scikit-learn": "1.9.1"}
    assert manifest.holdout is not None
    assert manifest.holdout.metrics["model"]["wape"] == pytest.approx(0.41)
