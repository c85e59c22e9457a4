"""OpenTelemetry spans of requests, kept in memory by the SDK's own exporter."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind
from support.asgi_requests import JSON, ask, gate
from support.http_server import bearer, record

from tunedeck.server import tracing
from tunedeck.server.auth import Keys
from tunedeck.server.tracing import SpanTracer, tracer_of_environment

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def timed(scope: Any, receive: Any, send: Any) -> None:
    """An app that tells its times and its model."""
    scope["state"]["timing"], scope["state"]["model"] = (0.5, 0.25), "law"
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"the answer's text"})


def test_a_request_is_a_span_below_its_clients_with_queue_and_compute_as_children() -> None:
    kept = InMemorySpanExporter()
    through = gate(timed, keys=Keys([record("team")]), tracer=SpanTracer(kept, at_once=True))
    headers = {**JSON, **bearer("team"), "Content-Length": "4", "traceparent": PARENT, "X-Request-ID": "my-id"}
    ask(through, "POST", "/classify", headers, [b"w777"])
    queue, compute, whole = kept.get_finished_spans()
    assert (whole.name, whole.kind) == ("POST /classify", SpanKind.SERVER)
    assert whole.parent is not None
    assert whole.context is not None
    assert f"{whole.context.trace_id:032x}-{whole.parent.span_id:016x}" == PARENT[3:-3]
    assert dict(whole.attributes or {}) == {
        "http.request.method": "POST",
        "http.route": "/classify",
        "http.response.status_code": 200,
        "client.address": "10.0.0.7",
        "tunedeck.request_id": "my-id",
        "tunedeck.key": "team",
        "tunedeck.model": "law",
    }
    assert [(span.name, span.parent and span.parent.span_id) for span in (queue, compute)] == [
        ("queue", whole.context.span_id),
        ("compute", whole.context.span_id),
    ]
    assert queue.start_time == whole.start_time
    assert compute.start_time == queue.end_time
    assert [(span.end_time or 0) - (span.start_time or 0) for span in (queue, compute)] == [500_000_000, 250_000_000]
    assert "w777" not in " ".join(span.to_json() for span in (queue, compute, whole))


def test_a_refused_request_is_a_span_too() -> None:
    kept = InMemorySpanExporter()
    ask(gate(keys=Keys([record("team")]), tracer=SpanTracer(kept, at_once=True)), "GET", "/ready", {})
    (span,) = kept.get_finished_spans()
    assert (span.attributes or {})["http.response.status_code"] == 401


def test_spans_are_made_where_the_environment_names_an_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in tracing._WANTED:
        monkeypatch.delenv(name, raising=False)
    assert tracer_of_environment() is None
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    made = tracer_of_environment()
    assert made is not None
    made.close()
