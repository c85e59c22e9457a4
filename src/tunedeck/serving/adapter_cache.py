"""Adapters in memory: who uses them, which may go, and how many bytes they take."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import final

from tunedeck.serving.repository import AdapterMemory


@final
@dataclass(eq=False, slots=True)
class CachedAdapter:
    """One version of an adapter in memory. `key` is its name in the backend, used once and never again."""

    name: str
    version: int
    key: str
    memory: AdapterMemory
    note: str | None = None
    signature: object = None
    """The state of the files it was loaded from."""
    users: int = 0
    pinned: bool = False

    @property
    def bytes(self) -> int:
        """Return the adapter's bytes; shared parts are counted once for all adapters."""
        return self.memory.own


@final
class Lease:
    """The right to use an adapter, which stays in memory while a lease is open. Closing twice is closing once."""

    def __init__(self, adapter: CachedAdapter, closed: Callable[[CachedAdapter], None]) -> None:
        self.adapter = adapter
        self._closed = closed
        self._open = True
        self._lock = threading.Lock()

    def close(self) -> None:
        """Stop using it."""
        with self._lock:
            was_open, self._open = self._open, False
        if was_open:
            self._closed(self.adapter)


@final
class AdapterCache:
    """The current version of each adapter, least recently used first, and old versions that are still in use.

    Not thread-safe: the store holds its lock.
    """

    def __init__(self) -> None:
        self._current: OrderedDict[str, CachedAdapter] = OrderedDict()
        self._retired: list[CachedAdapter] = []
        self._all, self._pinned = _Total(), _Total()

    def get(self, name: str) -> CachedAdapter | None:
        """Return the current version, which counts as used now."""
        found = self._current.get(name)
        if found is not None:
            self._current.move_to_end(name)
        return found

    def all(self) -> list[CachedAdapter]:
        """Return the current versions, least recently used first."""
        return list(self._current.values())

    def bytes(self, *more: AdapterMemory) -> int:
        """Return the bytes of everything in memory, old versions included, and of `more`."""
        return self._all.bytes(*more)

    def pinned_bytes(self, *more: AdapterMemory) -> int:
        """Return the bytes of what may not be evicted, and of `more`."""
        return self._pinned.bytes(*more)

    def put(self, adapter: CachedAdapter) -> None:
        """Make a version the current one; the one before it retires."""
        self.retire(adapter.name)
        self._current[adapter.name] = adapter
        self._all.add(adapter.memory, 1)
        if adapter.pinned:
            self._pinned.add(adapter.memory, 1)

    def retire(self, name: str) -> CachedAdapter | None:
        """Take a name away; its version stays in memory until `free` finds it unused."""
        old = self._current.pop(name, None)
        if old is not None:
            self._retired.append(old)
            if old.pinned:
                self._pinned.add(old.memory, -1)
        return old

    def oldest_unused(self) -> CachedAdapter | None:
        """Return the one to evict: least recently used, not in use, not pinned."""
        return next((one for one in self._current.values() if not one.users and not one.pinned), None)

    def has_unused_retired(self) -> bool:
        """Tell whether there is something to free."""
        return any(not one.users for one in self._retired)

    def take_unused_retired(self) -> list[CachedAdapter]:
        """Return retired versions that are no longer in use, and forget them."""
        unused = [one for one in self._retired if not one.users]
        self._retired = [one for one in self._retired if one.users]
        for one in unused:
            self._all.add(one.memory, -1)
        return unused


@final
class _Total:
    """Bytes of several adapters, what some of them share once."""

    def __init__(self) -> None:
        self._own = 0
        self._sharing: Counter[Hashable] = Counter()
        self._shared: dict[Hashable, int] = {}

    def add(self, memory: AdapterMemory, times: int) -> None:
        """Count one more (1) or one less (-1)."""
        self._own += times * memory.own
        for key, size in memory.shared.items():
            self._sharing[key] += times
            self._shared[key] = size
            if not self._sharing[key]:
                del self._sharing[key], self._shared[key]

    def bytes(self, *more: AdapterMemory) -> int:
        """Return the bytes of what is counted, and of `more`."""
        shared = {key: size for memory in more for key, size in memory.shared.items() if key not in self._shared}
        return self._own + sum(memory.own for memory in more) + sum(self._shared.values()) + sum(shared.values())
