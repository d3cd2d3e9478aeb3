"""``modelwire audit verify``: answers derived again, and all that their proof rests on."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

import click
import msgspec
from rich.console import Group, RenderableType
from rich.text import Text

from adapters.answer_files import AnswerStore
from adapters.answer_query import AnswerQuery
from adapters.answer_rows import rows_of
from adapters.bundles import StoredBundles
from adapters.command_line import speak_briefly
from adapters.kafka import topic_names
from adapters.layout import NOTHING, new_table, show, utc
from adapters.model_name import parse_model
from adapters.object_store import open_store
from audit.answers import Place, draw, find, find_places, parse_target
from audit.derivation import Derivation
from audit.kept import Kept, KeptFiles
from audit.line_check import Line, answer_lines, line_faults
from audit.lines import line_of
from audit.logs import read_history
from audit.options import proving, settings_of, time_of
from audit.verdicts import Fault, Outcome, Verdict, What
from audit.verify import Report, verify
from audit.words import printable, summary
from schemas.errors import NotFound, UsageProblem

MOST_SHOWN = 50
"""Findings of a table; -o json has all."""

NOT_PROVEN = 1


@click.command("verify")
@click.argument("targets", nargs=-1, metavar="[REQUEST_ID|TOPIC/PARTITION/OFFSET]…")
@click.option("--sample", type=click.IntRange(1), metavar="N", help="Draw so many answers instead.")
@click.option("--seed", type=int, help="What the draw depends on.  [default: another each time]")
@click.option(
    "--lines",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Log lines of answers (audit sink --log-lines): verify the answers, and the lines by them.",
)
@proving
def verify_command(
    targets: tuple[str, ...],
    sample: int | None,
    seed: int | None,
    lines: Path | None,
    model: str,
    since: str | None,
    until: str | None,
    control_log: str,
    bootstrap_servers: str | None,
    store: str | None,
    bundles: str | None,
    output: str,
) -> None:
    """Derive answers again from their requests, the control log and the bundles, and compare.

    A place is that of the request, or of the answer. An id that repeats stands for all its answers.
    Exit code 1: something differs, which is named; 4: no such answer.
    """
    if bool(targets) + (sample is not None) + (lines is not None) != 1:
        raise UsageProblem(
            "say which answers: by REQUEST_ID or place, by --sample, or by --lines",
            hint=f"for example: modelwire audit verify --model {model} --sample 100",
        )
    first, last = time_of("--since", since), time_of("--until", until)
    parse_model(model)
    speak_briefly()
    settings = settings_of(bootstrap_servers, store, bundles)
    chosen = Random().getrandbits(32) if seed is None else seed
    text = [] if lines is None else lines.read_bytes().splitlines()
    given = list(answer_lines(text))
    topics = topic_names(settings, model)
    with AnswerQuery(settings, model, since=first, until=last) as query:
        if sample is not None:
            located = draw(query, sample, chosen)
        elif lines is not None:
            located = find_places(query, [line.place for line in given])
        else:
            wanted = [parse_target(each, topics) for each in targets]
            located = list(
                dict.fromkeys(one for each in wanted for one in find(query, each, topics))
            )
    if not located and not given:
        raise NotFound(
            f"there is nothing of {model} to verify",
            hint="is the sink running? modelwire audit sink; else widen --since and --until",
        )
    answers = AnswerStore(open_store(settings.audit_url, settings.s3_settings), model)
    history = read_history(settings, answers, model, control_log)
    files = KeptFiles(answers)
    derivation = Derivation(StoredBundles(open_store(settings.store_url, settings.s3_settings)))
    report = verify(located, files, history, derivation)
    wrong = tuple(_line_faults(model, given, files.read(located))) if given else ()
    listed = report.answers if sample is None else _findings(report)
    value = msgspec.structs.asdict(report) | {
        "answers": listed,
        "seed": None if sample is None else chosen,
        "lines": None
        if lines is None
        else {"checked": len(given), "passed_over": len(text) - len(given), "faults": wrong},
    }
    view = _view(report, listed, wrong)
    if lines is not None:
        told = f"{len(given):,} lines of answers checked, {len(text) - len(given):,} others passed over"
        view = Group(view, Text(told))
    show(output, view, value)
    if wrong or not report.is_proven:
        sys.exit(NOT_PROVEN)


def _line_faults(model: str, lines: Sequence[Line], kept: Sequence[Kept]) -> Iterator[Fault]:
    found = {
        Place(each.located.topic, each.located.partition, each.located.offset): each
        for each in kept
    }
    for line in lines:
        answer = found.get(line.place)
        if answer is None or answer.record is None:
            why = f"line {line.number} is of {line.place}, where the answer files hold no answer"
            yield Fault(What.LOG_LINE, why)
            continue
        place = answer.located
        table = rows_of(place.kind, place.topic, place.partition, [answer.record])
        yield from line_faults(line, line_of(place.kind, model, table.to_pylist()[0]))


def _findings(report: Report) -> tuple[Verdict, ...]:
    """What is worth telling of many answers: all but those that came out again."""
    fine = (Outcome.IDENTICAL, Outcome.WITHIN_TOLERANCE)
    return tuple(each for each in report.answers if each.outcome not in fine)


def _view(report: Report, listed: Sequence[Verdict], wrong: Sequence[Fault]) -> RenderableType:
    lines = [Text(line) for line in summary(report)]
    lines += [Text(f"{each.what}: {each.why}") for each in wrong[:MOST_SHOWN]]
    if not listed:
        return Group(*lines)
    table = new_table(
        "answer", "request", "answered", "version", "revision", "outcome", "what", "why"
    )
    for each in listed[:MOST_SHOWN]:
        what = ", ".join(dict.fromkeys(fault.what.value for fault in each.faults))
        why = "; ".join(fault.why for fault in each.faults) or each.note
        table.add_row(
            f"{each.topic}/{each.partition}/{each.offset}",
            Text(printable(each.request_id or NOTHING)),
            utc(each.answered_at),
            str(each.version or NOTHING),
            str(each.revision),
            each.outcome.value,
            what or NOTHING,
            Text(printable(why or NOTHING)),
        )
    if len(listed) > MOST_SHOWN:
        lines.append(Text(f"the first {MOST_SHOWN} of {len(listed):,} are listed (all: -o json)"))
    return Group(table, Text(), *lines)
