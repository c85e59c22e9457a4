"""The engine: takes requests from any thread, waits for their adapters, and has one thread that runs the model."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, final

from tunedeck.core.errors import DrainingError, OverloadedError
from tunedeck.core.messages import say
from tunedeck.core.native import end_helper_threads, keep_freed_memory
from tunedeck.serving.backend import Backend
from tunedeck.serving.queue import FairQueue
from tunedeck.serving.request import Request
from tunedeck.serving.residents import Lease
from tunedeck.serving.store import AdapterStore


class Worker(Protocol):
    """What the engine's thread does, again and again."""

    def step(self) -> bool:
        """Run one batch or one step of it; False when there was nothing to do."""
        ...

    def stop(self) -> None:
        """Fail what is still running."""
        ...


@final
@dataclass(frozen=True, slots=True)
class Limits:
    """How much is let in and how much runs together. `in_flight` counts requests that wait or run."""

    in_flight: int = 512
    queued_positions: int = 262_144
    batch_positions: int = 4096
    batch_rows: int = 64
    wait_s: float = 0.002


@final
class Engine:
    """Submit requests; `done` of each brings its answer. Every request that came in is answered, also while draining."""

    def __init__(
        self,
        store: AdapterStore,
        backend: Backend,
        queue: FairQueue,
        worker: Worker,
        limits: Limits,
        finished: Callable[[Request], None] = lambda _: None,
    ) -> None:
        self.store = store
        self.queue = queue
        self.limits = limits
        self._backend, self._worker, self._finished = backend, worker, finished
        self._inside: set[Request] = set()
        self._lock = threading.Condition()
        self._draining = self._stopping = False
        self._recent_s = 1.0
        keep_freed_memory()
        end_helper_threads()  # of whoever loaded the base
        work = partial(copy_context().run, self._run)  # speaks the language of whoever opened it
        self._thread = threading.Thread(target=work, name="engine", daemon=True)
        self._thread.start()

    @property
    def in_flight(self) -> int:
        """Requests that wait or run."""
        return len(self._inside)

    @property
    def ready(self) -> bool:
        """Whether requests are taken."""
        return not self._draining and self._thread.is_alive()

    def alarm(self) -> str | None:
        """Why the engine cannot go on; None when it is well."""
        return None if self._thread.is_alive() or self._stopping else say("the engine has ended")

    def fail_inside(self) -> None:
        """Fail everything that is inside."""
        for request in self.inside():
            request.fail(DrainingError(say("the server is shutting down")))

    def inside(self) -> list[Request]:
        """The requests that wait or run now."""
        with self._lock:
            return list(self._inside)

    def submit(self, request: Request) -> Future[Any]:
        """Take a request in. Raises DrainingError, OverloadedError, or UnknownAdapterError and what else the store says."""
        with self._lock:
            if self._draining:
                raise DrainingError(say("the server is shutting down"))
            full = len(self._inside) >= self.limits.in_flight or self.queue.positions > self.limits.queued_positions
            if full:
                wait_s = max(1.0, round(self._recent_s))
                raise OverloadedError(
                    say(
                        "{count} requests are waiting; try again in {seconds:.0f} s",
                        count=len(self._inside),
                        seconds=wait_s,
                    ),
                    wait_s,
                )
            self._inside.add(request)
        acquired: Future[Lease] | None = None
        try:
            if request.adapter is not None:
                acquired = self.store.acquire(request.adapter)
        except BaseException:
            self._leave(request)
            raise
        request.done.add_done_callback(partial(self._left, request, acquired))
        if acquired is None:
            self._enqueue(request)
        else:
            acquired.add_done_callback(partial(self._acquired, request))
        return request.done

    def drain(self, timeout_s: float) -> bool:
        """Take nothing new and wait for what is inside; False when some of it is not done in time."""
        with self._lock:
            self._draining = True
            return self._lock.wait_for(lambda: not self._inside, timeout_s)

    def close(self) -> None:
        """Stop at once: what is still inside fails with DrainingError."""
        self._draining = self._stopping = True
        self.queue.wake()
        self._thread.join()
        for request in self.inside():
            request.fail(DrainingError(say("the server is shutting down")))
        self.store.close()

    def _acquired(self, request: Request, acquired: Future[Lease]) -> None:
        if acquired.cancelled():
            return
        error = acquired.exception()
        if error is not None:
            request.fail(error)
            return
        request.lease = acquired.result()
        self._enqueue(request)
        if request.done.done():
            request.lease.close()

    def _enqueue(self, request: Request) -> None:
        try:
            request.ids = self._backend.encode(request.content, request.key)
            request.width = self._backend.width(request.ids, request.key)
        except Exception as error:
            request.fail(error)
            return
        self.queue.put(request)

    def _left(self, request: Request, acquired: Future[Lease] | None, _: Future[Any]) -> None:
        if acquired is not None:
            acquired.cancel()
        if request.lease is not None:
            request.lease.close()
        self._recent_s = 0.9 * self._recent_s + 0.1 * (time.monotonic() - request.arrived_s)
        self._finished(request)
        self._leave(request)

    def _leave(self, request: Request) -> None:
        with self._lock:
            self._inside.discard(request)
            self._lock.notify_all()

    def _run(self) -> None:
        while not self._stopping:
            if not self._worker.step():
                self.queue.wait(0.5)
        self._worker.stop()
