"""The end of the demo: its answers are kept, one is found, explained and derived again, then many are."""

import json
import time
from collections.abc import Callable

from modelwire.demo.commands import Commands, command_line
from modelwire.demo.figures import Audited
from modelwire.demo.view import View

SAMPLE = 500
"""How many answers are drawn to be derived again."""

ONE_OF_THE_CANARY = (
    "SELECT request_id, version FROM forecasts WHERE variant = 'candidate' "
    "ORDER BY revision, source_partition, source_offset LIMIT 1"
)

LOOK_SECONDS = 0.05
"""Between two looks whether a command has ended."""


def audit(model: str, commands: Commands, view: View) -> Audited:
    """Type what an auditor types. Raises ModelwireError where a command fails."""

    def run(*arguments: str) -> str:
        view.say(f"$ {command_line(arguments)}")
        return commands.run(*arguments, meanwhile=_pause)

    def ask(sql: str) -> list[dict[str, object]]:
        found = json.loads(run("audit", "query", "--model", model, sql, "-o", "json"))
        return list(found["rows"])

    run("audit", "sink", "--model", model, "--once")
    [counted] = ask("SELECT count(*) AS kept FROM forecasts")
    [one] = ask(ONE_OF_THE_CANARY)
    request_id = str(one["request_id"])
    for command in ("explain", "verify"):
        _show(view.say, run("audit", command, "--model", model, request_id))
    sampled = ("audit", "verify", "--model", model, "--sample", str(SAMPLE))
    drawn = json.loads(run(*sampled, "-o", "json"))
    audited = Audited(
        kept=int(str(counted["kept"])),
        request_id=request_id,
        version=int(str(one["version"])),
        derived=drawn["checked"],
        identical=drawn["outcomes"]["identical"],
    )
    view.say(f"{audited.identical:,} of {audited.derived:,} answers came out again to the bit")
    return audited


def _show(say: Callable[[str], None], text: str) -> None:
    for line in text.rstrip().splitlines():
        say(f"    {line}")


def _pause() -> None:
    time.sleep(LOOK_SECONDS)
