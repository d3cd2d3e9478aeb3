"""What ``rollout run`` shows: a line for each thing that happens, and what is waited for."""

import re
from datetime import UTC, datetime

import click

from adapters.output import TABLE, as_text
from adapters.settings import Settings
from deployment.controller import Outcome, Over, Wait
from deployment.state import Rollout
from publisher import screens
from publisher.commands import Appended
from publisher.controller import Controller, Told, outcome_code
from schemas.errors import ModelwireError


def carry_out(settings: Settings, model: str, rollout: Rollout, output: str) -> int:
    """Carry out the plan of the rollout; returns the exit code of its end."""
    teller = _Teller(output)
    try:
        over = Controller(settings, model, rollout, teller.say).run()
    except KeyboardInterrupt:
        click.echo(
            f"the rollout stands as it is; go on with: modelwire rollout run {model}",
            err=True,
        )
        raise
    assert over is not None, "without a limit it runs to its end"
    return outcome_code(over.outcome)


class _Teller:
    """Says what is new. For programs each command that was appended is an object."""

    def __init__(self, output: str) -> None:
        self._output = output
        self._said = ""

    def say(self, told: Told) -> None:
        match told:
            case Appended() if self._output == TABLE:
                self._line(screens.appended_line(told))
            case Appended():
                click.echo(as_text(self._output, screens.appended_object(told), one_of_many=True))
            case Wait(why=why):
                self._once(why)
            case Over(outcome=outcome, why=why):
                mark = "stopped" if outcome is Outcome.ABORTED else "done"
                self._line(f"{mark}: {why}")
            case ModelwireError(message=message):
                self._once(f"trying again: {message}")

    def _once(self, why: str) -> None:
        """Say it unless only a number in it has changed."""
        kind = re.sub(r"\d+", "", why)
        if kind != self._said:
            self._line(why)
            self._said = kind

    def _line(self, text: str) -> None:
        self._said = ""
        click.echo(f"{datetime.now(UTC):%H:%M:%SZ} {text}", err=self._output != TABLE)
