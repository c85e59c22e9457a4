"""Prometheus metrics. Counters carry the adapter's name, histograms do not: thousands of adapters times buckets would
be too many.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, final

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.core import GaugeMetricFamily, Metric

from tunedeck.core.errors import TunedeckError
from tunedeck.generation.sequence import Sequence
from tunedeck.serving.request import Request

if TYPE_CHECKING:
    from tunedeck.serving.engine import Engine

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


@final
class Metrics:
    """Hold one server's metrics in a separate registry."""

    def __init__(self, base: str) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.charge: Callable[[str, int], None] = lambda *_: None
        """Count the tokens that a key has used."""
        self._base = base
        self._responses = self._counter("http_responses", "Answers by route and status", "route", "status")
        self._key_requests = self._counter("key_requests", "Inputs by key and outcome", "key", "outcome")
        self._key_tokens = self._counter("key_tokens", "Tokens by key, of prompts and generated", "key", "kind")
        self._requests = self._counter("requests", "Requests by adapter and outcome", "model", "outcome")
        self._busy = self._counter("request_seconds", "Seconds from arrival to answer, by adapter", "model")
        self._prompt = self._counter("prompt_tokens", "Positions of the inputs, by adapter", "model")
        self._cached = self._counter("cached_prompt_tokens", "Prompt tokens found in the prompt cache", "model")
        self._cache_hits = self._counter("prompt_cache_hits", "Prompts that began with cached tokens", "model")
        self._generated = self._counter("generated_tokens", "Tokens generated, by adapter", "model")
        self._events = self._counter(
            "adapter_events", "hit, miss, load, fail, evict, unload, by adapter", "model", "event"
        )
        self._latency = self._histogram("request_latency_seconds", "From arrival to answer")
        self._waiting = self._histogram("queue_seconds", "From arrival to the start of its batch")
        self._ttft = self._histogram("time_to_first_token_seconds", "From arrival to the first token")
        self._tpot = self._histogram("time_per_output_token_seconds", "Between tokens after the first")
        self._rows = self._histogram("decode_rows", "Rows of a decoding step", (1, 2, 4, 8, 16, 32, 64, 128))

    def watch(self, engine: Engine) -> None:
        """Read queue and residency from the engine at every scrape."""
        self.registry.register(_Now(engine))

    def responded(self, route: str, status: int) -> None:
        """Return an answer over HTTP, refusals included; 499 is a client that left before one."""
        self._responses.labels(route, status).inc()

    def on_store_event(self, event: str, adapter: str) -> None:
        """Count an event of the adapter store."""
        self._events.labels(adapter, event).inc()

    def on_step(self, rows: int) -> None:
        """Record the number of rows of a decoding step."""
        self._rows.observe(rows)

    def on_done(self, request: Request) -> None:
        """Count a request that has its answer or its error."""
        now, model, outcome = time.monotonic(), request.adapter or self._base, _outcome(request)
        self._requests.labels(model, outcome).inc()
        self._key_requests.labels(request.caller, outcome).inc()
        self._busy.labels(model).inc(now - request.arrived_s)
        self._latency.observe(now - request.arrived_s)
        self._prompt.labels(model).inc(request.width)
        if request.started_s is not None:
            self._waiting.observe(request.started_s - request.arrived_s)
        if request.first_token_s is not None:
            self._ttft.observe(request.first_token_s - request.arrived_s)
        if isinstance(request.content, Sequence) and request.content.cached_tokens:
            self._cache_hits.labels(model).inc()
            self._cached.labels(model).inc(request.content.cached_tokens)
        if outcome == "ok" and isinstance(request.content, Sequence) and request.first_token_s is not None:
            tokens = request.content.completion_tokens
            self._generated.labels(model).inc(tokens)
            if tokens > 1:
                self._tpot.observe((now - request.first_token_s) / (tokens - 1))
        self._count_tokens(request, outcome)

    def _count_tokens(self, request: Request, outcome: str) -> None:
        """Count a request's tokens for its key, also of one that its client has left; one that never ran has used
        none.
        """
        if request.started_s is None:
            return
        generated = 0
        if isinstance(request.content, Sequence):
            generated = request.content.completion_tokens if outcome == "ok" else len(request.content.token_ids)
        self._key_tokens.labels(request.caller, "prompt").inc(len(request.ids))
        self._key_tokens.labels(request.caller, "generated").inc(generated)
        self.charge(request.caller, len(request.ids) + generated)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"tunedeck_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...] = _SECONDS) -> Histogram:
        return Histogram(f"tunedeck_{name}", text, registry=self.registry, buckets=buckets)


def _outcome(request: Request) -> str:
    if request.cancelled or request.done.cancelled():
        return "cancelled"
    error = request.done.exception()
    if error is None:
        return "ok"
    return (
        "cancelled"
        if isinstance(error, CancelledError)
        else "refused"
        if isinstance(error, TunedeckError)
        else "failed"
    )


@final
class _Now:
    """Collect the gauges, whose values are read at the time of a scrape."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def collect(self) -> Iterable[Metric]:
        """Yield gauges, and vLLM's `lora_requests_info`, which Kubernetes' inference gateway reads."""
        inside, cached = self._engine.inside(), self._engine.store.cached()
        running = {one.adapter for one in inside if one.adapter and one.started_s is not None}
        waiting = {one.adapter for one in inside if one.adapter and one.started_s is None}
        yield GaugeMetricFamily("tunedeck_requests_in_flight", "Requests that wait or run", len(inside))
        yield GaugeMetricFamily(
            "tunedeck_requests_waiting", "Requests that wait for their turn", len(self._engine.queue)
        )
        yield GaugeMetricFamily("tunedeck_adapters_resident", "Adapters in memory", len(cached))
        yield GaugeMetricFamily("tunedeck_adapters_resident_bytes", "Their bytes", self._engine.store.bytes)
        yield GaugeMetricFamily("tunedeck_adapters_pinned", "Those that stay", sum(one.pinned for one in cached))
        info = GaugeMetricFamily(
            "vllm:lora_requests_info",
            "Adapters of running and of waiting requests; the value is the time",
            labels=["max_lora", "running_lora_adapters", "waiting_lora_adapters"],
        )
        info.add_metric([str(len(cached)), ",".join(sorted(running)), ",".join(sorted(waiting))], time.time())
        yield info
