"""Counters, gauges and histograms for one event loop: what prometheus_client's are, without locks.

The data path touches a dozen of them per request and one per chunk. They are collected by
prometheus_client's registry like its own, which writes the exposition. Not for several threads.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Generic, TypeVar

from prometheus_client import Metric
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString


class Value:
    """One number: a series of a counter or of a gauge."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def inc(self, amount: float = 1) -> None:
        self.value += amount

    def dec(self, amount: float = 1) -> None:
        self.value -= amount

    def set(self, value: float) -> None:
        self.value = value


class Spread:
    """One series of a histogram. `bounds` are upper bounds, the last one infinite."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * len(bounds)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


Child = TypeVar("Child", Value, Spread)


class Instrument(Collector, Generic[Child]):
    """A metric with labels. `labels(...)` gives a series, made on first use."""

    kind: ClassVar[str]

    def __init__(self, name: str, text: str, label_names: Sequence[str]) -> None:
        self.name, self.text, self.label_names = name, text, tuple(label_names)
        self.series: dict[tuple[str, ...], Child] = {}

    def labels(self, *values: str) -> Child:
        """The series of these label values, in the order of the names."""
        found = self.series.get(values)
        return found if found is not None else self._make(values)

    def _make(self, values: tuple[str, ...]) -> Child:
        if len(values) != len(self.label_names):
            raise ValueError(f"{self.name} has the labels {self.label_names}, not {values}")
        child = self.series[values] = self._new()
        return child

    def remove(self, *values: str) -> None:
        """Forget a series."""
        self.series.pop(values, None)

    def _new(self) -> Child:
        raise NotImplementedError

    def collect(self) -> Iterator[Metric]:
        raise NotImplementedError

    def describe(self) -> Iterator[Metric]:
        """For the registry, which refuses a name that is taken."""
        for family in self.collect():
            family.samples = []
            yield family


class Counter(Instrument[Value]):
    """Only ever grows. The exposition adds `_total` to its name."""

    kind = "counter"

    def _new(self) -> Value:
        return Value()

    def collect(self) -> Iterator[Metric]:
        family = CounterMetricFamily(self.name, self.text, labels=self.label_names)
        for values, child in self.series.items():
            family.add_metric(values, child.value)
        yield family


class Gauge(Instrument[Value]):
    """Goes up and down. One without labels is itself its only series."""

    kind = "gauge"

    def _new(self) -> Value:
        return Value()

    def set(self, value: float) -> None:
        self.labels().set(value)

    def collect(self) -> Iterator[Metric]:
        family = GaugeMetricFamily(self.name, self.text, labels=self.label_names)
        for values, child in self.series.items():
            family.add_metric(values, child.value)
        if not self.label_names and not self.series:
            family.add_metric((), 0)
        yield family


class Histogram(Instrument[Spread]):
    """Counts observations under upper bounds, and sums them."""

    kind = "histogram"

    def __init__(
        self, name: str, text: str, label_names: Sequence[str], buckets: Sequence[float]
    ) -> None:
        super().__init__(name, text, label_names)
        self.bounds = (*buckets, float("inf"))

    def _new(self) -> Spread:
        return Spread(self.bounds)

    def observe(self, value: float) -> None:
        self.labels().observe(value)

    def collect(self) -> Iterator[Metric]:
        family = HistogramMetricFamily(self.name, self.text, labels=self.label_names)
        for values, child in self.series.items():
            running, buckets = 0, []
            for bound, count in zip(self.bounds, child.counts, strict=True):
                running += count
                buckets.append((_bound(bound), running))
            family.add_metric(values, buckets, child.total)
        yield family


def _bound(value: float) -> str:
    return str(floatToGoString(value))  # type: ignore[no-untyped-call]


AnyInstrument = Instrument[Any]
