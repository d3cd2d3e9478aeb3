"""What people and scripts see of releases and rollouts."""

import io
import json
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import msgspec
import pytest
from rich.console import Console, RenderableType

from adapters.fleet_topic import Sighting
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
from deployment.ledger import Ledger
from deployment.state import Deployment
from publisher import screens
from publisher.commands import Appended
from publisher.rollouts import Status
from schemas.events import Recorded, encode_event, new_event
from schemas.fleet import InstanceStatus, Phase, Refused, Runtime

NOON = datetime(2026, 3, 1, 13, 0, tzinfo=timezone(timedelta(hours=1)))


def give(ledger: Ledger, command: Command) -> Appended:
    """Take the command's events into the ledger, as an append would."""
    outcome = decide(ledger.deployment, command)
    assert not isinstance(outcome, Refusal)
    events = []
    for data in outcome:
        event = new_event(
            data,
            model="sales",
            revision=ledger.deployment.revision + 1,
            previous=ledger.deployment.head,
            commandid="c",
            actor="ann",
            time=NOON,
        )
        taken = ledger.take(encode_event(event))
        assert isinstance(taken, Recorded)
        events.append(taken)
    return Appended("sales", tuple(events), 0.25)


def release(digit: str, start: Strategy | None = None, reason: str = "") -> Release:
    """The release of a bundle that ``digit`` tells apart."""
    return Release(f"sha256:{digit * 64}", start, "salt", reason)


@pytest.fixture
def ledger() -> Ledger:
    """sales:1 was champion, sales:2 is (revision 6)."""
    made = Ledger("sales")
    give(made, release("1", Strategy.BLUE_GREEN))
    give(made, release("2", Strategy.BLUE_GREEN, "[bold]better[/bold]"))
    return made


def text_of(view: RenderableType) -> str:
    """What a wide terminal without colours shows."""
    console = Console(width=200, file=io.StringIO(), color_system=None)
    console.print(view)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def instance(name: str, champion: int | None, *, alive: bool = True) -> Sighting:
    """An instance that answers with ``champion``, and has refused version 3."""
    status = InstanceStatus(
        instance=name,
        model="sales",
        phase=Phase.WAITING if champion is None else Phase.READY,
        detail="",
        read_revision=6,
        revision=6,
        champion=champion,
        prepared=(1, 2),
        refused=(Refused(3, "golden", "row 0 is off"),),
        runtime=Runtime("1.31.0", "x86_64-avx2", "0.1.0"),
        partitions=(0, 1, 2, 5),
        answered=10,
        rejected=0,
        rate=123.4,
        horizon_days_left=30,
        interval_seconds=1.0,
        started_at=NOON,
        at=NOON,
    )
    return Sighting(status=status, age_seconds=0.5, alive=alive)


def test_a_release_that_starts_is_one_line() -> None:
    """The version, its revision, and since when it is champion."""
    ledger = Ledger("sales")
    give(ledger, release("1", Strategy.BLUE_GREEN))
    appended = give(ledger, release("2", Strategy.BLUE_GREEN))
    assert screens.appended_line(appended) == (
        "sales:2 released (revision 4), champion since revision 6"
    )


def test_each_command_has_its_line(ledger: Ledger) -> None:
    """Undo, start, revoke and retire each say which version they moved."""
    lines = [
        screens.appended_line(give(ledger, command))
        for command in (
            Undo(None),
            Start(2, Strategy.BLUE_GREEN, "salt"),
            release("3"),
            Revoke(2),
            Retire(3),
        )
    ]
    assert lines == [
        "sales:1 champion again since revision 7, in place of sales:2",
        "sales:2 rolled out (revision 8), champion since revision 9",
        "sales:3 released (revision 10)",
        "sales:1 champion again since revision 11, in place of sales:2, sales:2 revoked (revision 12)",
        "sales:3 retired (revision 13)",
    ]


def test_the_object_of_an_append_has_the_keys_that_scripts_read() -> None:
    """Model, version, digest, revision, command id, time, seconds and the events themselves."""
    appended = give(Ledger("sales"), release("1", Strategy.BLUE_GREEN))
    read = json.loads(screens.as_json(screens.appended_object(appended)))
    events = read.pop("events")
    assert read == {
        "model": "sales",
        "version": 1,
        "digest": f"sha256:{'1' * 64}",
        "revision": 3,
        "commandid": "c",
        "actor": "ann",
        "appended_at": "2026-03-01T13:00:00+01:00",
        "seconds": 0.25,
    }
    assert [event["revision"] for event in events] == [1, 2, 3]
    assert events[0]["data"]["version"] == 1


def test_the_object_of_a_start_names_the_candidate(ledger: Ledger) -> None:
    """Without a release in it there is no digest."""
    read = screens.appended_object(give(ledger, Start(1, Strategy.BLUE_GREEN, "salt")))
    assert (read["version"], read["digest"]) == (1, None)


def test_the_history_says_who_what_when_and_why(ledger: Ledger) -> None:
    """Times are UTC, and a reason is text, never markup."""
    shown = text_of(screens.history_table("sales", ledger.events)).splitlines()
    assert len(shown) == 1 + 6
    assert shown[4].split("  ")[0].strip() == "4"
    assert "2026-03-01 12:00:00Z" in shown[4]
    assert "ann" in shown[4]
    assert "released sales:2 (2222222222222222)" in shown[4]
    assert "[bold]better[/bold]" in shown[4]
    assert "made sales:2 champion" in shown[6]


def test_an_event_of_a_later_modelwire_is_shown_as_unknown(ledger: Ledger) -> None:
    """Its type is named; nothing else is claimed."""
    raw = encode_event(ledger.events[0].event).replace(b"model.released", b"model.approved")
    taken = Ledger("sales").take(raw)
    assert isinstance(taken, Recorded)
    assert "io.modelwire.model.approved.v1" in screens.what_happened("sales", taken)


def test_releases_are_listed_with_their_roles(ledger: Ledger) -> None:
    """Champion and previous are marked, the newest first."""
    shown = text_of(screens.releases_table(ledger.deployment)).splitlines()
    assert "sales:2" in shown[1]
    assert "champion" in shown[1]
    assert "previous" in shown[2]
    listed = screens.releases_object(ledger.deployment)["releases"]
    assert [(each["version"], each["role"]) for each in listed] == [
        (1, "previous"),
        (2, "champion"),
    ]


def status_of(deployment: Deployment, *fleet: Sighting) -> Status:
    """The deployment beside these instances."""
    return Status(deployment, 6, fleet)


def test_the_status_counts_live_instances_that_serve_the_champion(ledger: Ledger) -> None:
    """A lost one, one with the former champion and one that waits do not serve it."""
    status = status_of(
        ledger.deployment,
        instance("a", 2),
        instance("b", 1),
        instance("c", 2, alive=False),
        instance("d", None),
    )
    assert (status.alive, status.serving) == (3, 1)
    shown = text_of(screens.status_view(status))
    assert "champion sales:2, served by 1 of 3 live instances" in shown
    assert "lost" in next(line for line in shown.splitlines() if line.startswith("c "))
    assert "refused 3 (golden): row 0 is off" in shown
    assert "123/s" in shown
    assert "0-2,5" in shown


def test_the_object_of_a_status_holds_each_instance(ledger: Ledger) -> None:
    """The instance's own words, with how old they are."""
    read = json.loads(
        screens.as_json(screens.status_object(status_of(ledger.deployment, instance("a", 2))))
    )
    assert (read["champion"], read["champion_since"], read["serving"]) == (2, 6, 1)
    (only,) = read["instances"]
    assert (only["instance"], only["alive"], only["age_seconds"]) == ("a", True, 0.5)
    assert only["refused"] == [{"version": 3, "rung": "golden", "reason": "row 0 is off"}]


def test_without_a_champion_nobody_serves() -> None:
    """An instance that waits for the first champion is not taken to serve it."""
    status = status_of(Ledger("sales").deployment, instance("a", None))
    assert status.serving == 0
    assert screens.status_line(status) == "sales revision 0: no champion yet"


@pytest.mark.parametrize(("days", "shown"), [(30, " 30 "), (0, " 0 "), (-3, " over for 3 ")])
def test_a_horizon_that_is_over_says_so(ledger: Ledger, days: int, shown: str) -> None:
    """A negative number of days left would puzzle an operator."""
    sighting = instance("a", 2)
    old = replace(sighting, status=msgspec.structs.replace(sighting.status, horizon_days_left=days))
    assert shown in text_of(screens.status_view(status_of(ledger.deployment, old)))
