"""Metrics for Prometheus: ``instrument(guard)``, with the package ``prometheus-client``."""

from __future__ import annotations

import os
import threading
from collections import defaultdict
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager
from functools import cache, partial
from weakref import WeakKeyDictionary, ref

from keyguard.exceptions import MissingExtraError
from keyguard.runtime.process import around_fork
from keyguard.telemetry._instruments import (
    BUCKETS,
    DURATION,
    INSTRUMENTS,
    Instrument,
    Kind,
    Labels,
    timed,
)
from keyguard.telemetry._readings import AnyGuard, Readings, Series

try:
    from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
    from prometheus_client.metrics_core import Metric
    from prometheus_client.registry import Collector
except ImportError as missing:
    raise MissingExtraError("keyguard.telemetry.prometheus", "prometheus") from missing

__all__ = ["instrument"]


def instrument(
    guard: AnyGuard,
    *,
    registry: CollectorRegistry = REGISTRY,
    organizations: Collection[str] = (),
) -> None:
    """Offer the metrics of a guard to Prometheus, until the guard is closed.

    The guards of one registry are added up. To separate guards, give each its own registry.

    In the multiprocess mode of prometheus-client the metrics of all processes are collected
    together, and no registry is used. Each process writes its own metrics every five seconds, from
    its first look-up of a key on, and when the guard is closed.

    Args:
        guard: The guard.
        registry: Where the metrics are collected.
        organizations: The ids of at most 50 organizations whose requests are counted apart.

    Raises:
        InvalidValueError: There are more organizations, or one is not an id.
        ValueError: The registry has other metrics of the same names.
    """
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        shared = _shared_metrics()
        if shared.readings.join(guard, organizations):
            shared.watch(guard)
            guard.observers.of_beat += (shared.write,)
            guard.observers.of_end += (partial(_leave_shared, ref(guard)),)
        return
    collector = _collectors.get(registry) or _GuardCollector()
    is_new = collector.readings.join(guard, organizations)
    if registry not in _collectors:
        registry.register(collector)
        _collectors[registry] = collector
    if is_new:
        collector.watch(guard)
        guard.observers.of_end += (partial(_leave, ref(guard), registry),)


def _leave(reference: ref[AnyGuard], registry: CollectorRegistry) -> None:
    guard, collector = reference(), _collectors[registry]
    if guard is not None and collector.readings.leave(guard):
        registry.unregister(collector)
        del _collectors[registry]


def _leave_shared(reference: ref[AnyGuard]) -> None:
    guard, shared = reference(), _shared_metrics()
    if guard is not None:
        shared.write()
        shared.readings.leave(guard)


class _Metrics:
    """The metrics of some guards."""

    def __init__(self) -> None:
        self.readings = Readings()
        self._durations = Histogram(
            DURATION.family,
            DURATION.description,
            DURATION.label_names,
            buckets=BUCKETS,
            registry=None,
        )

    def watch(self, guard: AnyGuard) -> None:
        """Measure how long the calls of a guard's stores take."""
        guard.observers.of_keys += (self._observe,)
        guard.observers.of_counters += (self._observe,)

    def _observe(self, operation: str, system: str) -> AbstractContextManager[None]:
        return timed(partial(self._record, operation, system))

    def _record(self, operation: str, system: str, error: str, seconds: float) -> None:
        self._durations.labels(operation, system, error).observe(seconds)


class _GuardCollector(_Metrics, Collector):
    """Reads the metrics of guards when they are collected."""

    def describe(self) -> Iterator[Metric]:
        """Return the metrics without values, by which a registry finds names in use."""
        yield from map(_family, INSTRUMENTS)
        yield from self._durations.describe()

    def collect(self) -> Iterator[Metric]:
        """Return the metrics with their present values."""
        families = {instrument: _family(instrument) for instrument in INSTRUMENTS}
        for (instrument, labels), value in self.readings.take().items():
            families[instrument].add_metric(labels, value)
        yield from (family for family in families.values() if family.samples)
        yield from self._durations.collect()


def _family(instrument: Instrument) -> CounterMetricFamily | GaugeMetricFamily:
    kind = CounterMetricFamily if instrument.kind is Kind.COUNTER else GaugeMetricFamily
    return kind(instrument.family, instrument.description, labels=instrument.label_names)


class _SharedMetrics(_Metrics):
    """Writes the metrics of this process into the files of the multiprocess mode.

    This mode calls no collector. A metric is made when it first has a value: a gauge that was never
    set would show 0.
    """

    def __init__(self) -> None:
        super().__init__()
        self._made: dict[Instrument, Counter | Gauge] = {}
        self._start_afresh()
        # No process forks while this one writes: its child would wait for prometheus-client's lock.
        around_fork(self._hold, self._release, self._start_afresh)

    def _start_afresh(self) -> None:
        self._lock = threading.Lock()
        self._written = defaultdict[Series, float](float)

    def _hold(self) -> None:
        self._lock.acquire()

    def _release(self) -> None:
        self._lock.release()

    def write(self) -> None:
        """Write the counts since the last call, and the present state."""
        with self._lock:
            for series, value in self.readings.take().items():
                metric = self._metric(*series)
                if isinstance(metric, Counter):
                    metric.inc(value - self._written[series])
                    self._written[series] = value
                else:
                    metric.set(value)

    def _metric(self, instrument: Instrument, labels: Labels) -> Counter | Gauge:
        metric = self._made.get(instrument)
        if metric is None:
            metric = self._made[instrument] = _make(instrument)
        return metric.labels(*labels) if labels else metric

    def _record(self, operation: str, system: str, error: str, seconds: float) -> None:
        with self._lock:
            super()._record(operation, system, error, seconds)


def _make(instrument: Instrument) -> Counter | Gauge:
    names = instrument.family, instrument.description, instrument.label_names
    match instrument.kind:
        case Kind.COUNTER:
            return Counter(*names, registry=None)
        case Kind.LARGEST:
            return Gauge(*names, registry=None, multiprocess_mode="livemax")
        case Kind.SMALLEST:
            return Gauge(*names, registry=None, multiprocess_mode="livemin")
        case _:
            return Gauge(*names, registry=None, multiprocess_mode="livesum")


@cache
def _shared_metrics() -> _SharedMetrics:
    """Return the only instance of a process: two would overwrite each other's values."""
    return _SharedMetrics()


_collectors = WeakKeyDictionary[CollectorRegistry, _GuardCollector]()
