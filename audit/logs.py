"""Control logs read for the audit: from Kafka, from the answer files, or from a file of their events.

1. Kafka's is the log. The audit's own copy (``audit/control``) serves where Kafka is away or has lost it,
   and beside it as a second witness. A file has one event a line, in the bytes in which it was recorded.
2. Whatever is read is believed as far as ``audit.history`` says. Copies that can be had are compared.
   What was copied and is in Kafka no more was cut off there.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

from adapters.answer_files import AnswerStore, read_records
from adapters.control_log import LogReader
from adapters.settings import Settings
from audit.history import Break, History, break_after, difference, history_of
from deployment.state import BrokenLog
from schemas.answer_file import FileDamaged, Kind
from schemas.errors import NotFound, UsageProblem

KAFKA, STORE = "kafka", "store"
"""What `--control-log` takes beside a file's name."""


def read_history(settings: Settings, answers: AnswerStore, model: str, source: str) -> History:
    """The history as ``source`` has it, compared with the copy among the answer files.

    Raises NotFound where it has no event, UsageProblem for a file that cannot be read.
    """
    # The copy first: what is appended between the two looks is missing in it, and not in the log.
    kept = None if source == STORE else _kept(answers, model)
    chosen = _read(settings, answers, model, source)
    if not chosen.last:
        why = "" if chosen.broken is None else f": {chosen.broken.why}"
        raise NotFound(
            f"the control log of {model} from {_named(source)} has no event{why}",
            hint=f"`--control-log` takes {KAFKA}, {STORE} or a file with one event a line",
        )
    copies = {_named(source): chosen}
    if kept is not None and kept.last:
        copies[_named(STORE)] = kept
    return _with_difference(chosen, copies)


def _read(settings: Settings, answers: AnswerStore, model: str, source: str) -> History:
    if source == KAFKA:
        return _from_kafka(settings, model)
    if source == STORE:
        return _kept(answers, model)
    try:
        lines = Path(source).read_bytes().splitlines()
    except OSError as error:
        raise UsageProblem(
            f"the control log in {source} cannot be read: {error.strerror}",
            hint=f"`--control-log` takes {KAFKA}, {STORE} or a file with one event a line",
        ) from None
    return history_of(model, (line for line in lines if line.strip()))


def _from_kafka(settings: Settings, model: str) -> History:
    with LogReader(settings, model) as reader:
        broken = None
        try:
            reader.read_to_end()
        except BrokenLog as error:
            broken = break_after(reader.ledger, error)
        return History(model, reader.ledger.events, broken)


def _kept(answers: AnswerStore, model: str) -> History:
    damaged: list[str] = []

    def records() -> Iterator[bytes | None]:
        for name in answers.names(Kind.CONTROL):
            try:
                kept = read_records(answers.read(name), name)
            except FileDamaged as error:
                damaged.append(error.message)
                return
            yield from (record.value for record in kept)

    history = history_of(model, records())
    if damaged and history.broken is None:
        return History(model, history.events, Break(max(history.last, 1), damaged[0]))
    return history


def _with_difference(chosen: History, copies: Mapping[str, History]) -> History:
    breaks = [each.broken for each in copies.values()] + [difference(copies)]
    kept = copies.get(_named(STORE))
    if kept is not None and copies.get(_named(KAFKA)) is chosen and kept.last > chosen.last:
        breaks.append(
            Break(
                chosen.last + 1,
                f"it ends at revision {chosen.last} in {_named(KAFKA)}, and at {kept.last} in "
                f"{_named(STORE)}",
            )
        )
    found = min(
        (each for each in breaks if each is not None), key=lambda each: each.revision, default=None
    )
    return History(chosen.model, chosen.events, found)


def _named(source: str) -> str:
    return {KAFKA: "Kafka", STORE: "the answer files"}.get(source, source)
