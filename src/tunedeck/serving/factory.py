"""Open an engine: a queue, an adapter store, a worker and the threads that run them, put together in one place."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, final

from tunedeck.core.errors import ConfigError
from tunedeck.core.helper_threads import end_helper_threads
from tunedeck.core.i18n import say
from tunedeck.deck.deck import Deck
from tunedeck.serving.backends.base import Backend, BatchBackend
from tunedeck.serving.backends.deck import batch_backend
from tunedeck.serving.backends.generate import GenerateBackend
from tunedeck.serving.bounds import Bounds
from tunedeck.serving.choice import AdapterChooser
from tunedeck.serving.engine import Engine, Limits, Worker
from tunedeck.serving.fair_queue import FairQueue
from tunedeck.serving.repository import RepositoryLayout
from tunedeck.serving.request import Request
from tunedeck.serving.store import AdapterStore
from tunedeck.serving.workers.batch import BatchWorker
from tunedeck.serving.workers.generate import GenerateWorker, GenerationLimits

ADAPTER_BYTES = 1 << 30
"""Memory for adapters unless another limit is given."""


class Listener(Protocol):
    """An observer of an engine, such as metrics; its methods are called on the engine's threads."""

    def on_store_event(self, event: str, adapter: str) -> None:
        """Handle an event of the adapter store: hit, miss, load, fail, evict or unload."""
        ...

    def on_step(self, rows: int) -> None:
        """Handle a decoding step and its number of rows."""
        ...

    def on_done(self, request: Request) -> None:
        """Handle a request that has its answer or its error."""
        ...


@final
class Silent:
    """A listener that ignores everything."""

    def on_store_event(self, event: str, adapter: str) -> None:
        """Ignore it."""

    def on_step(self, rows: int) -> None:
        """Ignore it."""

    def on_done(self, request: Request) -> None:
        """Ignore it."""


_SILENT = Silent()


def open_engine(
    deck: Deck,
    root: str | Path,
    *,
    adapter_bytes: int = ADAPTER_BYTES,
    limits: Limits | None = None,
    generation: GenerationLimits | None = None,
    bounds: Bounds | None = None,
    listener: Listener = _SILENT,
) -> Engine:
    """Open an engine that answers requests by a deck and the adapters in the folder `root`, mixed in one batch.

    Requests name adapters by their folders' names below `root`; each is loaded at its first use, and at most
    `adapter_bytes` of them stay in memory. `limits` says how much runs together, `generation` the same for text
    generation, `bounds` what one request may take. The engine is a context manager; closing it ends its threads and
    leaves the deck as it is.

    Raises ConfigError when the folder does not exist or the base model cannot be served.
    """
    queue, limits = FairQueue(), limits or Limits()
    backend: Backend
    worker: Worker
    if "text" in deck.task.capabilities:
        generation = generation or GenerationLimits()
        backend = generating = GenerateBackend(deck, bounds, queue.call, generation.prompt_cache_bytes)
        worker = GenerateWorker(generating, queue, generation, listener.on_step)
    else:
        backend = answering = batch_backend(deck, queue.call)
        worker = BatchWorker(answering, queue, limits)
    end_helper_threads()  # of the thread that has loaded the base: from here on another computes
    return _engine(backend, worker, queue, root, None, adapter_bytes, limits, bounds or Bounds(), listener, deck)


def open_batch_engine(
    backend: BatchBackend,
    root: str | Path,
    *,
    layout: RepositoryLayout | None = None,
    adapter_bytes: int = ADAPTER_BYTES,
    limits: Limits | None = None,
    bounds: Bounds | None = None,
    listener: Listener = _SILENT,
) -> Engine:
    """Open an engine over any backend that answers whole batches, such as ONNX Runtime; `layout` is its adapters'."""
    queue, limits = FairQueue(), limits or Limits()
    worker = BatchWorker(backend, queue, limits)
    return _engine(backend, worker, queue, root, layout, adapter_bytes, limits, bounds or Bounds(), listener)


def _engine(
    backend: Backend,
    worker: Worker,
    queue: FairQueue,
    root: str | Path,
    layout: RepositoryLayout | None,
    adapter_bytes: int,
    limits: Limits,
    bounds: Bounds,
    listener: Listener,
    deck: Deck | None = None,
) -> Engine:
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise ConfigError(say("there is no folder {path}; name the one that holds the adapter folders", path=root))
    store = AdapterStore(folder, backend, adapter_bytes, listener.on_store_event, layout, bounds)
    chooser = None if deck is None else AdapterChooser(deck, store, queue.call)
    return Engine(store, backend, queue, worker, limits, listener.on_done, bounds, chooser)
