"""`/metrics`: read when somebody asks. The code that does the work only bumps plain numbers."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry, Metric, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from shadowcat.admin.numbers import HISTOGRAMS, NUMBERS, Histogram, Number, Type, Watching
from shadowcat.core.statistics import STEPS_S, Answers


class Numbers(Collector):
    def __init__(self, watching: Watching) -> None:
        self._watching = watching

    def describe(self) -> list[Metric]:
        """Asked at registration, where the whole would be collected otherwise."""
        return []

    def collect(self) -> Iterator[Metric]:
        for number in NUMBERS:
            yield self._family(number)
        for histogram in HISTOGRAMS:
            yield self._histogram(histogram)

    def _family(self, number: Number) -> Metric:
        family_of = CounterMetricFamily if number.type is Type.COUNTER else GaugeMetricFamily
        family = family_of(number.name, number.told, labels=number.labels)
        for labels, value in number.read(self._watching):
            family.add_metric(labels, value)
        return family

    def _histogram(self, histogram: Histogram) -> Metric:
        family = HistogramMetricFamily(histogram.name, histogram.told, labels=histogram.labels)
        for labels, answers in histogram.read(self._watching):
            family.add_metric(labels, buckets=_buckets(answers), sum_value=answers.total_s)
        return family


def _buckets(answers: Answers) -> list[tuple[str, float]]:
    """Each with those before it."""
    return [*zip([*map(str, STEPS_S), "+Inf"], accumulate(answers.counts), strict=True)]


class Exposition:
    def __init__(self, watching: Watching) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(Numbers(watching))
        ProcessCollector(registry=self._registry)

    def text(self, accept: str) -> tuple[bytes, str]:
        """The numbers, and the content type of the form that was asked for."""
        encode, kind = choose_encoder(accept)
        return encode(self._registry), kind
