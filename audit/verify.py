"""Verification: answers derived again, and everything that their proof rests on checked on the way.

For each answer: its row and file (``audit.kept``), the control log up to its revision
(``audit.history``), the bundle by its digest, routing, and what comes out (``audit.derivation``).
``audit.verdicts`` says what counts as the same.

It needs the object store and the control log, and nobody who answered.
"""

from collections import Counter
from collections.abc import Sequence

import msgspec

from audit.answers import Located
from audit.derivation import Again, Derivation, NotDerivable
from audit.history import History
from audit.kept import Kept, KeptFiles
from audit.verdicts import (
    Compared,
    Fault,
    Outcome,
    Verdict,
    What,
    compare_forecast,
    compare_kinds,
    compare_rejection,
    with_faults,
)
from schemas.forecast import Forecast, Source
from schemas.rejection import Rejection


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What verifying gave.

    ``outcomes`` and ``runtimes`` count answers; ``runtime`` is what they were derived on here.
    ``difference`` is the largest between two outputs, in their units. ``control_log`` is the fault of the
    log, if it has one, wherever in it.
    """

    model: str
    checked: int
    outcomes: dict[str, int]
    runtime: str
    runtimes: dict[str, int]
    revisions: int
    difference: float
    control_log: Fault | None
    answers: tuple[Verdict, ...]

    @property
    def is_proven(self) -> bool:
        """Whether nothing differs."""
        return not self.outcomes[Outcome.DIFFERS] and self.control_log is None


def verify(
    located: Sequence[Located], files: KeptFiles, history: History, derivation: Derivation
) -> Report:
    """The verdict on each answer, in order. Raises as the store does."""
    kept = files.read(located)
    by_revision: dict[int, list[int]] = {}
    for place, each in enumerate(kept):
        if each.said is not None:
            by_revision.setdefault(each.said.revision, []).append(place)
    verdicts: dict[int, Verdict] = {
        place: _verdict(each, Compared(Outcome.DIFFERS, each.faults))
        for place, each in enumerate(kept)
        if each.said is None
    }
    for revision in sorted(by_revision):
        places = by_revision[revision]
        compared = _at_revision([kept[place] for place in places], revision, history, derivation)
        for place, outcome in zip(places, compared, strict=True):
            verdicts[place] = _verdict(kept[place], outcome)
    answers = tuple(verdicts[place] for place in range(len(kept)))
    outcomes = Counter(each.outcome for each in answers)
    return Report(
        model=history.model,
        checked=len(answers),
        outcomes={outcome.value: outcomes[outcome] for outcome in Outcome},
        runtime=derivation.runtime,
        runtimes=dict(Counter(each.runtime for each in answers)),
        revisions=len(by_revision),
        difference=max((each.difference for each in answers), default=0.0),
        control_log=_log_fault(history),
        answers=answers,
    )


def _at_revision(
    kept: Sequence[Kept], revision: int, history: History, derivation: Derivation
) -> list[Compared]:
    deployment = history.at(revision)
    if deployment is None:
        why = f"the answer names revision {revision}; the log was read up to {history.last}"
        if history.broken is not None:
            why += f", where it breaks: {history.broken.why}"
        faults = (Fault(What.CONTROL_LOG, why),)
        return [with_faults(Compared(Outcome.DIFFERS, faults), each.faults) for each in kept]
    doubt = None if history.vouches_for(revision) else _log_fault(history)
    doubts = () if doubt is None else (doubt,)
    derived = derivation.derive(deployment, kept)
    return [
        with_faults(_compare(each, again, derivation.runtime), (*each.faults, *doubts))
        for each, again in zip(kept, derived, strict=True)
    ]


def _log_fault(history: History) -> Fault | None:
    if history.broken is None:
        return None
    why = f"from revision {history.broken.revision} on nothing vouches for it: {history.broken.why}"
    return Fault(What.CONTROL_LOG, why)


def _compare(kept: Kept, again: Again, runtime: str) -> Compared:
    if isinstance(again, Fault):
        return Compared(Outcome.DIFFERS, (again,))
    if isinstance(again, NotDerivable):
        return Compared(Outcome.NOT_DERIVABLE, note=again.why)
    given, derived = kept.said, again.said
    if isinstance(given, Forecast) and isinstance(derived, Forecast):
        assert kept.record is not None
        assert again.manifest is not None
        value = kept.record.value or b""
        return compare_forecast(value, given, derived, again.manifest.tolerance, runtime)
    if isinstance(given, Rejection) and isinstance(derived, Rejection):
        return compare_rejection(given, derived)
    assert given is not None
    return compare_kinds(given, derived)


def _verdict(kept: Kept, compared: Compared) -> Verdict:
    located, said = kept.located, kept.said
    topic, partition, offset = located.source.rsplit("/", 2)
    return Verdict(
        outcome=compared.outcome,
        kind=located.kind,
        request_id=said.request_id if isinstance(said, Forecast) else None,
        source=Source(topic, int(partition), int(offset), 0) if said is None else said.source,
        topic=located.topic,
        partition=located.partition,
        offset=located.offset,
        file=located.file,
        answered_at=located.time,
        version=0 if said is None else said.version,
        variant="" if said is None else str(said.variant),
        digest="" if said is None else said.digest,
        revision=0 if said is None else said.revision,
        runtime="" if said is None else said.runtime,
        faults=compared.faults,
        difference=compared.difference,
        note=compared.note,
    )
