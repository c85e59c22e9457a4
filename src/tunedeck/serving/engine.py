"""The engine: takes requests from any thread, waits for their adapters, has threads that tokenize and one that runs the
model.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, final

from tunedeck.core.errors import ConfigError, DrainingError, OverloadedError, ServingError, StoppedError
from tunedeck.core.i18n import say
from tunedeck.serving.adapter_cache import Lease
from tunedeck.serving.backends.base import Backend
from tunedeck.serving.bounds import Bounds, exceeded
from tunedeck.serving.choice import AdapterChooser
from tunedeck.serving.fair_queue import FairQueue
from tunedeck.serving.request import Request
from tunedeck.serving.store import AdapterStore
from tunedeck.serving.watched import WatchedThread

_PATIENCE_S = 5.0
_TOKENIZED_TOGETHER = 8
"""Few, so that one caller's long batch holds another's single text up for milliseconds."""


class Worker(Protocol):
    """Define the work that the engine's thread repeats."""

    def step(self) -> bool:
        """Run one batch or one step of it; False when there was nothing to do."""
        ...

    def stop(self) -> None:
        """Fail what is still running."""
        ...


@final
@dataclass(frozen=True, slots=True)
class Limits:
    """How much runs together; `batch_s` is how long a batch may take while several callers ask, so that none waits
    long.
    """

    queued_positions: int = 262_144
    batch_positions: int = 4096
    batch_rows: int = 64
    wait_s: float = 0.002
    batch_s: float = 0.1


@final
class Engine:
    """Submit requests; `done` of each brings its answer. Every request that came in is answered, also while
    draining.
    """

    def __init__(
        self,
        store: AdapterStore,
        backend: Backend,
        queue: FairQueue,
        worker: Worker,
        limits: Limits,
        on_done: Callable[[Request], None] = lambda _: None,
        bounds: Bounds | None = None,
        chooser: AdapterChooser | None = None,
    ) -> None:
        self.store = store
        self.queue = queue
        self.limits = limits
        self.bounds = bounds or Bounds()
        self.chooser = chooser
        """Chooses adapters for texts; None where the backend cannot run the base model alone."""
        self._backend, self._worker, self._on_done = backend, worker, on_done
        self._untokenized = FairQueue()
        queue.coming = self._coming
        self._inside: set[Request] = set()
        self._callers: Counter[str] = Counter()
        self._lock = threading.Condition()
        self._draining = False
        self._recent_s = 1.0
        self._idle_s = min(0.5, self.bounds.stall_time / 4)
        self._threads = [WatchedThread("engine", self._step, self._engine_ended)]
        for number in range(self.bounds.tokenizers):
            self._threads.append(WatchedThread(f"tokenizer-{number}", self._tokenize, self._ended))
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def in_flight(self) -> int:
        """Return requests that wait or run."""
        return len(self._inside)

    @property
    def ready(self) -> bool:
        """Tell whether requests are taken."""
        return not self._draining and all(thread.fault is None for thread in self._threads)

    def alarm(self) -> str | None:
        """Return why nothing is answered any more, because a thread is stuck or has died; None when all is well."""
        found = [thread.alarm(self.bounds.stall_time) for thread in self._threads]
        return next(
            (reason for reason in (*found, self.store.alarm(self.bounds.stall_time)) if reason is not None), None
        )

    def inside(self) -> list[Request]:
        """Return the requests that wait or run now."""
        with self._lock:
            return list(self._inside)

    def _coming(self) -> int:
        """Return the number of requests that are on their way to the queue."""
        return sum(not request.width and not request.done.done() for request in self.inside())

    def submit(self, *requests: Request, most: int | None = None) -> None:
        """Take requests of one caller in, all of them or none; `most` is what the caller may have inside.

        Raises DrainingError, StoppedError, OverloadedError, ConfigError for more than can ever be taken together,
        UnknownAdapterError and what else the store says.
        """
        self._admit(requests, most)
        acquired: list[Future[Lease] | None] = []
        try:
            for request in requests:
                acquired.append(None if request.adapter is None else self.store.acquire(request.adapter))
        except BaseException:
            for lease in acquired:
                if lease is not None:
                    lease.add_done_callback(_close)
                    lease.cancel()
            self._leave(*requests)
            raise
        for request, lease in zip(requests, acquired, strict=True):
            request.done.add_done_callback(partial(self._left, request, lease))
            if lease is None:
                self._untokenized.put(request)
            else:
                lease.add_done_callback(partial(self._acquired, request))

    def drain(self, timeout_s: float) -> bool:
        """Take nothing new and wait for what is inside; False when some of it is not done in time."""
        with self._lock:
            self._draining = True
            return self._lock.wait_for(lambda: not self._inside, timeout_s)

    def fail_inside(self, error: ServingError | None = None) -> None:
        """Let everything that waits or runs fail at once, with DrainingError unless another error is given."""
        self._draining = self._draining or error is None
        for request in self.inside():
            request.fail(error or DrainingError(say("the server is shutting down")))

    def close(self) -> None:
        """Stop at once: what is still inside fails with DrainingError. A thread that is stuck is left behind."""
        self._draining = True
        for thread in self._threads:
            thread.stop()
        self.queue.close()
        self._untokenized.wake()
        for thread in self._threads:
            thread.join(_PATIENCE_S)
        self.fail_inside()
        self.store.close()

    def _admit(self, requests: tuple[Request, ...], most: int | None) -> None:
        count, limit = len(requests), self.bounds.max_requests
        own = limit if most is None else min(most, limit)
        if count > own:
            raise ConfigError(exceeded("max_requests", count, own))
        with self._lock:
            if self._draining:
                raise DrainingError(say("the server is shutting down"))
            if not self.ready:
                raise StoppedError(say("the engine has stopped because of a fault; start the server again"))
            caller, wait_s = requests[0].caller, max(1.0, round(self._recent_s))
            if len(self._inside) + count > limit or self.queue.positions > self.limits.queued_positions:
                raise OverloadedError(
                    say(
                        "{count} requests are waiting; try again in {seconds:.0f} s",
                        count=len(self._inside),
                        seconds=wait_s,
                    ),
                    wait_s,
                )
            if own < limit:  # several keys share: one more request fits, however many the others have
                own = min(own, limit // (len({caller, *self._callers}) + 1))
            if self._callers[caller] + count > own:
                raise OverloadedError(
                    say(
                        "this key has {count} inputs in flight and may have {limit}; try again in {seconds:.0f} s",
                        count=self._callers[caller],
                        limit=own,
                        seconds=wait_s,
                    ),
                    wait_s,
                )
            self._inside.update(requests)
            self._callers[caller] += count

    def _acquired(self, request: Request, acquired: Future[Lease]) -> None:
        if acquired.cancelled():
            return
        error = acquired.exception()
        if error is not None:
            request.fail(error)
            return
        request.lease = acquired.result()
        self._untokenized.put(request)
        if request.done.done():
            request.lease.close()

    def _tokenize(self) -> None:
        """Tokenize what waits, a few inputs at a time."""
        taken = self._untokenized.take(lambda _: True, _TOKENIZED_TOGETHER)
        if not taken:
            self._untokenized.wait(self._idle_s)
        for key in dict.fromkeys(request.key for request in taken):
            self._encode([request for request in taken if request.key == key], key)

    def _encode(self, requests: list[Request], key: str | None) -> None:
        try:
            rows = self._backend.encode([request.content for request in requests], key)
            widths = [self._backend.width(ids, key) for ids in rows]
        except Exception as error:
            if len(requests) == 1:
                requests[0].fail(error)
            else:
                for request in requests:
                    self._encode([request], key)
            return
        for request, ids, width in zip(requests, rows, widths, strict=True):
            request.ids, request.width = ids, width
            self.queue.put(request)

    def _left(self, request: Request, acquired: Future[Lease] | None, _: Future[Any]) -> None:
        if acquired is not None:
            acquired.cancel()
        if request.lease is not None:
            request.lease.close()
        self._recent_s = 0.9 * self._recent_s + 0.1 * (time.monotonic() - request.arrived_s)
        self._on_done(request)
        self._leave(request)

    def _leave(self, *requests: Request) -> None:
        with self._lock:
            self._inside.difference_update(requests)
            self._callers.subtract(Counter(request.caller for request in requests))
            self._callers += Counter()  # callers with nothing inside are forgotten
            self._lock.notify_all()

    def _step(self) -> None:
        self.queue.run_calls()
        if not self._worker.step():
            self.queue.wait(self._idle_s)

    def _engine_ended(self) -> None:
        self._ended()
        self._worker.stop()

    def _ended(self) -> None:
        """One of the threads has been stopped, or has died: then nothing more can be answered."""
        if any(thread.fault is not None for thread in self._threads):
            self.queue.close()
            self.fail_inside(StoppedError(say("the engine has stopped because of a fault; start the server again")))


def _close(acquired: Future[Lease]) -> None:
    if not acquired.cancelled() and acquired.exception() is None:
        acquired.result().close()
