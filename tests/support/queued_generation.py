"""Rows for the tests of generation's worker: every saved adapter, and requests in its queue."""

from __future__ import annotations

import tunedeck as td
from support import served_adapters
from support.waiting import SOON
from tunedeck.generation.sequence import Sequence
from tunedeck.serving.backends.generate import GenerateBackend
from tunedeck.serving.fair_queue import FairQueue
from tunedeck.serving.request import Request
from tunedeck.serving.store import AdapterStore

ADAPTERS = [f"{kind}-{number}" for kind in served_adapters.KINDS for number in (1, 2)]
NAMES = [None, *ADAPTERS]


def solo_deck() -> td.Deck:
    deck = served_adapters.base_deck("causal")
    for name in ADAPTERS:
        deck.load_adapter(served_adapters.saved_adapters("causal") / name)
    return deck


def asked(text: str, tokens: int = 10) -> Sequence:
    return Sequence([{"role": "user", "content": text}], td.Sampling(max_tokens=tokens))


def tokens_of(name: str | None) -> int:
    """The bare base's rows leave first, and the others close up."""
    return 2 if name is None else 10


def queued(names: list[str | None], texts: list[str], backend: GenerateBackend, queue: FairQueue) -> list[Request]:
    store = AdapterStore(served_adapters.saved_adapters("causal"), backend, max_bytes=10_000_000)
    requests = [Request(name, asked(text, tokens_of(name))) for name, text in zip(names, texts, strict=True)]
    for request in requests:
        request.lease = None if request.adapter is None else store.acquire(request.adapter).result(SOON)
        (request.ids,) = backend.encode([request.content], request.key)
        request.width = backend.width(request.ids, request.key)
        queue.put(request)
    store.close()
    return requests
