"""Plan files: what people write becomes a plan, and what they mistype is named where it stands."""

from contextlib import suppress
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployment.controller import ANALYSES as JUDGES
from deployment.plans import ANALYSES, MOST_STEPS, parse_plan, parse_share
from schemas.errors import UsageProblem
from schemas.events import Guard, Plan, PlanStep

WHERE = "canary.toml"


def refused(text: str) -> UsageProblem:
    """What is said of a plan that is none; it always says what to do."""
    with pytest.raises(UsageProblem) as caught:
        parse_plan(text, WHERE)
    assert caught.value.message.startswith(WHERE)
    assert caught.value.hint
    return caught.value


def test_a_plan_reads_as_people_write_it() -> None:
    """Percent become basis points and times seconds; what a step does not name is 0."""
    text = """
        steps = [
            {shadow = 100, hold = "10m"},
            {weight = 1, hold = "5m"},
            {weight = 10},
            {pause = true},
            {weight = 50},
            {weight = 100},
        ]
    """
    assert parse_plan(text, WHERE) == Plan(
        steps=(
            PlanStep(shadow=10_000, hold_seconds=600.0),
            PlanStep(weight=100, hold_seconds=300.0),
            PlanStep(weight=1_000),
            PlanStep(pause=True),
            PlanStep(weight=5_000),
            PlanStep(weight=10_000),
        ),
        analysis="fixed-time",
        guard=Guard(2.0, 50),
    )


def test_a_plan_names_its_analysis_and_its_guard() -> None:
    """Both are optional, and of a guard each part is."""
    text = 'steps = [{weight = 0.01}]\nanalysis = "manual"\nguard = {factor = 1.5}\n'
    assert parse_plan(text, WHERE) == Plan((PlanStep(1),), "manual", Guard(1.5, 50))
    tables = "[[steps]]\nweight = 3.14\nshadow = 99.99\n[guard]\nleast = 7\n"
    assert parse_plan(tables, WHERE) == Plan((PlanStep(314, 9_999),), guard=Guard(2.0, 7))


def test_the_analyses_that_a_plan_may_name_exist() -> None:
    """What the file allows, the controller can do."""
    assert set(ANALYSES) == set(JUDGES)


@pytest.mark.parametrize(
    ("hold", "seconds"),
    [("0s", 0), ("90s", 90), ("1.5m", 90), ("10 m", 600), ("2h", 7_200), ("366d", 31_622_400)],
)
def test_a_hold_has_a_unit(hold: str, seconds: float) -> None:
    """Seconds, minutes, hours, days."""
    plan = parse_plan(f'steps = [{{weight = 1, hold = "{hold}"}}]', WHERE)
    assert plan.steps[0].hold_seconds == seconds


@pytest.mark.parametrize(
    "hold", ["300", "'300'", "'-1m'", "''", "'5 min'", "'1e3s'", "'inf s'", "'٣m'", "true", "'5m '"]
)
def test_a_hold_that_is_none_is_named(hold: str) -> None:
    """File, step and key stand in the message."""
    problem = refused(f"steps = [{{weight = 1}}, {{weight = 2, hold = {hold}}}]")
    assert problem.message.startswith("canary.toml: step 2: hold is ")


def test_a_hold_of_more_than_a_year_is_a_pause() -> None:
    """Nobody means that."""
    assert "pause" in refused("steps = [{weight = 1, hold = '367d'}]").hint
    assert "pause" in refused(f"steps = [{{weight = 1, hold = '{'9' * 400}d'}}]").hint


@pytest.mark.parametrize("key", ["weight", "shadow"])
@pytest.mark.parametrize(
    "share",
    [
        *("-1", "-0.01", "100.01", "101", "0.001", "33.333", "1e-9", "99.999999999"),
        *("nan", "inf", "-inf", "1e300", "1" + "0" * 400, "true", "'10'", "'10%'", "[10]", "{}"),
        "2026-01-01",
    ],
)
def test_a_share_that_is_none_is_named(key: str, share: str) -> None:
    """Neither too little, too much, too fine, no number, nor a truth becomes a share."""
    problem = refused(f"steps = [{{pause = true}}, {{{key} = {share}}}]")
    assert problem.message.startswith(f"canary.toml: step 2: {key} is ")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "canary.toml has no list of 1 to 100 steps"),
        ("steps = []", "canary.toml has no list of 1 to 100 steps"),
        ("steps = 5", "canary.toml has no list of 1 to 100 steps"),
        ("steps = [\n{weight = 1}\n", "canary.toml is not valid TOML: "),
        ("steps = [{weight = " + "1" * 5_000 + "}]", "canary.toml is not valid TOML: "),
        ("steps = " + "[" * 5_000, "canary.toml is not valid TOML: "),
        ("steps = [{weight = 1}]\nstep = 1", "canary.toml has the unknown key 'step'"),
        ("steps = [{wieght = 1}]", "canary.toml: step 1 has the unknown key 'wieght'"),
        ("steps = [10]", "canary.toml: step 1 is not a table"),
        ("steps = [{}]", "canary.toml: step 1 names no weight, no shadow and no pause"),
        ("steps = [{hold = '5m'}]", "canary.toml: step 1 names no weight, no shadow and no pause"),
        ("steps = [{pause = false}]", "canary.toml: step 1 pauses and does something else"),
        ("steps = [{pause = 1}]", "canary.toml: step 1 pauses and does something else"),
        (
            "steps = [{pause = true, hold = '5m'}]",
            "canary.toml: step 1 pauses and does something else",
        ),
        ("steps = [{weight = 1}]\nanalysis = 'magic'", "canary.toml: analysis is 'magic'"),
        ("steps = [{weight = 1}]\nanalysis = []", "canary.toml: analysis is []"),
        ("steps = [{weight = 1}]\nguard = 2", "canary.toml: guard is not a table"),
        ("steps = [{weight = 1}]\nguard = {fact = 2}", "canary.toml: guard has the unknown key"),
        ("steps = [{weight = 1}]\nguard = {factor = nan}", "canary.toml: guard: factor is nan"),
        ("steps = [{weight = 1}]\nguard = {factor = 0.9}", "canary.toml: guard: factor is 0.9"),
        ("steps = [{weight = 1}]\nguard = {factor = true}", "canary.toml: guard: factor is True"),
        ("steps = [{weight = 1}]\nguard = {least = 0}", "canary.toml: guard: least is 0"),
        ("steps = [{weight = 1}]\nguard = {least = 1.5}", "canary.toml: guard: least is 1.5"),
        ("steps = [{weight = 1}]\nguard = {least = true}", "canary.toml: guard: least is True"),
        (
            "steps = [{weight = 1}]\nguard = {least = 100000000000000000000}",
            "canary.toml: guard: least is 100000000000000000000",
        ),
    ],
)
def test_what_is_wrong_is_named_where_it_stands(text: str, said: str) -> None:
    """Each message names the file, the step and the key."""
    assert refused(text).message.startswith(said)


def test_a_plan_has_a_most_of_steps() -> None:
    """As many as an event can carry, and not one more."""
    most = parse_plan(f"steps = [{'{weight = 1},' * MOST_STEPS}]", WHERE)
    assert msgspec.convert(msgspec.to_builtins(most), Plan) == most
    refused(f"steps = [{'{weight = 1},' * (MOST_STEPS + 1)}]")


@pytest.mark.parametrize(
    ("text", "points"),
    [("10", 1_000), ("0.5%", 50), ("0", 0), ("100 %", 10_000), ("0.01", 1), ("12.340", 1_234)],
)
def test_a_share_on_the_command_line(text: str, points: int) -> None:
    """With a percent sign or without."""
    assert parse_share(text) == points


@pytest.mark.parametrize(
    "text",
    ["", "%", "ten", "-1", "101", "0.001", "nan", "inf", "1e1", "1_0", "10%%", " 10", "٣", "10\n"],
)
def test_no_share_on_the_command_line(text: str) -> None:
    """What was found is said as it was written."""
    with pytest.raises(UsageProblem, match="share") as caught:
        parse_share(text)
    assert repr(text) in caught.value.message
    assert caught.value.hint


POINTS = st.integers(0, 10_000)
STEPS = st.one_of(
    st.just(PlanStep(pause=True)),
    st.builds(PlanStep, POINTS, POINTS, st.integers(0, 31_622_400).map(float)),
)
PLANS = st.builds(
    Plan,
    st.lists(STEPS, min_size=1, max_size=8).map(tuple),
    st.sampled_from(ANALYSES),
    st.builds(Guard, st.floats(1, 1_000), st.integers(1, 10**9)),
)


def written(plan: Plan) -> str:
    """The plan as a person would write it."""
    steps = [
        "{pause = true}"
        if step.pause
        else f"{{weight = {Decimal(step.weight) / 100}, shadow = {Decimal(step.shadow) / 100}, "
        f'hold = "{step.hold_seconds:.0f}s"}}'
        for step in plan.steps
    ]
    guard = f"{{factor = {plan.guard.factor!r}, least = {plan.guard.least}}}"
    return f"steps = [{', '.join(steps)}]\nanalysis = '{plan.analysis}'\nguard = {guard}\n"


@given(PLANS)
def test_every_plan_can_be_written_and_read(plan: Plan) -> None:
    """From TOML, and through the event that carries it, comes the very same plan."""
    assert parse_plan(written(plan), WHERE) == plan
    assert msgspec.json.decode(msgspec.json.encode(plan), type=Plan) == plan


@given(POINTS)
def test_every_share_can_be_written_and_read(points: int) -> None:
    """To the basis point, without what binary fractions do to hundredths."""
    assert parse_share(f"{points / 100:.2f}%") == points
    text = f"steps = [{{weight = {points / 100!r}}}]"
    assert parse_plan(text, WHERE).steps[0].weight == points


@given(st.text(max_size=60))
def test_no_text_breaks_the_reader(text: str) -> None:
    """Whatever a file holds, a plan or a problem that people understand comes out."""
    sources = (text, f"steps = [{{weight = {text}}}]", f"steps = [{{weight = 1, hold = {text}}}]")
    for source in sources:
        with suppress(UsageProblem):
            assert parse_plan(source, WHERE).steps
