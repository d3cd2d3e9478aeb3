"""What people and scripts see of releases and rollouts."""

import io
import json
from datetime import datetime, timedelta, timezone

import pytest
import yaml
from rich.console import Console, RenderableType

from adapters.fleet_topic import Sighting
from adapters.output import as_json, as_yaml
from deployment.commands import (
    Abort,
    Pause,
    Promote,
    Resume,
    Retire,
    Revoke,
    Shift,
    Start,
    Strategy,
    Undo,
)
from deployment.ledger import Ledger
from deployment.moments import read_as_of, read_now
from deployment.readiness import Instance
from deployment.words import what_happened
from publisher import screens
from publisher.launches import join
from publisher.models import Model
from publisher.status import Status
from schemas.events import Recorded, encode_event
from schemas.fleet import Refused, Runtime, Tally
from tests.unit.example_rollouts import (
    NOON,
    PLAN,
    READY,
    champion_ledger,
    give,
    instance,
    minutes,
    release,
)

COLD = (Instance("a", frozenset({1, 2})),)
GOLDEN = (Refused(3, "golden", "row 0 is off"),)


READY_FOR_3 = (Instance("a", frozenset({3})),)


@pytest.fixture
def ledger() -> Ledger:
    """sales:1 was champion, sales:2 is (revision 6)."""
    return champion_ledger()


@pytest.fixture
def canary(ledger: Ledger) -> Ledger:
    """sales:3 is in step 2 of its plan since 12:11 (rollout 8, revision 10)."""
    give(ledger, release("3"))
    start = Start(3, Strategy.CANARY, "s", "try it", plan=PLAN, min_ready=9_000)
    give(ledger, start)
    give(ledger, Shift(8, 0, 10_000, READY, step=0))
    give(ledger, Shift(8, 1_000, 0, READY, step=1), NOON + minutes(11))
    return ledger


def text_of(view: RenderableType, width: int = 200) -> str:
    """What a terminal without colours shows."""
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(view)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def status_of(ledger: Ledger, *fleet: Sighting, now: datetime = NOON) -> Status:
    """The log beside these instances."""
    return Status(read_now(ledger, now), fleet)


def row(shown: str, name: str) -> str:
    """What the screen says beside a name, or in the line that begins with it."""
    (found,) = [line for line in shown.splitlines() if line.startswith(name)]
    return " ".join(found.removeprefix(name).split())


# --- what a command did


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


def test_each_command_of_a_rollout_has_its_line(ledger: Ledger) -> None:
    """Shares, steps, pause and end; a start says whether it moves traffic."""
    give(ledger, release("3"))
    lines = [
        screens.appended_line(give(ledger, command))
        for command in (
            Start(3, Strategy.CANARY, "s", plan=PLAN),
            Shift(8, 0, 10_000, READY, step=0),
            Shift(8, 1_000, 0, READY, step=1),
            Pause(8, step=2),
            Resume(8),
            Shift(8, 2_050, 500, READY),
            Promote(8, READY),
            Start(1, Strategy.BLUE_GREEN, "s", fleet=READY_FOR_3, min_ready=10_000),
            Abort(16),
            Start(1, Strategy.SHADOW, "s", share=2_500),
            Shift(18, None, 0, ()),
            Start(1, Strategy.CANARY, "s"),
        )
    ]
    assert lines == [
        "sales:3 stands beside the champion, without traffic yet (rollout 8)",
        "rollout 8 shadows 100 % (step 1) (revision 9)",
        "rollout 8 answers 10 % (step 2) (revision 10)",
        "rollout 8 paused (step 3) (revision 11)",
        "rollout 8 goes on (revision 12)",
        "rollout 8 answers 20.5 %, shadows 5 % (revision 13), rollout 8 paused (revision 14)",
        "sales:3 champion since revision 15",
        "sales:1 stands beside the champion, without traffic yet (rollout 16)",
        "rollout 16 aborted (revision 17)",
        "sales:1 shadows 25 % of the requests (rollout 18)",
        "rollout 18 answers 0 %, shadows 0 % (revision 20)",
        "rollout 18 aborted (revision 21), "
        "sales:1 stands beside the champion, without traffic yet (rollout 22)",
    ]


def test_a_shadow_that_begins_with_nothing_says_so(ledger: Ledger) -> None:
    """A share of 0 is a share of the shadow's, and no word of answers."""
    command = Start(1, Strategy.SHADOW, "s", share=0)
    assert screens.appended_line(give(ledger, command)) == (
        "sales:1 shadows 0 % of the requests (rollout 7)"
    )


def test_a_start_that_takes_itself_back_says_both(ledger: Ledger) -> None:
    """In one line, with the revision of each, as of one command."""
    start = Start(1, Strategy.BLUE_GREEN, "s", fleet=READY_FOR_3, min_ready=10_000)
    parts = [give(ledger, command) for command in (start, Abort(7, "not ready"))]
    assert screens.appended_line(join(parts)) == (
        "sales:1 started (rollout 7), taken back (revision 8)"
    )
    read = screens.appended_object(join(parts))
    assert (read["rollout"], read["revision"], len(read["events"])) == (7, 8, 2)
    assert read["seconds"] == 0.5


def test_a_release_that_waits_for_the_fleet_says_both(ledger: Ledger) -> None:
    """Released, and loaded without traffic."""
    command = release("3", Strategy.CANARY)
    assert screens.appended_line(give(ledger, command)) == (
        "sales:3 released (revision 7), "
        "sales:3 stands beside the champion, without traffic yet (rollout 8)"
    )


def test_the_object_of_an_append_has_the_keys_that_scripts_read() -> None:
    """Model, version, digest, revision, command id, time, seconds and the events themselves."""
    appended = give(Ledger("sales"), release("1", Strategy.BLUE_GREEN))
    read = json.loads(as_json(screens.appended_object(appended)))
    events = read.pop("events")
    assert read == {
        "model": "sales",
        "version": 1,
        "digest": f"sha256:{'1' * 64}",
        "rollout": 2,
        "revision": 3,
        "commandid": "c",
        "actor": "ann",
        "appended_at": "2026-03-01T12:00:00Z",
        "seconds": 0.25,
    }
    assert [event["revision"] for event in events] == [1, 2, 3]
    assert events[0]["data"]["version"] == 1


def test_the_object_of_a_start_names_candidate_and_rollout(ledger: Ledger) -> None:
    """Without a release in it there is no digest."""
    read = screens.appended_object(give(ledger, Start(1, Strategy.CANARY, "salt")))
    assert (read["version"], read["digest"], read["rollout"]) == (1, None, 7)
    read = screens.appended_object(give(ledger, Shift(7, 100, None, READY)))
    assert (read["version"], read["rollout"], read["revision"]) == (None, 7, 8)


# --- the history and the releases


def test_the_history_says_who_what_when_and_why(ledger: Ledger) -> None:
    """Times are UTC, and a reason is text, never markup."""
    noon_in_vienna = NOON.astimezone(timezone(timedelta(hours=1)))
    give(ledger, Undo(None), noon_in_vienna)
    shown = text_of(screens.history_table("sales", ledger.events)).splitlines()
    assert len(shown) == 1 + 7
    assert shown[4].split("  ")[0].strip() == "4"
    assert "2026-03-01 12:00:00Z" in shown[7]
    assert "ann" in shown[4]
    assert "released sales:2 (2222222222222222)" in shown[4]
    assert "[bold]better[/bold]" in shown[4]
    assert "made sales:2 champion" in shown[6]


def test_the_history_of_a_rollout_names_terms_shares_and_steps(canary: Ledger) -> None:
    """What it was started with, then each share with the step it belongs to."""
    give(canary, Pause(8, "lunch", step=2))
    give(canary, Resume(8))
    give(canary, Shift(8, 2_000, 3_000, READY))
    give(canary, Abort(8, "worse"))
    told = [what_happened("sales", each) for each in canary.events[7:]]
    assert told == [
        "started a canary rollout of sales:3 (a plan of 4 steps, fixed-time; at least 90 % ready)",
        "rollout 8 shadows 100 % (step 1)",
        "rollout 8 answers 10 % (step 2)",
        "paused rollout 8 (step 3)",
        "resumed rollout 8",
        "rollout 8 answers 20 %, shadows 30 %",
        "paused rollout 8",
        "aborted rollout 8",
    ]


def test_an_event_of_a_later_modelwire_is_shown_as_unknown(ledger: Ledger) -> None:
    """Its type is named; nothing else is claimed."""
    raw = encode_event(ledger.events[0].event).replace(b"model.released", b"model.approved")
    taken = Ledger("sales").take(raw)
    assert isinstance(taken, Recorded)
    assert "io.modelwire.model.approved.v1" in what_happened("sales", taken)


def test_releases_are_listed_with_their_roles(canary: Ledger) -> None:
    """Champion, candidate, previous and shadow are marked, the newest first."""
    give(canary, release("4"))
    give(canary, Start(4, Strategy.SHADOW, "s"))
    shown = text_of(screens.releases_table(canary.deployment)).splitlines()
    assert "sales:4" in shown[1]
    assert "champion" in shown[3]
    listed = screens.releases_object(canary.deployment)["releases"]
    assert [(each["version"], each["role"]) for each in listed] == [
        (1, "previous"),
        (2, "champion"),
        (3, "candidate"),
        (4, "shadow"),
    ]


# --- the status


def test_the_status_counts_live_instances_that_serve_the_champion(ledger: Ledger) -> None:
    """A lost one, one with the former champion and one that waits do not serve it."""
    status = status_of(
        ledger,
        instance("a", 2, refused=GOLDEN),
        instance("b", 1),
        instance("c", 2, alive=False),
        instance("d", None),
    )
    assert (status.alive, status.serving) == (3, 1)
    shown = text_of(screens.status_view(status))
    assert row(shown, "Champion:") == "sales:2, served by 1 of 3 live instances (since revision 6)"
    assert row(shown, "a ") == "ready 6 2 1,2 0-2,5 123/s 1,234 30 0s ago"
    assert row(shown, "a:") == "refused 3 (golden): row 0 is off"
    assert row(shown, "c ").startswith("lost")


@pytest.mark.parametrize(
    ("fleet", "expected"),
    [
        ((instance("a"),), "✔ Healthy sales:2 answers on 1 live instance"),
        ((instance("a", revision=5),), "◌ Progressing waiting for 1 of 1 live instance to apply"),
        ((), "✖ Degraded no instance lives"),
    ],
)
def test_the_phase_has_a_symbol_and_a_reason(
    ledger: Ledger, fleet: tuple[Sighting, ...], expected: str
) -> None:
    """The words and the signs are those of Argo Rollouts."""
    assert row(text_of(screens.status_view(status_of(ledger, *fleet))), "Phase:").startswith(
        expected
    )


def test_a_rollout_shows_its_terms_and_what_the_fleet_did(canary: Ledger) -> None:
    """Asked share and answered share, who is ready, who started it and why."""
    warm = instance(
        "a",
        prepared=(2, 3),
        revision=10,
        tallies=(
            Tally(8, 2, "champion", 890, 10, 90.0),
            Tally(8, 3, "candidate", 100, 0, 30.0),
            Tally(5, 2, "champion", 7_777, 0),
        ),
    )
    cold = instance("b", prepared=(2,), revision=10)
    shown = text_of(screens.status_view(status_of(canary, warm, cold, now=NOON + minutes(12.5))))
    assert row(shown, "Phase:").startswith("✖ Degraded 1 of 2 live instances ready")
    assert row(shown, "Candidate:") == "sales:3"
    assert row(shown, "Previous:") == "sales:1"
    assert row(shown, "Rollout:") == "8, started by ann at 2026-03-01 12:00:00Z: try it"
    assert row(shown, "Strategy:") == "canary, a plan judged by fixed-time"
    assert row(shown, "Step:") == "2/4"
    assert row(shown, "SetWeight:") == "10 %"
    assert row(shown, "ActualWeight:") == "25.0 % now, 10.0 % since the start"
    assert row(shown, "Ready:") == "1/2 (minimum 90 %: 2)"
    assert row(shown, "Runtime:") == "onnxruntime 1.31.0, opset 23, IR 11, x86_64-avx2"
    assert row(shown, "Horizon:") == "30 days left"
    assert row(shown, "champion ") == "sales:2 890 10 90/s – –"
    assert row(shown, "candidate ") == "sales:3 100 0 30/s – –"
    assert "7,777" not in shown


def test_the_steps_have_markers_and_the_current_one_its_time(canary: Ledger) -> None:
    """Done, current with since and next, coming."""
    status = status_of(canary, instance("a"), now=NOON + minutes(12.5))
    shown = text_of(screens.status_view(status))
    assert row(shown, "✔  step 1/4") == "shadows 100 %, holds 10m"
    assert row(shown, "▶  step 2/4") == (
        "answers 10 %, holds 5m since 2026-03-01 12:11:00Z, next in 3m 30s"
    )
    assert row(shown, "·  step 3/4") == "pauses until it is resumed"
    assert row(shown, "·  step 4/4") == "answers 100 %"


def test_a_step_whose_time_is_over_waits_for_the_fleet(canary: Ledger) -> None:
    """No negative time is shown."""
    status = status_of(canary, instance("a"), now=NOON + minutes(60))
    shown = row(text_of(screens.status_view(status)), "▶  step 2/4")
    assert shown.endswith("since 2026-03-01 12:11:00Z, next when the fleet is ready")


def test_a_paused_step_says_so(canary: Ledger) -> None:
    """Its marker is the pause's, and nothing is said to come next."""
    give(canary, Pause(8, "lunch", step=2), NOON + minutes(20))
    shown = text_of(screens.status_view(status_of(canary, instance("a", revision=11))))
    assert row(shown, "॥  step 3/4").endswith("since 2026-03-01 12:20:00Z, paused")


def test_each_shadow_has_its_line_and_its_counts(ledger: Ledger) -> None:
    """Share, who has it prepared, and what was shed or failed."""
    give(ledger, Start(1, Strategy.SHADOW, "s", "look", share=2_500))
    tallies = (Tally(0, 2, "champion", 90, 0, 9.0), Tally(7, 1, "shadow", 20, 3, 2.0, 4, 1))
    fleet = (instance("a", revision=8, tallies=tallies), instance("b", prepared=(2,), revision=8))
    shown = text_of(screens.status_view(status_of(ledger, *fleet)))
    assert row(shown, "Shadow:") == (
        "sales:1 scores 25 %, prepared on 1/2 "
        "(rollout 7, started by ann at 2026-03-01 12:00:00Z: look)"
    )
    assert row(shown, "shadow ") == "sales:1 20 3 2/s 4 1"
    assert row(shown, "Ready:") == "2/2"


def test_runtimes_that_differ_are_said_by_each(ledger: Ledger) -> None:
    """One that is everywhere the same is said once."""
    old = Runtime("1.22.0", "aarch64", "0.1.0")
    shown = text_of(
        screens.status_view(status_of(ledger, instance("a"), instance("b", runtime=old)))
    )
    assert "Runtime:" not in shown
    assert row(shown, "a:") == "onnxruntime 1.31.0, opset 23, IR 11, x86_64-avx2"
    assert row(shown, "b:") == "onnxruntime 1.22.0, aarch64"


def test_a_narrow_terminal_loses_nothing(ledger: Ledger) -> None:
    """In 80 columns names fold, and no cell or reason is cut off."""
    fleet = instance("modelwire-sales-0", refused=GOLDEN)
    shown = text_of(screens.status_view(status_of(ledger, fleet)), width=80)
    assert max(map(len, shown.splitlines())) <= 80
    assert shown.splitlines()[-1].strip() == "modelwire-sales-0: refused 3 (golden): row 0 is off"
    for cell in ("ready", "1,2", "0-2,5", "123/s", "1,234", "30", "0s ago"):
        assert cell in shown


def test_the_past_shows_the_log_alone(canary: Ledger) -> None:
    """No phase, no instances, no share that was answered: the fleet's past is not kept."""
    shown = text_of(screens.status_view(Status(read_as_of(canary, 9))))
    assert row(shown, "As of:") == "2026-03-01 12:00:00Z"
    assert row(shown, "Step:") == "1/4"
    assert row(shown, "Champion:") == "sales:2 (since revision 6)"
    assert row(shown, "▶  step 1/4").endswith("next in 10m")
    assert "the past of the fleet is not kept" in shown
    assert not {"Phase:", "Ready:", "ActualWeight:", "Horizon:"} & set(shown.split())


def test_the_object_of_a_status_holds_each_instance(ledger: Ledger) -> None:
    """The instance's own words, with how old they are."""
    fleet = instance("a", refused=GOLDEN)
    read = json.loads(as_json(screens.status_object(status_of(ledger, fleet))))
    assert (read["champion"], read["champion_since"], read["serving"]) == (2, 6, 1)
    assert (read["phase"], read["rollout"], read["shadows"]) == ("Healthy", None, [])
    (only,) = read["instances"]
    assert (only["instance"], only["alive"], only["age_seconds"]) == ("a", True, 0.5)
    assert only["refused"] == [{"version": 3, "rung": "golden", "reason": "row 0 is off"}]


def test_the_object_of_a_rollout_has_shares_steps_and_readiness(canary: Ledger) -> None:
    """Shares are basis points, as in the log."""
    tallies = (Tally(8, 2, "champion", 75, 0), Tally(8, 3, "candidate", 25, 0))
    fleet = instance("a", prepared=(2, 3), revision=10, tallies=tallies)
    read = json.loads(as_json(screens.status_object(status_of(canary, fleet))))
    rollout = read["rollout"]
    assert (rollout["revision"], rollout["candidate"], rollout["strategy"]) == (8, 3, "canary")
    assert (rollout["weight"], rollout["shadow"], rollout["actual_weight"]) == (1_000, 0, 2_500)
    assert (rollout["step"], rollout["paused"], rollout["started_by"]) == (1, False, "ann")
    assert [step["place"] for step in rollout["steps"]] == ["done", "current", "coming", "coming"]
    assert (read["ready"], read["least_ready"], read["candidate"]) == (1, 1, 3)
    assert [each["answered"] for each in read["variants"]] == [75, 25]


def test_yaml_says_what_json_says(canary: Ledger) -> None:
    """Every object, with its times and enums, reads back the same."""
    objects = (
        screens.status_object(status_of(canary, instance("a", refused=GOLDEN))),
        screens.history_object("sales", canary.events),
        screens.releases_object(canary.deployment),
        screens.models_object([Model("sales", status_of(canary))]),
    )
    for each in objects:
        assert yaml.safe_load(as_yaml(each)) == json.loads(as_json(each))
    stream = "\n".join(as_yaml(each, one_of_many=True) for each in objects)
    assert list(yaml.safe_load_all(stream)) == [json.loads(as_json(each)) for each in objects]


def test_without_a_champion_nobody_serves() -> None:
    """An instance that waits for the first champion is not taken to serve it."""
    status = status_of(Ledger("sales"), instance("a", None))
    assert status.serving == 0
    assert screens.status_line(status) == "sales revision 0: no champion yet"


def test_the_line_of_a_status_changes_with_rollout_and_phase(canary: Ledger) -> None:
    """Weight, step, phase and why, in the order in which one reads them; no count that only grows."""
    fleet = instance("a", prepared=(2, 3), revision=10)
    assert screens.status_line(status_of(canary, fleet)) == (
        "sales revision 10: champion sales:2, served by 1 of 1 live instances; "
        "candidate sales:3 answers 10 % (step 2/4); Progressing: sales:3 answers 10 %, step 2 of 4"
    )


@pytest.mark.parametrize(("days", "shown"), [(30, " 30 "), (0, " 0 "), (-3, " over for 3 ")])
def test_a_horizon_that_is_over_says_so(ledger: Ledger, days: int, shown: str) -> None:
    """A negative number of days left would puzzle an operator."""
    view = screens.status_view(status_of(ledger, instance("a", days=days)))
    assert shown in text_of(view).splitlines()[-1]


# --- many models


def test_models_are_listed_with_their_state_and_their_problems(canary: Ledger) -> None:
    """One that cannot be read is a row, and hides no other."""
    ready = instance("a", prepared=(2, 3), revision=10)
    models = [
        Model("beer", None, "the topic beer.control has 3 partitions; a control log has 1"),
        Model("sales", status_of(canary, ready)),
        Model("wine", Status(read_now(Ledger("wine"), NOON)), "the topic is missing: wine.fleet"),
    ]
    shown = text_of(screens.models_view(models))
    assert row(shown, "beer:") == "the topic beer.control has 3 partitions; a control log has 1"
    assert row(shown, "sales ") == "◌ Progressing 2 3 10 % 10 1 3"
    assert row(shown, "sales:") == (
        "sales:3 answers 10 %, step 2 of 4 (changed 2026-03-01 12:11:00Z by ann)"
    )
    assert row(shown, "wine ") == "– – – – 0 – 0"
    assert row(shown, "wine:") == "the topic is missing: wine.fleet"
    assert max(map(len, text_of(screens.models_view(models), width=80).splitlines())) <= 80
    read = json.loads(as_json(screens.models_object(models)))["models"]
    assert [(each["model"], each["phase"], each["champion"]) for each in read] == [
        ("beer", None, None),
        ("sales", "Progressing", 2),
        ("wine", None, None),
    ]
    assert (read[1]["candidate"], read[1]["weight"], read[1]["alive"]) == (3, 1_000, 1)
    assert read[1]["last_what"] == "rollout 8 answers 10 % (step 2)"
    assert [each["problem"] is None for each in read] == [False, True, False]


def test_without_models_the_list_says_how_to_make_one() -> None:
    """An empty table would leave a newcomer alone."""
    assert "modelwire topics create MODEL" in text_of(screens.models_view([]))
