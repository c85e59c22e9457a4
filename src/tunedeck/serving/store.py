"""Store adapters: a folder of thousands, some of them in memory, loaded and freed by a separate thread.

The file is long because callers and the loading thread change the same tables under one lock.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from contextvars import copy_context
from functools import partial
from pathlib import Path
from typing import final

from tunedeck.core.errors import (
    AdapterError,
    AdapterFileError,
    DrainingError,
    OverloadedError,
    TunedeckError,
)
from tunedeck.core.i18n import say
from tunedeck.core.patterns import time_limit
from tunedeck.serving.adapter_cache import AdapterCache, CachedAdapter, Lease
from tunedeck.serving.backends.base import Backend, Loaded, LoadsTogether
from tunedeck.serving.bounds import Bounds, exceeded
from tunedeck.serving.failures import Failures
from tunedeck.serving.jobs import Job
from tunedeck.serving.repository import AdapterMemory, AdapterRepository, RepositoryLayout, unknown

Listener = Callable[[str, str], None]
"""Callback with (event, adapter): hit, miss, load, fail, evict, unload."""

_LEAVING_S = 10.0
"""For the load under way when the store is closed; a stuck one is left behind."""

_LOADER_NICE = 5
_TOGETHER = 16
"""Adapters that are loaded together at most: their stored probes are one batch, for which the others wait."""


@final
class AdapterStore:
    """Adapters by name, from `root` only, at most `max_bytes` of them in memory.

    A name is loaded on its first use, off the thread that serves, and evicted when it is the least recently used,
    unless it is in use or pinned. Every load makes a new version; the one before it stays until its last lease is
    closed.
    """

    def __init__(
        self,
        root: Path,
        backend: Backend,
        max_bytes: int,
        listener: Listener = lambda *_: None,
        layout: RepositoryLayout | None = None,
        bounds: Bounds = Bounds(),  # noqa: B008 - frozen
    ) -> None:
        self.repository = AdapterRepository(root, layout)
        self.max_bytes = max_bytes
        self._backend = backend
        self._tell = listener
        self._bounds = bounds
        self._cache = AdapterCache()
        self._jobs: dict[str, Job] = {}
        self._failures = Failures(self.repository)
        self._withdrawn: set[str] = set()
        self._versions = 0
        self._closing = False
        self._busy_since: float | None = None
        self._changed = threading.Condition()
        work = partial(copy_context().run, self._work)  # messages in the language of the thread that opened it
        self._loader = threading.Thread(target=work, name="adapter-loader", daemon=True)
        self._loader.start()

    def names(self) -> list[str]:
        """Return every name that can be asked for, in memory or not."""
        return [name for name in self.repository.names() if name not in self._withdrawn]

    def cached(self) -> list[CachedAdapter]:
        """Return the adapters in memory by name, least recently used first."""
        with self._changed:
            return self._cache.all()

    @property
    def bytes(self) -> int:
        """Return the bytes of all adapters in memory, including unloaded ones that are still in use."""
        with self._changed:
            return self._cache.bytes()

    def note(self, adapter: CachedAdapter) -> str | None:
        """Return what the load of a cached adapter could not check, and whether its files have changed since."""
        changed = adapter.signature != self._signature(adapter.name)
        notes = [adapter.note, say("its files have changed since it was loaded; load it again") if changed else None]
        return "; ".join(note for note in notes if note) or None

    def alarm(self, stall_s: float) -> str | None:
        """Return why nothing can be loaded: the loader has ended, or is busy with one for over `stall_s`; else None."""
        if not self._loader.is_alive() and not self._closing:
            return say("the thread that loads adapters has ended")
        since = self._busy_since
        busy_s = 0.0 if since is None else time.monotonic() - since
        if busy_s > stall_s:
            return say("the thread that loads adapters has been busy with one for {seconds:.0f} s", seconds=busy_s)
        return None

    def acquire(self, name: str) -> Future[Lease]:
        """Return a lease on the current version: at once when it is in memory, else when it has been loaded.

        The future or this call raises UnknownAdapterError, or the reason why the adapter cannot be loaded.
        """
        with self._changed:
            adapter = self._cache.get(name)
            if adapter is not None and name not in self._withdrawn:
                self._tell("hit", name)
                ready: Future[Lease] = Future()
                ready.set_result(self._lease(adapter))
                return ready
            joins = name in self._jobs and name not in self._withdrawn
        if not joins:
            self._check_servable(name)
        self._tell("miss", name)
        return self._queue(name, pin=None, explicit=False)

    def load(self, name: str, *, pin: bool | None = None) -> Future[Lease]:
        """Load an adapter ahead, or again as a new version; close the lease that comes. `pin` keeps it from eviction,
        False lets it go, None leaves that as it was.

        Raises UnknownAdapterError; the future raises the reason why it cannot be loaded, and then the old version
        serves on.
        """
        self.repository.find(name)
        with self._changed:
            self._withdrawn.discard(name)
            self._failures.forget(name)
        return self._queue(name, pin=pin, explicit=True)

    def unload(self, name: str) -> None:
        """Take the name away at once, until it is loaded again; its memory is freed when its last request has finished.

        Raises UnknownAdapterError.
        """
        with self._changed:
            known = name in self._jobs or self._cache.get(name) is not None
            if name in self._withdrawn or not known:
                self._check_servable(name)
            self._withdrawn.add(name)
            if name in self._jobs:
                self._jobs[name].withdrawn = True
            self._cache.retire(name)
            self._changed.notify_all()
        self._tell("unload", name)

    def close(self) -> None:
        """Stop the loader; what waits for a load gets DrainingError."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._loader.join(_LEAVING_S)

    def _check_servable(self, name: str) -> None:
        self.repository.find(name)
        if name in self._withdrawn:
            raise unknown(name)
        self._failures.check(name, self._signature(name))

    def _queue(self, name: str, *, pin: bool | None, explicit: bool) -> Future[Lease]:
        future: Future[Lease] = Future()
        with self._changed:
            if self._closing:
                raise DrainingError(say("the server is shutting down"))
            if name not in self._jobs:
                waiting, limit = len(self._jobs) + 1, self._bounds.max_loading
                if waiting > limit:
                    raise OverloadedError(exceeded("max_loading", waiting, limit), 1.0)
                self._versions += 1
                self._jobs[name] = Job(name, self._versions, pin, explicit)
            job = self._jobs[name]
            job.pin, job.explicit = job.pin if pin is None else pin, job.explicit or explicit
            job.withdrawn = False if explicit else job.withdrawn
            job.waiting.append(future)
            self._changed.notify_all()
        return future

    def _lease(self, adapter: CachedAdapter) -> Lease:
        adapter.users += 1
        return Lease(adapter, self._left)

    def _left(self, adapter: CachedAdapter) -> None:
        with self._changed:
            adapter.users -= 1
            if not adapter.users:
                self._changed.notify_all()

    def _work(self) -> None:
        if sys.platform == "linux":  # where a thread has a priority: answers come before loading
            thread = threading.get_native_id()
            os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + _LOADER_NICE)
        while True:
            self._busy_since = None
            with self._changed:
                self._changed.wait_for(lambda: self._closing or self._jobs or self._cache.has_unused_retired())
                jobs = list(self._jobs.values())[:_TOGETHER]
                closing = self._closing
            self._busy_since = time.monotonic()
            self._free()
            if closing:
                self._end_jobs()
                return
            if jobs:
                self._run(jobs)

    def _run(self, jobs: Sequence[Job]) -> None:
        """Load the first, and together with it those of the others that need no further room."""
        seen = {job.name: self._signature(job.name) for job in jobs}
        needed: dict[str, AdapterMemory] = {}
        found: dict[str, Loaded] = {}
        for job in jobs:
            try:
                memory = self._memory(job)
                if job is jobs[0]:
                    self._make_room(job, memory)
                elif not job.wanted or self._cache.bytes(*needed.values(), memory) > self.max_bytes:
                    continue
                needed[job.name] = memory
            except CancelledError:
                found[job.name] = unknown(job.name)
            except Exception as raised:  # no error of a damaged folder may end the loader
                found[job.name] = raised
        chosen = [job for job in jobs if job.name in needed]
        found |= self._loaded(chosen) if chosen else {}
        for job in jobs:
            if job.name in found:
                self._finish(job, seen[job.name], needed.get(job.name), found[job.name])

    def _memory(self, job: Job) -> AdapterMemory:
        needed = self.repository.layout.memory(self.repository.find(job.name))
        size, limit = needed.own + sum(needed.shared.values()), self._bounds.max_folder_memory
        if size > limit:
            raise AdapterFileError(exceeded("max_folder_memory", size, limit))
        return needed

    def _loaded(self, jobs: Sequence[Job]) -> dict[str, Loaded]:
        reading = partial(time_limit, self._bounds.pattern_time)
        try:
            folders = {_key(job): self.repository.find(job.name) for job in jobs}
            if isinstance(self._backend, LoadsTogether):
                by_key = self._backend.load_together(folders, reading)
                return {job.name: by_key[_key(job)] for job in jobs}
        except Exception as raised:
            return dict.fromkeys((job.name for job in jobs), raised)
        return {job.name: self._loaded_alone(_key(job), folders[_key(job)]) for job in jobs}

    def _loaded_alone(self, key: str, folder: Path) -> Loaded:
        try:
            with time_limit(self._bounds.pattern_time):
                return self._backend.load(folder, key)
        except Exception as raised:
            return raised

    def _finish(self, job: Job, seen: object, memory: AdapterMemory | None, found: Loaded) -> None:
        """Give what was loaded to those who wait, or the reason why it was not."""
        adapter = None
        if memory is not None and not isinstance(found, Exception):
            adapter = CachedAdapter(job.name, job.version, _key(job), memory, found, seen)
        with self._changed:
            del self._jobs[job.name]
            if adapter is not None:
                before = self._cache.get(job.name)
                adapter.pinned = before is not None and before.pinned if job.pin is None else job.pin
                self._cache.put(adapter)
                if job.withdrawn:
                    self._cache.retire(job.name)
            wanted = job.still_waiting()
            leases = [self._lease(adapter) for _ in wanted] if adapter is not None else []
        self._tell("load" if adapter is not None else "fail", job.name)
        error = self._failures.translate(job.name, found) if isinstance(found, Exception) else None
        if error is not None and seen == self._signature(job.name):  # else it changed while it was read
            self._failures.remember(job.name, seen, error)
        for index, future in enumerate(wanted):
            if error is not None:
                future.set_exception(error)
            elif job.withdrawn:
                leases[index].close()
                future.set_exception(unknown(job.name))
            else:
                future.set_result(leases[index])

    def _make_room(self, job: Job, needed: AdapterMemory) -> None:
        """Evict until it fits; wait while everything is in use. Raises AdapterError where it can never fit."""
        while True:
            self._free()
            with self._changed:
                if self._closing or not job.wanted:
                    raise CancelledError
                if self._cache.pinned_bytes(needed) > self.max_bytes:
                    raise AdapterError(
                        say(
                            "adapter {name!r} takes {needed} bytes; {limit} are allowed for adapters, {pinned} "
                            "of them pinned",
                            name=job.name,
                            needed=needed.own + sum(needed.shared.values()),
                            limit=self.max_bytes,
                            pinned=self._cache.pinned_bytes(),
                        )
                    )
                if self._cache.bytes(needed) <= self.max_bytes:
                    return
                victim = self._cache.oldest_unused()
                if victim is None:
                    self._busy_since = None  # waiting for others is not being stuck
                    self._changed.wait(0.2)
                    self._busy_since = time.monotonic()
                    continue
                self._cache.retire(victim.name)
            self._tell("evict", victim.name)

    def _free(self) -> None:
        """Free retired versions that are not in use; only the loader's thread does, so that none is freed twice."""
        with self._changed:
            unused = self._cache.take_unused_retired()
        for adapter in unused:
            try:
                self._backend.remove(adapter.key)
            except Exception:  # must not end the loader
                logging.getLogger("tunedeck.server").exception(
                    say("adapter {name!r} could not be freed", name=adapter.key)
                )

    def _signature(self, name: str) -> object:
        """Return the state of the files before they are read; None when the folder does not exist."""
        with contextlib.suppress(TunedeckError, OSError):
            return self.repository.signature(self.repository.find(name))
        return None

    def _end_jobs(self) -> None:
        with self._changed:
            jobs, self._jobs = list(self._jobs.values()), {}
        for job in jobs:
            job.fail(DrainingError(say("the server is shutting down")))


def _key(job: Job) -> str:
    return f"{job.name}@{job.version}"
