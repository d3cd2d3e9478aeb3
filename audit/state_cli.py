"""``modelwire audit state``: who answered at a moment, and who made it so."""

from collections.abc import Iterator
from datetime import UTC, datetime

import click
from rich.console import Group, RenderableType
from rich.text import Text

from adapters.answer_files import AnswerStore
from adapters.command_line import servers_option, speak_briefly
from adapters.layout import NOTHING, new_table, show, utc
from adapters.model_name import parse_model
from adapters.object_store import open_store
from adapters.output import output_option
from audit.history import Deed
from audit.logs import read_history
from audit.options import log_option, model_option, settings_of, store_option
from audit.state import RollingOut, Serving, State, state_at
from audit.words import printable
from deployment.moments import events_as_of, parse_moment
from deployment.words import percent
from schemas.errors import Conflict


@click.command("state")
@click.option(
    "--at",
    metavar="TIME|REVISION",
    help="A revision (7), a time (2026-11-21T10:00Z; UTC without a zone), or how long ago (10m, 2h).  "
    "[default: now]",
)
@model_option
@log_option
@servers_option
@store_option
@output_option
def state_command(
    at: str | None,
    model: str,
    control_log: str,
    bootstrap_servers: str | None,
    store: str | None,
    output: str,
) -> None:
    """Say who answered MODEL's requests then: champion, candidate, shares, shadows, and who and why.

    Exit code 5: the log is not whole up to then; 4: it has no such revision, or no event up to then.
    """
    now = datetime.now(UTC)
    moment = now if at is None else parse_moment(at, now)
    parse_model(model)
    speak_briefly()
    settings = settings_of(bootstrap_servers, store)
    answers = AnswerStore(open_store(settings.audit_url, settings.s3_settings), model)
    history = read_history(settings, answers, model, control_log)
    state = state_at(events_as_of(model, history.events, moment))
    broken = history.broken
    if broken is not None and not (isinstance(moment, int) and history.vouches_for(moment)):
        raise Conflict(
            f"from revision {broken.revision} on nothing vouches for the control log: {broken.why}",
            hint=f"of what lies before, --at 1 to --at {broken.revision - 1} can be told"
            if broken.revision > 1
            else "try another copy: --control-log",
        )
    show(output, _view(state), state)


def _view(state: State) -> RenderableType:
    table = new_table("role", "version", "digest", "share", "since", "time", "who", "what", "why")
    for role, part, share, deed in _rows(state):
        table.add_row(
            role,
            f"{state.model}:{part.version}",
            part.digest.removeprefix("sha256:")[:16],
            share,
            NOTHING if deed is None else str(deed.revision),
            NOTHING if deed is None else utc(deed.time),
            Text(NOTHING if deed is None else printable(deed.actor)),
            Text(NOTHING if deed is None else deed.what),
            Text(NOTHING if deed is None else printable(deed.reason) or NOTHING),
        )
    head = Text(
        f"{state.model} at revision {state.revision}, as of {utc(state.at)}; the last event: "
        f"{state.last.what}, by {printable(state.last.actor)} at {utc(state.last.time)}"
    )
    return Group(head, Text(), table)


def _rows(state: State) -> Iterator[tuple[str, Serving | RollingOut, str, Deed | None]]:
    candidate = state.candidate
    if state.champion is not None:
        share = percent(10_000 - (0 if candidate is None else candidate.weight))
        yield "champion", state.champion, share, state.champion.since
    if candidate is not None:
        yield "candidate", candidate, percent(candidate.weight), candidate.started
        if candidate.shifted != candidate.started:
            yield "", candidate, percent(candidate.weight), candidate.shifted
        if candidate.held is not None:
            yield "", candidate, "paused" if candidate.paused else "resumed", candidate.held
    for shadow in state.shadows:
        yield "shadow", shadow, f"scores {percent(shadow.shadow)}", shadow.shifted
    if state.previous is not None:
        yield "previous", state.previous, NOTHING, state.previous.released
