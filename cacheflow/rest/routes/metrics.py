"""Metrics as scrapers read them: prometheus-client's text formats, or JSON.

prometheus-client keeps no number here. Its registry has a collector that reads the node's plain ones when somebody asks, so
nothing is paid for a metric between two scrapes; and the registry is our own, as an application's is the application's.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from operator import itemgetter
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, choose_encoder, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector, CollectorRegistry
from prometheus_client.samples import Sample

from cacheflow.measuring.families import FAMILIES
from cacheflow.measuring.histogram import BOUNDS_S, Histogram
from cacheflow.measuring.metrics import Metrics, parted
from cacheflow.net.slices import Breaks

PREFIX = "cacheflow_"
# The upper bound of each bucket as scrapers write it.
_BOUNDS = (*map(repr, BOUNDS_S), "+Inf")
_QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}


class NodeCollector(Collector):
    """What prometheus-client asks for a node's metrics. read: returns them as they are now."""

    def __init__(self, read: Callable[[], Metrics]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        # The node's loop would wait for the interpreter while this thread works: it has thousands of lines to make.
        breaks = Breaks()
        samples = sorted([(*parted(named), value) for named, value in self._read().items()], key=itemgetter(0))
        for name, several in itertools.groupby(samples, key=itemgetter(0)):
            family = _family(name, [(labels, value) for _, labels, value in several], breaks)
            # All histograms of requests are one family, whose lines take longest to make.
            family.samples = _Samples(family.samples, breaks)
            yield family
            breaks.give_way()


class _Samples(list[Sample]):
    """A list of samples; whoever goes through it gives way to the node's loop by ``breaks``."""

    def __init__(self, samples: Iterable[Sample], breaks: Breaks) -> None:
        super().__init__(samples)
        self._breaks = breaks

    def __iter__(self) -> Iterator[Sample]:
        for sample in super().__iter__():
            yield sample
            self._breaks.give_way()


class Scraped:
    """A node's metrics in the formats in which they are asked for. read: returns the metrics as they are now."""

    def __init__(self, read: Callable[[], Metrics]) -> None:
        self._read = read
        self._process = ProcessNumbers(registry=None)
        self._registry = CollectorRegistry()
        self._registry.register(NodeCollector(read))
        self._registry.register(self._process)

    def text(self, accept: str) -> tuple[bytes, str]:
        """Return (body, content type) in the text format that the header Accept, ``accept``, asks for."""
        try:
            encode, content_type = choose_encoder(accept)
        except TypeError:  # a version that is no number
            encode, content_type = generate_latest, CONTENT_TYPE_PLAIN_0_0_4
        return encode(self._registry), content_type

    def plain(self) -> dict[str, Any]:
        """Return the metrics as JSON has them, by name and labels: null for what is not finite, an object for a histogram."""
        process = {sample.name: sample.value for family in self._process.collect() for sample in family.samples}
        breaks = Breaks()
        told = {}
        for name, value in {**self._read(), **process}.items():
            told[name] = _plain(value)
            breaks.give_way()
        return told


class ProcessNumbers(ProcessCollector):
    """Processor time, memory and descriptors of this process; nothing where the system does not tell of them."""

    def collect(self) -> Iterable[Metric]:
        try:
            return super().collect()
        except (ValueError, IndexError):  # a limit that is no number, as in a sandbox with a /proc of its own
            return []


def _family(name: str, several: list[tuple[dict[str, str], Any]], breaks: Breaks) -> Metric:
    """Return prometheus-client's metric family of all metrics called ``name``, given as (labels, number or histogram)."""
    known = FAMILIES.get(name)
    meaning = known.meaning if known is not None else name.replace("_", " ").capitalize() + "."
    first_labels, first = several[0]
    if isinstance(first, Histogram):
        durations = HistogramMetricFamily(PREFIX + name, meaning, labels=list(first_labels))
        for labels, histogram in several:
            # The buckets are copied first, so that their sum is right while the node notes more.
            counts = itertools.accumulate(histogram.counts.copy())
            durations.add_metric(list(labels.values()), list(zip(_BOUNDS, counts, strict=True)), histogram.sum_s)
            breaks.give_way()
        return durations
    if name.endswith("_info"):
        facts = InfoMetricFamily(PREFIX + name.removesuffix("_info"), meaning)
        for labels, _ in several:
            facts.add_metric([], labels)
        return facts
    kind = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
    numbers = kind(PREFIX + name, meaning, labels=list(first_labels))
    for labels, number in several:
        numbers.add_metric(list(labels.values()), number)
    return numbers


def _plain(value: float | Histogram) -> Any:
    """Return a number or a histogram as JSON has it."""
    if isinstance(value, Histogram):
        return {
            "count": value.count,
            "sum": value.sum_s,
            **{name: value.quantile(share) for name, share in _QUANTILES.items()},
            "buckets": value.counts.copy(),
        }
    return value if math.isfinite(value) else None
