"""What a control log said at each revision, who did it, and where it stops to be believed."""

import re

import pytest

from audit.history import History, difference, history_of
from audit.state import state_at
from deployment.commands import Abort, Pause, Promote, Resume, Revoke, Shift, Start, Strategy, Undo
from deployment.moments import events_as_of
from deployment.state import Deployment
from schemas.events import encode_event, new_event
from schemas.manifest import digest_of
from tests.control_logs import Writer, write_log
from tests.unit.example_rollouts import READY, release


def canary() -> Writer:
    """sales:1 was champion, sales:2 is; sales:3 has 10 and then 50 % in rollout 8 and is paused."""
    writer = Writer("sales")
    writer.give(release("1", Strategy.BLUE_GREEN))
    writer.give(release("2", Strategy.BLUE_GREEN, "better"))
    writer.give(release("3"))
    writer.give(Start(3, Strategy.CANARY, "salt", min_ready=0))
    writer.give(Shift(8, 1_000, None, READY))
    writer.give(Shift(8, 5_000, None, READY))
    writer.give(Pause(8, reason="lunch"))
    return writer


def approval(writer: Writer, version: int) -> bytes:
    """An event that this modelwire does not know, appended to the log."""
    known = new_event(
        release_data(version),
        model="sales",
        revision=writer.deployment.revision + 1,
        previous=writer.deployment.head,
        commandid="c",
        actor="olga",
        time=writer.ledger.events[-1].event.time,
    )
    raw = encode_event(known).replace(b"model.revoked", b"model.approved")
    writer.records.append(raw)
    writer.ledger.take(raw)
    return raw


def release_data(version: int):  # type: ignore[no-untyped-def]
    from schemas.events import ModelRevoked

    return ModelRevoked(version=version, reason="four eyes")


def test_each_revision_has_the_deployment_of_the_fold() -> None:
    """Also of a long log of all kinds of events."""
    writer = write_log("sales", 300, seed=1)
    history = history_of("sales", writer.records)
    assert history.broken is None
    assert history.last == len(writer.records)
    for revision in (1, 17, 150, history.last):
        folded = events_as_of("sales", history.events, revision).deployment
        assert history.at(revision) == folded
    assert history.at(history.last) == writer.deployment
    assert history.at(0) is None
    assert history.at(history.last + 1) is None


def test_it_says_who_released_approved_crowned_and_shifted() -> None:
    """Each as of the revision that is asked about, not as of now."""
    writer = canary()
    approval(writer, 3)
    history = history_of("sales", writer.records)
    released = history.released(3, 12)
    assert released is not None
    assert (released.revision, released.actor) == (7, "anna@example.org")
    assert released.what.startswith("released sales:3")
    [approved] = history.approved(3, 12)
    assert (approved.revision, approved.actor) == (12, "olga")
    assert history.approved(3, 11) == ()
    assert history.approved(2, 12) == ()
    assert [_revision(history.routed(each)) for each in (3, 6, 7, 8, 9, 10, 11, 12)] == [
        *(3, 6, 6, 8, 9, 10, 10, 10)
    ]
    assert [_revision(history.crowned(each)) for each in (2, 3, 5, 6, 12)] == [None, 3, 3, 6, 6]
    assert history.released(3, 6) is None


def test_what_gave_all_back_to_the_champion_set_the_routing() -> None:
    """An abort, an undo and a promotion."""
    writer = canary()
    writer.give(Abort(8, "too slow"))
    writer.give(Undo(1, fleet=READY, min_ready=0))
    history = history_of("sales", writer.records)
    routed = [history.routed(each) for each in (12, 13)]
    assert [each.what for each in routed if each] == [
        "aborted rollout 8",
        "restored sales:1 in place of sales:2",
    ]
    writer = canary()
    writer.give(Promote(8, READY))
    last = history_of("sales", writer.records)
    assert _revision(last.routed(last.last)) == last.last


def test_an_altered_event_breaks_the_chain_and_nothing_after_the_one_before_is_vouched_for() -> (
    None
):
    """One bit of what event 9 says: event 10 names another hash."""
    writer = canary()
    records = list(writer.records)
    records[8] = records[8].replace(b'"weight":1000', b'"weight":2000')
    assert records[8] != writer.records[8]
    history = history_of("sales", records)
    assert history.broken is not None
    assert history.broken.revision == 9
    assert digest_of(records[8]) in history.broken.why
    assert [history.vouches_for(each) for each in (8, 9, 10)] == [True, False, False]
    assert history.last == 9


@pytest.mark.parametrize("spoil", [b"", b"{}", b"not an event"])
def test_an_event_that_is_none_any_more_breaks_the_chain(spoil: bytes) -> None:
    """It is skipped as any foreign record is, and then a revision is missing."""
    records = list(canary().records)
    records[4] = spoil
    history = history_of("sales", records)
    assert history.broken is not None
    assert history.broken.revision == 4
    assert re.search("goes on with revision 6", history.broken.why)


def test_copies_of_a_log_must_agree_as_far_as_both_go() -> None:
    """The last event of a log has no hash after it: only another copy tells that it was altered."""
    records = list(canary().records)
    whole, shorter = history_of("sales", records), history_of("sales", records[:5])
    assert difference({"Kafka": whole, "the copy": shorter}) is None
    records[-1] = records[-1].replace(b"lunch", b"LUNCH")
    altered = history_of("sales", records)
    assert altered.broken is None
    found = difference({"Kafka": whole, "the copy": altered})
    assert found is not None
    assert found.revision == len(records)
    assert "in Kafka" in found.why
    assert "in the copy" in found.why


def test_the_state_at_a_revision_names_who_made_each_part_of_it() -> None:
    """Champion, candidate, its shares, a pause, the previous one."""
    history = history_of("sales", canary().records)
    now = state_at(events_as_of("sales", history.events, 11))
    assert now.champion is not None
    assert now.previous is not None
    assert now.candidate is not None
    assert (now.champion.version, _revision(now.champion.since)) == (2, 6)
    assert (now.previous.version, now.previous.released.revision) == (1, 1)
    rolling = now.candidate
    assert (rolling.version, rolling.weight, rolling.paused) == (3, 5_000, True)
    assert (rolling.started.revision, rolling.shifted.revision) == (8, 10)
    assert rolling.held is not None
    assert (rolling.held.revision, rolling.held.reason) == (11, "lunch")
    before = state_at(events_as_of("sales", history.events, 9))
    assert before.candidate is not None
    assert (before.candidate.weight, before.candidate.held) == (1_000, None)
    first = state_at(events_as_of("sales", history.events, 1))
    assert (first.champion, first.candidate, first.previous) == (None, None, None)
    assert first.last.what.startswith("released sales:1")


def test_a_state_with_shadows_names_them() -> None:
    """They run beside a rollout, each by its own."""
    writer = canary()
    writer.give(Resume(8))
    writer.give(release("4"))
    writer.give(Start(4, Strategy.SHADOW, "dark", min_ready=0, share=2_000, fleet=READY))
    history = history_of("sales", writer.records)
    [shadow] = state_at(events_as_of("sales", history.events, history.last)).shadows
    assert (shadow.version, shadow.shadow, shadow.strategy) == (4, 2_000, "shadow")


def test_a_revoked_champion_was_still_champion_then() -> None:
    """The past does not change."""
    writer = canary()
    writer.give(Abort(8))
    writer.give(Revoke(2))
    history = history_of("sales", writer.records)
    then, now = history.at(6), history.at(history.last)
    assert isinstance(then, Deployment)
    assert isinstance(now, Deployment)
    assert (then.champion, now.champion) == (2, 1)
    assert then.releases[2].may_serve
    assert not now.releases[2].may_serve


def _revision(deed: object) -> int | None:
    return getattr(deed, "revision", None)


def test_a_history_of_nothing_has_no_revision() -> None:
    """And vouches for all of it."""
    empty = History("sales", ())
    assert (empty.last, empty.at(1), empty.broken) == (0, None, None)
