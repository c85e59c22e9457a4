"""OpenTelemetry spans: one of the server for each request, with its times in the queue and in computing as children. No
texts.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, final

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

_WANTED = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
Timing = tuple[float | None, float | None]
"""Seconds from arrival to the start of the batch, and from there to the answer."""


class Tracer(Protocol):
    """Whoever is told of each request at its end."""

    def ended(
        self, name: str, headers: Mapping[bytes, bytes], lasted_s: float, timing: Timing, attributes: dict[str, Any]
    ) -> None:
        """Return a request that has just ended after `lasted_s` seconds."""
        ...

    def close(self) -> None:
        """Send what has not been sent."""
        ...


def tracer_of_environment() -> Tracer | None:
    """Return a tracer where the extra `otel` is installed and OpenTelemetry's variables name an endpoint, else None."""
    if not any(os.environ.get(name) for name in _WANTED):
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ModuleNotFoundError:
        return None
    return SpanTracer(OTLPSpanExporter(), at_once=False)


@final
class SpanTracer:
    """Makes spans after the fact, from times that have been taken anyway, and gives them to an exporter."""

    def __init__(self, exporter: SpanExporter, *, at_once: bool) -> None:
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        name = os.environ.get("OTEL_SERVICE_NAME", "tunedeck")
        self._provider = TracerProvider(resource=Resource.create({SERVICE_NAME: name}))
        self._provider.add_span_processor((SimpleSpanProcessor if at_once else BatchSpanProcessor)(exporter))
        self._tracer = self._provider.get_tracer("tunedeck.server")
        self._propagator = TraceContextTextMapPropagator()

    def ended(
        self, name: str, headers: Mapping[bytes, bytes], lasted_s: float, timing: Timing, attributes: dict[str, Any]
    ) -> None:
        """Return a request that has just ended; its parent is the span that its `traceparent` names."""
        from opentelemetry.trace import SpanKind, set_span_in_context

        carrier = {
            key: headers[key.encode()].decode("latin-1")
            for key in ("traceparent", "tracestate")
            if key.encode() in headers
        }
        end = time.time_ns()
        begin = end - _ns(lasted_s)
        known = {key: value for key, value in attributes.items() if value is not None}
        parent = self._propagator.extract(carrier)
        span = self._tracer.start_span(name, parent, SpanKind.SERVER, known, start_time=begin)
        for part, seconds in zip(("queue", "compute"), timing, strict=True):
            if seconds is not None:
                child = self._tracer.start_span(part, set_span_in_context(span), start_time=begin)
                begin += _ns(seconds)
                child.end(begin)
        span.end(end)

    def close(self) -> None:
        """Send what has not been sent."""
        self._provider.shutdown()


def _ns(seconds: float) -> int:
    return int(1e9 * seconds)
