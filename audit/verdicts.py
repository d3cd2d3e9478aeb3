"""Verdicts: whether an answer comes out again as it was given, and if not, what is not as it was.

1. On the runtime that gave it (onnxruntime, its version and the numeric class of the CPU) an answer must
   be the same bytes. On another one its outputs must lie within the bundle's certified tolerance of those
   that were given; whatever is no float must be equal there too. An answer of a runtime that is not
   recorded is compared as one of another.
2. Routing is no arithmetic: version, variant and digest must be the same everywhere.
3. A rejection must have the same reason and the same sentence. What a runtime says of a row on which it
   fails can hold its place in the batch, so of ``model-failed`` the reason alone is compared.
4. An answer with a fault *differs*, whatever else agrees: its file, its bundle and its control log are
   part of the proof.
"""

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum

import msgspec

from schemas.answer_file import Kind
from schemas.forecast import Forecast, Source, encode_forecast
from schemas.manifest import Tolerance
from schemas.rejection import Reason, Rejection, read_rejection, rejection_headers
from scoring.golden import is_close


class Outcome(StrEnum):
    """What became of the attempt to derive an answer again."""

    IDENTICAL = "identical"
    WITHIN_TOLERANCE = "within-tolerance"
    """On another runtime, and as near as the bundle promises."""
    DIFFERS = "differs"
    NOT_DERIVABLE = "not-derivable"


class What(StrEnum):
    """What is not as it was."""

    ROW = "row"
    """The file that holds the answer, or the answer's row in it."""
    BUNDLE = "bundle"
    CONTROL_LOG = "control-log"
    ROUTING = "routing"
    OUTPUTS = "outputs"
    REJECTION = "rejection"
    LOG_LINE = "log-line"


class Fault(msgspec.Struct, frozen=True):
    """Something that is not as it was, and how that shows."""

    what: What
    why: str


class Compared(msgspec.Struct, frozen=True):
    """What the comparison gave. ``difference`` is the largest between two outputs, in their units."""

    outcome: Outcome
    faults: tuple[Fault, ...] = ()
    difference: float = 0.0
    note: str = ""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """An answer, and what came of deriving it again.

    ``source`` is the place of the request, ``topic, partition, offset`` that of the answer, ``file`` the
    key of its file. ``note`` says why it is not derivable, or what was left out of the comparison.
    """

    outcome: Outcome
    kind: Kind
    request_id: str | None
    source: Source
    topic: str
    partition: int
    offset: int
    file: str
    answered_at: datetime
    version: int
    variant: str
    digest: str
    revision: int
    runtime: str
    faults: tuple[Fault, ...] = ()
    difference: float = 0.0
    note: str = ""


def compare_forecast(
    value: bytes, given: Forecast, derived: Forecast, tolerance: Tolerance, runtime: str
) -> Compared:
    """``given`` is what ``value`` holds; ``derived`` came out on ``runtime`` for the same request."""
    routed = _routing_fault(given, derived)
    if routed is not None:
        return Compared(Outcome.DIFFERS, (routed,))
    as_given = msgspec.structs.replace(
        derived, scored_at=given.scored_at, instance=given.instance, runtime=given.runtime
    )
    if encode_forecast(as_given) == value:
        return Compared(Outcome.IDENTICAL)
    if _encoded(derived.outputs) == _encoded(given.outputs):
        why = "the answer's bytes are not those that this forecast has"
        return Compared(Outcome.DIFFERS, (Fault(What.ROW, why),))
    return _compare_outputs(given, derived, tolerance, runtime)


def compare_rejection(given: Rejection, derived: Rejection) -> Compared:
    """Whether the request was rejected for the same reason."""
    # Headers hold what a text can lose on its way into bytes.
    again = read_rejection(rejection_headers(derived))
    routed = _routing_fault(given, again)
    if routed is not None:
        return Compared(Outcome.DIFFERS, (routed,))
    if again.reason != given.reason:
        why = f"it was rejected as {given.reason} and is {again.reason} now: {again.detail}"
        return Compared(Outcome.DIFFERS, (Fault(What.REJECTION, why),))
    if given.reason == Reason.MODEL_FAILED:
        return Compared(Outcome.IDENTICAL, note="what the runtime said was not compared")
    if again.detail != given.detail:
        why = f"its sentence was {given.detail!r} and is {again.detail!r} now"
        return Compared(Outcome.DIFFERS, (Fault(What.REJECTION, why),))
    return Compared(Outcome.IDENTICAL)


def compare_kinds(given: Forecast | Rejection, derived: Forecast | Rejection) -> Compared:
    """A forecast was given and a rejection came out, or the other way round."""
    was, now = _in_words(given), _in_words(derived)
    what = What.OUTPUTS if isinstance(given, Forecast) else What.REJECTION
    return Compared(Outcome.DIFFERS, (Fault(what, f"it was {was} and is {now} now"),))


def with_faults(compared: Compared, faults: Sequence[Fault]) -> Compared:
    """The same with faults that were found beside it (rule 4)."""
    if not faults:
        return compared
    return msgspec.structs.replace(
        compared, outcome=Outcome.DIFFERS, faults=(*faults, *compared.faults)
    )


def _routing_fault(given: Forecast | Rejection, derived: Forecast | Rejection) -> Fault | None:
    if given.model != derived.model:
        return Fault(
            What.ROUTING, f"the answer names the model {given.model!r}, not {derived.model!r}"
        )
    was, now = ((each.version, str(each.variant)) for each in (given, derived))
    if was != now:
        return Fault(
            What.ROUTING,
            f"the answer says {_served(*was)}; at revision {given.revision} its key goes to "
            f"{_served(*now)}",
        )
    if given.digest != derived.digest:
        return Fault(
            What.ROUTING,
            f"the answer names the bundle {given.digest}; version {given.version} is {derived.digest}",
        )
    return None


def _served(version: int, variant: str) -> str:
    return f"version {version}, the {variant}" if version else "no version"


def _compare_outputs(
    given: Forecast, derived: Forecast, tolerance: Tolerance, runtime: str
) -> Compared:
    names = sorted(given.outputs.keys() | derived.outputs.keys())
    apart = [
        name
        for name in names
        if _encoded(given.outputs.get(name)) != _encoded(derived.outputs.get(name))
    ]
    far = [name for name in apart if not _is_within(given, derived, name, tolerance)]
    difference = max((_difference(given, derived, name) for name in apart), default=0.0)
    if given.runtime != runtime and not far:
        return Compared(Outcome.WITHIN_TOLERANCE, difference=difference)
    named = far if given.runtime != runtime else apart
    said = ", ".join(
        f"{name} was {given.outputs.get(name)!r} and is {derived.outputs.get(name)!r}"
        for name in named
    )
    where = (
        f"on the same runtime ({runtime})"
        if given.runtime == runtime
        else f"given on {given.runtime or 'a runtime that is not recorded'}, derived on {runtime}, "
        f"beyond the tolerance of {tolerance.absolute:g} + {tolerance.relative:g} × |given|"
    )
    return Compared(
        Outcome.DIFFERS, (Fault(What.OUTPUTS, f"{said}; {where}"),), difference=difference
    )


def _is_within(given: Forecast, derived: Forecast, name: str, tolerance: Tolerance) -> bool:
    was, now = given.outputs.get(name), derived.outputs.get(name)
    if isinstance(was, float) and isinstance(now, float):
        return is_close(now, was, tolerance)
    return False


def _difference(given: Forecast, derived: Forecast, name: str) -> float:
    was, now = given.outputs.get(name), derived.outputs.get(name)
    if was is None or now is None:
        return 0.0
    return abs(float(was) - float(now))


def _encoded(value: object) -> bytes:
    return msgspec.json.encode(value)


def _in_words(answer: Forecast | Rejection) -> str:
    if isinstance(answer, Rejection):
        return f"rejected as {answer.reason} ({answer.detail})"
    return f"answered with {_encoded(answer.outputs).decode()}"
