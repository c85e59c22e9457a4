"""The adapter store: one folder of thousands, some of them in memory, loaded and freed by a thread of their own."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import final

from tunedeck.core.errors import (
    AdapterError,
    AdapterFileError,
    BaseMismatchError,
    DrainingError,
    TunedeckError,
    UnsupportedKindError,
)
from tunedeck.core.messages import say
from tunedeck.serving.backend import Backend
from tunedeck.serving.names import Form, Memory, Root, unknown
from tunedeck.serving.residents import Lease, Resident, Residents

Listener = Callable[[str, str], None]
"""Told of (event, adapter): hit, miss, load, fail, evict, unload."""

_LASTING = (AdapterFileError, BaseMismatchError, UnsupportedKindError)
"""What trying again cannot mend until the files change."""


@final
@dataclass(eq=False)
class _Job:
    """One load under way; everybody who asks for the name meanwhile waits for the same."""

    name: str
    version: int
    pin: bool | None
    """None: as it was before."""
    explicit: bool
    """Asked for by an operator: goes on even when nobody waits for its answer any more."""
    waiting: list[Future[Lease]] = field(default_factory=list)
    withdrawn: bool = False

    @property
    def wanted(self) -> bool:
        return not self.withdrawn and (self.explicit or any(not one.cancelled() for one in self.waiting))


@final
class AdapterStore:
    """Adapters by name, from `root` only, at most `max_bytes` of them in memory.

    A name is loaded on its first use, off the thread that serves, and evicted when it is the least recently used, unless it is in
    use or pinned. Every load makes a new version; the one before it stays until its last lease is closed.
    """

    def __init__(
        self,
        root: Path,
        backend: Backend,
        max_bytes: int,
        listener: Listener = lambda *_: None,
        form: Form | None = None,
    ) -> None:
        self.root = Root(root, form)
        self.max_bytes = max_bytes
        self._backend = backend
        self._tell = listener
        self._residents = Residents()
        self._jobs: dict[str, _Job] = {}
        self._failed: dict[str, tuple[object, TunedeckError]] = {}
        self._withdrawn: set[str] = set()
        self._versions = 0
        self._closing = False
        self._changed = threading.Condition()
        work = partial(copy_context().run, self._work)  # speaks the language of whoever opened it
        self._loader = threading.Thread(target=work, name="adapter-loader", daemon=True)
        self._loader.start()

    def names(self) -> list[str]:
        """Every name that can be asked for, in memory or not."""
        return [name for name in self.root.names() if name not in self._withdrawn]

    def residents(self) -> list[Resident]:
        """What is in memory under a name, least recently used first."""
        with self._changed:
            return self._residents.all()

    @property
    def bytes(self) -> int:
        """Of all adapters in memory, unloaded ones that are still in use included."""
        with self._changed:
            return self._residents.bytes()

    def acquire(self, name: str) -> Future[Lease]:
        """A lease on the current version: at once when it is in memory, else when it has been loaded.

        The future or this call raises UnknownAdapterError, or the reason why the adapter cannot be loaded.
        """
        with self._changed:
            resident = self._residents.get(name)
            if resident is not None and name not in self._withdrawn:
                self._tell("hit", name)
                ready: Future[Lease] = Future()
                ready.set_result(self._lease(resident))
                return ready
            joins = name in self._jobs and name not in self._withdrawn
        if not joins:
            self._check_servable(name)
        self._tell("miss", name)
        return self._queue(name, pin=None, explicit=False)

    def load(self, name: str, *, pin: bool | None = None) -> Future[Lease]:
        """Load an adapter ahead, or again as a new version; close the lease that comes. `pin` keeps it from eviction, False
        lets it go, None leaves that as it was.

        Raises UnknownAdapterError; the future raises the reason why it cannot be loaded, and then the old version serves on.
        """
        self.root.find(name)
        with self._changed:
            self._withdrawn.discard(name)
            self._failed.pop(name, None)
        return self._queue(name, pin=pin, explicit=True)

    def unload(self, name: str) -> None:
        """Take the name away at once, until it is loaded again; its memory is freed when its last request has finished.

        Raises UnknownAdapterError.
        """
        with self._changed:
            known = name in self._jobs or self._residents.get(name) is not None
            if name in self._withdrawn or not known:
                self._check_servable(name)
            self._withdrawn.add(name)
            if name in self._jobs:
                self._jobs[name].withdrawn = True
            self._residents.retire(name)
            self._changed.notify_all()
        self._tell("unload", name)

    def close(self) -> None:
        """Stop the loader; what waits for a load gets DrainingError."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._loader.join()

    def _check_servable(self, name: str) -> None:
        place = self.root.find(name)
        if name in self._withdrawn:
            raise unknown(name)
        seen, error = self._failed.get(name, (None, None))
        if error is not None and seen == self.root.signature(place):
            raise type(error)(str(error))  # a new one: raised again and again, one error would collect every traceback
        self._failed.pop(name, None)

    def _queue(self, name: str, *, pin: bool | None, explicit: bool) -> Future[Lease]:
        future: Future[Lease] = Future()
        with self._changed:
            if self._closing:
                raise DrainingError(say("the server is shutting down"))
            if name not in self._jobs:
                self._versions += 1
                self._jobs[name] = _Job(name, self._versions, pin, explicit)
            job = self._jobs[name]
            job.pin, job.explicit = job.pin if pin is None else pin, job.explicit or explicit
            job.withdrawn = False if explicit else job.withdrawn
            job.waiting.append(future)
            self._changed.notify_all()
        return future

    def _lease(self, resident: Resident) -> Lease:
        resident.users += 1
        return Lease(resident, self._left)

    def _left(self, resident: Resident) -> None:
        with self._changed:
            resident.users -= 1
            if not resident.users:
                self._changed.notify_all()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closing or self._jobs or self._residents.has_unused_retired())
                job = next(iter(self._jobs.values()), None)
                closing = self._closing
            self._free()
            if closing:
                self._end_jobs()
                return
            if job is not None:
                self._run(job)

    def _run(self, job: _Job) -> None:
        resident, error, seen = None, None, self._signature(job.name)
        try:
            resident = self._load(job)
        except TunedeckError as raised:
            error = type(raised)(str(raised).replace(f"{self.root.folder}{os.sep}", ""))
        except CancelledError:
            error = unknown(job.name)
        except Exception as raised:  # whatever a damaged folder may raise must not end the loader
            error = AdapterFileError(
                say("adapter {name!r} cannot be read: {reason}", name=job.name, reason=repr(raised))
            )
        with self._changed:
            del self._jobs[job.name]
            if resident is not None:
                before = self._residents.get(job.name)
                resident.pinned = before is not None and before.pinned if job.pin is None else job.pin
                self._residents.put(resident)
                if job.withdrawn:
                    self._residents.retire(job.name)
            wanted = [one for one in job.waiting if one.set_running_or_notify_cancel()]
            leases = [self._lease(resident) for _ in wanted] if resident is not None else []
        self._tell("load" if resident is not None else "fail", job.name)
        if error is not None:
            self._remember(job.name, seen, error)
        for index, future in enumerate(wanted):
            if job.withdrawn and leases:
                leases[index].close()
                future.set_exception(unknown(job.name))
            elif leases:
                future.set_result(leases[index])
            else:
                future.set_exception(error)

    def _load(self, job: _Job) -> Resident:
        place = self.root.find(job.name)
        needed = self.root.form.memory(place)
        self._make_room(job, needed)
        key = f"{job.name}@{job.version}"
        note = self._backend.load(place, key)
        return Resident(job.name, job.version, key, needed, note)

    def _make_room(self, job: _Job, needed: Memory) -> None:
        """Evict until it fits; wait while everything is in use. Raises AdapterError where it can never fit."""
        while True:
            self._free()
            with self._changed:
                if self._closing or not job.wanted:
                    raise CancelledError
                if self._residents.pinned_bytes(needed) > self.max_bytes:
                    raise AdapterError(
                        say(
                            "adapter {name!r} takes {needed} bytes; {limit} are allowed for adapters, {pinned} of them pinned",
                            name=job.name,
                            needed=needed.own + sum(needed.shared.values()),
                            limit=self.max_bytes,
                            pinned=self._residents.pinned_bytes(),
                        )
                    )
                if self._residents.bytes(needed) <= self.max_bytes:
                    return
                victim = self._residents.oldest_unused()
                if victim is None:
                    self._changed.wait(0.2)
                    continue
                self._residents.retire(victim.name)
            self._tell("evict", victim.name)

    def _free(self) -> None:
        """Free retired versions that nobody uses; only the loader's thread does, so that none is freed twice."""
        with self._changed:
            unused = self._residents.take_unused_retired()
        for resident in unused:
            self._backend.remove(resident.key)

    def _remember(self, name: str, seen: object, error: TunedeckError) -> None:
        if isinstance(error, _LASTING) and seen == self._signature(name):  # else it changed while it was read
            self._failed[name] = (seen, error)

    def _signature(self, name: str) -> object:
        """Of the files as they are before they are read; None when the folder is gone."""
        with contextlib.suppress(TunedeckError, OSError):
            return self.root.signature(self.root.find(name))
        return None

    def _end_jobs(self) -> None:
        with self._changed:
            jobs, self._jobs = list(self._jobs.values()), {}
        for future in (one for job in jobs for one in job.waiting):
            if future.set_running_or_notify_cancel():
                future.set_exception(DrainingError(say("the server is shutting down")))
