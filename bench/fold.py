"""Measures the fold: how long a reader takes from the bytes of a long control log to its state.

The log holds 10,000 events of all types, decided by the rules. A second one is all releases, of which a
state keeps every one. Printed are the seconds of decoding and folding, with the limit, and their ratio
to the least that any reader of the log must do: parse each event as JSON and hash its bytes. Last come
the nanoseconds that routing costs a request, and those of its bare hash.

Exits with 1 where a log takes longer than the limit.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from hashlib import blake2b, sha256

import click
import msgspec

from deployment.commands import Release
from deployment.ledger import Ledger
from deployment.routing import Routing, route
from deployment.state import Deployment
from tests.control_logs import Writer, write_log

LIMIT_SECONDS = 0.5
"""What 10,000 events may take; other numbers in proportion."""

LOGS = ("mixed", "all releases")

ROUTED = 100_000


@click.command()
@click.option("--events", default=10_000, show_default=True, help="Length of each log.")
@click.option("--rounds", default=5, show_default=True, help="Times that each is read.")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table")
def fold(events: int, rounds: int, output: str) -> None:
    """Measure decoding and folding a control log."""
    report = {
        "mixed": _measure(write_log("sales", events, seed=1).records, rounds),
        "all releases": _measure(_releases(events), rounds),
        "routing": _routing(rounds),
    }
    if output == "json":
        click.echo(msgspec.json.encode(report))
    else:
        _show(report)
    if slow := [name for name in LOGS if report[name]["fold s"] > _limit(events)]:
        click.echo(f"error: over the limit of {_limit(events):g} s: {', '.join(slow)}", err=True)
        sys.exit(1)


def _limit(events: int) -> float:
    """What so many events may take, in seconds."""
    return LIMIT_SECONDS * events / 10_000


def _show(report: dict[str, dict[str, float]]) -> None:
    for name in LOGS:
        figures = report[name]
        click.echo(
            f"{name:13} {figures['events']:,.0f} events   decode + fold "
            f"{figures['fold s']:.3f} s (limit {_limit(int(figures['events'])):g} s)   JSON + SHA-256 "
            f"{figures['baseline s']:.3f} s   ratio {figures['ratio']:.1f}"
        )
    figures = report["routing"]
    click.echo(
        f"{'routing':13} {figures['route ns']:.0f} ns a request   BLAKE2b alone "
        f"{figures['hash ns']:.0f} ns   ratio {figures['ratio']:.1f}"
    )


def _releases(events: int) -> list[bytes]:
    writer = Writer("sales")
    for number in range(events):
        writer.give(Release(f"sha256:{number:064x}", None, "salt"))
    return writer.records


def _measure(records: list[bytes], rounds: int) -> dict[str, float]:
    def read() -> Deployment:
        ledger = Ledger("sales")
        for raw in records:
            ledger.take(raw)
        return ledger.deployment

    def baseline() -> None:
        for raw in records:
            json.loads(raw)
            sha256(raw).hexdigest()

    assert read().revision == len(records)
    folding, least = _seconds(read, rounds), _seconds(baseline, rounds)
    return {
        "events": float(len(records)),
        "fold s": folding,
        "baseline s": least,
        "ratio": folding / least,
    }


def _routing(rounds: int) -> dict[str, float]:
    routing = Routing(champion=1, candidate=2, weight=5_000, salt="9f86d081884c7d65")
    keys = [f"United Kingdom|{number:06}".encode() for number in range(ROUTED)]
    salt = routing.salt.encode() + b"\0"

    def routed() -> None:
        for key in keys:
            route(routing, key, "")

    def hashed() -> None:
        for key in keys:
            blake2b(salt + key, digest_size=8).digest()

    whole, bare = (_seconds(each, rounds) / ROUTED * 1e9 for each in (routed, hashed))
    return {"route ns": whole, "hash ns": bare, "ratio": whole / bare}


def _seconds(work: Callable[[], object], rounds: int) -> float:
    """The median of some rounds."""
    taken = []
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


if __name__ == "__main__":
    fold()
