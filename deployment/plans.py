"""Plan files: a rollout's plan as people write it, in TOML.

    steps = [
        {shadow = 100, hold = "10m"},
        {weight = 1, hold = "5m"},
        {weight = 10},
        {pause = true},
        {weight = 50},
        {weight = 100},
    ]
    analysis = "fixed-time"          # optional: what judges a step; see ``controller``
    guard = {factor = 2, least = 50, crashes = 5} # optional: when the controller aborts by itself

1. Shares are percent, 0 … 100, to a hundredth. A share that a step does not name is 0.
2. A hold is a number with a unit: ``90s``, ``10m``, ``2h``, ``1d``. Without one a step lasts until every
   instance that answers has applied it.
3. ``pause`` stands alone: the shares stay, and a person resumes.
4. A plan that ends at a weight of 100 ends in promotion; another one stays at its last step.
"""

import re
import tomllib
from decimal import Decimal
from typing import Any

from schemas.errors import UsageProblem
from schemas.events import Guard, Plan, PlanStep

ANALYSES = ("fixed-time", "manual")
"""What may judge a step: its time alone, or a person after each."""

MOST_STEPS = 100
MOST_REJECTIONS = 10**9
LONGEST_HOLD_SECONDS = 366 * 86_400.0

_SECONDS = {"s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}
_HOLD = re.compile(r"([0-9]+(?:\.[0-9]+)?) *([smhd])")
_PERCENT = re.compile(r"([0-9]+(?:\.[0-9]+)?) *%?")
_EXAMPLE = 'such as {weight = 10, hold = "5m"} or {pause = true}'


def parse_plan(text: str, where: str) -> Plan:
    """The plan in a TOML text. Raises UsageProblem that names ``where``, the step and what is wrong."""
    try:
        table = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # also a number of thousands of digits
        raise UsageProblem(
            f"{where} is not valid TOML: {error}", hint=f"a step is {_EXAMPLE}"
        ) from error
    _check_keys(table, {"steps", "analysis", "guard"}, where)
    steps = table.get("steps")
    if not isinstance(steps, list) or not 1 <= len(steps) <= MOST_STEPS:
        raise UsageProblem(
            f"{where} has no list of 1 to {MOST_STEPS} steps", hint=f"steps = [ … ], {_EXAMPLE}"
        )
    analysis = table.get("analysis", ANALYSES[0])
    if analysis not in ANALYSES:
        raise UsageProblem(
            f"{where}: analysis is {analysis!r}", hint=f"write one of {', '.join(ANALYSES)}"
        )
    return Plan(
        steps=tuple(_step(each, f"{where}: step {n}") for n, each in enumerate(steps, 1)),
        analysis=analysis,
        guard=_guard(table.get("guard", {}), f"{where}: guard"),
    )


def parse_share(text: str) -> int:
    """``10``, ``0.5`` or ``10%`` as basis points. Raises UsageProblem."""
    matched = _PERCENT.fullmatch(text)
    if matched is None:
        raise UsageProblem(f"{text!r} is not a share", hint="write percent, such as 10%")
    return _basis_points(Decimal(matched[1]), f"{text!r} is not a share")


def _step(given: object, where: str) -> PlanStep:
    if not isinstance(given, dict):
        raise UsageProblem(f"{where} is not a table", hint=_EXAMPLE)
    _check_keys(given, {"weight", "shadow", "hold", "pause"}, where)
    if "pause" in given:
        if given["pause"] is not True or len(given) > 1:
            raise UsageProblem(
                f"{where} pauses and does something else", hint="write {pause = true} alone"
            )
        return PlanStep(pause=True)
    if not given.keys() & {"weight", "shadow"}:
        raise UsageProblem(f"{where} names no weight, no shadow and no pause", hint=_EXAMPLE)
    return PlanStep(
        weight=_share(given.get("weight", 0), f"{where}: weight"),
        shadow=_share(given.get("shadow", 0), f"{where}: shadow"),
        hold_seconds=_hold(given.get("hold", "0s"), f"{where}: hold"),
    )


def _share(given: object, where: str) -> int:
    if isinstance(given, bool) or not isinstance(given, int | float):
        raise UsageProblem(f"{where} is {given!r}", hint="write percent as a number, such as 10")
    return _basis_points(Decimal(str(given)), f"{where} is {given}, which is no share")


def _basis_points(percent: Decimal, otherwise: str) -> int:
    if not percent.is_finite() or not 0 <= percent <= 100 or percent * 100 % 1:
        raise UsageProblem(
            otherwise,
            hint="a share is 0 to 100 percent, with at most two decimals",
        )
    return int(percent * 100)


def _hold(given: object, where: str) -> float:
    matched = _HOLD.fullmatch(given) if isinstance(given, str) else None
    if matched is None:
        raise UsageProblem(f"{where} is {given!r}", hint='write a time with its unit, such as "5m"')
    seconds = float(matched[1]) * _SECONDS[matched[2]]
    if seconds > LONGEST_HOLD_SECONDS:
        raise UsageProblem(f"{where} is {given!r}, more than a year", hint="use {pause = true}")
    return seconds


def _guard(given: object, where: str) -> Guard:
    if not isinstance(given, dict):
        raise UsageProblem(
            f"{where} is not a table", hint="such as {factor = 2, least = 50, crashes = 5}"
        )
    _check_keys(given, {"factor", "least", "crashes"}, where)
    standard = Guard()
    factor = given.get("factor", standard.factor)
    if isinstance(factor, bool) or not isinstance(factor, int | float) or not 1 <= factor < 1e6:
        raise UsageProblem(f"{where}: factor is {factor!r}", hint="a number from 1, such as 2")
    return Guard(
        float(factor),
        _count(given.get("least", standard.least), f"{where}: least"),
        _count(given.get("crashes", standard.crashes), f"{where}: crashes"),
    )


def _count(given: object, where: str) -> int:
    if isinstance(given, bool) or not isinstance(given, int) or not 1 <= given <= MOST_REJECTIONS:
        raise UsageProblem(f"{where} is {given!r}", hint="a whole number from 1, such as 50")
    return given


def _check_keys(given: dict[str, Any], known: set[str], where: str) -> None:
    unknown = sorted(given.keys() - known)
    if unknown:
        raise UsageProblem(
            f"{where} has the unknown key {unknown[0]!r}", hint=f"known: {', '.join(sorted(known))}"
        )
