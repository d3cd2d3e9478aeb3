"""Measures what shadows cost the champion: the age of its answers, and how many it gives a second.

One consumer answers on a stack of its own. Turns without a shadow, which are the baseline, take turns
with turns in which another version shadows every request, and with turns in which that version is
slow. A turn is a steady stream, in which the age of each answer is taken (from the request's time to
the moment when a read_committed reader has the answer), and then a burst, whose answers a second say
what the instance can do at most. Printed are both for each kind of turn, their ratios to the baseline,
and the share of the requests that the shadow scored.
"""

import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.table import Table

from adapters.settings import load_settings
from bench.answers import Answers
from deployment.commands import Release, Shift, Start, Strategy
from modelwire.localstack.stack import Stack
from schemas.fleet import InstanceStatus
from tests.bundles import store_bundle
from tests.fleet import Harness, environment_of, wait_for

MODEL = "bench"
WHOLE = 10_000
BASELINE = "no shadow"
KINDS = {"shadow": 0, "slow shadow": 100}
"""Kinds of turns beside the baseline, with the layers of the shadow's model."""


@dataclass
class Found:
    """What the turns of one kind gave; ``handled`` and ``scored`` count a shadow's requests."""

    ages: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    handled: int = 0
    scored: int = 0


@click.command()
@click.option("--rounds", default=4, show_default=True, help="Turns of each kind.")
@click.option("--rate", default=1_000, show_default=True, help="Requests a second of the stream.")
@click.option("--seconds", default=4.0, show_default=True, help="Length of each turn's stream.")
@click.option("--burst", default=40_000, show_default=True, help="Requests of each turn's burst.")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table")
def shadow(rounds: int, rate: int, seconds: float, burst: int, output: str) -> None:
    """Measure what shadows cost."""
    with tempfile.TemporaryDirectory() as folder:
        state_dir = Path(folder) / "stack"
        Stack.up(state_dir, quiet=output == "json")
        harness = None
        try:
            settings = load_settings(
                state_dir=state_dir, store_url=(Path(folder) / "store").as_uri()
            )
            harness = Harness(settings, environment_of(settings), MODEL, Path(folder))
            found = _measure(harness, rounds, rate, seconds, burst)
        finally:
            if harness is not None:
                harness.close()
            Stack.down(state_dir)
    report = _report(found)
    if output == "json":
        click.echo(msgspec.json.encode(report))
    else:
        _show(report)


def _measure(
    harness: Harness, rounds: int, rate: int, seconds: float, burst: int
) -> dict[str, Found]:
    harness.release(store_bundle(harness.store, MODEL, 1.0))
    harness.start(CONSUMER__STATUS_INTERVAL_MS="100")
    harness.wait_until_ready()
    rollouts = {kind: _start(harness, layers) for kind, layers in KINDS.items()}
    found = {kind: Found() for kind in (BASELINE, *KINDS)}
    for _ in range(rounds):
        for kind, turn in found.items():
            rollout = rollouts.get(kind)
            if rollout is not None:
                _share(harness, rollout, WHOLE)
            turn.ages += _stream(harness, rate, seconds)
            turn.rates.append(_burst(harness, burst))
            if rollout is not None:
                handled, scored = _settled(harness, rollout)
                turn.handled += handled
                turn.scored += scored
                _share(harness, rollout, 0)
    report = harness.verify()
    assert report.clean, report.findings
    return found


def _start(harness: Harness, layers: int) -> int:
    """A shadow without a share so far; returns its rollout."""
    digest = store_bundle(harness.store, MODEL, 2.0 + layers, layers=layers)
    harness.command(Release(digest, None, "unused"))
    version = len(KINDS) if layers else 1
    started, _ = harness.command(Start(version + 1, Strategy.SHADOW, "dark", share=1))
    wait_for("its model", lambda: version + 1 in _status(harness).prepared, 60)
    _share(harness, started.event.revision, 0)
    return started.event.revision


def _share(harness: Harness, rollout: int, share: int) -> None:
    shifted = harness.command(Shift(rollout, None, share, ()))
    harness.wait_for_revision(shifted[-1].event.revision)


def _stream(harness: Harness, rate: int, seconds: float) -> list[float]:
    """The ages of the answers to a steady stream."""
    answers = Answers(harness)
    with harness.stream(rate) as stream:
        wait_for("answers", lambda: len(answers.seen) > rate // 2)
        answers.take()
        until = stream.sent + int(rate * seconds)
        wait_for("the stream", lambda: stream.sent >= until, 10 * seconds)
        taken = answers.take()
    answers.close()
    return [each.age for each in taken]


def _burst(harness: Harness, count: int) -> float:
    """Answers a second, from the first request of the burst to its last answer."""
    wait_for("no lag", lambda: _status(harness).lag == 0)
    before = _status(harness).answered
    began = time.monotonic()
    harness.send(count)
    wait_for("the burst", lambda: _status(harness).answered >= before + count, 120)
    return count / (time.monotonic() - began)


def _settled(harness: Harness, rollout: int) -> tuple[int, int]:
    """How many requests came to the shadow in this turn, and how many it scored."""

    def look() -> tuple[int, int]:
        tally = next(t for t in _status(harness).tallies if t.rollout == rollout)
        return tally.answered + tally.rejected + tally.shed + tally.failed, tally.answered

    seen = look()
    while True:
        time.sleep(1.0)
        seen, before = look(), seen
        if seen == before:
            return seen


def _status(harness: Harness) -> InstanceStatus:
    [sighting] = harness.fleet()
    return sighting.status


def _report(found: dict[str, Found]) -> dict[str, dict[str, float]]:
    report: dict[str, dict[str, float]] = {}
    for kind, turn in found.items():
        cuts = statistics.quantiles(turn.ages, n=100)
        report[kind] = {
            "age p50 ms": cuts[49] * 1e3,
            "age p99 ms": cuts[98] * 1e3,
            "answers/s": statistics.median(turn.rates),
        }
        if kind != BASELINE:
            for name, figure in list(report[kind].items()):
                report[kind][f"{name} ratio"] = figure / report[BASELINE][name]
            report[kind]["scored"] = turn.scored / max(turn.handled, 1)
    return report


def _show(report: dict[str, dict[str, float]]) -> None:
    table = Table(title="What shadows cost the champion")
    rows: Sequence[str] = list(report[next(iter(KINDS))])
    table.add_column("")
    for kind in report:
        table.add_column(kind, justify="right")
    for row in rows:
        cells = (f"{found[row]:.3g}" if row in found else "" for found in report.values())
        table.add_row(row, *cells)
    Console().print(table)


if __name__ == "__main__":
    shadow()
