"""Metrics and traces for OpenTelemetry: ``instrument(guard)``, with ``opentelemetry-api``."""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from importlib.metadata import version
from weakref import WeakKeyDictionary, ref

from keyguard.exceptions import MissingExtraError
from keyguard.telemetry._instruments import BUCKETS, DURATION, INSTRUMENTS, Instrument, Kind, timed
from keyguard.telemetry._readings import AnyGuard, Readings

try:
    from opentelemetry import metrics, trace
    from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation
    from opentelemetry.trace import Status, StatusCode, Tracer, TracerProvider
except ImportError as missing:
    raise MissingExtraError("keyguard.telemetry.opentelemetry", "opentelemetry") from missing

__all__ = ["instrument"]


def instrument(
    guard: AnyGuard,
    *,
    meter_provider: MeterProvider | None = None,
    tracer_provider: TracerProvider | None = None,
    organizations: Collection[str] = (),
) -> None:
    """Offer the metrics of a guard to OpenTelemetry, and name keys in traces, until it is closed.

    The guards of one meter provider are added up. The span that a server has begun for a request
    gets the ids of the request's key and organization. A call of the key store that a request waits
    for gets a span below it.

    Args:
        guard: The guard. Its middleware must not be built yet.
        meter_provider: Where metrics go; by default the global provider.
        tracer_provider: Where the spans of store calls go; by default the global provider.
        organizations: The ids of at most 50 organizations whose requests are counted apart.

    Raises:
        InvalidValueError: There are more organizations, or one is not an id.
        ConfigurationError: A middleware of the guard was built already.
    """
    provider = meter_provider or metrics
    meter = _meters.get(provider)
    if meter is None:
        meter = _meters[provider] = _GuardMeter(meter_provider)
    guard.observe_requests(_name_key)
    if meter.readings.join(guard, organizations):
        tracer = trace.get_tracer("keyguard", version("keyguard"), tracer_provider)
        observers = guard.observers
        observers.of_keys += (meter.observe, partial(_span, tracer))
        observers.of_counters += (meter.observe,)
        observers.of_end += (partial(_leave, ref(guard), meter),)


def _leave(reference: ref[AnyGuard], meter: _GuardMeter) -> None:
    guard = reference()
    if guard is not None:
        meter.readings.leave(guard)


class _GuardMeter:
    """The instruments of one meter provider."""

    def __init__(self, provider: MeterProvider | None) -> None:
        self.readings = Readings()
        meter = metrics.get_meter("keyguard", version("keyguard"), provider)
        create = {
            Kind.COUNTER: meter.create_observable_counter,
            Kind.SUM: meter.create_observable_up_down_counter,
            Kind.LARGEST: meter.create_observable_gauge,
            Kind.SMALLEST: meter.create_observable_gauge,
        }
        for row in INSTRUMENTS:
            read = partial(self._observations, row)
            create[row.kind](row.name, [read], row.unit, row.description)
        self._durations = meter.create_histogram(
            DURATION.name,
            DURATION.unit,
            DURATION.description,
            explicit_bucket_boundaries_advisory=BUCKETS,
        )

    def _observations(self, row: Instrument, _: CallbackOptions) -> Iterator[Observation]:
        for (instrument, labels), value in self.readings.take().items():
            if instrument is row:
                yield Observation(value, _named(row, *labels))

    def observe(self, operation: str, system: str) -> AbstractContextManager[None]:
        """Measure how long a call of a store takes."""
        return timed(partial(self._record, operation, system))

    def _record(self, operation: str, system: str, error: str, seconds: float) -> None:
        self._durations.record(seconds, _named(DURATION, operation, system, error))


def _named(row: Instrument, *labels: str) -> dict[str, str]:
    """Return attributes by name, without those that do not apply."""
    return {name: label for name, label in zip(row.attributes, labels, strict=True) if label}


def _name_key(key_id: str, organization: str) -> None:
    """Name the key of the present request in the span that its server has begun."""
    span = trace.get_current_span()
    if span.is_recording():
        span.set_attributes({"keyguard.key.id": key_id, "keyguard.organization.id": organization})


@contextmanager
def _span(tracer: Tracer, operation: str, system: str) -> Generator[None]:
    """Give a call of the key store its own span, if it is part of a recorded request."""
    if not trace.get_current_span().is_recording():
        yield
        return
    attributes = _named(DURATION, operation, system, "")
    with tracer.start_as_current_span(
        f"keyguard {operation}",
        attributes=attributes,
        record_exception=False,  # the message of a driver may name a server or a record
        set_status_on_exception=False,
    ) as span:
        try:
            yield
        except BaseException as failure:
            span.set_attribute("error.type", type(failure).__name__)
            span.set_status(Status(StatusCode.ERROR))
            raise


_meters = WeakKeyDictionary[object, _GuardMeter]()
