"""What is known of a model now and in the past, and which models there are."""

import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.settings import Settings, Topics
from deployment.commands import Shift, Start, Strategy, Undo
from deployment.ledger import Ledger
from deployment.moments import parse_moment, read_as_of, read_now
from publisher.models import model_names
from publisher.status import Status, add_up
from schemas.errors import NotFound, UsageProblem
from schemas.fleet import Tally
from tests.unit.example_rollouts import (
    NOON,
    READY,
    champion_ledger,
    give,
    instance,
    minutes,
    release,
)


@pytest.fixture
def ledger() -> Ledger:
    """sales:2 is champion since noon (revision 6), and was undone ten minutes later (revision 7)."""
    made = champion_ledger()
    give(made, Undo(None), NOON + minutes(10))
    return made


# --- moments


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("7", 7),
        ("0", 0),
        ("2026-03-01", datetime(2026, 3, 1, tzinfo=UTC)),
        ("2026-03-01T11:30", datetime(2026, 3, 1, 11, 30, tzinfo=UTC)),
        ("2026-03-01T11:30Z", datetime(2026, 3, 1, 11, 30, tzinfo=UTC)),
        ("2026-03-01 12:30:00+01:00", datetime(2026, 3, 1, 11, 30, tzinfo=UTC)),
        ("90s", NOON - timedelta(seconds=90)),
        ("10m", NOON - timedelta(minutes=10)),
        ("2h ago", NOON - timedelta(hours=2)),
        ("3 d", NOON - timedelta(days=3)),
    ],
)
def test_a_moment_is_a_revision_a_time_or_how_long_ago(text: str, moment: int | datetime) -> None:
    """Without a zone a time is UTC."""
    assert parse_moment(text, NOON) == moment


def test_a_time_without_a_zone_is_not_the_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same command means the same moment on every machine."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert parse_moment("2026-03-01T11:30", NOON) == NOON - minutes(30)
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    "text", ["", "yesterday", "-3", "2026-13-01", "10 weeks", "2026-03-01T12:00:01Z", "²"]
)
def test_what_is_no_moment_is_a_usage_problem(text: str) -> None:
    """Nor is one that is still to come."""
    with pytest.raises(UsageProblem) as raised:
        parse_moment(text, NOON)
    assert raised.value.hint


@pytest.mark.parametrize("text", ["999999d", "0001-01-01T00:00+23:00"])
def test_a_time_before_the_calendar_begins_is_told(text: str) -> None:
    """It is no moment, and no traceback either."""
    with pytest.raises(UsageProblem):
        parse_moment(text, NOON)


@given(st.text(max_size=20))
def test_no_text_breaks_the_reading_of_a_moment(text: str) -> None:
    """It is a moment, or told to be none."""
    with suppress(UsageProblem):
        assert isinstance(parse_moment(text, NOON), int | datetime)


def test_the_state_at_a_revision_is_the_fold_up_to_there(ledger: Ledger) -> None:
    """What came later is not in it."""
    read = read_as_of(ledger, 6)
    assert (read.deployment.champion, read.deployment.revision, len(read.events)) == (2, 6, 6)
    assert read.is_past
    assert read.at == NOON
    assert read_as_of(ledger, 7).deployment == ledger.deployment


def test_the_state_at_a_time_holds_what_was_not_later(ledger: Ledger) -> None:
    """An event of that very moment is in it."""
    assert read_as_of(ledger, NOON).deployment.champion == 2
    assert read_as_of(ledger, NOON + minutes(9.99)).deployment.revision == 6
    assert read_as_of(ledger, NOON + minutes(10)).deployment.champion == 1


def test_nothing_later_is_in_a_state_where_clocks_disagree(ledger: Ledger) -> None:
    """The fold ends before the first event that is later, though an earlier time follows it."""
    give(ledger, Undo(2), NOON + minutes(5))  # its writer's clock was behind
    assert read_as_of(ledger, NOON + minutes(6)).deployment.revision == 6
    assert read_as_of(ledger, NOON + minutes(10)).deployment.revision == 8


@pytest.mark.parametrize("moment", [0, 8, 10**17, NOON - minutes(1)])
def test_a_moment_that_the_log_does_not_know_is_not_found(
    ledger: Ledger, moment: int | datetime
) -> None:
    """The hint says what it does know."""
    with pytest.raises(NotFound) as raised:
        read_as_of(ledger, moment)
    assert ("1 to 7" if isinstance(moment, int) else "12:00:00Z") in raised.value.hint


def test_an_empty_log_has_no_past() -> None:
    """It is told, at any moment."""
    with pytest.raises(NotFound, match="is empty"):
        read_as_of(Ledger("sales"), 1)


# --- the status


def test_the_status_of_the_past_claims_nothing_of_the_fleet(ledger: Ledger) -> None:
    """No phase, nobody alive; champion and its revision are the log's."""
    status = Status(read_as_of(ledger, 6))
    assert status.assessment is None
    assert (status.champion_since, status.alive) == (6, 0)
    assert Status(read_now(ledger, NOON)).champion_since == 7


def test_the_horizon_is_the_nearest_of_the_live_instances_with_the_champion() -> None:
    """A lost one and one that still serves the former champion do not count."""
    fleet = (
        instance("a", 2, days=30),
        instance("b", 2, days=20),
        instance("c", 1, days=3),
        instance("d", 2, days=2, alive=False),
        instance("e", 2, days=None),
    )
    status = Status(read_now(champion_ledger(), NOON), fleet)
    assert status.days_left == 20
    assert Status(read_now(champion_ledger(), NOON), fleet[-1:]).days_left is None


def test_counts_are_of_the_live_instances_and_of_what_runs_now() -> None:
    """Counts of former rollouts and of lost instances are left out."""
    ledger = champion_ledger()
    give(ledger, release("3"))
    give(ledger, Start(3, Strategy.CANARY, "s"))
    give(ledger, Shift(8, 1_000, None, READY))
    one = (Tally(8, 2, "champion", 80, 0, 8.0), Tally(8, 3, "candidate", 10, 10, 2.0))
    old = (Tally(0, 2, "champion", 1_000, 0), Tally(5, 2, "candidate", 1_000, 0))
    fleet = (
        instance("a", tallies=(*one, *old)),
        instance("b", tallies=one),
        instance("c", tallies=one, alive=False),
    )
    status = Status(read_now(ledger, NOON), fleet)
    assert status.tallies == (
        Tally(8, 2, "champion", 160, 0, 16.0),
        Tally(8, 3, "candidate", 20, 20, 4.0),
    )
    assert (status.actual_weight, status.actual_weight_now) == (0.2, 0.2)


def test_a_rollout_without_answers_has_no_actual_weight() -> None:
    """Nothing of nothing is not 0 %."""
    ledger = champion_ledger()
    give(ledger, Start(1, Strategy.CANARY, "s"))
    status = Status(read_now(ledger, NOON), (instance("a"),))
    assert (status.actual_weight, status.actual_weight_now) == (None, None)


def test_a_tally_of_a_later_modelwire_is_added_up_last() -> None:
    """An unknown variant is kept, and comes behind the known ones."""
    tallies = (Tally(1, 1, "mirror", 1, 0), Tally(1, 1, "champion", 1, 0))
    assert [each.variant for each in add_up(tallies)] == ["champion", "mirror"]


# --- which models there are


def names(pattern: str, *topics: str) -> list[str]:
    """The models by this pattern of control topics."""
    return model_names(Settings(topics=Topics(control=pattern)), topics)


def test_a_model_is_a_control_topic_of_the_settings_form() -> None:
    """Other topics, and names that no model can have, are left out."""
    topics = (
        "sales.control",
        "sales.requests",
        "Wine.control",
        ".control",
        "a.b.control",
        "beer.control",
    )
    assert names("{model}.control", *topics) == ["beer", "sales"]
    assert names("ml.{model}-log", "ml.sales-log", "mlxsales-log", "ml.sales-log2") == ["sales"]


def test_a_form_that_names_the_model_twice_wants_the_same_name() -> None:
    """It is no model where the two differ."""
    assert names("{model}.{model}.log", "a.a.log", "a.b.log") == ["a"]


def test_a_form_without_the_model_is_a_usage_problem() -> None:
    """One control topic for all cannot say which models there are."""
    with pytest.raises(UsageProblem, match=r"topics\.control"):
        names("control", "control")
