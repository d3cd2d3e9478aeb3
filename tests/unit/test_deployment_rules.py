"""The rules of a deployment, example by example."""

from dataclasses import replace
from datetime import UTC, datetime

import msgspec
import pytest

from deployment.decisions import (
    Command,
    Refusal,
    Release,
    Retire,
    Revoke,
    Start,
    Strategy,
    Undo,
    decide,
)
from deployment.ledger import Ledger, StampVerdict, Unaccepted
from deployment.routing import BUCKETS, Routing, bucket, route, routing_of
from deployment.state import BrokenLog, Deployment, Standing
from schemas.events import (
    EventData,
    ModelReleased,
    ModelRestored,
    ModelRevoked,
    RolloutAborted,
    RolloutPromoted,
    RolloutShifted,
    RolloutStarted,
    encode_event,
    new_event,
)
from schemas.forecast import Variant

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def digest(number: int) -> str:
    return f"sha256:{number:064x}"


def record(deployment: Deployment, data: EventData, commandid: str = "c") -> bytes:
    return encode_event(
        new_event(
            data,
            model=deployment.model,
            revision=deployment.revision + 1,
            previous=deployment.head,
            commandid=commandid,
            actor="ann",
            time=NOON,
        )
    )


def after(*steps: Command | EventData) -> Ledger:
    """The ledger after these commands (which must be allowed) and bare events."""
    ledger = Ledger("sales")
    for number, step in enumerate(steps):
        events = (step,) if isinstance(step, EventData) else decide(ledger.deployment, step)
        assert not isinstance(events, Refusal), events
        for data in events:
            ledger.take(record(ledger.deployment, data, commandid=f"c{number}"))
    return ledger


def released(number: int) -> Release:
    return Release(digest(number), start=None, salt="s")


def live(number: int) -> Release:
    return Release(digest(number), start=Strategy.BLUE_GREEN, salt=f"salt-{number}")


def start(version: int) -> Start:
    return Start(version, Strategy.BLUE_GREEN, salt="again")


def code(ledger: Ledger, command: Command) -> str:
    refusal = decide(ledger.deployment, command)
    assert isinstance(refusal, Refusal), refusal
    assert refusal.sentence
    assert refusal.remedy
    return refusal.code


def test_release_gives_the_next_ordinal_and_no_traffic() -> None:
    """A release alone names a version; nothing serves it."""
    deployment = after(released(1), released(2)).deployment
    assert [r.digest for r in deployment.releases.values()] == [digest(1), digest(2)]
    assert deployment.champion is None
    assert routing_of(deployment) is None


def test_release_with_start_makes_the_first_champion() -> None:
    """The first champion comes by the same command as every other."""
    deployment = after(live(1)).deployment
    assert (deployment.champion, deployment.previous, deployment.rollout) == (1, None, None)
    assert deployment.revision == 3


def test_switch_then_undo_restores_the_former_champion() -> None:
    """Undo goes back to what served before the switch, and can be undone itself."""
    switched = after(live(1), live(2))
    assert (switched.deployment.champion, switched.deployment.previous) == (2, 1)
    undone = after(live(1), live(2), Undo(None)).deployment
    assert (undone.champion, undone.previous) == (1, 2)
    assert after(live(1), live(2), Undo(None), Undo(None)).deployment.champion == 2


def test_undo_to_any_released_version() -> None:
    """``--to`` reaches past the previous champion, even to one that never served."""
    assert after(live(1), live(2), live(3), Undo(1)).deployment.champion == 1
    assert after(live(1), released(2), Undo(2)).deployment.champion == 2


def test_start_puts_a_released_version_in_service() -> None:
    """A version may be released first and started later."""
    assert after(live(1), released(2), start(2)).deployment.champion == 2


def test_revoking_the_champion_restores_the_previous_first() -> None:
    """Each prefix of the events is a state that can be served."""
    ledger = after(live(1), live(2))
    events = decide(ledger.deployment, Revoke(2))
    assert events == (ModelRestored(1, 2), ModelRevoked(2))
    revoked = after(live(1), live(2), Revoke(2)).deployment
    assert (revoked.champion, revoked.previous) == (1, None)
    assert revoked.releases[2].standing is Standing.REVOKED


def test_revoking_a_candidate_aborts_its_rollout_first() -> None:
    """A revoked version is never a candidate."""
    ledger = after(live(1), released(2), RolloutStarted(2, "canary", "salt"))
    assert decide(ledger.deployment, Revoke(2)) == (RolloutAborted(5), ModelRevoked(2))


def test_undo_aborts_a_running_rollout_first() -> None:
    """Undo leaves no candidate behind."""
    ledger = after(live(1), live(2), released(3), RolloutStarted(3, "canary", "salt"))
    assert decide(ledger.deployment, Undo(None)) == (RolloutAborted(8), ModelRestored(1, 2))


@pytest.mark.parametrize("withdraw", [Revoke(1), Retire(1)])
def test_withdrawing_a_version_clears_it_as_previous(withdraw: Command) -> None:
    """Undo never brings a revoked or retired version back."""
    ledger = after(live(1), live(2), withdraw)
    assert ledger.deployment.previous is None
    assert code(ledger, Undo(None)) == "no-previous"
    assert code(ledger, Undo(1)) in {"version-revoked", "version-retired"}
    assert code(ledger, start(1)) in {"version-revoked", "version-retired"}


@pytest.mark.parametrize(
    ("steps", "command", "expected"),
    [
        ((), Undo(None), "no-champion"),
        ((live(1),), Undo(None), "no-previous"),
        ((live(1),), Undo(1), "already-champion"),
        ((live(1),), Undo(9), "unknown-version"),
        ((live(1),), start(1), "already-champion"),
        ((live(1),), start(2), "unknown-version"),
        ((live(1),), released(1), "already-released"),
        ((live(1), released(2), Revoke(2)), released(2), "bundle-revoked"),
        ((live(1),), Revoke(1), "no-previous"),
        ((live(1),), Revoke(7), "unknown-version"),
        ((live(1), released(2), Revoke(2)), Revoke(2), "already-revoked"),
        ((live(1),), Retire(1), "in-service"),
        ((live(1),), Retire(2), "unknown-version"),
        ((live(1), released(2), Retire(2)), Retire(2), "version-retired"),
        (
            (live(1), released(2), RolloutStarted(2, "canary", "s")),
            Retire(2),
            "in-service",
        ),
        (
            (live(1), released(2), released(3), RolloutStarted(2, "canary", "s")),
            start(3),
            "rollout-running",
        ),
        (
            (live(1), released(2), RolloutStarted(2, "canary", "s")),
            live(3),
            "rollout-running",
        ),
    ],
)
def test_refusals_have_stable_codes(
    steps: tuple[Command, ...], command: Command, expected: str
) -> None:
    """Each rule that says no has a code that programs may rely on."""
    assert code(after(*steps), command) == expected


def test_a_retired_bundle_may_be_released_again() -> None:
    """Retiring is about memory, not about trust: the bundle gets a new ordinal."""
    deployment = after(live(1), released(2), Retire(2), live(2)).deployment
    assert deployment.champion == 3
    assert deployment.releases[3].digest == digest(2)


@pytest.mark.parametrize(
    ("steps", "data"),
    [
        ((), ModelReleased(2, digest(1))),
        ((live(1),), ModelRevoked(1)),
        ((live(1),), ModelRestored(4, 1)),
        ((live(1), released(2), Revoke(2)), ModelRestored(2, 1)),
        ((live(1), released(2), Revoke(2)), RolloutStarted(2, "blue-green", "s")),
        ((live(1),), RolloutStarted(1, "canary", "s")),
        (
            (live(1), released(2), released(3), RolloutStarted(2, "canary", "s")),
            RolloutStarted(3, "canary", "s"),
        ),
        ((live(1), live(2), released(3), RolloutStarted(3, "canary", "s")), ModelRestored(1, 2)),
        ((live(1),), RolloutPromoted(1, 1)),
        ((live(1),), RolloutAborted(1)),
        ((live(1),), RolloutShifted(1, 100)),
        ((live(1), released(2), RolloutStarted(2, "canary", "s")), RolloutPromoted(5, 1)),
        ((live(1), released(2), RolloutStarted(2, "canary", "s")), ModelRevoked(2)),
    ],
)
def test_the_fold_refuses_what_no_writer_may_say(
    steps: tuple[Command, ...], data: EventData
) -> None:
    """A log that would put a withdrawn or unknown version into service stops its reader."""
    ledger = after(*steps)
    before = ledger.deployment
    with pytest.raises(BrokenLog):
        ledger.take(record(before, data))
    assert ledger.deployment is before


def test_a_gap_a_repeat_and_a_broken_chain_stop_the_reader() -> None:
    """Accepted events number densely, and each names the hash of the one before."""
    ledger = after(live(1))
    latest = record(ledger.deployment, ModelReleased(2, digest(2)))
    gap = record(replace(ledger.deployment, revision=7), ModelReleased(2, digest(2)))
    repeat = record(replace(ledger.deployment, revision=2), ModelReleased(2, digest(2)))
    forked = record(replace(ledger.deployment, head=digest(9)), ModelReleased(2, digest(2)))
    foreign = record(replace(ledger.deployment, model="other"), ModelReleased(2, digest(2)))
    for wrong in (gap, repeat, forked, foreign):
        with pytest.raises(BrokenLog):
            ledger.take(wrong)
    assert not isinstance(ledger.take(latest), Unaccepted)


@pytest.mark.parametrize("raw", [None, b"", b"hello", b"{}", b"[1]", b'{"specversion":"0.3"}'])
def test_a_record_of_bad_form_counts_for_nothing(raw: bytes | None) -> None:
    """It is reported, and the next event still follows the last accepted one."""
    ledger = after(live(1))
    before = ledger.deployment
    assert isinstance(ledger.take(raw), Unaccepted)
    assert ledger.deployment is before
    ledger.take(record(before, ModelReleased(2, digest(2))))
    assert ledger.deployment.revision == before.revision + 1


def test_an_event_of_an_unknown_type_is_a_revision_and_says_nothing() -> None:
    """A later version's events pass through, and the chain goes on over them."""
    ledger = after(live(1))
    before = ledger.deployment
    known = msgspec.json.decode(record(before, ModelReleased(2, digest(2))))
    later = msgspec.json.encode(
        known | {"type": "io.modelwire.model.praised.v1", "data": {"x": 1}, "mood": "good"}
    )
    ledger.take(later)
    assert ledger.deployment.revision == before.revision + 1
    assert ledger.deployment.releases == before.releases
    ledger.take(record(ledger.deployment, ModelReleased(2, digest(2))))
    assert 2 in ledger.deployment.releases


def test_a_stamp_is_known_ahead_or_foreign() -> None:
    """A stamp belongs to one log, one revision and one event."""
    ledger = after(live(1), live(2))
    longer = after(live(1), live(2), live(3))
    other = after(live(9), live(2))
    assert ledger.judge_stamp(after(live(1)).deployment.stamp) is StampVerdict.KNOWN
    assert ledger.judge_stamp(ledger.deployment.stamp) is StampVerdict.KNOWN
    assert ledger.judge_stamp(longer.deployment.stamp) is StampVerdict.AHEAD
    assert ledger.judge_stamp(other.deployment.stamp) is StampVerdict.FOREIGN
    log_id, revision, _ = ledger.deployment.stamp.split(":")
    for wrong in ("", "x", f"{log_id}:{revision}:ffffffffffffffff", f"{log_id}:0:ff", "a:b:c"):
        assert ledger.judge_stamp(wrong) is StampVerdict.FOREIGN


def test_required_and_wanted_versions() -> None:
    """A candidate without traffic is wanted, never required; so is the previous champion."""
    started = after(live(1), live(2), released(3), RolloutStarted(3, "canary", "s")).deployment
    assert started.required() == (2,)
    assert started.wanted() == (2, 3, 1)
    assert started.rollout is not None
    shifted = replace(started, rollout=replace(started.rollout, weight=1))
    assert shifted.required() == (2, 3)


def test_the_hash_of_routing_is_pinned() -> None:
    """Another language must reproduce these buckets: they are part of the wire format."""
    keys = (b"", b"United Kingdom|85123A", b"\xff")
    assert [bucket("salt", key) for key in keys] == [8063, 6298, 2505]
    assert BUCKETS == 10_000


def test_without_a_key_the_request_id_decides() -> None:
    """A request without a key is sticky by its id."""
    routing = Routing(1, 2, 5_000, "salt")
    by_id = [route(routing, None, f"r{n}") for n in range(200)]
    assert by_id == [route(routing, f"r{n}".encode(), "other") for n in range(200)]
    assert set(by_id) == set(Variant)
