"""What OpenTelemetry gets of a guard, from its own SDK."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    Histogram,
    HistogramDataPoint,
    InMemoryMetricReader,
    NumberDataPoint,
    Sum,
)
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from keyguard import ConfigurationError, Keyguard
from keyguard.adapters.wsgi import KeyguardMiddleware
from keyguard.telemetry._instruments import BUCKETS, DURATION, INSTRUMENTS, Kind
from keyguard.telemetry.opentelemetry import instrument
from tests.services import until
from tests.telemetry.measured import Service, guard_of, service, wsgi_app


class Collected:
    """The metrics and spans of one test, and a server that begins a span for each request."""

    def __init__(self) -> None:
        self._reader = InMemoryMetricReader()
        self.meters = MeterProvider([self._reader])
        self.traces = TracerProvider()
        self._spans = InMemorySpanExporter()
        self.traces.add_span_processor(SimpleSpanProcessor(self._spans))

    def instrument(self, guard: Any) -> None:
        instrument(guard, meter_provider=self.meters, tracer_provider=self.traces)

    def metrics(self) -> dict[str, Any]:
        data = self._reader.get_metrics_data()
        return {
            metric.name: metric
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.data.data_points
        }

    def value(self, name: str, **attributes: str) -> float | None:
        """Return the value of the only point that has at least these attributes."""
        metric = self.metrics().get(name)
        wanted = {name.replace("__", "."): value for name, value in attributes.items()}
        points: list[NumberDataPoint | HistogramDataPoint] = [
            point
            for point in (metric.data.data_points if metric else ())
            if wanted.items() <= dict(point.attributes or {}).items()
        ]
        assert len(points) <= 1, points
        if not points:
            return None
        point = points[0]
        return point.count if isinstance(point, HistogramDataPoint) else point.value

    def spans(self) -> dict[str, ReadableSpan]:
        return {span.name: span for span in self._spans.get_finished_spans()}

    def forget_spans(self) -> None:
        self._spans.clear()

    def serving(self, app: Any) -> Any:
        """Wrap an application of WSGI or ASGI as OpenTelemetry's instrumentation does."""
        tracer = self.traces.get_tracer("server")

        def wsgi(environ: Any, start_response: Any) -> Any:
            with tracer.start_as_current_span("GET"):
                return app(environ, start_response)

        async def asgi(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] != "http":
                await app(scope, receive, send)
                return
            with tracer.start_as_current_span("GET"):
                await app(scope, receive, send)

        return wsgi if isinstance(app, KeyguardMiddleware) else asgi


@pytest.fixture
def collected() -> Iterator[Collected]:
    collected = Collected()
    yield collected
    collected.meters.shutdown()
    collected.traces.shutdown()


@pytest.fixture(params=["sync", "async"])
def served(
    request: pytest.FixtureRequest, collected: Collected, tmp_path: Path
) -> Iterator[Service]:
    guard = guard_of(request.param, tmp_path)
    collected.instrument(guard)
    with service(guard, collected.serving) as served:
        yield served


def test_every_instrument_has_the_name_unit_and_kind_of_the_table(
    served: Service, collected: Collected
) -> None:
    assert served.ask("/limited") == 200
    until(lambda: "keyguard.feed.up" in collected.metrics())  # the feed is read beside it

    metrics = collected.metrics()
    assert set(metrics) == {row.name for row in (*INSTRUMENTS, DURATION)}
    for row in (*INSTRUMENTS, DURATION):
        metric = metrics[row.name]
        assert (metric.unit, metric.description) == (row.unit, row.description)
        if isinstance(metric.data, Sum):
            assert metric.data.is_monotonic is (row.kind is Kind.COUNTER)
        for point in metric.data.data_points:
            assert set(point.attributes) <= set(row.attributes)
            assert "" not in point.attributes.values()


def test_how_long_calls_of_stores_take_is_measured(served: Service, collected: Collected) -> None:
    assert served.ask("/limited") == 200

    labels = {"db__system__name": "sqlite"}
    assert collected.value(DURATION.name, db__operation__name="hit", **labels) == 1
    assert collected.value(DURATION.name, db__operation__name="commit", **labels) == 2
    data = collected.metrics()[DURATION.name].data
    assert isinstance(data, Histogram)
    assert list(data.data_points[0].explicit_bounds) == list(BUCKETS)


def test_the_span_of_the_server_names_key_and_organization_on_both_paths(
    served: Service, collected: Collected
) -> None:
    for _ in range(2):  # cold, then most often warm
        collected.forget_spans()
        assert served.ask() == 200

        attributes = collected.spans()["GET"].attributes
        assert attributes == {
            "keyguard.key.id": served.issued.key.id,
            "keyguard.organization.id": served.owner,
        }


def test_a_request_without_a_genuine_token_names_nobody(
    served: Service, collected: Collected
) -> None:
    token = served.issued.token.reveal()
    assert [served.ask(token=""), served.ask(token="x"), served.ask(token=token[:-7])] == [401] * 3

    assert not collected.spans()["GET"].attributes


def test_a_look_up_gets_a_span_below_the_request_and_a_warm_request_gets_none(
    served: Service, collected: Collected
) -> None:
    served.ask()
    spans = collected.spans()
    below, above = spans["keyguard find_key"], spans["GET"]
    assert below.parent is not None
    assert above.context is not None
    assert below.parent.span_id == above.context.span_id
    assert below.attributes == {"db.operation.name": "find_key", "db.system.name": "sqlite"}
    assert set(spans) == {"GET", "keyguard find_key"}


def test_a_look_up_that_fails_marks_its_span_without_the_message(
    served: Service, collected: Collected, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find_key(key_id: str) -> None:
        raise OSError("the disk is gone")

    monkeypatch.setattr(served.guard._store, "find_key", find_key)
    assert served.ask() == 503

    span = collected.spans()["keyguard find_key"]
    assert span.status.status_code is StatusCode.ERROR
    assert span.status.description is None
    assert (span.attributes or {})["error.type"] == "OSError"
    assert not span.events
    assert collected.value(DURATION.name, error__type="OSError") == 1


def test_work_beside_requests_gets_no_span(served: Service, collected: Collected) -> None:
    served.run(served.guard.keys.list)
    served.run(served.guard.flush)

    assert collected.spans() == {}


def test_two_guards_are_added_up_and_leave_when_they_end(collected: Collected) -> None:
    first, second = Keyguard("memory://"), Keyguard("memory://")
    for guard in (first, second, second):
        collected.instrument(guard)
        guard._ports.counters.counts["other"][1] += 1

    def count() -> float | None:
        labels = {"keyguard__limit__name": "other", "keyguard__outcome": "allowed"}
        return collected.value("keyguard.limiter.decisions", **labels)

    assert count() == 3
    first.close()
    assert count() == 3, "a counter never falls"
    del second, guard
    gc.collect()
    assert count() is None


def test_a_guard_is_instrumented_before_its_middleware_is_built(collected: Collected) -> None:
    with Keyguard("memory://") as guard:
        KeyguardMiddleware(wsgi_app, guard=guard)
        with pytest.raises(ConfigurationError, match="before you build its middleware"):
            collected.instrument(guard)


def test_a_guard_that_is_used_again_after_its_end_can_be_instrumented_again(
    collected: Collected,
) -> None:
    guard = Keyguard("memory://")
    for _ in range(2):
        collected.instrument(guard)
        KeyguardMiddleware(wsgi_app, guard=guard)
        assert collected.value("keyguard.cache.entry.count") == 0
        guard.close()
        assert collected.value("keyguard.cache.entry.count") is None


def test_without_an_sdk_the_global_providers_take_everything_and_do_nothing() -> None:
    with Keyguard("memory://") as first, Keyguard("memory://") as second:
        for guard in (first, second):
            instrument(guard)
            guard.organizations.create("acme")
