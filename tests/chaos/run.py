"""The entry of ``make chaos``: one run of the size that is asked for.

    python -m tests.chaos.run --requests 100000 --kills 200 --broker-kills 20 --seed 1

Each option may be an environment variable of its name. Lines say what happened after how many seconds and
requests; the last one is a JSON object. The exit code is 1 where anything is not as it must be, and the
folder of the run, with all log lines of the consumers, is kept then.

SIGINT and SIGTERM stop everything that the run started. Such a run has no result: its last line names the
folder, which stays, and the exit code is 130 or 143.
"""

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

import click

from tests.chaos.abort import Aborted, abort_by_signal
from tests.chaos.arena import arena
from tests.chaos.campaign import Campaign
from tests.chaos.schedule import flood_for, pace, sizes_for

SAMPLE = 500

for name in [name for name in os.environ if name.startswith(("MODELWIRE_", "AWS_", "KAFKA_"))]:
    del os.environ[name]  # what the developer has set must not reach a run


@click.command()
@click.option("--requests", envvar="REQUESTS", default=100_000, type=click.IntRange(100))
@click.option("--kills", envvar="KILLS", default=200, type=click.IntRange(0))
@click.option("--broker-kills", envvar="BROKER_KILLS", default=20, type=click.IntRange(0))
@click.option("--seed", envvar="SEED", default=1)
@click.option("--slots", envvar="SLOTS", default=3, type=click.IntRange(1, 16))
@click.option("--flood", envvar="FLOOD", type=click.IntRange(0), help="Default: by the requests.")
@click.option("--rate", envvar="RATE", type=float, help="Requests a second.")
def main(
    requests: int,
    kills: int,
    broker_kills: int,
    seed: int,
    slots: int,
    flood: int | None,
    rate: float | None,
) -> None:
    """Run the chaos suite once."""
    flood = flood_for(requests) if flood is None else flood
    sizes = sizes_for(requests, kills, broker_kills, slots, flood)
    folder = Path(tempfile.mkdtemp(prefix="modelwire-chaos-"))
    print(f"what the processes write is in {folder}, until all is well", flush=True)
    try:
        with abort_by_signal(), arena(folder, "chaos") as (harness, faults):
            outcome = Campaign(harness, faults, sizes, seed, rate or pace(sizes), SAMPLE).run()
    except Aborted as aborted:
        print(
            f"aborted by {aborted.signal.name}, everything is stopped; {folder} stays for reading"
        )
        sys.exit(aborted.exit_code)
    if outcome.clean:
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(outcome.as_json()))
    sys.exit(0 if outcome.clean else 1)


if __name__ == "__main__":
    main()
