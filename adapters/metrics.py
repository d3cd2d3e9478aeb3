"""The edge to Prometheus: readings become the page that a scraper fetches.

The page has one format or the other, Prometheus's text or OpenMetrics, as the scraper asks for it by its
``Accept`` header. Nothing is counted here: what is to be shown is read once for each page, beside what
the library says of the process (``process_…``, ``python_gc_…``). The library's own registry stays out
of it, so that nothing gets on the page that was not put there.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector


class Kind(StrEnum):
    """How a metric behaves."""

    COUNTER = "counter"
    """Only grows; its name ends in ``_total``."""
    GAUGE = "gauge"
    HISTOGRAM = "histogram"
    SUMMARY = "summary"
    """A count and a sum, no quantiles."""
    INFO = "info"
    """Always 1; the labels are what it says. Its name ends in ``_info``."""


@dataclass(frozen=True)
class Measure:
    """A metric: its full name, what kind it is, its labels in order, its unit, and what it means."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    unit: str
    """For people. A base unit stands at the end of the name too, before ``_total``."""
    meaning: str


class Distribution(Protocol):
    """The value of a histogram or a summary; ``buckets`` are rising (bound, count of all up to it)."""

    @property
    def count(self) -> int:
        """How many observations."""
        ...

    @property
    def total(self) -> float:
        """Their sum."""
        ...

    @property
    def buckets(self) -> tuple[tuple[float, int], ...]:
        """Empty for a summary."""
        ...


@dataclass(frozen=True)
class Reading:
    """A metric's values by its labels' values. One that is not known now is left out, not 0."""

    measure: Measure
    values: Mapping[tuple[str, ...], float | Distribution]


class Exposition:
    """Gives the page; ``read`` gives what is on it. Safe from any thread that ``read`` is safe from."""

    def __init__(self, read: Callable[[], Iterable[Reading]]) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Readings(read))
        ProcessCollector(registry=self._registry)
        GCCollector(registry=self._registry)

    def page(self, accept: str) -> tuple[bytes, str]:
        """The page and its content type, for a scraper that accepts this."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type


class _Readings(Collector):
    def __init__(self, read: Callable[[], Iterable[Reading]]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        for reading in self._read():
            yield _family(reading)


def _family(reading: Reading) -> Metric:
    measure = reading.measure
    name, text = measure.name, measure.meaning
    match measure.kind:
        case Kind.COUNTER:
            counter = CounterMetricFamily(name, text, labels=measure.labels)
            for labels, value in reading.values.items():
                counter.add_metric(labels, _number(value))
            return counter
        case Kind.GAUGE:
            gauge = GaugeMetricFamily(name, text, labels=measure.labels)
            for labels, value in reading.values.items():
                gauge.add_metric(labels, _number(value))
            return gauge
        case Kind.INFO:
            info = InfoMetricFamily(name.removesuffix("_info"), text)
            for labels in reading.values:
                info.add_metric((), dict(zip(measure.labels, labels, strict=True)))
            return info
        case Kind.HISTOGRAM | Kind.SUMMARY:
            return _distributions(reading)


def _distributions(reading: Reading) -> Metric:
    measure = reading.measure
    summary = SummaryMetricFamily(measure.name, measure.meaning, labels=measure.labels)
    histogram = HistogramMetricFamily(measure.name, measure.meaning, labels=measure.labels)
    for labels, value in reading.values.items():
        assert not isinstance(value, float | int), f"{measure.name} is no single number"
        if measure.kind is Kind.SUMMARY:
            summary.add_metric(labels, value.count, value.total)
        else:
            buckets = [(f"{float(bound)}", float(count)) for bound, count in value.buckets]
            histogram.add_metric(labels, [*buckets, ("+Inf", float(value.count))], value.total)
    return summary if measure.kind is Kind.SUMMARY else histogram


def _number(value: float | Distribution) -> float:
    assert isinstance(value, float | int), "a distribution stands where one number should"
    return value
