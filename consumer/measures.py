"""The metrics of an instance: their names, labels and units, and how each is read off the vitals.

1. Names follow the conventions of Prometheus: base units, ``_total`` for what only grows.
2. A label's values are few and known beforehand, or grow with the releases (``version``): none is taken
   from a request, from the store or from an error's text.
3. What is not known at the moment is left out. A zero means zero.

``docs/metrics.md`` shows this table to operators.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from adapters.metrics import Distribution, Kind, Measure, Reading
from consumer.vitals import Verdict, Vitals
from schemas.fleet import Runtime

PREFIX = "modelwire_"


def _measure(name: str, kind: Kind, unit: str, meaning: str, *labels: str) -> Measure:
    return Measure(PREFIX + name, kind, ("model", *labels), unit, meaning)


BUILD = _measure(
    "build_info",
    Kind.INFO,
    "",
    "What this instance is and computes with; the same onnxruntime and numeric class give the same bits.",
    "instance_name",
    "version",
    "onnxruntime",
    "numeric_class",
)
READY = _measure(
    "ready", Kind.GAUGE, "0 or 1", "Whether this instance may take traffic, as /readyz says."
)
ANSWERS = _measure(
    "answers_total",
    Kind.COUNTER,
    "forecasts",
    "Forecasts committed, by the version that gave them and how it was routed to. "
    "Rejections are answers too and are counted apart.",
    "version",
    "variant",
)
REJECTIONS = _measure(
    "rejections_total",
    Kind.COUNTER,
    "rejections",
    "Requests that were answered with a rejection, by its reason.",
    "reason",
)
ABORTED = _measure(
    "aborted_transactions_total",
    Kind.COUNTER,
    "transactions",
    "Transactions that were aborted, and whose requests were answered again.",
)
BATCH_ROWS = _measure(
    "batch_rows", Kind.HISTOGRAM, "requests", "Requests of a batch that was scored."
)
SCORE_SECONDS = _measure(
    "score_seconds",
    Kind.HISTOGRAM,
    "seconds",
    "Time from a batch's requests to its encoded answers: decode, route, run, check, encode.",
)
PARTITIONS = _measure(
    "partitions",
    Kind.GAUGE,
    "partitions",
    "Partitions of the request topic owned by this instance.",
)
LAG = _measure(
    "request_lag",
    Kind.GAUGE,
    "requests",
    "Requests of the owned partitions that have no answer yet. Left out where it is not known.",
)
REVISION = _measure(
    "control_revision",
    Kind.GAUGE,
    "revision",
    "Revision of the control log that answers are given at; 0 before the first.",
)
READ_REVISION = _measure(
    "control_read_revision", Kind.GAUGE, "revision", "Newest revision read from the control log."
)
CONTROL_LAG = _measure(
    "control_lag",
    Kind.GAUGE,
    "revisions",
    "Revisions that were read and are not applied: a version is being prepared, or cannot be.",
)
SWAP_SECONDS = _measure(
    "swap_seconds",
    Kind.SUMMARY,
    "seconds",
    "Time that the stages of admitting a version and of swapping to it took.",
    "stage",
)
REFUSALS = _measure(
    "refusals_total",
    Kind.COUNTER,
    "refusals",
    "Versions turned down by admission, by the rung that they fell from; each try counts.",
    "rung",
)
LOADED = _measure("loaded_models", Kind.GAUGE, "models", "Models in memory.")
RESIDENT = _measure(
    "resident_memory_bytes", Kind.GAUGE, "bytes", "Memory of this process that is in RAM."
)
HORIZON = _measure(
    "horizon_days_left",
    Kind.GAUGE,
    "days",
    "Whole days to the last day that the champion can answer for; below 0 once it is over. "
    "Left out where its contract has no horizon.",
)

MEASURES = (
    BUILD,
    READY,
    ANSWERS,
    REJECTIONS,
    ABORTED,
    BATCH_ROWS,
    SCORE_SECONDS,
    PARTITIONS,
    LAG,
    REVISION,
    READ_REVISION,
    CONTROL_LAG,
    SWAP_SECONDS,
    REFUSALS,
    LOADED,
    RESIDENT,
    HORIZON,
)
"""All of them, in the order of the page."""


@dataclass(frozen=True)
class Identity:
    """What does not change while the instance lives."""

    model: str
    instance: str
    runtime: Runtime


def readings(who: Identity, vitals: Vitals, readiness: Verdict) -> Iterable[Reading]:
    """Every metric that has a value at this moment."""
    model, runtime = who.model, who.runtime

    def one(measure: Measure, value: float | Distribution | None) -> Reading:
        return Reading(measure, {} if value is None else {(model,): value})

    def by(measure: Measure, values: Mapping[str, float | Distribution]) -> Reading:
        return Reading(measure, {(model, label): value for label, value in values.items()})

    identity = (model, who.instance, runtime.modelwire, runtime.onnxruntime, runtime.numeric_class)
    return (
        Reading(BUILD, {identity: 1}),
        one(READY, int(readiness.good)),
        Reading(
            ANSWERS,
            {
                (model, str(version), variant.value): count
                for (version, variant), count in vitals.forecasts.items()
            },
        ),
        by(REJECTIONS, dict(vitals.rejections)),
        one(ABORTED, vitals.aborted),
        one(BATCH_ROWS, vitals.batch_rows),
        one(SCORE_SECONDS, vitals.score_seconds),
        one(PARTITIONS, vitals.partitions),
        one(LAG, vitals.lag),
        one(REVISION, vitals.revision),
        one(READ_REVISION, vitals.read_revision),
        one(CONTROL_LAG, max(vitals.read_revision - vitals.revision, 0)),
        by(SWAP_SECONDS, dict(vitals.swap_seconds)),
        by(REFUSALS, dict(vitals.refusals)),
        one(LOADED, vitals.loaded),
        one(RESIDENT, vitals.resident_bytes),
        one(HORIZON, vitals.horizon_days_left),
    )
